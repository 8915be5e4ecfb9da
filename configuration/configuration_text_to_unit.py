"""Configuration of the text-to-unit model: phones in, units of a speech codebook and their durations out."""

from typing import Any

from transformers import PreTrainedConfig

from .strict_keys import refuse_unknown_keys

# Layers (of each stack), width, heads, convolution channels.
SHAPES = {"tiny": (2, 128, 2, 256), "base": (4, 256, 2, 1024)}


class TextToUnitConfig(PreTrainedConfig):
    """Configuration of `TextToUnitModel`. The family is FastSpeech's; sizes are our reading.

    > What is read and said

    phones (`list[str]`): the phones, in the order of their ids.
    clusters (`int`, defaults to 500): K, the size of the codebook.
    frame_rate (`float`, defaults to 50.0): units a second.

    > The two stacks, over phones and over frames

    hidden_size, num_attention_heads (`int`): of every layer.
    encoder_layers, decoder_layers (`int`): how many read phones, and how many write frames.
    intermediate_size, convolution_kernel (`int`): channels and width (odd, in phones or frames) of the convolution in
        each layer.
    hidden_dropout, attention_dropout, layer_norm_eps (`float`).

    > Durations

    duration_layers, duration_kernel (`int`): convolutions that predict them.
    duration_weight (`float`, defaults to 1.0): of their loss, squared errors of log durations, beside the
        cross-entropy of units.
    longest_duration (`int`, defaults to 150): most frames of a phone in what is generated.

    Raises `ValueError` for unknown keys and for values that contradict each other.
    """

    model_type = "text_to_unit"
    keys_to_ignore_at_inference = ["log_durations", "frame_mask"]

    phones: list[str] | tuple[str, ...] = ()
    clusters: int = 500
    frame_rate: float = 50.0

    hidden_size: int = 256
    num_attention_heads: int = 2
    encoder_layers: int = 4
    decoder_layers: int = 4
    intermediate_size: int = 1024
    convolution_kernel: int = 9
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_eps: float = 1e-5

    duration_layers: int = 2
    duration_kernel: int = 3
    duration_weight: float = 1.0
    longest_duration: int = 150

    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_unknown_keys(self, kwargs)
        self.phones = list(self.phones)
        super().__post_init__(**kwargs)
        self._check_values()

    @classmethod
    def preset(cls, name: str, **fields: Any) -> "TextToUnitConfig":
        """A shape: "base", or "tiny", for tests and demonstrations. Raises `ValueError` for another name."""
        if name not in SHAPES:
            raise ValueError(f"there is no preset '{name}'; choose one of {', '.join(SHAPES)}")
        layers, width, heads, channels = SHAPES[name]
        shape: dict[str, Any] = {"encoder_layers": layers, "decoder_layers": layers, "hidden_size": width}
        return cls(**{**shape, "num_attention_heads": heads, "intermediate_size": channels, **fields})

    @property
    def num_hidden_layers(self) -> int:
        return self.encoder_layers + self.decoder_layers

    def _check_values(self) -> None:
        if len(set(self.phones)) < len(self.phones):
            raise ValueError("a phone is there twice; name every phone once")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is no even multiple of num_attention_heads {self.num_attention_heads}"
            )
        for name in ("convolution_kernel", "duration_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give an odd number, so that it has a middle")


__all__ = ["TextToUnitConfig"]
