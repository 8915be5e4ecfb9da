"""Copies of clips: the same for the same clip wherever it stands, each of its own sound, labels unchanged."""

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset

from speechzoo.data.varied_copies import varied_copies
from speechzoo.processing.audio_loading import load_audio

RATE = 16_000


@pytest.fixture
def examples(tmp_path) -> Dataset:
    rng, rows = np.random.default_rng(0), []
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, rng.uniform(-0.5, 0.5, 4000 + 100 * number), RATE)
        rows.append({"id": f"clip{number}", "audio": str(path), "target": f"word {number}", "length": 0.25})
    return Dataset.from_list(rows).cast_column("audio", Audio(decode=False))


def sounds(rows: Dataset) -> dict[str, bytes]:
    return {row["id"]: load_audio(row["audio"], RATE).tobytes() for row in rows}


def test_originals_come_first_and_copies_keep_their_labels(examples):
    copied = varied_copies(examples, RATE, copies=2)
    assert list(copied["id"]) == [f"clip{n}" for n in range(4)] + [f"clip{n}+{c}" for c in (1, 2) for n in range(4)]
    assert list(copied["target"]) == list(examples["target"]) * 3
    assert list(copied["audio"])[:4] == list(examples["audio"])
    assert varied_copies(examples, RATE, copies=0).to_list() == examples.to_list()


def test_each_copy_sounds_its_own_way(examples):
    heard = sounds(varied_copies(examples, RATE, copies=8))
    for number in range(4):
        versions = {sound for name, sound in heard.items() if name.startswith(f"clip{number}")}
        assert len(versions) >= 6, "one copy in seven is left as it was"
    assert heard.items() != sounds(varied_copies(examples, RATE, copies=8, seed=1)).items()


def test_other_clips_do_not_change_a_copy(examples):
    whole, part = (sounds(varied_copies(rows, RATE, copies=3)) for rows in (examples, examples.select([3, 1])))
    assert part == {name: sound for name, sound in whole.items() if name[4] in "13"}
