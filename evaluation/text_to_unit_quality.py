"""How well a text-to-unit model says texts: its units and durations beside those that were spoken.

Every number stands beside that of the table it must beat, which says each phone by its most frequent unit for as long
as it lasts on average; and, where the corpus has it, beside another clip with the same words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from ..data.phone_alignment import AlignedPhones, PhoneAligner
from ..data.speech_text_mixing import Utterance
from ..data.spoken_texts import SpokenText
from ..modeling.modeling_text_to_unit import TextToUnitModel
from ..processing.phones import words_of
from ..processing.speech_units import deduplicate
from ..processing.text_to_units import phone_numbers
from ..processing.unit_vocabulary import UnitVocabulary, phone_family
from .intervals import mean_interval, ratio_interval
from .report import Measurement

__all__ = ["PhoneTable", "measure_alignment", "measure_text_to_unit"]


@dataclass(frozen=True)
class PhoneTable:
    """The most frequent unit of each phone, and its mean duration in frames, of the clips that were trained on."""

    units: dict[str, int]
    durations: dict[str, float]

    @classmethod
    def of(cls, aligner: PhoneAligner, spoken: Sequence[SpokenText]) -> PhoneTable:
        lasted: dict[str, list[int]] = defaultdict(list)
        for one in spoken:
            for phone, frames in zip(_phones(one.aligned), one.aligned.durations, strict=True):
                lasted[phone].append(frames)
        likeliest = aligner.log_emissions.argmax(1).tolist()
        means = {phone: float(np.mean(frames)) for phone, frames in lasted.items()}
        return cls(dict(zip(aligner.phones, likeliest, strict=True)), means)

    def say(self, aligned: AlignedPhones, durations: Sequence[int]) -> list[int]:
        """A unit for each frame of phones that last so long."""
        units = [self.units[phone] for phone in _phones(aligned)]
        return [unit for unit, frames in zip(units, durations, strict=True) for _ in range(frames)]

    def last(self, aligned: AlignedPhones) -> list[int]:
        """Whole frames of each phone, at least one."""
        return [max(1, round(self.durations.get(phone, 1.0))) for phone in _phones(aligned)]


def _phones(aligned: AlignedPhones) -> list[str]:
    return [phone_family(phone) for group in aligned.groups for phone in group]


@torch.no_grad()
def measure_text_to_unit(
    model: TextToUnitModel,
    table: PhoneTable,
    spoken: Sequence[SpokenText],
    name: str,
    dataset: str,
    seed: int = 0,
) -> list[Measurement]:
    """Rows of a report, with 95 % intervals over clips.

    - `unit_accuracy`: frames whose unit is the spoken one, phones lasting as they did.
    - `duration_error`: mean absolute difference in frames, of phones.
    - `unit_error_rate`: edits between deduplicated units that were generated and that were spoken, by those spoken;
      phones last as predicted, silences are where they were heard.

    Args:
        seed: of the intervals.
    """
    model.eval()
    vocabulary = UnitVocabulary(model.config.phones)
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in spoken:
        phones = torch.tensor([phone_numbers(vocabulary, one.aligned.groups)], device=model.device)
        given = torch.tensor([one.aligned.durations], device=model.device)
        guessed = model(phones, durations=given).logits[0].argmax(-1).tolist()
        [said] = model.generate(phones)
        lasts = table.last(one.aligned)
        rows["unit_accuracy"].append(_matches(guessed, one.units))
        rows["unit_accuracy of the table"].append(_matches(table.say(one.aligned, one.aligned.durations), one.units))
        rows["duration_error"].append(_differences(said.durations, one.aligned.durations))
        rows["duration_error of the table"].append(_differences(lasts, one.aligned.durations))
        rows["unit_error_rate"].append(_edits(said.units, one.units))
        rows["unit_error_rate of the table"].append(_edits(table.say(one.aligned, lasts), one.units))
    rows |= _of_other_clips(spoken)
    facts = {"split": "test", "dataset": dataset}
    return [_measurement(f"{name}: {row}", pairs, facts, seed) for row, pairs in rows.items()]


def _of_other_clips(spoken: Sequence[SpokenText]) -> dict[str, list[tuple[float, float]]]:
    """Edits between each clip and the next with the same words; nothing where no two are alike."""
    alike: dict[str, list[SpokenText]] = defaultdict(list)
    for one in spoken:
        alike[one.text].append(one)
    pairs = [
        _edits(group[(place + 1) % len(group)].units, one.units)
        for group in alike.values()
        if len(group) > 1
        for place, one in enumerate(group)
    ]
    return {"unit_error_rate of another clip": pairs} if pairs else {}


def _measurement(name: str, pairs: Sequence[tuple[float, float]], facts: dict[str, str], seed: int) -> Measurement:
    numerators, denominators = zip(*pairs, strict=True)
    metric = name.rpartition(": ")[2].partition(" of ")[0]
    interval = ratio_interval(numerators, denominators, seed=seed)
    return Measurement.of(name, metric, interval, items=len(pairs), resampled="items", **facts)


def _matches(guessed: Sequence[int], spoken: Sequence[int]) -> tuple[float, float]:
    return sum(map(int.__eq__, guessed, spoken)), len(spoken)


def _differences(guessed: Sequence[int], spoken: Sequence[int]) -> tuple[float, float]:
    return float(np.abs(np.subtract(guessed, spoken)).sum()), len(spoken)


def _edits(guessed: Sequence[int], spoken: Sequence[int]) -> tuple[float, float]:
    reference = deduplicate(spoken).units
    return Levenshtein.distance(deduplicate(guessed).units, reference), len(reference)


def measure_alignment(
    spoken: Sequence[SpokenText],
    utterances: Sequence[Utterance],
    frame_rate: float,
    name: str,
    dataset: str,
    seed: int = 0,
) -> list[Measurement]:
    """How far the aligned beginnings of words lie from those that the corpus knows, in milliseconds.

    `word_start_error` is the mean over clips of their mean absolute differences; beside it that of words that share
    the clip's length evenly. Nothing for a corpus without times of words. Give clips that were aligned without them.
    """
    timed = {utterance.id: utterance for utterance in utterances if utterance.words}
    errors: dict[str, list[float]] = defaultdict(list)
    for one in spoken:
        known = _known_beginnings(timed[one.id]) if one.id in timed else {}
        spans = one.aligned.word_spans
        if known and max(known) < len(spans):
            seconds, places = np.array(list(known.values())), np.array(list(known))
            aligned = np.array([spans[place][0] for place in places]) / frame_rate
            even = places * len(one.units) / len(spans) / frame_rate
            errors["word_start_error"].append(_mean_milliseconds(aligned - seconds))
            errors["word_start_error of equal words"].append(_mean_milliseconds(even - seconds))
    facts = {"split": "test", "dataset": dataset, "resampled": "items"}
    return [
        Measurement.of(f"{name}: {row}", "milliseconds", mean_interval(values, seed=seed), items=len(values), **facts)
        for row, values in errors.items()
    ]


def _known_beginnings(utterance: Utterance) -> dict[int, float]:
    """Place of a word in its text -> seconds; a span of several words tells where the first of them begins."""
    known: dict[int, float] = {}
    place = 0
    for span in utterance.words:
        known[place] = span.start
        place += len(words_of(span.word))
    return known


def _mean_milliseconds(seconds: np.ndarray) -> float:
    return float(np.abs(seconds).mean() * 1000)
