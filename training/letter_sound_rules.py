"""Learning how letters sound from a pronunciation lexicon.

Letters and phones of every word are aligned, each letter with no phone, one, or two (the x of "box"); the alignment is
the most probable one under how often letters and phones meet, counted anew a few times. Then rules are taken from the
shortest context to the longest, each kept only where it corrects what the shorter ones say.

Shapes: W words, L letters, P phones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from ..processing.letter_sounds import CONTEXTS, LetterSounds, contexts
from ..processing.unit_vocabulary import phone_family

Phones = tuple[str, ...]
Word = tuple[str, Phones]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS_AT_ONCE = 8192
_IMPOSSIBLE = -1e9


def learn_letter_sounds(entries: Mapping[str, Phones], rounds: int = 6, least_gain: int = 4) -> LetterSounds:
    """Rules from the words of a lexicon that consist of letters alone.

    Args:
        rounds: of counting and aligning.
        least_gain: how many more letters of the lexicon a rule must get right than the shorter rules do.
    """
    words = [(word, tuple(phones)) for word, phones in entries.items() if word and set(word) <= set(_LETTERS)]
    aligned = align_letters(words, rounds)
    return LetterSounds(_rules(aligned, least_gain))


# --- alignment ---


def align_letters(words: Sequence[Word], rounds: int) -> list[tuple[str, list[Phones]]]:
    """Each word with the phones of each of its letters. Words with more than two phones a letter are left out."""
    words = [(word, phones) for word, phones in words if len(phones) <= 2 * len(word)]
    names = sorted({phone_family(phone) for _, phones in words for phone in phones})
    numbers = {name: number + 1 for number, name in enumerate(names)}  # 0 is no phone
    scores = np.zeros((len(_LETTERS), len(names) + 1, len(names) + 1), dtype=np.float32)  # letter, first, second
    scores[:, 1:, 1:] = -3.0  # two phones for one letter are rare
    for _ in range(rounds):
        counts = np.full_like(scores, 0.01)
        for batch in _batches(words):
            _count(counts, batch, numbers, _best_paths(batch, numbers, scores))
        scores = np.log(counts / counts.sum(axis=(1, 2), keepdims=True))
    found = []
    for batch in _batches(words):
        for (word, phones), ends in zip(batch, _best_paths(batch, numbers, scores), strict=True):
            found.append((word, [phones[first:last] for first, last in _spans(ends, len(word))]))
    return found


def _batches(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    ordered = sorted(words, key=lambda word: len(word[0]))
    return (ordered[start : start + _WORDS_AT_ONCE] for start in range(0, len(ordered), _WORDS_AT_ONCE))


def _spans(ends: np.ndarray, letters: int) -> list[tuple[int, int]]:
    return list(pairwise([0, *ends[:letters].tolist()]))


def _best_paths(batch: Sequence[Word], numbers: Mapping[str, int], scores: np.ndarray) -> np.ndarray:
    """[W, L] phones that are spent after each letter, on the most probable alignment."""
    letters = _padded([[_LETTERS.index(letter) for letter in word] for word, _ in batch])  # [W, L]
    phones = _padded([[numbers[phone_family(phone)] for phone in phones] for _, phones in batch])  # [W, P]
    lengths = np.array([len(word) for word, _ in batch])
    total = np.full((len(batch), phones.shape[1] + 1), _IMPOSSIBLE, dtype=np.float32)  # [W, P + 1] phones spent
    total[:, 0] = 0
    taken = np.zeros((letters.shape[1], *total.shape), dtype=np.int8)
    for place in range(letters.shape[1]):
        options = _options(total, scores[letters[:, place]], phones)  # [3, W, P + 1]
        taken[place] = options.argmax(0)
        total = np.where((place < lengths)[:, None], options.max(0), total)
    return _trace(taken, lengths, np.array([len(phones) for _, phones in batch]))


def _options(total: np.ndarray, scores: np.ndarray, phones: np.ndarray) -> np.ndarray:
    """[3, W, P + 1]: score of having spent so many phones after a letter that took none, one or two of them."""
    rows = np.arange(len(total))[:, None]
    options = np.full((3, *total.shape), _IMPOSSIBLE, dtype=np.float32)
    options[0] = total + scores[:, 0, 0][:, None]
    options[1, :, 1:] = total[:, :-1] + scores[rows, phones, 0]
    options[2, :, 2:] = total[:, :-2] + scores[rows, phones[:, :-1], phones[:, 1:]]
    return options


def _trace(taken: np.ndarray, lengths: np.ndarray, spent: np.ndarray) -> np.ndarray:
    rows, ends = np.arange(len(lengths)), np.zeros((len(lengths), len(taken)), dtype=int)
    spent = spent.copy()
    for place in reversed(range(len(taken))):
        inside = place < lengths
        ends[:, place] = np.where(inside, spent, ends[:, place])
        spent = spent - np.where(inside, taken[place, rows, spent], 0)
    return ends


def _count(counts: np.ndarray, batch: Sequence[Word], numbers: Mapping[str, int], ends: np.ndarray) -> None:
    for (word, phones), word_ends in zip(batch, ends, strict=True):
        for letter, (first, last) in zip(word, _spans(word_ends, len(word)), strict=True):
            took = [numbers[phone_family(phone)] for phone in phones[first:last]]
            counts[_LETTERS.index(letter), took[0] if took else 0, took[1] if len(took) > 1 else 0] += 1


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([[*row, *[0] * (width - len(row))] for row in rows])


# --- rules ---


def _rules(aligned: Sequence[tuple[str, list[Phones]]], least_gain: int) -> dict[str, Phones]:
    places = [(contexts(word, place), sound) for word, sounds in aligned for place, sound in enumerate(sounds)]
    rules: dict[str, Phones] = {f" {letter} ": () for letter in _LETTERS}
    said: list[Phones] = [() for _ in places]  # what the rules so far say
    for size in range(len(CONTEXTS)):
        heard: dict[str, Counter[Phones]] = defaultdict(Counter)
        before: dict[str, Phones] = {}  # one for each context, which holds all shorter ones
        for (around, sound), shorter in zip(places, said, strict=True):
            heard[around[size]][sound] += 1
            before[around[size]] = shorter
        new = _corrections(heard, before, least_gain if size else 1)
        rules |= new
        said = [new.get(around[size], shorter) for (around, _), shorter in zip(places, said, strict=True)]
    return rules


def _corrections(
    heard: Mapping[str, Counter[Phones]], before: Mapping[str, Phones], least_gain: int
) -> dict[str, Phones]:
    """Where the most frequent sound of a context is heard more often, by `least_gain`, than what is said so far."""
    best = {context: min(sounds.items(), key=lambda item: (-item[1], item[0])) for context, sounds in heard.items()}
    return {
        context: sound
        for context, (sound, count) in best.items()
        if count - heard[context][before[context]] >= least_gain
    }


__all__ = ["align_letters", "learn_letter_sounds"]
