"""Speech encoders whose result for a clip does not depend on the batch it is padded into.

Shapes: C clips, n extracted features (samples or mel frames), M mel bands, F encoder frames, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm with one channel a group whose statistics come from valid frames only. Parameter names are kept."""

    valid: Tensor | None = None  # [C] valid frames of the batch at hand

    def forward(self, hidden_states: Tensor) -> Tensor:  # [C, D, F]
        if self.valid is None:
            return super().forward(hidden_states)
        count = self.valid.to(hidden_states.device)
        mask = frame_mask(count, hidden_states.shape[-1])[:, None]  # [C, 1, F]
        values, count = hidden_states.float(), count[:, None, None].float()
        mean = (values * mask).sum(-1, keepdim=True) / count
        variance = ((values - mean).square() * mask).sum(-1, keepdim=True) / count
        normalized = (values - mean) * torch.rsqrt(variance + self.eps)
        return ((normalized * self.weight[:, None] + self.bias[:, None]) * mask).to(hidden_states.dtype)


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """[C] lengths -> [C, size] booleans, true on valid frames."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def make_padding_safe(encoder: PreTrainedModel) -> None:
    """Replaces, in place, the group norm over time of HuBERT-like front ends by its masked form.

    State-dict names do not change, so a checkpoint loads before or after.
    """
    for module in encoder.modules():
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


def _tell_valid_frames(encoder: nn.Module, args: tuple, kwargs: dict) -> None:
    mask = kwargs.get("attention_mask")
    for module in encoder.modules():
        first = _first_convolution(module)
        if first is not None:
            kernel, stride = first.conv.kernel_size[0], first.conv.stride[0]
            first.layer_norm.valid = None if mask is None else (mask.sum(-1) - kernel) // stride + 1


def encode_speech(
    encoder: PreTrainedModel,
    input_features: Tensor,
    input_features_mask: Tensor,
    encoding: str,
    kernel: int,
    stride: int,
) -> tuple[Tensor, Tensor]:
    """Encodes padded clips.

    Args:
        input_features: samples [C, n], or log-mel [C, n, M]; for Whisper [C, M, n].
        input_features_mask: [C, n], one on what belongs to the clip.
        encoding: "clip" or "window"; only an encoder with a fixed window (Whisper) can tell them apart.
        kernel, stride: the encoder's frame formula, `F = (n - kernel) // stride + 1`.

    Returns:
        Hidden states [C, F, D], zero beyond each clip's end, and the number of valid frames [C].
    """
    features = input_features.to(encoder.dtype)
    frames = (input_features_mask.sum(-1) - kernel) // stride + 1  # [C]
    if isinstance(encoder, WhisperEncoder):
        hidden_states = _encode_whisper(encoder, features, input_features_mask, frames, encoding)
    else:
        hidden_states = encoder(features, attention_mask=input_features_mask).last_hidden_state
    hidden_states = hidden_states[:, : int(frames.max())]
    return hidden_states * frame_mask(frames, hidden_states.shape[1])[..., None], frames


def _encode_whisper(encoder: WhisperEncoder, mel: Tensor, mel_mask: Tensor, frames: Tensor, encoding: str) -> Tensor:
    """[C, M, n] -> [C, F, D]; n is at most the window, and all of it for encoding "window"."""
    if encoding == "window":
        return encoder(mel).last_hidden_state
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
    return encoder.layer_norm(hidden_states)
