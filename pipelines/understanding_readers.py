"""How each kind of model is asked what a clip means: one reader a kind, told by the class of the model.

Shapes: B pieces, S samples, T steps, V letters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import LogitsProcessorList

from ..configuration.answer_forms import AnswerForm, answer_forms
from ..modeling.modality_generation import StayInModality
from ..processing.sutlm_answers import question_sequence, written_answer
from .clip_pieces import HearsSamples, Piece, in_groups
from .prompted_answers import PromptedAnswers, check_room, class_result, greedy_unless_told, new_tokens, read_answers
from .written_words import log_probs_of_generated, written_letters, written_tokens

_UNIT_RATE = 16000  # Hz; a unit model that wants another resamples
CLASS = "class"  # the task of a classifier that does not say what its classes are


class UnderstandingReader(ABC):
    """Runs one kind of model.

    Args:
        model, processor: the two that were trained together.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    @classmethod
    def reads(cls, config: Any) -> bool:
        """Whether a checkpoint of this configuration says what its answers mean."""
        return bool(config.answers)

    @property
    def tasks(self) -> Mapping[str, AnswerForm]:
        """What may be asked."""
        return answer_forms(self.model.config.answers)

    @property
    def first_tasks(self) -> Sequence[str]:
        """Of these, what is asked where nothing is said, if it is one."""
        return list(self.tasks)

    def choose(self, task: str | None) -> str:
        """The task that is meant. Raises `ValueError` for an unknown one, and where several could be."""
        known = ", ".join(sorted(self.tasks))
        if task is None and len(self.first_tasks) != 1:
            raise ValueError(f"this model answers several tasks: {known}; choose one by task=")
        if task is not None and task not in self.tasks:
            raise ValueError(f"there is no task '{task}'; this model has {known}")
        return self.first_tasks[0] if task is None else task

    @property
    @abstractmethod
    def wanted_rate(self) -> int:
        """Samples a second of what `prepare` gets."""

    @property
    @abstractmethod
    def longest(self) -> float | None:
        """Seconds that are taken in one piece; `None` for any."""

    @abstractmethod
    def prepare(self, samples: np.ndarray, name: str) -> Any:
        """What the model takes of `[S]`."""

    @abstractmethod
    def understand(
        self, pieces: Sequence[Piece], task: str, form: AnswerForm, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """What each piece means. `options` are of `generate`, or of the prompt."""

    def refuse(self, options: Mapping[str, Any]) -> None:
        """Raises `ValueError` for an option, of which this kind of model knows none."""
        if options:
            raise ValueError(f"a {type(self.model).__name__} has no use for '{min(options)}'; leave it out")


# ---- what models hear ----------------------------------------------------------------------------------------------


class OfSpeech(HearsSamples, UnderstandingReader):
    """Of samples."""

    def batch(self, pieces: Sequence[Piece]) -> Any:
        clips = [piece.content for piece in pieces]
        return self.processor(audio=clips, return_tensors="pt").to(self.model.device, self.model.dtype)


class OfUnits(UnderstandingReader):
    """Of units, by the unit model that the processor names."""

    @property
    def wanted_rate(self) -> int:
        return _UNIT_RATE

    @property
    def longest(self) -> None:
        return None

    def prepare(self, samples: np.ndarray, name: str) -> Any:
        self.processor.run_units_on(self.model.device)
        return self.processor.units(samples, _UNIT_RATE, name)

    def batch(self, pieces: Sequence[Piece]) -> Any:
        """What a classifier reads. Raises `AudioError` for a piece of more tokens than the model has positions."""
        units = [piece.content for piece in pieces]
        batch = self.processor(units=units, return_tensors="pt")
        check_room(pieces, batch["attention_mask"].sum(1).tolist(), 0, self.positions)
        return batch.to(self.model.device)

    @property
    def positions(self) -> int | None:
        return getattr(self.model.config.text_config, "max_position_embeddings", None)  # not all families have a limit


# ---- what models say -----------------------------------------------------------------------------------------------


class Classes(UnderstandingReader):
    """A class, one of `id2label`."""

    @classmethod
    def reads(cls, config: Any) -> bool:
        return True

    @property
    def tasks(self) -> Mapping[str, AnswerForm]:
        return super().tasks or {CLASS: AnswerForm()}

    @abstractmethod
    def batch(self, pieces: Sequence[Piece]) -> Any:
        """What the model is run with."""

    def understand(
        self, pieces: Sequence[Piece], task: str, form: AnswerForm, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        self.refuse(options)
        probabilities = self.model(**self.batch(pieces)).logits.float().softmax(-1)
        labels = [self.model.config.id2label[number] for number in range(probabilities.shape[1])]
        return [class_result(labels, row) for row in probabilities.tolist()]


class ClassesOfSpeech(OfSpeech, Classes):
    """A classifier on a joint encoder."""


class ClassesOfUnits(OfUnits, Classes):
    """A classifier on a joint language model."""


class LettersOfSpeech(OfSpeech):
    """Letters, and marks of entities among them, by CTC."""

    def understand(
        self, pieces: Sequence[Piece], task: str, form: AnswerForm, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        self.refuse(options)
        output = self.model(**self.batch(pieces))
        rows = zip(output.logits.cpu(), output.logit_lengths.tolist(), strict=True)
        return [written_letters(logits[:steps], self.processor).read(form) for logits, steps in rows]


class TextOfUnits(OfUnits):
    """A text that a joint language model writes behind units."""

    def understand(
        self, pieces: Sequence[Piece], task: str, form: AnswerForm, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        processor, config = self.processor, self.model.config
        questions = [question_sequence(processor, ("speech", piece.content), form.glue) for piece in pieces]
        batch = processor.tokenizer.pad({"input_ids": questions}, padding_side="left", return_tensors="pt")
        width = batch["input_ids"].shape[1]
        check_room(pieces, list(map(len, questions)), options.get("max_new_tokens", 1), self.positions)
        rooms = [new_tokens(len(question), self.positions, options) for question in questions]
        if len(set(rooms)) > 1:
            return in_groups(pieces, rooms, lambda some: self.understand(some, task, form, options))
        options = greedy_unless_told(options, rooms[0])
        output = self.model.generate(
            **batch.to(self.model.device),
            **{
                "repetition_penalty": 1.0,  # a pretrained LM may bring its own
                "eos_token_id": sorted(config.end_tokens),
                "pad_token_id": processor.tokenizer.pad_token_id,
                **options,
            },
            logits_processor=LogitsProcessorList([StayInModality(config, "text")]),
            return_dict_in_generate=True,
            output_logits=True,
        )
        new = output.sequences[:, width:]
        log_probs = log_probs_of_generated(output, new).tolist()
        rows = zip(new.tolist(), log_probs, strict=True)
        return read_answers(pieces, [written_tokens(*row, config.end_tokens, self._text) for row in rows], form)

    def _text(self, tokens: list[int]) -> str:
        return written_answer(self.processor, tokens)


class Prompted(OfSpeech):
    """What a language model that hears answers to the prompts of its processor."""

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.answers = PromptedAnswers(model, processor)

    @classmethod
    def reads(cls, config: Any) -> bool:
        return True

    @property
    def tasks(self) -> Mapping[str, AnswerForm]:
        known = super().tasks
        return {task: known.get(task, AnswerForm()) for task in self.processor.prompts}

    @property
    def first_tasks(self) -> Sequence[str]:
        """Those whose answers have a form; all where none has."""
        return [task for task in self.tasks if task in (self.model.config.answers or ())] or list(self.tasks)

    def understand(
        self, pieces: Sequence[Piece], task: str, form: AnswerForm, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        options = dict(options)
        prompt = self.processor.prompt(task, options.pop("context", ""))
        return self.answers.ask(pieces, prompt, form, options)


READERS: Mapping[str, type[UnderstandingReader]] = {
    "SUTLMForSequenceClassification": ClassesOfUnits,
    "SUTLMForCausalLM": TextOfUnits,
    "SpeechLMForSequenceClassification": ClassesOfSpeech,
    "SpeechUTForSequenceClassification": ClassesOfSpeech,
    "SpeechLMForCTC": LettersOfSpeech,
    "SpeechUTForCTC": LettersOfSpeech,
    "SpeechTextAdapterForConditionalGeneration": Prompted,
    "SealProjectorForConditionalGeneration": Prompted,
}

__all__ = ["READERS", "UnderstandingReader"]
