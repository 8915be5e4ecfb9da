"""Slot scores: hand-counted cases, brute force over pairs, guesses by drawing them, and the rows of a report."""

import numpy as np
import pytest

from speechzoo.evaluation.slot_scores import (
    f1_of_each,
    mean_scores,
    measure_slot_gain,
    measure_slots,
    most_frequent,
    score_of_drawing,
    score_slots,
)

NAMES = ("drink", "size", "milk")
VALUES = {"drink": ["mocha", "latte"], "size": ["small", "large"], "milk": ["a bit of cream", "milk", "soy milk"]}
GOLD = [
    {"drink": "mocha", "size": "large"},
    {"drink": "latte", "milk": "soy milk"},
    {"drink": "latte"},
    {"drink": "mocha", "size": "small", "milk": "milk"},
]


def drawn(rng: np.random.Generator, utterances: int) -> list[dict[str, str]]:
    """Each slot filled two times in three."""
    return [{name: str(rng.choice(VALUES[name])) for name in NAMES if rng.random() < 2 / 3} for _ in range(utterances)]


def by_hand(gold, predicted, slots=NAMES) -> tuple[float, float]:
    """F1 and accuracy from sets of triples (utterance, slot, value)."""
    wanted, given = (
        {(row, slot, value) for row, one in enumerate(side) for slot, value in one.items() if slot in slots}
        for side in (gold, predicted)
    )
    right = np.mean([one == other for one, other in zip(gold, predicted, strict=True)])
    return 2 * len(wanted & given) / (len(wanted) + len(given)), float(right)


def test_hand_counted():
    predicted = [
        {"drink": "mocha", "size": "small"},  # one found; the size is invented and missed at once
        {"drink": "latte"},  # milk missed
        {"drink": "latte", "milk": "milk"},  # milk invented
        {"milk": "milk", "size": "small", "drink": "mocha"},  # all right, in another order
    ]
    scores = score_slots(GOLD, predicted, NAMES)
    total = scores.counts.overall()
    assert (total.tp, total.fp, total.fn) == (6, 2, 2)
    assert (total.precision, total.recall, scores.f1) == (6 / 8, 6 / 8, 6 / 8)
    assert scores.all_right.tolist() == [0, 0, 0, 1] and scores.accuracy == 0.25
    assert scores.slot_f1 == {"drink": 1.0, "size": 0.5, "milk": 0.5}


def test_empty_answers_and_unknown_slots():
    nothing = score_slots(GOLD, [{}] * 4)
    assert (nothing.f1, nothing.accuracy) == (0.0, 0.0)
    assert score_slots([{}], [{}]).accuracy == 1.0
    other = score_slots([{"drink": "mocha"}], [{"drink": "mocha", "sugar": "brown"}], NAMES)
    assert other.f1 == pytest.approx(2 / 3) and other.accuracy == 0.0
    assert other.slot_f1 == {"drink": 1.0, "sugar": 0.0}


def test_values_are_compared_as_words():
    assert score_slots([{"milk": "a bit of cream"}], [{"milk": "A  bit of Cream."}]).accuracy == 1.0
    assert score_slots([{"milk": "a bit of cream"}], [{"milk": "cream"}]).f1 == 0.0
    assert score_slots([{"milk": "large"}], [{"size": "large"}]).f1 == 0.0, "the slot must be right too"


def test_against_brute_force():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        gold, predicted = drawn(rng, 30), drawn(rng, 30)
        scores = score_slots(gold, predicted)
        assert (scores.f1, scores.accuracy) == pytest.approx(by_hand(gold, predicted))
        for slot, value in scores.slot_f1.items():
            assert value == pytest.approx(by_hand(gold, predicted, [slot])[0])


def test_faults():
    with pytest.raises(ValueError, match="1 predictions for 4 utterances"):
        score_slots(GOLD, [{}])
    with pytest.raises(ValueError, match="at least one"):
        score_slots([], [])
    with pytest.raises(ValueError, match="different slots"):
        mean_scores([score_slots([{"a": "x"}], [{}]), score_slots([{"b": "x"}], [{}])])


def test_each_utterance_by_itself():
    answers = [{"drink": "mocha"}, {"drink": "Latte", "milk": "soy milk"}, {"size": "large"}, {}]
    assert f1_of_each(GOLD, answers) == pytest.approx([2 / 3, 1, 0, 0])
    assert f1_of_each([{}, {}], [{}, {"drink": "mocha"}]) == [1, 0]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        gold, predicted = drawn(rng, 20), drawn(rng, 20)
        kept = [row for row in range(20) if gold[row] or predicted[row]]
        alone = [by_hand([gold[row]], [predicted[row]])[0] for row in kept]
        assert [f1_of_each(gold, predicted)[row] for row in kept] == pytest.approx(alone)


