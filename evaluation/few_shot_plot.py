"""A picture of a few-shot report: accuracy against shots."""

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .few_shot_harness import NOTHING
from .few_shot_page import result_at, result_lines
from .few_shot_report import FewShotReport, FewShotResult

_MARKERS = "osD^vP*X"
_STYLES = ("-", "--", ":", "-.")  # of every ten systems, for there are ten colors
_Line = tuple[str, str, str]  # system, as what clips are shown, how they are chosen


def plot_few_shot(path: str | Path, report: FewShotReport) -> None:
    """Draws a panel for each task and each choice of demonstrations, and saves a PNG.

    A line for each system, by the report's first way of predicting; one that is not shown clips so, such as gold text
    where speech is shown, has the line of its own way. Bands are 95 % intervals over seeds and queries, chance is
    dotted. Raises `ValueError` when the report has no result.
    """
    chosen = [one for one in report.results if one.setting.rule == report.rule]
    if not chosen:
        raise ValueError("a plot needs a finished cell: run the grid first")
    tasks = list(dict.fromkeys(one.setting.task for one in chosen))
    lines = result_lines([one.setting for one in chosen])
    choices = sorted({line[1:] for line in lines if line[1] != NOTHING}) or [(NOTHING, NOTHING)]
    figure = Figure(figsize=(4.4 * len(tasks) + 2.8, 4.2 * len(choices)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(choices), len(tasks), squeeze=False, sharey=True)
    for choice, row in zip(choices, panels, strict=True):
        for panel, task in zip(row, tasks, strict=True):
            _draw(panel, task, [one for one in chosen if one.setting.task == task], _lines_of(choice, lines))
        row[0].set_ylabel("accuracy" if NOTHING in choice else f"accuracy; {choice[0]} shown, {choice[1]}")
    panels[0, 0].set_ylim(0, 1)
    _add_legend(figure, list(panels.flat))
    figure.suptitle(report.title)
    # No version of matplotlib in the file: the same report gives the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def _lines_of(choice: tuple[str, str], lines: list[_Line]) -> list[_Line]:
    """The line of each system that comes nearest to a choice: of it, of its selection, or any; in the given order."""
    by_system: dict[str, list[_Line]] = {}
    for line in lines:
        by_system.setdefault(line[0], []).append(line)
    return [max(own, key=lambda line: (line[1:] == choice, line[2] == choice[1])) for own in by_system.values()]


def _draw(panel: Axes, task: str, results: list[FewShotResult], lines: list[_Line]) -> None:
    shots = sorted({one.setting.shots for one in results})
    for number, line in enumerate(lines):
        found = [(shots.index(count), one) for count in shots if (one := result_at(results, line, count))]
        if found:
            _draw_line(panel, line[0], found, number)
    chances = sorted({round(one.chance, 6) for one in results})
    for chance in chances:
        panel.axhline(chance, color="0.45", linestyle=":", linewidth=1, label="chance")
    panel.set_title(task)
    panel.set_xlabel("shots")
    panel.set_xticks(range(len(shots)), [str(number) for number in shots])
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_line(panel: Axes, name: str, found: list[tuple[int, FewShotResult]], number: int) -> None:
    places = [place for place, _ in found]
    values = [one.value for _, one in found]
    # A point without an interval has a band of no width.
    low = [one.value if one.low is None else one.low for _, one in found]
    high = [one.value if one.high is None else one.high for _, one in found]
    marker = _MARKERS[number % len(_MARKERS)]
    panel.fill_between(places, low, high, color=f"C{number % 10}", alpha=0.15, linewidth=0)
    panel.plot(
        places,
        values,
        color=f"C{number % 10}",
        marker=marker,
        markersize=5,
        linestyle=_STYLES[number // 10 % len(_STYLES)],
        linewidth=1.4,
        label=name,
    )


def _add_legend(figure: Figure, panels: list[Axes]) -> None:
    """One for all panels, chance last."""
    entries = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    names = sorted(entries, key="chance".__eq__)
    figure.legend(
        [entries[name] for name in names],
        [textwrap.fill(name, 34) for name in names],
        loc="outside right upper",
        frameon=False,
    )
