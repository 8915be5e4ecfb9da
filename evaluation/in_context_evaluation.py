"""Whether a language model of the tiny zoo learns classes from labeled texts in its prompt: text alone, no speech.

What it reads of speech can hardly be labeled better: these rows are the topline of few-shot work with it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.assistant_grammar import draw_request
from ..data.command_grammar import commands_held_out, commands_seen, intents
from ..data.text_episodes import (
    NEVER_IN_EPISODES,
    Episode,
    Pool,
    Source,
    commands_by_intent,
    draw_labels,
    draw_named_episode,
    draw_pooled_episode,
    pool,
)
from ..data.text_task_dataset import PromptEncoder
from .intervals import mean_interval
from .report import Measurement
from .tiny_zoo_evaluation import complete

_SEED = 4711  # not among the seeds of training


@dataclass(frozen=True)
class EpisodeTest:
    """Episodes of `ways` classes with `shots` texts each, and then one text that no episode of training asked for.

    shown, asked: texts by class, of those that are labeled in the prompt and of the last.
    words: of a label. new_words: they were labels in no episode of training. named: labels are the classes' names,
        and the last text is of a class that was not shown.
    spread: which texts are spread out by fillers, as speech would be.
    """

    shown: Pool
    asked: Pool
    ways: int = 4
    shots: int = 3
    words: int = 1
    new_words: bool = False
    named: bool = False
    spread: Literal["none", "last", "all"] = "none"

    @property
    def chance(self) -> float:
        """Of a guess among the labels shown, or among all intents where the label was not shown."""
        return 1 / len(intents()) if self.named else 1 / self.ways

    def draw(self, index: int) -> Episode:
        """Episode number `index`, the same for every model."""
        rng = random.Random(f"episode {_SEED} {index}")
        if self.named:
            return draw_named_episode(self.shown, self.asked, self.ways, self.shots, rng, elsewhere=True)
        labels = draw_labels(self.ways, rng, self.words, self.new_words)
        return draw_pooled_episode(self.shown, self.asked, labels, self.shots, rng)

    def prompt(self, encoder: PromptEncoder, index: int) -> list[int]:
        """The tokens of episode number `index` as far as the last label."""
        episode = self.draw(index)
        last = len(episode.texts) - 1
        spread = [self.spread == "all" or (self.spread == "last" and number == last) for number in range(last + 1)]
        tokens = encoder.episode(episode, spread, random.Random(f"spread {index}"))["input_ids"]
        return tokens[: -len(encoder.text(episode.labels[-1]))]


def in_context_tests() -> dict[str, EpisodeTest]:
    """By what is asked: commands in phrasings that were never trained on; commands of intents that no episode of
    training showed; words for labels, forms and sources that differ from these."""
    never = commands_by_intent(c for c in commands_seen() if str(c.intent) in NEVER_IN_EPISODES)
    phrasings = EpisodeTest(pool("commands"), _phrasings_of_tests())
    kinds = {"unseen phrasings": phrasings, "unseen intents": EpisodeTest(never, never)}
    shapes = [(ways, shots) for ways in (2, 4) for shots in (1, 3, 5)]
    tests = {
        _name(replace(test, ways=ways, shots=shots), kind): replace(test, ways=ways, shots=shots)
        for kind, test in kinds.items()
        for ways, shots in shapes
    }
    variants = {
        "unseen phrasings, new words as labels": replace(phrasings, new_words=True),
        "unseen phrasings, labels of two words": replace(phrasings, words=2),
        "unseen phrasings, the last spread out": replace(phrasings, spread="last"),
        "unseen phrasings, all spread out": replace(phrasings, spread="all"),
        "scenarios of new requests": EpisodeTest(pool("requests"), _new_texts("requests")),
        "sentiments of new opinions": EpisodeTest(pool("opinions"), _new_texts("opinions"), ways=3),
        "unseen phrasings, intents by name, that asked for not shown": replace(phrasings, shots=1, named=True),
    }
    return tests | {_name(test, kind): test for kind, test in variants.items()}


def _name(test: EpisodeTest, kind: str) -> str:
    return f"{test.ways} classes, {test.shots} shot{'s' if test.shots > 1 else ''} of each: {kind}"


def _phrasings_of_tests() -> Pool:
    """Held-out commands but those that people also say to an assistant, of intents that are in episodes."""
    said = {draw_request(0, index).labeled.text for index in range(2000)}
    asked = [command for command in commands_held_out() if command.text not in said]
    return commands_by_intent(command for command in asked if str(command.intent) not in NEVER_IN_EPISODES)


def _new_texts(source: Source) -> Pool:
    """Texts that are in no episode of the course."""
    known = {text for texts in pool(source).values() for text in texts}
    new = {name: tuple(text for text in texts if text not in known) for name, texts in pool(source, _SEED).items()}
    return {name: texts for name, texts in new.items() if texts}


def measure_in_context_learning(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    count: int = 250,
    tests: Mapping[str, EpisodeTest] | None = None,
) -> list[Measurement]:
    """Shares of last texts whose label is given exactly, with its end, of `count` episodes of each of `tests`.

    Few phrasings are held out, and each is asked for many times: intervals resample the texts asked for.
    """
    tests = in_context_tests() if tests is None else tests
    return [_measure(model, tokenizer, name, test, count) for name, test in tests.items()]


def _measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, test: EpisodeTest, count: int
) -> Measurement:
    encoder = PromptEncoder(tokenizer)
    episodes = [test.draw(index) for index in range(count)]
    answers, texts = [e.labels[-1] for e in episodes], [e.texts[-1] for e in episodes]
    longest = max(len(encoder.text(answer)) for answer in answers)
    prompts = [test.prompt(encoder, index) for index in range(count)]
    given = complete(model, tokenizer, prompts, max_new_tokens=longest + 1)
    right = [one == answer for one, answer in zip(given, answers, strict=True)]
    return Measurement.of(
        name,
        "exact_match",
        mean_interval(right, texts),
        items=count,
        dataset="generated text",
        task="text-generation",
        resampled=f"{len(set(texts))} texts",
        chance=test.chance,
    )
