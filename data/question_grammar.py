"""Spoken questions with written answers: the instruction data of the tiny zoo.

What is asked for is a small world of facts (numbers in order, opposites, colors, places, kinds) and a small skill
(saying words again). The language model learns them from text; speech only has to carry the question over.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cache

from .story_grammar import words_of


@dataclass(frozen=True)
class Question:
    """What is asked (lower-case words) and the one right answer; `family` names the template's kind."""

    text: str
    answer: str
    family: str


_NUMBERS = "zero one two three four five six seven eight nine".split()
_OPPOSITES = {"big": "little", "new": "old", "heavy": "light", "happy": "sad", "hot": "cold", "dark": "bright",
              "louder": "quieter", "young": "old", "clean": "dirty", "strong": "weak", "always": "never"}  # fmt: skip
_COLORS = {"grass": "green", "snow": "white", "milk": "white", "sugar": "white", "salt": "white", "lemon": "yellow",
           "gold": "yellow", "coffee": "brown", "wood": "brown", "ocean": "blue", "tree": "green"}  # fmt: skip
_PLACES = {"horse": "farm", "bird": "forest", "fish": "ocean", "ship": "harbor", "train": "station", "book": "library",
           "picture": "museum", "teacher": "school", "doctor": "village", "flower": "garden", "bread": "market",
           "truck": "road", "stone": "mountain", "chair": "kitchen"}  # fmt: skip
_KINDS = {
    "an animal": "bird fish horse zebra".split(),
    "a person": "brother child doctor father friend mother queen sister teacher".split(),
    "a room": "bedroom kitchen washroom".split(),
    "something to eat": "apple bread butter lemon orange salt sugar".split(),
    "something to wear": "coat hat jacket shoes socks".split(),
}
_SAID = (
    "apple bird book bridge chair cloud coffee door dream earth finger flower forest garden glass hand horse house \
island key lemon letter machine milk mirror money mountain music ocean paper pencil pocket rain ring river road salt \
sand school ship snow spring station stone street sugar sun table train tree umbrella village water wave wheel wind \
window winter wood world zebra".split()
)


def draw_question(seed: int, index: int, held_out: bool | None = None) -> Question:
    """Question number `index` of a corpus; its family is drawn at random.

    held_out: True draws only the fifth of the questions that is never spoken in training, False none of it, None any.
    """
    rng = random.Random(f"question {seed} {index}")
    question = rng.choice(_FAMILIES)(rng)
    while held_out is not None and is_held_out(question) != held_out:
        question = rng.choice(_FAMILIES)(rng)
    return question


def is_held_out(question: Question) -> bool:
    """Whether the question is kept from spoken training corpora; language models see it as text."""
    return hashlib.sha256(question.text.encode()).digest()[0] % 5 == 0


@cache
def question_words() -> tuple[str, ...]:
    """The words of all questions and answers, sorted."""
    drawn = [draw_question(0, index) for index in range(6000)]
    return words_of(text for question in drawn for text in (question.text, question.answer))


def _next_number(rng: random.Random) -> Question:
    place = rng.randrange(1, 9)
    if rng.random() < 0.5:
        text = rng.choice(("what comes after {}", "which number comes after {}"))
        return Question(text.format(_NUMBERS[place]), _NUMBERS[place + 1], "numbers")
    text = rng.choice(("what comes before {}", "which number comes before {}"))
    return Question(text.format(_NUMBERS[place]), _NUMBERS[place - 1], "numbers")


def _opposite(rng: random.Random) -> Question:
    word = rng.choice(list(_OPPOSITES))
    text = rng.choice(("what is the opposite of {}", "tell me the opposite of {}"))
    return Question(text.format(word), _OPPOSITES[word], "opposites")


def _color(rng: random.Random) -> Question:
    word = rng.choice(list(_COLORS))
    text = rng.choice(("what color is {}", "tell me the color of {}"))
    return Question(text.format(word), _COLORS[word], "colors")


def _place(rng: random.Random) -> Question:
    word = rng.choice(list(_PLACES))
    text = rng.choice(("where do i find a {}", "where should i look for a {}"))
    return Question(text.format(word), f"in the {_PLACES[word]}", "places")


def _kind(rng: random.Random) -> Question:
    kind = rng.choice(list(_KINDS))
    belongs = rng.random() < 0.5
    other = rng.choice([name for name in _KINDS if name != kind])
    word = rng.choice(_KINDS[kind if belongs else other])
    return Question(
        f"is {word} {kind}", f"{'yes' if belongs else 'no'} {word} is {kind if belongs else other}", "kinds"
    )


def _again(rng: random.Random) -> Question:
    first, second = rng.sample(_SAID, 2)
    if rng.random() < 0.5:
        return Question(f"say {first} two times", f"{first} {first}", "saying again")
    return Question(f"say {first} and then {second}", f"{first} {second}", "saying again")


_FAMILIES = (_next_number, _opposite, _color, _place, _kind, _again)
