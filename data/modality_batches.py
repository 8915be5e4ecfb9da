"""Batches of one modality each, speech or text, drawn by temperature (arXiv 2310.05919) and counted in frames.

    batches = ModalityBatches(items, count=30_000, capacity=4375, temperature=5, seed=0)
    DataLoader(items, batch_sampler=batches, collate_fn=ModalityCollator(processor, classes))

Shapes: B rows, S samples, N units, L letters.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler

from ..modeling.modeling_losses import IGNORED
from ..processing.processing_speechlm import SpeechLMProcessor
from ..processing.unit_vocabulary import UnitVocabulary
from .labeled_recordings import LabeledRecording
from .labeled_utterances import InputModality

__all__ = [
    "ModalityBatches",
    "ModalityCollator",
    "ModalityItem",
    "modality_probabilities",
    "read_as",
    "text_units",
    "unit_batch",
]

_POOL = 1024  # items that are sorted by length together


@dataclass(frozen=True)
class ModalityItem:
    """A clip as it is read: its sound, or the units of its text.

    length: frames, or units.
    """

    recording: LabeledRecording
    modality: InputModality
    length: int
    units: tuple[int, ...] = ()


def read_as(
    recordings: Sequence[LabeledRecording],
    modality: InputModality,
    processor: SpeechLMProcessor,
    seed: int = 0,
    most: int | None = None,
) -> list[ModalityItem]:
    """Clips in one modality. Silences and durations of a text are drawn here, once for each clip.

    Args:
        seed: of these draws.
        most: frames or units of the longest clip.

    Raises `ValueError` naming a clip that is longer, or that has no audio or no text to read.
    """
    items = [_item(one, modality, processor, seed) for one in recordings]
    if long := [item for item in items if most is not None and item.length > most]:
        raise ValueError(
            f"clip '{long[0].recording.id}' read as {modality} has {long[0].length} frames and a batch takes {most}; "
            f"raise batch_frames, or leave the clip out"
        )
    return items


def _item(one: LabeledRecording, modality: InputModality, processor: SpeechLMProcessor, seed: int) -> ModalityItem:
    if modality == "speech":
        if one.audio is None:
            raise ValueError(f"clip '{one.id}' has no audio to read; read it as text")
        samples = round(one.seconds * processor.feature_extractor.sampling_rate)
        return ModalityItem(one, modality, (samples - processor.frame_kernel) // processor.frame_stride + 1)
    if not one.text.strip():
        raise ValueError(f"clip '{one.id}' has no text to read; leave it out, or use speech alone")
    units = text_units(one, processor, seed)
    return ModalityItem(one, modality, len(units), units)


def text_units(one: LabeledRecording, processor: SpeechLMProcessor, seed: int = 0) -> tuple[int, ...]:
    """Units [N] of a clip's text. Clips that say the same differ in silences and durations, as recordings do.

    Without that, a corpus of few sentences would be few inputs, and a test that says one of them an input of training;
    so it is, in part, with a text-to-unit model: for it draws no durations, and clips differ in silences alone.
    """
    digest = hashlib.sha256(f"{seed} {one.id}".encode()).digest()
    return tuple(processor.unit_ids(one.text, int.from_bytes(digest[:8], "big")))


def modality_probabilities(counts: Mapping[str, int], temperature: float) -> dict[str, float]:
    """How often each modality is drawn: its share of the items to the power of 1 / `temperature`, normalized.

    1 draws by shares, infinity all alike. Raises `ValueError` for a temperature of 0 or less.
    """
    if temperature <= 0:
        raise ValueError(f"the temperature is {temperature}; give more than 0, the paper has 5")
    total = sum(counts.values())
    powers = {name: (count / total) ** (1 / temperature) for name, count in counts.items() if count}
    return {name: power / sum(powers.values()) for name, power in powers.items()}


class ModalityBatches(Sampler[list[int]]):
    """Indices of `count` batches, the same in every iteration, so that an interrupted run can skip what it has seen.

    Each modality goes through its items again and again, in another order each time, lengths in a batch alike.

    Args:
        items: what indices point at.
        count: batches in all.
        capacity: most frames or units of a batch, padding included.
        most_items: of a batch.
        temperature: see `modality_probabilities`.
        seed: of everything that is drawn.

    Raises `ValueError` without items, and where one is longer than a batch.
    """

    def __init__(
        self,
        items: Sequence[ModalityItem],
        count: int,
        capacity: int,
        most_items: int | None = None,
        temperature: float = 5.0,
        seed: int = 0,
    ) -> None:
        if not items:
            raise ValueError("there is no clip to train on; name a corpus that has some")
        if long := [item for item in items if item.length > capacity]:
            raise ValueError(f"clip '{long[0].recording.id}' has {long[0].length} frames, a batch takes {capacity}")
        self.items, self.count, self.capacity, self.seed = items, count, capacity, seed
        self.most_items = most_items or len(items)
        self.probabilities = modality_probabilities(Counter(item.modality for item in items), temperature)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        names = sorted(self.probabilities)
        streams = [self._stream(name, number) for number, name in enumerate(names)]
        draws = np.random.default_rng([self.seed, 0])
        drawn = draws.choice(len(names), size=self.count, p=[self.probabilities[name] for name in names])
        for number in drawn.tolist():
            yield next(streams[number])

    def _stream(self, modality: str, number: int) -> Iterator[list[int]]:
        places = np.array([place for place, item in enumerate(self.items) if item.modality == modality])
        epoch = 0
        while True:
            draws = np.random.default_rng([self.seed, 1, number, epoch])
            batches = self._batches(draws.permutation(places).tolist())
            for chosen in draws.permutation(len(batches)):
                yield batches[chosen]
            epoch += 1

    def _batches(self, order: list[int]) -> list[list[int]]:
        """One pass over the items."""
        batches: list[list[int]] = []
        for start in range(0, len(order), _POOL):
            batch: list[int] = []
            for place in sorted(order[start : start + _POOL], key=lambda place: self.items[place].length):
                # The last one is the longest: all others are padded to it.
                size = self.items[place].length * (len(batch) + 1)
                if batch and (size > self.capacity or len(batch) == self.most_items):
                    batches.append(batch)
                    batch = []
                batch.append(place)
            batches.append(batch)
        return batches


@dataclass(frozen=True)
class ModalityCollator:
    """Batches as SpeechLM and SpeechUT take them.

    `input_values` and `attention_mask` [B, S], or `input_ids` and `unit_attention_mask` [B, N]; `labels` [B] are
    numbers of `classes`, or without classes the letters of the answers [B, L], padded with -100.
    """

    processor: SpeechLMProcessor
    classes: Sequence[str] | None = None

    def __call__(self, items: Sequence[ModalityItem]) -> dict[str, Tensor]:
        """Raises `ValueError` for a batch of both modalities, and for an answer that is no class or has no letters."""
        modalities = {item.modality for item in items}
        if len(modalities) != 1:
            raise ValueError(f"a batch mixes {' and '.join(sorted(modalities))}; it is of one modality")
        clips = [item.recording for item in items]
        if modalities == {"text"}:
            batch = unit_batch([item.units for item in items], self.processor.vocabulary)
        else:
            batch = dict(self.processor(audio=[one.audio for one in clips], names=[one.id for one in clips]))
        return {**batch, "labels": self.labels(clips)}

    def labels(self, clips: Sequence[LabeledRecording]) -> Tensor:
        """`labels` of a batch of these clips. Raises `ValueError` naming a clip whose answer cannot be given."""
        if self.classes is None:
            return pad_sequence([self._letters(one) for one in clips], batch_first=True, padding_value=IGNORED)
        return torch.tensor([self._class(one) for one in clips])

    def _letters(self, one: LabeledRecording) -> Tensor:
        try:
            return torch.tensor(self.processor.letter_ids(one.answer))
        except ValueError as error:
            raise ValueError(f"clip '{one.id}' cannot be answered: {error}") from error

    def _class(self, one: LabeledRecording) -> int:
        names = list(self.classes or ())
        if one.answer not in names:
            raise ValueError(
                f"clip '{one.id}' has the label '{one.answer}', and what is trained on has {', '.join(names)}; "
                f"leave the clip out, or train on a corpus with its label"
            )
        return names.index(one.answer)


def unit_batch(rows: Sequence[Sequence[int]], vocabulary: UnitVocabulary) -> dict[str, Tensor]:
    """Units of texts as `input_ids` and `unit_attention_mask`, [B, N] each."""
    units = [torch.tensor(list(row)) for row in rows]
    mask = pad_sequence([torch.ones_like(row) for row in units], batch_first=True)
    return {
        "input_ids": pad_sequence(units, batch_first=True, padding_value=vocabulary.pad_id),
        "unit_attention_mask": mask,
    }
