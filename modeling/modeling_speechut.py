"""SpeechUT (arXiv 2210.03730): speech and text in one encoder by way of units, and a decoder that writes text.

Shapes: B rows, S samples, F frames, T units or frames, L tokens of text, D width, V vocabulary.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.models.bart.modeling_bart import shift_tokens_right
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_speechut import SpeechUTConfig
from .modeling_joint_encoders import (
    CTCHead,
    JointEncoderForCTC,
    JointEncoderForSequenceClassification,
    JointEncoderModel,
    JointEncoderOutput,
    JointEncoderPreTrainedModel,
    ctc_sum,
    other_heads,
    supervised_labels,
)
from .modeling_joint_pretraining import JointEncoderForPreTraining, UnitPredictor
from .modeling_losses import IGNORED, mean_over_items
from .modeling_text_decoder import TextDecoder


class SpeechUTPreTrainedModel(JointEncoderPreTrainedModel):
    config: SpeechUTConfig
    base_model_prefix = "speechut"
    _no_split_modules = ["JointEncoderLayer", "TextDecoderLayer", "ParametrizedConv1d"]


class SpeechUTModel(SpeechUTPreTrainedModel, JointEncoderModel):
    """States of speech, from the waveform, or of text, from units. The decoder is not part of it."""


class SpeechUTForCTC(SpeechUTPreTrainedModel, JointEncoderForCTC):
    """Letters, or letters and entity markers, of speech or units by CTC."""

    body_class = SpeechUTModel


class SpeechUTForSequenceClassification(SpeechUTPreTrainedModel, JointEncoderForSequenceClassification):
    """A label of speech or units: self-attention pooling and two layers."""

    body_class = SpeechUTModel


# ---- pre-training --------------------------------------------------------------------------------------------------


class SpeechUTUnitPredictor(UnitPredictor):
    """Cosines for the speech encoder, and for the unit encoder one linear layer."""

    def add_unit_head(self, config: SpeechUTConfig) -> None:
        self.unit_proj = nn.Linear(config.hidden_size, config.unit_vocab_size)

    def unit_logits(self, hidden_states: Tensor) -> Tensor:
        return self.unit_proj(hidden_states).float()


class SpeechUTForPreTraining(SpeechUTPreTrainedModel, JointEncoderForPreTraining):
    """Masked units of speech and of text, swapping, and from units to text by CTC and by the decoder."""

    body_class = SpeechUTModel
    predictor_class = SpeechUTUnitPredictor
    _keys_to_ignore_on_load_unexpected = other_heads("ctc_head", "unit_predictor", "decoder", "lm_head")
    _tied_weights_keys = {"lm_head.weight": "decoder.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def add_text_heads(self, config: SpeechUTConfig) -> None:
        self.decoder = TextDecoder(config)
        self.lm_head = nn.Linear(config.decoder_hidden_size, config.text_vocab_size, bias=False)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def term_weights(self) -> dict[str, float]:
        return super().term_weights() | {"decoder_loss": self.config.decoder_weight}

    def _letter_terms(self, output: JointEncoderOutput, labels: Tensor) -> dict[str, Any]:
        states = decoded(self.decoder, output, labels, self.config)
        total = smoothed_sum(self.lm_head, states, labels, self.config.label_smoothing)
        loss = mean_over_items(total, labels)
        return super()._letter_terms(output, labels) | {"decoder_loss": loss}


# ---- text from speech or units -------------------------------------------------------------------------------------


class SpeechUTForConditionalGeneration(SpeechUTPreTrainedModel, GenerationMixin):
    """Text from speech or units: the encoder, the decoder, and for training the CTC head as a second task."""

    is_fine_tuned = True
    _keys_to_ignore_on_load_unexpected = other_heads("ctc_head", "decoder", "lm_head")
    _tied_weights_keys = {"lm_head.weight": "decoder.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: SpeechUTConfig) -> None:
        config = copy.deepcopy(config)
        config.is_encoder_decoder = True
        super().__init__(config)
        self.speechut = SpeechUTModel(config)
        self.ctc_head = CTCHead(config) if config.joint_ctc_weight > 0 else None
        self.decoder = TextDecoder(config)
        self.lm_head = nn.Linear(config.decoder_hidden_size, config.text_vocab_size, bias=False)
        self.post_init()
        self.freeze_bottom(config.freeze_layers)
        if self.generation_config is not None and config.bos_token_id is not None:
            self.generation_config.suppress_tokens = [config.bos_token_id]  # it is CTC's blank

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return self.speechut

    def get_decoder(self) -> nn.Module:
        return self.decoder

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        unit_attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: JointEncoderOutput | None = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """The loss of `labels`, or logits of the next token.

        Args:
            input_values, attention_mask, input_ids, unit_attention_mask, mask_time_indices: as in `SpeechUTModel`;
                or `encoder_outputs`, what it says of them.
            decoder_input_ids, decoder_attention_mask: text so far [B, L]; made of `labels` where they are given.
            labels: tokens [B, L] with `</s>`, padded with -100. The loss is `joint_ctc_weight` times CTC and the
                rest times the decoder's smoothed cross-entropy, both per token of `num_items_in_batch`.
            return_logits: with labels, compute logits [B, L, V] too. Without labels they always come.

        Raises `ValueError` without a text, and without labels to make one of.
        """
        if encoder_outputs is None:
            encoder_outputs = self.speechut(
                input_values=input_values,
                attention_mask=attention_mask,
                input_ids=input_ids,
                unit_attention_mask=unit_attention_mask,
                mask_time_indices=mask_time_indices,
                **kwargs,
            )
        if labels is not None:
            labels = supervised_labels(labels, self.config)
        if decoder_input_ids is None:
            decoder_input_ids, own_mask = shifted(labels, self.config)
            decoder_attention_mask = own_mask if decoder_attention_mask is None else decoder_attention_mask
        output = self.decoder(
            decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=encoder_outputs.frame_attention_mask,
            past_key_values=past_key_values,
            use_cache=False if use_cache is None and labels is not None else use_cache,
            **kwargs,
        )
        states = output.last_hidden_state
        return Seq2SeqLMOutput(
            loss=None if labels is None else self._loss(states, encoder_outputs, labels, num_items_in_batch),
            logits=self.lm_head(states) if labels is None or return_logits else None,
            past_key_values=output.past_key_values,
            decoder_hidden_states=output.hidden_states,
            decoder_attentions=output.attentions,
            cross_attentions=output.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def _loss(
        self, states: Tensor, encoded: JointEncoderOutput, labels: Tensor, num_items: Tensor | int | None
    ) -> Tensor:
        share = self.config.joint_ctc_weight
        total = (1 - share) * smoothed_sum(self.lm_head, states, labels, self.config.label_smoothing)
        if self.ctc_head is not None:
            mask = encoded.frame_attention_mask
            logits = self.ctc_head(encoded.last_hidden_state, mask)
            total = total + share * ctc_sum(logits, mask.sum(-1), labels, self.config)
        return mean_over_items(total, labels, num_items)

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:
        """As in transformers, of speech (`input_values`, `attention_mask`) or of units (`input_ids`).

        `unit_attention_mask` [B, T] goes with units; without it all but `pad_token_id` counts.
        """
        units, mask = kwargs.pop("input_ids", None), kwargs.pop("unit_attention_mask", None)
        if units is not None:
            mask = kwargs.pop("attention_mask", None) if mask is None else mask
            kwargs["encoder_outputs"] = self.speechut(input_ids=units, unit_attention_mask=mask)
        return super().generate(inputs, **kwargs)


def shifted(labels: Tensor | None, config: SpeechUTConfig) -> tuple[Tensor, Tensor]:
    """What the decoder reads while it writes `labels` [B, L], and its mask: [B, L] each."""
    if labels is None:
        raise ValueError("pass decoder_input_ids, or labels to make them of")
    tokens = shift_tokens_right(labels, config.pad_token_id, config.decoder_start_token_id)
    mask = (labels != IGNORED).flip(-1).cumsum(-1).flip(-1) > 0  # up to the last label
    return tokens.masked_fill(~mask, config.pad_token_id), mask.long()


def decoded(decoder: TextDecoder, encoded: JointEncoderOutput, labels: Tensor, config: SpeechUTConfig) -> Tensor:
    """States [B, L, D] of the decoder while it writes `labels` [B, L]."""
    tokens, mask = shifted(labels, config)
    output = decoder(
        tokens,
        attention_mask=mask,
        encoder_hidden_states=encoded.last_hidden_state,
        encoder_attention_mask=encoded.frame_attention_mask,
        use_cache=False,
    )
    return output.last_hidden_state


def smoothed_sum(head: nn.Linear, states: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropies of states [B, L, D] where `labels` [B, L] are not -100, summed in float32.

    `smoothing` is shared among the tokens that are not the label, as in fairseq; PyTorch's share goes to all V.
    """
    keep = labels != IGNORED
    logits = head(states[keep]).float()
    shared_by_all = smoothing * logits.shape[-1] / (logits.shape[-1] - 1)
    return nn.functional.cross_entropy(logits, labels[keep], label_smoothing=shared_by_all, reduction="sum")


__all__ = [
    "SpeechUTForCTC",
    "SpeechUTForConditionalGeneration",
    "SpeechUTForPreTraining",
    "SpeechUTForSequenceClassification",
    "SpeechUTModel",
    "SpeechUTPreTrainedModel",
]
