"""What a joint language model says after prompts of speech units or text.

Draws are made by Gumbel's trick: noise is added to the scores and the largest wins. The noise of a row comes from a
generator of its own, so that a sample is a function of seed, prompt and number, whatever batch it is drawn in.

Shapes: B rows, T tokens, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    LogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..modeling.modality_generation import Glue, Modality, continuation
from ..modeling.modeling_sutlm import SUTLMForCausalLM
from ..processing.processing_sutlm import SUTLMProcessor


@dataclass(frozen=True)
class Sampling:
    """How continuations are drawn. The paper does not say; temperature is that of GSLM, the rest is our reading.

    Args:
        temperature: above 0; the lower, the likelier the tokens that are drawn.
        top_k: only so many of the likeliest tokens; 0 for all.
        top_p: only the likeliest tokens that together have this probability; 1 for all.
        text_tokens, unit_tokens: most new tokens of a continuation in text and in units.
        samples: continuations of a prompt.
        seed: of all draws.
        glue: what stands between two modalities: "switch" (`<U2T>`, `<T2U>`), for models trained on alternating
            speech and text, or "start" (`<T_EN>`, `<U_EN>`), for those trained on speech and text in a row.
        batch_size: rows that are generated together.

    Raises `ValueError` where there would be nothing to draw.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    text_tokens: int = 64
    unit_tokens: int = 256
    samples: int = 4
    seed: int = 0
    glue: Glue = "switch"
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("text_tokens", "unit_tokens", "samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or self.temperature <= 0:
            raise ValueError(
                f"temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}: give a temperature above 0, "
                f"0 for all tokens or how many, and a probability up to 1"
            )

    @property
    def note(self) -> str:
        """What a number has to be read with."""
        kept = f"top k {self.top_k or 'all'}, top p {self.top_p:g}"
        return f"temperature {self.temperature:g}, {kept}, {self.samples} samples a prompt, glue: {self.glue}"

    def processors(self, names: Sequence[str]) -> list[LogitsProcessor]:
        """What makes the likeliest token a draw, for rows of these names."""
        warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(self.temperature)]
        if self.top_k:
            warpers.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            warpers.append(TopPLogitsWarper(self.top_p))
        return [*warpers, OwnNoise(names, self.seed)]


