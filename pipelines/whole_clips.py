"""One result for a clip, of those for its pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .clip_pieces import Clip, Piece
from .prompted_answers import class_result

Result = dict[str, Any]


def answer_clips(clips: Sequence[Clip], answer: Callable[[Sequence[Piece]], list[Result]]) -> list[Result]:
    """A result for each clip, by answers to as many pieces at a time as there are clips."""
    pieces = [piece for clip in clips for piece in clip.pieces]
    starts = range(0, len(pieces), len(clips))
    found = iter([result for start in starts for result in answer(pieces[start : start + len(clips)])])
    return [whole(clip, [next(found) for _ in clip.pieces]) for clip in clips]


def whole(clip: Clip, results: Sequence[Result]) -> Result:
    """The result of a clip; of several pieces these are named in `chunks`, with `start` and `end` in seconds.

    Our reading of what several pieces say together: probabilities of classes are averaged, and so are the logarithms
    of scores, each piece as it is long; texts, entities and slots come one after the other.
    """
    if len(results) == 1:
        return results[0]
    shares = [(piece.end - piece.start) / clip.seconds for piece in clip.pieces]
    chunks = [
        {"start": piece.start, "end": piece.end, **result} for piece, result in zip(clip.pieces, results, strict=True)
    ]
    if "scores" in results[0]:
        labels = list(results[0]["scores"])
        means = [_mean([result["scores"][label] for result in results], shares) for label in labels]
        return {**class_result(labels, means), "chunks": chunks}
    names = [name for name in ("entities", "slots") if name in results[0]]
    lists: dict[str, Any] = {name: [one for result in results for one in result[name]] for name in names}
    text = " ".join(result["text"] for result in results if result["text"])
    logarithms = [math.log(max(result["score"], 1e-300)) for result in results]
    return {"text": text, "score": math.exp(_mean(logarithms, shares)), **lists, "chunks": chunks}


def _mean(values: Sequence[float], shares: Sequence[float]) -> float:
    return math.fsum(value * share for value, share in zip(values, shares, strict=True))


__all__ = ["answer_clips"]
