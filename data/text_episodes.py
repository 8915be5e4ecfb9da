"""Episodes for a language model that has to learn in context: labeled texts, then one whose label follows from them.

Texts come from three sources, each with its own classes: commands by intent, requests by scenario, opinions by
sentiment. Which word stands for which class is drawn anew for every episode, so that it can be learned from nothing
but the episode, unless the classes go by their own names.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from .assistant_grammar import draw_request
from .command_grammar import Command, commands_held_out, commands_seen, intents
from .opinion_grammar import draw_opinion
from .story_grammar import lexicon

Source = Literal["commands", "requests", "opinions"]
Pool = Mapping[str, tuple[str, ...]]  # class -> texts

# Ordinary words that stand for classes in episodes; none begins an answer at `<int>`.
LABELS = ("red", "blue", "apple", "river", "anna", "table", "winter", "horse", "silver", "oscar", "bridge", "seven")
# Intents that no episode shows, so that learning a class from examples alone can be measured.
NEVER_IN_EPISODES = tuple(str(intent) for intent in intents()[3::6])


@dataclass(frozen=True)
class Episode:
    """Texts with the words that stand for their classes, in the order shown; the last is asked for.

    named: the labels are the names of the classes, which a model may know without an example.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    named: bool = False


@dataclass(frozen=True)
class EpisodeCourse:
    """Episodes that grow harder over a course. Pairs are of its beginning and its end, and linear between them.

    Shapes: 2 to `ways` classes (opinions have 3 at most), each of as many texts, 1 to `shots`.
    Habit: in the share `easy` the last text was shown before.
    Texts: `sources` by share.
    Labels: those of the share `named` are the names of the classes, and in half of these, where they are of commands,
        the class asked for was not shown; those of the share `two_words` are two words, the others one.
    Form: the shares of `spread` have the last text, and all texts, spread out by fillers; none before `spread_from`.
    """

    ways: int = 4
    shots: tuple[float, float] = (2, 5)
    easy: tuple[float, float] = (0.7, 0.2)
    sources: Mapping[Source, float] = field(
        default_factory=lambda: {"commands": 0.6, "requests": 0.25, "opinions": 0.15}
    )
    named: float = 0.15
    two_words: float = 0.1
    spread: tuple[float, float] = (0.25, 0.08)
    spread_from: float = 0.4

    def spread_at(self, progress: float) -> tuple[float, float]:
        """The shares of `spread` at a place of the course, 0 to 1."""
        return self.spread if progress >= self.spread_from else (0.0, 0.0)


def draw_course_episode(course: EpisodeCourse, progress: float, seed: int, index: int) -> Episode:
    """Episode number `index` at a place of the course, 0 to 1; a function of the four."""
    rng = random.Random(f"course {seed} {index}")
    source = rng.choices(list(course.sources), list(course.sources.values()))[0]
    texts = pool(source)
    ways = rng.randint(2, min(course.ways, len(texts)))
    shots = rng.randint(1, round(_between(course.shots, progress)))
    if rng.random() < course.named:
        elsewhere = source == "commands" and rng.random() < 0.5
        return draw_named_episode(texts, texts, ways, shots, rng, elsewhere)
    words = draw_labels(ways, rng, 2 if rng.random() < course.two_words else 1)
    easy = rng.random() < _between(course.easy, progress)
    return draw_pooled_episode(texts, texts, words, shots, rng, easy)


def draw_pooled_episode(
    shown: Pool, asked: Pool, words: Sequence[str], shots: int, rng: random.Random, easy: bool = False
) -> Episode:
    """`shots` texts of `shown` of each of as many classes as there are words, shuffled, and a text of `asked`.

    easy: the last text is one of those shown, otherwise it is none of them.
    """
    chosen, demonstrations = _draw_demonstrations(shown, sorted(set(shown) & set(asked)), len(words), shots, rng)
    names = dict(zip(chosen, words, strict=True))
    name = rng.choice(chosen)
    before = demonstrations[name]
    text = rng.choice(before if easy else [text for text in asked[name] if text not in before])
    return _arrange(demonstrations, names, (text, names[name]), rng)


