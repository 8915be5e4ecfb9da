"""Varied speech: a function of (seed, epoch, row) that keeps labels, clips and everything else."""

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset
from torch.utils.data import DataLoader

from speechzoo.data.augmentation import VariedExamples, vary_speech

RATE = 16_000


@pytest.fixture
def examples(tmp_path) -> Dataset:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, rng.uniform(-0.5, 0.5, 4000 + 100 * number), RATE)
        rows.append({"id": f"clip{number}", "audio": str(path), "target": f"word {number}", "length": 0.25})
    return Dataset.from_list(rows).cast_column("audio", Audio(decode=False))


def same(first: dict, second: dict) -> bool:
    labels = [{key: value for key, value in row.items() if key != "audio"} for row in (first, second)]
    return labels[0] == labels[1] and np.array_equal(first["audio"], second["audio"])


def test_labels_stay_in_every_epoch(examples):
    varied = VariedExamples(examples, RATE, epochs=4, seed=0)
    assert len(varied) == 12
    assert [row["target"] for row in varied] == [f"word {number}" for number in range(3)] * 4
    assert varied["target"] == [row["target"] for row in varied]
    assert all(row["audio"].dtype == np.float32 and np.isfinite(row["audio"]).all() for row in varied)


def test_each_seed_epoch_and_row_sounds_its_own_way(examples):
    first, second = (VariedExamples(examples, RATE, epochs=8, seed=seed) for seed in (0, 1))
    epochs = {first[3 * epoch]["audio"].tobytes() for epoch in range(8)}
    assert len(epochs) > 4, "some are left as they are, most are not"
    assert any(not np.array_equal(first[row]["audio"], second[row]["audio"]) for row in range(24))


def test_reading_order_and_workers_change_nothing(examples):
    varied = VariedExamples(examples, RATE, epochs=4, seed=7)
    in_order = [varied[row] for row in range(12)]
    backward = [varied[row] for row in reversed(range(12))][::-1]
    again = list(DataLoader(VariedExamples(examples, RATE, 4, 7), batch_size=None, num_workers=2, collate_fn=_as_is))
    for row in range(12):
        assert same(in_order[row], backward[row]) and same(in_order[row], again[row])


def _as_is(row):
    return row


def test_longer_runs_begin_as_shorter_ones(examples):
    short, long = (VariedExamples(examples, RATE, epochs, seed=3) for epochs in (2, 5))
    assert all(same(short[row], long[row]) for row in range(6))


def test_rows_beyond_the_end(examples):
    with pytest.raises(IndexError, match="row 6 of 6"):
        VariedExamples(examples, RATE, epochs=2)[6]


def test_speed_moves_pitch_with_length():
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    for seed in range(40):
        varied = vary_speech(tone, np.random.default_rng(seed))
        speed = len(tone) / len(varied)
        assert 0.84 < speed < 1.18
        loudest = np.abs(np.fft.rfft(varied)).argmax() * RATE / len(varied)
        assert loudest == pytest.approx(440 * speed, rel=0.01)


def test_noise_keeps_its_distance():
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    ratios = []
    for seed in range(60):
        varied = vary_speech(tone, np.random.default_rng(seed))
        if len(varied) == len(tone):
            ratios.append(10 * np.log10(np.mean(tone**2) / max(np.mean((varied - tone) ** 2), 1e-12)))
    assert min(ratios) > 4 and sum(ratio < 36 for ratio in ratios) > 5, "5 to 35 dB, in about half of the clips"
