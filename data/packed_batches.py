"""Packing: several sequences share a row, so that a batch holds next to no padding.

    rows = PackedRows(sequences.stream, capacity=2048)              # for a Trainer with max_steps
    Trainer(..., train_dataset=rows, data_collator=PackedCollator())
    PackedCollator(capacity=2048)(sequences)                        # or a batch of sequences at once

What keeps them apart are positions that start again at 0; there is no attention mask. `SUTLMModel` makes of that what
its LM needs, whatever the family. Elsewhere in transformers packing is silently off where a cache is made
(`use_cache=True`, the default), where a mask [B, T] is given, and always with OPT.

Shapes: R rows, T tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..modeling.modeling_losses import IGNORED

Item = TypeVar("Item")
OPEN_ROWS = 64


def pack(
    items: Iterable[Item], capacity: int, length: Callable[[Item], int], open_rows: int | None = OPEN_ROWS
) -> Iterator[list[Item]]:
    """Puts each item into the first row that has room for it (first-fit), and yields the rows.

    Args:
        capacity: most tokens of a row.
        length: tokens of an item.
        open_rows: rows that may wait for items; the oldest goes when another is needed. 1 keeps the items in order
            (sequential packing), `None` lets all rows wait for the end.

    Raises:
        ValueError: an item is empty, or longer than a row.
    """
    rows: list[list[Item]] = []
    room: list[int] = []
    for number, item in enumerate(items):
        size = length(item)
        if not 0 < size <= capacity:
            raise ValueError(f"sequence {number} has {size} tokens; rows take 1 to {capacity}: cut or leave it out")
        place = next((place for place, left in enumerate(room) if left >= size), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(capacity)
        rows[place].append(item)
        room[place] -= size
        if room[place] == 0 or (open_rows is not None and len(rows) > open_rows):
            done = place if room[place] == 0 else 0
            room.pop(done)
            yield rows.pop(done)
    yield from rows


def shared_row(sequences: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """One row of several sequences: `input_ids`, `labels` and `position_ids`, all of the same length.

    Args:
        sequences: each with `input_ids`, and `labels` where they are others. What else they hold is left out.

    The first token of a sequence is never a label, for nothing comes before it.
    """
    row: dict[str, list[int]] = {"input_ids": [], "labels": [], "position_ids": []}
    for sequence in sequences:
        tokens = list(sequence["input_ids"])
        row["input_ids"] += tokens
        row["labels"] += [IGNORED, *list(sequence.get("labels", tokens))[1:]]
        row["position_ids"] += range(len(tokens))
    return row


def _tokens(sequence: Mapping[str, Any]) -> int:
    return len(sequence["input_ids"])


class PackedRows(IterableDataset):
    """Rows of at most `capacity` tokens, packed from a stream while it is read; in the same order each time.

    Args:
        sequences: begins the stream; each sequence has `input_ids`, and `labels` where they are others.
        capacity: most tokens of a row.
        open_rows: rows that wait for sequences that fit, see `pack`.

    The workers of a loader take the rows in turn.
    """

    def __init__(
        self,
        sequences: Callable[[], Iterable[Mapping[str, Any]]],
        capacity: int,
        open_rows: int | None = OPEN_ROWS,
    ) -> None:
        self.sequences, self.capacity, self.open_rows = sequences, capacity, open_rows

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        worker = get_worker_info()
        mine, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number, row in enumerate(pack(self.sequences(), self.capacity, _tokens, self.open_rows)):
            if number % workers == mine:
                yield shared_row(row)


@dataclass
class PackedCollator:
    """Batches of rows [R, T]: `input_ids`, `labels` and `position_ids`.

    Args:
        capacity: most tokens of a row when sequences are given; all of them share one row where left out. Rows that
            are packed already stay as they are.
        pad_token_id: fills shorter rows, as a sequence of its own without labels.
    """

    capacity: int | None = None
    pad_token_id: int = 0

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        rows = list(features)
        if "position_ids" not in rows[0]:
            capacity = self.capacity or sum(map(_tokens, rows))
            rows = [shared_row(row) for row in pack(rows, capacity, _tokens, open_rows=None)]
        width = max(map(_tokens, rows))
        padded = [self._padded(row, width - _tokens(row)) for row in rows]
        return {name: torch.tensor([row[name] for row in padded]) for name in padded[0]}

    def _padded(self, row: Mapping[str, Any], missing: int) -> dict[str, list[int]]:
        return {
            "input_ids": [*row["input_ids"], *[self.pad_token_id] * missing],
            "labels": [*row["labels"], *[IGNORED] * missing],
            "position_ids": [*row["position_ids"], *range(missing)],
        }


__all__ = ["PackedCollator", "PackedRows", "pack", "shared_row"]
