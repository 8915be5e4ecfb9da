"""Slots filled: F1 over pairs of slot and value, and how often all slots of an utterance are right.

A pair is found when the same utterance has it on both sides, values normalized as for word error rates. A slot that
only the prediction fills counts against precision, one that only the gold fills against recall, and one filled with
different values against both.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from .intervals import Floats, Interval, Labels, sums_intervals
from .label_scores import Counts, LabelCounts, count_pairs, label_intervals
from .report import Measurement
from .word_error_rate import normalize_text

Slots: TypeAlias = Mapping[str, str]  # slot -> value, without the slots that are not filled

F1, ALL_RIGHT = "f1", "accuracy"


@dataclass(frozen=True)
class SlotScores:
    """What became of the slots of some utterances.

    counts: pairs found, invented and missed, by slot. all_right [utterances]: whether the slots are those of the gold
    and no others. Of several answers to an utterance, or of a guess, both are means.
    """

    counts: LabelCounts
    all_right: Floats

    @property
    def f1(self) -> float:
        """Micro F1: of the counts of all slots."""
        return self.counts.overall().f1

    @property
    def slot_f1(self) -> dict[str, float]:
        """The F1 of each slot that is filled on either side."""
        return {slot: score.f1 for slot, score in self.counts.per_label().items()}

    @property
    def accuracy(self) -> float:
        """Share of the utterances with all slots right."""
        return float(self.all_right.mean())

    def intervals(self, groups: Labels | None = None) -> dict[str, Interval]:
        """Intervals of `f1` and `accuracy`, by group of utterances where `groups` [utterances] names theirs."""
        found = sums_intervals(_columns(self), _f1_and_accuracy, groups)
        return dict(zip((F1, ALL_RIGHT), found, strict=True))


def score_slots(gold: Sequence[Slots], predicted: Sequence[Slots], names: Sequence[str] = ()) -> SlotScores:
    """Scores predictions, one an utterance. `names`: slots in the order that `slot_f1` has them.

    Raises `ValueError` when there are not as many predictions as gold utterances, or none.
    """
    if len(gold) != len(predicted) or not gold:
        raise ValueError(f"{len(predicted)} predictions for {len(gold)} utterances; give one for each, at least one")
    pairs = [(_pairs(wanted), _pairs(given)) for wanted, given in zip(gold, predicted, strict=True)]
    counts = LabelCounts.of((count_pairs(wanted, given) for wanted, given in pairs), names)
    return SlotScores(counts, np.array([set(wanted) == set(given) for wanted, given in pairs], dtype=np.float64))


def f1_of_each(gold: Sequence[Slots], predicted: Sequence[Slots]) -> list[float]:
    """The F1 of each utterance by itself; 1 where both sides are empty."""
    values = []
    for wanted, given in zip(gold, predicted, strict=True):
        found = len(set(_pairs(wanted)) & set(_pairs(given)))
        values.append(2 * found / (len(wanted) + len(given)) if wanted or given else 1.0)
    return values


def mean_scores(scores: Sequence[SlotScores]) -> SlotScores:
    """The mean of several answers to the same utterances, of a few seeds for instance: of counts, not of F1s.

    Raises `ValueError` when their slots are not the same in the same order.
    """
    labels = scores[0].counts.labels
    if any(one.counts.labels != labels for one in scores):
        raise ValueError("the scores are of different slots; give score_slots the same names for all")
    table = sparse.csr_array(sum(one.counts.table for one in scores) / len(scores))
    return SlotScores(LabelCounts(labels, table), np.mean([one.all_right for one in scores], axis=0))


def _pairs(slots: Slots) -> list[tuple[str, str]]:
    return [(slot, normalize_text(value)) for slot, value in slots.items()]


def _columns(scores: SlotScores) -> sparse.csr_array:
    """True positives, false positives, false negatives, all right and one: of shape `(utterances, 5)`."""
    kinds = scores.counts.table.toarray().reshape(len(scores.all_right), 3, -1).sum(axis=-1)
    return sparse.csr_array(np.column_stack([kinds, scores.all_right, np.ones(len(scores.all_right))]))


def _f1_and_accuracy(sums: Floats) -> Floats:
    """`(..., 5)` sums of `_columns` -> `(..., 2)`; F1 is NaN in a resample without any slot."""
    below = 2 * sums[..., 0] + sums[..., 1] + sums[..., 2]
    f1 = np.divide(2 * sums[..., 0], below, out=np.full(below.shape, np.nan), where=below != 0)
    return np.stack([f1, sums[..., 3] / sums[..., 4]], axis=-1)


# ---- answers without listening -------------------------------------------------------------------------------------


def most_frequent(gold: Sequence[Slots], folds: Labels, names: Sequence[str], *, filled: bool = False) -> list[Slots]:
    """The same slots for every utterance of a fold: of each slot the most frequent answer in the other folds.

    To leave a slot empty is an answer too, unless `filled`.
    """
    answers: dict[Any, Slots] = {}
    for fold in dict.fromkeys(folds):
        counted = _answers_elsewhere(gold, folds, fold, names)
        best = {name: _best(counts, filled) for name, counts in counted.items()}
        answers[fold] = {name: value for name, value in best.items() if value is not None}
    return [answers[fold] for fold in folds]


def score_of_drawing(gold: Sequence[Slots], folds: Labels, names: Sequence[str]) -> SlotScores:
    """What to expect of a guess: for each slot by itself the answer of an utterance drawn from the other folds.

    To leave a slot empty is an answer too. Counts are expected ones, so F1 is a ratio of expectations.
    """
    rows: list[dict[str, Counts]] = []
    all_right = []
    shares = {
        fold: {name: _shares(counts) for name, counts in _answers_elsewhere(gold, folds, fold, names).items()}
        for fold in dict.fromkeys(folds)
    }
    for slots, fold in zip(gold, folds, strict=True):
        wanted = {name: _value(slots, name) for name in names}
        hits = {name: shares[fold][name].get(wanted[name], 0.0) for name in names}
        all_right.append(float(np.prod(list(hits.values()))))
        rows.append({name: _expected(wanted[name], hits[name], shares[fold][name]) for name in names})
    return SlotScores(LabelCounts.of(rows, names), np.array(all_right))


def _expected(wanted: str | None, hit: float, shares: Mapping[str | None, float]) -> Counts:
    filled = 1 - shares.get(None, 0.0)
    return (0.0, filled, 0.0) if wanted is None else (hit, filled - hit, 1 - hit)


def _answers_elsewhere(
    gold: Sequence[Slots], folds: Labels, fold: Any, names: Sequence[str]
) -> dict[str, Counter[str | None]]:
    others = [slots for slots, own in zip(gold, folds, strict=True) if own != fold]
    return {name: Counter(_value(slots, name) for slots in others) for name in names}


def _value(slots: Slots, name: str) -> str | None:
    return normalize_text(slots[name]) if name in slots else None


def _best(counts: Counter[str | None], filled: bool) -> str | None:
    ranked = [value for value, _ in counts.most_common() if not (filled and value is None)]
    return ranked[0] if ranked else None


def _shares(counts: Counter[str | None]) -> dict[str | None, float]:
    return {value: number / counts.total() for value, number in counts.items()}


# ---- rows of results -----------------------------------------------------------------------------------------------


def measure_slots(
    system: str, scores: SlotScores, groups: Labels, guess: SlotScores, majority: SlotScores, **facts: Any
) -> list[Measurement]:
    """Slot F1, all slots right, and the F1 of each slot, intervals by group. `facts`: any fields of `Measurement`."""
    shared = {"items": len(scores.all_right), "speakers": len(set(groups)), "resampled": "speakers", **facts}
    found = scores.intervals(groups)
    rows = [
        Measurement.of(f"{system}, slots", F1, found[F1], chance=guess.f1, majority=majority.f1, **shared),
        Measurement.of(
            f"{system}, all slots right",
            ALL_RIGHT,
            found[ALL_RIGHT],
            chance=guess.accuracy,
            majority=majority.accuracy,
            **shared,
        ),
    ]
    of_guess, of_majority = guess.slot_f1, majority.slot_f1
    for slot, interval in label_intervals(scores.counts, groups).items():
        beside = {"chance": of_guess.get(slot, 0.0), "majority": of_majority.get(slot, 0.0)}
        rows.append(Measurement.of(f"{system}, slot {slot}", F1, interval, **beside, **shared))
    return rows


def measure_slot_gain(
    name: str, first: SlotScores, second: SlotScores, groups: Labels, **facts: Any
) -> list[Measurement]:
    """Slot F1 and all slots right of the first minus the second, on the same utterances and the same resamples."""
    columns = sparse.csr_array(sparse.hstack([_columns(first), _columns(second)]))
    gains = sums_intervals(
        columns, lambda sums: _f1_and_accuracy(sums[..., :5]) - _f1_and_accuracy(sums[..., 5:]), groups
    )
    shared = {"items": len(first.all_right), "speakers": len(set(groups)), "resampled": "speakers", **facts}
    return [
        Measurement.of(f"{name}, slots", f"{F1}_gain", gains[0], **shared),
        Measurement.of(f"{name}, all slots right", f"{ALL_RIGHT}_gain", gains[1], **shared),
    ]
