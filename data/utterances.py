"""Clips of corpora as utterances: the units of each, its text, and when every word of it is said.

reader = UtteranceReader(unit_model, processor, cache / "features")
utterances = reader.read("synthetic:whole-stories-train")
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset

from ..modeling.modeling_speech_units import SpeechUnitModel
from ..processing.audio_loading import load_audio
from ..processing.processing_speech_units import SpeechUnitProcessor
from ..processing.processing_sutlm import PretrainedUnits, SUTLMProcessor
from ..processing.word_alignment import CTCAligner, WordSpan, read_textgrid, spans_of_timings
from .aligned_words import align_corpus
from .corpora import load_corpus
from .extracted_units import extract_corpus, open_unit_store, read_units
from .speech_text_mixing import Utterance
from .timed_labels import timed_labels


@dataclass(frozen=True)
class UtteranceReader:
    """Reads corpora through a unit model, whose units are kept.

    Args:
        unit_model, processor: what makes units.
        store_root: folder of the feature store, where units and times of words are looked for first.
        aligner: finds the words of corpora that have neither timings nor TextGrid files.
        textgrids: folder with a `<id>.TextGrid` for each clip, as the Montreal Forced Aligner writes them.
        text_column: the column of a corpus that holds what is said.
        lowercase: write texts and words in small letters.
        batch_size, workers: of the unit model.
    """

    unit_model: SpeechUnitModel
    processor: SpeechUnitProcessor
    store_root: Path
    aligner: CTCAligner | None = None
    textgrids: Path | None = None
    text_column: str = "text"
    lowercase: bool = False
    batch_size: int = 16
    workers: int = 0

    @property
    def frame_rate(self) -> float:
        """Frames a second of the units."""
        return self.processor.frame_rate

    @property
    def clusters(self) -> int:
        """K, the size of the codebook."""
        return self.unit_model.config.clusters

    @classmethod
    def of(
        cls, processor: SUTLMProcessor, store_root: Path, unit_model: str | None = None, **fields: Any
    ) -> UtteranceReader:
        """Reads through the unit model that a joint model's processor names.

        Args:
            unit_model: folder or Hub id of that model, where it is elsewhere now.
            **fields: of the reader.

        Raises `ValueError` where none is named, and where the one at `unit_model` gives other units.
        """
        if unit_model is not None:
            processor.use_units_of(PretrainedUnits(unit_model))
        extractor = processor.extractor
        if not isinstance(extractor, PretrainedUnits):
            raise ValueError("the processor's units come from no saved unit model; name one by name_unit_model")
        return cls(extractor.model.to(PartialState().device), extractor.processor, store_root, **fields)

    def read(
        self, source: str, clips: int | None = None, noise_db: float | None = None, words: bool = True
    ) -> list[Utterance]:
        """The utterances of a corpus, in its order.

        Args:
            source: as `load_corpus` takes it; `source@split` picks a split.
            clips: so many of them, the first.
            noise_db: white noise is added at this ratio of signal to noise (dB), the same for a clip each time.
                Words are still sought in the clean clip.
            words: whether times of words are wanted.

        Raises:
            ValueError: the corpus cannot be used.
            AudioError: a clip cannot.
        """
        rows = read_recordings(source, clips)
        heard = rows if noise_db is None else rows.with_transform(_Noise(noise_db, self.processor.sampling_rate))
        units = self._frame_units(heard)
        has_texts = self.text_column in rows.column_names
        texts = [text or "" for text in rows[self.text_column]] if has_texts else [""] * len(rows)
        timed = self._words(source, rows) if words else {}
        return [
            self._utterance(name, units[name], text, timed.get(name, ()))
            for name, text in zip(rows["id"], texts, strict=True)
        ]

    def _utterance(self, name: str, units: list[int], text: str, words: Sequence[WordSpan]) -> Utterance:
        if self.lowercase:
            text, words = text.lower(), [replace(word, word=word.word.lower()) for word in words]
        return Utterance(name, self.processor.units(units), text, tuple(words))

    def _frame_units(self, rows: Dataset) -> dict[str, list[int]]:
        store = open_unit_store(self.store_root, self.unit_model, self.processor)
        done = extract_corpus(self.unit_model, self.processor, rows, store, self.batch_size, self.workers)
        store.refresh()
        keys = dict(gather_object(list(done.keys.items())))  # each process did a share
        return {name: read_units(store, key) for name, key in keys.items()}

    def _words(self, source: str, rows: Dataset) -> dict[str, list[WordSpan]]:
        """By the corpus's own timings, else by TextGrid files, else by the aligner; nothing where there is none."""
        if timings := timed_labels(source, "words"):
            phones = timed_labels(source, "phones")
            return {clip: spans_of_timings(words, phones.get(clip, ())) for clip, words in timings.items()}
        if self.textgrids is not None:
            return {clip: read_textgrid(self.textgrids / f"{clip}.TextGrid") for clip in rows["id"]}
        if self.aligner is not None:
            return align_corpus(self.aligner, rows, self.store_root, self.text_column)
        return {}


def read_recordings(source: str, clips: int | None = None) -> Dataset:
    """The first `clips` recordings of a corpus, undecoded; `source@split` picks a split."""
    name, _, split = source.partition("@")
    rows = load_corpus(name, split or None, audio=True)
    return rows.select(range(min(clips or len(rows), len(rows))))


@dataclass(frozen=True)
class _Noise:
    """What a data set shows in place of its rows: the same with noise."""

    decibels: float
    sampling_rate: int

    def __call__(self, rows: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        if "audio" not in rows:
            return dict(rows)
        clips = zip(rows["id"], rows["audio"], strict=True)
        return {**rows, "audio": [self._noisy(name, audio) for name, audio in clips]}

    def _noisy(self, name: str, audio: Any) -> np.ndarray:
        clip = load_audio(audio, self.sampling_rate, name=name)  # [S]
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        noise = np.random.default_rng(seed).standard_normal(len(clip))
        level = np.sqrt(np.mean(clip**2)) * 10 ** (-self.decibels / 20)
        return (clip + level * noise).astype(np.float32)


__all__ = ["UtteranceReader", "read_recordings"]
