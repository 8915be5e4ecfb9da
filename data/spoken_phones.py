"""What a corpus with timed words and phones knows of speaking: how words are said, and how long phones last.

Text that is read by this lexicon and these durations becomes the phones that are heard in the corpus, under the same
names, in the same numbers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..processing.lexicon import Lexicon
from ..processing.phones import words_of
from ..processing.unit_vocabulary import NOISE, SILENCE
from .timed_labels import TimedLabel

__all__ = ["SpokenClip", "duration_fields", "spoken_inventory", "spoken_lexicon"]

_SAME = 0.0015  # seconds; times of words and phones are rounded to milliseconds
_GAP = 0.01  # seconds; a shorter one is no silence
_ENOUGH = 20  # occurrences from which on a phone has a law of its own


@dataclass(frozen=True)
class SpokenClip:
    """The words and the phones of a clip with their times, and how long it lasts in seconds."""

    words: Sequence[TimedLabel]
    phones: Sequence[TimedLabel]
    seconds: float


def spoken_inventory(lexicon: Lexicon, clips: Iterable[SpokenClip]) -> list[str]:
    """Silence, spoken noise, and all phones of the lexicon and of the clips in the order of the alphabet."""
    heard = {phone for clip in clips for phone, _, _ in clip.phones}
    return [SILENCE, NOISE, *sorted({*lexicon.phones, *heard} - {SILENCE, NOISE})]


def spoken_lexicon(clips: Iterable[SpokenClip]) -> Lexicon:
    """Every word as it is said most often.

    Words that begin and end with a phone count; where a corpus guessed the border between two words, only if a word
    is never heard otherwise. Raises `ValueError` where no word has a phone.
    """
    clear: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    guessed: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for clip in clips:
        for label, start, end in clip.words:
            said = [phone for phone in clip.phones if start <= (phone[1] + phone[2]) / 2 < end]
            if len(words := words_of(label)) == 1 and said:
                exact = abs(said[0][1] - start) < _SAME and abs(said[-1][2] - end) < _SAME
                (clear if exact else guessed)[words[0]][tuple(phone for phone, _, _ in said)] += 1
    if not clear and not guessed:
        raise ValueError("no clip has words and phones with times; take a lexicon, or align phones with units")
    counted = {**guessed, **clear}
    return Lexicon({word: _most_frequent(ways) for word, ways in counted.items()})


def _most_frequent(ways: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """Of several the first in the order of the alphabet."""
    return min(ways, key=lambda way: (-ways[way], way))


def duration_fields(clips: Sequence[SpokenClip], frame_rate: float, most: int | None = None) -> dict[str, Any]:
    """Fields of a `DurationLaw`, and `silence_probability`, as they are heard.

    Args:
        frame_rate: of the encoder that reads them.
        most: frames of a whole text; those of the law where not given.
    """
    lasted: dict[str, list[float]] = defaultdict(list)
    pauses: list[bool] = []
    for clip in clips:
        for phone, start, end in clip.phones:
            lasted[phone].append((end - start) * frame_rate)
        silences = _silences(clip)
        lasted[SILENCE] += [length * frame_rate for length in silences if length > 0]
        pauses += [length > _GAP for length in silences[1:-1]]
    spoken = [frames for phone, all_frames in lasted.items() if phone != SILENCE for frames in all_frames]
    families = {phone: _law(frames) for phone, frames in sorted(lasted.items()) if len(frames) >= _ENOUGH}
    law = {"phone": _law(spoken), "families": {SILENCE: [1.0, 0.0], **families}}
    limit = {} if most is None else {"most": most}
    return {"durations": {**law, **limit}, "silence_probability": round(float(np.mean(pauses)), 4) if pauses else 0.0}


def _silences(clip: SpokenClip) -> list[float]:
    """Seconds before the first word, between each two, and behind the last."""
    starts = [start for _, start, _ in clip.words]
    ends = [end for _, _, end in clip.words]
    return [after - before for before, after in zip([0.0, *ends], [*starts, clip.seconds], strict=True)]


def _law(frames: Sequence[float]) -> list[float]:
    """Mean and deviation."""
    return [round(float(np.mean(frames)), 3), round(float(np.std(frames)), 3)]
