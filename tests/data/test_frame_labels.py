"""Labels of frames: what is said at the middle of each, at every rate; and what timed corpora teach of speaking."""

import numpy as np
import pytest

from speechzoo import SpeechLMConfig
from speechzoo.data.frame_labels import LabelClock
from speechzoo.data.spoken_phones import SpokenClip, duration_fields, spoken_inventory, spoken_lexicon
from speechzoo.processing.unit_vocabulary import UnitVocabulary

VOCABULARY = UnitVocabulary(["SIL", "SPN", "A", "B", "C"])
HUBERT = SpeechLMConfig.preset("tiny")


def spoken(seed: int, count: int = 40) -> tuple[list, float]:
    """Phones one after the other with gaps between some, times in whole milliseconds, and the clip's length."""
    random = np.random.default_rng(seed)
    now, phones = 0.0, []
    for _ in range(count):
        start = now + float(random.choice([0.0, 0.0, 0.033]))
        now = start + int(random.integers(5, 150)) / 1000
        phones.append((str(random.choice(["A", "B", "C"])), round(start, 3), round(now, 3)))
    return phones, now + 0.1


def said_at(phones: list, seconds: float) -> str:
    return next((phone for phone, start, end in phones if start <= seconds < end), "SIL")


@pytest.mark.parametrize("seed", range(3))
def test_a_frame_is_what_is_said_at_its_middle(seed):
    """Frame i of a HuBERT sees samples 320 i to 320 i + 399."""
    phones, seconds = spoken(seed)
    labels = LabelClock.of(HUBERT).phones(phones, seconds, VOCABULARY)
    frames = (int(seconds * 16000) - 400) // 320 + 1
    assert frames <= len(labels) <= frames + 1
    expected = [VOCABULARY.id(said_at(phones, (320 * i + 200) / 16000 + 1e-6)) for i in range(len(labels))]
    assert labels.tolist() == expected
    shifted = [VOCABULARY.id(said_at(phones, i / 50)) for i in range(len(labels))]
    assert labels.tolist() != shifted, "these phones tell frames apart"


def test_two_labels_of_a_frame_lie_around_its_middle():
    one, two = (LabelClock.of(SpeechLMConfig.preset("tiny", label_rate=rate)).times(3.0) for rate in (50.0, 100.0))
    pairs = two[: 2 * (len(two) // 2)].reshape(-1, 2)
    np.testing.assert_allclose(pairs.mean(1), one[: len(pairs)], atol=1e-9)
    np.testing.assert_allclose(np.diff(pairs, axis=1), 0.01, atol=1e-9)


@pytest.mark.parametrize("rate", [25.0, 50.0, 100.0])
def test_units_of_another_encoder_are_taken_at_the_middle_too(rate):
    units = np.random.default_rng(0).integers(0, 90, int(2 * rate)).tolist()
    labels = LabelClock.of(HUBERT).units(units, rate)
    expected = [units[int((320 * i + 200) / 16000 * rate)] for i in range(len(labels))]
    assert labels.tolist() == expected and len(labels) in (99, 100)
    assert rate != 50.0 or labels.tolist() == units[: len(labels)]


def test_an_unknown_phone_is_unknown_and_a_gap_is_silence():
    labels = LabelClock.of(HUBERT).phones([("A", 0.0, 0.1), ("X", 0.2, 0.3)], 0.4, VOCABULARY)
    names = [VOCABULARY.symbol(label) for label in labels]
    assert names == ["A"] * 5 + ["SIL"] * 5 + ["<unk>"] * 5 + ["SIL"] * (len(names) - 15)
    assert not len(LabelClock.of(HUBERT).phones([], 0.01, VOCABULARY)), "a clip that is shorter than half a frame"


CLIPS = [
    SpokenClip([("the", 0.1, 0.2), ("cat", 0.2, 0.5)], [("D", 0.1, 0.15), ("@", 0.15, 0.2), ("k", 0.2, 0.5)], 0.6),
    SpokenClip([("Cat,", 0.0, 0.3), ("the", 0.4, 0.5)], [("k", 0.0, 0.3), ("D", 0.4, 0.45), ("i", 0.45, 0.5)], 0.5),
    SpokenClip([("the", 0.0, 0.1)], [("D", 0.0, 0.04), ("@", 0.04, 0.1)], 0.1),
    # The border between these two was guessed, in the middle of a phone.
    *[SpokenClip([("the", 0.0, 0.07), ("dog", 0.07, 0.2)], [("D", 0.0, 0.06), ("@", 0.06, 0.1), ("g", 0.1, 0.2)], 0.2)]
    * 3,
]  # fmt: skip


def test_words_are_said_as_most_often_where_their_borders_are_known():
    lexicon = spoken_lexicon(CLIPS)
    assert dict(lexicon) == {"the": ("D", "@"), "cat": ("k",), "dog": ("@", "g")}
    assert spoken_inventory(lexicon, CLIPS) == ["SIL", "SPN", "@", "D", "g", "i", "k"]
    with pytest.raises(ValueError, match=r"no clip has words and phones with times"):
        spoken_lexicon([SpokenClip([], [("D", 0.0, 0.1)], 0.1)])


def test_phones_and_silences_last_as_they_are_heard():
    fields = duration_fields(CLIPS * 10, 50.0, most=99)
    law = fields["durations"]
    assert law["most"] == 99
    of_k, everything = [0.3 * 50, 0.3 * 50], [(end - start) * 50 for clip in CLIPS for _, start, end in clip.phones]
    assert law["families"]["k"] == pytest.approx([np.mean(of_k), np.std(of_k)], abs=1e-3)
    assert law["phone"] == pytest.approx([np.mean(everything), np.std(everything)], abs=1e-3)
    assert "i" not in law["families"], "ten are too few"
    assert law["families"]["SIL"] == pytest.approx([np.mean([5, 5, 5]), 0.0], abs=1e-3)
    assert fields["silence_probability"] == 1 / 5, "of five borders between words, one is silent"
