"""Waveforms for SpeechLM and SpeechUT."""

from typing import Any

import numpy as np
from transformers import Wav2Vec2FeatureExtractor

EPSILON = 1e-5  # transformers has 1e-7, which very quiet audio tells apart


class SpeechLMFeatureExtractor(Wav2Vec2FeatureExtractor):
    """Samples as they are, or with `do_normalize` of mean 0 and variance 1 in each clip, as the Large models want.

    Mean and biased variance come from the clip's own samples, so that padding changes nothing.
    """

    def __init__(self, do_normalize: bool = False, return_attention_mask: bool = True, **kwargs: Any) -> None:
        super().__init__(do_normalize=do_normalize, return_attention_mask=return_attention_mask, **kwargs)

    @staticmethod
    def zero_mean_unit_var_norm(
        input_values: list[np.ndarray], attention_mask: Any, padding_value: float = 0.0
    ) -> list[np.ndarray]:
        """Normalizes clips [S], each over the samples that its row of `attention_mask` calls its own."""
        if attention_mask is None:
            lengths = [len(clip) for clip in input_values]
        else:
            lengths = [int(np.sum(row)) for row in attention_mask]
        return [_normalized(clip, length, padding_value) for clip, length in zip(input_values, lengths, strict=True)]


def _normalized(clip: np.ndarray, length: int, padding_value: float) -> np.ndarray:
    own = clip[:length].astype(np.float64)
    normalized = np.full(clip.shape, padding_value, dtype=np.float32)
    normalized[:length] = (own - own.mean()) / np.sqrt(own.var() + EPSILON)
    return normalized


__all__ = ["SpeechLMFeatureExtractor"]
