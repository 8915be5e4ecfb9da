"""Which clips are shown before a query: fixed draws, or its nearest neighbors (KATE, arXiv 2101.06804).

Everything is a function of the seed and of the clips, whatever their order, and a prompt of more shots shows the clips
of the prompt with fewer, and more. A query is never shown to itself. Shapes: Q queries, P clips that may be shown,
D width of an embedding.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .few_shot_tasks import FewShotMaterial, FewShotTask, LabeledClip

Vectors: TypeAlias = npt.NDArray[np.floating]
_DIGITS = 9  # similarities that agree so far are equal, so that no rounding decides who is nearer


@dataclass(frozen=True)
class QueryGroup:
    """Queries that are asked among the same classes, and what may be shown before them.

    classes: the closed set. words: what stands for each of them in prompts.
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]
    pool: tuple[LabeledClip, ...]
    queries: tuple[LabeledClip, ...]

    def words_of(self, label: str) -> str:
        return self.words[self.classes.index(label)]


def query_groups(task: FewShotTask, material: FewShotMaterial, seed: int) -> list[QueryGroup]:
    """All queries of a task, each in one group.

    With `ways` the classes are divided at random into shares of that size, so that every class is asked about once
    under a seed; the last share is filled up with classes of the first. `symbols` are drawn for each group.
    """
    groups = []
    for number, part in enumerate(material.parts):
        lots = random.Random(f"classes {seed} {number}")
        for own, classes in _shares(material.classes, task.ways, lots):
            words = tuple(lots.sample(task.symbols, len(classes))) if task.symbols else classes
            pool = tuple(one for one in part.pool if one.label in classes)
            queries = tuple(one for one in part.queries if one.label in own)
            if queries:
                groups.append(QueryGroup(classes, words, pool, queries))
    return groups


def _shares(
    classes: tuple[str, ...], ways: int | None, lots: random.Random
) -> Iterator[tuple[set[str], tuple[str, ...]]]:
    """The classes of each share, and those of its closed set, sorted."""
    if ways is None or ways >= len(classes):
        yield set(classes), classes
        return
    shuffled = lots.sample(classes, len(classes))
    for start in range(0, len(shuffled), ways):
        own = shuffled[start : start + ways]
        others = shuffled[: ways - len(own)]
        yield set(own), tuple(sorted([*own, *others]))


def fixed_demonstrations(
    pool: Sequence[LabeledClip], shots: int, seed: int, classes: Sequence[str] = ()
) -> list[LabeledClip]:
    """`shots` clips, or so many of each of `classes`, where given: drawn, and in a random order.

    Classes come in a random order, a clip of each, again and again; one whose clips are all shown is passed over.
    Raises `ValueError` where there are fewer clips.
    """
    lots = random.Random(f"shown {seed}")
    by_class: dict[str, list[LabeledClip]] = {label: [] for label in classes}
    for one in sorted(pool, key=lambda one: one.clip.id):
        by_class.setdefault(one.label, []).append(one)
    if few := [label for label in sorted(classes) if len(by_class[label]) < shots]:
        raise ValueError(
            f"class '{few[0]}' has {len(by_class[few[0]])} clips, fewer than {shots}; ask for fewer shots"
        )
    if shots > len(pool):
        raise ValueError(f"{shots} clips are to be shown, and there are {len(pool)}; ask for fewer shots")
    piles = [lots.sample(by_class[label], len(by_class[label])) for label in sorted(by_class)]
    lots.shuffle(piles)
    turns = range(max(map(len, piles), default=0))
    chosen = [pile[turn] for turn in turns for pile in piles if turn < len(pile)][: shots * (len(classes) or 1)]
    return random.Random(f"order {seed}").sample(chosen, len(chosen))


@dataclass(frozen=True)
class Neighbors:
    """Shows the clips nearest to a query by the cosine of their embeddings, the nearest last.

    Args:
        embeddings: id of a clip -> its embedding [D].
        other_texts: whether clips that say what the query says are passed over. A corpus of few sentences, many times
            recorded, otherwise holds the answer itself.
    """

    embeddings: Mapping[str, Vectors]
    other_texts: bool = False

    def of(
        self, queries: Sequence[LabeledClip], pool: Sequence[LabeledClip], shots: int, classes: Sequence[str] = ()
    ) -> list[list[LabeledClip]]:
        """What to show before each query: `shots` clips, or so many of each of `classes`, where given.

        Of clips equally near the first by id is nearer.

        Raises `ValueError` where a clip has no embedding, or a query has fewer clips to be shown.
        """
        candidates = sorted(pool, key=lambda one: one.clip.id)
        if shots == 0 or not queries:
            return [[] for _ in queries]
        similar = self._normalized(queries) @ self._normalized(candidates).T  # [Q, P]
        orders = np.argsort(-similar.round(_DIGITS), axis=1, kind="stable")
        return [
            self._nearest(query, [candidates[place] for place in order], shots, classes)
            for query, order in zip(queries, orders, strict=True)
        ]

    def _nearest(
        self, query: LabeledClip, ordered: list[LabeledClip], shots: int, classes: Sequence[str]
    ) -> list[LabeledClip]:
        chosen: list[LabeledClip] = []
        taken: Counter[str] = Counter()
        for one in ordered:
            pile = one.label if classes else ""
            if self._may_show(one, query) and taken[pile] < shots:
                chosen.append(one)
                taken[pile] += 1
        if few := [pile for pile in classes or [""] if taken[pile] < shots]:
            raise ValueError(
                f"clip '{query.clip.id}' has {taken[few[0]]} neighbors{f' of {few[0]!r}' if classes else ''}, fewer "
                f"than {shots}; ask for fewer shots"
            )
        return chosen[::-1]

    def _may_show(self, one: LabeledClip, query: LabeledClip) -> bool:
        return one.clip.id != query.clip.id and not (self.other_texts and one.clip.text == query.clip.text)

    def _normalized(self, clips: Sequence[LabeledClip]) -> npt.NDArray[np.float64]:
        if missing := [one.clip.id for one in clips if one.clip.id not in self.embeddings]:
            raise ValueError(f"clip '{missing[0]}' has no embedding; embed queries and clips to be shown")
        table = np.stack([np.asarray(self.embeddings[one.clip.id], dtype=np.float64) for one in clips])
        return table / np.linalg.norm(table, axis=1, keepdims=True).clip(min=1e-12)
