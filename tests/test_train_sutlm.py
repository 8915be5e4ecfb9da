"""The script that trains joint models as a user runs it; the folder it leaves takes a waveform."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from card_cases import check_card
from timed_corpus import unit_model, write_timed_corpus
from transformers import AutoModelForCausalLM, AutoProcessor

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[1] / "examples"
TEST_TEXTS = ("the park is open", "turn the red lamp on", "some jazz in the hall", "play in the park now")


@pytest.fixture(scope="module")
def trained(backbones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sutlm")
    for part in unit_model(backbones):
        part.save_pretrained(folder / "units")
    corpus = str(write_timed_corpus(folder / "train"))
    values = {
        "joint_model": {"text_model": str(backbones.language_model("llama"))},
        "unit": {"unit_model": str(folder / "units"), "unit_pieces": 0, "store": str(folder / "store")},
        "mixture": {"speech_data": [corpus], "paired_data": [corpus], "text_data": [corpus]},
        "pretraining": {"max_steps": 3, "batch_size": 2, "row_tokens": 128, "warmup_steps": 1},
        "joint_test": {
            "test_data": {"tones": str(write_timed_corpus(folder / "test", TEST_TEXTS, 50))},
            "candidates": 2,
        },
        "joint_output": {"output_dir": str(folder / "joint0"), "results_file": str(folder / "result.json")},
    }
    run("train_sutlm.py", folder, values)
    return folder


def run(script, folder, values):
    (folder / "run.yaml").write_text(json.dumps(values))  # JSON is YAML
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPEECHZOO_CACHE": str(folder / "cache")}
    command = [sys.executable, str(EXAMPLES / script), "--config", str(folder / "run.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_report_says_what_was_measured(trained):
    report = json.loads((trained / "result.json").read_text())
    rows = {(row["name"], row["metric"]): row for row in report["measurements"] if "attention" not in row["name"]}
    looked = {row["name"] for row in report["measurements"]} - {name for name, _ in rows}
    assert {"tones: attention of layer 1", "tones: attention of best head by start"} <= looked
    names = {f"tones: {condition}" for condition in ("u2u", "u2t", "t2u", "t2t")}
    assert {name for name, _ in rows} == names | {"tones: u2t by start", "tones: t2u by start"}
    assert all(row["chance"] == 0.5 and row["items"] == 4 for row in rows.values())
    assert {corpus["role"]: corpus["clips"] for corpus in report["corpora"]} == {"training": 5, "final test": 4}
    assert (trained / "joint0" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    check_card(trained / "joint0")


def test_the_folder_takes_a_waveform(trained):
    model = AutoModelForCausalLM.from_pretrained(trained / "joint0").eval()
    processor = AutoProcessor.from_pretrained(trained / "joint0")
    clip = next((trained / "test" / "audio").glob("*.wav"))
    inputs = processor(audio=str(clip), continue_with="text", return_tensors="pt")
    with torch.no_grad():
        answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    [(kind, units), *_] = processor.spans(answer[0].tolist())
    assert kind == "speech" and units == processor.units(str(clip)).units


def test_it_is_tested_again_with_a_judge(trained, backbones):
    """By the seed of the test, which stands in the name of the model's folder."""
    values = {
        "judged": {
            "model": str(trained / "joint{seed}"),
            "judge": str(backbones.language_model("llama")),
            "transcriber": None,
            "judge_sign": "",
            "samples": 1,
            "text_tokens": 4,
            "unit_tokens": 4,
        },
        "reading": {"store": str(trained / "store")},
        "joint_test": {"test_data": {"tones": str(trained / "test")}, "candidates": 2},
        "joint_output": {"output_dir": str(trained / "tested")},
    }
    run("evaluate_sutlm.py", trained, values)
    first, again = (json.loads((trained / name).read_text()) for name in ("result.json", "tested/report.json"))
    retrieval = [
        {(row["name"], row["metric"]): row["value"] for row in report["measurements"] if "retrieval" in row["metric"]}
        for report in (first, again)
    ]
    assert retrieval[0] == retrieval[1] and len(retrieval[0]) > 12
    perplexities = {row["name"]: row["value"] for row in again["measurements"] if row["metric"] == "pelm"}
    assert {"tones: t2t", "tones: true text", "tones: prompt copied"} <= perplexities.keys()
    assert all(value > 1 for value in perplexities.values())
    assert not (trained / "tested" / "README.md").exists(), "a test saves no model"
