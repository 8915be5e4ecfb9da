"""log P(continuation | prompt) by a joint language model, for many continuations of prompts that are read once.

A prompt's keys and values are computed once, and all of its continuations look at the same ones. Prompts of one length
are read together, so that none is padded. Shapes: M prompts, B of them read together, N continuations, R rows (each a
prompt and a continuation) in a forward, P tokens of a prompt, C tokens of the longest continuation, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..modeling.modeling_sutlm import SUTLMForCausalLM

Floats = npt.NDArray[np.float64]
# Of which prompt each row is [R] and the tokens of its continuation [R, C] -> log P of these tokens [R, C].
Reader = Callable[[Tensor, Tensor], Tensor]
# What these layers keep of a prompt is keys and values, which rows can share. The state of a recurrent layer is not.
_SHAREABLE = (DynamicLayer, DynamicSlidingWindowLayer)
# Tokens of prompts read together: matrix products gain little from more, and rows of one prompt need no copy of it.
_TOGETHER = 256


@torch.no_grad()
def continuation_scores(
    model: SUTLMForCausalLM,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    needed: Sequence[Sequence[int]] | None = None,
    *,
    share_caches: bool = True,
    rows: int = 64,
) -> Floats:
    """log P of continuations after prompts, in nats, summed over the tokens: [N, M], `nan` where none is needed.

    The model is put into `eval()`. Continuations are padded on the right, those of like lengths together; the scores
    are those of each sequence alone.

    Args:
        prompts: tokens of each; at least one.
        continuations: tokens of each; at least one.
        needed: for each prompt the numbers of the continuations to score after it; all where not given.
        share_caches: whether a prompt is read once, or before every continuation again. Where a layer keeps another
            state than keys and values, it is read again.
        rows: most continuations in a forward, of several prompts if these have few.

    Raises `ValueError` for an empty prompt or continuation, and where a score is no number.
    """
    if not all(map(len, prompts)) or not all(map(len, continuations)):
        raise ValueError("a prompt or a continuation has no tokens; leave it out")
    model.eval()
    needed = [range(len(continuations))] * len(prompts) if needed is None else needed
    scores = np.full((len(continuations), len(prompts)), np.nan)
    read = _once if share_caches and _can_share(model) else _each_time
    for group in tqdm(list(_groups(prompts, needed, rows)), desc="scoring", unit="group", leave=False):
        reader = read(model, torch.tensor([list(prompts[number]) for number in group], device=model.device))
        for owners, numbers in _batches(group, continuations, needed, rows):
            found = _sums(reader, owners, [continuations[number] for number in numbers], model.device)
            scores[numbers, [group[owner] for owner in owners]] = found
    return scores


def _sums(reader: Reader, owners: list[int], continuations: Sequence[Sequence[int]], device: torch.device) -> Floats:
    """log P of rows [R]."""
    tokens, kept = _padded(continuations, device)
    found = reader(torch.tensor(owners, device=device), tokens).masked_fill(~kept, 0)
    sums = found.cpu().double().sum(1)
    if sums.isnan().any():
        raise ValueError("the model gives a continuation a score that is no number; look at its weights")
    return sums.numpy()


def _can_share(model: SUTLMForCausalLM) -> bool:
    return all(type(layer) in _SHAREABLE for layer in DynamicCache(config=model.config.text_config).layers)


def _groups(prompts: Sequence[Sequence[int]], needed: Sequence[Sequence[int]], rows: int) -> Iterator[list[int]]:
    """Numbers of prompts read together: of one length, their continuations no more than `rows`; one at least."""
    group: list[int] = []
    for number in sorted(range(len(prompts)), key=lambda number: len(prompts[number])):
        length, size = len(prompts[number]), sum(len(needed[other]) for other in [*group, number])
        full = size > rows or length * (len(group) + 1) > _TOGETHER
        if group and (full or length != len(prompts[group[0]])):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def _batches(
    group: Sequence[int], continuations: Sequence[Sequence[int]], needed: Sequence[Sequence[int]], rows: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Rows read together, whose continuations are of like lengths: the place of each's prompt in the group, and the
    number of its continuation."""
    pairs = [(place, number) for place, prompt in enumerate(group) for number in needed[prompt]]
    pairs.sort(key=lambda pair: len(continuations[pair[1]]))
    for start in range(0, len(pairs), rows):
        batch = pairs[start : start + rows]
        yield [place for place, _ in batch], [number for _, number in batch]


def _once(model: SUTLMForCausalLM, prompts: Tensor) -> Reader:
    """Reads prompts [B, P] now, and later what follows them."""
    cache = DynamicCache(config=model.config.text_config)
    read = model(prompts, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def log_probabilities(owners: Tensor, tokens: Tensor) -> Tensor:
        first = _gathered(read.logits[owners], tokens[:, :1])
        if tokens.shape[1] == 1:
            return first
        shared = _shared(read.past_key_values, owners)
        logits = model(tokens[:, :-1], past_key_values=shared, use_cache=True).logits
        return torch.cat([first, _gathered(logits, tokens[:, 1:])], 1)

    return log_probabilities


def _each_time(model: SUTLMForCausalLM, prompts: Tensor) -> Reader:
    """Reads prompts [B, P] with every row."""

    def log_probabilities(owners: Tensor, tokens: Tensor) -> Tensor:
        whole = torch.cat([prompts[owners], tokens[:, :-1]], 1)
        return _gathered(model(whole, use_cache=False, logits_to_keep=tokens.shape[1]).logits, tokens)

    return log_probabilities


def _shared(cache: DynamicCache, owners: Tensor) -> DynamicCache:
    """A cache with a row for each of the owners [R], out of one with B rows, which stays as it is."""
    shared = copy.copy(cache)
    shared.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in shared.layers:
        layer.keys, layer.values = _rows_of(layer.keys, owners), _rows_of(layer.values, owners)
    return shared


def _rows_of(kept: Tensor, owners: Tensor) -> Tensor:
    """[B, heads, P, width] -> [R, heads, P, width]. Of one prompt views suffice: a forward appends by new tensors."""
    return kept.expand(len(owners), -1, -1, -1) if len(kept) == 1 else kept[owners]


def _gathered(logits: Tensor, tokens: Tensor) -> Tensor:
    """[R, C, V] and [R, C] -> log P [R, C] in float32."""
    logits = logits.float()
    return logits.gather(2, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def _padded(continuations: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens [R, C], padded on the right where nothing before can see it, and which of them are real."""
    longest = max(map(len, continuations))
    tokens = torch.zeros(len(continuations), longest, dtype=torch.long)
    for row, continuation in zip(tokens, continuations, strict=True):
        row[: len(continuation)] = torch.tensor(continuation)
    lengths = torch.tensor([len(continuation) for continuation in continuations])
    return tokens.to(device), (torch.arange(longest) < lengths[:, None]).to(device)
