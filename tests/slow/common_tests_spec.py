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
    SpeechLMConfig,
    SpeechLMForCTC,
    SpeechLMForPreTraining,
    SpeechLMForSequenceClassification,
    SpeechLMModel,
    SpeechTextAdapterConfig,
    SpeechTextAdapterForConditionalGeneration,
    SpeechTextAdapterModel,
    SpeechTextAdapterProcessor,
    SpeechUTConfig,
    SpeechUTForConditionalGeneration,
    SpeechUTForCTC,
    SpeechUTForPreTraining,
    SpeechUTForSequenceClassification,
    SpeechUTModel,
    SUTLMConfig,
    SUTLMForCausalLM,
    SUTLMForSequenceClassification,
    SUTLMModel,
)

PROMPTS, TOKENS, SAMPLES, VOCABULARY = 3, 9, 1700, 99
FRAME_KERNEL, FRAME_STRIDE = 100, 320  # of the convolutions below
REDUCTION_RATIO = 2
SPEECH_EMBEDDINGS = 3  # ((1700 - 100) // 320 + 1) frames, one of two kept
FRAMES = (SAMPLES - FRAME_KERNEL) // FRAME_STRIDE + 1  # the joint encoders begin with the same convolutions
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


def joint_fields() -> dict[str, Any]:
    """Fine-tuning leaves the ways in frozen: a batch is of one modality, and the other's would get no gradient."""
    return {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 37,
        "unit_encoder_layers": 1,
        "unit_attention_heads": 2,
        "unit_intermediate_size": 37,
        "relative_position_distance": 8,
        "conv_dim": [16, 16, 16],
        "conv_kernel": [10, 3, 3],
        "conv_stride": [5, 8, 8],
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
        "unit_vocab_size": VOCABULARY,
        "text_vocab_size": VOCABULARY,
        "final_dim": 16,
        "layerdrop": 0.0,
        "freeze_layers": 0,
    }


def speechlm() -> SpeechLMConfig:
    return SpeechLMConfig(**joint_fields(), max_unit_positions=64)


def speechut(**keywords: Any) -> SpeechUTConfig:
    return SpeechUTConfig(
        **joint_fields(),
        decoder_layers=2,
        decoder_hidden_size=32,
        decoder_attention_heads=2,
        decoder_ffn_dim=37,
        decoder_relative_distance=4,
        decoder_layerdrop=0.0,
        **keywords,
    )


def speechut_large_style() -> SpeechUTConfig:
    """A pre-norm speech encoder below a post-norm unit encoder without absolute positions."""
    return speechut(feat_extract_norm="layer", do_stable_layer_norm=True, max_unit_positions=0)


def speechut_that_writes() -> SpeechUTConfig:
    return speechut(is_encoder_decoder=True)


def waveforms(config: PreTrainedConfig) -> dict[str, Tensor]:
    return {
        "input_values": 0.1 * torch.randn(PROMPTS, SAMPLES),  # [B, S]
        "attention_mask": torch.ones(PROMPTS, SAMPLES, dtype=torch.long),
    }


def waveforms_and_texts(config: PreTrainedConfig) -> dict[str, Tensor]:
    return {**waveforms(config), "decoder_input_ids": torch.randint(3, VOCABULARY, (PROMPTS, FRAMES))}


def joint_labels(config: PreTrainedConfig, inputs: dict[str, Tensor], model_class: type) -> dict[str, Tensor]:
    """The same at every call, masks too, for models draw them anew where they are not given."""
    if model_class in (SpeechLMForSequenceClassification, SpeechUTForSequenceClassification):
        return {**inputs, "labels": torch.zeros(PROMPTS, dtype=torch.long)}
    symbols = torch.arange(3, 3 + PROMPTS * FRAMES).view(PROMPTS, FRAMES)
    if model_class not in (SpeechLMForPreTraining, SpeechUTForPreTraining):
        return {**inputs, "labels": symbols if "decoder_input_ids" in inputs else symbols[:, :3]}
    draws = ("mask_time_indices", "swap_indices", "mask_unit_indices", "mask_unit_text_indices")
    text = {"input_ids": symbols, "unit_text_ids": symbols, "text_labels": symbols[:, :3]}
    return {**inputs, **text, **dict.fromkeys(draws, symbols % 3 == 0), "labels": symbols}


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

FROZEN_ENCODER = {"test_retain_grad_hidden_states_attentions": "the first states of a frozen encoder need no gradient"}
SPEECHLM_CLASSES = [SpeechLMModel, SpeechLMForPreTraining, SpeechLMForCTC, SpeechLMForSequenceClassification]
SPEECHUT_CLASSES = [SpeechUTModel, SpeechUTForPreTraining, SpeechUTForCTC, SpeechUTForSequenceClassification]


def tester(length: int, layers: int) -> dict[str, int]:
    """States of that length from so many layers, whatever the length of the input."""
    names = ("seq_length", "encoder_seq_length", "decoder_seq_length", "key_length")
    return {"num_hidden_layers": layers, **dict.fromkeys(names, length)}


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
    *(
        {
            "name": name,
            "config": config,
            "inputs": inputs,
            "labels": joint_labels,
            "model_classes": model_classes,
            "tester": sizes,
            "attrs": {"test_resize_embeddings": False, "has_attentions": True},
            "expected": expected,
        }
        for name, config, inputs, model_classes, sizes, expected in (
            ("SpeechLMOnSpeech", speechlm, waveforms, SPEECHLM_CLASSES, tester(FRAMES, 2), {}),
            ("SpeechUTOnSpeech", speechut_large_style, waveforms, SPEECHUT_CLASSES, tester(FRAMES, 2), {}),
            (
                "SpeechUTWrites",
                speechut_that_writes,
                waveforms_and_texts,
                [SpeechUTForConditionalGeneration],
                tester(FRAMES, 2) | {"num_hidden_states_types": 2},
                NO_GENERATION_TESTS | FROZEN_ENCODER,
            ),
        )
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
