"""Measures of units against counts by hand, against scikit-learn, and at their extremes."""

import math

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from speechzoo.evaluation.unit_quality import (
    UnitCounts,
    cluster_purity,
    count_units,
    frame_labels,
    phone_purity,
    pnmi,
)
from speechzoo.processing.speech_units import deduplicate


def test_counts_by_hand():
    # Unit 0: a a b; unit 1: b b; unit 2: a.
    frames, labels = [0, 0, 0, 1, 1, 2], ["a", "a", "b", "b", "b", "a"]
    quality = count_units([(frames, deduplicate(frames), labels)], clusters=4, frame_rate=50.0)
    assert quality.phone_purity == pytest.approx((2 + 2 + 1) / 6)
    assert quality.cluster_purity == pytest.approx((2 + 2) / 6)
    # H(phone) = ln 2; H(phone | unit) = 3/6 of the entropy of (2/3, 1/3), which is ln 3 - 2/3 ln 2.
    left = 0.5 * (math.log(3) - 2 / 3 * math.log(2))
    assert quality.pnmi == pytest.approx((math.log(2) - left) / math.log(2))
    assert quality.units_per_second == pytest.approx(3 / (6 / 50))
    assert (quality.used_clusters, quality.phones, quality.frames, quality.clips) == (3, 2, 6, 1)
    assert quality.inertia is None


def test_pnmi_is_that_of_scikit_learn_over_many_clips():
    generator = np.random.default_rng(0)
    units = generator.integers(0, 12, 5000)
    labels = np.where(generator.random(5000) < 0.6, units % 5, generator.integers(0, 5, 5000))
    clips = [
        (units[start : start + 77].tolist(), deduplicate(units[start : start + 77].tolist()),
         [f"p{label}" for label in labels[start : start + 77]])
        for start in range(0, 5000, 77)
    ]  # fmt: skip
    quality = count_units(clips, 12, 50.0)
    entropy = mutual_info_score(labels, labels)
    assert quality.pnmi == pytest.approx(mutual_info_score(labels, units) / entropy)
    assert quality.clips == 65 and quality.frames == 5000


def test_extremes():
    perfect, useless = np.diag([5, 3, 9]), np.outer([6, 2, 4], [1, 5])
    assert phone_purity(perfect) == cluster_purity(perfect) == 1.0 and pnmi(perfect) == pytest.approx(1.0)
    assert pnmi(useless) == pytest.approx(0.0, abs=1e-12) and phone_purity(useless) == 0.5
    assert pnmi(np.array([[4, 5]])) == 0.0
    split = np.array([[5, 0, 5, 0], [0, 4, 0, 4]])
    assert pnmi(split) == pytest.approx(1.0) and cluster_purity(split) == 0.5, "two clusters for each phone"


def test_smoothing_counts_for_the_rate_alone():
    frames = [0, 0, 1, 0, 0]
    rough = count_units([(frames, deduplicate(frames), ["a"] * 5)], 2, 50.0)
    smoothed = count_units([(frames, deduplicate([0] * 5), ["a"] * 5)], 2, 50.0)
    assert rough.units_per_second == 3 * smoothed.units_per_second
    assert rough.phone_purity == smoothed.phone_purity and rough.used_clusters == smoothed.used_clusters == 2


def test_inertia_is_the_mean_over_frames():
    counts = UnitCounts(2, 50.0)
    counts.add([0, 1, 1], deduplicate([0, 1, 1]))
    counts.add_distances(np.array([1.0, 2.0]))
    counts.add_distances(np.array([6.0]))
    quality = counts.quality()
    assert quality.inertia == 3.0
    assert quality.pnmi is None and quality.phone_purity is None and quality.cluster_purity is None


def test_wrong_input_is_refused():
    counts = UnitCounts(3, 50.0)
    with pytest.raises(ValueError, match=r"add clips first"):
        counts.quality()
    with pytest.raises(ValueError, match=r"2 labels came with 3 frames"):
        counts.add([0, 1, 2], deduplicate([0, 1, 2]), ["a", "b"])
    with pytest.raises(ValueError, match=r"0 to 2"):
        counts.add([0, 3], deduplicate([0, 3]))


def test_a_frame_has_the_phone_in_its_middle():
    phones = [("a", 0.031, 0.07), ("b", 0.07, 0.09), ("c", 0.5, 0.6)]
    assert frame_labels(phones, 6, 50.0) == ["SIL", "SIL", "a", "b", "SIL", "SIL"]
    middles = (np.arange(40) + 0.5) / 50
    timed = [(f"p{index}", index * 0.0431, (index + 1) * 0.0431) for index in range(30)]
    expected = [next(label for label, start, end in timed if start <= middle < end) for middle in middles]
    assert frame_labels(timed, 40, 50.0) == expected
    assert frame_labels([("a", 0.0, 9.0)], 3, 50.0) == ["a"] * 3 and frame_labels([], 2, 50.0) == ["SIL"] * 2
