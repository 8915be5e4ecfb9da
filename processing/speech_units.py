"""Frame units, and what makes them shorter: smoothing by the most frequent neighbor, and runs counted once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Units:
    """Deduplicated units of a clip: neighbors differ.

    Args:
        units: codebook indices.
        durations: how many frames each lasts; at least one.

    Raises `ValueError` where the two do not belong together.
    """

    units: list[int]
    durations: list[int]

    def __post_init__(self) -> None:
        if len(self.units) != len(self.durations):
            raise ValueError(f"{len(self.units)} units came with {len(self.durations)} durations; give one for each")
        if any(duration < 1 for duration in self.durations):
            raise ValueError(f"a duration is {min(self.durations)} frames; a unit lasts at least one")
        if any(first == second for first, second in zip(self.units, self.units[1:], strict=False)):
            raise ValueError("two neighbors are the same unit; make units of frames by deduplicate")

    def __len__(self) -> int:
        return len(self.units)

    @property
    def frames(self) -> int:
        """Frames of the clip."""
        return sum(self.durations)

    def expanded(self) -> list[int]:
        """The unit of every frame."""
        return [unit for unit, duration in zip(self.units, self.durations, strict=True) for _ in range(duration)]


def deduplicate(frames: Sequence[int]) -> Units:
    """Frame units -> units and durations; `expanded` gives the frames back."""
    runs = [(unit, len(list(run))) for unit, run in groupby(frames)]
    return Units([unit for unit, _ in runs], [duration for _, duration in runs])


def smooth(frames: Sequence[int], width: int) -> list[int]:
    """Mode filter: each frame becomes the most frequent unit of the `width` frames around it.

    At the ends the window is cut. A frame keeps its own unit where that is among the most frequent; else the earliest
    of them in the window wins. Raises `ValueError` unless `width` is odd and positive.
    """
    if width < 1 or width % 2 == 0:
        raise ValueError(f"the mode filter is {width} frames wide; give an odd number, 1 for none")
    reach = width // 2
    return [_mode(frames[max(0, place - reach) : place + reach + 1], own) for place, own in enumerate(frames)]


def _mode(window: Sequence[int], own: int) -> int:
    counts = Counter(window)
    most = max(counts.values())
    # A Counter keeps the order of first appearance.
    return own if counts[own] == most else next(unit for unit, count in counts.items() if count == most)
