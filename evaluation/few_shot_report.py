"""What a run of the few-shot harness found: accuracies with intervals beside what they are to be compared with.

Shapes: S seeds, Q queries, R resamples.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from .few_shot_harness import Cell, FewShotAnswer, FewShotRun
from .few_shot_tasks import FewShotMaterial, FewShotTask
from .intervals import Floats, Interval, Labels, sums_intervals
from .label_scores import LabelCounts
from .report import Corpus, Measurement, Report
from .sweep_report import SeedValue, student_interval

NO_LABEL = "no label"  # what a strict rule calls an answer that is none of the closed set


@dataclass(frozen=True)
class FewShotSetting:
    """What a result is of, but for the seed. `rule`: how answers are predicted."""

    task: str
    system: str
    demonstrations: str
    selection: str
    shots: int
    rule: str


@dataclass(frozen=True)
class FewShotResult:
    """An accuracy, with its 95 % interval over seeds and queries.

    seeds: the accuracy under each; one where no seed decides anything.
    items, speakers: queries, and who says them.
    same_text: share of queries of which a demonstration says the very words.
    other_text: accuracy over the other queries, `None` where there are none: neighbors may be told to pass over equal
        texts, and fixed draws are not, so that the two compare here.
    chance: of a guess among the closed set.
    majority: of always taking the class of it that is most frequent among the clips to show.
    topline, cascade: of the systems that were named so, with the same shots.
    """

    setting: FewShotSetting
    value: float
    low: float | None = None
    high: float | None = None
    seeds: list[SeedValue] = field(default_factory=list)
    items: int = 0
    speakers: int = 0
    same_text: float = 0.0
    other_text: float | None = None
    chance: float = 0.0
    majority: float = 0.0
    topline: float | None = None
    cascade: float | None = None


@dataclass(frozen=True)
class FewShotDifference:
    """A result minus that of the baseline system, in the same setting, on the same queries under the same seeds."""

    setting: FewShotSetting
    baseline: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of a class; `items` queries belong to it, over all seeds."""

    name: str
    precision: float
    recall: float
    f1: float
    items: int


@dataclass(frozen=True)
class FewShotDetail:
    """Where answers of a setting are right and wrong.

    confusion: class -> answer -> how many queries of all seeds. classes: in alphabetical order.
    """

    setting: FewShotSetting
    confusion: dict[str, dict[str, int]]
    classes: list[ClassScore]


@dataclass(frozen=True)
class FewShotReport(Report):
    """A report of a run. `rule` is the way of predicting that tables show first; `missing` names cells not run yet."""

    rule: str = ""
    results: list[FewShotResult] = field(default_factory=list)
    differences: list[FewShotDifference] = field(default_factory=list)
    details: list[FewShotDetail] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """What results are compared with, and how intervals are made.

    rule: the way of predicting that differences, details and measurements are of.
    topline, cascade, baseline: names of systems.
    resampled: whether queries are drawn one by one, or with all others of their speaker.
    """

    rule: str = "likelihood"
    topline: str | None = None
    cascade: str | None = None
    baseline: str | None = None
    resampled: Literal["queries", "speakers"] = "queries"
    resamples: int = 2000


@dataclass(frozen=True)
class _Answers:
    """The answers of one setting: those of each seed, to the same queries in the same order."""

    by_seed: dict[int, list[FewShotAnswer]]
    rule: str

    @property
    def some(self) -> list[FewShotAnswer]:
        return next(iter(self.by_seed.values()))

    @property
    def all(self) -> Iterable[FewShotAnswer]:
        return (one for answers in self.by_seed.values() for one in answers)

    @property
    def right(self) -> Floats:
        """[S, Q] ones and zeros."""
        rows = [[one.predicted[self.rule] == one.label for one in answers] for answers in self.by_seed.values()]
        return np.asarray(rows, dtype=np.float64)

    @property
    def same_text(self) -> npt.NDArray[np.bool_]:
        """[S, Q] whether a demonstration says what the query says."""
        return np.asarray([[one.same_text for one in answers] for answers in self.by_seed.values()])

    def clusters(self, comparison: Comparison) -> list[str] | None:
        """Speakers of the queries; a query without one stands for itself."""
        return [one.speaker or one.id for one in self.some] if comparison.resampled == "speakers" else None


