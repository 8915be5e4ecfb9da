"""How surprising a text is to a causal language model, after a prompt.

Prompt and continuation are tokenized as the one text that they are together, as the judge has seen text in training.
Scored is every token that holds a character of the continuation, and no other. After a space that is each of its own
tokens; a token that begins inside the prompt, where a continuation goes on inside a word, is scored as a whole.

Shapes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

_IGNORED = -100


@dataclass(frozen=True)
class Surprise:
    """-log P of a continuation in nats, summed over its tokens."""

    nats: float
    tokens: int


class TextJudge:
    """Any causal LM as a judge of texts; none is needed for those that are empty.

    Args:
        model: `AutoModelForCausalLM`, in float32 where scores shall not depend on the batch.
        tokenizer: its own; it has to tell the places of its tokens, as those with a `tokenizer.json` do.
        batch_size: rows read together.
        sign: what stands between a prompt and its continuation for a judge that was trained so, such as the `<con>` of
            the tiny zoo's language models; it is read and not scored.

    Raises `ValueError` for a tokenizer that cannot tell them.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 16, sign: str = "") -> None:
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} does not tell where its tokens lie in a text; take a judge whose "
                f"tokenizer has a tokenizer.json"
            )
        self.model, self.tokenizer, self.batch_size, self.sign = model.eval(), tokenizer, batch_size, sign

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        revision: str | None = None,
        batch_size: int = 16,
        sign: str = "",
        dtype: Any = torch.float32,
        **hub: Any,
    ) -> "TextJudge":
        """A Hub id or folder; `hub` are arguments of the download, such as `token`."""
        model = AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=dtype, **hub)
        return cls(model, AutoTokenizer.from_pretrained(source, revision=revision, **hub), batch_size, sign)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Surprise]:
        """Of each continuation after its prompt.

        Args:
            continuations: each begins with the space that parts it from its prompt, if any does. An empty one has no
                tokens.

        Raises `ValueError` for an empty prompt, and for texts longer than the judge's positions.
        """
        rows = [self._encode(*texts) for texts in zip(prompts, continuations, strict=True)]
        found = [Surprise(0.0, 0)] * len(rows)
        order = sorted((place for place, (_, scored) in enumerate(rows) if any(scored)), key=lambda p: len(rows[p][0]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for place, surprise in zip(batch, self._surprises([rows[place] for place in batch]), strict=True):
                found[place] = surprise
        return found

    def _encode(self, prompt: str, continuation: str) -> tuple[list[int], list[bool]]:
        """Tokens of both, and which of them are scored."""
        if not prompt.strip():
            raise ValueError(f"a prompt is empty before '{continuation.strip()}'; the judge needs one")
        before = prompt + self.sign
        encoded = self.tokenizer(before + continuation, return_offsets_mapping=True)
        tokens, scored = encoded["input_ids"], [end > len(before) for _, end in encoded["offset_mapping"]]
        if scored[0]:  # a word that the prompt began; something has to come before it
            tokens, scored = [self._start(), *tokens], [False, *scored]
        self._check_room(len(tokens))
        return tokens, scored

    def _start(self) -> int:
        starts = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        token = next((token for token in starts if token is not None), None)
        if token is None:
            raise ValueError("the judge's tokenizer has neither a first nor an end token; set its bos_token")
        return token

    def _check_room(self, length: int) -> None:
        positions = getattr(self.model.config, "max_position_embeddings", None)  # not all families have a limit
        if positions is not None and length > positions:
            raise ValueError(
                f"prompt and continuation are {length} tokens and the judge has {positions} positions; allow fewer "
                f"new tokens, or take another judge"
            )

    def _surprises(self, rows: Sequence[tuple[list[int], list[bool]]]) -> list[Surprise]:
        """Padded on the right, where a causal LM sees nothing of it."""
        width = max(len(tokens) for tokens, _ in rows)
        input_ids, targets, attention_mask = (torch.full((len(rows), width), fill) for fill in (0, _IGNORED, 0))
        for row, (tokens, scored) in enumerate(rows):
            ids = torch.tensor(tokens)
            input_ids[row, : len(ids)], attention_mask[row, : len(ids)] = ids, 1
            targets[row, : len(ids)] = ids.masked_fill(~torch.tensor(scored), _IGNORED)
        device = self.model.device
        output = self.model(input_ids.to(device), attention_mask=attention_mask.to(device), use_cache=False)
        logits = output.logits[:, :-1].float().transpose(1, 2)  # [B, V, T - 1]
        nats = nn.functional.cross_entropy(logits, targets[:, 1:].to(device), reduction="none")  # 0 where ignored
        counts = [sum(scored) for _, scored in rows]
        return [Surprise(total, count) for total, count in zip(nats.double().sum(1).tolist(), counts, strict=True)]


__all__ = ["Surprise", "TextJudge"]
