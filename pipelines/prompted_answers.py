"""Answers of a language model that hears: written after a prompt, or chosen among labels.

Shapes: B prompts, T tokens, D width, N labels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..configuration.answer_forms import AnswerForm
from ..evaluation.continuation_scores import ContinuationScorer
from ..processing.audio_loading import AudioError
from .clip_pieces import Piece, in_groups
from .written_words import Written, log_probs_of_generated, written_tokens

logger = logging.getLogger(__name__)
NEW_TOKENS = 256  # most of an answer, unless the caller says otherwise
_LIMITS = ("max_new_tokens", "max_length", "generation_config")


class PromptedAnswers:
    """Asks a speech-text adapter or Seal about pieces of clips.

    Args:
        model, processor: the two that were trained together.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.scorer = ContinuationScorer(model.model.language_model, model.get_input_embeddings(), progress=False)

    def ask(
        self, pieces: Sequence[Piece], prompt: str, form: AnswerForm, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """The answer about each piece of speech.

        Args:
            prompt: as `processor.prompt` or `processor.instruction` gives it.
            options: of `generate`.

        Raises `AudioError` where prompt and answer are more than the language model has positions; `ValueError` for
        options where nothing is generated.
        """
        samples = [piece.content for piece in pieces]
        batch = self.processor([prompt] * len(samples), samples, return_tensors="pt").to(self.model.device)
        tokens = self._label_tokens(form.labels) if form.labels else []
        new = max(map(len, tokens)) if tokens else options.get("max_new_tokens", 1)
        lengths = batch["attention_mask"].sum(1).tolist()
        check_room(pieces, lengths, new, self._positions)
        if not tokens:
            rooms = [new_tokens(length, self._positions, options) for length in lengths]
            if len(set(rooms)) > 1:
                return in_groups(pieces, rooms, lambda some: self.ask(some, prompt, form, options))
            return read_answers(pieces, self._write(batch, options, rooms[0]), form)
        if options:
            raise ValueError(f"among labels nothing is generated, so that '{min(options)}' has no meaning")
        return [class_result(form.labels, row) for row in self._label_probabilities(batch, tokens)]

    @property
    def _positions(self) -> int | None:
        """Most tokens of prompt and answer; not all families have a limit, and no encoder-decoder shares one."""
        config = self.model.config
        return None if config.is_encoder_decoder else getattr(config.text_config, "max_position_embeddings", None)

    def _label_probabilities(self, batch: Mapping[str, Any], tokens: Sequence[Sequence[int]]) -> list[list[float]]:
        """[B, N]: how likely the model would write each label, and end there, if it wrote one of them."""
        speech = {name: batch[name] for name in ("input_features", "input_features_mask")}
        embeddings = self.model.model.merge(batch["input_ids"], None, **speech)  # [B, T, D]
        prompts = [row[kept.bool()] for row, kept in zip(embeddings, batch["attention_mask"], strict=True)]
        return torch.from_numpy(self.scorer.scores(prompts, tokens)).softmax(0).T.tolist()

    def _label_tokens(self, labels: Sequence[str]) -> list[list[int]]:
        """Tokens of each label, its end included. Raises `ValueError` where two are the same to the tokenizer."""
        tokenizer = self.processor.tokenizer
        tokens = tokenizer(list(labels), add_special_tokens=False)["input_ids"]
        seen: dict[tuple[int, ...], str] = {}
        for label, ids in zip(labels, tokens, strict=True):
            if (other := seen.setdefault(tuple(ids), label)) != label or not ids:
                same = f"the same as '{other}'" if ids else "nothing"
                raise ValueError(f"the label '{label}' is {same} to this tokenizer; write it in other words")
        return [[*ids, tokenizer.eos_token_id] for ids in tokens]

    def _write(self, batch: Mapping[str, Any], given: Mapping[str, Any], room: int) -> list[Written]:
        tokenizer = self.processor.tokenizer
        width = 1 if self.model.config.is_encoder_decoder else batch["input_ids"].shape[1]
        options = greedy_unless_told(given, room)
        options.setdefault("pad_token_id", tokenizer.pad_token_id)
        output = self.model.generate(**batch, **options, return_dict_in_generate=True, output_logits=True)
        new = output.sequences[:, width:]
        ends = {tokenizer.eos_token_id, *_several(self.model.generation_config.eos_token_id)}
        log_probs = log_probs_of_generated(output, new).tolist()
        return [written_tokens(*row, ends, self._text) for row in zip(new.tolist(), log_probs, strict=True)]

    def _text(self, tokens: list[int]) -> str:
        return self.processor.tokenizer.decode(tokens, skip_special_tokens=True)


def read_answers(pieces: Sequence[Piece], answers: Sequence[Written], form: AnswerForm) -> list[dict[str, Any]]:
    """What answers that were generated say. A warning names the pieces whose answer was cut off."""
    for piece, answer in zip(pieces, answers, strict=True):
        if not answer.end:
            logger.warning(
                "%s: the answer was cut off; ask for more by max_new_tokens, where there is room", piece.name
            )
    return [answer.read(form) for answer in answers]


def greedy_unless_told(options: Mapping[str, Any], room: int) -> dict[str, Any]:
    """Options of `generate`: greedy, and `room` new tokens at most.

    Raises `ValueError` for several answers to a prompt.
    """
    if options.get("num_return_sequences", 1) != 1:
        raise ValueError("num_return_sequences gives several answers to a clip; ask several times instead")
    given = dict(options)
    if "generation_config" not in given:
        given.setdefault("do_sample", False)
    if not given.keys() & set(_LIMITS):
        given["max_new_tokens"] = room
    return given


def new_tokens(length: int, positions: int | None, options: Mapping[str, Any]) -> int:
    """Most new tokens behind a prompt of so many, unless the options have a limit: 256, or as many as fit.

    Prompts that differ in this are run apart, or what is beside a clip would decide where its answer ends.
    """
    if positions is None or options.keys() & set(_LIMITS):
        return NEW_TOKENS
    return min(NEW_TOKENS, positions - length)


def check_room(pieces: Sequence[Piece], lengths: Sequence[int], new: int, positions: int | None) -> None:
    """Raises `AudioError` for the first piece whose prompt, of so many tokens, leaves no room for `new` ones.

    Args:
        positions: of the language model; `None` where it has no limit.
    """
    for piece, length in zip(pieces, lengths, strict=True):
        if positions is not None and length + new > positions:
            raise AudioError(
                f"{piece.name}: {length} tokens and {new} new ones are more than the model's {positions} positions; "
                f"pass chunk_seconds for answers to its parts, or ask for fewer new ones"
            )


def class_result(labels: Sequence[str], probabilities: Sequence[float]) -> dict[str, Any]:
    """The likeliest label, and all by their probability; of equal ones the first comes first."""
    pairs = sorted(zip(labels, map(float, probabilities), strict=True), key=lambda pair: -pair[1])
    label, score = pairs[0]
    return {"label": label, "score": score, "scores": dict(pairs)}


def _several(tokens: int | Sequence[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)


__all__ = ["NEW_TOKENS", "PromptedAnswers", "check_room", "class_result", "greedy_unless_told", "new_tokens"]
