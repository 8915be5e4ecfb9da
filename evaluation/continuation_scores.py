"""log P(continuation | prompt) by a language model, for many continuations of prompts that are read once.

A prompt's keys and values are computed once, and all of its continuations look at the same ones; so do several prompts
at those of what they all begin with. Prompts of one length are read together, so that none is padded. Shapes: M
prompts, B of them read together, N continuations, R rows (each a prompt and a continuation) in a forward, P tokens of
a prompt, C tokens of the longest continuation, D width, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import BaseModelOutput

if TYPE_CHECKING:
    from ..modeling.modeling_sutlm import SUTLMForCausalLM

Floats = npt.NDArray[np.float64]
# Of which prompt each row is [R] and the tokens of its continuation [R, C] -> log P of these tokens [R, C].
Reader = Callable[[Tensor, Tensor], Tensor]
# What these layers keep of a prompt is keys and values, which rows can share. The state of a recurrent layer is not.
_SHAREABLE = (DynamicLayer, DynamicSlidingWindowLayer)
_TOGETHER = 1024  # tokens of prompts read together: matrix products gain little from more


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
    scorer = ContinuationScorer(model, model.model.embed, share_caches, rows)
    return scorer.scores(prompts, continuations, needed)


@dataclass(frozen=True)
class Beginning:
    """What several prompts begin with: embeddings [1, P, D], and their keys and values where these are shared."""

    embeddings: Tensor
    cache: DynamicCache | None


class _AppendedLayer(DynamicLayer):
    """Keys and values of prompts, a row for each owner, and of what follows them: behind them in the same memory.

    Args:
        prompt: of B rows.
        owners: [R], numbers of rows of the prompt.
        memory: of keys and of values, each with room for R rows of all tokens.
    """

    def __init__(self, prompt: DynamicLayer, owners: Tensor, memory: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.lazy_initialization(prompt.keys, prompt.values)
        self.memory, tokens = memory, prompt.keys.shape[2]
        self.keys, self.values = (room[:, :, :tokens] for room in memory)
        torch.index_select(prompt.keys, 0, owners, out=self.keys)
        torch.index_select(prompt.values, 0, owners, out=self.values)

    def update(self, key_states: Tensor, value_states: Tensor, *others: Any, **more: Any) -> tuple[Tensor, Tensor]:
        before, after = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        for room, states in zip(self.memory, (key_states, value_states), strict=True):
            room[:, :, before:after] = states
        self.keys, self.values = (room[:, :, :after] for room in self.memory)
        return self.keys, self.values


@dataclass
class _Workspace:
    """Memory for the caches of a batch, kept for the next: on a CPU, asking for it takes longer than filling it."""

    memory: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def rows_of(self, cache: DynamicCache, owners: Tensor, room: int) -> DynamicCache:
        """A cache with a row for each of the owners [R] and room for more tokens, good until the next is made."""
        rows = copy.copy(cache)
        rows.layers = [self._layer(number, layer, owners, room) for number, layer in enumerate(cache.layers)]
        return rows

    def _layer(self, number: int, prompt: DynamicLayer, owners: Tensor, room: int) -> DynamicLayer:
        if type(prompt) is not DynamicLayer:  # what a window forgets is for its own class to know
            return _selected(prompt, owners)
        keys, values = (
            self._take((number, name), kept, (len(owners), kept.shape[1], kept.shape[2] + room, kept.shape[3]))
            for name, kept in (("keys", prompt.keys), ("values", prompt.values))
        )
        return _AppendedLayer(prompt, owners, (keys, values))

    def _take(self, name: tuple[int, str], like: Tensor, shape: tuple[int, ...]) -> Tensor:
        size = math.prod(shape)
        if name not in self.memory or len(self.memory[name]) < size:
            self.memory[name] = like.new_empty(size)
        return self.memory[name][:size].view(shape)


class ContinuationScorer:
    """The scores above, for a causal LM or an encoder-decoder whose prompts are tokens or embeddings.

    An encoder-decoder's continuations share what the encoder says of their prompt; two prompts share nothing.

    Args:
        model: is put into `eval()`.
        embed: tokens of any shape -> [..., D].
        share_caches, rows: as above.
        progress: whether a line shows how far it is.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        embed: Callable[[Tensor], Tensor],
        share_caches: bool = True,
        rows: int = 64,
        progress: bool = True,
    ) -> None:
        self.model, self.embed, self.rows = model.eval(), embed, rows
        self.progress = progress
        self.share_caches = share_caches and (model.config.is_encoder_decoder or _can_share(model))
        self.workspace = _Workspace()

    @torch.no_grad()
    def begin(self, embeddings: Tensor) -> Beginning:
        """Reads [P, D], at least one, that several prompts begin with."""
        if not self.share_caches or self.model.config.is_encoder_decoder:
            return Beginning(embeddings[None], None)
        return Beginning(embeddings[None], self._read(embeddings[None], None).past_key_values)

    @torch.no_grad()
    def scores(
        self,
        prompts: Sequence[Sequence[int] | Tensor],
        continuations: Sequence[Sequence[int]],
        needed: Sequence[Sequence[int]] | None = None,
        beginning: Beginning | None = None,
    ) -> Floats:
        """[N, M], as above; a prompt is tokens, or embeddings [P, D], that stand behind the beginning if any."""
        if not all(map(len, prompts)) or not all(map(len, continuations)):
            raise ValueError("a prompt or a continuation has no tokens; leave it out")
        needed = [range(len(continuations))] * len(prompts) if needed is None else needed
        scores = np.full((len(continuations), len(prompts)), np.nan)
        groups = list(_groups(prompts, needed, self.rows))
        for group in tqdm(groups, desc="scoring", unit="group", leave=False, disable=not self.progress):
            reader = self._reader(self._stacked([prompts[number] for number in group]), beginning)
            for owners, numbers in _batches(group, continuations, needed, self.rows):
                found = self._sums(reader, owners, [continuations[number] for number in numbers])
                scores[numbers, [group[owner] for owner in owners]] = found
        return scores

    def _stacked(self, prompts: Sequence[Sequence[int] | Tensor]) -> Tensor:
        """[B, P, D] of prompts of one length."""
        embedded = (one if isinstance(one, Tensor) else self._embedded(one) for one in prompts)
        return torch.stack(list(embedded))

    def _embedded(self, tokens: Sequence[int]) -> Tensor:
        return self.embed(torch.tensor(list(tokens), device=self.model.device))

    def _sums(self, reader: Reader, owners: list[int], continuations: Sequence[Sequence[int]]) -> Floats:
        """log P of rows [R]."""
        tokens, kept = _padded(continuations, self.model.device)
        found = reader(torch.tensor(owners, device=self.model.device), tokens).masked_fill(~kept, 0)
        sums = found.cpu().double().sum(1)
        if sums.isnan().any():
            raise ValueError("the model gives a continuation a score that is no number; look at its weights")
        return sums.numpy()

    def _reader(self, prompts: Tensor, beginning: Beginning | None) -> Reader:
        if self.share_caches and not self.model.config.is_encoder_decoder:
            return self._once(prompts, beginning)
        if beginning is not None:
            prompts = torch.cat([beginning.embeddings.expand(len(prompts), -1, -1), prompts], 1)
        return self._decoding(prompts) if self.model.config.is_encoder_decoder else self._each_time(prompts)

    def _read(self, embeddings: Tensor, cache: DynamicCache | None) -> Any:
        """Reads [B, P, D] behind what the cache holds, which is added to."""
        cache = DynamicCache(config=self.model.config) if cache is None else cache
        return self.model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def _once(self, prompts: Tensor, beginning: Beginning | None) -> Reader:
        """Reads prompts [B, P, D] now, and later what follows them."""
        before = None if beginning is None else _repeated(beginning.cache, len(prompts))
        read = self._read(prompts, before)

        def log_probabilities(owners: Tensor, tokens: Tensor) -> Tensor:
            first = _gathered(read.logits[owners], tokens[:, :1])
            if tokens.shape[1] == 1:
                return first
            inputs = self.embed(tokens[:, :-1])
            shared = self.workspace.rows_of(read.past_key_values, owners, inputs.shape[1])
            logits = self.model(inputs_embeds=inputs, past_key_values=shared, use_cache=True).logits
            return torch.cat([first, _gathered(logits, tokens[:, 1:])], 1)

        return log_probabilities

    def _each_time(self, prompts: Tensor) -> Reader:
        """Reads prompts [B, P, D] with every row."""

        def log_probabilities(owners: Tensor, tokens: Tensor) -> Tensor:
            whole = torch.cat([prompts[owners], self.embed(tokens[:, :-1])], 1)
            kept = tokens.shape[1]
            return _gathered(self.model(inputs_embeds=whole, use_cache=False, logits_to_keep=kept).logits, tokens)

        return log_probabilities

    def _decoding(self, prompts: Tensor) -> Reader:
        """Encodes prompts [B, P, D] now, or with every row, for a decoder to look at."""
        encoder = self.model.get_encoder()
        states = encoder(inputs_embeds=prompts).last_hidden_state if self.share_caches else None

        def log_probabilities(owners: Tensor, tokens: Tensor) -> Tensor:
            seen = encoder(inputs_embeds=prompts[owners]).last_hidden_state if states is None else states[owners]
            inputs = self.model.prepare_decoder_input_ids_from_labels(labels=tokens)
            output = self.model(encoder_outputs=BaseModelOutput(seen), decoder_input_ids=inputs, use_cache=False)
            return _gathered(output.logits, tokens)

        return log_probabilities


def _can_share(model: PreTrainedModel) -> bool:
    return all(type(layer) in _SHAREABLE for layer in DynamicCache(config=model.config).layers)


def _groups(
    prompts: Sequence[Sequence[int] | Tensor], needed: Sequence[Sequence[int]], rows: int
) -> Iterator[list[int]]:
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


def _repeated(cache: DynamicCache, rows: int) -> DynamicCache:
    """A cache of so many rows out of one with a single row, which stays as it is."""
    repeated = copy.copy(cache)
    repeated.layers = [_selected(layer, torch.zeros(rows, dtype=torch.long)) for layer in cache.layers]
    return repeated


def _selected(layer: DynamicLayer, owners: Tensor) -> DynamicLayer:
    selected = copy.copy(layer)
    selected.keys, selected.values = _rows_of(layer.keys, owners), _rows_of(layer.values, owners)
    return selected


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
