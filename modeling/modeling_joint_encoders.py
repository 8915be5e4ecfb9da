"""Joint speech-text encoders: what SpeechLM and SpeechUT share, from the waveform or units to states, and two heads.

Shapes: B rows, S samples, F frames, T units or frames, L labels, C channels, D width, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, SequenceClassifierOutput
from transformers.models.hubert.modeling_hubert import HubertFeatureProjection
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..configuration.configuration_joint_encoders import JointEncoderConfig
from ..configuration.hub_pushing import PushedWithCode
from .modeling_attention_pooling import attention_pooled, two_layer_classifier
from .modeling_joint_layers import (
    JointAttention,
    JointEncoderLayer,
    SpeechEncoder,
    UnitEncoder,
    WaveformFeatures,
    recorded_states,
    without_padding,
)
from .modeling_losses import IGNORED, logits_cross_entropy, mean_over_items
from .modeling_padding_safe_encoders import frame_mask
from .modeling_span_masks import draw_spans

HEADS = ("ctc_head", "unit_predictor", "decoder", "lm_head", "pooling", "classifier")


def other_heads(*own: str) -> list[str]:
    """Patterns of the tensors that a checkpoint may hold for other classes, which therefore load without a word."""
    return [rf"^{name}\." for name in HEADS if name not in own]


@dataclass
class JointEncoderOutput(BaseModelOutput):
    """States of one modality.

    Args:
        last_hidden_state: [B, T, D] of the unit encoder.
        frame_attention_mask: [B, T], zero on padding.
        speech_hidden_state: [B, F, D] of the speech encoder, for speech.
        conv_features: [B, C, F] of the convolutions, for speech.
        hidden_states: for speech the input of the speech encoder's first layer, what each of its layers makes, and
            what each layer of the unit encoder makes; for units the same without the speech encoder. Layers, not
            norms: in pre-norm models the last one is not yet `last_hidden_state`.
    """

    frame_attention_mask: Tensor = None  # type: ignore[assignment]  # ModelOutput wants defaults
    speech_hidden_state: Tensor = None  # type: ignore[assignment]
    conv_features: Tensor = None  # type: ignore[assignment]


class JointEncoderPreTrainedModel(PushedWithCode, PreTrainedModel):
    config: JointEncoderConfig
    main_input_name = "input_values"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["JointEncoderLayer", "ParametrizedConv1d"]
    # There is no such field: the number depends on the modality, so that transformers refuses negative indices.
    _can_record_outputs = {
        "hidden_states": recorded_states(JointEncoderLayer, "layers_of_either_modality"),
        "attentions": OutputRecorder(JointAttention, index=1, layer_name="attention"),
    }
    # Whether `config.freeze_layers` holds for this class.
    is_fine_tuned: ClassVar[bool] = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d):
            init.kaiming_normal_(module.weight)
        elif isinstance(module, JointEncoderModel):
            init.uniform_(module.masked_spec_embed)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in transformers; what the configuration freezes is frozen anew, which loading forgets."""
        model, report = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if cls.is_fine_tuned:
            model.freeze_bottom(model.config.freeze_layers)
        return (model, report) if output_loading_info else model

    def freeze_bottom(self, layers: int) -> None:
        """Trains everything but the convolutions and what `config.freeze_layers = layers` freezes."""
        for parameter in self.parameters():  # quantized weights are integers, which have no gradient
            parameter.requires_grad_(parameter.is_floating_point())
        for part in self.base_model.bottom(layers):
            part.requires_grad_(False)
        self.config.freeze_layers = layers

    def freeze_encoder(self) -> None:
        """Trains the head alone, until `freeze_bottom` is called."""
        self.base_model.requires_grad_(False)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Units and letters are two vocabularies; each has its size in the configuration."""
        raise NotImplementedError(
            "set unit_vocab_size or text_vocab_size, and load with ignore_mismatched_sizes=True to begin a table anew"
        )


class JointEncoderModel(JointEncoderPreTrainedModel):
    """Speech encoder and unit encoder: states of speech from the waveform, of text from units."""

    _keys_to_ignore_on_load_unexpected = other_heads()

    def __init__(self, config: JointEncoderConfig) -> None:
        super().__init__(config)
        self.feature_extractor = WaveformFeatures(config)
        self.feature_projection = HubertFeatureProjection(config)
        self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())
        self.encoder = SpeechEncoder(config)
        self.unit_encoder = UnitEncoder(config)
        self.post_init()

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return self

    def get_input_embeddings(self) -> nn.Module | None:
        return self.unit_encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.unit_encoder.embed_tokens = value

    def bottom(self, layers: int) -> Iterator[Any]:
        """What `freeze_layers = layers` freezes: modules, and a parameter."""
        yield self.feature_extractor
        if layers < 0:
            return
        yield from (self.feature_projection, self.masked_spec_embed, self.encoder)
        units = self.unit_encoder
        yield from (part for part in (units.embed_tokens, units.embed_positions) if part is not None)
        yield units.layernorm_embedding
        yield from units.layers[:layers]
        if layers > 0:
            yield units.relative_positions

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        unit_attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        unit_labels: Tensor | None = None,
        swap_indices: Tensor | None = None,
        **kwargs: Any,
    ) -> JointEncoderOutput:
        """States of a batch of speech, or of text.

        Args:
            input_values: samples [B, S], padded on either side, as `attention_mask` tells; the frames of a clip come
                first in its row all the same. Or `input_ids`, units [B, T], padded on the right.
            attention_mask: [B, S] of the samples, one on what belongs to the clip. `unit_attention_mask` [B, T] is
                that of the units; without it, `attention_mask` is, and without both all but `pad_token_id` counts.
            mask_time_indices: booleans [B, T], frames or units that are replaced by the mask vector.
            unit_labels: units [B, F] of the frames, for pre-training; fewer than there are frames cut them off.
            swap_indices: booleans [B, F], frames that enter the unit encoder as the embedding of their label. The
                labels then say, by `pad_token_id`, what is padding to the unit encoder; with `original_padding` they
                alone do.

        Raises `ValueError` for neither or both inputs, swaps without labels, a clip of less than one frame, padding
        inside of a clip or in front of units, and units where the checkpoint has no table of them.
        """
        if swap_indices is not None and (unit_labels is None or input_values is None):
            raise ValueError("swap_indices put labels in the place of speech; pass input_values and unit_labels too")
        if input_values is not None and input_ids is None:
            return self._hear(input_values, attention_mask, mask_time_indices, unit_labels, swap_indices)
        if input_ids is not None and input_values is None:
            mask = attention_mask if unit_attention_mask is None else unit_attention_mask
            return self._read_units(input_ids, mask, mask_time_indices)
        raise ValueError("pass either input_values (speech) or input_ids (units of text)")

    def embed_units(self, units: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]."""
        if self.unit_encoder.embed_tokens is None:
            raise ValueError(
                "this checkpoint has no table of units and takes speech alone; convert an original training "
                "checkpoint, not a cleaned one, to have it read text"
            )
        return self.unit_encoder.embed_tokens(units)

    def _read_units(self, units: Tensor, mask: Tensor | None, masked: Tensor | None) -> JointEncoderOutput:
        mask = units != self.config.padding if mask is None else mask.bool()  # [B, T]
        _refuse_padding_before(mask)
        embeddings = self._with_mask_vector(self.embed_units(units), masked)
        return JointEncoderOutput(self.unit_encoder(embeddings, mask), frame_attention_mask=mask.long())

    def _hear(
        self,
        samples: Tensor,
        attention_mask: Tensor | None,
        masked: Tensor | None,
        labels: Tensor | None,
        swapped: Tensor | None,
    ) -> JointEncoderOutput:
        if attention_mask is not None and not self.config.original_padding:
            samples, attention_mask = _padded_behind(samples, attention_mask)
        features = self._features(samples, attention_mask)  # [B, C, F]
        if labels is not None:
            features = features[..., : labels.shape[1]]
        mask = self._frame_mask(attention_mask, features.shape[-1])
        if labels is not None and not self.config.original_padding:
            labeled = frame_mask(labeled_frames(labels, self.config.padding), features.shape[-1])
            mask = labeled if mask is None else mask & labeled
        hidden_states = self.feature_projection(features.transpose(1, 2))  # [B, F, D]
        speech = self.encoder(self._augmented(hidden_states, mask, masked), mask)
        states, unit_mask = speech, mask
        if swapped is not None and labels is not None:
            states = torch.where(swapped.bool()[..., None], self.embed_units(labels).to(speech.dtype), speech)
            unit_mask = labels != self.config.padding
            if mask is not None and not self.config.original_padding:
                unit_mask = unit_mask & mask
        hidden_states = self.unit_encoder(without_padding(states, mask), unit_mask)
        if mask is None:
            mask = features.new_ones(features.shape[0], features.shape[-1])
        return JointEncoderOutput(
            hidden_states, frame_attention_mask=mask.long(), speech_hidden_state=speech, conv_features=features
        )

    def _features(self, samples: Tensor, attention_mask: Tensor | None) -> Tensor:
        lengths = None if attention_mask is None or self.config.original_padding else attention_mask.sum(-1)
        scale = self.config.feature_grad_mult
        with torch.set_grad_enabled(torch.is_grad_enabled() and scale > 0):
            features = self.feature_extractor(samples, lengths)
        if scale != 1 and features.requires_grad:
            features.register_hook(lambda gradient: gradient * scale)
        return features

    def _frame_mask(self, attention_mask: Tensor | None, frames: int) -> Tensor | None:
        """Booleans [B, F] of the samples' mask [B, S]."""
        if attention_mask is None:
            return None
        if self.config.original_padding:  # a frame is padding if all samples of its share are
            share = attention_mask.shape[1] // frames
            return attention_mask[:, : frames * share].reshape(-1, frames, share).bool().any(-1)
        lengths = self.frame_lengths(attention_mask.sum(-1))
        if bool((lengths < 1).any()):
            raise ValueError(
                f"clip {int(lengths.argmin())} of the batch is shorter than the {self.config.frame_kernel} samples of "
                f"one frame; leave it out"
            )
        return frame_mask(lengths, frames)

    def frame_lengths(self, samples: Tensor) -> Tensor:
        """Frames [B] of clips of so many samples [B]."""
        return (samples - self.config.frame_kernel) // self.config.inputs_to_logits_ratio + 1

    def _augmented(self, hidden_states: Tensor, mask: Tensor | None, masked: Tensor | None) -> Tensor:
        """Projected frames [B, F, D] with the masks that are given, or in fine-tuning those of SpecAugment."""
        config, (rows, frames, width) = self.config, hidden_states.shape
        draws = self.training and config.apply_spec_augment
        if masked is None and draws and config.mask_time_prob > 0:
            lengths = [frames] * rows if mask is None else mask.sum(-1).tolist()
            spans = (config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks)
            masked = draw_spans(lengths, frames, *spans).to(hidden_states.device)
        hidden_states = self._with_mask_vector(hidden_states, masked)
        if draws and config.mask_feature_prob > 0:
            spans = (config.mask_feature_prob, config.mask_feature_length, config.mask_feature_min_masks)
            channels = draw_spans([width] * rows, width, *spans).to(hidden_states.device)
            hidden_states = hidden_states.masked_fill(channels[:, None], 0)
        return hidden_states

    def _with_mask_vector(self, hidden_states: Tensor, masked: Tensor | None) -> Tensor:
        if masked is None:
            return hidden_states
        return torch.where(masked.bool()[..., None], self.masked_spec_embed.to(hidden_states.dtype), hidden_states)


