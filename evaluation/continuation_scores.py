"""log P(continuation | prompt) by a joint language model, for many continuations of a prompt that is read once.

The prompt's keys and values are computed once; all continuations look at the same ones. Shapes: N continuations, R of
them in a forward, P tokens of the prompt, C tokens of the longest continuation, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..modeling.modeling_sutlm import SUTLMForCausalLM

Floats = npt.NDArray[np.float64]
# What these keep of a prompt is keys and values, which rows can share. The state of a recurrent layer is not.
_SHAREABLE = (DynamicLayer, DynamicSlidingWindowLayer)


@torch.no_grad()
def continuation_scores(
    model: SUTLMForCausalLM,
    prompt: Sequence[int],
    continuations: Sequence[Sequence[int]],
    *,
    share_caches: bool = True,
    rows: int = 32,
) -> Floats:
    """log P of each continuation after the prompt, in nats, summed over its tokens: [N], the model in `eval()`.

    Continuations are read in the order of their lengths, padded on the right. A padded batch gives the scores of each
    alone.

    Args:
        prompt: tokens; at least one.
        continuations: tokens of each; at least one.
        share_caches: whether the prompt is read once, or before every continuation again. Where a layer keeps another
            state than keys and values, it is read again.
        rows: most continuations in a forward.

    Raises `ValueError` for an empty prompt or continuation, and where a score is no number.
    """
    if not len(prompt) or not all(map(len, continuations)):
        raise ValueError("a prompt or a continuation has no tokens; leave it out")
    model.eval()
    cache = DynamicCache(config=model.config.text_config)
    if share_caches and all(type(layer) in _SHAREABLE for layer in cache.layers):
        log_probabilities = _after_shared(model, prompt, cache)
    else:
        log_probabilities = _after_whole(model, prompt)
    scores = np.empty(len(continuations))
    for chosen in _batches(continuations, rows):
        tokens, kept = _padded([continuations[number] for number in chosen], model.device)
        found = log_probabilities(tokens).masked_fill(~kept, 0)  # [R, C]
        scores[chosen] = found.double().sum(1).cpu().numpy()
    if np.isnan(scores).any():
        raise ValueError("the model gives a continuation a score that is no number; look at its weights")
    return scores


def _after_shared(model: SUTLMForCausalLM, prompt: Sequence[int], cache: DynamicCache) -> Callable[[Tensor], Tensor]:
    """Reads the prompt; tokens [R, C] -> log P of each after it and those before."""
    read = model(_tokens(prompt, model)[None], past_key_values=cache, use_cache=True, logits_to_keep=1)

    def log_probabilities(tokens: Tensor) -> Tensor:
        first = _gathered(read.logits.expand(len(tokens), -1, -1), tokens[:, :1])
        if tokens.shape[1] == 1:
            return first
        shared = _shared(read.past_key_values, len(tokens))
        logits = model(tokens[:, :-1], past_key_values=shared, use_cache=True).logits
        return torch.cat([first, _gathered(logits, tokens[:, 1:])], 1)

    return log_probabilities


def _after_whole(model: SUTLMForCausalLM, prompt: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """The same, the prompt being read with every row."""

    def log_probabilities(tokens: Tensor) -> Tensor:
        repeated = _tokens(prompt, model).expand(len(tokens), -1)
        whole = torch.cat([repeated, tokens[:, :-1]], 1)
        return _gathered(model(whole, use_cache=False, logits_to_keep=tokens.shape[1]).logits, tokens)

    return log_probabilities


def _shared(cache: DynamicCache, rows: int) -> DynamicCache:
    """A cache of so many rows that look at the keys and values [1, ...] of one, which stays as it is.

    A forward appends to a cache by making new tensors, so views suffice.
    """
    shared = copy.copy(cache)
    shared.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in shared.layers:
        layer.keys = layer.keys.expand(rows, -1, -1, -1)
        layer.values = layer.values.expand(rows, -1, -1, -1)
    return shared


def _gathered(logits: Tensor, tokens: Tensor) -> Tensor:
    """[R, C, V] and [R, C] -> log P [R, C] in float32."""
    logits = logits.float()
    return logits.gather(2, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def _batches(continuations: Sequence[Sequence[int]], rows: int) -> Iterator[list[int]]:
    """Numbers of those read together, which are of like lengths."""
    order = sorted(range(len(continuations)), key=lambda number: len(continuations[number]))
    for start in range(0, len(order), rows):
        yield order[start : start + rows]


def _padded(continuations: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens [R, C], padded on the right where nothing before can see it, and which of them are real."""
    longest = max(map(len, continuations))
    tokens = torch.zeros(len(continuations), longest, dtype=torch.long)
    for row, continuation in zip(tokens, continuations, strict=True):
        row[: len(continuation)] = torch.tensor(continuation)
    lengths = torch.tensor([len(continuation) for continuation in continuations])
    return tokens.to(device), (torch.arange(longest) < lengths[:, None]).to(device)


def _tokens(prompt: Sequence[int], model: SUTLMForCausalLM) -> Tensor:
    return torch.tensor(prompt, dtype=torch.long, device=model.device)
