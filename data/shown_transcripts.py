"""Demonstrations in front of a clip while a projector is aligned: transcripts, each with a word for its class.

A projector that is asked about single clips alone need not serve what an LLM does when it learns in context (our
reading; the paper, arXiv 2407.14875, leaves open which prompts are aligned). Here the LLM reads a few transcripts with
words that stand for their classes, and then reads, or hears, one more. Words are drawn anew for every clip, so that
only the demonstrations say what they mean. A class is whatever the caller says; it needs no label of the corpus.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets import Dataset

TRANSCRIPT, LABEL = "{transcript}", "{label}"


@dataclass(frozen=True)
class Demonstrations:
    """How they are drawn and written.

    Args:
        template: of one demonstration, with `{transcript}` and `{label}`.
        words: that stand for classes.
        ways: most classes in a prompt, 2 at least.
        shots: most transcripts of a class.

    Raises `ValueError` for a template without its marks, and for too few words, classes or transcripts.
    """

    template: str
    words: Sequence[str]
    ways: int = 4
    shots: int = 3

    def __post_init__(self) -> None:
        if missing := [mark for mark in (TRANSCRIPT, LABEL) if self.template.count(mark) != 1]:
            raise ValueError(f"the demonstration is {self.template!r}; it holds {missing[0]} once")
        if self.ways < 2 or self.shots < 1:
            raise ValueError(f"{self.ways} classes of {self.shots} transcripts are too few; give at least 2 and 1")
        if len(set(self.words)) < self.ways:
            raise ValueError(f"{len(set(self.words))} words cannot stand for {self.ways} classes; give more")

    def draw(self, transcripts: Mapping[str, Sequence[str]], own: str, transcript: str, lots: random.Random) -> str:
        """Demonstrations for a clip of the class `own`: of it, and of others, never of what is said in the clip."""
        others = sorted(set(transcripts) - {own})
        classes = [own, *lots.sample(others, min(len(others), lots.randint(1, self.ways - 1)))]
        words = dict(zip(classes, lots.sample(sorted(set(self.words)), len(classes)), strict=True))
        shots = lots.randint(1, self.shots)
        shown = [
            (text, words[name])
            for name in classes
            for text in _sample([text for text in transcripts[name] if text != transcript], shots, lots)
        ]
        lots.shuffle(shown)
        return "".join(self.template.replace(TRANSCRIPT, text).replace(LABEL, word) for text, word in shown)


def transcripts_by_class(examples: Dataset, classes: Sequence[str]) -> dict[str, list[str]]:
    """The different transcripts of each class, sorted, that may be shown.

    Raises `ValueError` where there are fewer than two classes, or no class has two transcripts.
    """
    found: dict[str, set[str]] = {}
    for name, transcript in zip(classes, examples["transcript"], strict=True):
        found.setdefault(name, set()).add(transcript)
    if len(found) < 2:
        raise ValueError(f"all clips are of one class, '{next(iter(found), '')}'; demonstrations need two")
    if max(map(len, found.values())) < 2:
        raise ValueError("no class has two transcripts, one to show and one to ask about; leave demonstrations out")
    return {name: sorted(texts) for name, texts in found.items()}


def with_demonstrations(
    examples: Dataset,
    classes: Sequence[str],
    transcripts: Mapping[str, Sequence[str]],
    prompt: str,
    demonstrations: Demonstrations,
    seed: int,
) -> Dataset:
    """The examples, asked by another prompt that has demonstrations for its `{context}`.

    An example whose class has no other transcript is left out. What is drawn is a function of seed, clip and
    transcripts.

    Args:
        examples: rows of `task_examples`.
        classes: of each of them.
        transcripts: of each class, which may be shown.
        prompt: name of the other prompt.
        seed: of what is drawn.
    """
    asked = zip(classes, examples["transcript"], strict=True)
    kept = [place for place, (name, text) in enumerate(asked) if set(transcripts.get(name, ())) - {text}]
    chosen = examples.select(kept)
    contexts = [
        demonstrations.draw(transcripts, classes[place], transcript, random.Random(f"shown {seed} {clip}"))
        for place, clip, transcript in zip(kept, chosen["id"], chosen["transcript"], strict=True)
    ]
    chosen = chosen.remove_columns(["task", "context"])
    return chosen.add_column("task", [prompt] * len(kept)).add_column("context", contexts)


def _sample(texts: Sequence[str], count: int, lots: random.Random) -> list[str]:
    return lots.sample(texts, min(count, len(texts)))


__all__ = ["Demonstrations", "transcripts_by_class", "with_demonstrations"]
