"""How far what an LLM says of speech is from what it says of the transcript, on clips that were not trained on."""

from dataclasses import replace
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from ..data.seal_collator import SealCollator
from ..modeling.modeling_seal_projector import SealProjectorForConditionalGeneration
from .intervals import ratio_interval
from .report import Measurement

NATS = "divergence, nats a token"
_BATCH = 32  # clips read at a time


def teacher_divergences(
    model: SealProjectorForConditionalGeneration, collator: SealCollator, examples: Dataset
) -> tuple[list[float], list[int]]:
    """For each example the divergence summed over its positions, in nats, and how many these are.

    The divergence is that of the model's configuration; the teacher runs live, whatever the collator was made for.
    """
    live = replace(collator, with_teacher=True, teachers=None, store=None, weights={})
    model.eval()
    sums, counts = [], []
    for start in tqdm(range(0, len(examples), _BATCH), desc="divergence", unit="batch", leave=False):
        rows = [examples[place] for place in range(start, min(start + _BATCH, len(examples)))]
        inputs = live(rows).to(model.device)
        counts += model.supervised_counts(inputs["labels"]).tolist()
        sums += model.row_divergences(inputs).tolist()
    return sums, counts


def divergence_measurements(
    name: str,
    model: SealProjectorForConditionalGeneration,
    collator: SealCollator,
    examples: Dataset,
    **facts: Any,
) -> list[Measurement]:
    """A row for each prompt, resampled by speaker where at least two are known."""
    tasks = examples["task"]
    places = {task: [place for place, other in enumerate(tasks) if other == task] for task in dict.fromkeys(tasks)}
    return [
        _measurement(f"{name}: {task}", model, collator, examples.select(rows), facts) for task, rows in places.items()
    ]


def _measurement(
    name: str,
    model: SealProjectorForConditionalGeneration,
    collator: SealCollator,
    examples: Dataset,
    facts: dict[str, Any],
) -> Measurement:
    sums, counts = teacher_divergences(model, collator, examples)
    speakers = list(examples["speaker"])
    by_speaker = len(set(speakers)) > 1
    return Measurement.of(
        name,
        NATS,
        ratio_interval(sums, counts, speakers if by_speaker else None),
        items=len(examples),
        speakers=len(set(speakers)) if by_speaker else None,
        resampled="speakers" if by_speaker else "items",
        note=f"{model.config.divergence} divergence at temperature {model.config.temperature:g}, lower is better",
        **facts,
    )


__all__ = ["NATS", "divergence_measurements", "teacher_divergences"]
