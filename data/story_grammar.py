"""Texts beside the commands: two-sentence stories and random word strings over a closed lexicon."""

from __future__ import annotations

import random
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


def draw_story(seed: int, index: int) -> tuple[str, str]:
    """Two sentences; the second speaks of the name and the thing of the first."""
    rng = random.Random(f"story {seed} {index}")
    name, other = rng.sample(_NAMES, 2)
    parts = {"name": name, "other": other, "thing": rng.choice(_THINGS), "adjective": rng.choice(_ADJECTIVES)}
    parts |= {"place": rng.choice(_PLACES), "time": rng.choice(_TIMES)}
    return rng.choice(_OPENINGS).format(**parts), rng.choice(_CONTINUATIONS).format(**parts)


def draw_story_sentence(seed: int, index: int) -> str:
    """One sentence of a story, the first or the second."""
    return draw_story(seed, index)[random.Random(f"sentence {seed} {index}").randrange(2)]


def draw_words(seed: int, index: int, shortest: int = 1, longest: int = 7) -> str:
    """A string of words drawn at random from the whole lexicon, so that no grammar helps to recognize it."""
    rng = random.Random(f"words {seed} {index}")
    return " ".join(rng.choice(lexicon()) for _ in range(rng.randint(shortest, longest)))


@cache
def lexicon() -> tuple[str, ...]:
    """All words of the commands, the intents' names, the stories and the digits, and some more; sorted."""
    story_words = (*_NAMES, *_THINGS, *_ADJECTIVES, *_PLACES, *_TIMES, *_OPENINGS, *_CONTINUATIONS)
    texts = [command.text for command in commands()] + [str(intent) for intent in intents()]
    words = " ".join((*texts, *story_words, *_DIGITS, *_OTHER_WORDS)).split()
    return tuple(sorted({word for word in words if not word.startswith("{")}))
