"""Random spans of positions, as they are drawn for masking and swapping.

Shapes: B rows, T positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_spans(
    lengths: Sequence[int], size: int, probability: float, span: int, least: int = 0, equal: bool = True
) -> Tensor:
    """Booleans [B, `size`], true inside the spans that were drawn for each row; drawn by torch's CPU generator.

    Args:
        lengths: positions of each row that may be drawn.
        probability: share of the positions that spans would cover if they did not overlap.
        span: positions of a span.
        least: fewest spans of a row.
        equal: drop positions at random until all rows have equally many, as fairseq does.
    """
    drawn = torch.zeros(len(lengths), size, dtype=torch.bool)
    for row, length in zip(drawn, lengths, strict=True):
        # The fraction decides by chance whether there is one span more.
        spans = max(int(probability * length / span + torch.rand(()).item()), least)
        starts = torch.randperm(max(length - span, spans + 1))[:spans]
        positions = (starts[:, None] + torch.arange(span)).flatten()
        row[positions[positions < length]] = True
    if equal:
        fewest = int(drawn.sum(-1).min())
        for row in drawn:
            positions = row.nonzero()[:, 0]
            row[positions[torch.randperm(len(positions))[fewest:]]] = False
    return drawn
