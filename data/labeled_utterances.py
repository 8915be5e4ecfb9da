"""Utterances with the answer that understanding them takes, read as speech or as text: what a SUTLM is fine-tuned on.

    <U_EN> 12 66 17 18                 a clip, whose class is asked
    <T_EN> how are you
    <U_EN> 12 66 17 18 <T_EN>          a clip, after which the answer is written
    <T_EN> how are you <T_EN>

The answer begins behind the same sign whatever was read, as the text behind the speech in CST; "switch" puts `<U2T>`
behind speech, as AST does. Both are our reading: the paper's sequences are not known to us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from datasets import Dataset

from ..modeling.modality_generation import Glue, Modality
from ..processing.processing_sutlm import SUTLMProcessor
from ..processing.sutlm_answers import question_sequence, written_answer
from .corpora import load_corpus
from .speech_text_mixing import Utterance

InputModality = Modality
MODALITIES: tuple[InputModality, ...] = get_args(InputModality)


@dataclass(frozen=True)
class Answer:
    """What is to be said of a clip.

    Args:
        answer: name of a class, or a text.
        text: the words of the clip as the answer spells them.
        speaker: who says them, where known.
    """

    answer: str
    text: str
    speaker: str | None = None


@dataclass(frozen=True)
class LabeledUtterance:
    """A clip as deduplicated units and as text, with its answer."""

    id: str
    units: list[int]
    text: str
    answer: str
    speaker: str | None = None

    def read_as(self, modality: InputModality) -> tuple[str, list[int] | str]:
        """The span that a `SUTLMProcessor` takes. Raises `ValueError` for another modality, and for a text without
        words."""
        if modality not in MODALITIES:
            raise ValueError(f"a clip is read as '{modality}'; choose {' or '.join(MODALITIES)}")
        if modality == "text" and not self.text.strip():
            raise ValueError(f"clip '{self.id}' has no text to read; leave it out, or use speech alone")
        return modality, self.units if modality == "speech" else self.text


def class_tokens(processor: SUTLMProcessor, utterance: LabeledUtterance, modality: InputModality) -> list[int]:
    """What a classifier reads."""
    return processor.sequence([utterance.read_as(modality)])


def question_tokens(
    processor: SUTLMProcessor, utterance: LabeledUtterance, modality: InputModality, glue: Glue = "start"
) -> list[int]:
    """What a language model reads before it writes the answer, the sign that the answer begins with included."""
    return question_sequence(processor, utterance.read_as(modality), glue)


def answer_tokens(processor: SUTLMProcessor, utterance: LabeledUtterance) -> list[int]:
    """What it is to write, the end included."""
    return [*processor.text_tokens(utterance.answer), processor.eos_token_id]


def load_labels(source: str, column: str) -> Dataset:
    """The rows of a corpus without audio; `source@split` picks a split. Raises `ValueError` without `column`."""
    name, _, split = source.partition("@")
    rows = load_corpus(name, split or None, audio=False)
    if column not in rows.column_names:
        raise ValueError(f"'{source}' has no column '{column}'; it has {', '.join(rows.column_names)}")
    return rows


def labeled_utterances(utterances: Sequence[Utterance], answers: Mapping[str, Answer]) -> list[LabeledUtterance]:
    """Clips with the answers of their ids, in their order. Raises `ValueError` for a clip without one."""
    if lacking := [utterance.id for utterance in utterances if utterance.id not in answers]:
        raise ValueError(f"{len(lacking)} clips have no label, first '{lacking[0]}'; leave them out of the corpus")
    labeled = []
    for utterance in utterances:
        given = answers[utterance.id]
        labeled.append(LabeledUtterance(utterance.id, utterance.units.units, given.text, given.answer, given.speaker))
    return labeled


__all__ = [
    "MODALITIES",
    "Answer",
    "Glue",
    "InputModality",
    "LabeledUtterance",
    "answer_tokens",
    "class_tokens",
    "labeled_utterances",
    "load_labels",
    "question_tokens",
    "written_answer",
]
