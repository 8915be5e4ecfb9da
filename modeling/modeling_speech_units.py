"""Speech to units: a frozen speech encoder that ends after layer L, and the nearest of K centroids.

Shapes: C clips, n extracted features (samples or mel frames), M mel bands, F encoder frames, D width, K clusters.
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import ModelOutput

from ..configuration.configuration_speech_units import SpeechUnitConfig
from .modeling_frozen_backbones import (
    SPEECH_ENCODER,
    Backbone,
    FrozenBackbonesModel,
    fingerprint_tensors,
    pinned_revision,
    quiet_loading,
)
from .modeling_padding_safe_encoders import encode_speech, frame_formula, frame_mask, make_padding_safe

NO_UNIT = -1
# How far rounding may move a float32 frame when its clip is padded or batched, as a share of the frame's length. A
# generous bound: 1e-6 was measured on HuBERT-base.
ROUNDING = 2.0**-16
_FRAMES_AT_ONCE = 4096  # bounds the memory of distances [frames, K] in float64


@dataclass(frozen=True)
class CutEncoder(Backbone):
    """A speech encoder without the layers above `layer`; they are neither built nor read from disk."""

    def config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        shallow = copy.deepcopy(super().config(config))
        shallow.num_hidden_layers = config.layer
        # Parts behind the layers, where a family has them.
        behind = {"add_adapter": False, "decoder_layers": 0}
        for name in behind.keys() & shallow.to_dict().keys():
            setattr(shallow, name, behind[name])
        return shallow

    def load(self, config: PreTrainedConfig, dtype: Any, **hub: Any) -> PreTrainedModel:
        """As `Backbone.load`; raises `ValueError` for an encoder of other shapes too."""
        try:
            return super().load(config, dtype, **hub)
        except RuntimeError as error:  # how transformers answers weights of another shape
            raise ValueError(
                f"'{self.id(config)}' could not be loaded as the {config.audio_config.model_type} encoder that this "
                f"codebook was trained on; name that one by audio_model_id, or train a codebook for this encoder"
            ) from error


CUT_SPEECH_ENCODER = CutEncoder(
    SPEECH_ENCODER.module, SPEECH_ENCODER.name, SPEECH_ENCODER.auto_class, SPEECH_ENCODER.part
)


class UnitCodebook(nn.Module):
    """K centroids [K, D], always float32."""

    def __init__(self, clusters: int, width: int) -> None:
        super().__init__()
        self.centroids = nn.Parameter(torch.zeros(clusters, width, dtype=torch.float32), requires_grad=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest centroids of frames [F, D].

        Distances are taken in float64, where neither the number of frames nor their order can change a winner; equal
        ones go to the lower index.

        Returns:
            Units [F], and the distance [F] from each frame to the nearest border between its cluster and another.
        """
        centroids = self.centroids.double()
        apart = torch.cdist(centroids, centroids).clamp_min(1e-30)
        found = [_nearest(part.double(), centroids, apart) for part in frames.split(_FRAMES_AT_ONCE)]
        units, margins = zip(*found, strict=True)
        return torch.cat(units), torch.cat(margins)


