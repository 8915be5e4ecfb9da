"""What joint encoders are pre-trained on: clips with frame labels, and texts, apart from each other.

    stream = PretrainingStream(clips, texts, BatchSizes(labels=2000, letters=600), seed=0)
    Trainer(..., train_dataset=stream, data_collator=PretrainingCollator(processor, model.config))

An item of the stream is a whole batch: clips of like length, and texts of like length that need not be what they say.
What it holds is a function of the seed and its number, so that training resumes anywhere.

Shapes: B rows, S samples, L labels, T units.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset, get_worker_info

from ..configuration.configuration_joint_encoders import JointEncoderConfig
from ..modeling.modeling_losses import IGNORED
from ..processing.processing_speechlm import SpeechLMProcessor
from .frame_labels import Labels

__all__ = [
    "BatchSizes",
    "LabeledClip",
    "PlannedBatch",
    "PretrainingCollator",
    "PretrainingStream",
    "ReadText",
    "batches_by_size",
    "is_read_alone",
    "validation_batches",
]

_WINDOW = 2000  # rows that are sorted by length together
_SLACK = 0.1  # seconds by which labels may end before or behind their clip
_EPOCHS = 1_000_003  # more than there will be; keeps the draws of two seeds apart


@dataclass(frozen=True, eq=False)
class LabeledClip:
    """A clip whose audio stays undecoded.

    Args:
        id: what errors call it.
        rows, place: the corpus, and which row of it the clip is.
        labels: ids of units [L], at the model's `label_rate`.
        text: what is said. speaker: who says it, where known.
    """

    id: str
    rows: Dataset
    place: int
    labels: Labels
    text: str = ""
    speaker: str = ""

    @property
    def audio(self) -> Any:
        """What `load_audio` takes."""
        return self.rows[self.place]["audio"]


@dataclass(frozen=True)
class ReadText:
    """A text, and the seed of its silences and durations."""

    text: str
    seed: int = 0


@dataclass(frozen=True)
class PlannedBatch:
    """The rows of a batch: clips, texts whose letters are written, texts whose masked units are predicted."""

    clips: tuple[LabeledClip, ...] = ()
    texts: tuple[ReadText, ...] = ()
    unit_texts: tuple[ReadText, ...] = ()


@dataclass(frozen=True)
class BatchSizes:
    """How much a batch may hold, padding included; a longer row makes one by itself.

    Args:
        labels: frame labels of clips.
        letters: letters of texts; 0 for no texts.
        unit_letters: letters of the texts whose masked units are predicted; 0 for none.
    """

    labels: int
    letters: int = 0
    unit_letters: int = 0


def is_read_alone(clip: str, share: float) -> bool:
    """Whether a clip, by its id, is in the share whose texts are read and whose speech is not heard."""
    return int.from_bytes(hashlib.sha256(clip.encode()).digest()[:8], "big") < share * 2**64


def batches_by_size(sizes: Sequence[int], most: int, key: str | None = None) -> list[list[int]]:
    """Indices of rows in batches of like sizes; a batch's rows times its largest are at most `most`.

    Args:
        key: shuffles rows and batches; without it they go from small to large.
    """
    order, batches = list(range(len(sizes))), []
    if key is not None:
        random.Random(f"rows {key}").shuffle(order)
    window = _WINDOW if key is not None else max(len(order), 1)
    for start in range(0, len(order), window):
        batch: list[int] = []
        for index in sorted(order[start : start + window], key=sizes.__getitem__):  # the next is the largest
            if batch and (len(batch) + 1) * sizes[index] > most:
                batches.append(batch)
                batch = []
            batch.append(index)
        batches.append(batch)
    if key is not None:
        random.Random(f"batches {key}").shuffle(batches)
    return batches


class PretrainingStream(IterableDataset):
    """Batches without end; clips and texts each begin anew when all of them were had.

    Silences and durations of a text are drawn anew in each of its epochs. The workers of a loader take the batches in
    turn. Raises `ValueError` without clips, and without texts where batches are to hold some.
    """

    def __init__(self, clips: Sequence[LabeledClip], texts: Sequence[str], sizes: BatchSizes, seed: int) -> None:
        if not clips:
            raise ValueError("there are no clips to train on; name a corpus in speech_data")
        if not texts and (sizes.letters or sizes.unit_letters):
            raise ValueError("there are no texts to train on; name some in text_data, or set text_letters 0")
        self.clips, self.texts, self.sizes, self.seed = clips, texts, sizes, seed

    def __iter__(self) -> Iterator[PlannedBatch]:
        worker = get_worker_info()
        mine, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (batch for number, batch in enumerate(self.batches()) if number % workers == mine)

    def batches(self) -> Iterator[PlannedBatch]:
        """All batches, whatever the worker."""
        texts = self._texts("texts", self.sizes.letters)
        unit_texts = self._texts("unit texts", self.sizes.unit_letters)
        sizes = [len(clip.labels) for clip in self.clips]
        for _, places in self._endless("clips", sizes, self.sizes.labels):
            yield PlannedBatch(tuple(self.clips[place] for place in places), next(texts), next(unit_texts))

    def _texts(self, kind: str, most: int) -> Iterator[tuple[ReadText, ...]]:
        if not most:
            while True:
                yield ()
        for epoch, places in self._endless(kind, [len(text) for text in self.texts], most):
            yield tuple(ReadText(self.texts[place], self.seed * _EPOCHS + epoch) for place in places)

    def _endless(self, kind: str, sizes: Sequence[int], most: int) -> Iterator[tuple[int, list[int]]]:
        """Epochs and the rows of a batch."""
        for epoch in count():
            for places in batches_by_size(sizes, most, f"{kind} {self.seed} {epoch}"):
                yield epoch, places


def validation_batches(clips: Sequence[LabeledClip], sizes: BatchSizes) -> list[PlannedBatch]:
    """All clips once, in batches beside their own texts."""
    batches = []
    for places in batches_by_size([len(clip.labels) for clip in clips], sizes.labels):
        chosen = tuple(clips[place] for place in places)
        texts = tuple(ReadText(clip.text) for clip in chosen if clip.text.strip())
        batches.append(PlannedBatch(chosen, texts if sizes.letters else (), texts if sizes.unit_letters else ()))
    return batches


@dataclass(frozen=True)
class PretrainingCollator:
    """Planned batches as tensors; several are put together.

    Args:
        processor: loads clips and reads texts.
        config: of the model.
    """

    processor: SpeechLMProcessor
    config: JointEncoderConfig

    def __call__(self, plans: Sequence[PlannedBatch]) -> dict[str, Tensor]:
        """What a model's `forward` takes.

        Raises:
            ValueError: labels do not fit their clip; a text has more units than the model has positions.
            AudioError: a clip cannot be used.
        """
        clips = [clip for plan in plans for clip in plan.clips]
        texts = [text for plan in plans for text in plan.texts]
        unit_texts = [text for plan in plans for text in plan.unit_texts]
        batch: dict[str, Tensor] = self.speech(clips) if clips else {}
        if texts:
            batch["input_ids"], batch["unit_attention_mask"] = self.units(texts)
            letters = [torch.tensor(self.processor.letter_ids(one.text, end=True)) for one in texts]
            batch["text_labels"] = pad_sequence(letters, batch_first=True, padding_value=IGNORED)
        if unit_texts:
            batch["unit_text_ids"], batch["unit_text_attention_mask"] = self.units(unit_texts)
        return batch

    def speech(self, clips: Sequence[LabeledClip]) -> dict[str, Tensor]:
        """`input_values` and `attention_mask` [B, S], `labels` [B, L] padded with -100."""
        batch = dict(self.processor(audio=[clip.audio for clip in clips], names=[clip.id for clip in clips]))
        for clip, samples in zip(clips, batch["attention_mask"].sum(-1).tolist(), strict=True):
            self._check(clip, samples)
        labels = [torch.from_numpy(clip.labels).long() for clip in clips]
        return {**batch, "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED)}

    def _check(self, clip: LabeledClip, samples: int) -> None:
        config = self.config
        frames = (samples - config.frame_kernel) // config.inputs_to_logits_ratio + 1
        wanted = int(frames * config.label_rate / config.frame_rate)
        if abs(len(clip.labels) - wanted) > _SLACK * config.label_rate:
            raise ValueError(
                f"clip '{clip.id}' has {len(clip.labels)} labels, and its {samples / config.sampling_rate:.2f} s are "
                f"{wanted} at {config.label_rate:g} a second; label it at this rate, from its beginning to its end"
            )

    def units(self, texts: Sequence[ReadText]) -> tuple[Tensor, Tensor]:
        """Units of texts and their mask, [B, T] each."""
        rows = [torch.tensor(self._unit_ids(one)) for one in texts]
        padded = pad_sequence(rows, batch_first=True, padding_value=self.config.padding)
        return padded, pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)

    def _unit_ids(self, one: ReadText) -> list[int]:
        units, most = self.processor.unit_ids(one.text, one.seed), self.config.max_unit_positions
        if 0 < most < len(units):
            raise ValueError(
                f"the text {one.text[:40]!r}... has {len(units)} units, and the model has {most} positions; cut texts "
                f"by text_words, or give the model more max_unit_positions"
            )
        return units
