"""What inputs are called, and where long clips are cut."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from speechzoo.pipelines.clip_pieces import Source, cut_at_pauses, source_of, sources_of

RATE = 1000


@pytest.mark.parametrize("samples", [1, 999, 1000, 1001, 1003, 1250, 1999, 2001, 5377])
def test_pieces_cover_the_clip_and_none_is_long_or_tiny(samples):
    noise = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    pieces = cut_at_pauses(noise, RATE, 1.0)
    assert pieces[0][0] == 0 and pieces[-1][1] == samples
    assert all(end == start for (_, end), (start, _) in pairwise(pieces))
    assert all(end - start <= RATE for start, end in pieces)
    assert len(pieces) == 1 or all(end - start >= RATE // 4 for start, end in pieces)


def test_cuts_are_made_in_pauses():
    loud = np.ones(3000, dtype=np.float32)
    loud[700:800] = loud[1300:1420] = 0.0
    cuts = [end for _, end in cut_at_pauses(loud, RATE, 1.0)][:-1]
    assert 700 < cuts[0] < 800 and 1300 < cuts[1] < 1420


def test_inputs_have_names():
    assert [one.name for one in sources_of(["a.wav", np.zeros(3), {"path": "b.wav"}, Path("c.wav")])] == [
        *("a.wav", "clip 1", "b.wav", "c.wav")
    ]
    row = {"id": "call 7", "audio": b"RIFF", "instruction": "why?"}
    assert source_of(row) == Source(b"RIFF", "call 7", row)
    assert source_of(source_of(row, 3), 4).name == "call 7"


def test_numbers_in_a_list_are_one_clip():
    assert sources_of([0.0, 0.1]).audio == [0.0, 0.1]
    assert [one.audio for one in sources_of([[0.0, 0.1], [0.2]])] == [[0.0, 0.1], [0.2]]
