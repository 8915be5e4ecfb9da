"""The evaluate.Metric modules: from a path, from the Hub, in batches, in several processes."""

import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import evaluate
import pytest
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub

from speechzoo.evaluation.slurp_scores import read_slurp_gold, read_slurp_predictions

METRICS = Path(str(files("speechzoo.evaluation") / "metrics"))


def frame(action: str = "set", filler: str = "noon") -> dict[str, Any]:
    return {"scenario": "alarm", "action": action, "entities": [{"type": "time", "filler": filler}]}


def command(location: str) -> dict[str, str]:
    return {"action": "increase", "object": "heat", "location": location}


# Two predictions and references of each, and one result computed by hand.
CASES: dict[str, tuple[list[Any], list[Any], str, float]] = {
    "slurp_slu": ([frame(), {**frame("query"), "entities": []}], [frame(), frame()], "slu_f1", 4 / 6),
    "slue_ner": (["in % sudan ]", "@ today ]"], ["in % south sudan ]", "> today ]"], "f1", 0.5),
    "slue_sentiment": (["Neutral", "Neutral"], ["Neutral", "Positive"], "macro_f1", (2 / 3) / 2),
    "fluent_speech_commands_accuracy": ([command("none"), command("kitchen")], [command("none")] * 2, "accuracy", 0.5),
    "speech_word_error_rate": (["don't stop", "go"], ["Dont, stop now", "go"], "wer", 0.25),
    "speech_translation_bleu": (["a b c d e", "x y z w"], [["a b c d e"], ["x y z w"]], "bleu", 100.0),
}


def test_every_module_has_a_case_and_a_card():
    assert {path.name for path in METRICS.iterdir()} == set(CASES)
    for name in CASES:
        card = ModelCard.load(METRICS / name / "README.md")
        assert card.data.to_dict()["sdk"] == "static"
        assert {"evaluate", "metric"} <= set(card.data.to_dict()["tags"])
        assert name in card.text


@pytest.mark.parametrize("name", CASES)
def test_modules_load_from_a_path_and_score(name: str):
    predictions, references, result, wanted = CASES[name]
    metric = evaluate.load(str(METRICS / name))
    assert metric.compute(predictions=predictions, references=references)[result] == pytest.approx(wanted)
    for prediction, reference in zip(predictions, references, strict=True):
        metric.add_batch(predictions=[prediction], references=[reference])
    found = metric.compute(interval=True, resamples=50)
    assert found[result] == pytest.approx(wanted)
    assert found[f"{result}_low"] <= found[result] <= found[f"{result}_high"]
    by_speaker = metric.compute(
        predictions=predictions, references=references, interval=True, speakers=["a", "a"], resamples=50
    )
    assert by_speaker[result] == pytest.approx(wanted)
    assert by_speaker[f"{result}_low"] is None


def test_macro_average_and_tags_are_passed_on():
    slurp = evaluate.load(str(METRICS / "slurp_slu"))
    rows = [frame(), frame()]
    assert slurp.compute(predictions=rows, references=rows, average="macro")["intent_f1"] == 1
    entities = evaluate.load(str(METRICS / "slue_ner"))
    texts = {"predictions": ["@ today ]"], "references": ["> today ]"]}
    assert entities.compute(**texts)["f1"] == 1
    assert entities.compute(**texts, tags="raw")["f1"] == 0


def test_equal_to_the_official_program(test_data: Path):
    folder = test_data / "parity" / "slurp_metrics" / "case_a"
    gold = read_slurp_gold(folder / "gold.jsonl").frames
    predicted = read_slurp_predictions(folder / "predictions.jsonl").rows

    def row(key: str, side: dict[str, Any]) -> dict[str, Any]:
        entities = [{"type": kind, "filler": filler} for kind, filler in side[key].entities]
        return {"scenario": side[key].scenario, "action": side[key].action, "entities": entities}

    keys = [key for key in gold if key in predicted]
    metric = evaluate.load(str(METRICS / "slurp_slu"))
    metric.add_batch(predictions=[row(key, predicted) for key in keys], references=[row(key, gold) for key in keys])
    expected = json.loads((folder / "expected_scores.json").read_text())["micro"]
    for name, value in metric.compute().items():
        metric_name = name if name == "slu_f1" else name.removesuffix("_f1")
        assert value == pytest.approx(expected[metric_name]["overall"]["f1"], rel=0, abs=1e-9)


SHARE = """
import json, sys
import evaluate
path, process = sys.argv[1], int(sys.argv[2])
predictions, references = json.loads(sys.argv[3])
metric = evaluate.load(path, num_process=2, process_id=process, experiment_id="shared")
metric.add_batch(predictions=predictions[process:process + 1], references=references[process:process + 1])
print(json.dumps(metric.compute()))
"""


@pytest.mark.slow
def test_two_processes_score_together(tmp_path: Path):
    predictions, references, result, wanted = CASES["slurp_slu"]
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    arguments = [str(METRICS / "slurp_slu"), json.dumps([predictions, references])]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SHARE, arguments[0], str(process), arguments[1]],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    first, second = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in running]
    assert first[result] == pytest.approx(wanted)
    assert second is None


PUBLISH_AND_LOAD = """
import json, sys
from pathlib import Path
import evaluate
from huggingface_hub import create_repo, upload_folder
folder = Path(sys.argv[1])
create_repo(f"org/{folder.name}", repo_type="space", space_sdk="static")
upload_folder(repo_id=f"org/{folder.name}", repo_type="space", folder_path=folder)
metric = evaluate.load(f"org/{folder.name}")
predictions, references = json.loads(sys.argv[2])
print(json.dumps(metric.compute(predictions=predictions, references=references)))
"""


@pytest.mark.slow
def test_a_module_is_published_and_loaded_from_the_hub(loopback_hub: LoopbackHub, tmp_path: Path):
    name = "slurp_slu"
    predictions, references, result, wanted = CASES[name]
    command = [sys.executable, "-c", PUBLISH_AND_LOAD, str(METRICS / name), json.dumps([predictions, references])]
    environment = {**os.environ, **loopback_hub.environment(tmp_path)}
    # Elsewhere than here, where a folder of that name might be taken for the repository.
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {f"{name}.py", "README.md"} <= set(loopback_hub.files(f"org/{name}", "space"))
    assert any(re.match(rf"GET /spaces/org/{name}/.*{name}\.py", request) for request in loopback_hub.requests)
    assert json.loads(done.stdout.splitlines()[-1])[result] == pytest.approx(wanted)
