"""Text to units without speech: phones in, a unit of a speech codebook for each frame out, all at once.

In the manner of FastSpeech: a Transformer over phones, a duration for each, the phones repeated as long as they last,
and a Transformer over frames.

Shapes: B texts, P phones, F frames, D width, K clusters.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.hubert.modeling_hubert import HubertAttention
from transformers.utils import ModelOutput

from ..configuration.configuration_text_to_unit import TextToUnitConfig
from ..configuration.hub_pushing import PushedWithCode
from .modeling_frozen_backbones import fingerprint_tensors
from .modeling_losses import IGNORED, linear_cross_entropy, mean_over_items
from .modeling_padding_safe_encoders import frame_mask

__all__ = ["SpokenUnits", "TextToUnitModel", "TextToUnitOutput"]


@dataclass
class TextToUnitOutput(ModelOutput):
    """What the model says of a padded batch.

    Args:
        loss: cross-entropy of units plus weighted squared errors of log durations, a frame.
        logits: [B, F, K]; left out beside a loss unless asked for.
        log_durations: [B, P] predicted, of frames.
        frame_mask: [B, F], true on frames that belong to a text.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    log_durations: Tensor = None  # type: ignore[assignment]  # ModelOutput wants defaults
    frame_mask: Tensor = None  # type: ignore[assignment]


@dataclass(frozen=True)
class SpokenUnits:
    """What a text became: a unit for each frame, and how many frames each phone lasts."""

    units: list[int]
    durations: list[int]


