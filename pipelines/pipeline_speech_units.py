"""Speech to units: what is said, in indices of a codebook, and how long each lasts.

    pipeline("speech-units", model="org/units")("clip.wav")
    {"units": [12, 66, 17], "durations": [0.06, 0.1, 0.02], "seconds": 0.2, "frame_rate": 50.0}

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from .clip_pieces import Clip
from .speech_pipeline import SpeechPipeline


class SpeechUnitsPipeline(SpeechPipeline):
    """Units of clips by a `SpeechUnitModel`: neighbors differ, and each lasts one frame at least.

    Clips of any length are taken: what the encoder cannot read at once is cut where the processor cuts it, and the
    units are joined, as in training. `chunk_seconds` is therefore refused. Inputs: see `SpeechPipeline`.

    Returns for each clip a dictionary:

        units: indices of the codebook, smoothed and deduplicated as the configuration says.
        durations: of each, in seconds. They sum to the clip but for a frame or two at its end.
        seconds: of the clip.
        frame_rate: frames a second.
    """

    refusal = "has no codebook of units; take a SpeechUnitModel, as examples/train_units.py makes it"

    @classmethod
    def takes(cls, config: PreTrainedConfig, architecture: str) -> bool:
        return architecture == "SpeechUnitModel"

    @property
    def wanted_rate(self) -> int:
        return self.processor.sampling_rate

    def _checked(self, chunk_seconds: float) -> float:
        raise ValueError("units are joined whatever a clip's length; leave chunk_seconds out")

    def prepare(self, samples: np.ndarray, name: str) -> list[tuple[np.ndarray, int]]:
        """Features of the chunks of a clip."""
        clip = self.processor.load(samples, name=name)
        return [self.processor.extract(chunk) for chunk in self.processor.chunks(clip)]

    def answers(self, clips: Sequence[Clip], **parameters: Any) -> list[dict[str, Any]]:
        if parameters:
            raise ValueError(f"this pipeline has no parameter '{min(parameters)}'; leave it out")
        chunks = [chunk for clip in clips for chunk in clip.pieces[0].content]
        found = iter(
            unit_frames
            for start in range(0, len(chunks), len(clips))
            for unit_frames in self._frames(chunks[start : start + len(clips)])
        )
        return [self._result(clip, [unit for _ in clip.pieces[0].content for unit in next(found)]) for clip in clips]

    def _frames(self, chunks: Sequence[tuple[np.ndarray, int]]) -> list[list[int]]:
        batch = {name: torch.from_numpy(array) for name, array in self.processor.pad(chunks).items()}
        return self.model.extract(**self.on_device(batch))

    def _result(self, clip: Clip, frames: list[int]) -> dict[str, Any]:
        units, rate = self.processor.units(frames), self.model.config.frame_rate
        durations = [frames / rate for frames in units.durations]
        return {"units": units.units, "durations": durations, "seconds": clip.seconds, "frame_rate": rate}


__all__ = ["SpeechUnitsPipeline"]
