"""Generation that keeps to a modality: logits processors for `generate`, and what to pass to go on in either one.

Shapes: B prompts (times beams), T tokens, V vocabulary.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from ..configuration.configuration_sutlm import SUTLMConfig

Modality = Literal["speech", "text"]
Glue = Literal["switch", "start"]
# What a token can be. "control" are the switches and the end of a sequence.
KINDS = ("speech", "text", "control")
SPEECH, TEXT, CONTROL = range(3)
MODALITIES: dict[str, int] = {"speech": SPEECH, "text": TEXT}
# The token that goes from one modality to the other: inside a sequence (AST), and as a stream of its own (CST).
GLUE: dict[tuple[str, str], str] = {
    ("switch", "text"): "unit_to_text_token_id",
    ("switch", "speech"): "text_to_unit_token_id",
    ("start", "text"): "text_start_token_id",
    ("start", "speech"): "unit_start_token_id",
}


def token_kinds(config: SUTLMConfig, tokens: Tensor) -> Tensor:
    """For each token the index into `KINDS`; any shape."""
    units = config.unit_tokens
    kinds = torch.where((tokens >= units.start) & (tokens < units.stop), SPEECH, TEXT)
    control = torch.tensor([*config.switch_tokens, *config.end_tokens], device=tokens.device, dtype=tokens.dtype)
    return kinds.masked_fill(torch.isin(tokens, control), CONTROL)


class StayInModality(LogitsProcessor):
    """Only tokens of one modality, and the end of the sequence.

    Args:
        modality: "speech" or "text".
        may_end: whether the end of the sequence is allowed.

    Raises `ValueError` for another modality, and for speech where the vocabulary has no units.
    """

    def __init__(self, config: SUTLMConfig, modality: Modality, may_end: bool = True) -> None:
        self.allowed = _allowed(config, modality, config.end_tokens if may_end else [])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # scores [B, V]
        return scores.masked_fill(~_reaching(self.allowed, scores), -torch.inf)


class SwitchOnToken(LogitsProcessor):
    """One modality until a given token comes; from then on the other, in which the sequence may end.

    Args:
        modality: the first one, "speech" or "text".
        token: what switches; `<U2T>` or `<T2U>` where none is given.
        prompt_length: tokens of the prompt, padding included, in which a switch does not count; 0 where the prompt
            is given as embeddings alone.
        latest: after so many new tokens the switch is forced.

    Raises `ValueError` when the vocabulary has no such token.
    """

    def __init__(
        self,
        config: SUTLMConfig,
        modality: Modality,
        prompt_length: int,
        token: int | None = None,
        latest: int | None = None,
    ) -> None:
        other = other_modality(modality)
        self.token = glue_token(config, "switch", other) if token is None else token
        self.prompt_length, self.latest = prompt_length, latest
        self.before = _allowed(config, modality, [self.token])
        self.after = _allowed(config, other, config.end_tokens)
        self.switch = torch.arange(config.vocab_size) == self.token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # input_ids [B, T], scores [B, V]
        new = input_ids[:, self.prompt_length :]
        switched = (new == self.token).any(-1, keepdim=True)  # [B, 1]
        overdue = self.latest is not None and new.shape[1] >= self.latest
        before = _reaching(self.switch if overdue else self.before, scores)
        return scores.masked_fill(~torch.where(switched, _reaching(self.after, scores), before), -torch.inf)


def continuation(
    config: SUTLMConfig,
    input_ids: Tensor,
    source: Modality,
    into: Modality,
    glue: Glue = "switch",
    attention_mask: Tensor | None = None,
) -> dict[str, Any]:
    """What to pass to `generate` so that prompts go on in a modality, their own or the other.

    Args:
        input_ids, attention_mask: [B, T], padded on the left, with no end of sequence.
        source: the modality in which the prompts stop.
        into: the modality of what comes.
        glue: what stands between two modalities: "switch" (`<U2T>`, `<T2U>`), for models trained on alternating
            speech and text, or "start" (`<T_EN>`, `<U_EN>`), for those trained on speech and text in a row.

    Raises `ValueError` when a prompt is padded on the right, or the vocabulary has no such token.
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    if not attention_mask[:, -1].all():
        raise ValueError("a prompt is padded on the right; pad prompts on the left, so that all of them end together")
    if source != into:
        token = glue_token(config, glue, into)
        input_ids = torch.cat([input_ids, torch.full_like(input_ids[:, :1], token)], 1)
        attention_mask = torch.cat([attention_mask, torch.ones_like(attention_mask[:, :1])], 1)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "logits_processor": LogitsProcessorList([StayInModality(config, into)]),
    }


def glue_token(config: SUTLMConfig, glue: str, into: str) -> int:
    """The token that goes over into a modality. Raises `ValueError` when the vocabulary has none."""
    if (glue, into) not in GLUE:
        raise ValueError(f"there is no '{glue}' into '{into}'; choose switch or start, and speech or text")
    token = getattr(config, GLUE[glue, into])
    if token is None:
        raise ValueError(f"the configuration has no {GLUE[glue, into]}; set it, or choose another token")
    return token


def other_modality(modality: str) -> Modality:
    """Speech for text and text for speech."""
    return "text" if modality == "speech" else "speech"


def _allowed(config: SUTLMConfig, modality: str, also: list[int]) -> Tensor:
    """[V] true for tokens of `modality` and those in `also`."""
    if modality not in MODALITIES:
        raise ValueError(f"there is no modality '{modality}'; choose {' or '.join(MODALITIES)}")
    tokens = torch.arange(config.vocab_size)
    allowed = token_kinds(config, tokens) == MODALITIES[modality]
    if not allowed.any():
        raise ValueError(f"the vocabulary has no tokens of {modality}; see unit_token_start and unit_token_count")
    for name in ("bos_token_id", "pad_token_id"):
        if isinstance(token := getattr(config, name), int) and token < len(allowed):
            allowed[token] = False
    allowed[also] = True
    return allowed


def _reaching(allowed: Tensor, scores: Tensor) -> Tensor:
    """`allowed` where the scores are, false for rows that a table has beyond the vocabulary."""
    beyond = scores.shape[-1] - len(allowed)
    return torch.nn.functional.pad(allowed, (0, beyond)).to(scores.device)


__all__ = [
    *("CONTROL", "KINDS", "SPEECH", "TEXT"),
    *("StayInModality", "SwitchOnToken", "continuation", "glue_token", "token_kinds"),
]
