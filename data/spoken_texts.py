"""Clips whose units are aligned with the phones of what is said: what a text-to-unit model learns from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import logging

from ..processing.phones import PhoneReader, words_of
from ..processing.text_to_units import phone_numbers
from ..processing.unit_vocabulary import UnitVocabulary
from .phone_alignment import AlignedPhones, PhoneAligner, Window
from .speech_text_mixing import Utterance

__all__ = ["SpokenText", "TextAligner", "TextToUnitCollator", "text_to_unit_examples"]

logger = logging.get_logger(__name__)
IGNORED = -100
Phones = tuple[str, ...]


@dataclass(frozen=True)
class SpokenText:
    """A clip: the unit of every frame, and which phones they say for how long."""

    id: str
    text: str
    units: list[int]
    aligned: AlignedPhones


@dataclass(frozen=True)
class TextAligner:
    """Aligns utterances with the phones of their texts.

    Args:
        reader: makes phones of texts.
        frame_rate: of the units.
        slack: a word is said at the time that the corpus knows, give or take so many seconds; `None` passes over what
            the corpus knows. Our reading: labels of words and units of frames are both 20 to 60 ms wide.
    """

    reader: PhoneReader
    frame_rate: float
    slack: float | None = 0.06

    def fit(
        self, utterances: Sequence[Utterance], clusters: int, clips: int | None = None, rounds: int = 10
    ) -> PhoneAligner:
        """Learns which units say which phones.

        Args:
            clusters: K, the size of the codebook.
            clips: so many utterances, the first; all where not given.
            rounds: of aligning and counting.
        """
        units, words, windows = self._columns(utterances[:clips])
        return PhoneAligner.fit(units, words, clusters, rounds, self.reader.inventory, windows)

    def align(self, aligner: PhoneAligner, utterances: Sequence[Utterance]) -> list[SpokenText]:
        """The utterances that can be aligned; a warning counts those with fewer frames than phones, or no word.

        Raises `ValueError` where none can.
        """
        units, words, windows = self._columns(utterances)
        aligned = aligner.align(units, words, windows)
        found = [
            SpokenText(utterance.id, utterance.text, clip, phones)
            for utterance, clip, phones in zip(utterances, units, aligned, strict=True)
            if phones is not None
        ]
        if left := [one.id for one, phones in zip(utterances, aligned, strict=True) if phones is None]:
            told = (
                f"{len(left)} of {len(utterances)} clips have fewer frames than phones, or no word, first '{left[0]}'"
            )
            if not found:
                raise ValueError(f"{told}; give clips with the words that are said in them")
            logger.warning(f"{told}; they are left out")
        return found

    def _columns(
        self, utterances: Sequence[Utterance]
    ) -> tuple[list[list[int]], list[list[Phones]], list[list[Window | None]]]:
        units = [utterance.units.expanded() for utterance in utterances]
        words = [[word.phones for word in self.reader.words(utterance.text)] for utterance in utterances]
        return units, words, [self._windows(one, len(said)) for one, said in zip(utterances, words, strict=True)]

    def _windows(self, utterance: Utterance, words: int) -> list[Window | None]:
        """Of each word; several that the corpus could not part share one."""
        if self.slack is None:
            return [None] * words
        windows: list[Window | None] = []
        for span in utterance.words:
            first = math.floor((span.start - self.slack) * self.frame_rate)
            behind = math.ceil((span.end + self.slack) * self.frame_rate)
            windows += [(first, behind)] * len(words_of(span.word))
        return windows if len(windows) == words else [None] * words


def text_to_unit_examples(spoken: Sequence[SpokenText], vocabulary: UnitVocabulary) -> Dataset:
    """Rows with `phone_ids` and `durations` [P], `labels` [F] and `length`, the frames."""
    return Dataset.from_list(
        [
            {
                "phone_ids": phone_numbers(vocabulary, one.aligned.groups),
                "durations": one.aligned.durations,
                "labels": one.units,
                "length": len(one.units),
            }
            for one in spoken
        ]
    )


@dataclass(frozen=True)
class TextToUnitCollator:
    """Pads rows of `text_to_unit_examples`: phones and durations with 0 under a mask, units with -100."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        phones, durations, labels = (
            [torch.tensor(row[name]) for row in rows] for name in ("phone_ids", "durations", "labels")
        )
        return {
            "phone_ids": pad_sequence(phones, batch_first=True),
            "phone_attention_mask": pad_sequence([torch.ones_like(row) for row in phones], batch_first=True),
            "durations": pad_sequence(durations, batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        }
