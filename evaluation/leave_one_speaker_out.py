"""Leave one speaker out, with every setting chosen on the other speakers alone.

Each speaker is tested once, by a learner that was trained on all others. Which setting that learner has is chosen
before, by leaving out one more: for the test speaker and each other speaker, the pair is left out, the learner is
trained on the rest and scored on the other speaker only. So nothing that a test speaker said takes part in training
or in choosing what that speaker is tested with. A pair is trained without once and serves the choices of both.

A learner is any function of (setting, seed, rows to train on, rows to answer) that returns the answers. What is left
out may be any group of clips: where folds stand in place of the speakers, it is cross-validation.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from .adapter_evaluation import correct
from .intervals import mean_interval, paired_difference_interval, stratified_mean_interval
from .report import Measurement

Learner = Callable[[Any, int, list[int], list[int]], list[str]]
Judge = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
Scores = npt.NDArray[np.float64]


@dataclass
class SpeakerTest:
    """What a learner reached.

    settings: test speaker -> name of the setting chosen for it. inner: test speaker -> setting -> accuracy on the
    other speakers, the mean over them. scores [clips]: share of the seeds that answered a clip right, its speaker left
    out. answers: of each seed, those to all clips.
    """

    settings: dict[str, str] = field(default_factory=dict)
    inner: dict[str, dict[str, float]] = field(default_factory=dict)
    scores: Scores = field(default_factory=lambda: np.zeros(0))
    answers: list[list[str]] = field(default_factory=list)


def leave_one_speaker_out(
    speakers: Sequence[str],
    targets: Sequence[str],
    learner: Learner,
    settings: Mapping[str, Any],
    seeds: Sequence[int] = (0,),
    judge: Judge = correct,
) -> SpeakerTest:
    """Chooses a setting for each speaker on the others, then trains on all others and tests, once for each seed.

    Args:
        speakers, targets: of each clip.
        settings: name -> what the learner gets. With a single one nothing is left to choose.
        judge: how right each answer is, 0 to 1, from targets and answers.

    Raises `ValueError` for fewer than three speakers, or two when there is nothing to choose.
    """
    names = sorted(set(speakers))
    if len(names) < (3 if len(settings) > 1 else 2):
        raise ValueError(f"only {len(names)} speakers ({', '.join(names)}): none is left to train or to choose on")
    inner = _inner_accuracies(speakers, targets, learner, settings, seeds[0], judge) if len(settings) > 1 else {}
    test = SpeakerTest(inner=inner, scores=np.zeros(len(targets)), answers=[[""] * len(targets) for _ in seeds])
    for name in names:
        test.settings[name] = max(inner[name], key=inner[name].__getitem__) if inner else next(iter(settings))
        rows, others = rows_of(speakers, [name]), rows_of(speakers, [other for other in names if other != name])
        for number, seed in enumerate(seeds):
            answers = learner(settings[test.settings[name]], seed, others, rows)
            test.scores[rows] += np.array(judge([targets[row] for row in rows], answers)) / len(seeds)
            for row, answer in zip(rows, answers, strict=True):
                test.answers[number][row] = answer
    return test


def count_trainings(speakers: int, settings: int, seeds: int) -> int:
    """How often `leave_one_speaker_out` calls its learner."""
    pairs = speakers * (speakers - 1) // 2
    return speakers * seeds + (pairs * settings if settings > 1 else 0)


def rows_of(speakers: Sequence[str], chosen: Sequence[str]) -> list[int]:
    """Numbers of the clips that these speakers said."""
    return [row for row, speaker in enumerate(speakers) if speaker in chosen]


def _inner_accuracies(
    speakers: Sequence[str],
    targets: Sequence[str],
    learner: Learner,
    settings: Mapping[str, Any],
    seed: int,
    judge: Judge,
) -> dict[str, dict[str, float]]:
    """Test speaker -> setting -> mean accuracy on the other speakers, both left out of training in turn."""
    names = sorted(set(speakers))
    reached: dict[str, dict[str, list[float]]] = {name: {setting: [] for setting in settings} for name in names}
    for setting, value in settings.items():
        for pair in combinations(names, 2):
            training = rows_of(speakers, [name for name in names if name not in pair])
            held_out = rows_of(speakers, pair)
            answers = dict(zip(held_out, learner(value, seed, training, held_out), strict=True))
            for test_speaker, scored in (pair, pair[::-1]):
                rows = rows_of(speakers, [scored])
                right = judge([targets[row] for row in rows], [answers[row] for row in rows])
                reached[test_speaker][setting].append(float(np.mean(right)))
    return {
        name: {setting: float(np.mean(values)) for setting, values in by_setting.items()}
        for name, by_setting in reached.items()
    }


def measure_speakers(
    system: str, test: SpeakerTest, speakers: Sequence[str], targets: Sequence[str], **facts: Any
) -> list[Measurement]:
    """Accuracy on each held-out speaker, their mean and the worst. `facts`: any fields of `Measurement`.

    The majority is the most frequent answer of the speakers trained on.
    """
    facts = {"chance": 1 / len(set(targets)), **facts}
    by_speaker = {}
    for speaker in sorted(set(speakers)):
        rows = rows_of(speakers, [speaker])
        counted = Counter(target for target, other in zip(targets, speakers, strict=True) if other != speaker)
        frequent = counted.most_common(1)[0][0]
        own = {
            "items": len(rows),
            "speakers": 1,
            "resampled": "items",
            "majority": float(np.mean([targets[row] == frequent for row in rows])),
        }
        interval = mean_interval(test.scores[rows])
        by_speaker[speaker] = Measurement.of(f"{system}, {speaker} held out", "accuracy", interval, **own, **facts)
    worst = min(by_speaker, key=lambda speaker: by_speaker[speaker].value)
    mean = Measurement.of(
        f"{system}, mean of speakers",
        "accuracy",
        stratified_mean_interval(test.scores, speakers),
        items=len(targets),
        speakers=len(by_speaker),
        resampled="items within speakers",
        majority=float(np.mean([row.majority for row in by_speaker.values()])),
        **facts,
    )
    return [*by_speaker.values(), mean, replace(by_speaker[worst], name=f"{system}, worst speaker ({worst})")]


def measure_gain(
    name: str, first: SpeakerTest, second: SpeakerTest, speakers: Sequence[str], **facts: Any
) -> list[Measurement]:
    """Accuracy of the first minus the second on the same clips: for each speaker, and the mean over speakers."""
    gains = []
    for speaker in sorted(set(speakers)):
        own = rows_of(speakers, [speaker])
        interval = paired_difference_interval(first.scores[own], second.scores[own])
        own_facts = {"items": len(own), "speakers": 1, "resampled": "items", **facts}
        gains.append(Measurement.of(f"{name}, {speaker} held out", "accuracy_gain", interval, **own_facts))
    mean = stratified_mean_interval(first.scores - second.scores, speakers)
    shared = {"items": len(speakers), "speakers": len(set(speakers)), "resampled": "items within speakers", **facts}
    return [*gains, Measurement.of(f"{name}, mean of speakers", "accuracy_gain", mean, **shared)]
