"""How much a text repeats: its prompt, itself, and other samples after the same prompt. Over words.

Auto-BLEU, self-BLEU and VERT are those of "On Generative Spoken Language Modeling from Raw Audio" (arXiv 2102.01192),
over words and pairs of words; 0 is no repetition and 1 nothing else. There self-BLEU runs over samples of all prompts,
here over those of one prompt.
"""

import math
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from sacrebleu.metrics import BLEU

Words = Sequence[str]


def ngrams(words: Words, order: int) -> list[tuple[str, ...]]:
    """All runs of `order` words, in order."""
    return [tuple(words[start : start + order]) for start in range(len(words) - order + 1)]


def copied_ngrams(words: Words, prompt: Words, order: int = 2) -> tuple[int, int]:
    """How many of the n-grams occur in the prompt, and how many there are."""
    known, said = set(ngrams(prompt, order)), ngrams(words, order)
    return sum(ngram in known for ngram in said), len(said)


def longest_common_run(words: Words, prompt: Words) -> int:
    """Words of the longest run that also stands in the prompt."""
    return SequenceMatcher(None, prompt, words, autojunk=False).find_longest_match().size


def auto_bleu(words: Words) -> float:
    """Geometric mean of two shares: of the words, and of the pairs of words, that occur more than once in the text."""
    return math.sqrt(_repeated(words, 1) * _repeated(words, 2))


def _repeated(words: Words, order: int) -> float:
    counts = Counter(ngrams(words, order))
    total = counts.total()
    return sum(count for count in counts.values() if count > 1) / total if total else 0.0


def self_bleu(samples: Sequence[Words]) -> list[float]:
    """BLEU of each sample with the others as references, over words and pairs of words, without smoothing.

    Raises `ValueError` for fewer than two samples.
    """
    if len(samples) < 2:
        raise ValueError(f"self-BLEU compares samples with each other, and there is {len(samples)}; draw two or more")
    # A sample of one word has no pairs; it is then judged by words alone.
    metric = BLEU(max_ngram_order=2, effective_order=True, tokenize="none", smooth_method="none")
    lines = [" ".join(words) for words in samples]
    return [
        metric.sentence_score(line, lines[:place] + lines[place + 1 :]).score / 100 for place, line in enumerate(lines)
    ]


__all__ = ["auto_bleu", "copied_ngrams", "longest_common_run", "ngrams", "self_bleu"]
