"""Tables of results in Markdown, made from the reports that runs wrote, and kept fresh inside a README.

A README marks where the table of `results/NAME.json` stands, and where those of a sweep's grid and of a few-shot run,
`benchmarks/results/NAME.json`:

    <!-- results:NAME -->
    <!-- /results:NAME -->
    <!-- sweep:NAME -->
    <!-- /sweep:NAME -->
    <!-- few_shot:NAME -->
    <!-- /few_shot:NAME -->
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from pathlib import Path

from ..evaluation.few_shot_page import accuracy_table, compared_with
from ..evaluation.few_shot_report import FewShotReport
from ..evaluation.report import Measurement, Report, read_report
from ..evaluation.sweep_report import SweepReport
from ..evaluation.sweep_tables import summary_table

METRIC_LABELS = {
    "wer": "WER (lower is better)",
    "cer": "CER (lower is better)",
    "accuracy": "accuracy",
    "bleu": "BLEU",
    "f1": "F1",
    "f1_gain": "F1 gain",
    "perplexity": "perplexity (lower is better)",
    "pelm": "PELM (lower is better)",
}

_NAME = r"(?:results|sweep|few_shot):[\w.-]+"
_BLOCK = re.compile(rf"<!-- (?P<name>{_NAME}) -->\n(?P<body>.*?)<!-- /(?P=name) -->", re.DOTALL)
_MARK = re.compile(rf"<!-- /?({_NAME}) -->")


def measurement_table(measurements: Sequence[Measurement], noun: str = "clip") -> str:
    """A Markdown table, one measurement a row; columns of comparison that no row fills are left out.

    Notes stand below the table, numbered. `noun` is what the items are.
    """
    columns = ["measured", "metric", "value", "95 % interval"]
    compared = [name for name in ("chance", "majority", "topline") if _any_has(measurements, name)]
    notes = list(dict.fromkeys(measurement.note for measurement in measurements if measurement.note))
    rows = [_row(measurement, compared, notes, noun) for measurement in measurements]
    header = [*columns, *compared, "items"]
    table = [header, ["---", "---", *["---:"] * (len(header) - 3), "---"], *rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join(lines + [f"\n{mark}. {escape_cell(note)}" for mark, note in enumerate(notes, start=1)])


def report_block(report: Report) -> str:
    """What a README shows of a report: the table, then the command, hardware, time, date and versions."""
    return f"{measurement_table(report.measurements)}\n\n{_provenance(report)}\n"


def sweep_block(report: SweepReport) -> str:
    """What a README shows of a grid: means over seeds of every measurement, then what `report_block` says below."""
    return f"{summary_table(report)}\n\n{_provenance(report)}\n"


def few_shot_block(report: FewShotReport) -> str:
    """What a README shows of a few-shot run: a table of accuracies by shots for each task, then its command."""
    tasks = dict.fromkeys(result.setting.task for result in report.results)
    tables = [f"{task}: {compared_with(report, task)}\n\n{accuracy_table(report, task)}" for task in tasks]
    return "\n\n".join([*tables, _provenance(report)]) + "\n"


def update_tables(readme: str, results: Path, sweeps: Path) -> str:
    """The text of a README with every block made anew from the reports in two folders.

    Raises `ValueError` for a mark without its partner and `FileNotFoundError` for a block without its report.
    """
    marks = [found[1] for found in _MARK.finditer(readme)]
    whole = [found["name"] for found in _BLOCK.finditer(readme)]
    if marks != [name for block in whole for name in (block, block)]:
        broken = next(name for name in marks if name not in whole or marks.count(name) != 2 * whole.count(name))
        raise ValueError(f"block {broken!r} needs one opening and one closing mark, on lines of their own")
    return _BLOCK.sub(lambda found: _fresh_block(found["name"], results, sweeps), readme)


def _fresh_block(mark: str, results: Path, sweeps: Path) -> str:
    kind, name = mark.split(":")
    path = (results if kind == "results" else sweeps) / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"block {mark!r} has no report: run its command and keep the report as {path}")
    return f"<!-- {mark} -->\n{_BODIES[kind](path)}<!-- /{mark} -->"


_BODIES: dict[str, Callable[[Path], str]] = {
    "results": lambda path: report_block(read_report(path)),
    "sweep": lambda path: sweep_block(read_report(path, SweepReport)),
    "few_shot": lambda path: few_shot_block(read_report(path, FewShotReport)),
}


def _row(measurement: Measurement, compared: Iterable[str], notes: Sequence[str], noun: str) -> list[str]:
    mark = f" [{notes.index(measurement.note) + 1}]" if measurement.note else ""
    return [
        escape_cell(measurement.name) + (f", {escape_cell(measurement.split)}" if measurement.split else "") + mark,
        METRIC_LABELS.get(measurement.metric, measurement.metric.replace("_", " ")),
        f"**{_number(measurement.value)}**",
        format_interval(measurement),
        *[_number(getattr(measurement, name)) for name in compared],
        _items(measurement, noun),
    ]


def format_interval(measurement: Measurement) -> str:
    """`0.812 to 0.951`, or a dash where there is none."""
    if measurement.low is None or measurement.high is None:
        return "\u2013"
    return f"{_number(measurement.low)} to {_number(measurement.high)}"


def _items(measurement: Measurement, noun: str) -> str:
    if not measurement.items:
        return ""
    speakers = f" of {_count(measurement.speakers, 'speaker')}" if measurement.speakers else ""
    resampled = f", resampled by {measurement.resampled}" if measurement.resampled else ""
    return f"{_count(measurement.items, noun)}{speakers}{resampled}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _number(value: float | None) -> str:
    """Three digits behind the point, or powers of ten where these would hide a number."""
    if value is None:
        return "\u2013"
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def _any_has(measurements: Sequence[Measurement], name: str) -> bool:
    return any(getattr(measurement, name) is not None for measurement in measurements)


def escape_cell(text: str) -> str:
    """Text that stays inside one cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def escape_text(text: str) -> str:
    """The same of what somebody said or a model wrote, whose signs mean nothing: `<unk>` is no tag of HTML."""
    return escape_cell(re.sub(r"([\\`*<])", r"\\\1", text))


def _provenance(report: Report) -> str:
    parts = [f"`{report.command}`"]
    if report.environment is not None:
        parts.append(report.environment.hardware)
    if report.wall_seconds:
        parts.append(f"{format_seconds(sum(report.wall_seconds.values()))} in all")
    if report.seeds:
        parts.append("seeds " + ", ".join(starmap(_seed, sorted(report.seeds.items()))))
    if report.environment is not None:
        versions = report.environment.packages
        parts.append(", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions))
    return "; ".join(filter(None, [*parts, report.date[:10]])) + "."


def _seed(purpose: str, seed: int) -> str:
    """A seed with its purpose; where there are several, their purposes are numbered by them."""
    return purpose.removeprefix("seed ") if purpose.endswith(f" {seed}") else f"{purpose} {seed}"


def format_seconds(seconds: float) -> str:
    """`48 s`, `5 min 20 s` or `3 h 7 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
