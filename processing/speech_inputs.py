"""Speech as an encoder takes it: clips are loaded, cut, and their features extracted one by one, then padded.

Shapes: C clips, S samples, n extracted features (samples or mel frames), M mel bands.
"""

import os
import warnings
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .audio_loading import AudioError, load_audio


class SpeechInputs:
    """What processors of speech share. They set the attributes below.

    Args:
        feature_extractor: that of the encoder.
        frame_kernel, frame_stride: `F = (n - frame_kernel) // frame_stride + 1` encoder frames come of n features.
        encoding: `"clip"` or `"window"`, as in the model's configuration.
        chunk_seconds: longer audio is cut into chunks; an encoder with a fixed window is always cut at its window.
        max_audio_seconds: a longer clip is refused.
    """

    feature_extractor: Any
    frame_kernel: int
    frame_stride: int
    encoding: str
    chunk_seconds: float | None
    max_audio_seconds: float | None

    @property
    def sampling_rate(self) -> int:
        """Samples a second that the encoder wants."""
        return self.feature_extractor.sampling_rate

    def load(self, source: Any, rate: int | None = None, index: int = 0, name: str | None = None) -> np.ndarray:
        """One clip [S] at the encoder's rate. Raises `AudioError` when it cannot be used or exceeds the limits.

        Errors call it `name`, else its path, else by its place `index`.
        """
        name = name or _name(source, index)
        clip = load_audio(source, self.sampling_rate, source_sampling_rate=rate, name=name)
        seconds = len(clip) / self.sampling_rate
        if self.max_audio_seconds is not None and seconds > self.max_audio_seconds:
            raise AudioError(
                f"{name}: {seconds:.2f} s is longer than max_audio_seconds={self.max_audio_seconds}. "
                f"Cut it, or raise the limit"
            )
        if len(clip) < self.minimum_samples:
            raise AudioError(
                f"{name}: {len(clip)} samples are too few; this encoder needs {self.minimum_samples}. Leave it out"
            )
        return clip

    @property
    def window_samples(self) -> int | None:
        """Samples of the encoder's fixed window; `None` for an encoder that takes any length."""
        return getattr(self.feature_extractor, "n_samples", None)

    def chunks(self, clip: np.ndarray) -> list[np.ndarray]:
        """Cuts one clip [S]. What is left at the end is dropped where it is too short for a single frame."""
        limits = [self.window_samples, round(self.chunk_seconds * self.sampling_rate) if self.chunk_seconds else None]
        size = min((limit for limit in limits if limit), default=len(clip))
        pieces = [clip[start : start + size] for start in range(0, len(clip), size)]
        return [piece for piece in pieces if len(piece) >= self.minimum_samples]

    def extract(self, chunk: np.ndarray) -> tuple[np.ndarray, int]:
        """Features of one chunk, alone, so that no neighbor can change them; and how many of them are valid."""
        padding = "max_length" if self.encoding == "window" and self.window_samples else False
        extracted = self.feature_extractor(
            chunk, sampling_rate=self.sampling_rate, padding=padding, return_attention_mask=True, return_tensors="np"
        )
        features = extracted[self.feature_extractor.model_input_names[0]][0]
        if padding:
            return features, len(chunk) // self.feature_extractor.hop_length
        return features, features.shape[self.time_axis]

    @cached_property
    def time_axis(self) -> int:
        """Which axis of the features is time: the one that grows with the clip."""
        short, long = (self._silence_features(self.sampling_rate // part).shape for part in (4, 2))
        return next(axis for axis in range(len(short)) if short[axis] != long[axis])

    @cached_property
    def minimum_samples(self) -> int:
        """The shortest clip of which the encoder makes a frame, in samples."""
        return 1 + bisect_left(range(1, self.sampling_rate), True, key=self._makes_a_frame)

    def _silence_features(self, samples: int) -> np.ndarray:
        silence = np.zeros(samples, dtype=np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a single frame has no variance
            extracted = self.feature_extractor(
                silence, sampling_rate=self.sampling_rate, padding=False, return_tensors="np"
            )
        return extracted[self.feature_extractor.model_input_names[0]][0]

    def _makes_a_frame(self, samples: int) -> bool:
        try:
            return self.frames(self._silence_features(samples).shape[self.time_axis]) >= 1
        except (RuntimeError, ValueError):  # how feature extractors answer audio below one analysis window
            return False

    def frames(self, features: int) -> int:
        """Encoder frames that come from so many features."""
        return (features - self.frame_kernel) // self.frame_stride + 1

    def pad(self, extracted: Sequence[tuple[np.ndarray, int]]) -> dict[str, np.ndarray]:
        """`input_features` and `input_features_mask` [C, n] of what `extract` gave for several chunks."""
        features, valid = zip(*extracted, strict=True)
        padded = pad_features(features, self.time_axis)
        return {
            "input_features": padded,
            "input_features_mask": padding_masks(valid, padded.shape[1 + self.time_axis]),
        }


def _name(source: Any, index: int) -> str:
    """What errors call a clip: its path where it has one, else its place."""
    path = source.get("path") if isinstance(source, Mapping) else source
    return str(path) if isinstance(path, (str, os.PathLike)) else f"clip {index}"


def pad_features(features: Sequence[np.ndarray], time_axis: int) -> np.ndarray:
    """Stacks [n, M] (or [M, n], or [n]) along a new first axis, zeros at the end of time."""
    longest = max(chunk.shape[time_axis] for chunk in features)
    widths = [[(0, 0)] * chunk.ndim for chunk in features]
    for chunk, width in zip(features, widths, strict=True):
        width[time_axis] = (0, longest - chunk.shape[time_axis])
    return np.stack([np.pad(chunk, width) for chunk, width in zip(features, widths, strict=True)]).astype(np.float32)


def padding_masks(valid: Sequence[int], size: int) -> np.ndarray:
    """[C] counts -> [C, size] ones and zeros."""
    return (np.arange(size) < np.asarray(valid)[:, None]).astype(np.int64)
