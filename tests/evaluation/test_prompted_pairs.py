"""Utterances in two parts: where they are cut, and that units and text are cut at the same place."""

import random

import pytest

from speechzoo.data.speech_text_mixing import Utterance
from speechzoo.evaluation.prompted_pairs import prompted_pairs
from speechzoo.processing.speech_units import Units, deduplicate
from speechzoo.processing.word_alignment import WordSpan

RATE = 50


def spoken(*seconds: tuple[str, float, float], name: str = "clip", silence: float = 0.2) -> Utterance:
    """An utterance whose units tell what is said in a frame: 0 silence, n the n-th word."""
    words = tuple(WordSpan(*word) for word in seconds)
    frames = [0] * round((words[-1].end + silence) * RATE)
    for number, word in enumerate(words, 1):
        for frame in range(round(word.start * RATE), round(word.end * RATE)):
            frames[frame] = number
    return Utterance(name, deduplicate(frames), " ".join(word.word for word in words), words)


def random_utterance(seed: int) -> Utterance:
    rng, time, words = random.Random(seed), 0.1, []
    for number in range(rng.randint(2, 9)):
        end = time + rng.randint(2, 30) / RATE
        words.append((f"word{number + 1}", time, end))
        time = end + rng.choice([0, 0, 5]) / RATE
    return spoken(*words, name=f"clip{seed}")


def test_a_pause_belongs_to_the_prompt_and_silence_to_the_part_it_stands_in():
    item = spoken(("how", 0.1, 0.3), ("are", 0.3, 0.4), ("you", 0.5, 0.8))  # 1.0 s
    [pair] = prompted_pairs([item], RATE)
    assert pair.id == "clip"
    assert pair.prompt == {"speech": [0, 1, 2, 0], "text": "how are"}
    assert pair.continuation == {"speech": [3, 0], "text": "you"}


def test_the_cut_is_the_boundary_nearest_to_half_of_the_duration():
    cuts = []
    for seed in range(60):
        item = random_utterance(seed)
        [pair] = prompted_pairs([item], RATE)
        before, after = pair.prompt["text"].split(), pair.continuation["text"].split()
        assert before + after == item.text.split()
        # Units tell the word: each part has the units of its own words and of no others.
        numbers = [int(word.removeprefix("word")) for word in before]
        assert [unit for unit in pair.prompt["speech"] if unit] == numbers
        assert [unit for unit in pair.continuation["speech"] if unit] == [
            int(word.removeprefix("word")) for word in after
        ]
        half = item.units.frames / RATE / 2
        distances = [abs(word.start - half) for word in item.words[1:]]
        assert distances[len(before) - 1] == min(distances)
        cuts.append(len(before) / len(item.words))
    assert min(cuts) < 0.4 and max(cuts) > 0.6  # by time, not by words


def test_a_unit_that_lasts_over_the_cut_is_in_both_parts():
    words = (WordSpan("a", 0.0, 0.1), WordSpan("b", 0.1, 0.2))
    [pair] = prompted_pairs([Utterance("clip", Units([7, 4, 9], [3, 4, 3]), "a b", words)], RATE)
    assert pair.prompt["speech"] == [7, 4] and pair.continuation["speech"] == [4, 9]


def test_the_prompt_has_the_words_of_a_first_sentence():
    items = [random_utterance(seed) for seed in range(40)]
    wanted = {item.id: random.Random(item.id).randint(1, len(item.words) - 1) for item in items[:30]}
    for pair, half in zip(prompted_pairs(items, RATE, wanted), prompted_pairs(items, RATE), strict=True):
        if pair.id in wanted:
            assert len(pair.prompt["text"].split()) == wanted[pair.id]
            assert max(pair.prompt["speech"]) == wanted[pair.id] == max(pair.continuation["speech"][:1]) - 1
        else:
            assert pair == half


def test_words_that_share_an_event_stay_together():
    item = spoken(("run", 0.1, 0.5), ("in the", 0.5, 0.7), ("park", 0.7, 1.1))
    texts = [prompted_pairs([item], RATE, {"clip": words})[0].prompt["text"] for words in (1, 2, 3)]
    assert texts == ["run", "run", "run in the"]
    shared = (WordSpan("in", 0, 0.2), WordSpan("the", 0, 0.2), WordSpan("park", 0.2, 0.4))
    [pair] = prompted_pairs([Utterance("clip", Units([1, 2], [10, 10]), "in the park", shared)], RATE)
    assert pair.prompt["text"] == "in the"


def test_what_cannot_be_cut_is_named():
    alone = spoken(("stop", 0.1, 0.5), name="short")
    with pytest.raises(ValueError, match=r"'short' has no word boundary to be cut at; leave it out"):
        prompted_pairs([alone], RATE)
    with pytest.raises(ValueError, match=r"'clip' has no times of words"):
        prompted_pairs([Utterance("clip", Units([1, 2], [3, 3]), "a b")], RATE)
    two = spoken(("go", 0.1, 0.5), ("on", 0.5, 0.8), name="two")
    for words in (0, 2, 3):
        with pytest.raises(ValueError, match=rf"'two' has 2 words; a prompt of {words} leaves no two parts"):
            prompted_pairs([two], RATE, {"two": words})
