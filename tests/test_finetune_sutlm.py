"""The script that fine-tunes joint models as a user runs it, on SLUE in its layout, by task and what is trained on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from card_cases import check_card
from sutlm_cases import joint_model, joint_processor
from timed_corpus import unit_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoProcessor

from speechzoo.evaluation.slue_entities import END, MARKS
from speechzoo.evaluation.sweep_cells import SweepArguments
from speechzoo.training.command_line import parse_arguments
from speechzoo.training.sutlm_finetuning_arguments import (
    DataArguments,
    OptimizationArguments,
    OutputArguments,
    StartArguments,
    UnderstandingArguments,
)

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "finetune_sutlm.py"
CONFIGURATIONS = sorted((ROOT / "examples" / "configs").glob("sutlm_slue_*.yaml"))
SWEEPS = sorted((ROOT / "examples" / "configs" / "sweeps").glob("sutlm_slue_*.yaml"))
GROUPS = (StartArguments, UnderstandingArguments, DataArguments, OptimizationArguments, OutputArguments)


@pytest.fixture(scope="module")
def pretrained(backbones, tmp_path_factory):
    """An untrained joint model of words and units that names its unit model; it knows none of the marks."""
    folder = tmp_path_factory.mktemp("pretrained")
    for part in unit_model(backbones):
        part.save_pretrained(folder / "units")
    processor = joint_processor()
    processor.name_unit_model(str(folder / "units"))
    joint_model("llama", processor).save_pretrained(folder / "model-7")
    processor.save_pretrained(folder / "model-7")
    return folder


@pytest.fixture
def run(pretrained, tiny_corpora, tmp_path):
    """Runs the script for a few updates; what it leaves: its report, and the words it ended with."""

    def run(task: str, corpus: str, train_on: str, **data: object) -> tuple[dict, str]:
        source = f"{corpus}:{tiny_corpora(corpus)}"
        values = {
            "start": {"model": str(pretrained / "model-{seed}")},
            "understanding": {"task": task, "train_on": train_on},
            "data": {
                "train_data": [f"{source}@train"],
                "validation_data": [f"{source}@validation"],
                "test_data": {task: f"{source}@test"},
                "store": str(tmp_path / "store"),
                **data,
            },
            "optimization": {"max_steps": 3, "batch_size": 4, "warmup_steps": 1, "evaluations": 1, "seed": 7},
            "output": {"output_dir": str(tmp_path / "tuned"), "max_new_tokens": 8, "examples": 2},
        }
        (tmp_path / "run.yaml").write_text(json.dumps(values))  # JSON is YAML
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPEECHZOO_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, str(SCRIPT), "--config", str(tmp_path / "run.yaml")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
        report = tmp_path / "tuned" / "report.json"
        return (json.loads(report.read_text()) if report.is_file() else {}), done.stdout + done.stderr

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("train_on", "sequences"), [("speech", 1), ("both", 2)])
def test_sentiment_by_what_is_trained_on(run, tmp_path, train_on, sequences):
    report, said = run("sentiment", "slue_voxceleb", train_on)
    assert report, said[-3000:]
    rows = {(row["name"], row["metric"]): row for row in report["measurements"]}
    tested = {f"sentiment: {modality}" for modality in ("speech", "text")}
    assert {name for name, metric in rows if metric == "f1"} == tested
    assert all({"chance", "majority", "low", "high"} <= row.keys() for row in rows.values())
    training = next(corpus for corpus in report["corpora"] if corpus["role"] == "training")
    assert report["settings"]["training_sequences"] == sequences * training["clips"]
    assert report["settings"]["model"].endswith("model-7") and report["history"][-1]["step"] == 3
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert model.config.label2id == {"Negative": 0, "Neutral": 1, "Positive": 2}
    assert AutoProcessor.from_pretrained(tmp_path / "tuned").unit_model_id is not None
    check_card(tmp_path / "tuned")


@pytest.mark.slow
def test_entities_with_marks_that_the_tokenizer_did_not_know(run, tmp_path):
    report, said = run("entities", "slue_voxpopuli", "text")
    assert report, said[-3000:]
    names = {row["name"] for row in report["measurements"]}
    parts = ("", ", labels", ", words")
    assert names == {f"entities: {modality}{part}" for modality in ("speech", "text") for part in parts}
    marks = [*MARKS.values(), END]
    assert any(mark in example["reference"].split() for example in report["examples"] for mark in marks)
    processor = AutoProcessor.from_pretrained(tmp_path / "tuned")
    assert processor.tokenizer.unk_token_id not in processor.text_tokens(" ".join(marks))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    assert len(model.get_input_embeddings().weight) == processor.vocab_size
    assert model.config.answers == {"entities": {"marks": dict(MARKS), "end": END, "glue": "start"}}


@pytest.mark.slow
def test_a_test_on_the_training_data_is_refused(run, tiny_corpora):
    again = f"slue_voxceleb:{tiny_corpora('slue_voxceleb')}@train"
    report, said = run("sentiment", "slue_voxceleb", "speech", test_data={"again": again})
    assert not report and "'again' shares" in said


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_configurations_are_read(path):
    start, understanding, data, _, _ = parse_arguments("", *GROUPS, argv=["--config", str(path)])
    assert start.model and {*data.test_data} == {understanding.task}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_are_a_table_of_what_is_trained_on(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    [sweep] = parse_arguments("", SweepArguments, argv=["--config", str(path)])
    commands = [sweep.words(cell) for cell in sweep.cells]
    for words in commands:
        parse_arguments("", *GROUPS, argv=words[1:])
    assert {word for words in commands for word in words if word.startswith("--train_on=")} == {
        f"--train_on={modality}" for modality in ("speech", "text", "both")
    }
    [given] = {word for words in commands for word in words if word.startswith("--config=")}
    _, understanding, data, _, _ = parse_arguments("", *GROUPS, argv=[given])
    assert {shown.name.partition(":")[0] for shown in sweep.measurements} == {*data.test_data} == {understanding.task}
