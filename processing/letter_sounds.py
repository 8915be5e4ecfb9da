"""Phones of English words that no lexicon has, from their letters alone.

    LetterSounds.shipped()("zoo")      # ("Z", "UW1")

A rule is a letter between some of its neighbors, and the phones it stands for there; of all that fit, the one with the
most neighbors counts. The rules in `letter_sounds.txt` were learned from the CMU Pronouncing Dictionary, see
`speechzoo.training.letter_sound_rules`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from functools import cache

from .package_text import package_text

__all__ = ["CONTEXTS", "EDGE", "LetterSounds", "contexts", "plain_letters"]

# How many letters to the left and to the right a rule sees, from the shortest to the longest.
CONTEXTS = ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4))
EDGE = "#"  # where a word begins and ends

Phones = tuple[str, ...]


def contexts(letters: str, place: int) -> list[str]:
    """The letter at `place` between more and more of its neighbors, written "left letter right"."""
    longest = max(max(sizes) for sizes in CONTEXTS)
    padded = EDGE * longest + letters + EDGE * longest
    center = place + longest
    return [
        f"{padded[center - left : center]} {padded[center]} {padded[center + 1 : center + 1 + right]}"
        for left, right in CONTEXTS
    ]


def plain_letters(word: str) -> str:
    """The letters a to z of a word, accents taken off, everything else left out."""
    return re.sub(r"[^a-z]", "", unicodedata.normalize("NFKD", word.lower()))


class LetterSounds:
    """Sounds out words.

    Args:
        rules: "left letter right" -> phones.

    Raises `ValueError` where a letter has no rule of its own.
    """

    def __init__(self, rules: Mapping[str, Phones]) -> None:
        self.rules = dict(rules)
        silent = [letter for letter in "abcdefghijklmnopqrstuvwxyz" if f" {letter} " not in self.rules]
        if silent:
            raise ValueError(f"there is no rule for the letter '{silent[0]}' by itself; add one")

    @classmethod
    def shipped(cls) -> LetterSounds:
        """The rules of this package."""
        return _shipped()

    @classmethod
    def parse(cls, text: str) -> LetterSounds:
        """A rule on each line: its context, a tab, its phones; lines that begin with `;` are passed over."""
        pairs = [line.split("\t") for line in text.splitlines() if line and not line.startswith(";")]
        return cls({context: tuple(phones.split()) for context, phones in pairs})

    def lines(self) -> list[str]:
        """What `parse` reads, sorted."""
        return [f"{context}\t{' '.join(phones)}" for context, phones in sorted(self.rules.items())]

    @property
    def hash(self) -> str:
        """SHA-256 of the rules."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()

    @property
    def phones(self) -> list[str]:
        """All phones that some rule says, in the order of the alphabet."""
        return sorted({phone for phones in self.rules.values() for phone in phones})

    def __call__(self, word: str) -> Phones:
        """Phones of a word; none where it has no letter."""
        letters = plain_letters(word)
        return tuple(phone for place in range(len(letters)) for phone in self._sound(letters, place))

    def _sound(self, letters: str, place: int) -> Phones:
        return next(self.rules[rule] for rule in reversed(contexts(letters, place)) if rule in self.rules)


@cache
def _shipped() -> LetterSounds:
    return LetterSounds.parse(package_text(__file__, "letter_sounds.txt"))
