"""Texts in which words of their own mark entities: `we met in % south sudan ] today`."""

from collections.abc import Mapping, Sequence


def marked_spans(words: Sequence[str], marks: Mapping[str, str], end: str) -> list[tuple[str, range]]:
    """Type and places of the words of each entity, in order; the marks stand right before and behind them.

    A mark inside an open entity discards what was open; an entity never closed, or closed empty, is dropped; a closing
    mark with nothing open is passed over.

    Args:
        marks: type of an entity -> the word that opens it.
        end: the word that closes it.
    """
    opened = {mark: tag for tag, mark in marks.items()}
    found: list[tuple[str, range]] = []
    tag, first = "", 0
    for place, word in enumerate(words):
        if word in opened:
            tag, first = opened[word], place + 1
        elif word == end:
            if tag and first < place:
                found.append((tag, range(first, place)))
            tag = ""
    return found


def unmarked(words: Sequence[str], marks: Mapping[str, str], end: str) -> list[str]:
    """The words that are no marks."""
    signs = {*marks.values(), end}
    return [word for word in words if word not in signs]


__all__ = ["marked_spans", "unmarked"]
