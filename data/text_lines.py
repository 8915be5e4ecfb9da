"""Texts without recordings: files of a text a line, data sets with a column of text, and the texts of corpora."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets import Dataset, load_dataset

from .corpora import load_corpus


def read_texts(source: str, limit: int | None = None, column: str = "text", words: int | None = None) -> list[str]:
    """The texts of a source, in its order.

    Args:
        source: a `.txt` file; a corpus as `load_corpus` takes it, recordings or not; `hub:ID`, or
            `hub:ID:CONFIGURATION`, for a data set of texts alone. `source@split` picks a split of the last two.
        limit: so many, the first.
        column: of a data set.
        words: a longer text is cut into texts of so many.

    Raises:
        ValueError: there is no text in it, or no such column. OSError: there is no such file.
    """
    name, _, split = source.partition("@")
    if name.endswith(".txt"):
        texts: Sequence[str] = [
            line.strip() for line in Path(name).read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    elif name.startswith("hub:"):
        name, _, configuration = name.removeprefix("hub:").partition(":")
        texts = _column(load_dataset(name, configuration or None, split=split or "train"), column, source)
    else:
        texts = _column(load_corpus(name, split or None, audio=False), column, source)
    chosen = list(itertools.islice((text for text in texts if text and not text.isspace()), limit))
    if not chosen:
        raise ValueError(f"there is no text in '{source}'; name another source of texts")
    return chosen if words is None else [part for text in chosen for part in _parts(text, words)]


def _parts(text: str, words: int) -> Iterator[str]:
    """A text that is longer in parts; another as it is."""
    found = text.split()
    if len(found) <= words:
        yield text
    else:
        yield from (" ".join(found[start : start + words]) for start in range(0, len(found), words))


def _column(rows: Dataset, column: str, source: str) -> Sequence[str]:
    if column not in rows.column_names:
        raise ValueError(f"'{source}' has no column '{column}'; it has {', '.join(rows.column_names)}")
    return rows[column]
