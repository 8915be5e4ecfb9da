"""Configuration of Seal (arXiv 2407.14875): a frozen speech encoder, a trained projector and a frozen LLM."""

from typing import Any, ClassVar, Literal

from .configuration_speech_text_composite import SpeechTextCompositeConfig

PROJECTORS = ("convolution", "stack")
DIVERGENCES = ("forward", "reverse", "jensen_shannon")


class SealProjectorConfig(SpeechTextCompositeConfig):
    """Configuration of `SealProjectorModel` and `SealProjectorForConditionalGeneration`.

    Backbones, how they are run and held, and what of them is trained: see `SpeechTextCompositeConfig`. With its
    `reduction_ratio` of 4 an encoder of 50 frames a second gives 12.5 embeddings a second, our reading.

    > The projector, whose layers the paper does not give

    projector (`"convolution"` or `"stack"`, defaults to `"convolution"`):
        `"convolution"`: convolutions of kernel 3 and stride 2, one for each halving of the frame rate, each followed
        by a GELU. `"stack"`: as many frames laid in a row as become one embedding, a norm and a gated feed-forward
        network. A linear layer comes after either.
    projector_width (`int`, *optional*): width inside; that of the speech encoder by default.

    > The divergence between what the LLM says of speech and of its transcript

    divergence (`"forward"`, `"reverse"` or `"jensen_shannon"`, defaults to `"forward"`):
        Forward is KL(transcript || speech), our reading of the paper.
    temperature (`float`, defaults to 1.0): divides the logits of both; the loss carries its square.

    Raises `ValueError` for unknown keys and for values outside the lists above.
    """

    model_type = "seal_projector"
    bridge_fields: ClassVar[tuple[str, ...]] = ("projector", "projector_width")

    projector: Literal["convolution", "stack"] = "convolution"
    projector_width: int | None = None

    divergence: Literal["forward", "reverse", "jensen_shannon"] = "forward"
    temperature: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.projector_width is None:
            self.projector_width = self.audio_config.hidden_size

    def _check_values(self) -> None:
        super()._check_values()
        if self.projector not in PROJECTORS:
            raise ValueError(f"projector is '{self.projector}'; choose one of {', '.join(PROJECTORS)}")
        if self.divergence not in DIVERGENCES:
            raise ValueError(f"divergence is '{self.divergence}'; choose one of {', '.join(DIVERGENCES)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; give a number above 0")
        for name in ("unfrozen", "lora_modules"):
            if self._starts("language_model", getattr(self, name)):
                raise ValueError(f"{name} names weights of the LLM, which is its own teacher and has to stay as it is")


__all__ = ["SealProjectorConfig"]
