"""Positions of tokens in padded rows. Shapes: B rows, T tokens."""

from typing import Any

from torch import Tensor


def unpadded_positions(attention_mask: Any, length: int) -> Tensor | None:
    """[B, length] positions of the last tokens of a mask, counted from the first one that is not padding.

    LMs with learned positions would count padding on the left. `None`, which leaves positions to the LM, where the
    mask is none of shape [B, T]; it covers what a cache holds too.
    """
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
        return None
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]


__all__ = ["unpadded_positions"]
