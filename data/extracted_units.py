"""Units of a whole corpus, in the feature store: every clip once, by any number of processes, and resumable.

Shapes: S samples, F encoder frames, D width.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers.feature_extraction_utils import BatchFeature

from ..modeling.modeling_speech_units import SpeechUnitModel
from ..processing.processing_speech_units import SpeechUnitProcessor
from .feature_store import FeatureStore


@dataclass(frozen=True)
class Extraction:
    """What a process did.

    Args:
        keys: id -> key in the store, of this process's clips.
        clips, audio_seconds: how much of it was encoded; the rest was in the store.
        seconds: wall time, loading of audio included.
    """

    keys: dict[str, str]
    clips: int
    audio_seconds: float
    seconds: float

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of work for a second of audio; `None` where nothing was left to do."""
        return self.seconds / self.audio_seconds if self.audio_seconds else None


def unit_facts(model: SpeechUnitModel, processor: SpeechUnitProcessor) -> dict[str, Any]:
    """Everything that decides a clip's frame units. Raises `ValueError` for a codebook that was never trained."""
    config = model.config
    if config.codebook_hash is None:
        raise ValueError("this codebook is random; train one before units are kept")
    extractor = processor.feature_extractor.to_json_string()
    return {
        "kind": "units",
        "encoder": type(model.audio_tower).__name__,
        "revision": config.audio_model_revision,
        "weights": config.audio_weights,
        "layer": config.layer,
        "averaging": config.averaging,
        "codebook": config.codebook_hash,
        "encoding": config.encoding,
        "preprocessing": hashlib.sha256(extractor.encode()).hexdigest(),
        "chunk_seconds": processor.chunk_seconds,
        "dtype": config.audio_dtype,
    }


def open_unit_store(root: Path, model: SpeechUnitModel, processor: SpeechUnitProcessor) -> FeatureStore:
    """The store of this encoder, codebook and preprocessing. What it holds is not smoothed."""
    return FeatureStore(root, unit_facts(model, processor))


def read_units(store: FeatureStore, key: str) -> list[int]:
    """Frame units of a clip. Raises `KeyError` for one that was never extracted."""
    return [unit for chunk in store.read(key) for unit in chunk.tolist()]


def encode_clips(
    model: SpeechUnitModel, processor: SpeechUnitProcessor, clips: Sequence[npt.NDArray[np.float32]]
) -> list[npt.NDArray[np.float32]]:
    """The frames [F, D] of clips [S] at the encoder's rate, in one padded batch; chunks are laid end to end."""
    chunks = [(owner, chunk) for owner, clip in enumerate(clips) for chunk in processor.chunks(clip)]
    batch = BatchFeature(processor.pad([processor.extract(chunk) for _, chunk in chunks]), tensor_type="pt")
    frames, lengths = model.encode(**batch)
    parts: list[list[npt.NDArray[np.float32]]] = [[] for _ in clips]
    for (owner, _), chunk, length in zip(chunks, frames.float().cpu().numpy(), lengths.tolist(), strict=True):
        parts[owner].append(chunk[:length])
    return [np.concatenate(part) for part in parts]


def extract_corpus(
    model: SpeechUnitModel,
    processor: SpeechUnitProcessor,
    rows: Dataset,
    store: FeatureStore,
    batch_size: int = 16,
    workers: int = 0,
    shard_clips: int = 512,
) -> Extraction:
    """Writes the units of the clips that the store lacks.

    Under a launcher each process takes every so-manieth clip of all sorted by length: shares are alike, and a batch
    holds clips of nearly one length.

    Args:
        rows: with columns `id`, `audio` and, to sort by, `duration`.
        workers: processes that load audio, for each process.
        shard_clips: clips in a file of the store; what an interruption may lose.
    """
    state = PartialState()
    lengths = rows["duration"] if "duration" in rows.column_names else [0.0] * len(rows)
    order = np.argsort(lengths, kind="stable")[state.process_index :: state.num_processes]
    loader = DataLoader(
        rows.select(order), batch_size=batch_size, collate_fn=_Prepare(processor, store), num_workers=workers
    )
    keys: dict[str, str] = {}
    clips, samples, start = 0, 0, time.perf_counter()
    progress = tqdm(loader, desc="units", unit="batch", disable=not state.is_local_main_process)
    for shard, shard_samples in _shards(model, progress, keys, shard_clips):
        store.write(shard)
        clips, samples = clips + len(shard), samples + shard_samples
    return Extraction(keys, clips, samples / processor.sampling_rate, time.perf_counter() - start)


@dataclass(frozen=True)
class _Batch:
    keys: dict[str, str]  # id -> key, of all clips
    owners: list[str]  # key of each chunk that is to be encoded
    samples: int
    features: BatchFeature | None


@dataclass(frozen=True)
class _Prepare:
    """Loads clips in a worker process and extracts the features of those that the store lacks."""

    processor: SpeechUnitProcessor
    store: FeatureStore

    def __call__(self, rows: Sequence[dict[str, Any]]) -> _Batch:
        clips = {row["id"]: self.processor.load(row["audio"], name=row["id"]) for row in rows}
        keys = {name: self.store.key(clip) for name, clip in clips.items()}
        missing = {key: clips[name] for name, key in keys.items() if key not in self.store}
        chunks = [(key, chunk) for key, clip in missing.items() for chunk in self.processor.chunks(clip)]
        if not chunks:
            return _Batch(keys, [], 0, None)
        features = self.processor.pad([self.processor.extract(chunk) for _, chunk in chunks])
        samples = sum(map(len, missing.values()))
        return _Batch(keys, [key for key, _ in chunks], samples, BatchFeature(features, tensor_type="pt"))


@torch.no_grad()
def _shards(
    model: SpeechUnitModel, batches: Any, keys: dict[str, str], shard_clips: int
) -> Iterator[tuple[dict[str, list[npt.NDArray[np.int32]]], int]]:
    """Groups of clips with their units and their samples; `keys` is filled with the key of every clip seen."""
    pending: dict[str, list[npt.NDArray[np.int32]]] = {}
    samples = 0
    for batch in batches:
        keys |= batch.keys
        if batch.features is not None:
            found: dict[str, list[npt.NDArray[np.int32]]] = {}
            for owner, units in zip(batch.owners, model.extract(**batch.features), strict=True):
                found.setdefault(owner, []).append(np.asarray(units, dtype=np.int32))
            pending |= found  # the same audio under another id replaces, it does not extend
            samples += batch.samples
        if len(pending) >= shard_clips:
            yield pending, samples
            pending, samples = {}, 0
    if pending:
        yield pending, samples
