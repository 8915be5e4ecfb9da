"""Which frames of a clip say which phone, from its units and the phones of its words.

A hidden Markov model with one state for each phone, which emits units: how often each phone goes with each unit is
counted from the best alignment and the alignment made anew, in turn, beginning with phones of equal length. It needs
no labeled times. Where a corpus knows when its words are said, they can hold the alignment; or stay apart, and tell
how far it can be trusted.

    aligner = PhoneAligner.fit(units, words, clusters=100)
    [aligned] = aligner.align([units_of_a_clip], [[("HH", "AH0", "L", "OW1"), ("W", "ER1", "L", "D")]])

Shapes: B clips, F frames, N states (phones of a clip, and a silence that may be left out before, between and behind
its words), K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..processing.unit_vocabulary import SILENCE, UnitVocabulary, phone_family

__all__ = ["AlignedPhones", "PhoneAligner"]

Phones = tuple[str, ...]
Words = Sequence[Phones]
Window = tuple[int, int]  # the first frame in which a word may be said, and the one behind the last
Windows = Sequence[Window | None]  # of each word of a clip

_CLIPS_AT_ONCE = 64
_IMPOSSIBLE = -1e9
_OUTSIDE = -1e5  # not impossible: a window may have too few frames for its phones
_ANYWHERE = (0, 10**9)


@dataclass(frozen=True)
class AlignedPhones:
    """The words of a clip and the silences that were heard, and how many frames each of their phones lasts.

    Args:
        groups: phones of each word, or a silence by itself.
        durations: frames of every phone of all groups, in order; at least one.
    """

    groups: list[Phones]
    durations: list[int]

    @property
    def word_spans(self) -> list[tuple[int, int]]:
        """First frame of each word, and the one behind its last; silences left out."""
        ends = np.cumsum([0, *self.durations])
        places = np.cumsum([0, *map(len, self.groups)])
        spans = zip(self.groups, ends[places[:-1]], ends[places[1:]], strict=True)
        return [(int(first), int(last)) for group, first, last in spans if group != (SILENCE,)]

    def frame_ids(self, vocabulary: UnitVocabulary) -> list[int]:
        """The id of the phone of every frame: what a speech encoder learns to predict in SpeechLM-P."""
        ids = [vocabulary.id(symbol) for group in self.groups for symbol in vocabulary.phones_of_word(group)]
        return list(np.repeat(ids, self.durations))


@dataclass(frozen=True)
class _Trellis:
    """A clip's states: the phone of each, whether it may be left out, and the frames where it belongs."""

    phones: list[str]
    optional: list[bool]
    windows: list[Window]

    @classmethod
    def of(cls, words: Words, windows: Windows | None = None) -> _Trellis:
        """Raises `ValueError` unless there is a window, or `None`, for each word."""
        if windows is not None and len(windows) != len(words):
            raise ValueError(f"{len(words)} words came with {len(windows)} windows; give one for each, or None")
        phones, optional, places = [SILENCE], [True], [_ANYWHERE]
        for word, window in zip(words, windows or [None] * len(words), strict=True):
            phones += [*word, SILENCE]
            optional += [*[False] * len(word), True]
            places += [*[window or _ANYWHERE] * len(word), _ANYWHERE]
        return cls(phones, optional, places)

    def penalties(self, frames: int) -> np.ndarray:
        """[F, N], zero in the windows."""
        first, behind = np.array(self.windows).T
        frame = np.arange(frames)[:, None]
        return np.where((frame >= first) & (frame < behind), 0.0, _OUTSIDE)

    @property
    def least_frames(self) -> int:
        return self.optional.count(False)

    def aligned(self, durations: Sequence[int]) -> AlignedPhones:
        """Of the frames in each state; a silence of none is left out."""
        groups: list[Phones] = []
        word: list[str] = []
        for phone, optional, frames in zip(self.phones, self.optional, durations, strict=True):
            if not optional:
                word.append(phone)
                continue
            groups += [tuple(word)] if word else []
            groups += [(SILENCE,)] if frames else []
            word = []
        return AlignedPhones(groups, [frames for frames in durations if frames])


