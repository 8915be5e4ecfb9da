"""Which unit each frame of an encoder is to predict, wherever the units come from: what is said at the frame's middle.

    clock = LabelClock.of(model.config)
    clock.phones([("HH", 0.0, 0.1), ("AY", 0.1, 0.4)], seconds=0.5, vocabulary)    # phones with times
    clock.units([12, 12, 66, 17], rate=50.0)                                       # a unit for each frame of another

The first frame of a HuBERT sees samples 0 to 399 at 16 kHz, so that its middle is at 12.5 ms, and not at 10.

Shapes: L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..configuration.configuration_joint_encoders import JointEncoderConfig
from ..processing.unit_vocabulary import SILENCE, UnitVocabulary
from .timed_labels import TimedLabel

__all__ = ["UNKNOWN", "LabelClock", "Labels"]

Labels: TypeAlias = npt.NDArray[np.int32]
UNKNOWN = "<unk>"
_ROUNDING = 1e-6  # seconds; times of corpora are rounded to milliseconds


@dataclass(frozen=True)
class LabelClock:
    """When the labels of a clip are taken.

    Args:
        first: seconds at which the first is.
        rate: labels a second.
    """

    first: float
    rate: float

    @classmethod
    def of(cls, config: JointEncoderConfig) -> LabelClock:
        """That of a model. Where a frame has several labels, its middle is in the midst of them."""
        middle = config.frame_kernel / 2 / config.sampling_rate
        more = int(config.label_rate / config.frame_rate) - 1
        return cls(middle - more / 2 / config.label_rate, config.label_rate)

    def times(self, seconds: float) -> npt.NDArray[np.float64]:
        """Seconds of all labels [L] of a clip that lasts so long."""
        count = max(int(np.ceil((seconds - self.first) * self.rate - _ROUNDING)), 0)
        return self.first + np.arange(count) / self.rate

    def phones(self, timed: Sequence[TimedLabel], seconds: float, vocabulary: UnitVocabulary) -> Labels:
        """Ids [L] of the phones that are said, silence between them, `<unk>` for a phone that has no id.

        Args:
            timed: phones with start and end in seconds, in order of time.
            seconds: of the clip.
        """
        times = self.times(seconds) + _ROUNDING
        labels = np.full(len(times), vocabulary.id(SILENCE), dtype=np.int32)
        for phone, start, end in timed:
            known = phone if phone in vocabulary else UNKNOWN
            labels[(times >= start) & (times < end)] = vocabulary.id(known)
        return labels

    def units(self, units: Sequence[int], rate: float) -> Labels:
        """Units [L] of a clip that has one for each frame of another encoder, `rate` frames a second.

        Unit k lasts from k / rate to (k + 1) / rate.
        """
        places = np.floor((self.times(len(units) / rate) + _ROUNDING) * rate).astype(int)
        return np.asarray(units, dtype=np.int32)[np.minimum(places, len(units) - 1)]
