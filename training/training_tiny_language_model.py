"""The tiny zoo's language models: a small Llama, and a small T5 beside it, that learn a handful of text tasks.

An adapter can teach a frozen language model to take speech only for what the model already does with text: see
`speechzoo.data.text_tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from ..data.text_task_dataset import TextCollator, TextTaskDataset, in_order_by_length
from ..data.text_tasks import FILLER, SIGNS, TextMixture, in_context_mixture, sample_texts, vocabulary

_SAMPLED = 5000  # texts that pieces are counted in
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", FILLER, *SIGNS)


@dataclass(frozen=True)
class LanguageModelSettings:
    """Shape: `architecture` (a decoder, or an encoder with a decoder), `hidden_size`, `layers` (of each of the two),
    `heads`, `intermediate_size`; `pieces` of the vocabulary, where words are not whole.
    Training: `steps`, `batch_size` (sequences), `learning_rate` (peak), `decay` (the last share of the steps, in which
    it falls to 0 along a cosine), `seed`; `mixture` of tasks.
    `initializer_range`, of the Llama, is three times the usual and its attention has biases: attention heads that
    look at a neighbor, which copying is made of, form late or never without.
    """

    architecture: Literal["llama", "t5"] = "llama"
    hidden_size: int = 192
    layers: int = 5
    heads: int = 4
    intermediate_size: int = 512
    initializer_range: float = 0.06
    pieces: int | None = None
    steps: int = 6000
    batch_size: int = 64
    learning_rate: float = 2e-3
    decay: float = 1.0
    seed: int = 0
    mixture: TextMixture = field(default_factory=TextMixture)


def in_context_settings() -> LanguageModelSettings:
    """Of the model that learns from examples in its prompt. Its words are in pieces, and its learning rate stays high
    until the episodes are learned."""
    return LanguageModelSettings(
        layers=4, pieces=768, steps=2200, learning_rate=1.5e-3, decay=0.2, mixture=in_context_mixture()
    )


def train_tokenizer(pieces: int | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE (no text is unknown) of so many pieces, or trained on the vocabulary until each of its words is
    one piece."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces or 4096,
        min_frequency=1,
        special_tokens=[AddedToken(token, special=True, lstrip=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_texts(_SAMPLED) if pieces else vocabulary(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[FILLER, *SIGNS],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def new_language_model(tokenizer: PreTrainedTokenizerFast, settings: LanguageModelSettings) -> PreTrainedModel:
    """An untrained model of the given shape, its special tokens those of the tokenizer."""
    torch.manual_seed(settings.seed)
    tokens = {
        "vocab_size": len(tokenizer),
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return _ARCHITECTURES[settings.architecture](settings, tokens)


def _new_llama(settings: LanguageModelSettings, tokens: dict[str, Any]) -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        intermediate_size=settings.intermediate_size,
        attention_bias=True,
        initializer_range=settings.initializer_range,
        max_position_embeddings=1024,
        **tokens,
    )
    return LlamaForCausalLM(config)


def _new_t5(settings: LanguageModelSettings, tokens: dict[str, Any]) -> T5ForConditionalGeneration:
    config = T5Config(
        d_model=settings.hidden_size,
        d_kv=settings.hidden_size // settings.heads,
        d_ff=settings.intermediate_size,
        num_layers=settings.layers,
        num_heads=settings.heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=tokens["pad_token_id"],
        **tokens,
    )
    return T5ForConditionalGeneration(config)


_ARCHITECTURES = {"llama": _new_llama, "t5": _new_t5}


class TextTrainer(Trainer):
    """Takes the examples in the order of the course."""

    def _get_train_sampler(self, train_dataset: Any = None) -> list[int]:  # type: ignore[override]
        lengths = [len(example["input_ids"]) for example in self.train_dataset]
        return in_order_by_length(lengths, self.args.train_batch_size, self.args.seed)


def train_language_model(
    settings: LanguageModelSettings, arguments: TrainingArguments
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, list[dict[str, float]]]:
    """The trained model, its tokenizer and the log of its training."""
    tokenizer = train_tokenizer(settings.pieces)
    model = new_language_model(tokenizer, settings)
    size = settings.steps * settings.batch_size
    dataset = TextTaskDataset(
        tokenizer, settings.mixture, size, settings.seed, seq2seq=model.config.is_encoder_decoder
    )
    collator = TextCollator(tokenizer.pad_token_id)
    trainer = TextTrainer(model=model, args=arguments, train_dataset=dataset, data_collator=collator)
    trainer.train()
    model.config.use_cache = True  # the Trainer switches it off
    return model, tokenizer, trainer.state.log_history