def seeds_and_queries_interval(
    values: Floats, clusters: Labels | None = None, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of `values` [S, Q] with a 95 % interval for other seeds and other queries.

    Queries, or speakers with all of theirs, are resampled. To each resample comes a deviation drawn for the seeds,
    from a normal distribution as wide as Student's interval of S means. So where queries do not vary the interval is
    Student's over seeds, and of one seed it is the bootstrap over queries. (With three seeds a bootstrap of both would
    be too narrow: it never leaves the range of three means.) The noise of single answers is in both parts, so
    that the interval is rather too wide than too narrow, see benchmarks/interval_coverage.py.
    """
    table = np.concatenate([values.T, np.ones((values.shape[1], 1))], axis=1)
    spread = _half_width_of_seeds(values) / special.ndtri(0.975)
    lots = np.random.default_rng(seed + 1)

    def mean(sums: Floats) -> Floats:
        means = (sums[..., :-1] / sums[..., -1:]).mean(-1, keepdims=True)  # of the whole, or [R, 1]
        return means if means.ndim == 1 else means + spread * lots.standard_normal(means.shape)

    (interval,) = sums_intervals(table, mean, clusters, resamples=resamples, seed=seed)
    return interval


def _half_width_of_seeds(values: Floats) -> float:
    """Of Student's 95 % interval of the means of values [S, Q] over queries; 0 of one seed."""
    interval = student_interval(values.mean(1).tolist())
    return 0.0 if interval.high is None else interval.high - interval.value


def few_shot_results(
    answers: Mapping[Cell, Sequence[FewShotAnswer]], comparison: Comparison
) -> tuple[list[FewShotResult], list[FewShotDifference], list[FewShotDetail]]:
    """Results of every setting and rule; differences to the baseline and details by the first rule.

    Raises `ValueError` where the seeds of a setting were asked different queries, and for a rule or system that the
    comparison names and no cell has.
    """
    by_setting = _by_setting(answers)
    _check_names(by_setting, comparison)
    results = [_result(setting, one, by_setting, comparison) for setting, one in by_setting.items()]
    shown = {setting: one for setting, one in by_setting.items() if setting.rule == comparison.rule}
    differences = [
        _difference(setting, one, other, comparison)
        for setting, one in shown.items()
        if setting.system != comparison.baseline
        and (other := _counterpart(setting, comparison.baseline, by_setting, strictly=True)) is not None
        and not one.by_seed.keys().isdisjoint(other.by_seed)
    ]
    return results, differences, [_detail(setting, one) for setting, one in shown.items()]


def report_run(run: FewShotRun, comparison: Comparison, **facts: Any) -> FewShotReport:
    """The report of what is finished; `facts` are fields of `Report`.

    Nothing is compared with a system of the run that has not answered yet. Raises `ValueError` where none has.
    """
    answers = run.answers()
    if not answers:
        raise ValueError(f"'{run.folder}' holds no finished cell; run the grid first")
    comparison = _without_unanswered(comparison, run.systems.keys() - {cell.system for cell in answers})
    results, differences, details = few_shot_results(answers, comparison)
    tasks = {
        name: {**_without_defaults(asdict(task)), "classes": list(run.materials[name].classes)}
        for name, task in run.tasks.items()
    }
    left_out = [
        f"{name}: {count} {what} left out."
        for name, material in run.materials.items()
        for what, count in material.left_out.items()
    ]
    facts["settings"] = {**facts.get("settings", {}), "tasks": tasks, "comparison": asdict(comparison)}
    facts["limits"] = [*facts.get("limits", []), *left_out]
    return FewShotReport(
        **facts,
        measurements=[as_measurement(one, comparison) for one in results if one.setting.rule == comparison.rule],
        rule=comparison.rule,
        results=results,
        differences=differences,
        details=details,
        missing=[cell.name for cell in run.cells() if cell not in answers],
    )


def _without_unanswered(comparison: Comparison, waiting: AbstractSet[str]) -> Comparison:
    def answered(system: str | None) -> str | None:
        return None if system in waiting else system

    return replace(
        comparison,
        topline=answered(comparison.topline),
        cascade=answered(comparison.cascade),
        baseline=answered(comparison.baseline),
    )


def describe_material(task: FewShotTask, material: FewShotMaterial) -> list[Corpus]:
    """What is shown and what is asked about, as a report lists corpora."""
    shown = [one for part in material.parts for one in part.pool]
    asked = [one for part in material.parts for one in part.queries]
    speakers = [{one.speaker for one in clips if one.speaker} for clips in (shown, asked)]
    common = "" if task.folds else f"{len(speakers[0] & speakers[1])} of the speakers are in the demonstrations too"
    return [
        Corpus(task.train, "demonstrations", len({one.clip.id for one in shown}), speakers=len(speakers[0]) or None),
        Corpus(
            task.test or f"{task.train}, {task.folds} folds of speakers",
            "final test",
            len(asked),
            speakers=len(speakers[1]) or None,
            note=common if speakers[1] else "",
        ),
    ]


def as_measurement(result: FewShotResult, comparison: Comparison) -> Measurement:
    """A result as cards and tables of results show it."""
    setting = result.setting
    shown = f"{setting.shots} shots" + (f" of {setting.demonstrations}, {setting.selection}" if setting.shots else "")
    return Measurement(
        f"{setting.task}, {setting.system}, {shown}",
        "accuracy",
        result.value,
        result.low,
        result.high,
        items=result.items,
        speakers=result.speakers or None,
        split="final test",
        task="audio-classification",
        resampled=f"seeds and {comparison.resampled}" if len(result.seeds) > 1 else comparison.resampled,
        chance=result.chance,
        majority=result.majority,
        topline=result.topline,
    )


