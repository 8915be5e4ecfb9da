"""A picture of a grid of a sweep, made from its report alone."""

import itertools
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from .sweep_report import ShownColumn, SweepReport, SweepValue

_MARKERS = "osD^vP*X"
_REFERENCES = {"chance": ":", "majority": "-.", "topline": "--"}
_COLUMNS = 3
_MEAN, _SEED = "mean over seeds", "one seed"


def plot_sweep(path: str | Path, report: SweepReport) -> None:
    """Draws a panel for each measurement and saves a PNG.

    Means over seeds with 95 % intervals over seeds, the seeds as small dots, chance, majority and topline as lines.
    The first axis lies along the bottom; each combination of the others is a line. Raises `ValueError` when the report
    has no values.
    """
    if not report.values:
        raise ValueError("a plot needs a finished cell: run the sweep first")
    columns = min(_COLUMNS, len(report.shown))
    rows = math.ceil(len(report.shown) / columns)
    # Room for the legend at the right.
    figure = Figure(figsize=(4.6 * columns + 2.2, 3.8 * rows + 0.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, column in zip(panels, report.shown, strict=False):
        _draw(panel, report, column)
    for panel in panels[len(report.shown) :]:
        panel.remove()
    _add_legend(figure, panels[: len(report.shown)])
    figure.suptitle(report.title)
    # No version of matplotlib in the file: the same report gives the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw(panel: Axes, report: SweepReport, column: ShownColumn) -> None:
    values = [value for value in report.values if value.measured == column.title]
    series: dict[str, list[SweepValue]] = {}
    for value in values:
        name = ", ".join(f"{axis.title} {value.labels[axis.name]}" for axis in report.axes[1:])
        series.setdefault(name, []).append(value)
    for number, (name, points) in enumerate(series.items()):
        _draw_series(panel, report, name, points, number, len(series))
    for name in _REFERENCES:
        _draw_reference(panel, report, values, name, column.scale)
    _label_axis(panel, report)
    panel.set_ylabel(textwrap.fill(column.title, 40))
    panel.set_yscale(column.scale)
    if column.scale == "log":
        panel.yaxis.set_major_locator(LogLocator(subs=_labeled(*panel.get_ylim())))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _labeled(low: float, high: float) -> tuple[int, ...]:
    """Which multiples of powers of ten are labeled: the fewer, the more powers there are."""
    powers = math.log10(high / low)
    return (1, 2, 3, 5, 7) if powers < 1.5 else (1, 3) if powers < 4 else (1,)


def _draw_series(
    panel: Axes, report: SweepReport, name: str, points: Sequence[SweepValue], number: int, count: int
) -> None:
    # Lines stand a little beside each other, or their intervals would hide one another.
    shift = (number - (count - 1) / 2) * min(0.12, 0.6 / count)
    positions = [_shifted(report, _position(report, point), shift) for point in points]
    color = f"C{number % 10}"
    # A point without an interval has none to draw.
    below = [0.0 if point.low is None else point.mean - point.low for point in points]
    above = [0.0 if point.high is None else point.high - point.mean for point in points]
    panel.errorbar(
        positions,
        [point.mean for point in points],
        yerr=[below, above],
        color=color,
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=5,
        linestyle="-" if _is_ordered(report) else "",
        linewidth=1.2,
        elinewidth=1,
        capsize=3,
        label=name or _MEAN,
    )
    seeds = [(at, seed.value) for at, point in zip(positions, points, strict=True) for seed in point.seeds]
    across, up = zip(*seeds, strict=True)
    panel.scatter(across, up, s=14, color=color, alpha=0.4, linewidths=0, zorder=3, label=_SEED)


def _draw_reference(panel: Axes, report: SweepReport, values: Sequence[SweepValue], name: str, scale: str) -> None:
    known = [(_position(report, value), getattr(value, name)) for value in values if getattr(value, name) is not None]
    known = [(at, height) for at, height in known if height > 0 or scale == "linear"]
    heights = {height for _, height in known}
    if len(heights) == 1:
        panel.axhline(heights.pop(), color="0.45", linestyle=_REFERENCES[name], linewidth=1, label=name)
    elif known:
        panel.plot(*zip(*known, strict=True), color="0.45", linestyle="", marker="_", markersize=14, label=name)


def _add_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One for all panels: lines first, then what the marks mean."""
    entries = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    last = [name for name in (_SEED, *_REFERENCES) if name in entries]
    names = [*(name for name in entries if name not in last), *last]
    figure.legend(
        [entries[name] for name in names],
        [textwrap.fill(name, 26) for name in names],
        loc="outside right upper",
        title="mean, 95 % interval\nover seeds",
        frameon=False,
    )


def _is_ordered(report: SweepReport) -> bool:
    """Whether the labels are numbers, which a line may join."""
    return all(re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", label) for label in report.axes[0].labels)


def _position(report: SweepReport, value: SweepValue) -> float:
    axis = report.axes[0]
    label = value.labels[axis.name]
    return float(axis.labels.index(label)) if axis.scale == "category" else float(label)


def _shifted(report: SweepReport, position: float, shift: float) -> float:
    """A position moved by `shift` times the smallest distance of two labels."""
    scale = report.axes[0].scale
    if scale == "category":
        return position + shift
    places = sorted(float(label) for label in report.axes[0].labels)
    pairs = list(itertools.pairwise(places))
    if scale == "linear":
        return position + shift * min((high - low for low, high in pairs), default=0.0)
    return float(position * min((high / low for low, high in pairs), default=1.0) ** shift)


def _label_axis(panel: Axes, report: SweepReport) -> None:
    axis = report.axes[0]
    panel.set_xlabel(axis.title)
    if axis.scale == "category":
        panel.set_xlim(-0.5, len(axis.labels) - 0.5)
        width = max(8, 48 // len(axis.labels))
        panel.set_xticks(range(len(axis.labels)), [textwrap.fill(label, width) for label in axis.labels])
        return
    panel.set_xscale(axis.scale)
    panel.set_xticks([float(label) for label in axis.labels], axis.labels)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_minor_formatter(NullFormatter())
