"""Copies of clips that sound different each, for a frozen encoder that runs once per clip."""

import io
import zlib
from typing import Any

import numpy as np
import soundfile
from datasets import Dataset, Features, Value, concatenate_datasets

from ..processing.audio_loading import load_audio
from .augmentation import vary_speech


def varied_copies(examples: Dataset, sampling_rate: int, copies: int, seed: int = 0) -> Dataset:
    """`task_examples` as they are, followed by so many copies of them, each clip varied anew in each copy.

    What a copy sounds like is a function of (seed, copy, id of the clip), whatever the other clips are, so what an
    encoder says of it can be kept. A copy's id is that of its clip with `+` and its number.
    """
    return concatenate_datasets([examples, *(_copy(examples, sampling_rate, n + 1, seed) for n in range(copies))])


def _copy(examples: Dataset, sampling_rate: int, number: int, seed: int) -> Dataset:
    def vary(row: dict[str, Any]) -> dict[str, Any]:
        rng = np.random.default_rng([seed, number, zlib.crc32(row["id"].encode())])
        samples = vary_speech(load_audio(row["audio"], sampling_rate), rng, sampling_rate)
        return {"id": f"{row['id']}+{number}", "audio": {"bytes": _wav(samples, sampling_rate), "path": None}}

    # As a plain struct first: `datasets` would decode what it takes for audio.
    plain = Features({**examples.features, "audio": {"bytes": Value("binary"), "path": Value("string")}})
    copies = Dataset.from_list([{**row, **vary(row)} for row in examples], features=plain)
    return copies.cast_column("audio", examples.features["audio"])


def _wav(samples: np.ndarray, sampling_rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), sampling_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
