"""A unit model on a tiny encoder, and a corpus of clips with the times of their words."""

import json
from pathlib import Path
from typing import Any

import torch
from speech_text_cases import clip

from speechzoo import SpeechUnitModel, SpeechUnitProcessor
from speechzoo.data.extracted_units import encode_clips
from speechzoo.processing.audio_loading import save_audio

TEXTS = ("turn on the lamp", "play some jazz now", "the lamp in the hall", "jazz in the park", "open the red door")


def unit_model(backbones: Any, clusters: int = 12, **fields: Any) -> tuple[SpeechUnitModel, SpeechUnitProcessor]:
    """A unit model whose centroids are frames of a clip."""
    model = SpeechUnitModel.from_encoder(str(backbones.encoder("hubert")), 1, clusters, **fields)
    processor = SpeechUnitProcessor.from_model_config(model.config)
    [frames] = encode_clips(model, processor, [clip(20000, seed=7)])
    model.set_codebook(torch.from_numpy(frames[:clusters]))
    return model, processor


def write_timed_corpus(folder: Path, texts: tuple[str, ...] = TEXTS, first_seed: int = 20) -> Path:
    """A clip of a second for each text, its words evenly spread."""
    (folder / "audio").mkdir(parents=True)
    lines = []
    for place, text in enumerate(texts):
        name = f"{folder.name}-{place}"
        save_audio(folder / "audio" / f"{name}.wav", 0.5 * clip(16000, seed=first_seed + place))
        words = text.split()
        step = 1 / len(words)
        timed = [[word, round(i * step, 3), round((i + 1) * step, 3)] for i, word in enumerate(words)]
        lines.append({"id": name, "audio": f"audio/{name}.wav", "transcript": text, "words": timed})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
