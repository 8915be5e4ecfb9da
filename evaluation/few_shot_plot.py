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
_STYLES = ("-", "--", ":", "-.")


def plot_few_shot(path: str | Path, report: FewShotReport) -> None:
    """Draws a panel for each task and saves a PNG.

    A line for each system and choice of demonstrations, by the report's first way of predicting; bands are 95 %
    intervals over seeds and queries, chance is dotted. Raises `ValueError` when the report has no result.
    """
    chosen = [one for one in report.results if one.setting.rule == report.rule]
    if not chosen:
        raise ValueError("a plot needs a finished cell: run the grid first")
    tasks = list(dict.fromkeys(one.setting.task for one in chosen))
    lines = result_lines([one.setting for one in chosen])
    figure = Figure(figsize=(4.4 * len(tasks) + 2.8, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, len(tasks), squeeze=False, sharey=True).flat)
    for panel, task in zip(panels, tasks, strict=True):
        _draw(panel, task, [one for one in chosen if one.setting.task == task], lines)
    panels[0].set_ylabel("accuracy")
    panels[0].set_ylim(0, 1)
    _add_legend(figure, panels)
    figure.suptitle(report.title)
    # No version of matplotlib in the file: the same report gives the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw(panel: Axes, task: str, results: list[FewShotResult], lines: list[tuple[str, str, str]]) -> None:
    shots = sorted({one.setting.shots for one in results})
    systems = list(dict.fromkeys(system for system, _, _ in lines))
    choices = list(dict.fromkeys(line[1:] for line in lines))
    for line in lines:
        found = [(shots.index(number), one) for number in shots if (one := result_at(results, line, number))]
        if found:
            number = systems.index(line[0])
            _draw_line(panel, _name(line), found, number, _STYLES[choices.index(line[1:]) % len(_STYLES)])
    chances = sorted({round(one.chance, 6) for one in results})
    for chance in chances:
        panel.axhline(chance, color="0.45", linestyle=":", linewidth=1, label="chance")
    panel.set_title(task)
    panel.set_xlabel("shots")
    panel.set_xticks(range(len(shots)), [str(number) for number in shots])
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_line(panel: Axes, name: str, found: list[tuple[int, FewShotResult]], number: int, style: str) -> None:
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
        linestyle=style,
        linewidth=1.4,
        label=name,
    )


def _name(line: tuple[str, str, str]) -> str:
    system, demonstrations, selection = line
    return system if demonstrations == NOTHING else f"{system}; {demonstrations} shown, {selection}"


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
