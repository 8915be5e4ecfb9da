"""What tests of the speech-text adapter share: tiny backbones made once, models of them, clips, batches."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
import torch
from torch import Tensor

from speechzoo import (
    SpeechTextAdapterForConditionalGeneration,
    SpeechTextAdapterProcessor,
)
from speechzoo.processing.audio_loading import save_audio

# An encoder of the tests and how it is run.
ENCODINGS = [
    ("whisper", "clip"),
    ("whisper", "window"),
    *((family, "clip") for family in tiny_models.ENCODERS if family != "whisper"),
]
ANSWERS = ["turn on the lights", "heat up", "bring me my shoes please", "lights off"]


def clip(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that grows louder, so that its halves differ."""
    noise = np.random.default_rng(seed).standard_normal(samples)
    return (noise * np.linspace(0.05, 0.3, samples)).astype(np.float32)


CLIPS = [clip(samples, seed) for seed, samples in enumerate((16000, 9000, 5123, 28123))]


def write_corpus(folder: Path) -> Path:
    """Eight sines in `folder`, six to train on and two to test, five of them with an intent."""
    texts = [*ANSWERS, *ANSWERS]
    lines = []
    for index, text in enumerate(texts):
        samples = 4000 + 1111 * index
        tone = 0.3 * np.sin(2 * np.pi * (200 + 100 * index) * np.arange(samples) / 16000)
        save_audio(folder / "audio" / f"{index}.flac", tone.astype(np.float32))
        record = {"id": f"c{index}", "audio": f"audio/{index}.flac", "transcript": text, "duration": samples / 16000}
        record |= {"speaker": f"s{index % 2}", "split": "train" if index < 6 else "test"}
        lines.append(json.dumps(record | ({"intent": text.split()[0]} if index < 5 else {})))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


class Backbones:
    """Tiny backbones below a folder, each made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.encoder = cache(lambda family: tiny_models.save_encoder(family, folder / family))
        self.language_model = cache(lambda family: tiny_models.save_language_model(family, folder / family))
        self._kept: dict[tuple, tuple[Any, Any]] = {}
        self._loaded: dict[str, tuple[Any, Any, Tensor]] = {}

    def build(
        self,
        encoder: str = "wav2vec2",
        language_model: str = "llama",
        prompts: Any = None,
        system: Any = SpeechTextAdapterForConditionalGeneration,
        **fields: Any,
    ) -> tuple[SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterProcessor]:
        """A fresh model in evaluation mode, always with the same weights, and its processor.

        It is loaded once and copied from then on, which is ten times as fast; PyTorch's generator is as loading left
        it. A quantized model is loaded each time.
        """
        key = repr((system, encoder, language_model, prompts, sorted(fields.items())))
        if key not in self._loaded or "quantization" in fields:
            self._loaded[key] = (*self._load(system, encoder, language_model, prompts, fields), torch.get_rng_state())
        model, processor, generator_state = self._loaded[key]
        torch.set_rng_state(generator_state)
        return copy.deepcopy((model, processor))

    def _load(
        self, system: Any, encoder: str, language_model: str, prompts: Any, fields: dict[str, Any]
    ) -> tuple[SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterProcessor]:
        """The adapter's first weights are so small that nothing attends to anything, and its biases are zero; here
        they are not.
        """
        folders = str(self.encoder(encoder)), str(self.language_model(language_model))
        torch.manual_seed(2)
        model = system.from_backbones(*folders, **fields)
        with torch.no_grad():
            for name, parameter in model.model.bridge.named_parameters():
                parameter.mul_(6 if parameter.ndim > 1 else 1)
                if name.endswith("bias"):
                    parameter.uniform_(-0.2, 0.2)
        return model.eval(), SpeechTextAdapterProcessor.from_model_config(model.config, prompts=prompts)

    def shared(
        self, encoder: str = "wav2vec2", language_model: str = "llama", **fields: Any
    ) -> tuple[SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterProcessor]:
        """The same for tests that only look at it."""
        key = (encoder, language_model, *sorted(fields.items()))
        if key not in self._kept:
            self._kept[key] = self.build(encoder, language_model, **fields)
        return self._kept[key]


def features(processor: SpeechTextAdapterProcessor, clips: list[np.ndarray]) -> dict[str, Tensor]:
    """`input_features` and `input_features_mask` of clips that need no chunks."""
    padded = processor.pad([processor.extract(clip) for clip in clips])
    return {name: torch.from_numpy(array) for name, array in padded.items()}


def pad_further(
    batch: dict[str, Tensor], processor: SpeechTextAdapterProcessor, more: int, garbage: float = 0.0
) -> dict[str, Tensor]:
    """Features with `more` time, and noise instead of zeros wherever the mask is zero."""
    values, mask = batch["input_features"], batch["input_features_mask"]
    axis = 1 + processor.time_axis
    shape = [*values.shape]
    shape[axis] = more
    values = torch.cat([values, values.new_zeros(shape)], dim=axis)
    mask = torch.nn.functional.pad(mask, (0, more))
    padding = (mask == 0).reshape([len(mask), *(mask.shape[1] if i == axis else 1 for i in range(1, values.ndim))])
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(0)) * garbage
    return {"input_features": torch.where(padding, noise, values), "input_features_mask": mask}


def labeled(processor: SpeechTextAdapterProcessor, side: str = "right", count: int = 4) -> dict[str, Tensor]:
    """A batch to learn from."""
    prompts = [processor.prompt("asr")] * count
    return processor(prompts, CLIPS[:count], targets=ANSWERS[:count], padding_side=side, return_tensors="pt")
