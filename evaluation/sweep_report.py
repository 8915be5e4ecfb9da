"""The report of one grid of a sweep: every value over seeds with its interval, paired differences, and costs.

The units of all intervals here are seeds. They answer what another seed would give on the same test data; what other
speakers or clips would give is another question, which the intervals of the single runs answer, each for its own run.
They stand beside the seeds' values in the report and are never averaged.
"""

import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from .intervals import Interval
from .report import Measurement, Report, read_report
from .sweep_cells import Cell, Grid, ShownMeasurement, SweepArguments
from .sweep_records import CellFolder, CellRecord


@dataclass(frozen=True)
class SweepAxis:
    """What was varied: its labels, in order, and the scale (`category`, `linear`, `log`) of a plot."""

    name: str
    title: str
    labels: list[str]
    scale: str = "category"


@dataclass(frozen=True)
class ShownColumn:
    """What was measured, the scale (`linear`, `log`) of a plot, and which mean over seeds (`arithmetic`, `geometric`)
    is taken.
    """

    title: str
    metric: str
    scale: str = "linear"
    mean: str = "arithmetic"


@dataclass(frozen=True)
class SeedValue:
    """What the run with one seed gave; `low` and `high` are its own interval over `resampled` (items, speakers)."""

    seed: int
    value: float
    low: float | None = None
    high: float | None = None
    resampled: str = ""


@dataclass(frozen=True)
class SweepValue:
    """One measurement of one cell: the mean over seeds, with Student's 95 % interval over seeds; see `ShownColumn`.

    `chance`, `majority` and `topline` are what the runs report, in the mean over seeds where it differs.
    """

    labels: dict[str, str]
    measured: str
    mean: float
    low: float | None = None
    high: float | None = None
    seeds: list[SeedValue] = field(default_factory=list)
    items: int = 0
    speakers: int | None = None
    chance: float | None = None
    majority: float | None = None
    topline: float | None = None


@dataclass(frozen=True)
class CellRun:
    """What one run of a cell cost, and how to repeat it."""

    seed: int
    command: str
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    threads: int
    code: str
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepCell:
    """A combination of labels, with its flags (all but the seed), its runs, and the parameters that were trained."""

    labels: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    runs: list[CellRun] = field(default_factory=list)
    trained_parameters: int | None = None


@dataclass(frozen=True)
class PairedDifference:
    """A cell minus its baseline, in the mean over the seeds they share, with Student's 95 % interval of that mean.

    Where means are geometric, the cell divided by its baseline.
    """

    labels: dict[str, str]
    baseline: dict[str, str]
    measured: str
    mean: float
    low: float | None = None
    high: float | None = None
    differences: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepReport(Report):
    """A report of many runs. `budget` and the seeds are the same for all; `missing` names the runs that are not in."""

    axes: list[SweepAxis] = field(default_factory=list)
    shown: list[ShownColumn] = field(default_factory=list)
    cells: list[SweepCell] = field(default_factory=list)
    values: list[SweepValue] = field(default_factory=list)
    differences: list[PairedDifference] = field(default_factory=list)
    budget: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Finished:
    cell: Cell
    record: CellRecord
    report: Report


def student_interval(values: Sequence[float]) -> Interval:
    """The mean with Student's 95 % interval, for few units whose values are about normally distributed, such as seeds.

    With 3 values it reaches 2.5 standard deviations to either side. (A bootstrap of 3 values never leaves their range,
    which holds the true mean only 3 times in 4.) It may reach beyond what a metric can be.
    """
    column = np.asarray(values, dtype=np.float64)
    if column.size == 0:
        raise ValueError("an interval needs at least one value")
    mean, units = float(column.mean()), len(column)
    if units < 2:
        return Interval(mean, None, None, units)
    half = float(special.stdtrit(units - 1, 0.975) * column.std(ddof=1) / np.sqrt(units))
    return Interval(mean, mean - half, mean + half, units)


def geometric_interval(values: Sequence[float]) -> Interval:
    """The same of the values' logarithms, turned back. Raises `ValueError` for values that are not above 0."""
    if min(values, default=1.0) <= 0:
        raise ValueError(f"{min(values):g} has no logarithm; take the arithmetic mean")
    interval = student_interval(np.log(values).tolist())
    low, high = (None if bound is None else math.exp(bound) for bound in (interval.low, interval.high))
    return replace(interval, value=math.exp(interval.value), low=low, high=high)


_BY_DIFFERENCES = (operator.sub, student_interval)
_BY_FACTORS = (operator.truediv, geometric_interval)


def report_grid(sweep: SweepArguments, grid_name: str, command: str) -> SweepReport | None:
    """The report of a grid from its finished cells, or `None` when there is none.

    Raises `ValueError` when the report of a cell does not hold what the sweep shows.
    """
    grid = sweep.grids[grid_name]
    cells = [cell for cell in sweep.cells if cell.grid == grid_name]
    finished, missing = _read_finished(sweep, cells)
    if not finished:
        return None
    combinations = _by_labels(finished)
    values = [
        value_of(labels, shown, {one.cell.seed: find_measurement(one.report, shown, one.cell.name) for one in runs})
        for shown in sweep.measurements
        for labels, runs in combinations
    ]
    columns = [ShownColumn(shown.label, shown.metric, shown.scale, shown.mean) for shown in sweep.measurements]
    first = finished[0].report
    return SweepReport(
        title=": ".join(filter(None, [sweep.title, grid.title or grid_name])),
        system=", ".join(dict.fromkeys(one.report.system for one in finished)),
        command=command,
        seeds={f"seed {number}": seed for number, seed in enumerate(sweep.seeds)},
        # The same results give the same file, whenever it is made.
        date=max(one.record.finished for one in finished),
        environment=first.environment,
        corpora=list(dict.fromkeys(corpus for one in finished for corpus in one.report.corpora)),
        backbones=list(dict.fromkeys(backbone for one in finished for backbone in one.report.backbones)),
        paper=first.paper,
        language=first.language,
        limits=[*first.limits, *_differing_conditions(finished)],
        axes=[SweepAxis(name, axis.title or name, axis.labels, axis.scale) for name, axis in grid.axes.items()],
        shown=columns,
        cells=[_cell_of(labels, runs, sweep.seed_flag) for labels, runs in combinations],
        values=values,
        differences=paired_differences(grid, values, [one.title for one in columns if one.mean == "geometric"]),
        budget=sweep.budget,
        missing=missing,
    )


