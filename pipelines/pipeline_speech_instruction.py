"""Speech and an instruction to what a language model answers.

pipe = pipeline("speech-instruction", model="org/name")
pipe("clip.wav", instruction="Translate to German: {audio}")
{"text": "guten Morgen", "score": 0.83}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from ..configuration.answer_forms import AnswerForm
from .clip_pieces import Clip, HearsSamples, in_groups
from .prompted_answers import PromptedAnswers
from .speech_pipeline import SpeechPipeline
from .whole_clips import answer_clips


class SpeechInstructionPipeline(HearsSamples, SpeechPipeline):
    """Answers to instructions about clips, by a speech-text adapter or Seal.

    Inputs and long clips: see `SpeechPipeline`. A row may bring its own `instruction` beside its `audio`.

    A call takes, beside what every pipeline here takes:

        instruction: any text; the speech stands where `{audio}` is, and behind the text where it is not.
        prompt: name of a prompt of the processor, in place of an instruction. Where there is neither, it is the
            processor's only prompt.
        labels: answer with one of these texts.
        context: a text in place of `{context}`.
        options of `generate`, `streamer` among them; greedy unless they say otherwise.

    Returns for each clip a dictionary with `text` and `score`, the geometric mean of the probabilities of its tokens;
    with labels `label`, `score` and `scores`, which sum to 1. `chunks` as in `SpeechUnderstandingPipeline`.
    """

    refusal = "takes no instructions; take a speech-text adapter or Seal"

    def __init__(self, model: Any, processor: Any = None, **kwargs: Any) -> None:
        super().__init__(model, processor, **kwargs)
        self.prompted = PromptedAnswers(self.model, self.processor)

    @classmethod
    def takes(cls, config: PreTrainedConfig, architecture: str) -> bool:
        return architecture in (
            "SpeechTextAdapterForConditionalGeneration",
            "SealProjectorForConditionalGeneration",
        )

    def answers(
        self,
        clips: Sequence[Clip],
        instruction: str | None = None,
        prompt: str | None = None,
        labels: Sequence[str] | None = None,
        context: str = "",
        **options: Any,
    ) -> list[dict[str, Any]]:
        form = AnswerForm(labels=tuple(labels or ()))
        texts = [self._prompt(clip.source.row.get("instruction", instruction), prompt, context) for clip in clips]

        def answer(clips: Sequence[tuple[Clip, str]]) -> list[dict[str, Any]]:
            text = clips[0][1]
            return answer_clips(
                [clip for clip, _ in clips], lambda pieces: self.prompted.ask(pieces, text, form, options)
            )

        return in_groups(list(zip(clips, texts, strict=True)), texts, answer)

    def _prompt(self, instruction: str | None, name: str | None, context: str) -> str:
        """What the model reads. Raises `ValueError` for both, and for neither where several prompts are known."""
        if instruction is not None and name is not None:
            raise ValueError("an instruction and the name of a prompt were given; give one of the two")
        if instruction is not None:
            return self.processor.instruction(instruction, context)
        prompts = self.processor.prompts
        if name is None and len(prompts) != 1:
            raise ValueError(f"give an instruction, or one of this model's prompts: {', '.join(sorted(prompts))}")
        return self.processor.prompt(next(iter(prompts)) if name is None else name, context)


__all__ = ["SpeechInstructionPipeline"]
