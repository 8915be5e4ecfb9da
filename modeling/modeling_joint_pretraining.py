"""Pre-training of joint speech-text encoders: masked unit prediction in both encoders, swapping, letters by CTC.

Shapes: B rows, S samples, F frames, T units, L labels, C channels, D width, E `final_dim`, U units of the vocabulary,
N supervised positions.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_joint_encoders import JointEncoderConfig
from .modeling_joint_encoders import (
    CTCHead,
    JointEncoderModel,
    JointEncoderOutput,
    JointEncoderPreTrainedModel,
    ctc_sum,
    labeled_frames,
    other_heads,
    supervised_labels,
)
from .modeling_losses import IGNORED, logits_cross_entropy
from .modeling_span_masks import draw_spans


@dataclass
class JointPreTrainingOutput(ModelOutput):
    """The loss and its terms, each before its weight.

    Args:
        loss: the weighted sum; times `masked_frames` it is the loss of the original, which sums over frames.
        speech_unit_loss, unit_loss: per masked frame, of the speech encoder and of the unit encoder.
        heard_speech_unit_loss, heard_unit_loss: the same per frame that is not masked, swapped ones too, where
            `heard_weight` is above 0.
        feature_penalty: mean square of the convolutions' output.
        text_ctc_loss, decoder_loss: per letter, `</s>` included. masked_unit_loss: per masked unit.
        masked_frames, swapped_frames: frames that were masked, or swapped, and are no padding.
        last_hidden_state, text_hidden_state: of the unit encoder, for speech [B, F, D] and for text [B, T, D].
        speech_hidden_state: [B, F, D] of the speech encoder.
        frame_attention_mask: [B, F]. frame_labels: units [B, F], -100 on padding. mask_time_indices: [B, F].
        hidden_states, attentions: of speech, or where there is none of text.
    """

    loss: Tensor | None = None
    speech_unit_loss: Tensor | None = None
    unit_loss: Tensor | None = None
    heard_speech_unit_loss: Tensor | None = None
    heard_unit_loss: Tensor | None = None
    feature_penalty: Tensor | None = None
    text_ctc_loss: Tensor | None = None
    decoder_loss: Tensor | None = None
    masked_unit_loss: Tensor | None = None
    masked_frames: Tensor | None = None
    swapped_frames: Tensor | None = None
    last_hidden_state: Tensor | None = None
    speech_hidden_state: Tensor | None = None
    text_hidden_state: Tensor | None = None
    frame_attention_mask: Tensor | None = None
    frame_labels: Tensor | None = None
    mask_time_indices: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class UnitPredictor(nn.Module):
    """Logits over units for both encoders: cosines to label embeddings, divided by a temperature."""

    def __init__(self, config: JointEncoderConfig) -> None:
        super().__init__()
        self.temperature = config.logit_temperature
        self.speech_proj = nn.Linear(config.hidden_size, config.final_dim)
        self.speech_label_embeddings = nn.Parameter(torch.empty(config.unit_vocab_size, config.final_dim))
        self.add_unit_head(config)

    def add_unit_head(self, config: JointEncoderConfig) -> None:
        self.unit_proj = nn.Linear(config.hidden_size, config.final_dim)
        self.unit_label_embeddings = nn.Parameter(torch.empty(config.unit_vocab_size, config.final_dim))

    def speech_logits(self, hidden_states: Tensor) -> Tensor:
        """States of the speech encoder [..., D] -> [..., U], in float32."""
        return self._cosines(self.speech_proj(hidden_states), self.speech_label_embeddings)

    def unit_logits(self, hidden_states: Tensor) -> Tensor:
        """States of the unit encoder [..., D] -> [..., U], in float32."""
        return self._cosines(self.unit_proj(hidden_states), self.unit_label_embeddings)

    def _cosines(self, states: Tensor, embeddings: Tensor) -> Tensor:
        unit_length = nn.functional.normalize
        return unit_length(states.float(), dim=-1) @ unit_length(embeddings.float(), dim=-1).T / self.temperature


def labels_of_frames(labels: Tensor, frames: int, per_frame: float, offset: int = 0) -> Tensor:
    """Labels [B, L] at their own rate -> [B, F], one a frame; F is less than `frames` where labels are too few.

    Args:
        per_frame: labels of a frame.
        offset: which of them is taken, counted from 0.
    """
    frames = min(frames, int(labels.shape[1] / per_frame))
    positions = (torch.arange(frames, device=labels.device) * per_frame).long() + offset
    return labels[:, positions]


class JointEncoderForPreTraining(JointEncoderPreTrainedModel):
    """The encoders with all that pre-training needs; a batch holds speech, text, or both."""

    body_class: ClassVar[type[JointEncoderModel]]
    predictor_class: ClassVar[type[UnitPredictor]] = UnitPredictor
    # Its terms have counts of their own; the Trainer averages the losses of accumulated batches.
    accepts_loss_kwargs = False
    _keys_to_ignore_on_load_unexpected = other_heads("ctc_head", "unit_predictor")

    def __init__(self, config: JointEncoderConfig) -> None:
        super().__init__(config)
        self.add_module(self.base_model_prefix, self.body_class(config))
        self.unit_predictor = self.predictor_class(config)
        self.ctc_head = CTCHead(config) if config.text_ctc_weight > 0 else None
        self.add_text_heads(config)
        self.post_init()

    def add_text_heads(self, config: JointEncoderConfig) -> None:
        """For models that do more with text than CTC."""

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, UnitPredictor):
            for parameter in module.parameters(recurse=False):
                init.uniform_(parameter)

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        swap_indices: Tensor | None = None,
        label_offset: int | None = None,
        input_ids: Tensor | None = None,
        unit_attention_mask: Tensor | None = None,
        text_labels: Tensor | None = None,
        mask_unit_indices: Tensor | None = None,
        unit_text_ids: Tensor | None = None,
        unit_text_attention_mask: Tensor | None = None,
        mask_unit_text_indices: Tensor | None = None,
        **kwargs: Any,
    ) -> JointPreTrainingOutput:
        """The loss of what is given; draws of masks that are not given come from torch's CPU generator.

        Args:
            input_values, attention_mask: speech [B, S].
            labels: units [B, L] at `label_rate`, padded with `pad_token_id` or -100.
            mask_time_indices: booleans [B, F], frames that are masked and predicted.
            swap_indices: booleans [B, F], frames that become the embedding of their label where they are not masked.
            label_offset: which label of a frame is its target; in training it is drawn, otherwise it is the first.
            input_ids, unit_attention_mask: text as units [B, T]; the rows need not belong to those of speech.
            text_labels: letters [B, L] with `</s>`, padded with `pad_token_id` or -100.
            mask_unit_indices: booleans [B, T], units that are masked; drawn where `mask_text`.
            unit_text_ids, unit_text_attention_mask: text as units [B, T] whose masked units are predicted.
            mask_unit_text_indices: booleans [B, T], which they are.

        Without labels there are hidden states and no loss. Raises `ValueError` where there is no input.
        """
        fields: dict[str, Any] = {}
        if input_values is not None:
            draws = {"masked": mask_time_indices, "swapped": swap_indices, "offset": label_offset}
            fields |= self._speech_terms(input_values, attention_mask, labels, draws, kwargs)
        if input_ids is not None:
            text = self._text_terms(input_ids, unit_attention_mask, text_labels, mask_unit_indices, kwargs)
            fields = text | fields
        if unit_text_ids is not None:
            fields |= self._unit_text_terms(unit_text_ids, unit_text_attention_mask, mask_unit_text_indices)
        if not fields:
            raise ValueError("pass input_values (speech), input_ids (units of text), unit_text_ids, or several")
        return JointPreTrainingOutput(loss=self._weighted(fields), **fields)

    def term_weights(self) -> dict[str, float]:
        """The weight of each term of the loss."""
        config = self.config
        return {
            "speech_unit_loss": 1.0,
            "unit_loss": 1.0,
            "heard_speech_unit_loss": config.heard_weight,
            "heard_unit_loss": config.heard_weight,
            "feature_penalty": config.feature_penalty_weight,
            "text_ctc_loss": config.text_ctc_weight,
            "masked_unit_loss": config.masked_unit_weight,
        }

    def _weighted(self, fields: dict[str, Any]) -> Tensor | None:
        terms = [weight * fields[name] for name, weight in self.term_weights().items() if name in fields]
        return sum(terms[1:], start=terms[0]) if terms else None

    # ---- speech ----------------------------------------------------------------------------------------------------

    def _speech_terms(
        self,
        samples: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        draws: dict[str, Any],
        options: dict[str, Any],
    ) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_values": samples, "attention_mask": attention_mask, **options}
        if labels is None:
            return _states(self.base_model(mask_time_indices=draws["masked"], **inputs))
        frame_labels = self._frame_labels(labels, samples, draws["offset"])  # [B, F]
        masked, swapped = self._drawn(frame_labels, attention_mask, draws)
        swapped = swapped & ~masked
        output = self.base_model(mask_time_indices=masked, unit_labels=frame_labels, swap_indices=swapped, **inputs)
        valid = output.frame_attention_mask.bool() & (frame_labels != self.config.padding)
        targets = frame_labels.masked_fill(~valid, IGNORED)
        terms = self._prediction(output, targets, masked & valid)
        if self.config.heard_weight > 0:
            heard = self._prediction(output, targets, valid & ~masked)
            terms |= {f"heard_{name}": loss for name, loss in heard.items()}
        terms["feature_penalty"] = self._feature_penalty(output)
        terms |= {"masked_frames": (masked & valid).sum(), "swapped_frames": (swapped & valid).sum()}
        return terms | _states(output) | {"frame_labels": targets, "mask_time_indices": masked.long()}

    def _frame_labels(self, labels: Tensor, samples: Tensor, offset: int | None) -> Tensor:
        per_frame = self.config.label_rate / self.config.frame_rate
        if offset is None:
            offset = int(torch.randint(int(per_frame), ()).item()) if self.training else 0
        frames = int(self.base_model.frame_lengths(torch.tensor(samples.shape[1])))
        labels = labels.masked_fill(labels == IGNORED, self.config.padding)
        return labels_of_frames(labels, frames, per_frame, offset)

    def _drawn(
        self, frame_labels: Tensor, attention_mask: Tensor | None, draws: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """The masked and the swapped frames, as given or drawn: booleans [B, F] each."""
        config, (rows, frames) = self.config, frame_labels.shape
        lengths = [frames] * rows
        if attention_mask is not None:
            lengths = self.base_model.frame_lengths(attention_mask.sum(-1)).clamp(max=frames).tolist()
        if not config.original_padding:
            labeled = labeled_frames(frame_labels, config.padding).tolist()
            lengths = [min(pair) for pair in zip(lengths, labeled, strict=True)]
        drawn = [draws["masked"], draws["swapped"]]
        spans = [
            (config.pretraining_mask_prob, config.pretraining_mask_length, config.pretraining_mask_min),
            (config.swap_prob, config.swap_length, config.swap_min if config.swap_prob > 0 else 0),
        ]
        for number, span in enumerate(spans):
            if drawn[number] is None:
                drawn[number] = draw_spans(lengths, frames, *span)
        masked, swapped = (indices[:, :frames].to(frame_labels.device, torch.bool) for indices in drawn)
        return masked, swapped

    def _prediction(self, output: JointEncoderOutput, targets: Tensor, chosen: Tensor) -> dict[str, Any]:
        """The losses of both encoders on the frames `chosen` [B, F]; zero where there are none."""
        count = chosen.sum().clamp(min=1)
        speech = self.unit_predictor.speech_logits(output.speech_hidden_state[chosen])  # [N, U]
        units = self.unit_predictor.unit_logits(output.last_hidden_state[chosen])
        return {
            "speech_unit_loss": logits_cross_entropy(speech, targets[chosen]) / count,
            "unit_loss": logits_cross_entropy(units, targets[chosen]) / count,
        }

    def _feature_penalty(self, output: JointEncoderOutput) -> Tensor:
        """Mean square of the convolutions' output [B, C, F]; with `original_padding` padding counts."""
        squares = output.conv_features.float().square()
        if self.config.original_padding:
            return squares.mean()
        mask = output.frame_attention_mask[:, None]
        return (squares * mask).sum() / (mask.sum() * squares.shape[1])

    # ---- text ------------------------------------------------------------------------------------------------------

    def _text_terms(
        self,
        units: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        masked: Tensor | None,
        options: dict[str, Any],
    ) -> dict[str, Any]:
        if masked is None and self.config.mask_text and labels is not None:
            masked = self._masked_units(units, attention_mask)
        output = self.base_model(
            input_ids=units, unit_attention_mask=attention_mask, mask_time_indices=masked, **options
        )
        terms: dict[str, Any] = {"text_hidden_state": output.last_hidden_state}
        terms |= {name: output[name] for name in ("hidden_states", "attentions") if name in output}
        if labels is not None:
            terms |= self._letter_terms(output, supervised_labels(labels, self.config))
        return terms

    def _masked_units(self, units: Tensor, attention_mask: Tensor | None) -> Tensor:
        config = self.config
        mask = units != config.padding if attention_mask is None else attention_mask
        spans = (config.pretraining_mask_prob, config.pretraining_mask_length, config.pretraining_mask_min)
        return draw_spans(mask.sum(-1).tolist(), units.shape[1], *spans).to(units.device)

    def _letter_terms(self, output: JointEncoderOutput, labels: Tensor) -> dict[str, Any]:
        """`text_ctc_loss`, where there is a head for it."""
        if self.ctc_head is None:
            return {}
        mask, letters = output.frame_attention_mask, (labels != IGNORED).sum().clamp(min=1)
        logits = self.ctc_head(output.last_hidden_state, mask)
        return {"text_ctc_loss": ctc_sum(logits, mask.sum(-1), labels, self.config) / letters}

    def _unit_text_terms(self, units: Tensor, attention_mask: Tensor | None, masked: Tensor | None) -> dict[str, Any]:
        if masked is None:
            masked = self._masked_units(units, attention_mask)
        output = self.base_model(input_ids=units, unit_attention_mask=attention_mask, mask_time_indices=masked)
        chosen = masked & output.frame_attention_mask.bool()  # [B, T]
        logits = self.unit_predictor.unit_logits(output.last_hidden_state[chosen])
        return {"masked_unit_loss": logits_cross_entropy(logits, units[chosen]) / chosen.sum().clamp(min=1)}


def _states(output: JointEncoderOutput) -> dict[str, Any]:
    names = ("last_hidden_state", "speech_hidden_state", "frame_attention_mask", "hidden_states", "attentions")
    return {name: output[name] for name in names if name in output}


__all__ = ["JointEncoderForPreTraining", "JointPreTrainingOutput", "UnitPredictor"]
