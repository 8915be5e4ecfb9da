"""Bootstrap 95 % intervals: of means, of ratios of sums, by item or by speaker, of paired differences, over strata.

`sums_intervals` takes any statistics of summed columns (F1s, BLEU), all of the same draws.

Everything is one resampling: units are drawn with replacement, their columns are summed, and a statistic is taken of
the sums. A unit is an item, or a speaker with all of its items. A drawn speaker brings all of its items; nothing is
drawn inside a speaker, because items of one voice stand or fall together and drawing them once more would count that
twice.

The bounds are percentiles at levels widened for few units (the expanded percentile interval of Hesterberg, "What
teachers should know about the bootstrap", arXiv 1411.5279). Plain percentiles are too narrow for a dozen speakers, see
benchmarks/interval_coverage.py. Where all units agree (all right or all wrong) the interval has no width, which says
only that the sample shows no variation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse, special

Floats: TypeAlias = npt.NDArray[np.float64]
Values: TypeAlias = Sequence[float] | Sequence[int] | Sequence[bool] | npt.NDArray[np.generic]
Labels: TypeAlias = Sequence[str] | Sequence[int] | npt.NDArray[np.generic]

_CHUNK = 4_000_000  # entries of a resampled table held in memory at once


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95 % interval, which are `None` where fewer than two units leave none, or
    no resample defines the value.

    `units` says how many items or speakers were resampled.
    """

    value: float
    low: float | None
    high: float | None
    units: int


def flatten_intervals(intervals: Mapping[str, Interval]) -> dict[str, float | None]:
    """`name`, `name_low` and `name_high` of each: the flat result of an `evaluate.Metric`."""
    return {
        name + suffix: value
        for name, interval in intervals.items()
        for suffix, value in (("", interval.value), ("_low", interval.low), ("_high", interval.high))
    }


def mean_interval(
    values: Values, clusters: Labels | None = None, *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of `values`, one per item; by speaker when `clusters` names the speaker of each item."""
    return ratio_interval(values, np.ones(len(values)), clusters, resamples=resamples, seed=seed)


def ratio_interval(
    numerators: Values,
    denominators: Values,
    clusters: Labels | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The sum of `numerators` over the sum of `denominators`: a WER from errors and reference words per item."""
    table = _table(clusters, numerators, denominators)
    return _bootstrap([table], _ratio, resamples, seed)


def paired_difference_interval(
    first: Values,
    second: Values,
    denominators: Values | None = None,
    clusters: Labels | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """First system minus second on the same items: of means, or of ratios to the `denominators` they share."""
    _check_lengths(first, second)
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    below = np.ones(len(difference)) if denominators is None else denominators
    return ratio_interval(difference, below, clusters, resamples=resamples, seed=seed)


def stratified_mean_interval(values: Values, strata: Labels, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean over strata of the mean within each, every stratum weighing the same.

    Items are resampled within each stratum. With held-out speakers as strata it answers for these speakers and other
    clips of theirs, not for other speakers. For two systems, give the paired differences as `values`.
    """
    _check_lengths(values, strata)
    column = np.asarray(values, dtype=np.float64)
    labels = np.asarray(strata)
    tables = [
        np.stack([column[labels == label], np.ones((labels == label).sum())], axis=1) for label in np.unique(labels)
    ]
    return _bootstrap(tables, _ratio, resamples, seed)


def sums_intervals(
    counts: Floats | sparse.csr_array,
    statistics: Callable[[Floats], Floats],
    clusters: Labels | None = None,
    *,
    resamples: int = 1_000,
    seed: int = 0,
) -> list[Interval]:
    """Intervals of statistics of summed counts, which all see the same resamples.

    Args:
        counts: what each item adds, `(items, columns)`; sparse where most of it is 0.
        statistics: from sums `(..., columns)` to values `(..., statistics)`, NaN where one is undefined. Resamples
            that leave one undefined do not count for it; its interval has no bounds when the whole leaves it so.
    """
    _check_lengths(range(counts.shape[0]), *([] if clusters is None else [clusters]))
    table = sparse.csr_array(counts, dtype=np.float64)
    if clusters is not None:
        table = sparse.csr_array(_membership(clusters) @ table)
    values = statistics(np.asarray(table.sum(axis=0), dtype=np.float64))
    units = table.shape[0]
    drawn = None
    if units > 1:
        drawn = statistics(_resampled_sums(table, resamples, np.random.default_rng(seed)))
    return [
        _interval(float(value), None if drawn is None or np.isnan(value) else drawn[:, number], units, units - 1)
        for number, value in enumerate(values)
    ]


def _table(clusters: Labels | None, *columns: Values) -> Floats:
    """The columns summed within each unit, of shape `(units, columns)`."""
    _check_lengths(*columns, *([] if clusters is None else [clusters]))
    table = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    return table if clusters is None else _membership(clusters) @ table


def _membership(clusters: Labels) -> sparse.csr_array:
    """Ones where an item belongs to a unit, of shape `(units, items)`, units in the order of their names."""
    _, unit_of_item = np.unique(np.asarray(clusters), return_inverse=True)
    items = len(unit_of_item)
    return sparse.csr_array((np.ones(items), (unit_of_item, np.arange(items))), shape=(unit_of_item.max() + 1, items))


def _check_lengths(*columns: Values | Labels) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1 or lengths[0] == 0:
        raise ValueError(f"an interval needs equally long, not empty columns; these have {lengths} items")


def _ratio(sums: Floats) -> Floats:
    """Column 0 over column 1, of shape `(..., 2)`; a resample without a denominator is left out later as NaN."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] != 0)


def _bootstrap(tables: list[Floats], statistic: Callable[[Floats], Floats], resamples: int, seed: int) -> Interval:
    """The mean over the tables (strata) of a statistic of their sums, with its interval."""
    value = float(np.mean([statistic(table.sum(axis=0)) for table in tables]))
    if np.isnan(value):
        raise ValueError("the ratio is undefined: the denominators sum to 0")
    units = sum(len(table) for table in tables)
    freedom = units - len(tables)
    if freedom < 1:
        return Interval(value, None, None, units)
    generator = np.random.default_rng(seed)
    sums = [_resampled_sums(sparse.csr_array(table), resamples, generator) for table in tables]
    return _interval(value, np.mean([statistic(drawn) for drawn in sums], axis=0), units, freedom)


def _interval(value: float, drawn: Floats | None, units: int, freedom: int) -> Interval:
    """The bounds from a statistic of the resamples, of shape `(resamples,)`."""
    defined = np.empty(0) if drawn is None else drawn[~np.isnan(drawn)]
    if not len(defined):
        return Interval(value, None, None, units)
    # A resample varies by (n - 1) / n too little and its percentiles assume a normal instead of Student's t.
    level = special.ndtr(special.stdtrit(freedom, 0.025) * np.sqrt(units / freedom))
    low, high = np.quantile(defined, [level, 1 - level])
    return Interval(value, float(low), float(high), units)


def _resampled_sums(table: sparse.csr_array, resamples: int, generator: np.random.Generator) -> Floats:
    """Sums of the columns over units drawn with replacement, of shape `(resamples, columns)`.

    How often each unit is drawn, times what it adds: all columns share the draws, zeros cost nothing, and the order of
    the additions does not depend on the chunks.
    """
    units, columns = table.shape
    by_column = sparse.csr_array(table.T)
    sums = np.empty((resamples, columns))
    step = max(1, _CHUNK // units)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(units, size=(rows, units))
        drawn += np.arange(rows)[:, None] * units
        times = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        sums[start : start + rows] = (by_column @ times.T.astype(np.float64)).T
    return sums
