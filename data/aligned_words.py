"""When the words of a whole corpus are said, by a CTC model: every clip once, kept, and by any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from transformers.utils import logging

from ..modeling.modeling_frozen_backbones import fingerprint_tensors
from ..processing.audio_loading import load_audio
from ..processing.word_alignment import CTCAligner, WordSpan
from .feature_store import FeatureStore

logger = logging.get_logger(__name__)
_CLIPS_AT_ONCE = 64  # in memory, and what an interruption may lose


def align_corpus(
    aligner: CTCAligner, rows: Dataset, store_root: Path, text_column: str = "text"
) -> dict[str, list[WordSpan]]:
    """Id of a clip -> its words; none for a clip that cannot be aligned, of which a warning tells.

    Under a launcher each process aligns its share. Times are kept by recording, text and aligner.

    Args:
        rows: with columns `id`, `audio` and the one that holds what is said.
        store_root: folder of the feature store.
    """
    state, store = PartialState(), FeatureStore(store_root, _facts(aligner))
    share = rows.select(range(state.process_index, len(rows), state.num_processes))
    found: dict[str, list[WordSpan]] = {}
    starts = range(0, len(share), _CLIPS_AT_ONCE)
    for start in tqdm(starts, desc="words", unit="batch", disable=not state.is_local_main_process):
        part = share.select(range(start, min(start + _CLIPS_AT_ONCE, len(share))))
        found |= _aligned(aligner, part, store, text_column)
    everywhere = dict(gather_object(list(found.items())))
    _tell_of(sorted(name for name, words in everywhere.items() if not words), len(rows))
    return everywhere


def _facts(aligner: CTCAligner) -> Mapping[str, Any]:
    """Everything that decides when a word begins."""
    extractor = aligner.processor.feature_extractor.to_json_string()
    vocabulary = str(sorted(aligner.processor.tokenizer.get_vocab().items()))
    return {
        "kind": "times of words",
        "weights": fingerprint_tensors(aligner.model.state_dict()),
        "dtype": str(aligner.model.dtype),
        "preprocessing": hashlib.sha256((extractor + vocabulary).encode()).hexdigest(),
        "reach": aligner.reach,
        "frame_rate": aligner.frame_rate,
    }


def _aligned(aligner: CTCAligner, rows: Dataset, store: FeatureStore, text_column: str) -> dict[str, list[WordSpan]]:
    rate = aligner.processor.feature_extractor.sampling_rate
    texts = [text or "" for text in rows[text_column]]
    clips = [load_audio(audio, rate, name=name) for name, audio in zip(rows["id"], rows["audio"], strict=True)]
    keys = [_key(store.key(clip), text) for clip, text in zip(clips, texts, strict=True)]
    missing = [place for place, key in enumerate(keys) if key not in store]
    if missing:
        spans = aligner.align([clips[place] for place in missing], [texts[place] for place in missing], strict=False)
        store.write({keys[place]: [_times(words)] for place, words in zip(missing, spans, strict=True)})
    return {
        name: [WordSpan(word, *times) for word, times in zip(text.split(), store.read(key)[0].tolist(), strict=False)]
        for name, text, key in zip(rows["id"], texts, keys, strict=True)
    }


def _key(clip: str, text: str) -> str:
    return hashlib.sha256(f"{clip} {text}".encode()).hexdigest()


def _times(words: list[WordSpan]) -> np.ndarray:
    """[words, 2], start and end in seconds; no rows for a clip that cannot be aligned."""
    return np.array([(word.start, word.end) for word in words], dtype=np.float64).reshape(-1, 2)


def _tell_of(silent: list[str], clips: int) -> None:
    if silent:
        logger.warning(
            f"{len(silent)} of {clips} clips cannot be aligned with their texts, first '{silent[0]}': too short for "
            f"them, or without a letter that the aligner knows"
        )


__all__ = ["align_corpus"]
