"""Running a frozen speech encoder over a corpus once, and training from what it said."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers.feature_extraction_utils import BatchFeature

from ..modeling.modeling_frozen_backbones import fingerprint_tensors
from ..modeling.modeling_lora import is_lora
from ..modeling.modeling_speech_text_generation import SpeechTextForConditionalGeneration
from ..processing.processing_speech_text_adapter import SpeechTextAdapterProcessor
from .feature_store import FeatureStore

KEY = "features"  # the column that holds a clip's key


def encoder_facts(model: SpeechTextForConditionalGeneration, processor: SpeechTextAdapterProcessor) -> dict[str, Any]:
    """Everything that decides what the frozen encoder says of a clip."""
    config = model.config
    extractor = processor.feature_extractor.to_json_string()
    return {
        "encoder": type(model.model.audio_tower).__name__,
        "revision": config.audio_model_revision,
        "weights": fingerprint_tensors(model.model.audio_tower.state_dict()),
        "layer": "last",
        "encoding": config.encoding,
        "preprocessing": hashlib.sha256(extractor.encode()).hexdigest(),
        "chunk_seconds": processor.chunk_seconds,
        "dtype": str(model.model.audio_tower.dtype),
    }


def encode_corpus(
    model: SpeechTextForConditionalGeneration,
    processor: SpeechTextAdapterProcessor,
    examples: Dataset,
    store: FeatureStore,
    batch_size: int = 32,
    workers: int = 0,
    shard_clips: int = 512,
) -> Dataset:
    """Encodes the clips that the store lacks and adds their keys to `examples` as the column `features`.

    Under a launcher each process encodes its share. Raises `ValueError` when the encoder is trained, for then what it
    says changes.
    """
    tower = model.model.audio_tower
    if any(parameter.requires_grad or is_lora(name) for name, parameter in tower.named_parameters()):
        raise ValueError(
            "features of an encoder that is trained cannot be kept; leave out cache_features, or of unfrozen and "
            "lora_modules what belongs to audio_tower"
        )
    first_of = {clip: index for index, clip in reversed(list(enumerate(examples["id"])))}
    clips = examples.select(sorted(first_of.values())).sort("length")
    prepare = _Prepare(processor, store)
    keys: dict[str, str] = {}
    state = PartialState()
    with state.split_between_processes(list(range(len(clips)))) as share:
        loader = DataLoader(
            clips.select(share), batch_size=batch_size, collate_fn=prepare, num_workers=workers, shuffle=False
        )
        progress = tqdm(loader, desc="encoding speech", unit="batch", disable=not state.is_local_main_process)
        for shard in _shards(model, progress, keys, shard_clips):
            store.write(shard)
    keys = {clip: key for part in _gather(keys) for clip, key in part.items()}
    store.refresh()
    return examples.add_column(KEY, [keys[clip] for clip in examples["id"]])


@dataclass(frozen=True)
class _Prepare:
    """Loads clips in a worker process and extracts the features of those that the store lacks."""

    processor: SpeechTextAdapterProcessor
    store: FeatureStore

    def __call__(self, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, str], list[str], BatchFeature | None]:
        clips = {row["id"]: self.processor.load(row["audio"], name=row["id"]) for row in rows}
        keys = {name: self.store.key(clip) for name, clip in clips.items()}
        return keys, *self.features({key: clips[name] for name, key in keys.items()})

    def features(self, clips: Mapping[str, np.ndarray]) -> tuple[list[str], BatchFeature | None]:
        """The keys that the chunks of clips belong to, and their features, but for clips that the store has."""
        missing = {key: clip for key, clip in clips.items() if key not in self.store}
        chunks = [(key, chunk) for key, clip in missing.items() for chunk in self.processor.chunks(clip)]
        if not chunks:
            return [], None
        features = self.processor.pad([self.processor.extract(chunk) for _, chunk in chunks])
        return [key for key, _ in chunks], BatchFeature(features, tensor_type="pt")


@torch.no_grad()
def _shards(
    model: SpeechTextForConditionalGeneration, batches: Any, keys: dict[str, str], shard_clips: int
) -> Iterator[dict[str, list[np.ndarray]]]:
    """Groups of encoded clips; `keys` is filled with the key of every clip seen."""
    pending: dict[str, list[np.ndarray]] = {}
    for named, owners, features in batches:
        keys |= named
        if features is not None:
            pending |= _said(model, owners, features)  # the same audio under another id replaces, it does not extend
        if len(pending) >= shard_clips:
            yield pending
            pending = {}
    if pending:
        yield pending


def _said(
    model: SpeechTextForConditionalGeneration, owners: Sequence[str], features: BatchFeature
) -> dict[str, list[np.ndarray]]:
    """The frames [F, D] of each chunk, by the key of the clip that it is of."""
    frames, lengths = model.model.encode_audio(**features.to(model.device))
    said: dict[str, list[np.ndarray]] = {}
    for owner, chunk, length in zip(owners, frames, lengths.tolist(), strict=True):
        said.setdefault(owner, []).append(chunk[:length].float().cpu().numpy())
    return said


class StoredEncoder:
    """What the frozen encoder of a model says of clips that are asked for a few at a time, each encoded once.

    Args:
        model, processor: of the same kind.
        root: folder of stores; models with the same encoder share one.
        shard_clips: new clips that are written together; fewer are lost at the end, and encoded again another time.
    """

    def __init__(
        self,
        model: SpeechTextForConditionalGeneration,
        processor: SpeechTextAdapterProcessor,
        root: Path,
        shard_clips: int = 128,
    ) -> None:
        self.model, self.shard_clips = model, shard_clips
        self.store = open_store(root, model, processor)
        self._prepare = _Prepare(processor, self.store)
        self._new: dict[str, list[np.ndarray]] = {}

    @torch.no_grad()
    def __call__(self, clips: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """The frames [F, D] of each chunk of each clip, which are samples."""
        keys = [self.store.key(clip) for clip in clips]
        missing = {key: clip for key, clip in zip(keys, clips, strict=True) if key not in self._new}
        owners, features = self._prepare.features(missing)
        if features is not None:
            self._new |= _said(self.model, owners, features)
        said = [self._new[key] if key in self._new else self.store.read(key) for key in keys]
        if len(self._new) >= self.shard_clips:
            self.store.write(self._new)
            self.store.refresh()
            self._new = {}
        return said


def _gather(keys: dict[str, str]) -> list[dict[str, str]]:
    if PartialState().num_processes == 1:
        return [keys]
    gathered: list[Any] = [None] * PartialState().num_processes
    torch.distributed.all_gather_object(gathered, keys)
    return gathered


def open_store(
    root: Path, model: SpeechTextForConditionalGeneration, processor: SpeechTextAdapterProcessor
) -> FeatureStore:
    """The store of this encoder and this preprocessing."""
    return FeatureStore(root, encoder_facts(model, processor))
