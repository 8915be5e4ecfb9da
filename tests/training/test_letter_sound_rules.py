"""Learning how letters sound: planted spellings are found, alignments are the best of all, rules are few."""

import itertools

import numpy as np
import pytest

from speechzoo.training.letter_sound_rules import align_letters, learn_letter_sounds

# "c" is K, but S before "e"; "x" is two phones; "e" at the end is silent; "ch" is one phone.
SOUNDS = {"a": ("AE",), "b": ("B",), "t": ("T",), "o": ("OW",), "x": ("K", "S"), "n": ("N",)}


def spoken(word: str) -> tuple[str, ...]:
    phones: list[str] = []
    for place, letter in enumerate(word):
        after = word[place + 1 : place + 2]
        if letter == "c":
            phones += ["S"] if after == "e" else ["CH"] if after == "h" else ["K"]
        elif letter == "e":
            phones += ["EH"] if after else []
        elif letter != "h":
            phones += SOUNDS[letter]
    return tuple(phones)


@pytest.fixture(scope="module")
def planted():
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("aabbttoxnce"), int(random.integers(2, 8)))) for _ in range(900)]
    words += [word.replace("c", "ch") for word in words[:200]]
    return {word: spoken(word) for word in words if spoken(word) and "hh" not in word}


def test_planted_spellings_are_learned(planted):
    known = dict(list(planted.items())[::2])
    sounds = learn_letter_sounds(known, least_gain=2)
    unseen = [word for word in planted if word not in known]
    right = sum(sounds(word) == planted[word] for word in unseen)
    assert len(unseen) > 200 and right / len(unseen) > 0.97
    assert sounds("xen") == ("K", "S", "EH", "N") and sounds("cha") == ("CH", "AE")


def test_a_rule_must_correct_enough(planted):
    few, many = (learn_letter_sounds(planted, least_gain=gain) for gain in (50, 2))
    assert set(few.rules) <= set(many.rules) or len(few.rules) < len(many.rules)
    assert sum(len(rule) > 3 for rule in few.rules) < 12


def test_alignments_spend_every_phone_in_order(planted):
    for word, sounds in align_letters(list(planted.items()), rounds=4):
        assert len(sounds) == len(word) and max(map(len, sounds)) <= 2
        assert tuple(itertools.chain.from_iterable(sounds)) == planted[word]
    aligned = dict(align_letters(list(planted.items()), rounds=4))
    boxes = [(word, sounds) for word, sounds in aligned.items() if "x" in word]
    assert all(sounds[word.index("x")] == ("K", "S") for word, sounds in boxes)


def test_words_that_cannot_be_aligned_are_left_out():
    assert align_letters([("a", ("AE", "B", "T"))], rounds=1) == []
    sounds = learn_letter_sounds({"ab": ("AE", "B"), "a-b": ("X",), "": ()}, least_gain=1)
    assert sounds("ab") == ("AE", "B")