@dataclass(frozen=True)
class PhoneAligner:
    """Aligns units with phones.

    Args:
        phones: those it knows, without stress.
        log_emissions: [phones, K] log probability of each unit.
    """

    phones: tuple[str, ...]
    log_emissions: np.ndarray

    @classmethod
    def fit(
        cls,
        units: Sequence[Sequence[int]],
        words: Sequence[Words],
        clusters: int,
        rounds: int = 10,
        phones: Sequence[str] = (),
        windows: Sequence[Windows | None] | None = None,
    ) -> PhoneAligner:
        """Learns from clips what units each phone goes with.

        Args:
            units: of each frame of each clip.
            words: phones of each word of each clip.
            clusters: K, the size of the codebook.
            rounds: of aligning and counting.
            phones: that no clip has, and others may; each unit is as probable with them as it is at all.
            windows: of each word of each clip, where they are known.

        Raises `ValueError` where a unit is outside the codebook, or no clip has a frame for each of its phones.
        """
        heard = chain.from_iterable(chain.from_iterable(words))
        known = sorted({phone_family(phone) for phone in (*heard, *phones, SILENCE)})
        trellises = map(_Trellis.of, words, windows or [None] * len(words))
        clips = [
            (clip, trellis)
            for clip, trellis in zip(units, trellises, strict=True)
            if len(clip) >= trellis.least_frames > 0
        ]
        if not clips:
            raise ValueError("no clip has a frame for each phone; give clips with the words that are said in them")
        if (highest := max(map(max, (clip for clip, _ in clips)))) >= clusters:
            raise ValueError(f"there is a unit {highest}, and the codebook has {clusters}; say how large it is")
        if (lowest := min(map(min, (clip for clip, _ in clips)))) < 0:
            raise ValueError(f"there is a unit {lowest}; units are numbered from 0")
        aligner = cls(tuple(known), np.zeros((len(known), clusters)))
        states = [_evenly(len(clip), trellis) for clip, trellis in clips]
        for _ in range(rounds):
            aligner = aligner._counted(clips, states)
            states = aligner._best_states(clips)
        return aligner

    def align(
        self,
        units: Sequence[Sequence[int]],
        words: Sequence[Words],
        windows: Sequence[Windows | None] | None = None,
    ) -> list[AlignedPhones | None]:
        """The most probable alignment of each clip; `None` for a clip with fewer frames than phones, or no word.

        Where `windows` say in which frames a word may be said, it is said there unless they are too few.

        Raises `ValueError` for a phone that it does not know.
        """
        trellises = list(map(_Trellis.of, words, windows or [None] * len(words)))
        usable = [
            place
            for place, (clip, trellis) in enumerate(zip(units, trellises, strict=True))
            if len(clip) >= trellis.least_frames > 0
        ]
        found: list[AlignedPhones | None] = [None] * len(trellises)
        states = self._best_states([(units[place], trellises[place]) for place in usable])
        for place, visited in zip(usable, states, strict=True):
            durations = np.bincount(visited, minlength=len(trellises[place].phones)).tolist()
            found[place] = trellises[place].aligned(durations)
        return found

    def _counted(self, clips: Sequence[tuple[Sequence[int], _Trellis]], states: Sequence[np.ndarray]) -> PhoneAligner:
        clusters = self.log_emissions.shape[1]
        counts = np.zeros(self.log_emissions.shape)
        for (clip, trellis), visited in zip(clips, states, strict=True):
            np.add.at(counts, (self._numbers(trellis)[visited], np.asarray(clip)), 1)
        usual = (counts.sum(0) + 1) / (counts.sum() + clusters)  # what an unheard pair is worth
        smoothed = counts + usual
        return PhoneAligner(self.phones, np.log(smoothed / smoothed.sum(1, keepdims=True)))

    def _numbers(self, trellis: _Trellis) -> np.ndarray:
        numbers = {phone: number for number, phone in enumerate(self.phones)}
        try:
            return np.array([numbers[phone_family(phone)] for phone in trellis.phones])
        except KeyError as error:
            raise ValueError(f"the aligner does not know the phone {error}; name it when it is fit") from None

    def _best_states(self, clips: Sequence[tuple[Sequence[int], _Trellis]]) -> list[np.ndarray]:
        """The state of every frame of every clip; clips of like length are aligned together."""
        order = sorted(range(len(clips)), key=lambda place: len(clips[place][0]))
        found: list[np.ndarray] = [np.empty(0, dtype=int)] * len(clips)
        for start in range(0, len(order), _CLIPS_AT_ONCE):
            places = order[start : start + _CLIPS_AT_ONCE]
            batch = [clips[place] for place in places]
            for place, visited in zip(places, self._aligned_batch(batch), strict=True):
                found[place] = visited
        return found

    def _aligned_batch(self, batch: Sequence[tuple[Sequence[int], _Trellis]]) -> Iterator[np.ndarray]:
        frames, states = max(len(clip) for clip, _ in batch), max(len(trellis.phones) for _, trellis in batch)
        scores = np.full((len(batch), frames, states), _IMPOSSIBLE)
        optional = np.zeros((len(batch), states), dtype=bool)
        for row, (clip, trellis) in enumerate(batch):
            emitted = self.log_emissions[self._numbers(trellis)][:, np.asarray(clip)]  # [N, F]
            scores[row, : len(clip), : len(trellis.phones)] = emitted.T + trellis.penalties(len(clip))
            optional[row, : len(trellis.phones)] = trellis.optional
        lengths = np.array([len(clip) for clip, _ in batch])
        counts = np.array([len(trellis.phones) for _, trellis in batch])
        path = _viterbi(scores, optional, lengths, counts)
        return (visited[:length] for visited, length in zip(path, lengths, strict=True))