# ---- heads ---------------------------------------------------------------------------------------------------------


def _padded_behind(samples: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same clips [B, S] and mask [B, S] with all padding on the right."""
    starts = mask.long().argmax(-1)
    if bool(starts.any()):
        order = (torch.arange(mask.shape[1], device=mask.device) + starts[:, None]) % mask.shape[1]
        samples, mask = samples.gather(1, order), mask.gather(1, order)
    _refuse_padding_before(mask)
    return samples, mask


def _refuse_padding_before(mask: Tensor) -> None:
    """Raises `ValueError` for a mask [B, T] by which a row goes on after its padding."""
    resumed = (mask[:, 1:].bool() & ~mask[:, :-1].bool()).any(-1)
    if bool(resumed.any()):
        raise ValueError(f"row {int(resumed.long().argmax())} of the batch is padded before its end; pad on the right")


@dataclass
class JointCTCOutput(CausalLMOutput):
    """Logits [B, T + 1, V] (`ctc_conv_kernel` 2), of which the first `logit_lengths` [B] of each row are trained.

    `last_hidden_state` [B, T, D] and `frame_attention_mask` [B, T] are those of the encoder.
    """

    logit_lengths: Tensor | None = None
    last_hidden_state: Tensor | None = None
    frame_attention_mask: Tensor | None = None


class CTCHead(nn.Module):
    """States to letters; by the original's convolution, step t sees states t - 1 and t, so that there is one more."""

    def __init__(self, config: JointEncoderConfig) -> None:
        super().__init__()
        width, kernel = config.hidden_size, config.ctc_conv_kernel
        self.has_convolution = kernel > 0
        self.pads_with_states = config.original_padding
        if self.has_convolution:
            self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, bias=False)
            self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.final_dropout)
        self.out_proj = nn.Linear(width, config.text_vocab_size)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, D] -> [B, T + 1, V]; padding, by `mask` [B, T], counts as the end unless `original_padding`."""
        if self.has_convolution:
            if not self.pads_with_states:
                hidden_states = without_padding(hidden_states, mask)
            hidden_states = self.dropout(self.conv(hidden_states.transpose(1, 2)).transpose(1, 2))
            hidden_states = nn.functional.gelu(self.layer_norm(hidden_states))
        else:
            hidden_states = self.dropout(hidden_states)
        return self.out_proj(hidden_states)


def ctc_sum(logits: Tensor, lengths: Tensor, labels: Tensor, config: JointEncoderConfig) -> Tensor:
    """The CTC losses of all rows, summed; an impossible one counts as zero.

    Args:
        logits: [B, T + 1, V], of which the first `lengths` [B] count.
        labels: [B, L] letters; -100, `pad_token_id` and `eos_token_id` are left out.
    """
    ends = [config.eos_token_id] if isinstance(config.eos_token_id, int) else list(config.eos_token_id or ())
    keep = ~torch.isin(labels, labels.new_tensor([IGNORED, config.padding, *ends]))  # [B, L]
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    with torch.backends.cudnn.flags(enabled=False):
        return nn.functional.ctc_loss(
            log_probs,
            labels[keep],
            lengths,
            keep.sum(-1),
            blank=config.ctc_blank_token_id,
            reduction="sum",
            zero_infinity=True,
        )


def labeled_frames(labels: Tensor, padding: int) -> Tensor:
    """[B, F] -> [B]: frames up to the last label of each clip, one at least."""
    places = torch.arange(1, labels.shape[1] + 1, device=labels.device)
    return (places * (labels != padding)).amax(-1).clamp(min=1)


def supervised_labels(labels: Tensor, config: JointEncoderConfig) -> Tensor:
    """Labels [B, L] with -100 in the place of `pad_token_id`."""
    return labels.masked_fill(labels == config.padding, IGNORED)


class JointEncoderForCTC(JointEncoderPreTrainedModel):
    """Letters, or letters and entity markers, of speech or units by CTC."""

    body_class: ClassVar[type[JointEncoderModel]]
    is_fine_tuned = True
    _keys_to_ignore_on_load_unexpected = other_heads("ctc_head")

    def __init__(self, config: JointEncoderConfig) -> None:
        super().__init__(config)
        self.add_module(self.base_model_prefix, self.body_class(config))
        self.ctc_head = CTCHead(config)
        self.post_init()
        self.freeze_bottom(config.freeze_layers)

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        unit_attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> JointCTCOutput:
        """Logits, and with `labels` [B, L] (padded with -100) the CTC loss per label.

        The other arguments are those of the encoder. The loss is the sum divided by `num_items_in_batch`.
        """
        output = self.base_model(
            input_values=input_values,
            attention_mask=attention_mask,
            input_ids=input_ids,
            unit_attention_mask=unit_attention_mask,
            mask_time_indices=mask_time_indices,
            **kwargs,
        )
        mask = output.frame_attention_mask
        logits, lengths, loss = self.ctc_head(output.last_hidden_state, mask), mask.sum(-1), None
        if labels is not None:
            labels = supervised_labels(labels, self.config)
            loss = mean_over_items(ctc_sum(logits, lengths, labels, self.config), labels, num_items_in_batch)
        return JointCTCOutput(
            loss, logits, output.hidden_states, output.attentions, lengths, output.last_hidden_state, mask
        )


class JointEncoderForSequenceClassification(JointEncoderPreTrainedModel):
    """A label of speech or units: self-attention pooling and two layers."""

    body_class: ClassVar[type[JointEncoderModel]]
    is_fine_tuned = True
    _keys_to_ignore_on_load_unexpected = other_heads("pooling", "classifier")

    def __init__(self, config: JointEncoderConfig) -> None:
        super().__init__(config)
        self.add_module(self.base_model_prefix, self.body_class(config))
        self.pooling = nn.Linear(config.hidden_size, 1)
        self.classifier = two_layer_classifier(config.hidden_size, config.num_labels, config.classifier_dropout)
        self.post_init()
        self.freeze_bottom(config.freeze_layers)

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        unit_attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [B, labels], and with `labels` [B] the cross-entropy. The other arguments are the encoder's."""
        output = self.base_model(
            input_values=input_values,
            attention_mask=attention_mask,
            input_ids=input_ids,
            unit_attention_mask=unit_attention_mask,
            mask_time_indices=mask_time_indices,
            **kwargs,
        )
        states = output.last_hidden_state
        pooled = attention_pooled(states, self.pooling(states)[..., 0], output.frame_attention_mask)
        logits, loss = self.classifier(pooled), None
        if labels is not None:
            loss = mean_over_items(logits_cross_entropy(logits, labels), labels, num_items_in_batch)
        return SequenceClassifierOutput(loss, logits, output.hidden_states, output.attentions)


__all__ = ["JointEncoderModel", "JointEncoderOutput", "JointEncoderPreTrainedModel"]
