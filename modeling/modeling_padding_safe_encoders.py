"""Speech encoders whose result for a clip does not depend on the batch it is padded into.

Shapes: C clips, n extracted features (samples or mel frames), M mel bands, F encoder frames, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertRotaryPositionalEmbedding
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import (
    Wav2Vec2ConformerRotaryPositionalEmbedding,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

_KEEPS_POSITIONS = (Wav2Vec2BertRotaryPositionalEmbedding, Wav2Vec2ConformerRotaryPositionalEmbedding)


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm with one channel a group whose statistics come from valid frames only. Parameter names are kept.

    Clip by clip through torch's own kernel, which on a CPU is many times faster than statistics under a mask. Padding
    becomes 0.
    """

    valid: Tensor | None = None  # [C] valid frames of the batch at hand

    def forward(self, hidden_states: Tensor) -> Tensor:  # [C, D, F]
        if self.valid is None or not len(hidden_states):
            return super().forward(hidden_states)
        counts = self.valid.clamp(min=1).tolist()
        clips = [self._normalized(clip[:, :count]) for clip, count in zip(hidden_states, counts, strict=True)]
        size = hidden_states.shape[-1]
        return torch.stack([nn.functional.pad(clip, (0, size - clip.shape[-1])) for clip in clips])

    def _normalized(self, clip: Tensor) -> Tensor:  # [D, n]
        # Not `super().forward`, which refuses a clip of one frame. The kernel refuses parameters narrower than a clip.
        wide = torch.promote_types(clip.dtype, self.weight.dtype)
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        return torch.group_norm(clip[None], self.num_groups, weight, bias, self.eps)[0].to(clip.dtype)


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """[C] lengths -> [C, size] booleans, true on valid frames."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def make_padding_safe(encoder: PreTrainedModel) -> None:
    """Replaces, in place, the group norm over time of HuBERT-like front ends by its masked form, and lets rotary
    embeddings make their angles anew for every batch.

    State-dict names do not change, so a checkpoint loads before or after.
    """
    for module in encoder.modules():
        if isinstance(module, _KEEPS_POSITIONS):
            module.register_forward_pre_hook(_forget_positions)
        first = _first_convolution(module)
        if first is not None:
            first.layer_norm = _masked(first.layer_norm)
            # Not undone after the forward: with gradient checkpointing the layer runs again in the backward pass.
            encoder.register_forward_pre_hook(_tell_valid_frames, with_kwargs=True)


def _first_convolution(module: nn.Module) -> Any:
    """The first layer of a convolutional front end, or `None` where it does not normalize each channel over time."""
    layers = module._modules.get("conv_layers")
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    norm = layers[0]._modules.get("layer_norm")
    return layers[0] if isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels else None


def _masked(norm: nn.GroupNorm) -> MaskedGroupNorm:
    masked = MaskedGroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps)
    masked.weight, masked.bias = norm.weight, norm.bias
    return masked.train(norm.training)


def _forget_positions(embedding: Any, args: tuple) -> None:
    """Kept for the last length, they would keep the precision of that batch too: that of autocast, after training."""
    embedding.cached_sequence_length = None


def _tell_valid_frames(encoder: nn.Module, args: tuple, kwargs: dict) -> None:
    mask = kwargs.get("attention_mask")
    for module in encoder.modules():
        first = _first_convolution(module)
        if first is not None:
            kernel, stride = first.conv.kernel_size[0], first.conv.stride[0]
            first.layer_norm.valid = None if mask is None else (mask.sum(-1) - kernel) // stride + 1


def frame_formula(encoder: PreTrainedModel) -> tuple[int, int]:
    """Kernel and stride of `F = (n - kernel) // stride + 1`, asked of the encoder's own length function.

    Raises `ValueError` for an encoder without one; the configuration's fields can then be set by hand.
    """
    lengths = getattr(encoder, "_get_feat_extract_output_lengths", None)
    if lengths is None:
        raise ValueError(
            f"{type(encoder).__name__} does not tell how many frames it makes; set frame_kernel and frame_stride"
        )
    frames = lengths(torch.arange(1, 4000))
    kernel = int((frames < 1).sum()) + 1
    return kernel, int((frames < 2).sum()) + 1 - kernel


def encode_speech(
    encoder: PreTrainedModel,
    input_features: Tensor,
    input_features_mask: Tensor,
    encoding: str,
    kernel: int,
    stride: int,
    **kwargs: Any,
) -> tuple[BaseModelOutput, Tensor]:
    """Encodes padded clips.

    Args:
        input_features: samples [C, n], or log-mel [C, n, M]; for Whisper [C, M, n].
        input_features_mask: [C, n], one on what belongs to the clip.
        encoding: "clip" or "window"; only an encoder with a fixed window (Whisper) can tell them apart.
        kernel, stride: the encoder's frame formula, `F = (n - kernel) // stride + 1`.

    Returns:
        The encoder's output, `last_hidden_state` [C, F, D] zero beyond each clip's end; the valid frames [C].
    """
    features = input_features.to(encoder.dtype)
    frames = (input_features_mask.sum(-1) - kernel) // stride + 1  # [C]
    if isinstance(encoder, WhisperEncoder):
        output = _encode_whisper(encoder, features, input_features_mask, frames, encoding, **kwargs)
    else:
        output = encoder(features, attention_mask=input_features_mask, **kwargs)
    hidden_states = output.last_hidden_state[:, : int(frames.max())]
    output["last_hidden_state"] = hidden_states * frame_mask(frames, hidden_states.shape[1])[..., None]
    return output, frames


def _encode_whisper(
    encoder: WhisperEncoder, mel: Tensor, mel_mask: Tensor, frames: Tensor, encoding: str, **kwargs: Any
) -> BaseModelOutput:
    """[C, M, n] -> [C, F, D]; n is at most the window, and all of it for encoding "window"."""
    if encoding == "window":
        return encoder(mel, **kwargs)
    mask = mel_mask[:, None].to(mel.dtype)
    # Both products: each convolution sees one frame to the right of the last valid one.
    hidden_states = nn.functional.gelu(encoder.conv1(mel * mask)) * mask
    hidden_states = nn.functional.gelu(encoder.conv2(hidden_states)).transpose(1, 2)
    hidden_states = hidden_states + encoder.embed_positions.weight[: hidden_states.shape[1]]
    hidden_states = nn.functional.dropout(hidden_states, p=encoder.dropout, training=encoder.training)
    attention_mask = create_bidirectional_mask(
        config=encoder.config,
        inputs_embeds=hidden_states,
        attention_mask=frame_mask(frames, hidden_states.shape[1]),
    )
    for layer in encoder.layers:
        hidden_states = layer(hidden_states, attention_mask)
    return BaseModelOutput(last_hidden_state=encoder.layer_norm(hidden_states))
