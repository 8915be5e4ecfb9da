"""Words that a model wrote, with the probabilities it gave them, and what they say by the form of an answer.

The probability of several words, such as an entity with its marks, is the geometric mean of those of their tokens (or
letters), each given what stands before it: one number in (0, 1] that does not fall with length.

Shapes: B rows, T new tokens, V vocabulary, F frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor

from ..configuration.answer_forms import AnswerForm
from ..data.slot_texts import SEPARATOR, read_slots
from ..processing.entity_marks import marked_spans, unmarked


@dataclass(frozen=True)
class Word:
    """A word and the log probabilities of its tokens or letters, in nats."""

    text: str
    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Written:
    """An answer as a model wrote it.

    Args:
        words: in order.
        end: log probabilities of what is no part of a word: the end of the answer.
    """

    words: Sequence[Word]
    end: tuple[float, ...] = ()

    def read(self, form: AnswerForm) -> dict[str, Any]:
        """What it says: `text` and `score`; and where the form has them, `entities` or `slots`, lists of `label`,
        `text` and `score`. Entities leave no marks in the text."""
        texts = [word.text for word in self.words]
        found: dict[str, Any] = {"text": " ".join(texts), "score": self._score()}
        if form.marks:
            found["text"] = " ".join(unmarked(texts, form.marks, form.end))
            spans = marked_spans(texts, form.marks, form.end)
            found["entities"] = [self._entity(tag, places) for tag, places in spans]
        if form.slots:
            found["slots"] = self._slots(found["text"], form.slots)
        return found

    def _score(self) -> float:
        return mean_probability([*(each for word in self.words for each in word.log_probs), *self.end])

    def _entity(self, tag: str, places: range) -> dict[str, Any]:
        marked = self.words[places.start - 1 : places.stop + 1]
        text = " ".join(self.words[place].text for place in places)
        return {"label": tag, "text": text, "score": _score_of(marked)}

    def _slots(self, text: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """Which value a word belongs to is told by the separators before it; to several with separators inside."""
        before, values = 0, dict[int, list[Word]]()
        for word in self.words:
            parts = word.text.split(SEPARATOR)
            for place, part in enumerate(parts, start=before):
                if part:
                    values.setdefault(place, []).append(word)
            before += len(parts) - 1
        filled = read_slots(text, names)
        return [
            {"label": name, "text": filled[name], "score": _score_of(values[place])}
            for place, name in enumerate(names)
            if name in filled
        ]


def _score_of(words: Iterable[Word]) -> float:
    return mean_probability([each for word in words for each in word.log_probs])


def mean_probability(log_probs: Sequence[float]) -> float:
    """The geometric mean of probabilities; 1 for none."""
    return math.exp(math.fsum(log_probs) / len(log_probs)) if log_probs else 1.0


# ---- where words come from -----------------------------------------------------------------------------------------


def written_tokens(
    tokens: Sequence[int], log_probs: Sequence[float], ends: Iterable[int], read: Callable[[list[int]], str]
) -> Written:
    """The words of new tokens up to the first of `ends`, which counts in the score.

    A token belongs to the last word that there is when it is written.

    Args:
        read: the text of tokens.
    """
    stops = set(ends)
    length = next((place for place, token in enumerate(tokens) if token in stops), len(tokens))
    texts = read(list(tokens[:length])).split()
    owned: list[list[float]] = [[] for _ in texts]
    for place in range(length):
        if texts:
            last = len(read(list(tokens[: place + 1])).split()) - 1
            owned[min(max(last, 0), len(texts) - 1)].append(log_probs[place])
    words = [Word(text, tuple(own)) for text, own in zip(texts, owned, strict=True)]
    return Written(words, tuple(log_probs[length : length + 1]))


def written_letters(logits: Tensor, processor: Any) -> Written:
    """The words of the likeliest letter of every frame, from logits [F, V] over the letters of CTC.

    A letter's probability is the highest of its frames.
    """
    log_probs, letters = logits.float().log_softmax(-1).max(-1)
    runs = groupby(range(len(letters)), letters.tolist().__getitem__)
    space = processor.tokenizer.convert_tokens_to_ids("|")
    words, ids, scores = list[Word](), list[int](), list[float]()
    for letter, frames in chain(runs, [(space, iter(()))]):
        if letter != space and processor.decode_letters([letter]):
            ids.append(letter)
            scores.append(max(float(log_probs[frame]) for frame in frames))
        elif letter == space and ids:
            words.append(Word(processor.decode_letters(ids), tuple(scores)))
            ids, scores = [], []
    return Written(words)


def log_probs_of_generated(output: Any, new: Tensor) -> Tensor:
    """Log probabilities [B, T] of the new tokens of `generate(return_dict_in_generate=True, output_logits=True)`, as
    the model gave them before anything that steers generation."""
    rows = torch.arange(len(new), device=new.device)
    found = []
    for step in range(new.shape[1]):
        # Of beams that ended the index is -1; what it would give is never looked at.
        chosen = rows if output.get("beam_indices") is None else output.beam_indices[:, step].clamp(min=0)
        logits = output.logits[step][chosen].float()
        found.append(logits.gather(1, new[:, step, None])[:, 0] - logits.logsumexp(-1))
    return torch.stack(found, 1)


__all__ = ["Word", "Written", "log_probs_of_generated", "mean_probability", "written_letters", "written_tokens"]
