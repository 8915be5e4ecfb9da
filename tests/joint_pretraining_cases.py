"""A corpus of letters as tones with the times of words and phones, and the smallest joint encoder that hears it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from speechzoo.processing.audio_loading import save_audio
from speechzoo.training.joint_pretraining import JointCorpora, assemble_joint_encoder, joint_config, read_joint_corpora
from speechzoo.training.joint_pretraining_arguments import (
    FrameLabelArguments,
    JointDataArguments,
    JointEncoderArguments,
)
from speechzoo.training.joint_pretraining_labels import LABELINGS, FrameLabels
from speechzoo.training.text_to_unit_arguments import SpeechUnitArguments

TEXTS = ("bad cab", "add a bee", "fed a cab", "dead bed", "a bee fed", "cab add bad", "face", "bead a fad")
SECONDS = 0.08  # of a letter
SHAPE: dict[str, Any] = {
    "conv_dim": [16] * 3,
    "conv_kernel": [10, 3, 3],
    "conv_stride": [5, 8, 8],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "intermediate_size": 48,
    "unit_encoder_layers": 1,
    "unit_intermediate_size": 48,
    "max_unit_positions": 200,
    "relative_position_distance": 20,
    "layerdrop": 0.0,
}


def write_spoken_corpus(folder: Path, texts: tuple[str, ...] = TEXTS, voice: str = "low", pitch: float = 1.0) -> Path:
    """A clip for each text: 50 ms of silence, then a tone for each letter, with a silence of 40 ms between words."""
    (folder / "audio").mkdir(parents=True)
    lines = []
    for place, text in enumerate(texts):
        parts, words, phones, now = [np.zeros(800)], [], [], 0.05
        for number, word in enumerate(text.split()):
            if number:
                parts, now = [*parts, np.zeros(640)], now + 0.04
            begun = now
            for letter in word:
                tone = 300.0 * pitch * (1 + "abcdef".index(letter))
                parts.append(0.3 * np.sin(2 * np.pi * tone * np.arange(int(16000 * SECONDS)) / 16000))
                phones.append([letter.upper(), round(now, 3), round(now + SECONDS, 3)])
                now += SECONDS
            words.append([word, round(begun, 3), round(now, 3)])
        samples, name = np.concatenate(parts).astype(np.float32), f"{folder.name}-{place}"
        save_audio(folder / "audio" / f"{name}.wav", samples)
        line = {"id": name, "audio": f"audio/{name}.wav", "transcript": text, "duration": len(samples) / 16000}
        lines.append({**line, "speaker": f"{voice}-{place % 2}", "words": words, "phones": phones})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def spoken_data(folder: Path, **fields: Any) -> JointDataArguments:
    """Two corpora below `folder`, one to train on and one of other voices to test, and all texts read."""
    train, test = str(folder / "train"), str(folder / "test")
    return JointDataArguments(
        **{"speech_data": [train], "text_data": [train], "text_share": 0.0, "test_data": {"tones": test}, **fields}
    )


def by_timings(encoder: JointEncoderArguments, data: JointDataArguments) -> tuple[FrameLabels, JointCorpora]:
    labels = LABELINGS["timings"](FrameLabelArguments(), SpeechUnitArguments(), data, joint_config(encoder))
    return labels, read_joint_corpora(data, labels)


def tiny_encoder(**fields: Any) -> JointEncoderArguments:
    shape = {**SHAPE, **fields.pop("shape", {})}
    return JointEncoderArguments(**{"shape": shape, **fields})


__all__ = [
    "SHAPE",
    "TEXTS",
    "assemble_joint_encoder",
    "by_timings",
    "spoken_data",
    "tiny_encoder",
    "write_spoken_corpus",
]
