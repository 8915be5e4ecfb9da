"""Which pairs are compared with which, where a model is to find the context of a continuation or the other way round.

The pairs stand in a ring, shuffled by a seed. The other prompts of a continuation are those of the next N - 1 pairs,
the other continuations of a prompt those of the N - 1 pairs before. So every prompt and every continuation is a
candidate equally often, and both need the same scores. A pair whose prompt or continuation reads the same as that of
a candidate is passed over: it would be as right as the true one.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .prompted_pairs import PromptedPair


@dataclass(frozen=True)
class Candidates:
    """For each pair the numbers of the pairs it is compared with, itself first.

    contexts: whose prompts stand to choose for its continuation.
    continuations: whose continuations stand to choose for its prompt.
    """

    contexts: list[list[int]]
    continuations: list[list[int]]

    def of_prompts(self) -> list[list[int]]:
        """For each prompt the continuations it needs a score with."""
        needed = [set(numbers) for numbers in self.continuations]
        for continuation, prompts in enumerate(self.contexts):
            for prompt in prompts:
                needed[prompt].add(continuation)
        return [sorted(numbers) for numbers in needed]


def draw_candidates(pairs: Sequence[PromptedPair], candidates: int | None, seed: int) -> Candidates:
    """N candidates of every pair, no two with the same text; all there are for `None`.

    Raises `ValueError` where a pair has fewer, and for less than two pairs.
    """
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} pairs leave nothing to choose from; give at least 2")
    ring = list(range(len(pairs)))
    random.Random(seed).shuffle(ring)
    return Candidates(_around(pairs, ring, candidates), _around(pairs, ring[::-1], candidates))


def _around(pairs: Sequence[PromptedPair], ring: list[int], wanted: int | None) -> list[list[int]]:
    found = {own: _different(pairs, [*ring[place:], *ring[:place]], wanted) for place, own in enumerate(ring)}
    return [found[number] for number in range(len(pairs))]


def _different(pairs: Sequence[PromptedPair], walk: Sequence[int], wanted: int | None) -> list[int]:
    """The first of a walk, and those after it whose prompt and continuation read like no other's."""
    prompts: set[str] = set()
    continuations: set[str] = set()
    found: list[int] = []
    for number in walk:
        prompt, continuation = pairs[number].prompt["text"], pairs[number].continuation["text"]
        if prompt not in prompts and continuation not in continuations:
            prompts.add(prompt)
            continuations.add(continuation)
            found.append(number)
        if len(found) == wanted:
            return found
    if wanted is not None or len(found) < 2:
        raise ValueError(
            f"'{pairs[walk[0]].id}' makes {len(found)} candidates with the pairs that read otherwise, and "
            f"{wanted or 2} were asked for; ask for fewer, or give more pairs"
        )
    return found
