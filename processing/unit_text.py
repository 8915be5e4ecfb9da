"""Speech units as text: one private-use character a unit, and pieces of such strings, found by SentencePiece."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from operator import index
from pathlib import Path
from typing import Any, Literal

import sentencepiece

__all__ = ["BASIC_PLANE_CHARACTERS", "UnitSegmenter", "characters_to_units", "unit_character", "units_to_characters"]

# Unicode's three blocks of characters that never get a meaning; the last two code points of a plane are none.
_PRIVATE_USE = (range(0xE000, 0xF8FF + 1), range(0xF0000, 0xFFFFD + 1), range(0x100000, 0x10FFFD + 1))
BASIC_PLANE_CHARACTERS = len(_PRIVATE_USE[0])  # 6,400
_MOST_CHARACTERS = sum(map(len, _PRIVATE_USE))  # 137,468

# SentencePiece passes over a longer sentence without a word; its default of 4,192 bytes is half a minute of speech.
_LONGEST_SENTENCE = 2**30
_TOO_LARGE = re.compile(r"Vocabulary size too high .*<= (\d+)")
# A model file whose only special piece is <unk>, and which changes no string before it cuts it.
_SETTINGS: dict[str, Any] = {
    "character_coverage": 1.0,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "split_by_whitespace": False,
    "split_by_unicode_script": False,
    "split_by_number": False,
    "unk_id": 0,
    "bos_id": -1,
    "eos_id": -1,
    "pad_id": -1,
    "max_sentence_length": _LONGEST_SENTENCE,
    "minloglevel": 2,
}


def unit_character(unit: int, offset: int = 0) -> str:
    """The private-use character number `offset + unit`: from U+E000, then from U+F0000, then from U+100000.

    Raises `ValueError` when there is no such character.
    """
    place = offset + unit
    for block in _PRIVATE_USE:
        if 0 <= place < len(block):
            return chr(block[place])
        place -= len(block)
    raise ValueError(f"unit {unit} at offset {offset} has no private-use character; there are {_MOST_CHARACTERS}")


def units_to_characters(units: Iterable[int], offset: int = 0) -> str:
    """Units as a string, one character each."""
    return "".join(unit_character(index(unit), offset) for unit in units)


def characters_to_units(characters: str, offset: int = 0) -> list[int]:
    """The inverse of `units_to_characters`. Raises `ValueError` for any other character."""
    return [_unit_of(character, offset) for character in characters]


def _unit_of(character: str, offset: int) -> int:
    before = 0
    for block in _PRIVATE_USE:
        if ord(character) in block and before + block.index(ord(character)) >= offset:
            return before + block.index(ord(character)) - offset
        before += len(block)
    raise ValueError(f"U+{ord(character):04X} is no unit at offset {offset}; units are private-use characters")


class UnitSegmenter:
    """Cuts a list of units into pieces, as one SentencePiece model does, and joins pieces again.

    A piece id counts from 0 over the pieces of the model without its `<unk>`: it is SentencePiece's id less one. Each
    unit alone is a piece too, so every list of units has pieces, and joining them gives the list back exactly.
    Whether repeated units were merged before is the caller's choice; training and use have to agree.

    Args:
        model: the bytes of a `.model` file. Use `train`, `raw` or `load`.

    Attributes:
        pieces (`list[str]`): the pieces, of private-use characters.
        units (`int`): K, the size of the codebook.
        offset (`int`): number of the private-use character that stands for unit 0.

    Raises `ValueError` for a SentencePiece model that holds anything but units.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        if self._processor.unk_id() != 0:
            raise ValueError("this SentencePiece model is not one of units: its first piece is not <unk>")
        self.pieces = [self._processor.id_to_piece(token) for token in range(1, len(self._processor))]
        singles = sorted(piece for piece in self.pieces if len(piece) == 1)
        self.units = len(singles)
        self.offset = _unit_of(singles[0], 0) if singles else 0
        self._characters = [unit_character(unit, self.offset) for unit in range(self.units)]
        if not singles or singles != self._characters or not set("".join(self.pieces)) == set(singles):
            raise ValueError(
                "this SentencePiece model is not one of units: its single characters are not neighbors in the "
                "private-use blocks; train one with UnitSegmenter.train"
            )
        self._unit_of = {character: unit for unit, character in enumerate(self._characters)}
        self._piece_units = [tuple(map(self._unit_of.__getitem__, piece)) for piece in self.pieces]

    def __reduce__(self) -> tuple[type[UnitSegmenter], tuple[bytes]]:
        return UnitSegmenter, (self.model,)

    def __len__(self) -> int:
        """The number of pieces."""
        return len(self.pieces)

    @classmethod
    def train(
        cls,
        corpus: Iterable[Sequence[int]],
        units: int,
        pieces: int = 10_000,
        algorithm: Literal["unigram", "bpe"] = "unigram",
        longest_piece: int = 16,
        offset: int = 0,
        threads: int = 1,
    ) -> UnitSegmenter:
        """Learns pieces from the units of many clips.

        Args:
            corpus: a list of units per clip.
            units: K, the size of the codebook. Units that the corpus lacks become pieces as well.
            pieces: how many to learn; the paper (arXiv 2310.08715) has 10,000. That its algorithm is Unigram is our
                reading, as are the other settings.
            algorithm: `"unigram"` or `"bpe"`.
            longest_piece: in units.
            offset: number of the private-use character of unit 0. `BASIC_PLANE_CHARACTERS` keeps clear of the 6,400
                that occur in some texts and text vocabularies.
            threads: more are faster; with one, the same corpus gives the same file.

        Raises:
            ValueError: a unit is not one of `units`; the corpus is empty; there are fewer or more pieces than it can
                give.
        """
        if pieces < units:
            raise ValueError(f"{pieces} pieces are too few: each of the {units} units is one; give more, or use raw")
        alphabet = [unit_character(unit, offset) for unit in range(units)]
        # A list, for SentencePiece hides the errors of an iterator, and holds all of it anyway.
        strings = [_characters_of(clip, alphabet, f"clip {number}") for number, clip in enumerate(corpus)]
        if not any(strings):
            raise ValueError("the corpus has no units to learn pieces from")
        settings = {"model_type": algorithm, "max_sentencepiece_length": longest_piece, "num_threads": threads}
        # Each unit once, for SentencePiece makes pieces of nothing that it has not seen.
        return cls(_trained([*strings, *alphabet], pieces, settings))

    @classmethod
    def raw(cls, units: int, offset: int = 0) -> UnitSegmenter:
        """No subwords: piece u is unit u."""
        if units < 1:
            raise ValueError(f"{units} units are no codebook; give its size")
        return cls(_trained([units_to_characters(range(units), offset)], units, {"model_type": "char"}))

    @classmethod
    def load(cls, path: str | Path) -> UnitSegmenter:
        """Reads a `.model` file. Raises `OSError` when there is none, and `ValueError` when it is not one of units."""
        model = Path(path).read_bytes()
        try:
            return cls(model)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes a `.model` file, which SentencePiece itself reads too."""
        Path(path).write_bytes(self.model)

    def encode(self, units: Sequence[int]) -> list[int]:
        """Pieces of one list of units. Raises `ValueError` for a unit outside the codebook."""
        string = _characters_of(units, self._characters, "the list")
        return [token - 1 for token in self._processor.encode(string)]

    def decode(self, pieces: Iterable[int]) -> list[int]:
        """Units of pieces. Raises `ValueError` for a piece there is not."""
        return [unit for piece in pieces for unit in self._units_of_piece(index(piece))]

    def _units_of_piece(self, piece: int) -> tuple[int, ...]:
        if not 0 <= piece < len(self.pieces):
            raise ValueError(f"there is no piece {piece}; this model has {len(self.pieces)}, from 0")
        return self._piece_units[piece]


def _characters_of(units: Iterable[int], alphabet: Sequence[str], name: str) -> str:
    """Units as a string, each checked to have a character in `alphabet`."""
    numbers = [index(unit) for unit in units]
    if numbers and not (min(numbers) >= 0 and max(numbers) < len(alphabet)):
        wrong = next(unit for unit in numbers if not 0 <= unit < len(alphabet))
        raise ValueError(
            f"{name} has unit {wrong}, and the units are 0 to {len(alphabet) - 1}; is it of another codebook?"
        )
    return "".join([alphabet[unit] for unit in numbers])


def _trained(strings: Iterable[str], pieces: int, settings: dict[str, Any]) -> bytes:
    """The `.model` file of so many pieces and `<unk>`."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(strings), model_writer=model, vocab_size=pieces + 1, **_SETTINGS, **settings
        )
    except RuntimeError as error:
        if most := _TOO_LARGE.search(str(error)):
            reason = f"this corpus gives no more than {int(most[1]) - 1} pieces; {pieces} were asked for"
            raise ValueError(reason) from error
        raise
    return model.getvalue()
