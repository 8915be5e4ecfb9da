"""Tasks of few-shot spoken language understanding: which clips, which classes, and how a prompt is written.

A task is data, so that it can stand in a YAML file: a corpus, the column of its labels, the words that stand for a
label, and templates. It becomes a `FewShotMaterial`: clips to show, clips to ask about, and the closed set of classes.
Templates and words are our reading: the paper (arXiv 2407.14875) gives none; those for FSC's objects are in the manner
of WavPrompt (arXiv 2203.15863).
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from datasets import ClassLabel, Dataset

from ..data.corpora import load_corpus
from ..data.selections import column_of, ids_of, labels_of, speakers_of
from ..data.speaker_folds import balanced_folds
from .prompt_readers import Clip, FewShotPrompt, Segment
from .word_error_rate import normalize_librispeech

CLIP, LABEL, LABELS = "{clip}", "{label}", "{labels}"


@dataclass(frozen=True)
class PromptTemplate:
    """How a prompt is written, special tokens included.

    query: what is asked of a clip, `{clip}`; it ends where the answer begins: `"Speech: {clip}\\nIntent:"`.
    demonstration: the query, answered, `{label}`: `"Speech: {clip}\\nIntent: {label}\\n\\n"`.
    instruction: what stands before all demonstrations; `{labels}` lists the words that may be answered.
    separator: between the words of that list.

    Raises `ValueError` where a demonstration does not begin with the query, or a mark is missing or misplaced.
    """

    query: str
    demonstration: str
    instruction: str = ""
    separator: str = ", "

    def __post_init__(self) -> None:
        if self.query.count(CLIP) != 1 or LABEL in self.query:
            raise ValueError(f"the query is {self.query!r}; it holds {CLIP} once, and no {LABEL}")
        if not self.demonstration.startswith(self.query):
            raise ValueError(
                f"the demonstration {self.demonstration!r} does not begin with the query {self.query!r}: shown and "
                "asked clips must be written alike"
            )
        answer = self.demonstration[len(self.query) :]
        if answer.count(LABEL) != 1 or CLIP in answer:
            raise ValueError(
                f"the demonstration is {self.demonstration!r}; {LABEL} stands once in it, after the query"
            )
        if misplaced := [mark for mark in (CLIP, LABEL) if mark in self.instruction]:
            raise ValueError(f"the instruction holds {misplaced[0]}; the only mark it may hold is {LABELS}")

    @property
    def _answer(self) -> tuple[str, str]:
        """What stands before and behind the words of a label."""
        before, _, after = self.demonstration[len(self.query) :].partition(LABEL)
        return before, after

    def answer(self, words: str) -> str:
        """What is scored behind the query: the words of a label with what leads to them, such as a space."""
        return self._answer[0] + words

    @property
    def ending(self) -> str:
        """What stands behind the words of a label in a demonstration: what tells one from another that it begins."""
        return self._answer[1]

    def prompt(self, shown: Sequence[tuple[Clip, str]], query: Clip, words: Sequence[str]) -> FewShotPrompt:
        """A prompt.

        Args:
            shown: clips with the words of their labels, in the order they are read.
            words: of all labels that may be answered.
        """
        before, clip_to_answer = self.query.split(CLIP)
        demonstrations: list[Segment] = [self.instruction.replace(LABELS, self.separator.join(words))]
        for clip, label in shown:
            demonstrations += [before, clip, clip_to_answer + self.answer(label) + self.ending]
        query_parts: list[Segment] = [before, query, clip_to_answer]
        return FewShotPrompt(tuple(filter(None, demonstrations)), tuple(filter(None, query_parts)))


@dataclass(frozen=True)
class FewShotTask:
    """What is asked of which clips.

    Clips:
        train: corpus of the demonstrations, as `load_corpus` takes it; `source@split` picks a split.
        test: corpus of the queries; without one they are clips of `train`, kept apart by `folds`.
        folds: so many groups of whole speakers of `train`; queries of one see demonstrations of the others.
        speaker_mark: what follows it in the name of a speaker is passed over, so that `g33-57` and `g33-60` are one.
        columns: our name of a column -> its name in the corpora.
        test_limit: so many queries, drawn once for all seeds; all where not given.
        plain_text: texts are read in small letters without punctuation, apostrophes kept.
    Classes:
        label: column of the labels; `slots.size` is a key of a column of mappings.
        words: label -> words that stand for it. Labels of the same words are one class. Others are named by their own
            words, with spaces for underscores.
        labels: closed set of the labels; those of the clips to show where not given.
        unlabeled: label of clips that have none, which are otherwise left out and counted.
        other_labels: what to do with queries of a label that is not in the set.
    Prompts:
        template: how they are written.
        ways: every query is asked among so many classes: those of its share in a random division of all. All classes
            where not given.
        symbols: words drawn anew to stand for classes, by seed and share, so that what a class is called is learned
            from the demonstrations alone.
        shots_of: whether shots are counted by prompt, or by class.

    Raises `ValueError` for numbers that cannot be meant, and unless either `test` or `folds` says what is asked about.
    """

    train: str
    label: str
    template: PromptTemplate
    test: str | None = None
    folds: int = 0
    speaker_mark: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    test_limit: int | None = None
    plain_text: bool = False
    words: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    unlabeled: str | None = None
    other_labels: Literal["refuse", "leave_out"] = "refuse"
    ways: int | None = None
    symbols: list[str] = field(default_factory=list)
    shots_of: Literal["prompt", "class"] = "prompt"
    title: str = ""

    def __post_init__(self) -> None:
        if (self.test is None) == (self.folds == 0):
            raise ValueError(f"test is {self.test!r} and folds is {self.folds}; give one of them to say what is asked")
        for what, number, least in (
            ("folds", self.folds, 2),
            ("ways", self.ways, 2),
            ("test_limit", self.test_limit, 1),
        ):
            if (number and number < least) or (number == 0 and what != "folds"):
                raise ValueError(f"{what} is {number}; give at least {least}, or leave it out")
        if len(set(self.symbols)) < len(self.symbols):
            raise ValueError(f"symbols hold a word twice: {', '.join(sorted(self.symbols))}")
        if self.symbols and len(self.symbols) < (self.ways or 2):
            raise ValueError(f"{len(self.symbols)} symbols cannot stand for {self.ways or 2} classes; give more")

    def class_of(self, label: str) -> str:
        """The words that stand for a label, which are the name of its class."""
        return self.words.get(label, label.replace("_", " "))


@dataclass(frozen=True)
class LabeledClip:
    """A clip with the class it belongs to, and its speaker where known."""

    clip: Clip
    label: str
    speaker: str = ""


@dataclass(frozen=True)
class MaterialPart:
    """Queries, and the clips that may be shown before them."""

    pool: tuple[LabeledClip, ...]
    queries: tuple[LabeledClip, ...]


@dataclass(frozen=True)
class FewShotMaterial:
    """The clips of a task.

    classes: the closed set, in alphabetical order.
    parts: one, or one for each fold of speakers.
    left_out: what was left out at the user's request, with counts.
    """

    classes: tuple[str, ...]
    parts: tuple[MaterialPart, ...]
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def clips(self) -> dict[str, LabeledClip]:
        """Every clip by its id."""
        found = [one for part in self.parts for one in (*part.pool, *part.queries)]
        return {one.clip.id: one for one in found}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of classes and clips: ids, texts, classes and speakers."""

        def rows(clips: Sequence[LabeledClip]) -> list[tuple[str, ...]]:
            return sorted((one.clip.id, one.clip.text, one.label, one.speaker) for one in clips)

        parts = [[rows(part.pool), rows(part.queries)] for part in self.parts]
        return hashlib.sha256(json.dumps([self.classes, parts]).encode()).hexdigest()


