"""Folds of whole groups, of like sizes."""

from collections import Counter

import numpy as np
import pytest

from speechzoo.data.corpora import load_corpus
from speechzoo.data.speaker_folds import balanced_folds, first_number


def test_groups_are_never_parted_and_no_fold_is_empty():
    rng = np.random.default_rng(0)
    for _ in range(20):
        groups = [f"g{number}" for number in rng.integers(12, size=80)]
        folds = balanced_folds(groups, 4)
        assert set(folds) == {0, 1, 2, 3}
        assert len(set(zip(groups, folds, strict=True))) == len(set(groups))


def test_the_largest_group_first_each_to_the_emptiest_fold():
    groups = ["a"] * 2 + ["b"] * 7 + ["c"] * 4 + ["d"] * 3 + ["e"] * 1
    fold_of = dict(zip(groups, balanced_folds(groups, 2), strict=True))
    # b 7 | c 4; d joins c (7 each); a to the first of the two; e to the other.
    assert fold_of == {"b": 0, "c": 1, "d": 1, "a": 0, "e": 1}
    shuffled = [groups[row] for row in np.random.default_rng(0).permutation(len(groups))]
    assert dict(zip(shuffled, balanced_folds(shuffled, 2), strict=True)) == fold_of, "the order of clips is no matter"


def test_too_few_groups():
    with pytest.raises(ValueError, match="2 groups cannot fill 3 folds"):
        balanced_folds(["a", "b", "a"], 3)


def test_first_number():
    assert [first_number(group) for group in ("g33-57", "g01-47", "anna")] == ["g33", "g01", "anna"]


def test_folds_of_the_orders(test_data):
    groups = load_corpus(test_data / "data" / "speech_to_intent", check_audio=False)["speaker_group"]
    numbers = [first_number(group) for group in groups]
    assert len(set(groups)) == 38 and len(set(numbers)) == 18
    assert sorted(Counter(balanced_folds(numbers, 5)).values()) == [71, 71, 71, 84, 139]
