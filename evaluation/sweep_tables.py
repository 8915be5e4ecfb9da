"""The Markdown page of a grid of a sweep, made from its report alone."""

from collections.abc import Sequence

from .sweep_report import PairedDifference, SweepCell, SweepReport, SweepValue

DASH = "\u2013"


def sweep_page(report: SweepReport, plot: str = "") -> str:
    """Title, plot (a file beside the page), a table for each measurement, paired differences, costs, commands."""
    parts = [f"# {report.title}", _how_made(report)]
    if plot:
        parts.append(f"![{report.title}]({plot})")
    for column in report.shown:
        parts += [f"## {column.title}", value_table(report, column.title)]
        if differences := [one for one in report.differences if one.measured == column.title]:
            parts.append(difference_table(report, differences))
    parts += ["## Cost", cost_table(report)]
    notes = [f"Not in: {name}." for name in report.missing] + report.limits
    if notes:
        parts += ["## To know", "\n".join(f"- {note}" for note in notes)]
    parts += ["## Commands", _commands(report)]
    return "\n\n".join(parts) + "\n"


def summary_table(report: SweepReport) -> str:
    """Every measurement of every cell in one table: the mean over seeds with its interval."""
    compared = [
        name for name in ("chance", "majority", "topline") if any(getattr(v, name) is not None for v in report.values)
    ]
    header = ["measured", *_titles(report), "mean", "95 % interval over seeds", *compared]
    rows = [
        [
            _escape(value.measured),
            *_labels(report, value.labels),
            f"**{_number(value.mean)}**",
            _bounds(value.low, value.high),
            *(_number(getattr(value, name)) for name in compared),
        ]
        for value in report.values
    ]
    return _table(header, 1 + len(report.axes), rows)


def value_table(report: SweepReport, measured: str) -> str:
    """One measurement, one cell a row: the mean over seeds, its interval, every seed, and what to compare it with."""
    values = [value for value in report.values if value.measured == measured]
    compared = [
        name for name in ("chance", "majority", "topline") if any(getattr(v, name) is not None for v in values)
    ]
    header = [*_titles(report), "mean", "95 % interval over seeds", "each seed", *compared]
    return _table(header, len(report.axes), [_value_row(report, value, compared) for value in values])


def _value_row(report: SweepReport, value: SweepValue, compared: Sequence[str]) -> list[str]:
    return [
        *_labels(report, value.labels),
        f"**{_number(value.mean)}**",
        _bounds(value.low, value.high),
        " ".join(_number(seed.value) for seed in value.seeds),
        *(_number(getattr(value, name)) for name in compared),
    ]


def difference_table(report: SweepReport, differences: Sequence[PairedDifference]) -> str:
    """Cells minus their baselines, seed by seed; divided by them where means are geometric."""
    factors = {column.title for column in report.shown if column.mean == "geometric"} & {differences[0].measured}
    sign, compared = ("", ["divided by", "mean factor"]) if factors else ("+", ["minus", "mean difference"])
    header = [*_titles(report), *compared, "95 % interval over seeds", "each seed"]
    rows = [
        [
            *_labels(report, one.labels),
            ", ".join(_escape(one.baseline[axis.name]) for axis in report.axes),
            f"**{_number(one.mean, sign)}**",
            _bounds(one.low, one.high, sign),
            " ".join(_number(difference, sign) for difference in one.differences.values()),
        ]
        for one in differences
    ]
    return _table(header, len(report.axes) + 1, rows)


def cost_table(report: SweepReport) -> str:
    """What each cell cost in the mean over its runs."""
    trained = any(cell.trained_parameters is not None for cell in report.cells)
    header = [*_titles(report), "runs", "CPU seconds", "wall seconds", "peak memory, GB"]
    rows = [[*_labels(report, cell.labels), *_costs(cell)] for cell in report.cells]
    if trained:
        header.append("trained parameters")
        rows = [
            [*row, DASH if cell.trained_parameters is None else f"{cell.trained_parameters:,}"]
            for row, cell in zip(rows, report.cells, strict=True)
        ]
    return _table(header, len(report.axes), rows)


def _costs(cell: SweepCell) -> list[str]:
    count = len(cell.runs)
    cpu, wall = (sum(getattr(run, name) for run in cell.runs) / count for name in ("cpu_seconds", "wall_seconds"))
    memory = max(run.peak_memory_bytes for run in cell.runs) / 1e9
    return [str(count), f"{cpu:.1f}", f"{wall:.1f}", f"{memory:.2f}"]


def _how_made(report: SweepReport) -> str:
    seeds = len(report.seeds)
    budget = ", ".join(f"{name} {value}" for name, value in report.budget.items())
    sentences = [
        f"Means over {seeds} seed{'' if seeds == 1 else 's'}"
        + (f", every run with the budget {budget}." if budget else "."),
        "Intervals are Student's, with seeds as the units: what another seed would give on the same test data. They "
        "say nothing of other speakers or clips, may reach beyond what a metric can be, and have no width where all "
        "seeds agree.",
    ]
    if factors := sorted({column.metric for column in report.shown if column.mean == "geometric"}):
        sentences.append(
            f"Means of {', '.join(factors)} are geometric, with intervals of the logarithms, turned back, and factors "
            "in place of differences."
        )
    if report.differences:
        sentences.append(
            "Differences are paired by seed; their intervals are not widened for the number of comparisons."
        )
    threads = sorted({run.threads for cell in report.cells for run in cell.runs})
    hardware = f"{report.environment.hardware}; " if report.environment else ""
    counts = " or ".join(map(str, threads))
    sentences.append(f"{hardware}{counts} thread{'' if counts == '1' else 's'} a run; {report.date[:10]}.")
    return " ".join(sentences)


def _commands(report: SweepReport) -> str:
    runs = [run for cell in report.cells for run in cell.runs[:1]]
    singles = "\n".join(run.command for run in runs)
    return (
        f"```\n{report.command}\n```\n\n<details><summary>One run of each cell</summary>\n\n"
        f"```\n{singles}\n```\n\n</details>"
    )


def _titles(report: SweepReport) -> list[str]:
    return [_escape(axis.title) for axis in report.axes]


def _labels(report: SweepReport, labels: dict[str, str]) -> list[str]:
    return [_escape(labels[axis.name]) for axis in report.axes]


def _table(header: Sequence[str], words: int, rows: Sequence[Sequence[str]]) -> str:
    """The first `words` columns to the left, numbers to the right."""
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


def _bounds(low: float | None, high: float | None, sign: str = "") -> str:
    return DASH if low is None or high is None else f"{_number(low, sign)} to {_number(high, sign)}"


def _number(value: float | None, sign: str = "") -> str:
    """Three decimals; three significant digits of what they would not show, and none of what is large."""
    if value is None:
        return DASH
    if abs(value) >= 1000:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.3g}" if 0 < abs(value) < 0.001 and not sign else f"{value:{sign}.3f}"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