def _evenly(frames: int, trellis: _Trellis) -> np.ndarray:
    """The state of every frame where phones, and silences at both ends if there is room, have equal lengths."""
    kept = [place for place, optional in enumerate(trellis.optional) if not optional]
    if frames >= len(kept) + 2:
        kept = [0, *kept, len(trellis.phones) - 1]
    return np.array(kept)[np.arange(frames) * len(kept) // frames]


def _viterbi(scores: np.ndarray, optional: np.ndarray, lengths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[B, F] best states of [B, F, N] scores: each frame stays, goes to the next state, or passes over an optional
    one. A path begins in the first state or behind it where it is optional, and ends likewise."""
    rows = np.arange(len(scores))
    best = np.full(optional.shape, _IMPOSSIBLE)
    best[:, 0] = scores[:, 0, 0]
    best[:, 1] = np.where(optional[:, 0], scores[:, 0, 1], _IMPOSSIBLE)
    moves = np.zeros(scores.shape[:2] + optional.shape[1:], dtype=np.int8)
    for frame in range(1, scores.shape[1]):
        options = np.full((3, *best.shape), _IMPOSSIBLE)
        options[0] = best
        options[1, :, 1:] = best[:, :-1]
        options[2, :, 2:] = np.where(optional[:, 1:-1], best[:, :-2], _IMPOSSIBLE)
        moves[:, frame] = options.argmax(0)
        best = np.where((frame < lengths)[:, None], options.max(0) + scores[:, frame], best)
    last = counts - 1
    earlier = optional[rows, last] & (best[rows, last - 1] > best[rows, last])
    return _trace(moves, lengths, np.where(earlier, last - 1, last))


def _trace(moves: np.ndarray, lengths: np.ndarray, state: np.ndarray) -> np.ndarray:
    rows, path = np.arange(len(moves)), np.zeros(moves.shape[:2], dtype=int)
    for frame in reversed(range(moves.shape[1])):
        path[:, frame] = state
        state = state - np.where(frame < lengths, moves[rows, frame, state], 0)
    return path
