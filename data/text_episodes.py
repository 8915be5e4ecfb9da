"""Episodes for a language model that has to learn in context: labeled texts, then one whose label follows from them.

Texts come from three sources, each with its own classes: commands by intent, requests by scenario, opinions by
sentiment. Which word stands for which class is drawn anew for every episode, so that it can be learned from nothing
but the episode, unless the classes go by their own names.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
FIRST_LABELS = LABELS[:8]  # those of the first part of a course
# Intents that no episode shows, so that learning a class from examples alone can be measured.
NEVER_IN_EPISODES = tuple(str(intent) for intent in intents()[3::6])


@dataclass(frozen=True)
class Episode:
    """Texts with the words that stand for their classes, in the order shown.

    asked: which labels a model is to say: those `explained` by a text of the class before; the `last` of labels that
        are names of classes, which a model may know without an example; or `all` of such names.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    asked: Literal["explained", "last", "all"] = "explained"

    @property
    def named(self) -> bool:
        """Whether the labels are the names of the classes."""
        return self.asked != "explained"


@dataclass(frozen=True)
class EpisodeCourse:
    """Episodes in two parts: the first forms the habit of looking for the label of a like text, on texts whose classes
    the model can tell apart already; the second varies all that the habit should not hang on. Mixed from the
    start, labels were still guessed after 160 steps of 32 examples. Pairs give a value for each part.

    Parts: `first_part` is the share of the first, whose episodes are of commands alone with few words for labels and
        nothing spread out.
    Sequences: the share `sequences` are no episodes but texts of one of the sources with the names of their classes,
        `longest_sequence` at most, each to be named. Without them a model that was taught tasks one by one names
        nothing behind another text, and an episode has nothing to hold on to.
    Shapes: 2 to `ways` classes (opinions have 3 at most), each of as many texts, 1 to `shots`.
    Habit: in the share `easy` the last text was shown before.
    Second part: texts from `sources` by share; of the commands, the share `named` has the names of the classes for
        labels, and in half of these the class asked for was not shown; of the other labels the share `two_words` has
        two words. The shares of `spread` have the last text, and all texts, spread out by fillers; all only of
        episodes of at most `longest_spread` texts, because they grow fourfold.
    """

    first_part: float = 0.6
    sequences: tuple[float, float] = (0.45, 0.2)
    longest_sequence: int = 6
    ways: int = 4
    shots: tuple[int, int] = (2, 5)
    easy: tuple[float, float] = (0.5, 0.25)
    sources: Mapping[Source, float] = field(
        default_factory=lambda: {"commands": 0.6, "requests": 0.25, "opinions": 0.15}
    )
    named: float = 0.15
    two_words: float = 0.1
    spread: tuple[float, float] = (0.25, 0.08)
    longest_spread: int = 9

    def is_first(self, progress: float) -> bool:
        """Whether a place of the course, 0 to 1, is in its first part."""
        return progress < self.first_part

    def draw_spread(self, progress: float, count: int, rng: random.Random) -> list[bool]:
        """Which of an episode's `count` texts are spread out."""
        kind, (last, every) = rng.random(), self.spread
        if self.is_first(progress) or kind >= last + every:
            return [False] * count
        whole = kind < every and count <= self.longest_spread
        return [whole or number == count - 1 for number in range(count)]


def draw_course_episode(course: EpisodeCourse, progress: float, seed: int, index: int) -> Episode:
    """Episode number `index` at a place of the course, 0 to 1; a function of the four."""
    rng, first = random.Random(f"course {seed} {index}"), course.is_first(progress)
    if rng.random() < course.sequences[not first]:
        return draw_named_sequence(pool(_source(course, rng)), course.longest_sequence, rng)
    return (_draw_first if first else _draw_second)(course, rng)


def _source(course: EpisodeCourse, rng: random.Random) -> Source:
    return rng.choices(list(course.sources), list(course.sources.values()))[0]


def _draw_first(course: EpisodeCourse, rng: random.Random) -> Episode:
    texts, labels = pool("commands"), rng.sample(FIRST_LABELS, rng.randint(2, course.ways))
    shots = rng.randint(1, course.shots[0])
    return draw_pooled_episode(texts, texts, labels, shots, rng, easy=rng.random() < course.easy[0])


def _draw_second(course: EpisodeCourse, rng: random.Random) -> Episode:
    source = _source(course, rng)
    texts = pool(source)
    ways, shots = rng.randint(2, min(course.ways, len(texts))), rng.randint(1, course.shots[1])
    if source == "commands" and rng.random() < course.named:
        return draw_named_episode(texts, texts, ways, shots, rng, elsewhere=rng.random() < 0.5)
    labels = draw_labels(ways, rng, 2 if rng.random() < course.two_words else 1)
    return draw_pooled_episode(texts, texts, labels, shots, rng, easy=rng.random() < course.easy[1])


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
    episode = _arrange(demonstrations, {one: one for one in chosen}, (text, name), rng)
    return replace(episode, asked="last")


def draw_named_sequence(texts: Pool, longest: int, rng: random.Random) -> Episode:
    """2 to `longest` texts of any classes with their names, all of which are asked for."""
    names = rng.choices(sorted(texts), k=rng.randint(2, longest))
    return Episode(tuple(rng.choice(texts[name]) for name in names), tuple(names), asked="all")


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
) -> Episode:
    shown = [(text, words[name]) for name, texts in demonstrations.items() for text in texts]
    rng.shuffle(shown)
    texts, labels = zip(*shown, asked, strict=True)
    return Episode(texts, labels)


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
