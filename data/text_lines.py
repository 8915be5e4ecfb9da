"""Texts without recordings: files of a text a line, data sets with a column of text, and the texts of corpora."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, load_dataset

from .corpora import load_corpus


def read_texts(source: str, limit: int | None = None, column: str = "text") -> Sequence[str]:
    """The texts of a source, in its order.

    Args:
        source: a `.txt` file; a corpus as `load_corpus` takes it, recordings or not; `hub:ID` for a data set of texts
            alone. `source@split` picks a split of the last two.
        limit: so many, the first.
        column: of a data set.

    Raises:
        ValueError: there is no text in it, or no such column. OSError: there is no such file.
    """
    name, _, split = source.partition("@")
    if name.endswith(".txt"):
        texts = [line.strip() for line in Path(name).read_text(encoding="utf-8").splitlines() if line.strip()]
    elif name.startswith("hub:"):
        rows = load_dataset(name.removeprefix("hub:"), split=split or "train")
        texts = _column(rows, column, source)
    else:
        texts = [text for text in _column(load_corpus(name, split or None, audio=False), column, source) if text]
    chosen = texts if limit is None else texts[:limit]
    if not len(chosen):
        raise ValueError(f"there is no text in '{source}'; name another source of texts")
    return chosen


def _column(rows: Dataset, column: str, source: str) -> Sequence[str]:
    if column not in rows.column_names:
        raise ValueError(f"'{source}' has no column '{column}'; it has {', '.join(rows.column_names)}")
    return rows[column]
