"""Texts beside the commands: two-sentence stories, what is asked about them, and random words of a closed lexicon."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from .command_grammar import commands, intents

_NAMES = ("anna", "ben", "clara", "david", "emma", "frank", "maria", "oscar", "paula", "simon")
_THINGS = (
    "ball", "basket", "blanket", "book", "bottle", "box", "candle", "clock", "coat", "cup",
    "drum", "flower", "hammer", "hat", "jacket", "key", "letter", "mirror", "plate", "umbrella",
)  # fmt: skip
_ADJECTIVES = ("big", "blue", "brown", "clean", "green", "heavy", "little", "new", "old", "red", "small", "yellow")
_PLACES = (
    "bridge", "church", "farm", "forest", "garden", "harbor", "hotel", "library", "market", "mountain",
    "museum", "park", "river", "school", "station", "village",
)  # fmt: skip
_TIMES = ("today", "yesterday", "this morning", "last night", "on monday", "on friday", "in summer", "in winter")
_OPENINGS = (
    "{name} found a {adjective} {thing} near the {place}",
    "{name} bought a {adjective} {thing} at the {place} {time}",
    "{time} {name} carried the {adjective} {thing} to the {place}",
    "{name} lost a {adjective} {thing} at the {place} {time}",
    "{time} {name} saw a {adjective} {thing} behind the {place}",
    "the {adjective} {thing} of {name} was left at the {place}",
)
# What is said in reply to a story's first sentence, in the order of the openings.
_REPLIES = (
    "did {name} leave the {thing} near the {place}",
    "was the {adjective} {thing} new",
    "what did {name} do with the {thing} at the {place}",
    "did {name} look for the {thing} at the {place}",
    "was {name} behind the {place} too",
    "did you bring the {thing} back to {name}",
)
_QUESTIONS = {
    "who is it about": "it is about {name}",
    "which thing is it": "it is the {adjective} {thing}",
    "where was it": "at the {place}",
    "was the {thing} {adjective}": "yes the {thing} was {adjective}",
    "was the {thing} {wrong}": "no the {thing} was {adjective}",
}
_CONTINUATIONS = (
    "then {name} gave the {thing} to {other}",
    "later {other} looked for the {thing} at the {place}",
    "{other} liked the {adjective} {thing} very much",
    "after that {name} walked home with the {thing}",
    "{other} asked {name} to bring the {thing} back to the {place}",
    "so {name} and {other} painted the {thing} together",
)
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_OTHER_WORDS = (
    "across", "air", "always", "animal", "apple", "bird", "bread", "breakfast", "brother", "butter",
    "chair", "child", "city", "cloud", "coffee", "corner", "country", "dinner", "doctor", "door",
    "dream", "earth", "evening", "father", "finger", "fish", "floor", "fresh", "friend", "glass",
    "gold", "grass", "hand", "happy", "horse", "house", "island", "jump", "knife", "laugh",
    "lemon", "lunch", "machine", "milk", "money", "month", "mother", "mouth", "never", "north",
    "ocean", "orange", "paper", "pencil", "people", "picture", "pocket", "queen", "rain", "ring",
    "road", "salt", "sand", "ship", "silver", "sister", "snow", "spring", "stone", "street",
    "strong", "sugar", "table", "teacher", "thunder", "train", "tree", "truck", "water", "wave",
    "week", "wheel", "wind", "window", "wood", "world", "write", "year", "young", "zebra",
)  # fmt: skip


@dataclass(frozen=True)
class Story:
    """Two sentences, the second about the name and the thing of the first; a question about the first with its
    answer; and a reply to the first. `facts`: the words of the first by kind (name, adjective, thing, place).
    """

    opening: str
    continuation: str
    question: str
    answer: str
    reply: str
    facts: Mapping[str, str]


def draw_whole_story(seed: int, index: int, held_out: bool | None = None) -> Story:
    """Story number `index` with all that is asked about it.

    held_out: every seventh trio of name, thing and place is held out. True draws only such stories, False none of
    them, None any.
    """
    rng = random.Random(f"story {seed} {index}")
    story = _draw(rng)
    while held_out is not None and is_held_out(story) != held_out:
        story = _draw(rng)
    return story


def is_held_out(story: Story) -> bool:
    """Whether the story's name, thing and place stand together in no opening that the language models
    are trained on; a continuation may bring such a trio together."""
    facts = story.facts
    place = _NAMES.index(facts["name"]) + _THINGS.index(facts["thing"]) + _PLACES.index(facts["place"])
    return place % 7 == 0


def _draw(rng: random.Random) -> Story:
    name, other = rng.sample(_NAMES, 2)
    parts = {"name": name, "other": other, "thing": rng.choice(_THINGS), "adjective": rng.choice(_ADJECTIVES)}
    parts |= {"place": rng.choice(_PLACES), "time": rng.choice(_TIMES)}
    opening, continuation = rng.choice(_OPENINGS), rng.choice(_CONTINUATIONS)
    parts["wrong"] = rng.choice([word for word in _ADJECTIVES if word != parts["adjective"]])
    question = rng.choice(list(_QUESTIONS))
    return Story(
        opening=opening.format(**parts),
        continuation=continuation.format(**parts),
        question=question.format(**parts),
        answer=_QUESTIONS[question].format(**parts),
        reply=_REPLIES[_OPENINGS.index(opening)].format(**parts),
        facts={kind: parts[kind] for kind in ("name", "adjective", "thing", "place")},
    )


def draw_story(seed: int, index: int) -> tuple[str, str]:
    """The two sentences of a story, held out or not."""
    story = draw_whole_story(seed, index)
    return story.opening, story.continuation


def draw_story_sentence(seed: int, index: int) -> str:
    """One sentence of a story, the first or the second."""
    return draw_story(seed, index)[random.Random(f"sentence {seed} {index}").randrange(2)]


def draw_words(seed: int, index: int, shortest: int = 1, longest: int = 7) -> str:
    """A string of words drawn at random from the whole lexicon, so that no grammar helps to recognize it."""
    rng = random.Random(f"words {seed} {index}")
    return " ".join(rng.choice(lexicon()) for _ in range(rng.randint(shortest, longest)))


def content_words() -> Mapping[str, tuple[str, ...]]:
    """The words that carry a story's facts, by kind."""
    return {"name": _NAMES, "adjective": _ADJECTIVES, "thing": _THINGS, "place": _PLACES}


@cache
def lexicon() -> tuple[str, ...]:
    """All words of the commands, the intents' names, the stories and the digits, and some more; sorted."""
    story_words = (*_NAMES, *_THINGS, *_ADJECTIVES, *_PLACES, *_TIMES, *_OPENINGS, *_CONTINUATIONS)
    texts = [command.text for command in commands()] + [str(intent) for intent in intents()]
    return words_of((*texts, *story_words, *_DIGITS, *_OTHER_WORDS))


@cache
def written_words() -> tuple[str, ...]:
    """The words of questions about stories, of their answers and of replies, sorted: read or written, never spoken."""
    return words_of((*_QUESTIONS, *_QUESTIONS.values(), *_REPLIES))


def words_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The distinct words of texts and templates, sorted; `{...}` is no word."""
    return tuple(sorted({word for text in texts for word in text.split() if not word.startswith("{")}))
