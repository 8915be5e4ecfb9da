"""The parts of a joint speech-text encoder: front end, attention with relative positions, the two stacks.

Shapes: B rows, S samples, F frames, T positions (frames or units), K keys, C channels, D width, H heads, d width of a
head, L the farthest distance.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.hubert.modeling_hubert import (
    HubertFeatureEncoder,
    HubertPositionalConvEmbedding,
    eager_attention_forward,
)
from transformers.utils.output_capturing import OutputRecorder

from ..configuration.configuration_joint_encoders import JointEncoderConfig
from .modeling_padding_safe_encoders import MaskedGroupNorm


class WaveformFeatures(HubertFeatureEncoder):
    """HuBERT's convolutions, whose group norm leaves padding out."""

    def __init__(self, config: JointEncoderConfig) -> None:
        super().__init__(config)
        self.first_kernel, self.first_stride = config.conv_kernel[0], config.conv_stride[0]
        self.has_group_norm = config.feat_extract_norm == "group"
        if self.has_group_norm:
            self.conv_layers[0].layer_norm = MaskedGroupNorm(config.conv_dim[0], config.conv_dim[0])

    def forward(self, input_values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, S] -> [B, C, F]; `lengths` [B] are the samples of each clip, or padding counts."""
        if self.has_group_norm:
            # It stays there for the backward pass, in which checkpointing computes the layer again.
            valid = None if lengths is None else (lengths - self.first_kernel) // self.first_stride + 1
            self.conv_layers[0].layer_norm.valid = valid
        self._requires_grad = self.conv_layers[0].conv.weight.requires_grad
        return super().forward(input_values)


class RelativePositions(nn.Module):
    """A vector [d] for every distance from -L to L - 1, shared by the layers and heads of a stack."""

    def __init__(self, farthest: int, head_dim: int) -> None:
        super().__init__()
        self.pe_k = nn.Embedding(2 * farthest, head_dim)

    def forward(self) -> Tensor:  # [2 L, d]
        return self.pe_k.weight


def relative_bias(query: Tensor, table: Tensor, keys: int, offset: Tensor | int = 0) -> Tensor:
    """Products of scaled queries [B, H, T, d] with the vectors [2 L, d] of their distances to K keys: [B, H, T, K].

    The distance is query minus key; the first query is at position `offset`. Every query meets every vector once and
    the products are then laid out by distance, which spares the vectors of all pairs, [T, K, d].
    """
    farthest = len(table) // 2
    positions = torch.arange(query.shape[2], device=query.device) + offset
    distances = positions[:, None] - torch.arange(keys, device=query.device)  # [T, K]
    rows = distances.clamp(-farthest, farthest - 1) + farthest
    return (query @ table.T).gather(-1, rows.expand(*query.shape[:2], -1, -1))


def recorded_states(layer: type[nn.Module], number_of_layers: str) -> OutputRecorder:
    """Records hidden states; the configuration's field `number_of_layers` says of how many layers.

    The name is set after construction: the constructor takes it from transformers 5.23 on, older ones do not ask.
    """
    recorder = OutputRecorder(layer)
    recorder.num_hidden_layers_key = number_of_layers
    return recorder


class JointAttention(nn.Module):
    """Attention to the same sequence or another one; keys may be of another width."""

    is_causal = False  # what is visible is always told by a mask

    def __init__(
        self,
        config: PreTrainedConfig,
        width: int,
        heads: int,
        key_width: int | None = None,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim = width // heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(key_width or width, width)
        self.v_proj = nn.Linear(key_width or width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        hidden_states: Tensor,
        visible: Tensor | None = None,
        table: Tensor | None = None,
        offset: Tensor | int = 0,
        key_value_states: Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The new states [B, T, D], and where the implementation is eager the weights [B, H, T, K].

        Args:
            hidden_states: [B, T, D]; `key_value_states` [B, K, E] where the keys are another sequence's.
            visible: booleans [B, 1, T or 1, K], the keys that a query sees.
            table: [2 L, d], vectors of distances.
            offset: position of the first query among the keys.
        """
        query = self._split(self.q_proj(hidden_states))  # [B, H, T, d]
        key, value = self._keys_and_values(hidden_states, key_value_states, past_key_values)  # [B, H, K, d]
        mask = self._mask(query, key.shape[2], visible, table, offset)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout if self.training else 0.0
        output, weights = attend(self, query, key, value, mask, dropout=dropout, scaling=self.scaling)
        return self.out_proj(output.reshape(hidden_states.shape)), weights

    def _split(self, states: Tensor) -> Tensor:  # [B, T, D] -> [B, H, T, d]
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _keys_and_values(
        self, hidden_states: Tensor, others: Tensor | None, past: EncoderDecoderCache | None
    ) -> tuple[Tensor, Tensor]:
        if past is not None and others is not None and past.is_updated.get(self.layer_idx):
            layer = past.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        states = hidden_states if others is None else others
        key, value = self._split(self.k_proj(states)), self._split(self.v_proj(states))
        if past is None:
            return key, value
        if others is None:
            return past.self_attention_cache.update(key, value, self.layer_idx)
        past.is_updated[self.layer_idx] = True
        return past.cross_attention_cache.update(key, value, self.layer_idx)

    def _mask(
        self, query: Tensor, keys: int, visible: Tensor | None, table: Tensor | None, offset: Tensor | int
    ) -> Tensor | None:
        """What is added to the logits, [B, H or 1, T, K]."""
        bias = None if table is None else relative_bias(query * self.scaling, table, keys, offset)
        if visible is None:
            return bias
        if bias is None:
            bias = query.new_zeros(len(query), 1, query.shape[2], keys)
        return bias.masked_fill(~visible, torch.finfo(bias.dtype).min)


