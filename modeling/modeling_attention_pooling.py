"""A classifier over a sequence: self-attention pooling, then two layers.

Shapes: B rows, T tokens or frames, D width.
"""

import torch
from torch import Tensor, nn


def attention_pooled(hidden_states: Tensor, scores: Tensor, mask: Tensor | None) -> Tensor:
    """States [B, T, D] weighted by the softmax of `scores` [B, T] where `mask` [B, T] is not 0, summed: [B, D]."""
    scores = scores.float()
    if mask is not None:
        scores = scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1)[..., None].to(hidden_states.dtype) * hidden_states).sum(1)


def two_layer_classifier(width: int, labels: int, dropout: float) -> nn.Sequential:
    """[B, D] -> [B, labels]."""
    return nn.Sequential(
        nn.Dropout(dropout), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, labels)
    )
