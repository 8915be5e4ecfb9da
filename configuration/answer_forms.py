"""How what a model says of a clip reads: as a class, as slots, or as a text with marked entities.

A configuration's field `answers` holds a form for each task, so that a checkpoint alone tells what its answers mean:

    {"sentiment": {}}                                       a classifier, whose classes are those of `id2label`
    {"intent": {"labels": ["lights on", "lights off"]}}     one of these texts
    {"order": {"slots": ["drink", "size"]}}                 a line of values in this order
    {"entities": {"marks": {"GPE": "%"}, "end": "]"}}       a text in which `% france ]` is an entity
    {"transcript": {}}                                      any text, where the model writes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

GLUES = ("start", "switch")


@dataclass(frozen=True)
class AnswerForm:
    """The form of one task's answers.

    Args:
        labels: the texts to choose from.
        slots: names of the values of a line, in their order.
        marks: type of an entity -> the word that opens it.
        end: the word that closes an entity.
        glue: what stands before an answer that a joint language model writes behind speech: "start" for `<T_EN>`,
            "switch" for `<U2T>`.

    Raises `ValueError` for more than one of labels, slots and marks, for marks that cannot be told apart, for marks
    without an end, and for another glue.
    """

    labels: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    end: str = ""
    glue: str = "start"

    def __post_init__(self) -> None:
        given = [name for name in ("labels", "slots", "marks") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; an answer has one form")
        for name in ("labels", "slots"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"one of the {name} is there twice; name each once")
        signs = [*self.marks.values(), *([self.end] if self.marks else [])]
        if len(set(signs)) < len(signs) or any(sign.split() != [sign] for sign in signs):
            raise ValueError(f"the marks are {' '.join(signs)}; give each entity and the end a word of its own")
        if self.glue not in GLUES:
            raise ValueError(f"glue is '{self.glue}'; choose {' or '.join(GLUES)}")

    @classmethod
    def of(cls, task: str, values: Mapping[str, Any]) -> AnswerForm:
        """From a configuration's entry. Raises `ValueError`, which names the task, for unknown keys too."""
        known = [one.name for one in fields(cls)]
        if unknown := sorted(values.keys() - set(known)):
            raise ValueError(f"answers of '{task}': there is no '{unknown[0]}'; choose of {', '.join(known)}")
        lists = {name: tuple(values[name]) for name in ("labels", "slots") if name in values}
        try:
            return cls(**{**values, **lists})
        except ValueError as error:
            raise ValueError(f"answers of '{task}': {error}") from None


def answer_forms(given: Mapping[str, Mapping[str, Any]] | None) -> dict[str, AnswerForm]:
    """The forms of a configuration's field `answers`, by task. Raises `ValueError` for what cannot be used."""
    return {task: AnswerForm.of(task, values) for task, values in (given or {}).items()}


__all__ = ["AnswerForm", "answer_forms"]