class FeedForward(nn.Module):
    """[B, T, D] -> [B, T, D]."""

    def __init__(self, config: JointEncoderConfig, intermediate_size: int) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dense = nn.Linear(intermediate_size, config.hidden_size)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.intermediate_dropout(self.activation(self.intermediate_dense(hidden_states)))
        return self.output_dropout(self.output_dense(hidden_states))


class JointEncoderLayer(GradientCheckpointingLayer):
    """One layer of either stack."""

    def __init__(self, config: JointEncoderConfig, heads: int, intermediate_size: int, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = JointAttention(config, config.hidden_size, heads)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config, intermediate_size)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if pre_norm:
            self.relative_layer_norm = nn.LayerNorm(self.attention.head_dim, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, visible: Tensor | None, table: Tensor) -> Tensor:  # [B, T, D]
        if self.pre_norm:
            attended, _ = self.attention(self.layer_norm(hidden_states), visible, self.relative_layer_norm(table))
            hidden_states = hidden_states + self.dropout(attended)
            return hidden_states + self.feed_forward(self.final_layer_norm(hidden_states))
        attended, _ = self.attention(hidden_states, visible, table)
        hidden_states = self.layer_norm(hidden_states + self.dropout(attended))
        return self.final_layer_norm(hidden_states + self.feed_forward(hidden_states))


class LayerStack(nn.Module):
    """What both encoders have: layers, and one table of relative positions."""

    def __init__(
        self, config: JointEncoderConfig, layers: int, heads: int, intermediate_size: int, pre_norm: bool
    ) -> None:
        super().__init__()
        self.layerdrop = config.layerdrop
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.relative_positions = RelativePositions(config.relative_position_distance, config.hidden_size // heads)
        self.layers = nn.ModuleList(
            JointEncoderLayer(config, heads, intermediate_size, pre_norm) for _ in range(layers)
        )

    def run_layers(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, D] -> [B, T, D]; keys are left out where `mask` [B, T] is false, queries never."""
        visible, table = None if mask is None else mask[:, None, None], self.relative_positions()
        for layer in self.layers:
            if not (self.training and torch.rand(()) < self.layerdrop):
                hidden_states = layer(hidden_states, visible, table)
        return hidden_states


class SpeechEncoder(LayerStack):
    """Projected frames to speech states."""

    def __init__(self, config: JointEncoderConfig) -> None:
        pre_norm = config.do_stable_layer_norm
        super().__init__(
            config, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size, pre_norm
        )
        self.norm_first = not pre_norm
        self.pos_conv_embed = HubertPositionalConvEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:  # [B, F, D]
        hidden_states = without_padding(hidden_states, mask)
        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        if self.norm_first:
            return self.run_layers(self.dropout(self.layer_norm(hidden_states)), mask)
        return self.layer_norm(self.run_layers(self.dropout(hidden_states), mask))


class UnitEncoder(LayerStack):
    """The encoder that speech states and embedded units share."""

    def __init__(self, config: JointEncoderConfig) -> None:
        super().__init__(
            config,
            config.unit_encoder_layers,
            config.unit_attention_heads,
            config.unit_intermediate_size,
            config.unit_pre_norm,
        )
        width, pad = config.hidden_size, config.padding
        self.pad_token_id = pad
        self.embed_tokens = nn.Embedding(config.unit_vocab_size, width, pad) if config.unit_vocab_size else None
        # Position 0 is unused, position `pad` is that of padding, as in fairseq.
        rows = config.max_unit_positions + pad + 1
        self.embed_positions = nn.Embedding(rows, width, pad) if config.max_unit_positions else None
        norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layernorm_embedding = norm if config.unit_embedding_norm else nn.Identity()
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps) if config.unit_pre_norm else nn.Identity()

    def forward(self, embeddings: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, D] -> [B, T, D]; `mask` [B, T] is false on padding."""
        if self.embed_positions is not None:
            positions = self._positions(embeddings, mask).clamp(max=self.embed_positions.num_embeddings - 1)
            embeddings = embeddings + self.embed_positions(positions)
        hidden_states = self.dropout(self.layernorm_embedding(embeddings))
        return self.layer_norm(self.run_layers(without_padding(hidden_states, mask), mask))

    def _positions(self, embeddings: Tensor, mask: Tensor | None) -> Tensor:  # [B, T]
        if mask is None:
            mask = embeddings.new_ones(embeddings.shape[:2], dtype=torch.bool)
        return mask.cumsum(-1) * mask + self.pad_token_id


def without_padding(hidden_states: Tensor, mask: Tensor | None) -> Tensor:
    """States [B, T, D], zero where `mask` [B, T] is false."""
    return hidden_states if mask is None else hidden_states * mask[..., None].to(hidden_states.dtype)
