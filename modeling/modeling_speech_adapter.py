"""The adapter of SLM (section 3): fewer frames, a few Transformer layers, the LLM's embedding space.

Its width, heads, feed-forward size and rotary positions are our reading; the paper names none of them.
Shapes: C clips, F encoder frames, A speech embeddings, D width, H heads.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration.configuration_speech_text_adapter import SpeechTextAdapterConfig
from .modeling_padding_safe_encoders import frame_mask
from .modeling_speech_bridge import SpeechBridge


class LengthReduction(nn.Module):
    """Makes one embedding of every `ratio` frames; the last group may be short. [C, F, D] -> [C, A, D]."""

    def __init__(self, config: SpeechTextAdapterConfig) -> None:
        super().__init__()
        self.ratio, self.random_phase = config.reduction_ratio, config.random_phase
        frame_width, width = config.audio_config.hidden_size, _width(config)
        self.kind = config.reduction
        if config.reduction == "convolution":
            kernel = 2 * self.ratio - 1
            self.projection: nn.Module = nn.Conv1d(
                frame_width, width, kernel, stride=self.ratio, padding=self.ratio - 1
            )
        else:
            self.projection = nn.Linear(frame_width * (self.ratio if self.kind == "stack" else 1), width)

    def lengths(self, frames: Tensor) -> Tensor:
        """[C] valid frames -> [C] embeddings."""
        return (frames + self.ratio - 1) // self.ratio

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:  # frames [C, F, D] are zero beyond `lengths` [C]
        reduce: Callable[[Tensor, Tensor], Tensor] = getattr(self, f"_{self.kind}")
        return reduce(frames, lengths)

    def _groups(self, frames: Tensor) -> Tensor:  # [C, F, D] -> [C, A, ratio, D]
        padded = nn.functional.pad(frames, (0, 0, 0, -frames.shape[1] % self.ratio))
        return padded.unflatten(1, (-1, self.ratio))

    def _discard(self, frames: Tensor, lengths: Tensor) -> Tensor:
        if not (self.random_phase and self.training):
            return self.projection(frames[:, :: self.ratio])
        first = torch.arange(0, frames.shape[1], self.ratio, device=frames.device)[None]  # [1, A]
        phase = torch.randint(self.ratio, (len(frames), first.shape[1]), device=frames.device)
        kept = (first + phase).minimum(lengths[:, None] - 1).clamp(min=0)  # [C, A]
        return self.projection(frames.gather(1, kept[..., None].expand(-1, -1, frames.shape[2])))

    def _stack(self, frames: Tensor, lengths: Tensor) -> Tensor:
        return self.projection(self._groups(frames).flatten(2))

    def _average(self, frames: Tensor, lengths: Tensor) -> Tensor:
        groups = self._groups(frames)
        valid = frame_mask(lengths, groups.shape[1] * self.ratio).unflatten(1, (-1, self.ratio))  # [C, A, ratio]
        return self.projection(groups.sum(2) / valid.sum(2, keepdim=True).clamp(min=1))

    def _convolution(self, frames: Tensor, lengths: Tensor) -> Tensor:
        return self.projection(frames.transpose(1, 2)).transpose(1, 2)


class AdapterLayer(GradientCheckpointingLayer):
    """A bidirectional pre-norm Transformer layer with rotary positions. [C, A, D] -> [C, A, D]."""

    def __init__(self, config: SpeechTextAdapterConfig) -> None:
        super().__init__()
        width, self.heads, self.dropout = _width(config), config.adapter_heads, config.adapter_dropout
        if width % (2 * self.heads):
            raise ValueError(f"adapter_width {width} must be a multiple of twice adapter_heads, {2 * self.heads}")
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward_input = nn.Linear(width, config.adapter_feed_forward_ratio * width)
        self.feed_forward_output = nn.Linear(config.adapter_feed_forward_ratio * width, width)

    def forward(self, hidden_states: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        attended = self._attend(self.attention_norm(hidden_states), mask, rotation)
        hidden_states = hidden_states + self._drop(self.attention_output(attended))
        inner = nn.functional.gelu(self.feed_forward_input(self.feed_forward_norm(hidden_states)))
        return hidden_states + self._drop(self.feed_forward_output(inner))

    def _attend(self, hidden_states: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [C, H, A, D / H]
            for part in self.query_key_value(hidden_states).chunk(3, dim=-1)
        )
        query, key = rotate(query, rotation), rotate(key, rotation)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return attended.transpose(1, 2).flatten(2)

    def _drop(self, hidden_states: Tensor) -> Tensor:
        return nn.functional.dropout(hidden_states, self.dropout, self.training)


class SpeechAdapter(SpeechBridge):
    """Encoder frames [C, F, D] -> embeddings of the LLM [C, A, D], at the scale of its own embeddings."""

    def __init__(self, config: SpeechTextAdapterConfig, embedding_width: int) -> None:
        super().__init__()
        width = _width(config)
        self.head_width = width // config.adapter_heads
        self.input_norm = nn.LayerNorm(config.audio_config.hidden_size)
        self.reduction = LengthReduction(config)
        self.layers = nn.ModuleList(AdapterLayer(config) for _ in range(config.adapter_layers))
        self.output_norm = nn.LayerNorm(width)
        self.output_projection = nn.Linear(width, embedding_width)
        self.add_scale(embedding_width)

    def reduced_lengths(self, frames: Tensor) -> Tensor:
        return self.reduction.lengths(frames)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        normalized = self.input_norm(frames.to(self.input_norm.weight.dtype))
        normalized = normalized * frame_mask(lengths, frames.shape[1])[..., None]
        hidden_states = self.reduction(normalized, lengths)  # [C, A, D]
        lengths = self.reduced_lengths(lengths)
        mask = frame_mask(lengths, hidden_states.shape[1])[:, None, None]  # [C, 1, 1, A]
        rotation = rotary_angles(hidden_states, self.head_width)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, rotation)
        return self.scaled(self.output_projection(self.output_norm(hidden_states))), lengths


def _width(config: SpeechTextAdapterConfig) -> int:
    return config.adapter_width or config.audio_config.hidden_size


def rotary_angles(hidden_states: Tensor, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [A, D / H] of rotary positions, base 10,000."""
    positions = torch.arange(hidden_states.shape[1], device=hidden_states.device, dtype=torch.float32)
    exponents = torch.arange(0, head_width, 2, device=hidden_states.device, dtype=torch.float32) / head_width
    angles = (positions[:, None] * 10_000.0**-exponents).repeat(1, 2)
    return angles.cos().to(hidden_states.dtype), angles.sin().to(hidden_states.dtype)


def rotate(states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns queries or keys [C, H, A, D / H] by their positions."""
    cosine, sine = rotation
    first, second = states.chunk(2, dim=-1)
    return (states * cosine + torch.cat((-second, first), dim=-1) * sine).to(states.dtype)


__all__ = ["SpeechAdapter"]
