"""Configuration of SpeechLM (arXiv 2209.15329): a speech encoder below an encoder of units and speech."""

from typing import Any

from .configuration_joint_encoders import LARGE, TINY, JointEncoderConfig, preset_fields

# -P has 364 phones as units, -H 500 clusters; each with five special ones.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": TINY,
    "base-p": {"unit_vocab_size": 369, "label_rate": 100.0},
    "base-h": {"unit_vocab_size": 505},
    "large-p": {**LARGE, "unit_pre_norm": True, "unit_vocab_size": 369},
}


class SpeechLMConfig(JointEncoderConfig):
    """Configuration of `SpeechLMModel` and of the models with heads on it; `JointEncoderConfig` tells its fields."""

    model_type = "speechlm"

    @classmethod
    def preset(cls, name: str, **fields: Any) -> "SpeechLMConfig":
        """A released shape: "base-p", "base-h", "large-p", or "tiny", for tests and demonstrations.

        `fields` replace those of the preset. Raises `ValueError` for another name.
        """
        return cls(**preset_fields(name, PRESETS, fields))


__all__ = ["SpeechLMConfig"]