def draw_named_episode(
    shown: Pool, asked: Pool, ways: int, shots: int, rng: random.Random, elsewhere: bool = False
) -> Episode:
    """The same with the names of the classes as labels; `elsewhere`: the last text is of a class not shown."""
    names = sorted(set(shown) if elsewhere else set(shown) & set(asked))
    chosen, demonstrations = _draw_demonstrations(shown, names, ways, shots, rng)
    name = rng.choice(sorted(set(asked) - set(chosen)) if elsewhere else chosen)
    text = rng.choice([text for text in asked[name] if text not in demonstrations.get(name, ())])
    return _arrange(demonstrations, {one: one for one in chosen}, (text, name), rng, named=True)


def _draw_demonstrations(
    texts: Pool, names: Sequence[str], ways: int, shots: int, rng: random.Random
) -> tuple[list[str], dict[str, list[str]]]:
    chosen = rng.sample(names, ways)
    return chosen, {name: rng.sample(texts[name], shots) for name in chosen}


def _arrange(
    demonstrations: Mapping[str, Sequence[str]],
    words: Mapping[str, str],
    asked: tuple[str, str],
    rng: random.Random,
    named: bool = False,
) -> Episode:
    shown = [(text, words[name]) for name, texts in demonstrations.items() for text in texts]
    rng.shuffle(shown)
    texts, labels = zip(*shown, asked, strict=True)
    return Episode(texts, labels, named)


def _between(ends: tuple[float, float], progress: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * progress


# --- words that stand for classes ---


def draw_labels(count: int, rng: random.Random, words: int = 1, held_out: bool = False) -> list[str]:
    """Different labels of so many `words` each; no word is in two of them."""
    drawn = rng.sample(label_words(held_out), count * words)
    return [" ".join(drawn[first : first + words]) for first in range(0, len(drawn), words)]


@cache
def label_words(held_out: bool = False) -> tuple[str, ...]:
    """Words of the lexicon, of four letters or more, that begin no answer at `<int>`; every sixth is held out, so that
    words can be tested that never were labels in training. `LABELS` are none of those.
    """
    begins = {str(intent).split()[0] for intent in intents()}
    longer = [word for word in lexicon() if len(word) > 3 and word not in begins]
    kept = {word for number, word in enumerate(longer) if number % 6 == 3} - set(LABELS)
    return tuple(word for word in longer if (word in kept) == held_out)


# --- texts by class ---


@cache
def pool(source: Source, seed: int = 0) -> Pool:
    """Texts to draw episodes from, by class; no held-out command and no intent of `NEVER_IN_EPISODES` is among them.

    seed: of the requests and opinions. Another seed gives other texts, but some are the same.
    """
    return _POOLS[source](seed)


def _seen_commands(_: int) -> Pool:
    return commands_by_intent([command for command in commands_seen() if str(command.intent) not in NEVER_IN_EPISODES])


def commands_by_intent(commands: Iterable[Command]) -> Pool:
    """The phrasings of commands by the name of their intent."""
    return _by_class((str(command.intent), command.text) for command in commands)


def _requests(seed: int) -> Pool:
    requests = (draw_request(seed, index) for index in range(_DRAWN))
    held_out = {command.text for command in commands_held_out()}
    texts = ((request.scenario, request.labeled.text) for request in requests)
    return _by_class((scenario, text) for scenario, text in texts if text not in held_out)


def _opinions(seed: int) -> Pool:
    opinions = (draw_opinion(seed, index) for index in range(_DRAWN))
    return _by_class((opinion.sentiment.lower(), opinion.text) for opinion in opinions)


def _by_class(labeled: Iterable[tuple[str, str]]) -> Pool:
    found: dict[str, dict[str, None]] = {}
    for name, text in labeled:
        found.setdefault(name, {})[text] = None
    return {name: tuple(texts) for name, texts in found.items()}


_DRAWN = 2000  # requests, and opinions, that a pool is made of
_POOLS = {"commands": _seen_commands, "requests": _requests, "opinions": _opinions}
