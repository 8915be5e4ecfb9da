"""What units know of phones: purities and shared information, counted over frames; and how many there are.

The measures of HuBERT (arXiv 2106.07447, section IV-D), from a table of how often unit and phone meet in a frame:

- phone purity: share of frames whose phone is the most frequent one of their unit;
- cluster purity: share of frames whose unit is the most frequent one of their phone;
- PNMI: what a unit tells of the phone, as a share of what there is to tell, I(phone; unit) / H(phone).

More clusters raise phone purity and lower cluster purity, so compare at equal K.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from ..data.extracted_units import encode_clips
from ..modeling.modeling_speech_units import SpeechUnitModel
from ..processing.processing_speech_units import SpeechUnitProcessor
from ..processing.speech_units import Units

SILENCE = "SIL"
TimedLabels = Sequence[Sequence[Any]]  # label, start and end in seconds


@dataclass(frozen=True)
class UnitQuality:
    """Measures of a codebook on a corpus.

    Args:
        phone_purity, cluster_purity, pnmi: see above; between 0 and 1, `None` without frame labels.
        units_per_second: after smoothing and deduplication.
        used_clusters: clusters that occur in a frame.
        inertia: mean squared distance of a frame to its centroid, `None` where distances were not kept.
        clips, frames, seconds, phones: what was counted.
    """

    phone_purity: float | None
    cluster_purity: float | None
    pnmi: float | None
    units_per_second: float
    used_clusters: int
    inertia: float | None
    clips: int
    frames: int
    seconds: float
    phones: int


class UnitCounts:
    """Gathers clips one by one; memory does not grow with their number."""

    def __init__(self, clusters: int, frame_rate: float) -> None:
        self.clusters, self.frame_rate = clusters, frame_rate
        self._phones: dict[str, npt.NDArray[np.int64]] = {}  # phone -> how often with each unit [K]
        self._seen = np.zeros(clusters, dtype=np.int64)
        self._clips = self._units = 0
        self._squares, self._measured = 0.0, 0

    def add(self, frames: Sequence[int], units: Units, labels: Sequence[str] | None = None) -> None:
        """A clip.

        Args:
            frames: the unit of every frame, before smoothing.
            units: what is left after smoothing and deduplication.
            labels: the phone of every frame.

        Raises `ValueError` for labels of another number, and for a unit outside the codebook.
        """
        found = np.asarray(frames, dtype=np.int64)
        if found.size and not (found.min() >= 0 and found.max() < self.clusters):
            raise ValueError(f"a unit is {found.min()} or {found.max()}; this codebook has 0 to {self.clusters - 1}")
        self._seen += np.bincount(found, minlength=self.clusters)
        self._clips += 1
        self._units += len(units)
        if labels is None:
            return
        if len(labels) != len(found):
            raise ValueError(f"{len(labels)} labels came with {len(found)} frames; label every frame")
        for phone in set(labels):
            here = found[[label == phone for label in labels]]
            row = self._phones.setdefault(phone, np.zeros(self.clusters, dtype=np.int64))
            row += np.bincount(here, minlength=self.clusters)

    def add_distances(self, squares: npt.NDArray[np.floating]) -> None:
        """Squared distances of frames to their centroids."""
        self._squares += float(squares.sum(dtype=np.float64))
        self._measured += squares.size

    def quality(self) -> UnitQuality:
        """The measures of everything that was added. Raises `ValueError` when there was no frame."""
        frames = int(self._seen.sum())
        if not frames:
            raise ValueError("no frame was counted; add clips first")
        table = np.stack(list(self._phones.values())) if self._phones else None
        return UnitQuality(
            phone_purity=None if table is None else phone_purity(table),
            cluster_purity=None if table is None else cluster_purity(table),
            pnmi=None if table is None else pnmi(table),
            units_per_second=self._units * self.frame_rate / frames,
            used_clusters=int((self._seen > 0).sum()),
            inertia=self._squares / self._measured if self._measured else None,
            clips=self._clips,
            frames=frames,
            seconds=frames / self.frame_rate,
            phones=len(self._phones),
        )


def phone_purity(table: npt.NDArray[np.integer]) -> float:
    """Of counts [phones, units]: the share of frames that have the most frequent phone of their unit."""
    return float(table.max(axis=0).sum() / table.sum())


def cluster_purity(table: npt.NDArray[np.integer]) -> float:
    """Of counts [phones, units]: the share of frames that have the most frequent unit of their phone."""
    return float(table.max(axis=1).sum() / table.sum())


def pnmi(table: npt.NDArray[np.integer]) -> float:
    """Of counts [phones, units]: I(phone; unit) / H(phone). With a single phone nothing is to tell, and it is 0."""
    joint = table / table.sum()
    phones, units = joint.sum(axis=1), joint.sum(axis=0)
    entropy = -float((phones[phones > 0] * np.log(phones[phones > 0])).sum())
    met = joint > 0
    information = float((joint[met] * np.log(joint[met] / np.outer(phones, units)[met])).sum())
    return information / entropy if entropy > 0 else 0.0


def frame_labels(phones: TimedLabels, frames: int, frame_rate: float, silence: str = SILENCE) -> list[str]:
    """The phone in the middle of each frame, and `silence` between phones.

    Args:
        phones: label, start and end in seconds, in order of time.
        frames: how many to label; frame k covers [k / frame_rate, (k + 1) / frame_rate).
    """
    labels = [silence] * frames
    for label, start, end in phones:
        # The first frame whose middle lies at or after `start`, and the first one at or after `end`.
        first, last = (int(np.ceil(round(seconds * frame_rate - 0.5, 6))) for seconds in (start, end))
        labels[max(first, 0) : last] = [label] * (min(last, frames) - max(first, 0))
    return labels


def count_units(
    clips: Iterable[tuple[Sequence[int], Units, Sequence[str] | None]], clusters: int, frame_rate: float
) -> UnitQuality:
    """The measures of clips that are all at hand, as `UnitCounts.add` takes them."""
    counts = UnitCounts(clusters, frame_rate)
    for frames, units, labels in clips:
        counts.add(frames, units, labels)
    return counts.quality()


def measure_units(
    model: SpeechUnitModel,
    processor: SpeechUnitProcessor,
    rows: Dataset,
    phones: Mapping[str, TimedLabels] | None = None,
) -> UnitQuality:
    """The measures of a unit model on recordings, encoded one by one.

    Args:
        rows: with columns `id` and `audio`.
        phones: id -> label, start and end of each phone; without it only what needs no labels is measured.

    Raises `ValueError` for a clip without phones where others have them.
    """
    config = model.config
    counts = UnitCounts(config.clusters, config.frame_rate)
    centroids = model.codebook.centroids.detach().double().cpu().numpy()
    for row in rows:
        if phones and row["id"] not in phones:
            raise ValueError(f"'{row['id']}' has no phones; label every clip, or none")
        [frames] = encode_clips(model, processor, [processor.load(row["audio"], name=row["id"])])
        found = model.nearest(frames)
        labels = frame_labels(phones[row["id"]], len(found), config.frame_rate) if phones else None
        counts.add(found, processor.units(found), labels)
        counts.add_distances(((frames - centroids[found]) ** 2).sum(-1))
    return counts.quality()
