"""What transformers' common tests need to know of our models: tiny configurations, inputs, processors.

Read by the runner that `test_transformers_common.py` starts; it describes the format.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
import transformers.testing_utils
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)

from speechzoo import (
    SealProjectorConfig,
    SealProjectorForConditionalGeneration,
    SealProjectorModel,
    SpeechTextAdapterConfig,
    SpeechTextAdapterForConditionalGeneration,
    SpeechTextAdapterModel,
    SpeechTextAdapterProcessor,
    SUTLMConfig,
    SUTLMForCausalLM,
    SUTLMForSequenceClassification,
    SUTLMModel,
)

PROMPTS, TOKENS, SAMPLES, VOCABULARY = 3, 9, 1700, 99
FRAME_KERNEL, FRAME_STRIDE = 100, 320  # of the convolutions below
REDUCTION_RATIO = 2
SPEECH_EMBEDDINGS = 3  # ((1700 - 100) // 320 + 1) frames, one of two kept
AUDIO_TOKEN = 3  # low, for some tests shrink the vocabulary


def speech_encoder() -> Wav2Vec2Config:
    return Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=37,
        feat_extract_norm="layer",
        conv_dim=[16, 16, 16],
        conv_kernel=[10, 3, 3],
        conv_stride=[5, 8, 8],
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        mask_time_prob=0.0,
    )


def both_backbones(language_model: PreTrainedConfig) -> dict[str, Any]:
    return {
        "audio_config": speech_encoder(),
        "text_config": language_model,
        "frame_kernel": FRAME_KERNEL,
        "frame_stride": FRAME_STRIDE,
        "reduction_ratio": REDUCTION_RATIO,
        "audio_token_id": AUDIO_TOKEN,
        "linear_head": True,
    }


def adapter_config(language_model: PreTrainedConfig, **keywords: Any) -> SpeechTextAdapterConfig:
    return SpeechTextAdapterConfig(**both_backbones(language_model), adapter_layers=1, adapter_heads=2, **keywords)


def tiny_llama(**keywords: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **keywords,
    )


def with_causal_model(**keywords: Any) -> SpeechTextAdapterConfig:
    return adapter_config(tiny_llama(), **keywords)


def with_projector() -> SealProjectorConfig:
    return SealProjectorConfig(**both_backbones(tiny_llama()))


def with_encoder_decoder(**keywords: Any) -> SpeechTextAdapterConfig:
    t5 = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
    )
    return adapter_config(t5, **keywords)


def prompts_with_speech(config: SpeechTextAdapterConfig) -> dict[str, Tensor]:
    input_ids = torch.randint(AUDIO_TOKEN + 1, VOCABULARY, (PROMPTS, TOKENS))  # [B, T]
    input_ids[:, 2 : 2 + SPEECH_EMBEDDINGS] = AUDIO_TOKEN
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "input_features": 0.1 * torch.randn(PROMPTS, SAMPLES),  # [B, S]
        "input_features_mask": torch.ones(PROMPTS, SAMPLES, dtype=torch.long),
    }


def prompts_and_answers(config: SpeechTextAdapterConfig) -> dict[str, Tensor]:
    return {
        **prompts_with_speech(config),
        "decoder_input_ids": torch.randint(AUDIO_TOKEN + 1, VOCABULARY, (PROMPTS, TOKENS)),
    }


def joint_vocabulary() -> dict[str, int]:
    """Low, for some tests shrink the vocabulary."""
    names = ("unit_start_token_id", "text_start_token_id", "unit_to_text_token_id", "text_to_unit_token_id")
    return {"unit_token_start": 10, "unit_token_count": 40, **{name: 3 + number for number, name in enumerate(names)}}


def over_llama() -> SUTLMConfig:
    return SUTLMConfig(text_config=tiny_llama(tie_word_embeddings=False), **joint_vocabulary())


def over_gpt2() -> SUTLMConfig:
    """The paper's shape: learned positions, tied tables."""
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    gpt2 = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, **special)
    return SUTLMConfig(text_config=gpt2, **joint_vocabulary())


def tokens_of_both_kinds(config: SUTLMConfig) -> dict[str, Tensor]:
    input_ids = torch.randint(3, VOCABULARY, (PROMPTS, TOKENS))  # [B, T]
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def tokens_and_labels(config: SUTLMConfig, inputs: dict[str, Tensor], model_class: type) -> dict[str, Tensor]:
    if model_class is SUTLMForSequenceClassification:
        return {**inputs, "labels": torch.zeros(len(inputs["input_ids"]), dtype=torch.long)}
    return {**inputs, "labels": inputs["input_ids"].clone()}


