"""What `speechzoo score` prints: tables for people, JSON for programs, wrong predictions, and errors on one line."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .intervals import Interval
from .label_scores import FIELDS, LabelCounts, Score, UndefinedScore

# The column whose interval a table shows.
MAIN = ("f1", "accuracy", "wer", "bleu")
# Facts that a table's caption says in words.
IN_CAPTION = ("resampled", "resampled_units", "utterances_without_speaker")


@dataclass
class Result:
    """What is printed. rows: name -> values; labels: metric -> label -> values; facts: counts and settings."""

    title: str
    rows: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    labels: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@contextmanager
def one_line_errors(command: str, less: str = "less at once") -> Iterator[None]:
    """Bad input ends the program with one line on stderr and code 2.

    less: what to ask for where there is not enough memory.
    """
    try:
        yield
    except BrokenPipeError:
        # Whoever read our output has seen enough, `head` for one; what is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except MemoryError:
        print(f"{command}: there is not enough memory; ask for {less}", file=sys.stderr)
        raise typer.Exit(2) from None
    except (ValueError, OSError) as error:
        print(f"{command}: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from None


def score_row(overall: Callable[[], Score], intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """Rates and counts of a score with the bounds of its rates; None where the average is undefined."""
    try:
        row: dict[str, Any] = asdict(overall())
    except UndefinedScore:
        return {**dict.fromkeys(FIELDS), "undefined": "there is no label on either side"}
    for name, interval in intervals.items():
        row |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def label_rows(counts: LabelCounts, intervals: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
    rows = {}
    for label, score in sorted(counts.per_label().items()):
        found = {"f1": intervals[label]} if label in intervals else {}
        rows[label] = score_row(lambda score=score: score, found)  # type: ignore[misc]
    return rows


def value_row(name: str, value: float, interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {name: value}
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def wrote_errors(target: str, errors: Iterable[Mapping[str, Any]]) -> bool:
    """Writes wrong predictions where they are wanted; whether they took the place of the scores."""
    if not target:
        return False
    lines = (json.dumps(error, ensure_ascii=False) + "\n" for error in errors)
    if target == "-":
        sys.stdout.writelines(lines)
        return True
    with open(target, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return False


def show(result: Result, as_json: bool) -> None:
    """Prints a result: unrounded JSON, or tables."""
    if as_json:
        labels = {"per_label": result.labels} if result.labels else {}
        content = {"scores": result.rows, **labels, **result.facts}
        print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    console.print(as_table(result.title, result.rows, units_resampled(result.facts)))
    for name, rows in result.labels.items():
        console.print(as_table(f"{result.title}: {name}", rows))
    facts = (f"{name.replace('_', ' ')} {value}" for name, value in result.facts.items() if name not in IN_CAPTION)
    console.print(Text(", ".join(facts), style="dim"))


def units_resampled(facts: Mapping[str, Any]) -> str:
    """What the intervals resample, and how many of them; nothing where there are no intervals."""
    if "resampled" not in facts:
        return ""
    unknown = facts.get("utterances_without_speaker", 0)
    known = f"Intervals resample {_counted(facts['resampled_units'] - unknown, facts['resampled'])}"
    return f"{known} and {_counted(unknown, 'utterances')} without a known speaker" if unknown else known


def _counted(number: int, things: str) -> str:
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def as_table(title: str, rows: Mapping[str, Mapping[str, Any]], caption: str = "") -> Table:
    """Rounded for reading, with the interval of the main column; JSON has all of them."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = [name for name in names if not name.endswith(("_low", "_high")) and name != "undefined"]
    main = next(name for name in columns if name in MAIN)
    with_interval = f"{main}_low" in names
    # Narrow enough for a terminal of 80 columns.
    table = Table(
        # As `Text`, like every name below: names are data, and "[/b]" in one is no markup.
        title=Text(title, style="table.title"),
        caption=Text(caption, style="table.caption"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
        if name == main and with_interval:
            table.add_column("95 % interval", justify="right", no_wrap=True)
    for name, row in rows.items():
        cells = [_cells(row, column, with_interval and column == main) for column in columns]
        table.add_row(Text(name), *(cell for group in cells for cell in group))
    return table


def _cells(row: Mapping[str, Any], name: str, with_interval: bool) -> list[str]:
    """A value, and its bounds where the table has a column for them."""
    value = row.get(name)
    if value is None:
        return ["undefined" if name in MAIN else "", *([""] if with_interval else [])]
    if name in ("tp", "fp", "fn"):
        return [f"{value:.1f}".removesuffix(".0")]
    digits = 1 if name == "bleu" else 3
    if not with_interval:
        return [f"{value:.{digits}f}"]
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return [f"{value:.{digits}f}", "" if low is None else f"{low:.{digits}f} to {high:.{digits}f}"]
