"""The comparison every speech model should beat: logistic regression on pooled log-mel features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import SeamlessM4TFeatureExtractor

from ..processing.audio_loading import load_audio


def pooled_log_mel(clips: Sequence[Any]) -> np.ndarray:
    """Mean and standard deviation over time of 80 log-mel bins: [N, 160] for N clips that `load_audio` takes."""
    extractor = SeamlessM4TFeatureExtractor(num_mel_bins=80)
    return np.stack([_pooled(load_audio(clip, extractor.sampling_rate), extractor) for clip in clips])


def _pooled(clip: np.ndarray, extractor: SeamlessM4TFeatureExtractor) -> np.ndarray:
    extracted = extractor(
        clip, sampling_rate=extractor.sampling_rate, do_normalize_per_mel_bins=False, return_tensors="np"
    )
    frames = extracted["input_features"].reshape(-1, 80)  # two frames are stacked in one
    return np.concatenate([frames.mean(0), frames.std(0)])


def answer_by_logistic_regression(
    features: np.ndarray, targets: Sequence[str], regularization: float, training: list[int], test: list[int]
) -> list[str]:
    """Fits standardized `features` [N, D] of the training rows to their targets and answers the test rows.

    `regularization` is scikit-learn's C: the smaller, the stronger.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=regularization, max_iter=2000))
    classifier.fit(features[training], [targets[row] for row in training])
    return [str(answer) for answer in classifier.predict(features[test])]
