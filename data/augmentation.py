"""Speech that sounds different each time it is trained on, while its labels stay."""

from typing import Any

import datasets
import numpy as np
import soxr
from torch.utils.data import Dataset

from ..processing.audio_loading import load_audio


def vary_speech(samples: np.ndarray, rng: np.random.Generator, sampling_rate: int = 16_000) -> np.ndarray:
    """Random speed with pitch and formants (0.85 to 1.15), telephone band and noise; float32 [S]."""
    if rng.random() < 0.6:
        samples = soxr.resample(samples, sampling_rate, sampling_rate * rng.uniform(0.85, 1.15))
    if rng.random() < 0.3:
        samples = soxr.resample(soxr.resample(samples, sampling_rate, 8000), 8000, sampling_rate)
    if rng.random() < 0.5:
        noise = rng.standard_normal(len(samples)).astype(np.float32)
        if rng.random() < 0.5:
            noise = np.convolve(noise, np.full(8, 0.35, np.float32), mode="same")  # as room noise: mostly low
        level = np.sqrt(np.mean(samples**2)) * 10 ** (-rng.uniform(5, 35) / 20)
        samples = samples + level * noise
    return samples.astype(np.float32)


class VariedExamples(Dataset):
    """Several epochs of `task_examples` laid end to end, the speech of each row varied anew in each epoch.

    What a row sounds like is a function of (seed, epoch, row): no order of reading, number of processes or
    interruption changes it. A row comes by its number, a whole column by its name, as `datasets.Dataset` has it. Clips
    are decoded once and held in memory.
    """

    def __init__(self, examples: datasets.Dataset, sampling_rate: int, epochs: int, seed: int = 0) -> None:
        self.rows = list(examples.remove_columns("audio"))
        self.clips = [load_audio(source, sampling_rate) for source in examples["audio"]]  # [S] each
        self.sampling_rate, self.epochs, self.seed = sampling_rate, epochs, seed

    def __len__(self) -> int:
        return self.epochs * len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return [row[key] for row in self.rows] * self.epochs
        if not 0 <= key < len(self):  # what ends an iteration
            raise IndexError(f"row {key} of {len(self)}")
        epoch, row = divmod(int(key), len(self.rows))
        rng = np.random.default_rng([self.seed, epoch, row])
        return {**self.rows[row], "audio": vary_speech(self.clips[row], rng, self.sampling_rate)}
