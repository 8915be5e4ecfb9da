"""Units as private-use characters, and their pieces: what SentencePiece itself says, exact inverses, faults."""

import copy
import pickle
import random

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from speechzoo.processing.unit_text import (
    BASIC_PLANE_CHARACTERS,
    UnitSegmenter,
    characters_to_units,
    unit_character,
    units_to_characters,
)

UNITS = 60
CHARACTERS = 6400 + 2 * 65534


def clips(count: int, units: int, seed: int = 0) -> list[list[int]]:
    """Clips of "words" that come again, so that there is something to learn; half of the units are never used."""
    chance = random.Random(seed)
    words = [[chance.randrange(units // 2) for _ in range(chance.randint(2, 5))] for _ in range(80)]
    return [[unit for _ in range(12) for unit in chance.choice(words)] for _ in range(count)]


@pytest.fixture(scope="module", params=["unigram", "bpe", "raw", "supplementary"])
def segmenter(request):
    if request.param == "raw":
        return UnitSegmenter.raw(UNITS)
    algorithm = "bpe" if request.param == "bpe" else "unigram"
    offset = BASIC_PLANE_CHARACTERS if request.param == "supplementary" else 0
    return UnitSegmenter.train(clips(200, UNITS), UNITS, pieces=150, algorithm=algorithm, offset=offset)


# ---- characters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "code_point"),
    [(0, 0xE000), (6399, 0xF8FF), (6400, 0xF0000), (71933, 0xFFFFD), (71934, 0x100000), (CHARACTERS - 1, 0x10FFFD)],
)
def test_units_are_private_use_characters_in_order(unit, code_point):
    assert unit_character(unit) == chr(code_point)
    assert unit_character(unit - 5, offset=5) == chr(code_point)


@given(st.lists(st.integers(0, 70000)), st.sampled_from([0, 1, 6399, 6400]))
def test_characters_are_read_back(units, offset):
    characters = units_to_characters(units, offset)
    assert len(characters) == len(units)
    assert characters_to_units(characters, offset) == units


@pytest.mark.parametrize(("unit", "offset"), [(CHARACTERS, 0), (CHARACTERS - 1, 1), (-1, 0)])
def test_there_are_no_more_characters(unit, offset):
    with pytest.raises(ValueError, match=rf"unit {unit} at offset {offset} has no private-use character"):
        unit_character(unit, offset)


@pytest.mark.parametrize(("text", "offset"), [("\ue000a", 0), ("\ue000", 1), ("\U000ffffe", 0)])
def test_other_characters_are_no_units(text, offset):
    with pytest.raises(ValueError, match=r"^U\+[0-9A-F]{4,6} is no unit"):
        characters_to_units(text, offset)


# ---- pieces --------------------------------------------------------------------------------------------------------


def test_pieces_are_those_of_sentencepiece(segmenter, tmp_path):
    segmenter.save(tmp_path / "units.model")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "units.model"))
    chance = random.Random(1)
    for clip in [*clips(50, UNITS, seed=7), *([chance.randrange(UNITS) for _ in range(70)] for _ in range(50))]:
        string = "".join(chr((0xE000 if segmenter.offset == 0 else 0xF0000) + unit) for unit in clip)
        assert [segmenter.pieces[piece] for piece in segmenter.encode(clip)] == reference.encode(string, out_type=str)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, UNITS - 1), max_size=80))
def test_any_units_come_back(segmenter, units):
    """Repeated ones, and those that the training corpus lacks, too."""
    assert segmenter.decode(segmenter.encode(units)) == units


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_pieces_are_units(segmenter, data):
    pieces = data.draw(st.lists(st.integers(0, len(segmenter) - 1), max_size=20))
    units = segmenter.decode(pieces)
    assert segmenter.decode(segmenter.encode(units)) == units
    assert len(units) == sum(len(segmenter.pieces[piece]) for piece in pieces)


def test_every_unit_is_a_piece(segmenter):
    assert segmenter.units == UNITS
    assert all(len(segmenter.encode([unit])) == 1 for unit in range(UNITS))