class OwnNoise(LogitsProcessor):
    """Gumbel noise on the scores, each row's from a generator of its own.

    Args:
        names: one for each row; rows of one name and seed get the same noise.
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self.generators = [torch.Generator().manual_seed(_number(f"{seed} {name}")) for name in names]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # scores [B, V]
        empty = torch.empty(scores.shape[1], dtype=torch.float64)
        drawn = torch.stack([empty.exponential_(generator=generator).log() for generator in self.generators])
        return scores - drawn.to(scores.device, scores.dtype)


@dataclass(frozen=True)
class Continuation:
    """What came after a prompt.

    Args:
        units: what was said, `None` where it is text.
        text: what was written; it begins with a space unless it goes on inside the prompt's last word. "" for units.
        finished: whether the model ended it; otherwise it reached the most tokens that it was allowed.
    """

    units: list[int] | None
    text: str
    finished: bool


def sample_continuations(
    model: SUTLMForCausalLM,
    processor: SUTLMProcessor,
    prompts: Sequence[Any],
    source: Modality,
    into: Modality,
    sampling: Sampling,
    names: Sequence[str],
) -> list[list[Continuation]]:
    """`sampling.samples` continuations of each prompt.

    Args:
        prompts: lists of units where `source` is "speech", texts where it is "text".
        into: the modality of the continuations.
        names: of the prompts, which their draws depend on.

    Raises `ValueError` for a prompt that is empty, or too long for the model.
    """
    for name, prompt in zip(names, prompts, strict=True):
        if not len(prompt):
            raise ValueError(f"the prompt of '{name}' has no {source}; leave it out")
    sequences = [processor.sequence([(source, prompt)]) for prompt in prompts]
    limit = sampling.text_tokens if into == "text" else sampling.unit_tokens
    rows = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(sampling.samples)]
    rows.sort(key=lambda row: len(sequences[row[0]]))
    found: list[list[Continuation]] = [[] for _ in prompts]
    starts = range(0, len(rows), sampling.batch_size)
    for start in tqdm(starts, desc=f"{source} to {into}", unit="batch", leave=False):
        batch = rows[start : start + sampling.batch_size]
        given = [sequences[prompt] for prompt, _ in batch]
        draws = sampling.processors([f"{names[prompt]} {source} {into} {sample}" for prompt, sample in batch])
        answers = continue_sequences(model, processor, given, source, into, sampling.glue, limit, draws)
        for (prompt, _), answer in zip(batch, answers, strict=True):
            found[prompt].append(_read(processor, sequences[prompt], source, into, *answer))
    return found


@torch.no_grad()
def continue_sequences(
    model: SUTLMForCausalLM,
    processor: SUTLMProcessor,
    sequences: Sequence[list[int]],
    source: Modality,
    into: Modality,
    glue: Glue,
    most: int,
    processors: Sequence[LogitsProcessor] = (),
    beams: int = 1,
) -> list[tuple[list[int], bool]]:
    """New tokens of one batch, up to the end token, and whether that came; the likeliest ones after `processors`.

    Args:
        sequences: tokens that end in modality `source`, with no end token.
        most: new tokens.

    Raises `ValueError` when the longest sequence and the new tokens are more than the model has positions.
    """
    padded = processor.tokenizer.pad({"input_ids": list(sequences)}, padding_side="left", return_tensors="pt")
    padded = padded.to(model.device)
    given = continuation(model.config, padded["input_ids"], source, into, glue, padded["attention_mask"])
    width, ends = given["input_ids"].shape[1], set(model.config.end_tokens)
    _check_room(model, width, most)
    given["logits_processor"].extend(processors)
    rows = model.generate(
        **given,
        max_new_tokens=most,
        do_sample=False,
        num_beams=beams,
        repetition_penalty=1.0,  # a pretrained LM may bring its own
        eos_token_id=sorted(ends),
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    answers = []
    for new in rows[:, width:].tolist():
        stop = next((place for place, token in enumerate(new) if token in ends), None)
        answers.append((new[:stop], stop is not None))
    return answers


def _check_room(model: SUTLMForCausalLM, width: int, most: int) -> None:
    positions = getattr(model.config.text_config, "max_position_embeddings", None)  # not all families have a limit
    if positions is not None and width + most > positions:
        raise ValueError(
            f"a prompt of {width} tokens and {most} new ones are more than the {positions} positions of the model; "
            f"allow fewer new tokens, or leave long prompts out"
        )


def _read(
    processor: SUTLMProcessor, prompt: list[int], source: Modality, into: Modality, new: list[int], finished: bool
) -> Continuation:
    if into == "speech":
        return Continuation([unit for _, units in processor.spans(new) for unit in units], "", finished)
    if source == "text":  # read together, for a token alone does not always tell whether a word begins
        before = _text(processor, prompt)
        return Continuation(None, _spaced(_text(processor, [*prompt, *new])[len(before) :]), finished)
    return Continuation(None, _spaced(" " + _text(processor, new)), finished)


def _text(processor: SUTLMProcessor, tokens: list[int]) -> str:
    """Other special tokens of the text tokenizer part spans, and stand for no letter."""
    return " ".join(text for _, text in processor.spans(tokens))


def _spaced(text: str) -> str:
    """Words between single spaces; one before them where there is one."""
    words = " ".join(text.split())
    return f" {words}" if words and text[0].isspace() else words


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")


__all__ = ["Continuation", "OwnNoise", "Sampling", "continue_sequences", "sample_continuations"]
