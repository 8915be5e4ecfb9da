"""Units of frames: runs counted once, the mode filter, and the processor that applies both."""

import itertools

import numpy as np
import pytest
from speech_text_cases import clip
from transformers import AutoFeatureExtractor

from speechzoo import SpeechUnitProcessor
from speechzoo.processing.audio_loading import AudioError
from speechzoo.processing.speech_units import Units, deduplicate, smooth


def mode_by_hand(frames, width):
    """The definition, one frame at a time: most frequent in the window; own first, then earliest."""
    result = []
    for place in range(len(frames)):
        window = [frames[near] for near in range(len(frames)) if abs(near - place) <= width // 2]
        most = max(window.count(unit) for unit in window)
        best = [unit for unit in window if window.count(unit) == most]
        result.append(frames[place] if frames[place] in best else best[0])
    return result


@pytest.mark.parametrize("width", [1, 3, 5, 7])
def test_the_mode_filter_on_every_short_clip(width):
    for length in range(1, 8):
        for frames in itertools.product(range(3), repeat=length):
            assert smooth(frames, width) == mode_by_hand(frames, width)


def test_the_mode_filter_on_long_clips():
    frames = np.random.default_rng(0).integers(0, 4, 300).tolist()
    assert smooth(frames, 5) == mode_by_hand(frames, 5)
    assert smooth([7, 7, 2, 7, 7, 3, 3, 3], 3) == [7, 7, 7, 7, 7, 3, 3, 3]
    assert smooth([], 5) == []


@pytest.mark.parametrize("width", [0, -1, 4])
def test_an_even_filter_is_refused(width):
    with pytest.raises(ValueError, match=r"odd"):
        smooth([1, 2], width)


def test_runs_are_counted_once():
    assert deduplicate([5, 5, 5, 1, 5, 5]) == Units([5, 1, 5], [3, 1, 2])
    assert deduplicate([]) == Units([], [])


def test_expanding_gives_the_frames_back():
    generator = np.random.default_rng(0)
    for length in range(60):
        frames = generator.integers(0, 3, length).tolist()
        units = deduplicate(frames)
        assert units.expanded() == frames and units.frames == length
        assert all(first != second for first, second in itertools.pairwise(units.units))
        start, end = sorted(generator.integers(0, length + 1, 2).tolist())
        assert deduplicate(units.expanded()[start:end]) == deduplicate(frames[start:end])


@pytest.mark.parametrize(
    ("units", "durations", "message"),
    [([1, 2], [1], "one for each"), ([1, 1], [1, 1], "neighbors"), ([1, 2], [1, 0], "at least one")],
)
def test_units_that_contradict_themselves_are_refused(units, durations, message):
    with pytest.raises(ValueError, match=message):
        Units(units, durations)


@pytest.fixture(scope="module")
def processor(backbones):
    extractor = AutoFeatureExtractor.from_pretrained(backbones.encoder("hubert"))
    return SpeechUnitProcessor(extractor, frame_kernel=410, smoothing=3, chunk_seconds=2.0)


def test_the_processor_smooths_and_deduplicates(processor):
    assert processor.units([4, 4, 9, 4, 4, 2, 2]) == Units([4, 2], [5, 2])


def test_a_clip_is_extracted_alone(processor):
    batch = processor([clip(9000), clip(5123, 1)])
    assert batch["input_features"].shape == (2, 9000) and batch["input_features_mask"].sum(-1).tolist() == [9000, 5123]
    single = processor(clip(5123, 1))["input_features"][0]
    assert (batch["input_features"][1, :5123] == single).all() and not batch["input_features"][1, 5123:].any()


def test_clips_that_cannot_be_used_are_named(processor):
    with pytest.raises(AudioError, match=r"greeting: 100 samples are too few"):
        processor(np.full(100, 0.1, dtype=np.float32), names=["greeting"])
    with pytest.raises(AudioError, match=r"longer than a chunk"):
        processor(clip(40000))
    assert [len(chunk) for chunk in processor.chunks(clip(70000))] == [32000, 32000, 6000]