def _nearest(frames: Tensor, centroids: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    squares = frames.square().sum(-1, keepdim=True) + centroids.square().sum(-1) - 2 * frames @ centroids.T  # [F, K]
    least = squares.min(-1, keepdim=True).values
    scale = frames.square().sum(-1, keepdim=True) + centroids.square().sum(-1).max()
    units = (squares <= least + 1e-14 * scale).int().argmax(-1)  # the first of equals
    # (d_j^2 - d_i^2) / (2 |c_i - c_j|) is the distance to the plane halfway between two centroids.
    borders = (squares - least) / (2 * apart[units])
    borders.scatter_(-1, units[:, None], torch.inf)
    return units, borders.min(-1).values


@dataclass
class SpeechUnitOutput(ModelOutput):
    """Units of a padded batch.

    Args:
        units: [C, F], `NO_UNIT` (-1) beyond each clip's end.
        lengths: [C] frames of each clip.
    """

    units: Tensor = None  # type: ignore[assignment]  # ModelOutput wants defaults
    lengths: Tensor = None  # type: ignore[assignment]


class SpeechUnitModel(FrozenBackbonesModel):
    """Clips to frame units.

    A clip's units do not depend on what it is batched with, nor on its padding. In float32 a batch is encoded at
    once, and where a frame lies so near a border between two clusters that rounding could move it across, its clip is
    encoded again alone. In half precision rounding reaches too far for that, so that every clip is encoded alone.

    The checkpoint holds the codebook and names the encoder; `save_pretrained(save_backbones=True)` holds both.
    Loading raises `ValueError` where the encoder or its precision is not that of the codebook.
    """

    config: SpeechUnitConfig
    base_model_prefix = "model"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    _backbones = (CUT_SPEECH_ENCODER,)
    _keep_in_fp32_modules_strict = ["codebook"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: SpeechUnitConfig) -> None:
        super().__init__(config)
        self.audio_tower = CUT_SPEECH_ENCODER.build(config)
        make_padding_safe(self.audio_tower)
        self.codebook = UnitCodebook(config.clusters, config.audio_config.hidden_size)
        self.post_init()
        self.freeze_backbones()
        self.audio_tower.eval()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, UnitCodebook):
            init.normal_(module.centroids)

    def freeze_backbones(self) -> None:
        """Nothing here learns by gradients, the codebook neither."""
        super().freeze_backbones()
        self.codebook.requires_grad_(False)

    def train(self, mode: bool = True) -> "SpeechUnitModel":
        """The encoder stays in evaluation mode: no dropout, no SpecAugment."""
        super().train(mode)
        self.audio_tower.eval()
        return self

    # ---- making, saving and loading --------------------------------------------------------------------------------

    @classmethod
    def from_encoder(
        cls,
        audio_model_id: str,
        layer: int,
        clusters: int = 100,
        *,
        audio_model_revision: str | None = None,
        dtype: Any = torch.float32,
        hub: dict[str, Any] | None = None,
        **fields: Any,
    ) -> "SpeechUnitModel":
        """Layers 1 to `layer` of a pretrained encoder, and a random codebook; `set_codebook` gives it a trained one.

        Args:
            audio_model_id: Hub id or folder; the revision is resolved to a commit and kept.
            dtype: precision of the encoder; it belongs to the units.
            hub: arguments of every download, such as `token` or `cache_dir`.
            **fields: of `SpeechUnitConfig`; the encoder is asked for its frame formula unless it is given.
        """
        hub = hub or {}
        config = cls.config_class(
            audio_config=AutoConfig.from_pretrained(audio_model_id, revision=audio_model_revision, **hub),
            audio_model_id=audio_model_id,
            audio_model_revision=pinned_revision(audio_model_id, audio_model_revision, **hub),
            layer=layer,
            clusters=clusters,
            **fields,
        )
        with quiet_loading():  # the codebook is missing, as it should be
            model = cls._assemble(config, {}, dtype, hub)
        model.codebook.float()
        if not {"frame_kernel", "frame_stride"} <= fields.keys():
            model.config.frame_kernel, model.config.frame_stride = frame_formula(model.audio_tower)
        model.config.audio_weights = model.encoder_hash()
        model.config.audio_dtype = _name(model.audio_tower.dtype)
        return model

    @torch.no_grad()
    def set_codebook(self, centroids: Tensor) -> None:
        """Takes centroids [K, D]. Raises `ValueError` for another width, and for numbers that are not finite."""
        if centroids.ndim != 2 or centroids.shape[1] != self.config.hidden_size:
            raise ValueError(
                f"a codebook of shape {tuple(centroids.shape)} does not fit frames of width "
                f"{self.config.hidden_size}; it belongs to another encoder"
            )
        if not centroids.isfinite().all():
            raise ValueError("the codebook holds NaN or infinity; train it again")
        self.codebook.centroids = nn.Parameter(centroids.to(self.device, torch.float32).clone(), requires_grad=False)
        self.config.clusters = len(centroids)
        self.config.codebook_hash = self.codebook_hash()

    def encoder_hash(self) -> str:
        """SHA-256 of the weights of the layers that are run."""
        return fingerprint_tensors(self.audio_tower.state_dict())

    def codebook_hash(self) -> str:
        """SHA-256 of the centroids."""
        return fingerprint_tensors(self.codebook.state_dict())

    def check_provenance(self) -> None:
        """Raises `ValueError` unless this encoder, in this precision, and this codebook belong together."""
        config, source = self.config, self.config.audio_model_id or "in this checkpoint"
        dtype = _name(self.audio_tower.dtype)
        if dtype != config.audio_dtype:
            raise ValueError(
                f"this codebook belongs to an encoder in {config.audio_dtype}, not in {dtype}, "
                f"which would make other units; load it with dtype='{config.audio_dtype}', or train one for yours"
            )
        if config.audio_weights is not None and self.encoder_hash() != config.audio_weights:
            raise ValueError(
                f"the encoder '{source}' is not the one this codebook was trained on (layer {config.layer}, weights "
                f"{config.audio_weights[:12]}); name that one by audio_model_id, or train a codebook for this encoder"
            )
        if config.codebook_hash is not None and self.codebook_hash() != config.codebook_hash:
            raise ValueError(
                f"the codebook is not the one that the configuration names ({config.codebook_hash[:12]}); restore the "
                f"checkpoint's files, or set a codebook by set_codebook"
            )

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Saves the codebook; with `save_backbones=True` the encoder's layers too.

        Raises `ValueError` for a codebook that was never trained, or was changed other than by `set_codebook`.
        """
        if self.config.codebook_hash is None:
            raise ValueError("this codebook is random; train one, give it to set_codebook, then save")
        self.check_provenance()
        return super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def _load_frozen(cls, *args: Any, **kwargs: Any) -> Any:
        loaded = super()._load_frozen(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.codebook_hash is not None:
            model.check_provenance()
        return loaded

    # ---- units -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, input_features: Tensor, input_features_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What layer `layer` says, averaged over neighboring frames as the configuration has it.

        Args:
            input_features: samples [C, n], or log-mel [C, n, M]; for Whisper [C, M, n].
            input_features_mask: [C, n], one on what belongs to the clip.

        Returns:
            Hidden states [C, F, D], zero beyond each clip's end; the frames [C].
        """
        config = self.config
        said: list[Tensor] = []
        hook = self._last_layer().register_forward_hook(lambda module, given, output: said.append(_hidden(output)))
        try:
            with _full_precision(self.device):
                _, lengths = encode_speech(
                    self.audio_tower,
                    input_features.to(self.device),
                    input_features_mask.to(self.device),
                    config.encoding,
                    config.frame_kernel,
                    config.frame_stride,
                )
        finally:
            hook.remove()
        hidden_states = said[-1][:, : int(lengths.max())]
        valid = frame_mask(lengths, hidden_states.shape[1])[..., None]  # [C, F, 1]
        return moving_average(hidden_states * valid, valid, config.averaging), lengths

    def _last_layer(self) -> nn.Module:
        """The Transformer layer whose output is kept: a norm that some encoders have behind it is not applied."""
        stacks = (module for name, module in self.audio_tower.named_modules() if name.split(".")[-1] == "layers")
        return next(stack for stack in stacks if isinstance(stack, nn.ModuleList))[-1]

    @torch.no_grad()
    def forward(self, input_features: Tensor, input_features_mask: Tensor) -> SpeechUnitOutput:
        """Frame units of a padded batch, as `encode` takes it."""
        features, mask = input_features.to(self.device), input_features_mask.to(self.device)
        if len(features) == 1 and bool(mask.all()):
            return self._alone(features, mask)
        if self.audio_tower.dtype != torch.float32:
            return _joined([self._alone(*self._clip(features, mask, index)) for index in range(len(features))])
        hidden_states, lengths = self.encode(features, mask)
        units, margins = self.codebook(hidden_states.flatten(0, 1))
        valid = frame_mask(lengths, hidden_states.shape[1])
        near = margins.view_as(valid) <= ROUNDING * hidden_states.double().norm(dim=-1)
        units = units.view_as(valid).masked_fill(~valid, NO_UNIT)
        for index in (near & valid).any(-1).nonzero().flatten().tolist():
            units[index, : lengths[index]] = self._alone(*self._clip(features, mask, index)).units[0]
        return SpeechUnitOutput(units=units, lengths=lengths)

    def _alone(self, features: Tensor, mask: Tensor) -> SpeechUnitOutput:
        hidden_states, lengths = self.encode(features, mask)
        return SpeechUnitOutput(units=self.codebook(hidden_states[0])[0][None], lengths=lengths)

    def _clip(self, features: Tensor, mask: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """One clip of a batch without its padding; a window stays whole."""
        clip, clip_mask = features[index : index + 1], mask[index : index + 1]
        whisper = isinstance(self.audio_tower, WhisperEncoder)
        if whisper and self.config.encoding == "window":
            return clip.clone(), clip_mask
        size = int(clip_mask.sum())
        return clip.narrow(2 if whisper else 1, 0, size).clone(), clip_mask[:, :size]

    def nearest(self, frames: npt.NDArray[np.floating]) -> list[int]:
        """The units of frames [F, D] that were encoded before, by a clip alone or kept."""
        return self.codebook(torch.from_numpy(frames).to(self.device))[0].tolist()

    def extract(self, input_features: Tensor, input_features_mask: Tensor) -> list[list[int]]:
        """Frame units of each clip, without padding; see `deduplicate` and `smooth` for what comes after."""
        found = self(input_features, input_features_mask)
        return [clip[:length].tolist() for clip, length in zip(found.units, found.lengths.tolist(), strict=True)]


def moving_average(frames: Tensor, valid: Tensor, width: int) -> Tensor:
    """Each frame becomes the mean of the valid ones among the `width` around it; zero where it is not valid itself.

    Args:
        frames: [C, F, D], zero where not valid.
        valid: [C, F, 1].
        width: odd; 1 changes nothing.
    """
    if width == 1:
        return frames
    sums, counts = (
        functional.avg_pool1d(values.transpose(1, 2), width, 1, width // 2).transpose(1, 2)
        for values in (frames, valid.to(frames.dtype))
    )
    return sums / counts.clamp(min=0.5 / width) * valid


def _joined(clips: Sequence[SpeechUnitOutput]) -> SpeechUnitOutput:
    units = nn.utils.rnn.pad_sequence([clip.units[0] for clip in clips], batch_first=True, padding_value=NO_UNIT)
    return SpeechUnitOutput(units=units, lengths=torch.cat([clip.lengths for clip in clips]))


def _hidden(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _full_precision(device: torch.device) -> AbstractContextManager:
    """Neither autocast nor TensorFloat-32, which would round further than `ROUNDING`."""
    stack = ExitStack()
    stack.enter_context(torch.autocast(device.type, enabled=False))
    stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
    return stack


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


__all__ = ["SpeechUnitModel"]
