"""Text to phones: silences, durations, words that no lexicon has; all a function of (seed, text)."""

import numpy as np
import pytest
from scipy.stats import norm

from speechzoo.processing.letter_sounds import LetterSounds
from speechzoo.processing.lexicon import Lexicon
from speechzoo.processing.phones import Coverage, DurationLaw, PhoneReader, words_of

LEXICON = Lexicon({"how": ("HH", "AW1"), "are": ("AA1", "R"), "you": ("Y", "UW1"), "don't": ("D", "OW1", "N", "T")})
SILENCE = ("SIL",)


def reader(**fields) -> PhoneReader:
    return PhoneReader(LEXICON, **fields)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("How are YOU?", ["how", "are", "you"]),
        ("don't well-known 5 items", ["don't", "well", "known", "5", "items"]),
        ("it\u2019s the dogs' 'em", ["it's", "the", "dogs'", "'em"]),
        ("  -- ... ", []),
    ],
)
def test_words_of_a_text(text, words):
    assert words_of(text) == words


def test_silences_stand_at_both_ends_and_words_between_keep_their_order():
    groups = reader().read("how are you", seed=3)
    assert groups[0] == groups[-1] == SILENCE
    assert [group for group in groups if group != SILENCE] == [LEXICON[word] for word in ("how", "are", "you")]
    assert reader(silence_probability=0.0).read("how are you") == [
        SILENCE, LEXICON["how"], LEXICON["are"], LEXICON["you"], SILENCE,
    ]  # fmt: skip
    assert reader(silence_probability=1.0).read("how are") == [
        SILENCE, LEXICON["how"], SILENCE, LEXICON["are"], SILENCE,
    ]  # fmt: skip


def test_a_quarter_of_the_gaps_are_silent():
    text = " ".join(["how are you"] * 20)  # 59 gaps
    silent = sum(reader().read(text, seed).count(SILENCE) - 2 for seed in range(100))
    expected, deviation = 0.25 * 5900, (5900 * 0.25 * 0.75) ** 0.5
    assert abs(silent - expected) < 4 * deviation


def test_reading_is_a_function_of_seed_and_text():
    texts = ["how are you how are you", "are you how are you how"]
    alone = [reader().read(text, seed=1) for text in texts]
    together = PhoneReader(LEXICON)
    assert [together.read(text, seed=1) for text in reversed(texts)] == alone[::-1]
    assert len({str(reader().read(texts[0], seed)) for seed in range(20)}) > 5


def test_a_text_without_a_word_is_refused():
    with pytest.raises(ValueError, match=r"no word in the text '\?!'"):
        reader().read("?!")
    with pytest.raises(ValueError, match=r"silence_probability is 1.5"):
        reader(silence_probability=1.5)


# --- words that the lexicon lacks ---


def test_unknown_words_are_noise_or_sounded_out_and_are_told():
    texts = ["how zorp", "zorp 77 you"]
    noisy, sounded = reader(), reader(sounds=LetterSounds.shipped())
    assert noisy.read("zorp", seed=0) == [SILENCE, ("SPN",), SILENCE]
    assert sounded.pronounce("zorp").phones == LetterSounds.shipped()("zorp") != ()
    told = sounded.coverage(texts)
    assert (told.words, told.unknown) == (5, 3)
    assert told.sounded == {"zorp": 2} and told.noise == {"77": 1}
    assert str(told) == (
        "3 of 5 words are not in the lexicon, first 'zorp': 2 were sounded out by their letters, 1 became spoken noise"
    )
    assert str(noisy.coverage(["how are you"])) == "all 3 words are in the lexicon"
    assert noisy.coverage([]) == Coverage()


def test_digits_never_sound_like_the_letters_beside_them():
    assert PhoneReader(None, LetterSounds.shipped()).pronounce("b2b").phones == ("SPN",)


def test_apostrophes_at_the_ends_do_not_hide_a_word():
    assert reader().pronounce("'how'") == reader().pronounce("'how'")
    assert reader().pronounce("'how'").phones == LEXICON["how"] and reader().pronounce("'how'").known


def test_the_inventory_has_every_phone_that_can_come_out():
    assert reader().inventory == ["SIL", "SPN", "AA", "AW", "D", "HH", "N", "OW", "R", "T", "UW", "Y"]
    assert len(PhoneReader(LEXICON, LetterSounds.shipped()).inventory) == 41


# --- durations ---


@pytest.mark.parametrize(
    ("symbol", "mean", "deviation"), [("AH0_B", 5, 2.5), ("SIL", 14, 7), ("SPN_S", 32, 11), ("T", 5, 2.5)]
)
def test_durations_follow_the_law_of_their_family(symbol, mean, deviation):
    """Against the exact moments of a rounded normal that is 1 at least."""
    values = np.arange(1, 200)
    mass = norm.cdf(values + 0.5, mean, deviation) - norm.cdf(values - 0.5, mean, deviation)
    mass[0] += norm.cdf(0.5, mean, deviation)
    exact = (values * mass).sum()
    spread = ((values - exact) ** 2 * mass).sum() ** 0.5
    drawn = np.array([DurationLaw().draw([symbol] * 50, "text", seed) for seed in range(200)])
    assert drawn.min() == 1 or symbol == "SPN_S"
    assert abs(drawn.mean() - exact) < 4 * spread / drawn.size**0.5
    assert drawn.std() == pytest.approx(spread, rel=0.05)


def test_durations_are_a_function_of_seed_and_text():
    law = DurationLaw()
    assert law.draw(["AH0_S"] * 9, "a", 1) == law.draw(["AH0_S"] * 9, "a", 1)
    assert law.draw(["AH0_S"] * 9, "a", 1) != law.draw(["AH0_S"] * 9, "a", 2)
    assert law.draw(["AH0_S"] * 9, "a", 1) != law.draw(["AH0_S"] * 9, "b", 1)


def test_a_draw_that_is_too_long_gives_way_to_shorter_means():
    symbols = ["SIL", *["AH0_I"] * 1200, "SIL"]  # about 6,000 frames
    frames = DurationLaw().draw(symbols, "long")
    # 14 + 1200 * 5 + 14, each less 2: the first that is below 4,375
    assert frames == [12, *[3] * 1200, 12]
    assert sum(frames) < 4375
    drawn = DurationLaw(most=100).draw(["T"] * 10, "short")
    assert len(set(drawn)) > 1, "a draw that fits stays"


def test_a_text_with_more_phones_than_frames_is_refused():
    assert DurationLaw(most=3).draw(["SIL", "T", "SIL"], "t") == [1, 1, 1]
    with pytest.raises(ValueError, match=r"has 4 phones, more than 3 frames; cut it"):
        DurationLaw(most=3).draw(["SIL", "T", "T", "SIL"], "t")
    with pytest.raises(ValueError, match=r"deviation of 'SIL' is -1"):
        DurationLaw(families={"SIL": (5, -1)})


def test_the_draws_stay_what_they_were():
    """Kept units would go stale if they did not."""
    assert DurationLaw().draw(["SIL", "HH_B", "AY1_E", "SIL"], "hi", 0) == PINNED
    assert reader().read("how are you how", 0) == PINNED_GROUPS


PINNED = [17, 5, 5, 13]
PINNED_GROUPS = [SILENCE, LEXICON["how"], LEXICON["are"], LEXICON["you"], LEXICON["how"], SILENCE]
