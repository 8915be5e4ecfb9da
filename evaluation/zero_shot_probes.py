"""Zero-shot probes: a trained model of speech and text is asked what it was never trained on, by its prompt alone.

A probe is a prompt, the column that the prompt reads as context, and the column of the answer that is wanted. Every
score is a ratio of sums over clips, so that all of them have their intervals, their chance (the answers given to other
clips) and their topline (the answers to gold text) from one place. Words are those of `normalize_text`.

- `wer`: errors of the answer over words of the reference.
- `listed_words`: of the words in the clip's column `listed` that were said, those that the minimal alignment of the
  answer with the transcript substitutes or deletes. Whatever the prompt reads, the same words count, so that prompts
  with and without a list are compared on them; insertions are no errors here.
- `distractors`: of the words in the column `distractors`, those that stand in the answer.
- `accuracy`: answers that are the reference.
- `on_topic`: answers that hold a word of the clip's `facts` of the kinds in `topic`.
- `hallucination`: of the content words in the answers, repetitions included, those that were never said in the clip.
  Being read is not being said: a word that the context put into the model's mouth counts as made up.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import jiwer
import numpy as np
from datasets import Dataset

from ..data.corpora import task_examples
from ..data.story_grammar import Story, content_words
from ..data.text_tasks import draw_list
from ..processing.processing_speech_text_adapter import CONTEXT_MARK
from .adapter_evaluation import Decoding, answer_gold_text, answer_speech, correct
from .intervals import Interval, Values, ratio_interval
from .report import Measurement
from .word_error_rate import count_word_errors, normalize_text

LISTED, DISTRACTORS, FACTS = "listed", "distractors", "facts"


@dataclass(frozen=True)
class Probe:
    """What is asked, what is wanted, and how it is scored.

    prompt: as a processor's, `{audio}` where the clip goes, `{context}` where the context goes.
    scores: names of `SCORES`.
    reference, context: columns of the wanted answer and of what is read; no context where not given.
    topic: kinds of `facts`, one of which an answer on topic names.
    baseline: another probe that this one is compared with, seed by seed.
    """

    prompt: str
    scores: list[str]
    reference: str = "text"
    context: str = ""
    topic: list[str] = field(default_factory=list)
    baseline: str = ""

    def __post_init__(self) -> None:
        for score in self.scores:
            if score not in SCORES:
                raise ValueError(f"there is no score '{score}'; choose {', '.join(SCORES)}")
        if (CONTEXT_MARK in self.prompt) != bool(self.context):
            raise ValueError(
                f"prompt '{self.prompt}' with context '{self.context}': {CONTEXT_MARK} is filled by a column"
            )
        if ("on_topic" in self.scores) != bool(self.topic):
            raise ValueError("the score 'on_topic' and the kinds in 'topic' belong together; give both or none")


@dataclass(frozen=True)
class ProbedClips:
    """What the answers to a probe are scored by, an entry for each clip.

    listed, distractors and topic are empty where no score needs them. content: the words whose making up counts.
    """

    said: Sequence[str]
    references: Sequence[str]
    speakers: Sequence[str]
    listed: Sequence[Set[str]]
    distractors: Sequence[Set[str]]
    topic: Sequence[Set[str]]
    content: Set[str]

    @classmethod
    def of(cls, corpus: Dataset, probe: Probe, content: Set[str]) -> ProbedClips:
        """Raises `ValueError` when the corpus lacks a column that a score needs."""
        columns = {"listed_words": LISTED, "distractors": DISTRACTORS, "on_topic": FACTS}
        for score in probe.scores:
            if (column := columns.get(score)) and column not in corpus.column_names:
                raise ValueError(f"the score '{score}' needs the column '{column}', which the corpus lacks")
        facts = _facts(corpus) if probe.topic else [{}] * len(corpus)
        return cls(
            said=list(corpus["text"]),
            references=list(corpus[probe.reference]),
            speakers=[str(speaker) for speaker in corpus["speaker"]] if "speaker" in corpus.column_names else [],
            listed=_word_sets(corpus, LISTED),
            distractors=_word_sets(corpus, DISTRACTORS),
            topic=[{word for kind in probe.topic for word in _words(row.get(kind, ""))} for row in facts],
            content=content,
        )


# ---- scores --------------------------------------------------------------------------------------------------------

Counts = tuple[Values, Values]  # what each clip adds above and below the line


def _errors(clips: ProbedClips, answers: Sequence[str]) -> Counts:
    counted = count_word_errors(clips.references, answers)
    return counted.errors, counted.reference_words


def _listed_word_errors(clips: ProbedClips, answers: Sequence[str]) -> Counts:
    wrong, spoken = [], []
    for said, listed, answer in zip(clips.said, clips.listed, answers, strict=True):
        words = _words(said)
        (aligned,) = jiwer.process_words(" ".join(words), normalize_text(answer)).alignments
        lost = [
            word
            for chunk in aligned
            if chunk.type in ("substitute", "delete")
            for word in words[chunk.ref_start_idx : chunk.ref_end_idx]
        ]
        wrong.append(sum(word in listed for word in lost))
        spoken.append(sum(word in listed for word in words))
    return wrong, spoken


def _distractors_written(clips: ProbedClips, answers: Sequence[str]) -> Counts:
    written = [len(words & {*_words(answer)}) for words, answer in zip(clips.distractors, answers, strict=True)]
    return written, [len(words) for words in clips.distractors]


def _right(clips: ProbedClips, answers: Sequence[str]) -> Counts:
    return correct(clips.references, answers), np.ones(len(answers))


def _on_topic(clips: ProbedClips, answers: Sequence[str]) -> Counts:
    named = [bool(words & {*_words(answer)}) for words, answer in zip(clips.topic, answers, strict=True)]
    return named, np.ones(len(answers))


def _made_up(clips: ProbedClips, answers: Sequence[str]) -> Counts:
    given = [[word for word in _words(answer) if word in clips.content] for answer in answers]
    made_up = [sum(word not in _words(said) for word in words) for words, said in zip(given, clips.said, strict=True)]
    return made_up, [len(words) for words in given]


@dataclass(frozen=True)
class Score:
    """`title` heads a table; `count` gives what each clip adds to the two sums."""

    title: str
    count: Callable[[ProbedClips, Sequence[str]], Counts]


SCORES: Mapping[str, Score] = {
    "wer": Score("WER (lower is better)", _errors),
    "listed_words": Score("listed words that are wrong (lower is better)", _listed_word_errors),
    "distractors": Score("distractors that are written (lower is better)", _distractors_written),
    "accuracy": Score("exactly right answers", _right),
    "on_topic": Score("answers on topic", _on_topic),
    "hallucination": Score("content words that were never said (lower is better)", _made_up),
}


def measure_probe(
    name: str, score: str, clips: ProbedClips, answers: Sequence[str], gold: Sequence[str]
) -> Measurement | None:
    """One score of one probe, or `None` where nothing is below the line, as when no answer has a content word.

    answers, gold: to speech and to its true text, one for each clip. The interval resamples speakers where at least
    two are known, clips otherwise.
    """
    by_speaker = len(set(clips.speakers)) > 1
    interval = _value(score, clips, answers, clips.speakers if by_speaker else None)
    if interval is None:
        return None
    compared = {"chance": others(answers), "topline": gold}
    values = {kind: _value(score, clips, given) for kind, given in compared.items() if given}
    return Measurement.of(
        name,
        score,
        interval,
        items=len(answers),
        speakers=len(set(clips.speakers)) if by_speaker else None,
        resampled="speakers" if by_speaker else "items",
        **{kind: value.value for kind, value in values.items() if value is not None},
    )


def reference_value(score: str, clips: ProbedClips) -> float | None:
    """What the references themselves score: a right continuation, say, brings a name that was never said."""
    value = _value(score, clips, clips.references)
    return None if value is None else value.value


def _value(
    score: str, clips: ProbedClips, answers: Sequence[str], speakers: Sequence[str] | None = None
) -> Interval | None:
    above, below = SCORES[score].count(clips, answers)
    return ratio_interval(above, below, speakers) if np.any(below) else None


def others(answers: Sequence[str]) -> list[str]:
    """Every answer given to another clip, always in the same way; nothing where there is but one."""
    if len(answers) < 2:
        return []
    order = np.random.default_rng(0).permutation(len(answers))
    given = dict(zip(order, np.roll(order, 1), strict=True))
    return [answers[given[index]] for index in range(len(answers))]


# ---- asking --------------------------------------------------------------------------------------------------------


def with_word_lists(corpus: Dataset) -> Dataset:
    """Adds `listed` and `distractors`: four words each, drawn anew for each clip but always the same for its id.

    Listed are the words of the clip's `facts`, distractors others of the same kinds, in random order. A corpus with
    lists of its own, or without `facts`, stays as it is. Raises `ValueError` for a kind of which no words are known.
    """
    if FACTS not in corpus.column_names or LISTED in corpus.column_names:
        return corpus
    facts = _facts(corpus)
    if unknown := {kind for row in facts for kind in row} - set(content_words()):
        raise ValueError(
            f"'{FACTS}' has the kind '{min(unknown)}', of which no other words are known; give the corpus columns "
            f"'{LISTED}' and '{DISTRACTORS}' of its own"
        )
    stories = [Story("", "", "", "", "", row) for row in facts]  # lists are drawn of facts alone
    for column, right in ((LISTED, True), (DISTRACTORS, False)):
        generators = [random.Random(f"{column} {clip}") for clip in corpus["id"]]
        lists = [" ".join(draw_list(*pair, right=right)) for pair in zip(stories, generators, strict=True)]
        corpus = corpus.add_column(column, lists)
    return corpus


def check_probes(probes: Mapping[str, Probe], corpus: Dataset) -> None:
    """Raises `ValueError` for a column or baseline that is not there, an empty answer, and an answer that is read."""
    for name, probe in probes.items():
        wanted = ["text", probe.reference, *filter(None, [probe.context])]
        if missing := [column for column in wanted if column not in corpus.column_names]:
            raise ValueError(f"probe '{name}' needs column '{missing[0]}'; there are {', '.join(corpus.column_names)}")
        if probe.baseline and probe.baseline not in probes:
            raise ValueError(f"probe '{name}' has the baseline '{probe.baseline}'; choose {', '.join(probes)}")
        contexts = corpus[probe.context] if probe.context else [None] * len(corpus)
        for row in zip(corpus["id"], corpus[probe.reference], corpus["text"], contexts, strict=True):
            clip, reference, said, context = row
            if not reference or not said:
                raise ValueError(f"clip '{clip}' has no '{probe.reference}' or no text; probe '{name}' needs both")
            if context in (reference, said):
                raise ValueError(f"probe '{name}' reads, as context of clip '{clip}', what it is asked for")


def refuse_trained_texts(corpus: Dataset, source: str, trained: Sequence[str]) -> None:
    """Raises `ValueError` when a text of the probed corpus is among the `trained` texts of a source."""
    known = {normalize_text(text) for text in trained}
    for clip, text in zip(corpus["id"], corpus["text"], strict=True):
        if normalize_text(text) in known:
            raise ValueError(f"'{text}' of clip '{clip}' is in '{source}', which was trained on; probe other texts")


def answer_probe(
    model: Any, processor: Any, corpus: Dataset, name: str, probe: Probe, decoding: Decoding
) -> tuple[list[str], list[str]]:
    """The answers to speech and to its true text, in the order of a corpus that `check_probes` has seen."""
    rows = corpus.remove_columns([column for column in corpus.column_names if column == "context"])
    if probe.context:
        rows = rows.add_column("context", list(corpus[probe.context]))
    examples = task_examples(rows, {name: probe.reference})
    asked = copy.copy(processor)  # the model's own prompts stay as they are
    asked.prompts = {name: probe.prompt}
    return answer_speech(model, asked, examples, decoding), answer_gold_text(model, asked, examples, decoding)


def story_content_words() -> frozenset[str]:
    """The words that carry facts in the stories of this package."""
    return frozenset(word for words in content_words().values() for word in words)


def _facts(corpus: Dataset) -> list[dict[str, str]]:
    """Word by kind, for each clip."""
    return [{kind: word for kind, word in row.items() if word} for row in corpus[FACTS]]


def _words(text: str) -> list[str]:
    return normalize_text(text).split()


def _word_sets(corpus: Dataset, column: str) -> list[set[str]]:
    if column not in corpus.column_names:
        return [set()] * len(corpus)
    return [{*_words(text)} for text in corpus[column]]
