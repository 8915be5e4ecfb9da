"""Leave one speaker out: who is trained on, who is chosen on, and the numbers, against brute force."""

import numpy as np
import pytest

from speechzoo.evaluation.leave_one_speaker_out import (
    SpeakerTest,
    count_trainings,
    leave_one_speaker_out,
    measure_gain,
    measure_speakers,
)

NAMES = ("ann", "bob", "cy", "dee")
SPEAKERS = [NAMES[row % 4] for row in range(40)]
TARGETS = [str(row // 4 % 5) for row in range(40)]
SETTINGS = {"small": 1, "medium": 2, "large": 3}


class Oracle:
    """A learner whose answer to a clip is right or wrong by a coin that knows everything it was called with."""

    def __init__(self, spoiled: str = "") -> None:
        self.calls: list[tuple[int, int, list[int], list[int]]] = []
        self.spoiled = spoiled  # all answers to this speaker's clips are wrong

    def right(self, setting: int, seed: int, trained: frozenset[str], row: int) -> bool:
        key = [setting, seed, row, *sorted(NAMES.index(name) for name in trained)]
        return SPEAKERS[row] != self.spoiled and bool(np.random.default_rng(key).random() < 0.5)

    def __call__(self, setting: int, seed: int, training: list[int], test: list[int]) -> list[str]:
        self.calls.append((setting, seed, training, test))
        trained = frozenset(SPEAKERS[row] for row in training)
        return [TARGETS[row] if self.right(setting, seed, trained, row) else "wrong" for row in test]


def clips_of(*names: str) -> list[int]:
    return [row for row in range(40) if SPEAKERS[row] in names]


def test_no_speaker_is_trained_on_and_tested_in_one_call():
    oracle = Oracle()
    leave_one_speaker_out(SPEAKERS, TARGETS, oracle, SETTINGS, seeds=[0, 1])
    for _, _, training, test in oracle.calls:
        assert not {SPEAKERS[row] for row in training} & {SPEAKERS[row] for row in test}
        assert sorted(training + test) == list(range(40)), "every clip has its place"


def test_trainings_are_six_pairs_a_setting_and_one_a_speaker_and_seed():
    oracle = Oracle()
    leave_one_speaker_out(SPEAKERS, TARGETS, oracle, SETTINGS, seeds=[5, 6])
    assert len(oracle.calls) == count_trainings(4, settings=3, seeds=2)
    inner, outer = oracle.calls[:18], oracle.calls[18:]
    assert {len(test) for *_, test in inner} == {20}
    assert all(seed == 5 for _, seed, _, _ in inner), "settings are chosen with the first seed"
    assert [(seed, test) for _, seed, _, test in outer] == [(s, clips_of(name)) for name in NAMES for s in (5, 6)]


def test_choice_and_scores_against_brute_force():
    oracle = Oracle()
    reached = leave_one_speaker_out(SPEAKERS, TARGETS, oracle, SETTINGS, seeds=[0, 1])
    for name in NAMES:
        others = [other for other in NAMES if other != name]
        inner = {}
        for setting, value in SETTINGS.items():
            accuracies = []
            for scored in others:
                trained = frozenset(others) - {scored}
                accuracies.append(np.mean([oracle.right(value, 0, trained, row) for row in clips_of(scored)]))
            inner[setting] = np.mean(accuracies)
        assert reached.inner[name] == pytest.approx(inner)
        assert inner[reached.settings[name]] == max(inner.values())
        value = SETTINGS[reached.settings[name]]
        for row in clips_of(name):
            expected = np.mean([oracle.right(value, seed, frozenset(others), row) for seed in (0, 1)])
            assert reached.scores[row] == expected
            for seed in (0, 1):
                right = oracle.right(value, seed, frozenset(others), row)
                assert (reached.answers[seed][row] == TARGETS[row]) == right
    assert len(set(reached.settings.values())) > 1, "the example must have speakers that choose differently"


@pytest.mark.parametrize("name", NAMES)
def test_what_the_test_speaker_said_does_not_move_the_choice(name):
    honest = leave_one_speaker_out(SPEAKERS, TARGETS, Oracle(), SETTINGS)
    spoiled = leave_one_speaker_out(SPEAKERS, TARGETS, Oracle(spoiled=name), SETTINGS)
    assert spoiled.inner[name] == honest.inner[name]
    assert spoiled.settings[name] == honest.settings[name]
    assert spoiled.inner != honest.inner, "others did choose on this speaker"


def test_a_single_setting_needs_no_choice():
    oracle = Oracle()
    reached = leave_one_speaker_out(SPEAKERS, TARGETS, oracle, {"only": 1})
    assert len(oracle.calls) == count_trainings(4, settings=1, seeds=1) == 4
    assert reached.settings == dict.fromkeys(NAMES, "only")


def test_answers_can_be_judged_in_another_way():
    def opposite(targets, answers):
        return [float(target != answer) for target, answer in zip(targets, answers, strict=True)]

    plain = leave_one_speaker_out(SPEAKERS, TARGETS, Oracle(), SETTINGS)
    turned = leave_one_speaker_out(SPEAKERS, TARGETS, Oracle(), SETTINGS, judge=opposite)
    for name in NAMES:
        inner = {setting: 1 - value for setting, value in plain.inner[name].items()}
        assert turned.inner[name] == pytest.approx(inner)
        assert turned.inner[name][turned.settings[name]] == max(turned.inner[name].values())
    assert turned.scores.mean() < 0.65 and set(turned.scores) == {0.0, 1.0}


def test_too_few_speakers():
    with pytest.raises(ValueError, match="only 2 speakers"):
        leave_one_speaker_out(["a", "b"], ["x", "y"], Oracle(), SETTINGS)


def test_rows_of_results():
    # ann 0.8, bob 0.4, cy 0.6, dee 1.0 of ten clips each; the other system has 0.5 everywhere.
    quota = {"ann": 8, "bob": 4, "cy": 6, "dee": 10}
    seen = dict.fromkeys(NAMES, 0)
    scores = np.zeros(40)
    for row, name in enumerate(SPEAKERS):
        scores[row] = seen[name] < quota[name]
        seen[name] += 1
    reached = SpeakerTest(settings={}, scores=scores)
    rows = {row.name: row for row in measure_speakers("it", reached, SPEAKERS, TARGETS, split="held out")}
    assert {name: rows[f"it, {name} held out"].value for name in NAMES} == {n: q / 10 for n, q in quota.items()}
    mean, worst = rows["it, mean of speakers"], rows["it, worst speaker (bob)"]
    assert (mean.value, mean.items, mean.speakers, mean.chance) == (pytest.approx(0.7), 40, 4, pytest.approx(0.2))
    assert (worst.value, worst.low, worst.high) == (0.4, rows["it, bob held out"].low, rows["it, bob held out"].high)
    assert mean.low < 0.7 < mean.high and mean.split == worst.split == "held out"

    half = SpeakerTest(settings={}, scores=np.full(40, 0.5))
    gains = {row.name: row for row in measure_gain("gain", reached, half, SPEAKERS)}
    assert gains["gain, mean of speakers"].value == pytest.approx(0.2)
    assert gains["gain, bob held out"].value == pytest.approx(-0.1)
    # Against a constant, a gain varies as the accuracy itself does.
    assert gains["gain, mean of speakers"].low == pytest.approx(mean.low - 0.5)


def test_majority_is_the_most_frequent_answer_of_those_trained_on():
    speakers, targets = ["a"] * 4 + ["b"] * 4, ["x", "x", "x", "y", "y", "y", "y", "x"]
    rows = measure_speakers("it", SpeakerTest(scores=np.ones(8)), speakers, targets)
    assert [row.majority for row in rows[:2]] == [0.25, 0.25]
