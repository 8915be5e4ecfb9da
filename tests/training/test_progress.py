"""Live progress, on a real Trainer with one weight."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from speechzoo.training import progress as progress_module
from speechzoo.training.progress import LiveProgress, use_live_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class OneWeight(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.weight * x - labels) ** 2).mean()}


class Clock:
    """Seconds that pass by the step, so that rates are exact."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class StepTakes(TrainerCallback):
    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.clock.now += self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def make_trainer(folder: Path, steps: int = 8, **arguments: Any) -> Trainer:
    examples = [{"x": torch.tensor(1.0), "labels": torch.tensor(2.0)} for _ in range(64)]
    defaults = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "logging_steps": 1,
        "use_cpu": True,
    }
    training_arguments = TrainingArguments(
        str(folder), max_steps=steps, report_to="none", **{**defaults, "save_strategy": "no", **arguments}
    )
    return Trainer(OneWeight(), training_arguments, train_dataset=examples, eval_dataset=examples[:8])


def run(
    trainer: Trainer, clock: Clock, stream: io.StringIO, resume: str | None = None, line_seconds: float = 10.0
) -> str:
    live = use_live_progress(trainer, mean_clip_seconds=2.5)
    live.stream, live.line_seconds = stream, line_seconds
    trainer.callback_handler.callbacks.insert(0, StepTakes(clock, 4.0))
    trainer.train(resume_from_checkpoint=resume)
    return stream.getvalue()


def test_replaces_the_progress_of_the_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for disabled in (False, True):
        trainer = make_trainer(tmp_path, disable_tqdm=disabled)
        live = use_live_progress(trainer)
        kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
        assert live in trainer.callback_handler.callbacks
        assert not {ProgressCallback, PrinterCallback} & set(kinds)


def test_lines_where_there_is_no_terminal(tmp_path: Path, clock: Clock):
    # 4 s a step: a line is due at the 3rd and 6th step, and one stands at the end. 8 clips a step are 2 clips/s.
    text = run(make_trainer(tmp_path), clock, io.StringIO())
    lines = text.splitlines()
    assert "\r" not in text
    assert [re.search(r"(\d+)/8 steps", line)[1] for line in lines] == ["3", "6", "8"]
    assert lines[0].startswith("training  38 %, 3/8 steps, 00:12 passed, 00:20 left, loss ")
    assert all(line.endswith("2.0 clips/s, 5.0 s of audio/s") for line in lines)


def test_the_loss_shown_is_the_one_logged_last(tmp_path: Path, clock: Clock):
    trainer = make_trainer(tmp_path)
    last = run(trainer, clock, io.StringIO()).splitlines()[-1]
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert f"loss {logged[-1]:.4f}," in last


def test_one_line_rewritten_on_a_terminal(tmp_path: Path, clock: Clock):
    text = run(make_trainer(tmp_path), clock, Terminal())
    final = text.rstrip("\n").split("\r")[-1]
    assert text.count("\n") == 1
    assert "100 %" in final and "8/8 steps" in final and "clips/s" in final and "loss" in final


def test_seconds_stand_in_the_log_history_and_go_on_after_an_interruption(tmp_path: Path, clock: Clock):
    first = make_trainer(tmp_path, steps=3, save_strategy="steps", save_steps=3)
    run(first, clock, io.StringIO())
    second = make_trainer(tmp_path, steps=6)
    text = run(second, clock, io.StringIO(), resume=str(tmp_path / "checkpoint-3"), line_seconds=4.0)
    seconds = [entry["seconds"] for entry in second.state.log_history if "loss" in entry]
    assert seconds == [4.0, 8.0, 12.0, 16.0, 20.0, 24.0]
    # Steps before the interruption count toward the total, not toward throughput and time left.
    assert "4/6 steps, 00:04 passed, 00:08 left" in text.splitlines()[0]
    assert "6/6 steps" in text.splitlines()[-1] and "2.0 clips/s" in text.splitlines()[-1]


def test_evaluations_are_told(tmp_path: Path, clock: Clock):
    text = run(make_trainer(tmp_path, steps=2, eval_strategy="steps", eval_steps=1), clock, io.StringIO())
    evaluations = [line for line in text.splitlines() if line.startswith("evaluation")]
    assert [line.split(":")[0] for line in evaluations] == ["evaluation at step 1", "evaluation at step 2"]
    assert all("loss" in line and "runtime" not in line for line in evaluations)


def test_other_processes_are_silent(tmp_path: Path, clock: Clock):
    for stream in (io.StringIO(), Terminal()):
        trainer = make_trainer(tmp_path)
        trainer.state.is_world_process_zero = False
        live = LiveProgress(stream=stream, line_seconds=0.0)
        for event in (live.on_train_begin, live.on_step_end, live.on_prediction_step, live.on_train_end):
            event(trainer.args, trainer.state, trainer.control)
        trainer.state.log_history.append({"eval_loss": 1.0})
        live.on_log(trainer.args, trainer.state, trainer.control, logs={"eval_loss": 1.0})
        assert stream.getvalue() == ""
        assert "seconds" in trainer.state.log_history[-1]
