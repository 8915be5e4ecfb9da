"""Batches for a projector that is trained so that an LLM says of speech what it says of the transcript."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.feature_extraction_utils import BatchFeature

from ..modeling.modeling_divergences import TopDistribution
from ..processing.processing_speech_text_adapter import IGNORED, SpeechTextAdapterProcessor
from .feature_store import FeatureStore
from .speech_text_collator import SpeechTextCollator
from .teacher_distributions import TeacherReading, TeacherStore


@dataclass(frozen=True)
class SealCollator:
    """Examples of `task_examples` -> model inputs of a student, who hears, and of a teacher, who reads.

    Both get the same prompt and target; where speech goes the teacher reads the transcript.

    Args:
        processor: of the model.
        weights: name of a prompt -> weight of its loss; 1 where not given.
        first_token: compare the distribution of the first token of each target alone (reading C), not of all.
        store: of encoder frames, as in `SpeechTextCollator`.
        teachers: distributions that were kept of all `reading`s, in place of the teacher's inputs.
        with_teacher: without one the batch is for cross-entropy on the target (PSRT).

    Raises `ValueError` for weights of prompts that the processor does not have, and for those below 0.
    """

    processor: SpeechTextAdapterProcessor
    weights: Mapping[str, float] = field(default_factory=dict)
    first_token: bool = False
    store: FeatureStore | None = None
    teachers: TeacherStore | None = None
    with_teacher: bool = True

    def __post_init__(self) -> None:
        prompts = self.processor.prompts
        if unknown := sorted(self.weights.keys() - prompts.keys()):
            raise ValueError(f"weights name the prompt '{unknown[0]}'; this processor has {', '.join(prompts)}")
        if wrong := [name for name, weight in self.weights.items() if not 0 <= weight < math.inf]:
            raise ValueError(f"the weight of '{wrong[0]}' is {self.weights[wrong[0]]}; give 0 or more")

    def __call__(self, examples: Sequence[dict[str, Any]]) -> BatchFeature:
        batch = SpeechTextCollator(self.processor, store=self.store)(examples)
        batch["labels"] = self._compared(batch["labels"])
        weights = [float(self.weights.get(example["task"], 1.0)) for example in examples]
        batch["loss_weights"] = torch.tensor(weights)
        if not self.with_teacher:
            return batch
        taught = self.teacher_inputs(examples) if self.teachers is None else self._kept(examples, self.teachers)
        return BatchFeature({**batch, **{f"teacher_{name}": tensor for name, tensor in taught.items()}})

    def teacher_inputs(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels` of the teacher, [B, T]."""
        prompts = [self.teacher_prompt(example) for example in examples]
        targets = [example["target"] for example in examples]
        read = self.processor(prompts, targets=targets, return_tensors="pt")
        read["labels"] = self._compared(read["labels"])
        return {name: read[name] for name in ("input_ids", "attention_mask", "labels")}

    def teacher_prompt(self, example: Mapping[str, Any]) -> str:
        """What the teacher reads. Raises `ValueError` for a clip without a transcript."""
        check_transcripts([example["id"]], [example["transcript"]])
        prompt = self.processor.prompt(example["task"], example.get("context", ""))
        return prompt.replace(self.processor.audio_token, example["transcript"])

    def reading(self, example: dict[str, Any]) -> TeacherReading:
        """What the teacher is asked about an example, for `keep_distributions`."""
        inputs = {name: tensor[0].tolist() for name, tensor in self.teacher_inputs([example]).items()}
        labeled = [place for place, label in enumerate(inputs["labels"]) if label != IGNORED]
        if not self.processor.is_encoder_decoder:
            return TeacherReading(inputs["input_ids"], [place - 1 for place in labeled])
        # A decoder reads a start token, the same for all, and the labels before.
        return TeacherReading(inputs["input_ids"], labeled, [0, *inputs["labels"][: labeled[-1]]])

    def _kept(self, examples: Sequence[dict[str, Any]], teachers: TeacherStore) -> dict[str, Tensor]:
        kept = TopDistribution.joined([teachers.read(self.reading(example).key) for example in examples])
        return {"token_ids": kept.token_ids, "log_probabilities": kept.log_probabilities, "tail": kept.tail}

    def _compared(self, labels: Tensor) -> Tensor:
        """The labels whose distributions are compared."""
        if not self.first_token:
            return labels
        first = (labels != IGNORED).cumsum(-1) == 1
        return labels.masked_fill(~first, IGNORED)


def check_transcripts(clips: Sequence[str], transcripts: Sequence[str]) -> None:
    """Raises `ValueError` for a clip without a transcript, by its id."""
    for clip, transcript in zip(clips, transcripts, strict=True):
        if not transcript:
            raise ValueError(f"clip '{clip}' has no transcript for the teacher to read; leave it out")