class MaskedConvolution(nn.Module):
    """A convolution [B, T, D] -> [B, T, D'] that sees zeros wherever `mask` [B, T, 1] is zero."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        return self.conv((hidden_states * mask).transpose(1, 2)).transpose(1, 2)


class TextToUnitLayer(nn.Module):
    """Self-attention, then a convolution; each is added, then normalized."""

    def __init__(self, config: TextToUnitConfig) -> None:
        super().__init__()
        self.attention = HubertAttention(
            config.hidden_size, config.num_attention_heads, config.attention_dropout, config=config
        )
        self.attention_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.convolution = MaskedConvolution(config.hidden_size, config.intermediate_size, config.convolution_kernel)
        self.projection = nn.Linear(config.intermediate_size, config.hidden_size)
        self.final_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: Tensor, mask: Tensor, attention_mask: Tensor | None) -> Tensor:
        attended, _ = self.attention(hidden_states, attention_mask=attention_mask)
        hidden_states = self.attention_norm(hidden_states + self.dropout(attended))
        passed = self.projection(functional.relu(self.convolution(hidden_states, mask)))
        return self.final_norm(hidden_states + self.dropout(passed))


class TextToUnitStack(nn.Module):
    """Layers over phones or frames [B, T, D], whose places are told by sines and cosines."""

    def __init__(self, config: TextToUnitConfig, layers: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(TextToUnitLayer(config) for _ in range(layers))
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        hidden_states = self.dropout(hidden_states + sinusoids(hidden_states))
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=mask
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask[..., None].to(hidden_states.dtype), attention_mask)
        return hidden_states


class DurationPredictor(nn.Module):
    """Log frames [B, P] of phones [B, P, D]."""

    def __init__(self, config: TextToUnitConfig) -> None:
        super().__init__()
        width, kernel = config.hidden_size, config.duration_kernel
        self.convolutions = nn.ModuleList(
            MaskedConvolution(width, width, kernel) for _ in range(config.duration_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width, config.layer_norm_eps) for _ in range(config.duration_layers))
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.out_proj = nn.Linear(width, 1)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            passed = functional.relu(convolution(hidden_states, mask[..., None].to(hidden_states.dtype)))
            hidden_states = self.dropout(norm(passed))
        return self.out_proj(hidden_states).squeeze(-1)


class TextToUnitModel(PushedWithCode, PreTrainedModel):
    """Phones to units. What a text becomes does not depend on the batch it is in, nor on its padding."""

    config: TextToUnitConfig
    config_class = TextToUnitConfig
    base_model_prefix = "model"
    main_input_name = "phone_ids"
    input_modalities = ("text",)
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["TextToUnitLayer"]

    def __init__(self, config: TextToUnitConfig) -> None:
        super().__init__(config)
        self.embed_phones = nn.Embedding(len(config.phones), config.hidden_size)
        self.encoder = TextToUnitStack(config, config.encoder_layers)
        self.duration_predictor = DurationPredictor(config)
        self.place_in_phone = nn.Linear(2, config.hidden_size)
        self.decoder = TextToUnitStack(config, config.decoder_layers)
        self.classifier = nn.Linear(config.hidden_size, config.clusters)
        self.post_init()

    def weights_hash(self) -> str:
        """SHA-256 of the weights: two models of one hash say every text alike."""
        return fingerprint_tensors(self.state_dict())

    def forward(
        self,
        phone_ids: Tensor,
        phone_attention_mask: Tensor | None = None,
        durations: Tensor | None = None,
        labels: Tensor | None = None,
        return_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> TextToUnitOutput:
        """Units of phones that last as given, or as predicted.

        Args:
            phone_ids: [B, P].
            phone_attention_mask: [B, P], one on what belongs to a text; all where not given.
            durations: [B, P] frames of each phone; what lies under the mask is passed over.
            labels: [B, F] units, -100 beyond a text's end; F is that of the longest text by `durations`.
            return_logits: by default where there are no labels.
            num_items_in_batch: frames of the whole optimizer step.

        Raises `ValueError` for labels without durations, or of another length.
        """
        mask = torch.ones_like(phone_ids) if phone_attention_mask is None else phone_attention_mask
        hidden_states = self.encoder(self.embed_phones(phone_ids), mask)
        log_durations = self.duration_predictor(hidden_states, mask)
        if labels is not None and durations is None:
            raise ValueError("labels came without durations; units are compared frame by frame, so give both")
        frames = (self.frames_of(log_durations) if durations is None else durations) * mask
        spread, kept = self._spread(hidden_states, frames)
        decoded = self.decoder(spread, kept)
        output = TextToUnitOutput(log_durations=log_durations, frame_mask=kept)
        if labels is not None:
            units = self._unit_losses(decoded, labels)
            errors = (log_durations - frames.clamp(min=1).log()).square() * mask
            total = units + self.config.duration_weight * errors.float().sum()
            output.loss = mean_over_items(total, labels, num_items_in_batch)
        if return_logits or (return_logits is None and labels is None):
            output.logits = self.classifier(decoded)
        return output

    def frames_of(self, log_durations: Tensor) -> Tensor:
        """Whole frames of predicted log durations, at least one."""
        return log_durations.float().exp().round().clamp(1, self.config.longest_duration).long()

    def _spread(self, hidden_states: Tensor, durations: Tensor) -> tuple[Tensor, Tensor]:
        """Each phone repeated as long as it lasts [B, F, D], told where in it a frame lies; and the mask [B, F]."""
        ends = durations.cumsum(-1)  # [B, P]
        lengths = ends[:, -1]
        frames = torch.arange(int(lengths.max()), device=durations.device).expand(len(durations), -1).contiguous()
        owner = torch.searchsorted(ends, frames, right=True).clamp(max=durations.shape[1] - 1)  # [B, F]
        lasts = durations.gather(1, owner).clamp(min=1)
        place = (frames - (ends - durations).gather(1, owner) + 0.5) / lasts
        told = torch.stack([place, lasts.log()], dim=-1).to(hidden_states.dtype)
        repeated = hidden_states.gather(1, owner[..., None].expand(-1, -1, hidden_states.shape[-1]))
        return repeated + self.place_in_phone(told), frame_mask(lengths, frames.shape[1])

    def _unit_losses(self, decoded: Tensor, labels: Tensor) -> Tensor:
        if labels.shape[1] != decoded.shape[1]:
            raise ValueError(
                f"there are labels of {labels.shape[1]} frames and durations of {decoded.shape[1]}; a unit belongs to "
                f"each frame"
            )
        supervised = labels != IGNORED
        return linear_cross_entropy(
            decoded[supervised], self.classifier.weight, labels[supervised], self.classifier.bias
        )

    @torch.no_grad()
    def generate(self, phone_ids: Tensor, phone_attention_mask: Tensor | None = None) -> list[SpokenUnits]:
        """The most probable units of each text [B, P], each text alone, so that rounding too is that of no batch.

        The model should be in evaluation mode.
        """
        mask = torch.ones_like(phone_ids) if phone_attention_mask is None else phone_attention_mask
        return [self._say(row[kept.bool()]) for row, kept in zip(phone_ids, mask, strict=True)]

    def _say(self, phone_ids: Tensor) -> SpokenUnits:
        output = self(phone_ids[None])
        durations = self.frames_of(output.log_durations[0])
        return SpokenUnits(output.logits[0].argmax(-1).tolist(), durations.tolist())


def sinusoids(like: Tensor) -> Tensor:
    """[T, D] sines and cosines of the places of [B, T, D], of wavelengths from 2 pi to 10,000 times as much."""
    length, width = like.shape[1:]
    scale = torch.arange(width // 2, device=like.device) * (-math.log(10_000) / max(width // 2 - 1, 1))
    angles = torch.arange(length, device=like.device)[:, None] * scale.exp()
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(like.dtype)
