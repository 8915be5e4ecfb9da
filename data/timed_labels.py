"""Phones and words with their times, as spoken corpora keep them in `metadata.jsonl`."""

import json
from pathlib import Path
from typing import Any

from .audio_folder import METADATA
from .corpora import SYNTHETIC
from .synthetic_corpus import RECIPES, build_synthetic_corpus

TimedLabel = tuple[str, float, float]  # label, start and end in seconds


def timed_labels(source: str | Path, column: str = "phones") -> dict[str, list[TimedLabel]]:
    """Id of a clip -> its labels in order of time; empty for a corpus that has none.

    Args:
        source: "synthetic:NAME", or a folder with `metadata.jsonl` whose lines hold `column` as
            [[label, start, end], ...], times in seconds; a split behind it (`@test`) is passed over.

    Raises `ValueError` for a line whose labels are something else.
    """
    whole = str(source).partition("@")[0]
    name = whole.removeprefix(SYNTHETIC)
    folder = build_synthetic_corpus(RECIPES[name]) if name in RECIPES and name != whole else Path(whole)
    table = folder / METADATA
    if not table.is_file():
        return {}
    lines = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {line["id"]: [_label(item, line["id"]) for item in line[column]] for line in lines if line.get(column)}


def _label(item: Any, clip: str) -> TimedLabel:
    try:
        label, start, end = item
        return str(label), float(start), float(end)
    except (TypeError, ValueError):
        raise ValueError(f"'{clip}' has the label {item!r}; write [label, start, end], times in seconds") from None
