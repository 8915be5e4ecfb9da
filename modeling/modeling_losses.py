"""Cross-entropy that touches supervised positions only, in chunks.

Shapes: N supervised positions, D width, V vocabulary.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORED = -100
CHUNK = 256


Reduction = Literal["sum", "none"]


def linear_cross_entropy(
    hidden_states: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    reduction: Reduction = "sum",
    chunk: int = CHUNK,
) -> Tensor:
    """Cross-entropies of `hidden_states @ weight.T + bias`, never holding all N x V logits.

    Args:
        hidden_states: [N, D]; weight: [V, D]; labels: [N]; bias: [V].
        reduction: their sum, or "none" for all of them [N].
        chunk: positions whose logits exist at one time.

    Returns:
        float32. PyTorch's own chunked function (2.13) returns the dtype of its input, which is too coarse for a sum
        over half-precision positions, so those take the loop below, as does every older PyTorch.
    """
    hidden_states = hidden_states.to(weight.dtype)
    library = getattr(nn.functional, "linear_cross_entropy", None)
    if library is None or weight.dtype != torch.float32:
        losses = chunked_cross_entropies(hidden_states, weight, labels, bias, chunk)
        return losses.sum() if reduction == "sum" else losses
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
    return library(hidden_states, weight, labels, linear_bias=bias, reduction=reduction, options=options)


def chunked_cross_entropies(
    hidden_states: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None, chunk: int = CHUNK
) -> Tensor:
    """The same [N] by a loop whose chunks are computed again in the backward pass. Shapes as above."""
    losses = [
        checkpoint(_chunk_losses, hidden_chunk, weight, label_chunk, bias, use_reentrant=False)
        for hidden_chunk, label_chunk in zip(hidden_states.split(chunk), labels.split(chunk), strict=True)
    ]
    return torch.cat(losses)


def _chunk_losses(hidden_states: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None) -> Tensor:
    return logits_cross_entropy(nn.functional.linear(hidden_states, weight, bias), labels, "none")


def logits_cross_entropy(logits: Tensor, labels: Tensor, reduction: Reduction = "sum") -> Tensor:
    """Sum over [N, V] logits, or all [N], in float32."""
    return nn.functional.cross_entropy(logits.float(), labels, reduction=reduction, ignore_index=IGNORED)


def mean_over_items(total: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Divides by the supervised positions of the whole optimizer step, so that accumulation is exact.

    Without that number, by those of this batch; a batch without any has loss zero.
    """
    if num_items_in_batch is None:
        return total / (labels != IGNORED).sum().clamp(min=1)
    return total / torch.as_tensor(num_items_in_batch, device=total.device)