def test_mean_of_seeds_is_of_counts():
    first, second = [{"drink": "mocha", "size": "large"}, {}, {}, {}], GOLD
    mean = mean_scores([score_slots(GOLD, answers, NAMES) for answers in (first, second)])
    # Found 2 and 8, missed 6 and 0.
    assert mean.f1 == pytest.approx(2 * 5 / (2 * 5 + 3))
    assert mean.all_right.tolist() == [1, 0.5, 0.5, 0.5]


def test_intervals_resample_groups():
    rng = np.random.default_rng(0)
    gold, predicted = drawn(rng, 60), drawn(rng, 60)
    groups = [number // 20 for number in range(60)]
    by_group = score_slots(gold, predicted).intervals(groups)
    assert {interval.units for interval in by_group.values()} == {3}
    # All clips of a group are alike: whatever their number, the interval is that of one clip for each group.
    few, many = ([GOLD[0], GOLD[1], GOLD[2]], [GOLD[0]] * 9 + [GOLD[1]] * 9 + [GOLD[2]] * 9)
    answers = [GOLD[0], {}, GOLD[3]]
    narrow = score_slots(many, [one for one in answers for _ in range(9)]).intervals([0] * 9 + [1] * 9 + [2] * 9)
    assert narrow == score_slots(few, answers).intervals()
    assert narrow["f1"].value == pytest.approx(score_slots(few, answers).f1) and narrow["f1"].low < narrow["f1"].high


def test_most_frequent_answers_come_from_the_other_folds():
    gold = [{"drink": "mocha"}] * 3 + [{"drink": "latte", "milk": "milk"}] * 2 + [{"milk": "soy milk"}]
    folds = [0, 0, 0, 1, 1, 1]
    assert most_frequent(gold, folds, NAMES) == [{"drink": "latte", "milk": "milk"}] * 3 + [{"drink": "mocha"}] * 3
    half = [{"drink": "mocha"}, {}, {}, {"size": "small"}]
    assert most_frequent(half, [0, 0, 1, 1], NAMES)[2:] == [{"drink": "mocha"}] * 2
    assert most_frequent([{"size": "small"}, {}, {}, {}], [0, 0, 0, 1], NAMES)[3] == {}, "empty is the usual answer"
    assert most_frequent([{"size": "small"}, {}, {}, {}], [0, 0, 0, 1], NAMES, filled=True)[3] == {"size": "small"}


def test_drawing_against_draws():
    rng = np.random.default_rng(1)
    gold, folds = drawn(rng, 40), [number % 4 for number in range(40)]
    expected = score_of_drawing(gold, folds, NAMES)
    counts, right = np.zeros(3), []
    for _ in range(400):
        answers = []
        for fold in folds:
            others = [one for one, other in zip(gold, folds, strict=True) if other != fold]
            picks = {name: others[rng.integers(len(others))].get(name) for name in NAMES}
            answers.append({name: value for name, value in picks.items() if value is not None})
        score = score_slots(gold, answers, NAMES)
        total = score.counts.overall()
        counts += (total.tp, total.fp, total.fn)
        right.append(score.accuracy)
    total = expected.counts.overall()
    assert counts / 400 == pytest.approx([total.tp, total.fp, total.fn], rel=0.02)
    assert np.mean(right) == pytest.approx(expected.accuracy, rel=0.1)


def test_rows_of_results():
    gold, groups = GOLD * 3, ["a", "b", "b", "c"] * 3
    system = score_slots(gold, [GOLD[0], {}, GOLD[2], GOLD[3]] * 3, NAMES)
    majority = score_slots(gold, [{"drink": "mocha"}] * 12, NAMES)
    guess = score_of_drawing(gold, [0, 1, 1, 2] * 3, NAMES)
    rows = {row.name: row for row in measure_slots("it", system, groups, guess, majority, split="held out")}
    assert list(rows) == ["it, slots", "it, all slots right", *(f"it, slot {name}" for name in NAMES)]
    whole, right = rows["it, slots"], rows["it, all slots right"]
    assert (whole.value, whole.chance, whole.majority) == (system.f1, guess.f1, majority.f1)
    assert (right.value, right.chance, right.majority) == (0.75, guess.accuracy, 0.0)
    assert (whole.items, whole.speakers, whole.resampled, whole.split) == (12, 3, "speakers", "held out")
    assert rows["it, slot drink"].majority == majority.slot_f1["drink"] and rows["it, slot size"].majority == 0

    gains = measure_slot_gain("gain", system, majority, groups)
    assert [row.value for row in gains] == pytest.approx([system.f1 - majority.f1, 0.75])
    assert all(row.low <= row.value <= row.high for row in gains)
    none = measure_slot_gain("gain", system, system, groups)
    assert [(row.value, row.low, row.high) for row in none] == [(0, 0, 0)] * 2
