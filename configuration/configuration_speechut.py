"""Configuration of SpeechUT (arXiv 2210.03730): SpeechLM's encoders, and a decoder that writes text."""

from typing import Any

from .configuration_joint_encoders import LARGE, TINY, JointEncoderConfig, preset_fields

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        **TINY,
        "decoder_layers": 2,
        "decoder_hidden_size": 128,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 256,
    },
    "base": {},
    # A post-norm unit encoder without absolute positions above a pre-norm speech encoder.
    "large": {**LARGE, "max_unit_positions": 0, "final_dim": 768},
}


class SpeechUTConfig(JointEncoderConfig):
    """Configuration of `SpeechUTModel` and of the models with heads on it; `JointEncoderConfig` tells the rest.

    > The decoder

    decoder_layers, decoder_hidden_size, decoder_attention_heads, decoder_ffn_dim, decoder_layerdrop: its shape.
    decoder_relative_distance (`int`, defaults to 24): distances beyond it count as it.
    decoder_start_token_id (`int`, defaults to 2): what every text begins with, `</s>`.
    tie_word_embeddings (`bool`, defaults to `False`): one table for the decoder's input and output.
    label_smoothing (`float`, defaults to 0.1): of the decoder's loss, shared among the other tokens.
    joint_ctc_weight (`float`, defaults to 0.5): share of CTC in the loss of `SpeechUTForConditionalGeneration`; the
        decoder has the rest. 0 builds no CTC head.
    decoder_weight (`float`, defaults to 0.1): of its term of the pre-training loss.
    """

    model_type = "speechut"

    decoder_layers: int = 6
    decoder_hidden_size: int = 768
    decoder_attention_heads: int = 12
    decoder_ffn_dim: int = 3072
    decoder_layerdrop: float = 0.1
    decoder_relative_distance: int = 24
    decoder_start_token_id: int | None = 2
    use_cache: bool = True
    tie_word_embeddings: bool = False

    layerdrop: float = 0.0
    mask_text: bool = False
    label_smoothing: float = 0.1
    joint_ctc_weight: float = 0.5
    decoder_weight: float = 0.1
    masked_unit_weight: float = 0.5

    @classmethod
    def preset(cls, name: str, **fields: Any) -> "SpeechUTConfig":
        """A released shape: "base" or "large", or "tiny", for tests and demonstrations.

        `fields` replace those of the preset. Raises `ValueError` for another name.
        """
        return cls(**preset_fields(name, PRESETS, fields))

    def _check_values(self) -> None:
        super()._check_values()
        if self.decoder_hidden_size % 2 or self.decoder_hidden_size % self.decoder_attention_heads:
            raise ValueError(
                f"decoder_hidden_size {self.decoder_hidden_size} is odd, or no multiple of decoder_attention_heads "
                f"{self.decoder_attention_heads}"
            )
        if not 0 <= self.joint_ctc_weight <= 1:
            raise ValueError(f"joint_ctc_weight is {self.joint_ctc_weight}; it is a share, from 0 to 1")


__all__ = ["SpeechUTConfig"]
