"""Answers that a language model generates after few-shot prompts: spelled among closed labels, or free.

Shapes: B prompts, T tokens or speech embeddings, D width of the language model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .prompt_readers import FewShotPrompt, PromptReader, label_tokens, read_whole
from .word_error_rate import normalize_text

# Whatever a model's own generation settings say, for scores of labels heed none of it either.
_PLAIN = {
    **{"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0},
    **{"forced_bos_token_id": None, "forced_eos_token_id": None},
    **{"suppress_tokens": None, "begin_suppress_tokens": None},
}


class LabelTrie:
    """What may come next while one of several token sequences is spelled.

    Where one label begins another, the end token decides between them.

    Args:
        labels: tokens of each.
        end: the token after a whole label; one that a label ends in already is not repeated.
    """

    def __init__(self, labels: Sequence[Sequence[int]], end: int) -> None:
        self.end = end
        self._spelled = [tuple(label) if label[-1] == end else (*label, end) for label in labels]
        self._following: dict[tuple[int, ...], set[int]] = {}
        for label in self._spelled:
            for place, token in enumerate(label):
                self._following.setdefault(label[:place], set()).add(token)

    @property
    def depth(self) -> int:
        """Most tokens of a label, its end included."""
        return max(map(len, self._spelled))

    def following(self, written: Sequence[int]) -> list[int]:
        """Tokens that go on spelling a label; the end token behind a whole one."""
        return sorted(self._following.get(tuple(written), {self.end}))

    def number(self, written: Sequence[int]) -> int:
        """Of the label that is spelled, whatever follows its end."""
        return next(place for place, label in enumerate(self._spelled) if tuple(written[: len(label)]) == label)


def constrained_answers(
    reader: PromptReader, prompts: Sequence[FewShotPrompt], labels: Sequence[str], *, batch_size: int = 16
) -> list[int]:
    """The number of the label that greedy generation spells after each prompt when it can spell nothing else.

    Of two labels that begin alike the likelier next token decides. Labels are written, and errors raised, as in
    `label_scores`: with what ends them in demonstrations where one begins another, for behind demonstrations the end
    token, which otherwise decides between them, is never likely. Prompts of a batch change nothing.
    """
    trie = LabelTrie(label_tokens(reader, prompts, labels), reader.tokenizer.eos_token_id)
    skipped = int(reader.language_model.config.is_encoder_decoder)  # its decoder's start token comes first

    def allowed(_: int, tokens: Tensor) -> list[int]:
        return trie.following(tokens[skipped:].tolist())

    written = _generate(reader, prompts, batch_size, max_new_tokens=trie.depth, prefix_allowed_tokens_fn=allowed)
    return [trie.number(tokens) for tokens in written]


def greedy_answers(
    reader: PromptReader,
    prompts: Sequence[FewShotPrompt],
    *,
    max_new_tokens: int,
    stop: str = "\n",
    batch_size: int = 16,
) -> list[str]:
    """What greedy generation says after each prompt, up to `stop` or the end token."""
    written = _generate(reader, prompts, batch_size, max_new_tokens=max_new_tokens)
    return [reader.tokenizer.decode(tokens, skip_special_tokens=True).split(stop)[0].strip() for tokens in written]


def exact_matches(
    reader: PromptReader,
    prompts: Sequence[FewShotPrompt],
    labels: Sequence[str],
    *,
    stop: str = "\n",
    batch_size: int = 16,
) -> list[int | None]:
    """The number of the label that free greedy generation says after each prompt, `None` for anything else.

    Both are compared normalized. A token more than the longest label has is generated, so that an answer that goes on
    is none.
    """
    longest = max(map(len, label_tokens(reader, prompts, labels)), default=0)
    answers = greedy_answers(reader, prompts, max_new_tokens=longest + 1, stop=stop, batch_size=batch_size)
    numbers = {normalize_text(label): number for number, label in enumerate(labels)}
    return [numbers.get(normalize_text(answer)) for answer in answers]


@torch.no_grad()
def _generate(
    reader: PromptReader, prompts: Sequence[FewShotPrompt], batch_size: int, **options: Any
) -> list[list[int]]:
    """New tokens of each prompt: the likeliest, one after the other, with nothing forced or forbidden."""
    model, end = reader.language_model.eval(), reader.tokenizer.eos_token_id
    skipped = int(model.config.is_encoder_decoder)
    written: list[list[int]] = []
    for start in tqdm(range(0, len(prompts), batch_size), desc="answering", unit="batch", leave=False):
        embeddings = read_whole(reader, prompts[start : start + batch_size])
        inputs = _padded(embeddings, "right" if model.config.is_encoder_decoder else "left")
        generated = model.generate(**inputs, **_PLAIN, eos_token_id=end, pad_token_id=end, **options)
        written += generated[:, skipped:].tolist()
    return written


def _padded(prompts: Sequence[Tensor], side: str) -> dict[str, Tensor]:
    """`inputs_embeds` [B, T, D] and `attention_mask` [B, T] of prompts [T, D]."""
    embeddings = torch.nn.utils.rnn.pad_sequence(list(prompts), batch_first=True, padding_side=side)
    masks = [torch.ones(len(prompt), dtype=torch.long, device=prompt.device) for prompt in prompts]
    mask = torch.nn.utils.rnn.pad_sequence(masks, batch_first=True, padding_side=side)
    return {"inputs_embeds": embeddings, "attention_mask": mask}
