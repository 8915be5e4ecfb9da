"""Aligning units with phones: the best path against all paths, and planted alignments found again."""

import itertools

import numpy as np
import pytest

from speechzoo.data.phone_alignment import AlignedPhones, PhoneAligner
from speechzoo.processing.unit_vocabulary import UnitVocabulary

CLUSTERS = 6


def aligner(seed: int = 0, phones: tuple[str, ...] = ("A", "B", "C", "SIL")) -> PhoneAligner:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(CLUSTERS), len(phones))
    return PhoneAligner(phones, np.log(probabilities))


def best_by_hand(model: PhoneAligner, units, words) -> float:
    """The log probability of the best of all ways to cut the clip, with or without each silence."""
    best = -np.inf
    for silences in itertools.product([False, True], repeat=len(words) + 1):
        phones = ["SIL"] if silences[0] else []
        for word, silence in zip(words, silences[1:], strict=True):
            phones += [*word, "SIL"] if silence else [*word]
        if len(phones) > len(units):
            continue
        rows = model.log_emissions[[model.phones.index(phone) for phone in phones]]
        for cuts in itertools.combinations(range(1, len(units)), len(phones) - 1):
            lasts = np.diff([0, *cuts, len(units)])
            best = max(best, rows[np.repeat(np.arange(len(phones)), lasts), units].sum())
    return best


def score(model: PhoneAligner, units, aligned: AlignedPhones) -> float:
    phones = [phone for group in aligned.groups for phone in group]
    rows = [model.phones.index(phone) for phone in phones]
    return model.log_emissions[np.repeat(rows, aligned.durations), units].sum()


@pytest.mark.parametrize("seed", range(6))
def test_the_best_path_is_the_best_of_all(seed):
    model, random = aligner(seed), np.random.default_rng(seed)
    clips = [random.integers(0, CLUSTERS, length).tolist() for length in (4, 9, 7)]
    words = [[("A", "B"), ("C",)], [("B",), ("A",), ("C", "A")], [("C", "B", "A")]]
    found = model.align(clips, words)
    for clip, said, aligned in zip(clips, words, found, strict=True):
        assert sum(aligned.durations) == len(clip) and min(aligned.durations) >= 1
        assert [group for group in aligned.groups if group != ("SIL",)] == said
        assert score(model, clip, aligned) == pytest.approx(best_by_hand(model, clip, said))
        assert model.align([clip], [said]) == [aligned], "clips in a batch do not touch each other"


def spoken(random: np.random.Generator, words):
    """Units of words whose phones say units of their own, with silences here and there; and where words begin."""
    own = {"A": (0, 1), "B": (2, 3), "C": (4,), "SIL": (5,)}
    units, begins = [5] * int(random.integers(1, 4)), []
    for word in words:
        begins.append(len(units))
        for phone in word:
            units += random.choice(own[phone], int(random.integers(2, 7))).tolist()
        units += [5] * int(random.integers(0, 3))
    return units, begins


def test_planted_words_are_found():
    random, lexicon = np.random.default_rng(1), [("A", "B"), ("C",), ("B", "C"), ("C", "A", "B"), ("A",)]
    texts = [[lexicon[place] for place in random.integers(0, len(lexicon), 5)] for _ in range(60)]
    clips, begins = zip(*(spoken(random, words) for words in texts), strict=True)
    model = PhoneAligner.fit(clips, texts, CLUSTERS, rounds=8)
    found = model.align(clips, texts)
    starts = [[first for first, _ in aligned.word_spans] for aligned in found]
    apart = [abs(a - b) for one, other in zip(starts, begins, strict=True) for a, b in zip(one, other, strict=True)]
    # The same phone at the end of a word and at the beginning of the next cannot be parted by units.
    assert np.mean(np.array(apart) == 0) > 0.85
    assert np.exp(model.log_emissions[model.phones.index("SIL"), 5]) > 0.95


def test_words_are_held_to_their_windows():
    model = aligner()
    clip, words = [0] * 12, [("A", "B"), ("C",)]
    [held] = model.align([clip], [words], [[(2, 6), (8, 11)]])
    (first, second) = held.word_spans
    assert first[0] >= 2 and first[1] <= 6 and second[0] >= 8 and second[1] <= 11
    [half] = model.align([clip], [words], [[None, (3, 5)]])
    assert half.word_spans[1][0] >= 3 and half.word_spans[1][1] <= 5
    [tight] = model.align([clip], [words], [[(4, 5), None]])  # a frame for two phones
    assert tight.word_spans[0][0] in (3, 4) and sum(tight.durations) == 12
    assert model.align([clip], [words], [[None, None]]) == model.align([clip], [words])
    with pytest.raises(ValueError, match=r"2 words came with 1 windows; give one for each"):
        model.align([clip], [words], [[None]])


def test_frame_ids_are_those_of_the_phones_in_their_places():
    aligned = AlignedPhones([("SIL",), ("HH", "AY1"), ("AH0",), ("SIL",)], [2, 1, 3, 1, 1])
    vocabulary = UnitVocabulary.phones()
    names = [vocabulary.symbol(number) for number in aligned.frame_ids(vocabulary)]
    assert names == ["SIL", "SIL", "HH_B", "AY1_E", "AY1_E", "AY1_E", "AH0_S", "SIL"]
    assert aligned.word_spans == [(2, 6), (6, 7)]


def test_what_cannot_be_aligned_is_none():
    model = aligner()
    assert model.align([[0, 1], [3]], [[("A", "B", "C")], []]) == [None, None]
    assert model.align([[0, 1, 2]], [[("A", "B", "C")]])[0].durations == [1, 1, 1]


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"does not know the phone 'ZH'; name it"):
        aligner().align([[0, 1]], [[("ZH",)]])
    with pytest.raises(ValueError, match=r"a unit 9, and the codebook has 6"):
        PhoneAligner.fit([[9, 1]], [[("A",)]], CLUSTERS)
    with pytest.raises(ValueError, match=r"a unit -1; units are numbered from 0"):
        PhoneAligner.fit([[0, -1]], [[("A",)]], CLUSTERS)
    with pytest.raises(ValueError, match=r"no clip has a frame for each phone"):
        PhoneAligner.fit([[1]], [[("A", "B")]], CLUSTERS)


def test_a_phone_that_no_clip_had_can_be_named():
    model = PhoneAligner.fit([[0, 0, 1, 1]], [[("A", "B")]], CLUSTERS, phones=("ZH1",))
    assert model.phones == ("A", "B", "SIL", "ZH")
    [aligned] = model.align([[0, 1, 2]], [[("A", "ZH0")]])
    assert sum(aligned.durations) == 3
