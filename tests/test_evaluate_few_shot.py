"""The script: its configurations are understood, and a run of it is reported and goes on."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from speech_text_cases import ANSWERS, write_corpus

from speechzoo.data.command_grammar import intents
from speechzoo.data.fluent_speech_commands import INTENTS
from speechzoo.evaluation.few_shot_report import FewShotReport
from speechzoo.evaluation.report import read_report
from speechzoo.training.command_line import parse_arguments

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = sorted((ROOT / "examples" / "configs").glob("few_shot_*.yaml"))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate_few_shot", ROOT / "examples" / "evaluate_few_shot.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_configurations_are_understood(script, path):
    groups = (script.FewShotArguments, script.FewShotOutputArguments)
    plan, output = parse_arguments("", *groups, argv=["--config", str(path)])
    assert plan.tasks
    assert {output.topline, output.cascade, output.baseline} - {None} <= set(plan.systems)
    for task in plan.tasks.values():
        assert task.template.demonstration.startswith(task.template.query)


def test_the_tiny_zoo_is_underneath(script):
    assert script.TINY_ZOO in CONFIGURATIONS


def test_the_tiny_language_model_is_asked_for_intents_by_the_names_it_learned(script):
    plan, _ = parse_arguments(
        "", script.FewShotArguments, script.FewShotOutputArguments, argv=["--config", str(script.TINY_ZOO)]
    )
    task = plan.tasks["FSC, 31 intents by name"]
    assert {task.class_of(" ".join(intent)) for intent in INTENTS} == {str(intent) for intent in intents()}


def test_a_run_is_reported_and_goes_on(script, backbones, tmp_path, monkeypatch, capsys):
    corpus = write_corpus(tmp_path / "corpus")
    model, processor = backbones.build()
    model.save_pretrained(tmp_path / "adapter")
    processor.save_pretrained(tmp_path / "adapter")
    template = {"query": "{clip} please", "demonstration": "{clip} please {label} my "}
    content = {
        "shots": [0, 1, 2],
        "seeds": [0, 1],
        "rules": ["likelihood", "exact"],
        "systems": {
            "gold text": {"kind": "text", "model": str(backbones.language_model("llama"))},
            "adapter": {"kind": "adapter", "model": str(tmp_path / "adapter")},
        },
        "neighbors": {"kate": {"of": "projector", "model": str(tmp_path / "adapter")}},
        "tasks": {
            "first word": {
                "train": f"{corpus}@train",
                "test": f"{corpus}@test",
                "label": "text",
                "words": dict(zip(ANSWERS, ["lights", "heat", "shoes", "off"], strict=True)),
                "template": template,
            }
        },
        "topline": "gold text",
        "output_dir": str(tmp_path / "output"),
        "results_file": str(tmp_path / "results" / "few.json"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(script, "use_all_cores", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["evaluate_few_shot.py", "--config", str(tmp_path / "run.yaml")])
    script.main()
    report = read_report(tmp_path / "results" / "few.json", FewShotReport)
    assert report.missing == []
    assert {one.setting.system for one in report.results} == {"gold text", "adapter"}
    assert {one.setting.selection for one in report.results} == {"none", "fixed", "kate"}
    assert all(one.topline is not None for one in report.results)
    assert (tmp_path / "results" / "few.png").is_file()
    assert "## first word" in capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "output" / "predictions").glob("*.jsonl")}
    assert len(times) == 2 + 2 * (2 + 1) + 2 * (2 + 2 + 2)  # without shots; gold text; adapter
    script.main()
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "output" / "predictions").glob("*.jsonl")}
    again = read_report(tmp_path / "results" / "few.json", FewShotReport)
    assert again.results == report.results
