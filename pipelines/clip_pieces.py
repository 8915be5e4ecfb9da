"""What pipelines are given, as clips that know their names; and long clips in pieces that end at pauses.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Number
from os import PathLike, fspath
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")
_FRAME, _STEP = 0.05, 0.01  # seconds that loudness is measured over, and between two measurements


@dataclass(frozen=True)
class Source:
    """Something to hear.

    Args:
        audio: whatever `load_audio` takes.
        name: what errors call it.
        row: what else came with it.
    """

    audio: Any
    name: str
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """A part of a clip, or all of it.

    Args:
        name: what errors call it.
        content: as a model takes it.
        start, end: where it lies in the clip (seconds).
    """

    name: str
    content: Any
    start: float
    end: float


@dataclass(frozen=True)
class Clip:
    """A clip of so many seconds in one or several pieces."""

    source: Source
    pieces: Sequence[Piece]

    @property
    def seconds(self) -> float:
        return self.pieces[-1].end


class HearsSamples:
    """What models are given whose processor takes samples."""

    processor: Any

    @property
    def wanted_rate(self) -> int:
        return self.processor.sampling_rate

    @property
    def longest(self) -> float | None:
        return self.processor.max_audio_seconds

    def prepare(self, samples: np.ndarray, name: str) -> np.ndarray:
        return self.processor.load(samples, name=name)


def source_of(given: Any, place: int | None = None) -> Source:
    """What one input of a pipeline means.

    Args:
        given: audio as `load_audio` takes it, or a row with audio in `audio`, and perhaps its name in `id`.
        place: where in a list it stands, for a name.
    """
    if isinstance(given, Source):
        return given
    row = given if isinstance(given, Mapping) and "audio" in given else {}
    audio = row["audio"] if row else given
    path = audio.get("path") if isinstance(audio, Mapping) else audio
    name = row.get("id") or (fspath(path) if isinstance(path, (str, PathLike)) else None)
    return Source(audio, str(name or ("the clip" if place is None else f"clip {place}")), row)


def sources_of(inputs: Any) -> Any:
    """A list of inputs as named sources; numbers in a list are one clip, and whatever else is none is as it was."""
    if not isinstance(inputs, (list, tuple)):
        return inputs
    if inputs and isinstance(inputs[0], Number):
        return Source(list(inputs), "the clip")
    return [source_of(given, place) for place, given in enumerate(inputs)]


def in_groups(
    items: Sequence[Item], keys: Sequence[Hashable], answer: Callable[[list[Item]], Sequence[Any]]
) -> list[Any]:
    """An answer to each item, in their order, where those of one key are asked together."""
    found: dict[int, Any] = {}
    for key in dict.fromkeys(keys):
        places = [place for place, other in enumerate(keys) if other == key]
        found |= dict(zip(places, answer([items[place] for place in places]), strict=True))
    return [found[place] for place in range(len(items))]


def cut_at_pauses(clip: np.ndarray, sampling_rate: int, seconds: float) -> list[tuple[int, int]]:
    """First and last sample (the latter not included) of the pieces of a clip [S], none longer than `seconds`.

    Each cut is made at the quietest moment of the second half of what a piece may be, and leaves a quarter of that at
    least for the last piece.
    """
    most = round(seconds * sampling_rate)
    ends, start = [], 0
    while len(clip) - start > most:
        least, last = start + most // 2, min(start + most, len(clip) - most // 4)
        start = least + _quietest(clip[least:last], sampling_rate)
        ends.append(start)
    return list(zip([0, *ends], [*ends, len(clip)], strict=True))


def _quietest(clip: np.ndarray, sampling_rate: int) -> int:
    """The middle of the quietest 50 ms, the first of equals."""
    frame, step = round(_FRAME * sampling_rate), round(_STEP * sampling_rate)
    energy = np.concatenate([[0.0], np.cumsum(np.square(clip, dtype=np.float64))])
    starts = np.arange(0, max(1, len(clip) - frame + 1), step)
    ends = np.minimum(starts + frame, len(clip))
    return int(starts[np.argmin((energy[ends] - energy[starts]) / (ends - starts))]) + frame // 2


__all__ = ["Clip", "HearsSamples", "Piece", "Source", "cut_at_pauses", "in_groups", "source_of", "sources_of"]
