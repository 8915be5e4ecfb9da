"""Seal (arXiv 2407.14875): speech encoder, projector and LLM, which shall say of speech what it says of text.

The LLM reads a transcript (teacher) and projected speech (student) in the same prompt, and its distributions are
compared where both go on with the same tokens. Shapes: B prompts, C clips, F encoder frames, A speech embeddings,
T tokens, N supervised positions, D width, V vocabulary, k tokens kept of a teacher.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_seal_projector import SealProjectorConfig
from .modeling_divergences import (
    Divergence,
    TopDistribution,
    linear_divergences,
    linear_divergences_to_top,
    logits_divergences,
    logits_divergences_to_top,
    logits_top_distribution,
    top_distribution,
)
from .modeling_losses import IGNORED, mean_over_items
from .modeling_padding_safe_encoders import frame_mask
from .modeling_speech_bridge import SpeechBridge
from .modeling_speech_text_composite import SpeechTextModel, SpeechTextPreTrainedModel, speech_inputs
from .modeling_speech_text_generation import SpeechTextForConditionalGeneration, SupervisedPositions


class StridedConvolutions(nn.Module):
    """Halves the frame rate by a convolution of kernel 3 as often as the ratio says; for 1, one of stride 1."""

    def __init__(self, config: SealProjectorConfig, width: int) -> None:
        super().__init__()
        strides = [2] * (config.reduction_ratio.bit_length() - 1) or [1]
        widths = [config.audio_config.hidden_size, *[width] * len(strides)]
        self.strides = strides
        self.layers = nn.ModuleList(
            nn.Conv1d(narrow, wide, 3, stride=stride, padding=1)
            for narrow, wide, stride in zip(widths, widths[1:], strides, strict=False)
        )

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:  # [C, F, D] zero beyond `lengths` -> [C, A, D]
        for layer, stride in zip(self.layers, self.strides, strict=True):
            frames = nn.functional.gelu(layer(frames.transpose(1, 2)).transpose(1, 2))
            lengths = (lengths - 1) // stride + 1
            frames = frames * frame_mask(lengths, frames.shape[1])[..., None]
        return frames


class StackedFrames(nn.Module):
    """Lays as many frames in a row as become one embedding: a norm and a gated feed-forward network of each row."""

    def __init__(self, config: SealProjectorConfig, width: int) -> None:
        super().__init__()
        self.ratio = config.reduction_ratio
        stacked = self.ratio * config.audio_config.hidden_size
        self.norm = nn.RMSNorm(stacked, eps=1e-6)
        self.gate_and_up = nn.Linear(stacked, 2 * width)
        self.down = nn.Linear(width, width)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:  # [C, F, D] -> [C, A, D]
        padded = nn.functional.pad(frames, (0, 0, 0, -frames.shape[1] % self.ratio))
        gate, up = self.gate_and_up(self.norm(padded.unflatten(1, (-1, self.ratio)).flatten(2))).chunk(2, -1)
        return self.down(nn.functional.silu(gate) * up)


_PROJECTORS = {"convolution": StridedConvolutions, "stack": StackedFrames}


class SealProjector(SpeechBridge):
    """Encoder frames [C, F, D] -> embeddings of the LLM [C, A, D], A = F / `reduction_ratio` rounded up."""

    def __init__(self, config: SealProjectorConfig, embedding_width: int) -> None:
        super().__init__()
        width = config.projector_width or config.audio_config.hidden_size
        self.ratio = config.reduction_ratio
        self.input_norm = nn.LayerNorm(config.audio_config.hidden_size)
        self.reduction = _PROJECTORS[config.projector](config, width)
        self.output_projection = nn.Linear(width, embedding_width)
        self.add_scale(embedding_width)

    def reduced_lengths(self, frames: Tensor) -> Tensor:
        return (frames + self.ratio - 1) // self.ratio

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        normalized = self.input_norm(frames.to(self.input_norm.weight.dtype))
        normalized = normalized * frame_mask(lengths, frames.shape[1])[..., None]
        reduced = self.reduction(normalized, lengths)
        return self.scaled(self.output_projection(reduced)), self.reduced_lengths(lengths)


class SealProjectorPreTrainedModel(SpeechTextPreTrainedModel):
    config: SealProjectorConfig
    _no_split_modules = ["SealProjector"]
    _keep_in_fp32_modules_strict = ["projector"]  # it is trained, also beside half-precision backbones
    _bridge_name = "projector"


class SealProjectorModel(SealProjectorPreTrainedModel, SpeechTextModel):
    """The speech encoder, the projector and the LLM, without a loss."""

    _bridge_class = SealProjector


class SealProjectorForConditionalGeneration(SealProjectorPreTrainedModel, SpeechTextForConditionalGeneration):
    """The model with the LLM's own head, both losses and `generate`."""

    _model_class = SealProjectorModel

    @can_return_tuple
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        return_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        logits_to_keep: int | Tensor = 0,
        loss_weights: Tensor | None = None,
        teacher_input_ids: Tensor | None = None,
        teacher_attention_mask: Tensor | None = None,
        teacher_labels: Tensor | None = None,
        teacher_token_ids: Tensor | None = None,
        teacher_log_probabilities: Tensor | None = None,
        teacher_tail: Tensor | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """With labels and a teacher the divergence between the two, without a teacher cross-entropy (PSRT).

        Args:
            labels: [B, T], the tokens whose distributions are compared; -100 elsewhere. Their identity decides
                positions alone.
            loss_weights: [B] of the rows' losses; 1 for all where not given.
            teacher_input_ids, teacher_attention_mask, teacher_labels: [B, T] the same prompts with transcripts where
                speech goes, the same tokens labeled.
            teacher_token_ids, teacher_log_probabilities, teacher_tail: [N, k], [N, k] and [N] of a teacher that was
                kept at the configuration's temperature, for all rows in a line, in place of the three above.

        Everything else is as in `SpeechTextAdapterForConditionalGeneration`. Raises `ValueError` when teacher and
        student supervise different tokens, and for a teacher that is not whole.
        """
        speech = speech_inputs(input_features, input_features_mask, kwargs)
        embeddings = self.model.merge(input_ids, inputs_embeds, **speech)
        given = self._given(embeddings, attention_mask, position_ids, labels, kwargs)
        if labels is None:
            return self._logits(given, logits_to_keep)
        student = self._supervised(given, labels, bool(return_logits))
        live = (teacher_input_ids, teacher_attention_mask, teacher_labels)
        if teacher_input_ids is not None and teacher_labels is not None:
            teacher = self._taught(teacher_input_ids, teacher_attention_mask, teacher_labels, student)
            losses = self._divergences(student, teacher)
        elif teacher_token_ids is not None and teacher_log_probabilities is not None and teacher_tail is not None:
            kept = (teacher_token_ids, teacher_log_probabilities, teacher_tail, self.config.temperature)
            losses = self._divergences_to(student, TopDistribution(*kept))
        elif any(part is not None for part in (*live, teacher_token_ids, teacher_log_probabilities, teacher_tail)):
            raise ValueError("the teacher is not whole; pass all three of its inputs, or all three of what was kept")
        else:
            losses = self._cross_entropy(student, "none")
        if loss_weights is not None:
            losses = losses * loss_weights.repeat_interleave(self.supervised_counts(labels))
        return student.with_loss(mean_over_items(losses.sum(), student.targets, num_items_in_batch))

    @torch.no_grad()
    def row_divergences(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """[B] summed over each row's supervised positions, in nats and so without the loss's temperature squared.

        `inputs` are those of `forward`, with a live teacher's.
        """
        labels = inputs["labels"]
        speech = speech_inputs(inputs["input_features"], inputs.get("input_features_mask"), {})
        embeddings = self.model.merge(inputs["input_ids"], None, **speech)
        given = self._given(embeddings, inputs["attention_mask"], None, labels, {})
        student = self._supervised(given, labels, return_logits=False)
        read = [inputs[f"teacher_{name}"] for name in ("input_ids", "attention_mask", "labels")]
        teacher = self._taught(read[0], read[1], read[2], student)
        losses = self._divergences(student, teacher) / self.config.temperature**2
        rows = losses.split(self.supervised_counts(labels).tolist())
        return torch.stack([row.sum() for row in rows])

    def supervised_counts(self, labels: Tensor) -> Tensor:
        """[B], how many positions of each row are supervised."""
        return (self._aligned(labels) != IGNORED).sum(-1)

    @torch.no_grad()
    def _taught(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        labels: Tensor,
        student: SupervisedPositions,
    ) -> SupervisedPositions:
        """What the LLM says of the transcripts, at the positions of the student."""
        embeddings = self.model.merge(input_ids, None)
        given = self._given(embeddings, attention_mask, None, labels, {})
        teacher = self._supervised(given, labels, return_logits=student.output is not None)
        if not torch.equal(teacher.targets, student.targets):
            raise ValueError(
                "teacher and student do not supervise the same tokens; make both prompts by one processor, from the "
                "same rows and targets"
            )
        return teacher

    @torch.no_grad()
    def teacher_distributions(
        self, teacher_input_ids: Tensor, teacher_attention_mask: Tensor, teacher_labels: Tensor, k: int
    ) -> list[TopDistribution]:
        """For each row what the LLM says of the transcript at labeled positions: its k likeliest tokens."""
        embeddings = self.model.merge(teacher_input_ids, None)
        given = self._given(embeddings, teacher_attention_mask, None, teacher_labels, {})
        found = self._supervised(given, teacher_labels, return_logits=False)
        temperature = self.config.temperature
        if found.states is None:
            top = logits_top_distribution(found.known_logits, k, temperature)
        else:
            weight, bias = self._head()
            top = top_distribution(found.states, weight, k, temperature, bias)
        ends = self.supervised_counts(teacher_labels).cumsum(0).tolist()
        return [top[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    @property
    def _divergence(self) -> Divergence:
        return Divergence(self.config.divergence, self.config.temperature)

    def _divergences(self, student: SupervisedPositions, teacher: SupervisedPositions) -> Tensor:
        """[N]"""
        if student.states is None or teacher.states is None:
            return logits_divergences(student.known_logits, teacher.known_logits, self._divergence)
        weight, bias = self._head()
        return linear_divergences(student.states, teacher.states, weight, self._divergence, bias)

    def _divergences_to(self, student: SupervisedPositions, teacher: TopDistribution) -> Tensor:
        """[N]"""
        if student.states is None:
            return logits_divergences_to_top(student.known_logits, teacher, self._divergence)
        weight, bias = self._head()
        return linear_divergences_to_top(student.states, teacher, weight, self._divergence, bias)


__all__ = ["SealProjectorForConditionalGeneration", "SealProjectorModel", "SealProjectorPreTrainedModel"]