def read_material(task: FewShotTask) -> FewShotMaterial:
    """Loads the corpora of a task.

    Raises `ValueError` for a corpus that cannot be used, a label in `words` or `labels` that the corpora do not have,
    a query whose label is not in the set, and a clip that would be both shown and asked about.
    """
    shown, silent, known = _read(task, task.train)
    asked, more_silent, more_known = (shown, 0, known) if task.test is None else _read(task, task.test)
    known = known | more_known
    for what, named in (("words", task.words), ("labels", task.labels)):
        if unknown := sorted(set(named) - known):
            raise ValueError(f"{what} name '{unknown[0]}', which is no {task.label}; there are {_listed(known)}")
    allowed = set(task.labels) or {label for label, _ in shown}
    pool = [clip for label, clip in shown if label in allowed]
    queries = [clip for label, clip in asked if label in allowed]
    others = Counter(label for label, _ in asked if label not in allowed)
    if others and task.other_labels == "refuse":
        raise ValueError(
            f"{others.total()} queries have a {task.label} outside of the closed set: {_listed(others)}; name all in "
            "labels, or set other_labels: leave_out"
        )
    left_out = {"clips without a label": silent + more_silent, "queries of other labels": others.total()}
    classes = sorted({task.class_of(label) for label in allowed})
    if len(classes) < (task.ways or 2):
        raise ValueError(f"{task.label} has {len(classes)} classes; {task.ways or 2} are the least to choose from")
    return FewShotMaterial(
        tuple(classes), tuple(_parts(task, pool, queries)), {what: count for what, count in left_out.items() if count}
    )


