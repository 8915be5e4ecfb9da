"""Ids of the units that a joint speech-text encoder reads: phones or clusters of speech, between special symbols.

    <s> 0   <pad> 1   </s> 2   <unk> 3   first unit 4   ...   <mask> last

Which units there are, and in which order, is data: a converted checkpoint brings its own dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

__all__ = ["NOISE", "SILENCE", "UnitVocabulary", "phone_family"]

BEFORE, AFTER = ("<s>", "<pad>", "</s>", "<unk>"), ("<mask>",)
SILENCE, NOISE = "SIL", "SPN"
_POSITIONS = ("_B", "_E", "_I", "_S")  # begin, end, inside, and a word of one phone
_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_CONSONANTS = tuple("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split())
_DISAMBIGUATION = 17  # marks that only the word graph of a recognizer uses; they complete the 364 symbols


class UnitVocabulary:
    """Units and their ids.

    Args:
        symbols: the units in order, without the special symbols.

    Raises `ValueError` for symbols that repeat or are special ones.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = tuple(symbols)
        names = (*BEFORE, *self.symbols, *AFTER)
        self._ids = {name: place for place, name in enumerate(names)}
        if len(self._ids) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the unit '{twice}' is there twice, or is a special symbol; name every unit once")

    @classmethod
    def phones(cls, positions: bool = True) -> UnitVocabulary:
        """ARPAbet: 364 phones told apart by stress and by their place in a word; or, without `positions`, 41.

        Our reading: the number and the style are those of SpeechLM-P, the order is alphabetic. Read the dictionary
        that belongs to a checkpoint by `read`.
        """
        if not positions:
            return cls([SILENCE, NOISE, *sorted(_VOWELS + _CONSONANTS)])
        silences = [family + place for family, place in product((SILENCE, NOISE), ("", *_POSITIONS))]
        stressed = [vowel + stress for vowel, stress in product(_VOWELS, ("", *"012"))]
        said = [phone + place for phone, place in product(sorted((*stressed, *_CONSONANTS)), _POSITIONS)]
        return cls(["<eps>", *silences, *said, *(f"#{number}" for number in range(_DISAMBIGUATION))])

    @classmethod
    def clusters(cls, count: int) -> UnitVocabulary:
        """Indices of a codebook, "0" to "count - 1"."""
        return cls(map(str, range(count)))

    @classmethod
    def read(cls, path: str | Path) -> UnitVocabulary:
        """A dictionary file with a symbol on each line, and a count behind it, which is passed over.

        Raises `ValueError` naming a line without a symbol.
        """
        symbols = []
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                raise ValueError(f"{path}:{number} is empty; write a symbol on every line")
            symbols.append(line.split()[0])
        return cls(symbols)

    def __len__(self) -> int:
        """All ids, those of special symbols included: what a model's embedding needs."""
        return len(self._ids)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._ids

    @property
    def mask_id(self) -> int:
        return self._ids["<mask>"]

    @property
    def pad_id(self) -> int:
        return self._ids["<pad>"]

    def id(self, symbol: str) -> int:
        """Raises `ValueError` for a symbol that is not there."""
        if symbol not in self._ids:
            raise ValueError(f"there is no unit '{symbol}' among the {len(self.symbols)} of this vocabulary")
        return self._ids[symbol]

    def symbol(self, number: int) -> str:
        """Raises `ValueError` for an id outside the vocabulary."""
        if not 0 <= number < len(self):
            raise ValueError(f"there is no unit id {number}; this vocabulary has {len(self)}")
        return (*BEFORE, *self.symbols, *AFTER)[number]

    def phones_of_word(self, phones: Sequence[str]) -> list[str]:
        """The symbols of one word's phones, or of a silence.

        Place in the word and stress are written as far as the vocabulary tells them apart. Raises `ValueError` for a
        phone that it has in no form.
        """
        return [self._nearest(phone, _place(number, len(phones))) for number, phone in enumerate(phones)]

    def _nearest(self, phone: str, place: str) -> str:
        silent = phone == SILENCE  # belongs to no word
        plain = phone_family(phone)
        forms = (phone, phone + place) if silent else (phone + place, phone, plain + place, plain)
        for form in forms:
            if form in self._ids:
                return form
        raise ValueError(f"the vocabulary has no form of the phone '{phone}'; tried {', '.join(forms)}")


def _place(number: int, count: int) -> str:
    if count == 1:
        return "_S"
    return "_B" if number == 0 else "_E" if number == count - 1 else "_I"


def phone_family(symbol: str) -> str:
    """A phone without its place and stress: "AH0_B" is "AH"."""
    return re.sub(r"(?<=[A-Z])[0-2]?(_[BEIS])?$", "", symbol)
