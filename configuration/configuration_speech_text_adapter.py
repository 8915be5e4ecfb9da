"""Configuration of SLM (arXiv 2310.00230): a frozen speech encoder, a trained adapter and a frozen LLM."""

from typing import Any, ClassVar, Literal

from .configuration_speech_text_composite import SpeechTextCompositeConfig

REDUCTIONS = ("discard", "stack", "convolution", "average")


class SpeechTextAdapterConfig(SpeechTextCompositeConfig):
    """Configuration of `SpeechTextAdapterModel` and `SpeechTextAdapterForConditionalGeneration`.

    Backbones, how they are run and held, and what of them is trained: see `SpeechTextCompositeConfig`.

    > The adapter (section 3 of the paper; width, heads and feed-forward size are our reading)

    reduction (`"discard"`, `"stack"`, `"convolution"` or `"average"`, defaults to `"discard"`):
        How the frame rate is reduced: keep one of `reduction_ratio` frames as the paper does, concatenate them,
        convolve with that stride, or average them.
    random_phase (`bool`, defaults to `False`):
        With `"discard"`, keep a random frame of each group while training, the first one otherwise.
    adapter_layers (`int`, defaults to 2): number of Transformer layers.
    adapter_width (`int`, *optional*): width of the layers; that of the speech encoder by default.
    adapter_heads (`int`, defaults to 4), adapter_feed_forward_ratio (`int`, defaults to 4), adapter_dropout (`float`).

    Raises `ValueError` for unknown keys and for values outside the lists above.
    """

    model_type = "speech_text_adapter"
    bridge_fields: ClassVar[tuple[str, ...]] = (
        *("reduction", "adapter_layers", "adapter_width", "adapter_heads"),
        "adapter_feed_forward_ratio",
    )

    reduction: Literal["discard", "stack", "convolution", "average"] = "discard"
    random_phase: bool = False
    adapter_layers: int = 2
    adapter_width: int | None = None
    adapter_heads: int = 4
    adapter_feed_forward_ratio: int = 4
    adapter_dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.adapter_width is None:
            self.adapter_width = self.audio_config.hidden_size

    def _check_values(self) -> None:
        super()._check_values()
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"reduction is '{self.reduction}'; choose one of {', '.join(REDUCTIONS)}")
        self._check_least(adapter_layers=0, adapter_heads=1)
        if self.random_phase and self.reduction != "discard":
            raise ValueError(f"random_phase belongs to reduction 'discard', not to '{self.reduction}'")


__all__ = ["SpeechTextAdapterConfig"]
