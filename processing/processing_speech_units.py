"""Audio in, features and units out. Saved beside a unit model.

Shapes: C clips, n extracted features (samples or mel frames).
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoFeatureExtractor, PreTrainedConfig
from transformers.feature_extraction_utils import BatchFeature

from ..configuration.hub_pushing import PushedProcessor
from .audio_loading import AudioError
from .speech_inputs import SpeechInputs
from .speech_units import Units, deduplicate, smooth


class SpeechUnitProcessor(PushedProcessor, SpeechInputs):
    """Prepares clips for a unit model, and shortens what it says.

    Args:
        feature_extractor: that of the encoder.
        frame_kernel, frame_stride, encoding, smoothing: as in the model's configuration.
        chunk_seconds: longer audio is cut into chunks whose units are laid end to end; an encoder with a fixed window
            is always cut at its window.
        max_audio_seconds: a longer clip is refused.
    """

    def __init__(
        self,
        feature_extractor: Any,
        frame_kernel: int = 400,
        frame_stride: int = 320,
        encoding: str = "clip",
        smoothing: int = 1,
        chunk_seconds: float | None = None,
        max_audio_seconds: float | None = None,
    ) -> None:
        self.frame_kernel, self.frame_stride = frame_kernel, frame_stride
        self.encoding, self.smoothing = encoding, smoothing
        self.chunk_seconds, self.max_audio_seconds = chunk_seconds, max_audio_seconds
        super().__init__(feature_extractor)

    @classmethod
    def from_model_config(
        cls, config: PreTrainedConfig, hub: dict[str, Any] | None = None, **fields: Any
    ) -> "SpeechUnitProcessor":
        """The processor of a model that `from_encoder` made.

        Also tells `config` the sampling rate and the frame rate, so call it before training and saving.

        Args:
            config: a `SpeechUnitConfig` that names its encoder.
            hub: arguments of every download, such as `token`.
            **fields: arguments of the constructor.
        """
        source = config.audio_model_id
        pin = {} if os.path.isdir(source) else {"revision": config.audio_model_revision}
        extractor = AutoFeatureExtractor.from_pretrained(source, **pin, **(hub or {}))
        shared = ("frame_kernel", "frame_stride", "encoding", "smoothing")
        processor = cls(extractor, **{name: getattr(config, name) for name in shared}, **fields)
        config.sampling_rate, config.frame_rate = processor.sampling_rate, processor.frame_rate
        return processor

    @property
    def frame_rate(self) -> float:
        """Frames a second, without what the edges cost."""
        return self.sampling_rate / (self.samples_per_feature * self.frame_stride)

    @property
    def samples_per_feature(self) -> int:
        """1 for an encoder of waveforms, the hop for one of spectrograms."""
        one, two = (self._silence_features(seconds * self.sampling_rate).shape[self.time_axis] for seconds in (1, 2))
        return round(self.sampling_rate / (two - one))

    @property
    def model_input_names(self) -> list[str]:
        return ["input_features", "input_features_mask"]

    def __call__(
        self,
        audio: Any,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        names: Sequence[str] | None = None,
    ) -> BatchFeature:
        """Features of clips that need no chunks, each extracted alone, so that no neighbor can change them.

        Args:
            audio: one clip or a list; whatever `load_audio` takes: paths, arrays, dictionaries.
            sampling_rate: of arrays; the encoder's by default.
            names: what errors call the clips.

        Returns:
            `input_features` and `input_features_mask` [C, n].

        Raises `AudioError` for a clip that cannot be used, and for one that is longer than the encoder's window.
        """
        sources = list(audio) if isinstance(audio, (list, tuple)) and not _is_samples(audio) else [audio]
        clips = [
            self.load(source, sampling_rate, index, names[index] if names else None)
            for index, source in enumerate(sources)
        ]
        for index, clip in enumerate(clips):
            if len(self.chunks(clip)) > 1:
                raise AudioError(
                    f"clip {index} of {len(clip) / self.sampling_rate:.2f} s is longer than a chunk; cut it by "
                    f"`chunks` and join the units"
                )
        return BatchFeature(self.pad([self.extract(clip) for clip in clips]), tensor_type=return_tensors)

    def units(self, frames: Sequence[int]) -> Units:
        """Frame units of a clip, smoothed as the configuration says, then deduplicated."""
        return deduplicate(smooth(frames, self.smoothing))


def _is_samples(audio: Sequence[Any]) -> bool:
    return len(audio) > 0 and isinstance(audio[0], (int, float, np.number))


__all__ = ["SpeechUnitProcessor"]
