"""Text tasks as token ids: for a causal language model, and for one with an encoder and a decoder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from .text_episodes import Episode
from .text_tasks import CONTEXT, FILLER, INTENT, TextMixture, TextTask, draw_task

TextExample = dict[str, list[int]]


@dataclass(frozen=True)
class PromptEncoder:
    """Turns texts into prompts of token ids, `<s> [context <ctx>] text sign`."""

    tokenizer: PreTrainedTokenizerBase

    def prompt(self, text: str, sign: str, context: str = "", spread: random.Random | None = None) -> list[int]:
        """spread: the random numbers by which the text's tokens are repeated and spread out (`spread_out`), as speech
        would be; None leaves them as they are."""
        before = [*self.text(context), self.sign(CONTEXT)] if context else []
        return [self.tokenizer.bos_token_id, *before, *self.text(text, spread), self.sign(sign)]

    def task(self, task: TextTask, spread: random.Random | None = None) -> list[int]:
        """The prompt of a task, with what is shown in place of its text."""
        shown = task.text if task.shown is None else task.shown
        return self.prompt(shown, task.sign, task.context, spread)

    def text(self, text: str, spread: random.Random | None = None) -> list[int]:
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        return spread_out(tokens, self.sign(FILLER), spread) if spread is not None else tokens

    def sign(self, sign: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(sign)

    def episode(
        self,
        episode: Episode,
        spread: Sequence[bool] = (),
        rng: random.Random | None = None,
        closed: bool = False,
    ) -> TextExample:
        """Labels are supervised that the episode asks for.

        spread: for each text, whether it is spread out, by `rng`.
        closed: the end of the sequence follows the last label and is supervised, as after the answer of a task.
        """
        tokens, labels = [self.tokenizer.bos_token_id], [-100]
        explained: set[str] = set()
        last = len(episode.texts) - 1
        for number, (text, word) in enumerate(zip(episode.texts, episode.labels, strict=True)):
            shown = [*self.text(text, rng if spread and spread[number] else None), self.sign(INTENT)]
            answer = self.text(word)
            tokens += shown + answer
            supervised = {"explained": word in explained, "last": number == last, "all": True}[episode.asked]
            labels += [-100] * len(shown) + (answer if supervised else [-100] * len(answer))
            explained.add(word)
        end = [self.tokenizer.eos_token_id] if closed else []
        return {"input_ids": tokens + end, "labels": labels + end}


@dataclass
class TextTaskDataset(Dataset):
    """Example number `index` is a function of (seed, index): no example has to be stored.

    seq2seq: examples of a prompt as input and an answer as labels, for a model with an encoder and a decoder; of an
    episode only the last label is asked for.
    """

    tokenizer: PreTrainedTokenizerBase
    mixture: TextMixture
    size: int
    seed: int
    seq2seq: bool = False

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> TextExample:
        if index >= self.size:  # what ends an iteration over the dataset
            raise IndexError(index)
        task = draw_task(self.mixture, self.size, self.seed, index)
        rng = random.Random(f"spread {self.seed} {index}")
        return self._episode(task, rng, index) if isinstance(task, Episode) else self._task(task, rng, index)

    def _task(self, task: TextTask, rng: random.Random, index: int) -> TextExample:
        encoder = PromptEncoder(self.tokenizer)
        plain = self.mixture.only_copies(index, self.size)
        spread = rng if not plain and rng.random() < self.mixture.spread_share else None
        prompt = encoder.task(task, spread)
        answer = [*encoder.text(task.answer), self.tokenizer.eos_token_id]
        return self._example(prompt, answer)

    def _episode(self, episode: Episode, rng: random.Random, index: int) -> TextExample:
        """In half of the episodes the last text is spread out, in a tenth all texts; a course has its own shares, and
        its episodes are closed, but for a model with an encoder and a decoder, whose answers end anyway."""
        course, count = self.mixture.episodes, len(episode.texts)
        if course:
            spread = course.draw_spread(index / self.size, count, rng)
        else:
            kind = rng.random()
            spread = [kind < 0.1 or (kind < 0.5 and number == count - 1) for number in range(count)]
        closed = course is not None and not self.seq2seq
        example = PromptEncoder(self.tokenizer).episode(episode, spread, rng, closed)
        if not self.seq2seq:
            return example
        answer = PromptEncoder(self.tokenizer).text(episode.labels[-1])
        return self._example(example["input_ids"][: -len(answer)], [*answer, self.tokenizer.eos_token_id])

    def _example(self, prompt: list[int], answer: list[int]) -> TextExample:
        if self.seq2seq:
            return {"input_ids": prompt, "labels": answer}
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def in_order_by_length(lengths: list[int], batch_size: int, seed: int, window: int = 40) -> list[int]:
    """Indices in the order of the course, but with batches of like length within windows of so many batches."""
    order: list[int] = []
    for start in range(0, len(lengths), batch_size * window):
        indices = sorted(range(start, min(start + batch_size * window, len(lengths))), key=lengths.__getitem__)
        batches = [indices[first : first + batch_size] for first in range(0, len(indices), batch_size)]
        random.Random(f"batches {seed} {start}").shuffle(batches)
        order += [index for batch in batches for index in batch]
    return order


def spread_out(tokens: list[int], filler: int, rng: random.Random) -> list[int]:
    """Repeat tokens and put fillers between them, as a stream of speech embeddings would."""
    longest_gap = rng.randint(1, 5)
    spread = [filler] * rng.randint(0, longest_gap)
    for token in tokens:
        spread += [token] * rng.choice((1, 1, 2, 3)) + [filler] * rng.randint(0, longest_gap)
    return spread


@dataclass(frozen=True)
class TextCollator:
    """Pads on the right; padding is neither attended to nor supervised."""

    pad_token_id: int

    def __call__(self, examples: list[TextExample]) -> dict[str, torch.Tensor]:
        def pad(name: str, value: int) -> torch.Tensor:
            return pad_sequence([torch.tensor(e[name]) for e in examples], batch_first=True, padding_value=value)

        input_ids = pad("input_ids", self.pad_token_id)  # [B, T]
        return {
            "input_ids": input_ids,
            "attention_mask": (input_ids != self.pad_token_id).long(),
            "labels": pad("labels", -100),
        }
