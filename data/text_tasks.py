"""The text tasks of the tiny zoo's language model: copying, naming the intent of a command, and plain text.

Copy is `<s> X <asr> X </s>`, intent is `<s> X <int> action object location </s>`. Speech gives several embeddings
per word: in a share of the prompts the tokens of X are repeated and spread out with `<audio>` fillers, so that long
prompts with gaps are nothing new to the model.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from .command_grammar import draw_command
from .story_grammar import draw_story, draw_story_sentence, draw_words

COPY, INTENT, FILLER = "<asr>", "<int>", "<audio>"

TextExample = dict[str, list[int]]


@dataclass(frozen=True)
class TextMixture:
    """Course: the first `copying_first` of the examples copy random words and nothing else, because copying is hardly
    learned among tasks that are easier.
    Tasks after that: `copy_share` and `intent_share`, the rest is plain text; `spread_share` of the prompts of these
    two are spread out.
    Texts to copy: `command_share`, `story_share` and `invented_share` (words of random letters), the rest is random
    words of the lexicon, `longest` at most.
    """

    copying_first: float = 0.3
    copy_share: float = 0.55
    intent_share: float = 0.25
    spread_share: float = 0.5
    command_share: float = 0.15
    story_share: float = 0.2
    invented_share: float = 0.1
    longest: int = 16


class TextTaskDataset(Dataset):
    """TextExample number `index` is a function of (seed, index): no example has to be stored."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mixture: TextMixture, size: int, seed: int) -> None:
        self.tokenizer, self.mixture, self.size, self.seed = tokenizer, mixture, size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> TextExample:
        if index >= self.size:  # what ends an iteration over the dataset
            raise IndexError(index)
        rng, mixture = random.Random(f"task {self.seed} {index}"), self.mixture
        if index < mixture.copying_first * self.size:
            words = draw_words(self.seed, index, 2, mixture.longest)
            return self._prompted(words, COPY, words)
        task = rng.random()
        spread = rng if rng.random() < mixture.spread_share else None
        if task < mixture.copy_share:
            text = self._text(rng, index)
            return self._prompted(text, COPY, text, spread)
        if task < mixture.copy_share + mixture.intent_share:
            command = draw_command(self.seed, index)
            return self._prompted(command.text, INTENT, str(command.intent), spread)
        return self._plain(" ".join(draw_story(self.seed, index)) if rng.random() < 0.5 else self._text(rng, index))

    def _text(self, rng: random.Random, index: int) -> str:
        commands = self.mixture.command_share
        stories = commands + self.mixture.story_share
        invented = stories + self.mixture.invented_share
        kind = rng.random()
        if kind < commands:
            return draw_command(self.seed, index).text
        if kind < stories:
            return draw_story_sentence(self.seed, index)
        return _draw_invented_words(rng) if kind < invented else draw_words(self.seed, index, 1, self.mixture.longest)

    def _prompted(self, text: str, task: str, answer: str, spread: random.Random | None = None) -> TextExample:
        source, target = self._encode(text), self._encode(answer)
        if spread is not None:
            source = spread_out(source, self._special(FILLER), spread)
        prompt = [self._special("<s>"), *source, self._special(task)]
        target = [*target, self._special("</s>")]
        return {"input_ids": prompt + target, "labels": [-100] * len(prompt) + target}

    def _plain(self, text: str) -> TextExample:
        tokens = [self._special("<s>"), *self._encode(text), self._special("</s>")]
        return {"input_ids": tokens, "labels": tokens}

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _special(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)


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


def _draw_invented_words(rng: random.Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(rng.choices(letters, k=rng.randint(2, 6))) for _ in range(rng.randint(1, 3)))


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


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, task: str, spread_seed: int | None = None
) -> list[int]:
    """`<s> text task` as ids; with `spread_seed`, the text's tokens repeated and spread out by fillers."""
    tokens = tokenizer.encode(text, add_special_tokens=False)
    if spread_seed is not None:
        filler = tokenizer.convert_tokens_to_ids(FILLER)
        tokens = spread_out(tokens, filler, random.Random(f"spread {spread_seed}"))
    return [tokenizer.bos_token_id, *tokens, tokenizer.convert_tokens_to_ids(task)]
