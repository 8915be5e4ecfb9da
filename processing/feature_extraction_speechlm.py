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
            attention_mask = [np.ones(len(clip)) for clip in input_values]
        masks = [np.asarray(row, dtype=bool) for row in attention_mask]
        return [_normalized(clip, mask, padding_value) for clip, mask in zip(input_values, masks, strict=True)]


def _normalized(clip: np.ndarray, mask: np.ndarray, padding_value: float) -> np.ndarray:
    own = clip[mask].astype(np.float64)
    normalized = np.full(clip.shape, padding_value, dtype=np.float32)
    normalized[mask] = (own - own.mean()) / np.sqrt(own.var() + EPSILON)
    return normalized


__all__ = ["SpeechLMFeatureExtractor"]
