"""The script that pre-trains joint encoders as a user runs it: a start, what begins with it, and a run cut off."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from card_cases import check_card
from joint_pretraining_cases import (
    SHAPE,
    TEXTS,
    assemble_joint_encoder,
    by_timings,
    spoken_data,
    tiny_encoder,
    write_spoken_corpus,
)
from transformers import TrainerCallback, set_seed

from speechzoo import SpeechLMForSequenceClassification
from speechzoo.data.joint_pretraining_rows import PretrainingStream
from speechzoo.training.adapter_training import train, training_arguments
from speechzoo.training.joint_pretraining import batch_sizes, make_joint_pretrainer
from speechzoo.training.joint_pretraining_arguments import JointPretrainingOutputArguments, JointUpdateArguments

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "examples" / "pretrain_speechlm.py"


class Stop(TrainerCallback):
    """Ends a training after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def run(folder: Path, name: str, values: dict) -> dict:
    """The report of a run with these values."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPEECHZOO_CACHE": str(folder / "cache")}
    command = [sys.executable, str(SCRIPT), "--config", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / name / "report.json").read_text())


def test_the_script_trains_a_start_and_what_begins_with_it(tmp_path):
    write_spoken_corpus(tmp_path / "train")
    write_spoken_corpus(tmp_path / "test", (*TEXTS[:4], "fade a cab", "bad face"), voice="high", pitch=1.02)
    write_spoken_corpus(tmp_path / "validation", TEXTS[:2], voice="middle", pitch=1.01)
    data = {
        **{name: value for name, value in vars(spoken_data(tmp_path)).items() if value is not None},
        "validation_data": [str(tmp_path / "validation")],
        "text_share": 0.5,
    }
    update = {"max_steps": 3, "warmup_steps": 1, "speech_seconds": 3.0, "text_letters": 0, "evaluations": 1}
    start = {
        "joint_encoder": {"swap": 0.0, "shape": {**SHAPE, "heard_weight": 1.0}},
        "joint_data": data,
        "joint_update": update,
        "joint_pretraining_output": {
            "output_dir": str(tmp_path / "start"),
            "check": {"tones: units, speech encoder": 0.0},
        },
    }
    report = run(tmp_path, "start", start)
    assert [row["name"] for row in report["measurements"]] == [
        "tones: units, speech encoder",
        "tones: units, unit encoder",
    ]
    assert {corpus["role"]: corpus["clips"] for corpus in report["corpora"]}["final test"] == 6
    assert report["settings"]["texts"] == 0 and report["system"] == "speechlm"

    cell = {
        "joint_encoder": {"swap": 0.4, "shape": SHAPE, "start": str(tmp_path / "start")},
        "joint_data": data,
        "joint_update": {**update, "text_letters": 30},
        "joint_pretraining_output": {"output_dir": str(tmp_path / "cell{seed}")},
    }
    report = run(tmp_path, "cell0", cell)
    rows = {row["name"] for row in report["measurements"]}
    assert {f"tones: letters of {what}" for what in ("text", "speech", "speech by its units")} < rows
    assert report["backbones"][0]["id"] == "start" and not report["backbones"][0]["frozen"]
    assert report["settings"]["texts"] + report["corpora"][0]["clips"] == len(TEXTS), "each clip is heard or read"
    assert {"text_ctc_loss", "unit_loss", "masked_share"} <= report["history"][-1]["evaluation"].keys()
    assert (tmp_path / "cell0" / "learning_curve.png").stat().st_size > 1000
    check_card(tmp_path / "cell0")
    assert SpeechLMForSequenceClassification.from_pretrained(tmp_path / "cell0").config.swap_prob == 0.4


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path):
    write_spoken_corpus(tmp_path / "train")
    write_spoken_corpus(tmp_path / "test", voice="high")
    encoder, data = tiny_encoder(), spoken_data(tmp_path)
    labels, corpora = by_timings(encoder, data)

    def run_to(folder: Path, stop: int, resume: bool) -> dict[str, torch.Tensor]:
        update = JointUpdateArguments(max_steps=8, speech_seconds=1.0, text_letters=20, warmup_steps=1, bf16=False)
        output = JointPretrainingOutputArguments(output_dir=folder, save_steps=4, resume=resume)
        set_seed(0)
        model, processor = assemble_joint_encoder(encoder, labels, seed=0)
        stream = PretrainingStream(corpora.speech, corpora.texts, batch_sizes(update, model.config), seed=0)
        trainer = make_joint_pretrainer(model, processor, stream, None, training_arguments(update, output, 8, False))
        if stop < 8:
            trainer.add_callback(Stop(stop))
        train(trainer, resume)
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    whole = run_to(tmp_path / "whole", 8, False)
    first = run_to(tmp_path / "parts", 4, False)
    both = run_to(tmp_path / "parts", 8, True)
    assert any(not torch.equal(first[name], whole[name]) for name in whole)
    for name, tensor in whole.items():
        torch.testing.assert_close(both[name], tensor, rtol=0, atol=0)
