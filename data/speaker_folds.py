"""Folds for cross-validation that keep the clips of a speaker together."""

from collections import Counter
from collections.abc import Sequence


def first_number(group: str) -> str:
    """`g33` of `g33-57`: groups that share it may share a speaker, so they are never parted."""
    return group.partition("-")[0]


def balanced_folds(groups: Sequence[str], folds: int) -> list[int]:
    """The fold of each clip, from 0: whole groups, the largest first, each to the fold with the fewest clips so far.

    Raises `ValueError` for fewer groups than folds.
    """
    sizes = Counter(groups)
    if len(sizes) < folds:
        raise ValueError(f"{len(sizes)} groups cannot fill {folds} folds; ask for fewer")
    filled, fold_of = [0] * folds, {}
    for group, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += size
    return [fold_of[group] for group in groups]