def find_measurement(report: Report, shown: ShownMeasurement, where: str) -> Measurement:
    """The measurement of a cell's report that is shown. Raises `ValueError` unless there is exactly one."""
    found = [
        row
        for row in report.measurements
        if (row.name, row.metric) == (shown.name, shown.metric) and shown.split in ("", row.split)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{where} reports '{shown.name}', {shown.metric} {len(found)} times; name the split")
    rows = ", ".join(f"'{row.name}' ({row.metric})" for row in report.measurements) or "nothing"
    raise ValueError(f"{where} does not report '{shown.name}' ({shown.metric}); it reports {rows}")


def value_of(labels: dict[str, str], shown: ShownMeasurement, rows: Mapping[int, Measurement]) -> SweepValue:
    """One measurement of one cell from what each seed gave."""
    mean = geometric_interval if shown.mean == "geometric" else student_interval
    interval = mean([row.value for row in rows.values()])
    some = next(iter(rows.values()))
    return SweepValue(
        labels,
        shown.label,
        interval.value,
        interval.low,
        interval.high,
        [SeedValue(seed, row.value, row.low, row.high, row.resampled) for seed, row in rows.items()],
        some.items,
        some.speakers,
        *(_shared([getattr(row, name) for row in rows.values()]) for name in ("chance", "majority", "topline")),
    )


def paired_differences(
    grid: Grid, values: Sequence[SweepValue], geometric: Sequence[str] = ()
) -> list[PairedDifference]:
    """Every value minus that of the cell which differs from it on the axes of a baseline alone, over shared seeds;
    measurements named in `geometric` are divided by it.
    """
    by_cell = {(value.measured, *sorted(value.labels.items())): value for value in values}
    differences = []
    for baseline in grid.baselines:
        for value in values:
            partner = by_cell.get((value.measured, *sorted({**value.labels, **baseline}.items())))
            if partner is None or partner is value:
                continue
            other = {one.seed: one.value for one in partner.seeds}
            compare, mean = _BY_FACTORS if value.measured in geometric else _BY_DIFFERENCES
            by_seed = {str(one.seed): compare(one.value, other[one.seed]) for one in value.seeds if one.seed in other}
            if by_seed:
                interval = mean(list(by_seed.values()))
                bounds = (interval.value, interval.low, interval.high)
                differences.append(
                    PairedDifference(value.labels, partner.labels, value.measured, *bounds, differences=by_seed)
                )
    return differences


def _read_finished(sweep: SweepArguments, cells: Sequence[Cell]) -> tuple[list[_Finished], list[str]]:
    finished, missing = [], []
    for cell in cells:
        folder = CellFolder.of(sweep.folder, cell)
        record = folder.record()
        if folder.state() == "done" and record is not None:
            finished.append(_Finished(cell, record, read_report(folder.report)))
        else:
            missing.append(f"{cell.name}: {'failed' if folder.state() == 'failed' else 'has not run'}")
    return finished, missing


def _by_labels(finished: Sequence[_Finished]) -> list[tuple[dict[str, str], list[_Finished]]]:
    """The runs of each combination of labels, in the order of the cells."""
    runs: dict[tuple[str, ...], list[_Finished]] = {}
    for one in finished:
        runs.setdefault(tuple(one.cell.labels.values()), []).append(one)
    return [(group[0].cell.labels, group) for group in runs.values()]


def _cell_of(labels: dict[str, str], finished: Sequence[_Finished], seed_flag: str) -> SweepCell:
    runs = [
        CellRun(
            one.cell.seed,
            one.record.command,
            one.record.wall_seconds,
            one.record.cpu_seconds,
            one.record.peak_memory_bytes,
            one.record.threads,
            one.record.code,
            one.report.wall_seconds,
        )
        for one in finished
    ]
    parameters = finished[0].report.parameters
    settings = {name: value for name, value in finished[0].cell.settings.items() if name != seed_flag}
    return SweepCell(labels, settings, runs, parameters.trainable if parameters else None)


def _shared(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return known[0] if len(set(known)) == 1 else sum(known) / len(known)


def _differing_conditions(finished: Sequence[_Finished]) -> list[str]:
    """Sentences on what should have been the same for all runs and was not."""
    conditions: list[tuple[str, Callable[[_Finished], Any]]] = [
        ("versions of this package's code", lambda one: one.record.code),
        ("numbers of threads", lambda one: one.record.threads),
        ("processors", lambda one: one.report.environment and one.report.environment.hardware),
        ("sets of library versions", lambda one: one.report.environment and one.report.environment.packages),
    ]
    counts = [(what, len({repr(read(one)) for one in finished})) for what, read in conditions]
    return [f"The runs used {count} different {what}." for what, count in counts if count > 1]


def result_path(sweep: SweepArguments, grid_name: str, suffix: str) -> Path:
    """Where a grid's report, table or plot lies."""
    return Path(os.fspath(sweep.results)) / f"{grid_name}{suffix}"
