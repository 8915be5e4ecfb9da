"""Text to phones, and phones to as many as speech has frames: what a joint encoder reads in place of speech.

    reader = PhoneReader(Lexicon.cmu())
    groups = reader.read("hello world", seed=0)     # [("SIL",), ("HH", "AH0", "L", "OW1"), ..., ("SIL",)]

Everything random is a function of (seed, text), so that it can be kept, and does not depend on other texts.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .letter_sounds import LetterSounds
from .lexicon import Lexicon
from .unit_vocabulary import NOISE, SILENCE, phone_family

__all__ = ["Coverage", "DurationLaw", "PhoneReader", "Pronunciation", "words_of"]

Phones = tuple[str, ...]
# Letters, digits and apostrophes; any other character parts words.
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*'?|'[^\W_]+(?:'[^\W_]+)*'?")


def words_of(text: str) -> list[str]:
    """The words of a text in small letters, without punctuation."""
    return _WORD.findall(text.replace("\u2019", "'").lower())


@dataclass(frozen=True)
class Pronunciation:
    """A word, its phones, and whether the lexicon has it."""

    word: str
    phones: Phones
    known: bool


@dataclass
class Coverage:
    """How many words were read, and those that the lexicon lacks, with how often they came.

    Args:
        words: number of words.
        sounded: words that were sounded out by their letters.
        noise: words that became spoken noise.
    """

    words: int = 0
    sounded: Counter[str] = field(default_factory=Counter)
    noise: Counter[str] = field(default_factory=Counter)

    @property
    def unknown(self) -> int:
        """How many words the lexicon lacks, each as often as it came."""
        return self.sounded.total() + self.noise.total()

    def __str__(self) -> str:
        if not self.unknown:
            return f"all {self.words} words are in the lexicon"
        first = next(iter(self.sounded or self.noise))
        return (
            f"{self.unknown} of {self.words} words are not in the lexicon, first '{first}': "
            f"{self.sounded.total()} were sounded out by their letters, {self.noise.total()} became spoken noise"
        )


@dataclass(frozen=True)
class PhoneReader:
    """Reads texts as phones.

    Args:
        lexicon: is asked first; `None` for none.
        sounds: says how a word sounds that the lexicon lacks; without it, and for a word without a letter, spoken
            noise stands for the word, as in a recognizer's lexicon.
        silence_probability: of a silence between two words. One stands at both ends of every text.

    Raises `ValueError` for a probability outside 0 to 1.
    """

    lexicon: Lexicon | None
    sounds: LetterSounds | None = None
    silence_probability: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.silence_probability <= 1:
            raise ValueError(f"silence_probability is {self.silence_probability}; give one from 0 to 1")

    @property
    def inventory(self) -> list[str]:
        """The phones that texts can have, without stress, silence and spoken noise first."""
        sources = [source for source in (self.lexicon, self.sounds) if source is not None]
        said = [phone for source in sources for phone in source.phones]
        return list(dict.fromkeys([SILENCE, NOISE, *sorted(map(phone_family, said))]))

    def pronounce(self, word: str) -> Pronunciation:
        """One word in small letters. A word with apostrophes at its ends is looked for without them too."""
        for form in (word, word.strip("'")):
            if self.lexicon is not None and form in self.lexicon:
                return Pronunciation(word, self.lexicon[form], True)
        sounded = self.sounds(word) if self.sounds is not None and not any(map(str.isdigit, word)) else ()
        return Pronunciation(word, sounded or (NOISE,), False)

    def words(self, text: str) -> list[Pronunciation]:
        """All words of a text."""
        return [self.pronounce(word) for word in words_of(text)]

    def read(self, text: str, seed: int = 0) -> list[Phones]:
        """The phones of each word of a text, silences between them.

        Raises `ValueError` for a text without a word.
        """
        words = self.words(text)
        if not words:
            raise ValueError(f"there is no word in the text {text[:80]!r}; leave it out")
        pauses = _draws("silences", seed, text).random_sample(len(words) - 1) < self.silence_probability
        groups: list[Phones] = [(SILENCE,)]
        for word, pause in zip(words, [*pauses, True], strict=True):
            groups += [word.phones, (SILENCE,)] if pause else [word.phones]
        return groups

    def coverage(self, texts: Iterable[str]) -> Coverage:
        """Which words of the texts the lexicon has."""
        told = Coverage()
        for word in (word for text in texts for word in self.words(text)):
            told.words += 1
            if not word.known:
                (told.noise if word.phones == (NOISE,) else told.sounded)[word.word] += 1
        return told


@dataclass(frozen=True)
class DurationLaw:
    """How many frames each phone lasts: the nearest whole number to a draw from a normal distribution, at least one.

    Args:
        phone: mean and deviation, in frames, of every phone without its own.
        families: those of phones by name, without stress or place in the word.
        most: frames of a whole text. A longer draw is replaced by the means, less one frame as often as it takes.

    The numbers are the paper's, for 50 frames a second. Raises `ValueError` for a negative deviation.
    """

    phone: tuple[float, float] = (5.0, 2.5)
    families: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: {SILENCE: (14.0, 7.0), NOISE: (32.0, 11.0)}
    )
    most: int = 4374

    def __post_init__(self) -> None:
        for name, (_, deviation) in {"phone": self.phone, **self.families}.items():
            if deviation < 0:
                raise ValueError(f"the deviation of '{name}' is {deviation}; give 0 or more")

    def draw(self, symbols: Sequence[str], text: str, seed: int = 0) -> list[int]:
        """Frames of each symbol. Raises `ValueError` for more symbols than frames are allowed."""
        if len(symbols) > self.most:
            raise ValueError(
                f"the text {text[:40]!r}... has {len(symbols)} phones, more than {self.most} frames; cut it"
            )
        laws = np.array([self.families.get(phone_family(symbol), self.phone) for symbol in symbols]).reshape(-1, 2)
        frames = _whole(_draws("durations", seed, text).normal(laws[:, 0], laws[:, 1]))
        less = 0
        while frames.sum() > self.most:
            less += 1
            frames = _whole(laws[:, 0] - less)
        return frames.tolist()


def _whole(frames: np.ndarray) -> np.ndarray:
    return np.maximum(np.rint(frames), 1).astype(int)


def _draws(purpose: str, seed: int, text: str) -> np.random.RandomState:
    """Legacy, for NumPy has promised that its draws never change."""
    digest = hashlib.sha256(f"{purpose} {seed} {text}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype=np.uint32))
