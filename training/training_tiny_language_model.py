"""The tiny zoo's language model: a small Llama that copies text and names the intents of commands.

An adapter can teach a frozen language model to take speech only for what the model already does with text: see
`speechzoo.data.text_tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

from ..data.story_grammar import lexicon
from ..data.text_tasks import TextCollator, TextMixture, TextTaskDataset, in_order_by_length

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "<audio>", "<asr>", "<int>")


@dataclass(frozen=True)
class LanguageModelSettings:
    """Size: `hidden_size`, `layers`, `heads`, `intermediate_size`.
    Training: `steps`, `batch_size` (sequences), `learning_rate` (peak, cosine decay), `seed`.
    `initializer_range` is three times the usual and attention has biases: attention heads that look at a neighbor,
    which copying is made of, form late or never without.
    """

    hidden_size: int = 192
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 512
    initializer_range: float = 0.06
    steps: int = 3600
    batch_size: int = 64
    learning_rate: float = 2e-3
    seed: int = 0
    mixture: TextMixture = field(default_factory=TextMixture)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE (no text is unknown) trained on the lexicon until each of its words is one piece."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        special_tokens=[AddedToken(token, special=True, lstrip=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lexicon(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<audio>", "<asr>", "<int>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def new_language_model(tokenizer: PreTrainedTokenizerFast, settings: LanguageModelSettings) -> LlamaForCausalLM:
    """An untrained model of the given size, its special tokens those of the tokenizer."""
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        intermediate_size=settings.intermediate_size,
        attention_bias=True,
        initializer_range=settings.initializer_range,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


class TextTrainer(Trainer):
    """Takes the examples in the order of the course."""

    def _get_train_sampler(self, train_dataset: Any = None) -> list[int]:  # type: ignore[override]
        lengths = [len(example["input_ids"]) for example in self.train_dataset]
        return in_order_by_length(lengths, self.args.train_batch_size, self.args.seed)


def train_language_model(
    settings: LanguageModelSettings, arguments: TrainingArguments
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, list[dict[str, float]]]:
    """The trained model, its tokenizer and the log of its training."""
    tokenizer = train_tokenizer()
    model = new_language_model(tokenizer, settings)
    dataset = TextTaskDataset(tokenizer, settings.mixture, settings.steps * settings.batch_size, settings.seed)
    collator = TextCollator(tokenizer.pad_token_id)
    trainer = TextTrainer(model=model, args=arguments, train_dataset=dataset, data_collator=collator)
    trainer.train()
    model.config.use_cache = True  # the Trainer switches it off
    return model, tokenizer, trainer.state.log_history
