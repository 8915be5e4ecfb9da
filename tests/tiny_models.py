"""Tiny random backbones of every tested family, saved as ordinary checkpoint folders."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = [
    *("turn", "on", "off", "the", "lights", "kitchen", "bedroom", "heat", "up", "down", "please", "bring", "me", "my"),
    *("shoes", "transcribe", "speech"),
]

VOCABULARY = 64

SPEECH_LAYERS = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
WAVEFORM = {
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 3, 3],
    "conv_stride": [5, 8, 8],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    **SPEECH_LAYERS,
}
ENCODERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "whisper": lambda: (
        transformers.WhisperConfig(
            d_model=32,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            num_mel_bins=20,
            max_source_positions=100,
            vocab_size=VOCABULARY,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        ),
        transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2),
    ),
    "hubert": lambda: (transformers.HubertConfig(feat_extract_norm="group", **WAVEFORM), _waveform_extractor()),
    "wav2vec2": lambda: (transformers.Wav2Vec2Config(feat_extract_norm="group", **WAVEFORM), _waveform_extractor()),
    "wav2vec2-layer": lambda: (
        transformers.Wav2Vec2Config(feat_extract_norm="layer", do_stable_layer_norm=True, **WAVEFORM),
        _waveform_extractor(),
    ),
    "wavlm": lambda: (transformers.WavLMConfig(feat_extract_norm="group", **WAVEFORM), _waveform_extractor()),
    "w2v-bert": lambda: (
        transformers.Wav2Vec2BertConfig(
            feature_projection_input_dim=40, conv_depthwise_kernel_size=7, **SPEECH_LAYERS
        ),
        transformers.SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20),
    ),
}

DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
CAUSAL: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(tie_word_embeddings=True, **DECODER),
    "qwen3": lambda: transformers.Qwen3Config(**DECODER),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=24,
    ),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "phi": lambda: transformers.PhiConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    ),
    "phi3": lambda: transformers.Phi3Config(pad_token_id=0, **DECODER),
    "gemma": lambda: transformers.GemmaConfig(**DECODER),
    "gemma2": lambda: transformers.Gemma2Config(**DECODER, final_logit_softcapping=2.0),
    "gemma3": lambda: transformers.Gemma3TextConfig(**DECODER),
}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
SEQ2SEQ: dict[str, Callable[[], Any]] = {
    "t5": lambda: transformers.T5Config(**T5),
    "mt5": lambda: transformers.MT5Config(**T5, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
    "bart": lambda: transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=256,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    ),
}
LANGUAGE_MODELS = {**CAUSAL, **SEQ2SEQ}


def _waveform_extractor() -> Any:
    return transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=True)


def save_encoder(family: str, folder: Path) -> Path:
    """A random speech encoder with its feature extractor, as `AutoModel` and `AutoFeatureExtractor` read it.

    Weights are scaled up so that frames attend to each other, and an error in a mask shows.
    """
    config, extractor = ENCODERS[family]()
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.mul_(5)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def save_language_model(
    family: str, folder: Path, scale: float | None = None, words: Sequence[str] = WORDS, **fields: Any
) -> Path:
    """A random LLM with a word tokenizer. Weights are scaled up so that its answers depend on what it reads.

    Those of T5 are large already, for its attention does not divide by the width. `fields` replace those of the
    family's configuration.
    """
    if scale is None:
        scale = 1.0 if family in ("t5", "mt5") else 4.0
    config = LANGUAGE_MODELS[family]()
    config.update({"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **fields})
    torch.manual_seed(1)
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model = auto.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(scale)
            if name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1)
    model.save_pretrained(folder)
    tokenizer(config.is_encoder_decoder, words=words).save_pretrained(folder)
    return folder


def tokenizer(
    is_encoder_decoder: bool = False, size: int = VOCABULARY - 1, words: Sequence[str] = WORDS
) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that writes `<s>` before a text, or for an encoder-decoder `</s>` after it.

    It leaves the LLM one id, for the placeholder. All ids are words, so that every answer can be read.
    """
    tokens = ["<pad>", "<s>", "</s>", "<unk>", *words]
    tokens += [f"word{index}" for index in range(len(tokens), size)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single = "$A </s>" if is_encoder_decoder else "<s> $A"
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
