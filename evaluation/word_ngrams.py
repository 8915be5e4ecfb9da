"""A language model of words by counting: interpolated Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1998).

    model = WordNGrams.train(["the % united kingdom ] voted", "% france ] voted"], order=4)
    model.log10("voted", ("kingdom", "]"))

Small enough for the transcripts of a fine-tuning split; no package that installs from wheels estimates such models.
One discount for each order where KenLM's `lmplz` has three.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log10

__all__ = ["BEGIN", "END_OF_TEXT", "UNKNOWN", "WordNGrams"]

BEGIN, END_OF_TEXT, UNKNOWN = "<s>", "</s>", "<unk>"
Words = tuple[str, ...]
_DISCOUNT_WITHOUT_COUNTS = 0.5


@dataclass(frozen=True)
class _Following:
    """What was counted behind one history: how often each word, all of them, and how many different ones."""

    counts: dict[str, int]
    total: int


@dataclass(frozen=True)
class WordNGrams:
    """Probabilities of a word behind up to `order - 1` others.

    Args:
        words: those that were seen, in alphabetical order.
        following: by history, how often each word came behind it; in all orders but the highest, and unless the
            history begins the text, behind how many different words that happened.
        discounts: what is taken off every count, by the length of the history.
    """

    order: int
    words: Words
    following: dict[Words, _Following]
    discounts: tuple[float, ...]

    @classmethod
    def train(cls, texts: Sequence[str], order: int = 4) -> "WordNGrams":
        """Counts words between spaces. Raises `ValueError` without a word, and for an order below 1."""
        if order < 1:
            raise ValueError(f"the order is {order}; give at least 1")
        sentences = [text.split() for text in texts]
        words = tuple(sorted({word for sentence in sentences for word in sentence}))
        if not words:
            raise ValueError("there is no word to count; give the transcripts of the training data")
        counts = _adjusted(_raw_counts(sentences, order), order)
        following: dict[Words, dict[str, int]] = defaultdict(dict)
        for gram, count in counts.items():
            following[gram[:-1]][gram[-1]] = count
        found = {history: _Following(found, sum(found.values())) for history, found in following.items()}
        return cls(order, words, found, tuple(_discount(counts, length) for length in range(1, order + 1)))

    @cached_property
    def vocabulary_size(self) -> int:
        """Words, the end of the text and the unknown word: what a history's probabilities sum to one over."""
        return len(self.words) + 2

    def probability(self, word: str, history: Sequence[str] = ()) -> float:
        """Of a word behind others, the last of which count; `<s>` begins a text."""
        value = 1 / self.vocabulary_size
        context = tuple(history)[max(0, len(history) - self.order + 1) :]
        for length in range(len(context) + 1):
            seen = self.following.get(context[len(context) - length :])
            if seen is None:
                break
            discount = self.discounts[length]
            kept = max(seen.counts.get(word, 0) - discount, 0.0)
            value = (kept + discount * len(seen.counts) * value) / seen.total
        return value

    def log10(self, word: str, history: Sequence[str] = ()) -> float:
        """The logarithm to base 10, as KenLM gives it."""
        return log10(self.probability(word, history))


def _raw_counts(sentences: Sequence[Sequence[str]], order: int) -> Counter[Words]:
    """Of all sequences of up to `order` words; that of `<s>` alone predicts nothing."""
    counts: Counter[Words] = Counter()
    for sentence in sentences:
        words = (BEGIN, *sentence, END_OF_TEXT)
        for length in range(1, order + 1):
            counts.update(words[start : start + length] for start in range(len(words) - length + 1))
    del counts[(BEGIN,)]
    return counts


def _adjusted(counts: Counter[Words], order: int) -> dict[Words, int]:
    """Below the highest order, the number of different words before a sequence; none stands before `<s>`."""
    before = Counter(gram[1:] for gram in counts if len(gram) > 1)
    return {
        gram: count if len(gram) == order or gram[0] == BEGIN else before[gram]
        for gram, count in counts.items()
        if gram[0] == BEGIN or len(gram) == order or before[gram]
    }


def _discount(counts: dict[Words, int], length: int) -> float:
    """n1 / (n1 + 2 n2), of the sequences of this length that were counted once and twice."""
    times = Counter(count for gram, count in counts.items() if len(gram) == length)
    return times[1] / (times[1] + 2 * times[2]) if times[1] and times[2] else _DISCOUNT_WITHOUT_COUNTS
