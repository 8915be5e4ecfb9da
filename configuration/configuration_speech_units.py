"""Configuration of a unit model: a speech encoder cut off after one layer, and a codebook."""

from typing import Any, ClassVar, Literal

from transformers import AutoConfig, PreTrainedConfig

from .strict_keys import backbone_architecture, refuse_unknown_keys

ENCODINGS = ("clip", "window")


class SpeechUnitConfig(PreTrainedConfig):
    """Configuration of `SpeechUnitModel`.

    > The encoder, of which only layers 1 to `layer` exist

    audio_config (`dict` or `PreTrainedConfig`):
        Architecture of the whole speech encoder; any model type that transformers knows.
    audio_model_id (`str`, *optional*):
        Hub id or folder from which the frozen weights are loaded. `None` means that the checkpoint holds them itself.
    audio_model_revision (`str`, *optional*):
        Commit of the Hub repository, or for a folder the SHA-256 of its weights.
    audio_weights (`str`, *optional*):
        SHA-256 of the weights that are used. A codebook is refused by any other encoder, wherever it was loaded from.
    audio_dtype (`str`, defaults to `"float32"`):
        Precision in which the encoder runs. It belongs to the units: another precision gives others.
    layer (`int`, defaults to 9): units are made of what this layer says, counted from 1, before any final norm.

    > How the encoder is run

    encoding (`"clip"` or `"window"`, defaults to `"clip"`):
        For encoders with a fixed window (Whisper, 30 s): `"clip"` encodes a clip at its own length; `"window"` pads to
        the whole window as in pre-training and crops the result. Others are always run per clip.
    frame_kernel, frame_stride (`int`):
        `F = (n - frame_kernel) // frame_stride + 1` frames come from n extracted features (samples or mel frames).
    sampling_rate (`int`, defaults to 16000): samples a second that the encoder wants.
    frame_rate (`float`, defaults to 50.0): frames a second; frame k covers [k / frame_rate, (k + 1) / frame_rate).

    > The codebook

    clusters (`int`, defaults to 100): number of centroids, K.
    averaging (`int`, defaults to 1):
        Width in frames of the moving average of hidden states that are compared with centroids; odd, and 1 for none.
        A small encoder's frames change faster than phones do; see `smoothing` for the same after the codebook.
    codebook_hash (`str`, *optional*): SHA-256 of the centroids; `None` before they are trained.
    smoothing (`int`, defaults to 1):
        Width in frames of the mode filter that comes before deduplication; odd, and 1 for none.

    Raises `ValueError` for unknown keys and for values outside these ranges.
    """

    model_type = "speech_units"
    sub_configs = {"audio_config": AutoConfig}

    # Nothing of the encoder is trained here; what loads frozen backbones asks.
    unfrozen: ClassVar[None] = None
    lora_modules: ClassVar[None] = None

    audio_config: Any = None
    audio_model_id: str | None = None
    audio_model_revision: str | None = None
    audio_weights: str | None = None
    audio_dtype: str = "float32"
    layer: int = 9

    encoding: Literal["clip", "window"] = "clip"
    frame_kernel: int = 400
    frame_stride: int = 320
    sampling_rate: int = 16000
    frame_rate: float = 50.0

    clusters: int = 100
    averaging: int = 1
    codebook_hash: str | None = None
    smoothing: int = 1

    hidden_size: int | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_unknown_keys(self, kwargs)
        self.audio_config = backbone_architecture(self.audio_config, "hubert")
        super().__post_init__(**kwargs)
        self.hidden_size = self.audio_config.hidden_size
        self._check_values()

    def _check_values(self) -> None:
        layers = self.audio_config.num_hidden_layers
        if not 1 <= self.layer <= layers:
            raise ValueError(f"layer is {self.layer}; this encoder has layers 1 to {layers}")
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding is '{self.encoding}'; choose one of {', '.join(ENCODINGS)}")
        if self.clusters < 2:
            raise ValueError(f"clusters is {self.clusters}; give at least 2")
        for name in ("averaging", "smoothing"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give an odd number of frames, 1 for none")
        if self.frame_rate <= 0:
            raise ValueError(f"frame_rate is {self.frame_rate}; give the frames of a second")


__all__ = ["SpeechUnitConfig"]
