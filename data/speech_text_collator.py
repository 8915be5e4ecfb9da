"""Batches of examples for a model of speech and text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers.feature_extraction_utils import BatchFeature

from ..processing.processing_speech_text_adapter import SpeechTextAdapterProcessor


@dataclass(frozen=True)
class SpeechTextCollator:
    """Examples of `task_examples` -> model inputs, with labels unless `for_generation`.

    Prompts are padded on the right to learn and on the left to generate.
    """

    processor: SpeechTextAdapterProcessor
    for_generation: bool = False

    def __call__(self, examples: Sequence[dict[str, Any]]) -> BatchFeature:
        prompts = [self.processor.prompt(example["task"]) for example in examples]
        clips = [example["audio"] for example in examples]
        if self.for_generation:
            return self.processor(prompts, clips, padding_side="left", return_tensors="pt")
        targets = [example["target"] for example in examples]
        return self.processor(prompts, clips, targets=targets, return_tensors="pt")