def _without_defaults(task: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in task.items() if value not in (None, "", [], {}, 0, False)}


def _by_setting(answers: Mapping[Cell, Sequence[FewShotAnswer]]) -> dict[FewShotSetting, _Answers]:
    found: dict[FewShotSetting, _Answers] = {}
    for cell, rows in answers.items():
        for rule in rows[0].predicted:
            setting = FewShotSetting(cell.task, cell.system, cell.demonstrations, cell.selection, cell.shots, rule)
            found.setdefault(setting, _Answers({}, rule)).by_seed[cell.seed] = list(rows)
    for setting, one in found.items():
        if len({tuple(row.id for row in rows) for rows in one.by_seed.values()}) > 1:
            raise ValueError(f"the seeds of {setting} were asked different queries; run the grid anew")
    return found


def _check_names(by_setting: Iterable[FewShotSetting], comparison: Comparison) -> None:
    settings = list(by_setting)
    known = {"rule": {one.rule for one in settings}, "system": {one.system for one in settings}}
    named = [
        ("rule", comparison.rule),
        *(("system", getattr(comparison, kind)) for kind in ("topline", "cascade", "baseline")),
    ]
    for kind, name in named:
        if name is not None and name not in known[kind]:
            raise ValueError(f"there is no {kind} '{name}'; the cells have {', '.join(sorted(known[kind]))}")


def _result(
    setting: FewShotSetting,
    answers: _Answers,
    by_setting: Mapping[FewShotSetting, _Answers],
    comparison: Comparison,
) -> FewShotResult:
    right, same = answers.right, answers.same_text
    interval = seeds_and_queries_interval(right, answers.clusters(comparison), resamples=comparison.resamples)
    low, high = (None if bound is None else min(1.0, max(0.0, bound)) for bound in (interval.low, interval.high))
    compared = {
        kind: float(other.right.mean())
        for kind in ("topline", "cascade")
        if (other := _counterpart(setting, getattr(comparison, kind), by_setting)) is not None
    }
    return FewShotResult(
        setting,
        interval.value,
        low,
        high,
        [SeedValue(seed, float(row.mean())) for seed, row in zip(answers.by_seed, right, strict=True)],
        len(answers.some),
        len({one.speaker for one in answers.some if one.speaker}),
        float(same.mean()),
        None if same.all() else float(right[~same].mean()),
        float(np.mean([1 / one.candidates for one in answers.all])),
        float(np.mean([one.majority == one.label for one in answers.all])),
        compared.get("topline"),
        compared.get("cascade"),
    )


def _counterpart(
    setting: FewShotSetting,
    system: str | None,
    by_setting: Mapping[FewShotSetting, _Answers],
    strictly: bool = False,
) -> _Answers | None:
    """The answers of another system in the same setting, or unless `strictly` where it is shown clips differently."""
    if system is None:
        return None
    for demonstrations in (setting.demonstrations, *(() if strictly else ("text", "speech"))):
        other = FewShotSetting(setting.task, system, demonstrations, setting.selection, setting.shots, setting.rule)
        if other in by_setting:
            return by_setting[other]
    return None


def _difference(
    setting: FewShotSetting, first: _Answers, second: _Answers, comparison: Comparison
) -> FewShotDifference:
    seeds = [seed for seed in first.by_seed if seed in second.by_seed]
    kept = [_Answers({seed: one.by_seed[seed] for seed in seeds}, one.rule).right for one in (first, second)]
    interval = seeds_and_queries_interval(
        kept[0] - kept[1], first.clusters(comparison), resamples=comparison.resamples
    )
    return FewShotDifference(setting, str(comparison.baseline), interval.value, interval.low, interval.high)


def _detail(setting: FewShotSetting, answers: _Answers) -> FewShotDetail:
    pairs = [(one.label, one.predicted[answers.rule] or NO_LABEL) for one in answers.all]
    confusion: dict[str, dict[str, int]] = {}
    for (label, predicted), count in sorted(Counter(pairs).items()):
        confusion.setdefault(label, {})[predicted] = count
    counts = LabelCounts.of(
        {label: (1, 0, 0)} if label == predicted else {label: (0, 0, 1), predicted: (0, 1, 0)}
        for label, predicted in pairs
    )
    classes = [
        ClassScore(label, score.precision, score.recall, score.f1, int(score.tp + score.fn))
        for label, score in sorted(counts.per_label().items())
        if label != NO_LABEL
    ]
    return FewShotDetail(setting, confusion, classes)


__all__ = [
    "ClassScore",
    "Comparison",
    "FewShotDetail",
    "FewShotDifference",
    "FewShotReport",
    "FewShotResult",
    "FewShotSetting",
    "describe_material",
    "few_shot_results",
    "report_run",
    "seeds_and_queries_interval",
]