def test_the_size_is_the_one_asked_for():
    trained = UnitSegmenter.train(clips(200, UNITS), UNITS, pieces=123, longest_piece=4)
    assert len(trained) == 123 and max(map(len, trained.pieces)) == 4
    assert len(trained.encode(clips(1, UNITS)[0])) < len(clips(1, UNITS)[0]) / 2


def test_training_says_the_same_twice():
    assert (
        UnitSegmenter.train(clips(200, UNITS), UNITS, 150).model
        == UnitSegmenter.train(clips(200, UNITS), UNITS, 150).model
    )


def test_long_clips_are_learned_from():
    """Alone, the units give 60 pieces. SentencePiece drops sentences of more than 4,192 bytes unless told not to."""
    long = [clip * 60 for clip in clips(8, UNITS)]
    assert all(len(clip) * 3 > 4192 for clip in long)
    assert len(UnitSegmenter.train(long, UNITS, pieces=70)) == 70


@pytest.mark.parametrize(("units", "offset"), [(7000, 0), (500, BASIC_PLANE_CHARACTERS), (1, 0)])
def test_raw_pieces_are_the_units(units, offset):
    raw = UnitSegmenter.raw(units, offset)
    assert (len(raw), raw.units, raw.offset) == (units, units, offset)
    assert raw.encode(range(units)) == list(range(units)) == raw.decode(range(units))


def test_copies_and_files_segment_alike(segmenter, tmp_path):
    segmenter.save(tmp_path / "units.model")
    clip = clips(1, UNITS, seed=3)[0]
    for other in (UnitSegmenter.load(tmp_path / "units.model"), copy.deepcopy(segmenter), _pickled(segmenter)):
        assert other.encode(clip) == segmenter.encode(clip)
        assert other.model == segmenter.model


def _pickled(segmenter):
    return pickle.loads(pickle.dumps(segmenter))


# ---- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [-1, UNITS, 10**6])
def test_a_unit_of_another_codebook_is_refused(segmenter, unit):
    with pytest.raises(ValueError, match=rf"has unit {unit}, and the units are 0 to 59"):
        segmenter.encode([3, unit])
    with pytest.raises(ValueError, match=rf"^clip 1 has unit {unit}"):
        UnitSegmenter.train([[1, 2], [unit]], UNITS, 100)


@pytest.mark.parametrize("piece", [-1, 10**6])
def test_a_piece_there_is_not_is_refused(segmenter, piece):
    with pytest.raises(ValueError, match=rf"no piece {piece}"):
        segmenter.decode([piece])


def test_fractions_are_refused(segmenter):
    with pytest.raises(TypeError):
        segmenter.encode([1.0])


@pytest.mark.parametrize(
    ("corpus", "pieces", "message"),
    [
        ([], 100, r"no units to learn"),
        ([[], []], 100, r"no units to learn"),
        ([[1, 2]], UNITS - 1, r"59 pieces are too few"),
        ([[1, 2]] * 50, 10_000, r"gives no more than 6\d pieces; 10000 were asked for"),
    ],
)
def test_corpora_too_small(corpus, pieces, message):
    with pytest.raises(ValueError, match=message):
        UnitSegmenter.train(corpus, UNITS, pieces)


def test_models_of_something_else_are_refused(tmp_path):
    words = ["turn on the lights", "bring me my shoes", "please"] * 9
    for name, more in (("text", {}), ("shifted", {"unk_id": 3, "pad_id": 0})):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words), model_prefix=str(tmp_path / name), vocab_size=23, minloglevel=2, **more
        )
        with pytest.raises(ValueError, match=rf"{name}\.model: (U\+0061 is no unit|this .* is not one of units)"):
            UnitSegmenter.load(tmp_path / f"{name}.model")
    gap = tmp_path / "gap.model"
    gap.write_bytes(UnitSegmenter.raw(3).model.replace("\ue001".encode(), "\ue007".encode()))
    with pytest.raises(ValueError, match="not neighbors"):
        UnitSegmenter.load(gap)
    (tmp_path / "empty.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"empty\.model"):
        UnitSegmenter.load(tmp_path / "empty.model")
    with pytest.raises(FileNotFoundError):
        UnitSegmenter.load(tmp_path / "missing.model")
