"""The decoder of SpeechUT: post-norm layers, relative positions besides sinusoids, keys of another width.

Shapes: B rows, L tokens, T states of the encoder, K keys, D width of the decoder, E width of the encoder.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..configuration.configuration_speechut import SpeechUTConfig
from .modeling_joint_layers import JointAttention, RelativePositions, recorded_states


class TextDecoderLayer(GradientCheckpointingLayer):
    """Self-attention, attention to the encoder, feed-forward; a layer norm after each."""

    def __init__(self, config: SpeechUTConfig, layer_idx: int) -> None:
        super().__init__()
        width, heads = config.decoder_hidden_size, config.decoder_attention_heads
        self.self_attn = JointAttention(config, width, heads, layer_idx=layer_idx)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = JointAttention(config, width, heads, key_width=config.hidden_size, layer_idx=layer_idx)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.decoder_ffn_dim)
        self.fc2 = nn.Linear(config.decoder_ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.activation = ACT2FN[config.hidden_act]
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: Tensor,
        visible: Tensor,
        table: Tensor,
        offset: int,
        encoder_hidden_states: Tensor,
        encoder_visible: Tensor | None,
        past_key_values: EncoderDecoderCache | None,
    ) -> Tensor:  # [B, L, D]
        attended, _ = self.self_attn(hidden_states, visible, table, offset, past_key_values=past_key_values)
        hidden_states = self.self_attn_layer_norm(hidden_states + self.dropout(attended))
        attended, _ = self.encoder_attn(
            hidden_states,
            encoder_visible,
            key_value_states=encoder_hidden_states,
            past_key_values=past_key_values,
        )
        hidden_states = self.encoder_attn_layer_norm(hidden_states + self.dropout(attended))
        expanded = self.activation_dropout(self.activation(self.fc1(hidden_states)))
        return self.final_layer_norm(hidden_states + self.dropout(self.fc2(expanded)))


class TextDecoder(PreTrainedModel):
    """Tokens of text to states, while it attends to the states of the encoder."""

    config: SpeechUTConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _can_record_outputs = {
        "hidden_states": recorded_states(TextDecoderLayer, "decoder_layers"),
        "attentions": OutputRecorder(JointAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(JointAttention, index=1, layer_name="encoder_attn"),
    }

    def __init__(self, config: SpeechUTConfig) -> None:
        super().__init__(config)
        width = config.decoder_hidden_size
        self.embed_tokens = nn.Embedding(config.text_vocab_size, width, config.padding)
        self.relative_positions = RelativePositions(
            config.decoder_relative_distance, width // config.decoder_attention_heads
        )
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(TextDecoderLayer(config, number) for number in range(config.decoder_layers))
        self.gradient_checkpointing = False  # where it is on, transformers turns the cache off
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed_tokens = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """States [B, L, D].

        Args:
            input_ids: [B, L], the tokens that `past_key_values` has not seen.
            attention_mask: [B, K] of all tokens, those of the past first, zero on padding.
            encoder_hidden_states: [B, T, E]; encoder_attention_mask: [B, T], zero on padding.
        """
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        offset = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        if attention_mask is not None and attention_mask.ndim == 4:
            attention_mask = _of_keys(attention_mask)
        hidden_states = self.embed_tokens(input_ids) * math.sqrt(self.config.decoder_hidden_size)
        hidden_states = hidden_states + self._sinusoids(input_ids, attention_mask, offset).to(hidden_states.dtype)
        hidden_states = self.dropout(hidden_states)
        visible = self._visible(input_ids, attention_mask, offset, past_key_values)
        encoder_visible = None if encoder_attention_mask is None else encoder_attention_mask[:, None, None].bool()
        table = self.relative_positions()
        for layer in self.layers:
            # With a cache no layer may be missing.
            if past_key_values is None and self.training and torch.rand(()) < self.config.decoder_layerdrop:
                continue
            hidden_states = layer(
                hidden_states,
                visible,
                table,
                offset,
                encoder_hidden_states,
                encoder_visible,
                past_key_values=past_key_values,
            )
        return BaseModelOutputWithPastAndCrossAttentions(hidden_states, past_key_values=past_key_values)

    def _visible(
        self, input_ids: Tensor, attention_mask: Tensor | None, offset: int, past: EncoderDecoderCache | None
    ) -> Tensor:
        """Booleans [B or 1, 1, L, K]: tokens up to the one that looks, without padding."""
        length, keys = input_ids.shape[1], input_ids.shape[1]
        if past is not None:
            keys, _ = past.self_attention_cache.get_mask_sizes(length, 0)
        positions = torch.arange(length, device=input_ids.device) + offset
        visible = (torch.arange(keys, device=input_ids.device) <= positions[:, None])[None, None]
        if attention_mask is None:
            return visible
        mask = nn.functional.pad(attention_mask.bool(), (0, keys - attention_mask.shape[1]))
        return visible & mask[:, None, None]

    def _sinusoids(self, input_ids: Tensor, attention_mask: Tensor | None, offset: int) -> Tensor:
        """Sines, then cosines, of positions that begin after that of padding; zero on padding: [B, L, D]."""
        length, pad = input_ids.shape[1], self.config.padding
        if attention_mask is None:
            attention_mask = input_ids.new_ones(len(input_ids), offset + length)
        positions = (attention_mask.cumsum(-1) + pad)[:, offset : offset + length]
        half = self.config.decoder_hidden_size // 2
        steps = torch.arange(half, device=input_ids.device, dtype=torch.float32)
        angles = positions[..., None] * torch.exp(steps * -(math.log(10000) / (half - 1)))
        table = torch.cat([angles.sin(), angles.cos()], -1)
        return table * attention_mask[:, offset : offset + length, None]


def _of_keys(mask: Tensor) -> Tensor:
    """[B, 1, L, K], as generation makes it for a static cache, to [B, K]: the last token sees all there is."""
    last = mask[:, 0, -1]
    return (last if last.dtype == torch.bool else last == 0).long()


__all__ = ["TextDecoder"]
