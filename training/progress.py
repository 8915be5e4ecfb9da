"""Live progress of a `transformers.Trainer`: loss, throughput and time left on one line."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

_BAR = "{desc} {percentage:3.0f} %|{bar}| {n_fmt}/{total_fmt} steps, {elapsed} passed, {remaining} left{postfix}"
_LINE = "{desc} {percentage:3.0f} %, {n_fmt}/{total_fmt} steps, {elapsed} passed, {remaining} left{postfix}"


class LiveProgress(TrainerCallback):
    """One line for a training run; where the output is no terminal, a new line every ten seconds.

    Only the main process writes. Every entry of the log history also receives `seconds`, the time since training
    began, time before an interruption included.

    Args:
        mean_clip_seconds: Mean length of a training clip in seconds. When given, the seconds of audio trained on per
            second are shown beside the clips per second.
        stream: Where to write; standard error when left out.
        line_seconds: Seconds between two lines when `stream` is no terminal or `disable_tqdm` is set.
        items: What a batch holds.
    """

    def __init__(
        self,
        mean_clip_seconds: float | None = None,
        stream: TextIO | None = None,
        line_seconds: float = 10.0,
        items: str = "clips",
    ) -> None:
        self.mean_clip_seconds, self.items = mean_clip_seconds, items
        self.stream = stream
        self.line_seconds = line_seconds
        self._bar: tqdm | None = None
        self._loss: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = self._last_line = time.monotonic()
        self._seconds_before = max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)
        self._first_step = state.global_step
        self._loss = None
        self._in_lines = args.disable_tqdm or not self._output().isatty()
        if state.is_world_process_zero and not self._in_lines:
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="training",
                bar_format=_BAR,
                dynamic_ncols=True,
                file=self._output(),
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._bar is not None:
            self._bar.set_description_str("training", refresh=False)
            self._bar.set_postfix_str(self._figures(args, state), refresh=False)
            self._bar.update(state.global_step - self._bar.n)
        self._write_line_if_due(args, state)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._bar is not None:
            self._bar.set_description_str("evaluating")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        state.log_history[-1]["seconds"] = round(self._seconds_before + time.monotonic() - self._started, 3)
        logs = logs or {}
        self._loss = float(logs["loss"]) if "loss" in logs else self._loss
        measured = {name: value for name, value in logs.items() if name.startswith("eval_") and _is_result(name)}
        if measured and state.is_world_process_zero:
            shown = ", ".join(f"{name.removeprefix('eval_')} {value:.4g}" for name, value in measured.items())
            self._write(f"evaluation at step {state.global_step}: {shown}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures(args, state), refresh=True)
            self._bar.close()
            self._bar = None
        self._write_line_if_due(args, state, at_once=True)

    def _output(self) -> TextIO:
        return self.stream or sys.stderr

    def _write(self, text: str) -> None:
        tqdm.write(text, file=self._output())
        self._output().flush()

    def _write_line_if_due(self, args: TrainingArguments, state: TrainerState, at_once: bool = False) -> None:
        now = time.monotonic()
        if not (state.is_world_process_zero and self._in_lines):
            return
        if at_once or now - self._last_line >= self.line_seconds:
            self._last_line = now
            self._write(self._line(args, state, now - self._started))

    def _line(self, args: TrainingArguments, state: TrainerState, elapsed: float) -> str:
        return tqdm.format_meter(
            n=state.global_step,
            initial=self._first_step,
            total=state.max_steps,
            elapsed=elapsed,
            prefix="training",
            bar_format=_LINE,
            postfix=self._figures(args, state),
        )

    def _figures(self, args: TrainingArguments, state: TrainerState) -> str:
        """The latest loss and the throughput since training began, over all processes."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        items_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        rate = (state.global_step - self._first_step) * items_per_step / elapsed
        figures = [] if self._loss is None else [f"loss {self._loss:.4f}"]
        figures.append(f"{rate:.1f} {self.items}/s")
        if self.mean_clip_seconds is not None:
            figures.append(f"{rate * self.mean_clip_seconds:.1f} s of audio/s")
        return ", ".join(figures)


def _is_result(name: str) -> bool:
    return not name.endswith(("_runtime", "_per_second"))


def use_live_progress(trainer: Trainer, mean_clip_seconds: float | None = None, items: str = "clips") -> LiveProgress:
    """Replaces the trainer's own progress bar and printer by a `LiveProgress`, which is returned."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    progress = LiveProgress(mean_clip_seconds, items=items)
    trainer.add_callback(progress)
    return progress
