"""Speech to what it means: an intent, slots, a sentiment, entities, with scores.

    pipe = pipeline("speech-understanding", model="org/name")
    pipe("clip.wav")
    {"task": "sentiment", "label": "Positive", "score": 0.91, "scores": {"Positive": 0.91, "Neutral": 0.06, ...}}
    {"task": "entities", "text": "we met in south sudan", "score": 0.8,
     "entities": [{"label": "GPE", "text": "south sudan", "score": 0.9}]}
    {"task": "order", "text": "iced mocha, large", "score": 0.9,
     "slots": [{"label": "drink", "text": "iced mocha", "score": 0.9}, ...]}

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from ..configuration.answer_forms import AnswerForm, answer_forms
from .clip_pieces import Clip, Piece
from .speech_pipeline import SpeechPipeline
from .understanding_readers import READERS
from .whole_clips import answer_clips


class SpeechUnderstandingPipeline(SpeechPipeline):
    """What clips mean, by any model of the zoo that was trained to say it.

    What answers mean is said by the checkpoint: `id2label` of its configuration, the field `answers` (see
    `answer_forms`), the prompts of its processor. Inputs and long clips: see `SpeechPipeline`.

    Args:
        answers: the field `answers` for a checkpoint that lacks it.

    A call takes, beside what every pipeline here takes:

        task: what is asked, where the checkpoint knows several.
        top_k: only so many of `scores`, in `chunks`, too.
        labels: choose among these texts; for a speech-text adapter or Seal, which need not have seen them in training.
        context: a text for prompts that read one.
        options of `generate` where the model writes, `streamer` among them; greedy unless they say otherwise.

    Returns for each clip a dictionary with `task` and

        label, score, scores: of classes and labels, whose probabilities sum to 1.
        text, score: of what is written; `entities` and `slots` are lists of `label`, `text` and `score`, which is the
            geometric mean of the probabilities of tokens.
        chunks: where the clip was cut (`chunk_seconds`), the same for each piece, with `start` and `end` in seconds.
    """

    refusal = (
        "does not say what its answers mean; fine-tune it (examples/finetune_slu.py, examples/finetune_sutlm.py), or "
        "pass answers={task: form}"
    )

    def __init__(
        self, model: Any, processor: Any = None, answers: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if answers is not None:
            answer_forms(answers)
            model.config.answers = dict(answers)
        super().__init__(model, processor, **kwargs)
        self.reader = READERS[type(model).__name__](self.model, self.processor)

    @classmethod
    def takes(cls, config: PreTrainedConfig, architecture: str) -> bool:
        return architecture in READERS and READERS[architecture].reads(config)

    @property
    def wanted_rate(self) -> int:
        return self.reader.wanted_rate

    @property
    def longest(self) -> float | None:
        return self.reader.longest

    def prepare(self, samples: np.ndarray, name: str) -> Any:
        return self.reader.prepare(samples, name)

    def answers(
        self,
        clips: Sequence[Clip],
        task: str | None = None,
        labels: Sequence[str] | None = None,
        top_k: int | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        task = self.reader.choose(task)
        form = self.reader.tasks[task] if labels is None else self._among(labels)

        def ask(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
            return self.reader.understand(pieces, task, form, options)

        return [{"task": task, **_shortened(result, top_k)} for result in answer_clips(clips, ask)]

    def _among(self, labels: Sequence[str]) -> AnswerForm:
        if not self.model.can_generate() or self.model.config.model_type == "sutlm":
            raise ValueError(f"a {type(self.model).__name__} knows the labels of its training alone; leave labels out")
        if not labels or isinstance(labels, str):
            raise ValueError(f"labels are {labels!r}; give a list of texts to choose from")
        return AnswerForm(labels=tuple(labels))


def _shortened(result: Mapping[str, Any], top_k: int | None) -> dict[str, Any]:
    """The same with `top_k` of its scores, and of those of its chunks."""
    shorter = dict(result)
    if "scores" in result:
        shorter["scores"] = dict(list(result["scores"].items())[:top_k])
    if "chunks" in result:
        shorter["chunks"] = [_shortened(chunk, top_k) for chunk in result["chunks"]]
    return shorter


__all__ = ["SpeechUnderstandingPipeline"]
