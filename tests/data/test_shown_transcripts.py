"""Demonstrations in front of clips: what is shown, what never is, and how it is written."""

import re

import pytest
from datasets import Dataset

from speechzoo.data.shown_transcripts import Demonstrations, transcripts_by_class, with_demonstrations

WORDS = ["red", "blue", "apple", "river", "anna"]
TRANSCRIPTS = {"on": ["lights on", "lamp on", "turn it on"], "off": ["lights off", "lamp off"], "up": ["volume up"]}
DRAWN = Demonstrations("{transcript}<int>{label} ", WORDS, ways=3, shots=2)


def examples(voices=40):
    """Every transcript by so many voices, with its class."""
    said = [(name, text) for name, texts in TRANSCRIPTS.items() for text in texts for _ in range(voices)]
    rows = [
        {"id": f"c{number}", "task": "intent", "target": name, "transcript": text, "context": ""}
        for number, (name, text) in enumerate(said)
    ]
    return Dataset.from_list(rows), [name for name, _ in said]


def shown_in(context):
    """The demonstrations of a context, as pairs."""
    pairs = re.findall(r"([a-z ]+)<int>(\w+) ", context)
    assert "".join(f"{text}<int>{word} " for text, word in pairs) == context
    return pairs


def test_the_own_class_is_shown_and_never_what_is_asked():
    rows, _ = examples()
    behind = with_demonstrations(rows, rows["target"], TRANSCRIPTS, "behind", DRAWN, seed=0)
    assert set(behind["task"]) == {"behind"}
    classes = {text: name for name, texts in TRANSCRIPTS.items() for text in texts}
    ways, shots = set(), set()
    for row in behind:
        pairs = shown_in(row["context"])
        texts = [text for text, _ in pairs]
        assert row["transcript"] not in texts and len(set(texts)) == len(texts)
        by_class = {}
        for text, word in pairs:
            by_class.setdefault(classes[text], set()).add(word)
        assert row["target"] in by_class and 2 <= len(by_class) <= 3
        assert all(len(words) == 1 for words in by_class.values())
        assert len(set.union(*by_class.values())) == len(by_class) and set.union(*by_class.values()) <= set(WORDS)
        ways.add(len(by_class))
        shots.add(sum(classes[text] == "on" for text in texts))
    assert ways == {2, 3} and {1, 2} <= shots <= {0, 1, 2}


def test_a_clip_without_another_transcript_of_its_class_is_left_out():
    rows, classes = examples(voices=2)
    behind = with_demonstrations(rows, classes, TRANSCRIPTS, "behind", DRAWN, seed=0)
    assert len(behind) == len(rows) - 2 and "volume up" not in behind["transcript"]


def test_words_are_drawn_anew_and_follow_from_seed_and_clip():
    rows, classes = examples()
    contexts = with_demonstrations(rows, classes, TRANSCRIPTS, "behind", DRAWN, seed=0)["context"]
    words_of_on = {word for context in contexts for text, word in shown_in(context) if text.endswith("on")}
    assert words_of_on == set(WORDS)
    order = list(reversed(range(len(rows))))
    turned = with_demonstrations(
        rows.select(order), [classes[place] for place in order], TRANSCRIPTS, "behind", DRAWN, seed=0
    )
    assert list(reversed(turned["context"])) == list(contexts)
    assert list(with_demonstrations(rows, classes, TRANSCRIPTS, "behind", DRAWN, seed=1)["context"]) != list(contexts)


def test_what_may_be_shown_and_that_nothing_is():
    rows, classes = examples(voices=3)
    assert transcripts_by_class(rows, classes) == {name: sorted(texts) for name, texts in TRANSCRIPTS.items()}
    with pytest.raises(ValueError, match="all clips are of one class, 'on'"):
        transcripts_by_class(rows.select([0, 3]), ["on", "on"])
    with pytest.raises(ValueError, match="no class has two transcripts"):
        transcripts_by_class(rows.select([0, 9]), ["on", "off"])


def test_clips_of_a_class_that_is_never_shown_are_left_out():
    rows, _ = examples(voices=1)
    assert not len(with_demonstrations(rows, ["other"] * len(rows), TRANSCRIPTS, "behind", DRAWN, seed=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "{transcript} "}, r"holds \{label\} once"),
        ({"ways": 1}, "too few"),
        ({"words": ["red", "red", "blue"]}, "2 words cannot stand for 3 classes"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant(changes, message):
    with pytest.raises(ValueError, match=message):
        Demonstrations(**{"template": DRAWN.template, "words": WORDS, "ways": 3, **changes})