def with_trained_backbones() -> SpeechTextAdapterConfig:
    return with_causal_model(unfrozen=["audio_tower", "language_model"])


def keep_to_known_fields(set_fields: Callable[[PreTrainedConfig], None]) -> Callable[[PreTrainedConfig], None]:
    """The common tests write every spelling of "epsilon" into a configuration; ours refuses unknown fields."""

    def set_known_fields(config: PreTrainedConfig) -> None:
        set_fields(config)
        for name in set(vars(config)) - {field.name for field in fields(config)}:
            if name.endswith(("eps", "epsilon")):
                delattr(config, name)

    return set_known_fields


transformers.testing_utils.set_config_for_less_flaky_test = keep_to_known_fields(
    transformers.testing_utils.set_config_for_less_flaky_test
)

MODEL_CLASSES = [SpeechTextAdapterModel, SpeechTextAdapterForConditionalGeneration]
NO_GENERATION_TESTS = {
    "test_generation_tester_mixin_inheritance": "there is no generation mixin without a checkout; Llama fails too"
}
CHECKPOINTING = ("", "_use_reentrant_false", "_use_reentrant_true")
FROZEN = {
    f"test_training_gradient_checkpointing{variant}": "a frozen encoder stays in evaluation mode, without checkpoints"
    for variant in CHECKPOINTING
}
FROZEN_DECODER = {
    "test_retain_grad_hidden_states_attentions": "what a frozen decoder makes of its own tokens needs no gradient"
}
CASES = [
    {
        "name": "CausalModel",
        "config": with_causal_model,
        "inputs": prompts_with_speech,
        "model_classes": MODEL_CLASSES,
        "attrs": {"_is_composite": True},
        "expected": NO_GENERATION_TESTS | FROZEN,
    },
    {
        "name": "EncoderDecoder",
        "config": with_encoder_decoder,
        "inputs": prompts_and_answers,
        "model_classes": MODEL_CLASSES,
        "tester": {"num_hidden_states_types": 2},  # the encoder's and the decoder's
        "attrs": {"_is_composite": True},
        "expected": NO_GENERATION_TESTS | FROZEN | FROZEN_DECODER,
    },
    {
        "name": "TrainedBackbones",
        "config": with_trained_backbones,
        "inputs": prompts_with_speech,
        "model_classes": MODEL_CLASSES,
        "attrs": {"_is_composite": True},
        "expected": NO_GENERATION_TESTS,
    },
    {
        "name": "SealProjector",
        "config": with_projector,
        "inputs": prompts_with_speech,
        "model_classes": [SealProjectorModel, SealProjectorForConditionalGeneration],
        "attrs": {"_is_composite": True},
        "expected": NO_GENERATION_TESTS | FROZEN,
    },
    *(
        {
            "name": name,
            "config": config,
            "inputs": tokens_of_both_kinds,
            "labels": tokens_and_labels,
            "model_classes": [SUTLMModel, SUTLMForCausalLM, SUTLMForSequenceClassification],
            "attrs": {"_is_composite": True},
            "expected": NO_GENERATION_TESTS,
        }
        for name, config in {"SUTLMOverLlama": over_llama, "SUTLMOverGPT2": over_gpt2}.items()
    ),
]


def word_tokenizer() -> PreTrainedTokenizerFast:
    words = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "lower",
        "newer",
        "upper",
        "older",
        "longer",
        "string",
        "transcribe",
        "the",
        "speech",
        ".",
        ":",
        "user",
        "assistant",
    ]
    vocabulary = {word: id for id, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def waveform_extractor() -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(return_attention_mask=True)


DOWNLOADS = {f"test_apply_chat_template_audio_{number}": "downloads its audio from the Hub" for number in range(4)}
PROCESSORS = [
    {
        "name": "Processor",
        "processor_class": SpeechTextAdapterProcessor,
        "components": {"tokenizer": word_tokenizer, "feature_extractor": waveform_extractor},
        "kwargs": {"frame_kernel": FRAME_KERNEL, "frame_stride": FRAME_STRIDE, "reduction_ratio": REDUCTION_RATIO},
        "attrs": {"audio_input_name": "input_features"},
        "expected": DOWNLOADS
        | {"test_subprocessor_defaults_3_audio": "wants the mask under the extractor's own name"},
    },
]