def _parts(task: FewShotTask, pool: list[LabeledClip], queries: list[LabeledClip]) -> list[MaterialPart]:
    asked = {one.clip.id for one in _limited(queries, task.test_limit)}
    if not asked:
        raise ValueError(f"'{task.test or task.train}' has no clip with a {task.label} to ask about")
    if not task.folds:
        if both := sorted(asked & {one.clip.id for one in pool}):
            raise ValueError(
                f"clip '{both[0]}' is in '{task.train}' and in '{task.test}'; give splits that share none"
            )
        return [MaterialPart(tuple(pool), tuple(one for one in queries if one.clip.id in asked))]
    if nameless := [one.clip.id for one in pool if not one.speaker]:
        raise ValueError(f"clip '{nameless[0]}' has no speaker, so folds cannot keep speakers apart")
    folds = balanced_folds([one.speaker for one in pool], task.folds)
    parts = [
        MaterialPart(
            tuple(one for one, own in zip(pool, folds, strict=True) if own != fold),
            tuple(one for one, own in zip(pool, folds, strict=True) if own == fold and one.clip.id in asked),
        )
        for fold in range(task.folds)
    ]
    return [part for part in parts if part.queries]


def _limited(queries: list[LabeledClip], limit: int | None) -> list[LabeledClip]:
    if limit is None or limit >= len(queries):
        return queries
    return random.Random("queries").sample(sorted(queries, key=lambda one: one.clip.id), limit)


def _read(task: FewShotTask, source: str) -> tuple[list[tuple[str, LabeledClip]], int, set[str]]:
    """Labels with their clips; how many clips have none; and all labels that the corpus knows."""
    name, _, split = source.partition("@")
    rows = load_corpus(name, split or None, task.columns)
    if not isinstance(rows, Dataset):
        raise ValueError(f"'{source}' is a stream; load it without streaming")
    labels = [task.unlabeled if label is None else label for label in _labels(rows, task.label)]
    texts = column_of(rows, "text") if "text" in rows.column_names else [None] * len(rows)
    audio = column_of(rows, "audio") if "audio" in rows.column_names else [None] * len(rows)
    columns = zip(labels, ids_of(rows), texts, audio, speakers_of(rows), strict=True)
    found = [
        (label, LabeledClip(Clip(id, _text(task, text), sound), task.class_of(label), _speaker(task, speaker)))
        for label, id, text, sound, speaker in columns
        if label is not None
    ]
    feature = rows.features.get(task.label)
    numbered = feature.names if isinstance(feature, ClassLabel) else []
    return found, labels.count(None), {label for label, _ in found} | set(numbered)


def _labels(rows: Dataset, column: str) -> list[str | None]:
    name, _, key = column.partition(".")
    if not key:
        return labels_of(rows, name)
    values = [value or {} for value in column_of(rows, name)]
    if not any(isinstance(value, Mapping) and key in value for value in values):
        raise ValueError(f"column '{name}' has no key '{key}'; name another label")
    return [None if value.get(key) is None else str(value[key]) for value in values]


def _text(task: FewShotTask, text: Any) -> str:
    return normalize_librispeech(text or "") if task.plain_text else text or ""


def _speaker(task: FewShotTask, name: str | None) -> str:
    return (name or "").partition(task.speaker_mark)[0] if task.speaker_mark else name or ""


def _listed(labels: Any, most: int = 8) -> str:
    names = sorted(labels)
    return ", ".join(f"'{name}'" for name in names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )


def as_text(clip: Clip) -> Clip:
    """The same, read as text by every reader. Raises `ValueError` where it is not known what is said."""
    if not clip.text:
        raise ValueError(f"clip '{clip.id}' has no text to be shown; show speech, or name its column in columns")
    return replace(clip, audio=None)
