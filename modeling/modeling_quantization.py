"""Composite models whose LLM is held in 8 or 4 bits by bitsandbytes; encoder, adapter and LoRA stay as they are."""

import copy
import logging
import math
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.utils import is_bitsandbytes_available

from .modeling_frozen_backbones import LANGUAGE_MODEL, FrozenBackbonesModel

# transformers takes `model.language_model.model` for an older name and shortens it. With plain weights it notices that
# it should not have, with quantized ones it does not.
_KEEP_NAMES = {r"^model\.language_model\.model\.": "model.language_model.model.model."}


def quantization_settings(config: Any, dtype: Any) -> BitsAndBytesConfig:
    """What transformers is told: LLM.int8 or 4-bit NormalFloat with double quantization (arXiv 2305.14314).

    What is skipped is given by full path, with and without the prefix of the headed class, for transformers ignores a
    path that begins elsewhere. `dtype` is what 4-bit layers compute in.
    """
    output_embedding = output_embedding_name(config)
    kept = ["audio_tower", "adapter", "projector", r"language_model\..*\.lora_[AB]"]
    kept += [rf"language_model\.{output_embedding}"] if output_embedding else []
    skipped = [rf"(model\.)?{path}" for path in kept]
    if config.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_computing_in(dtype),
        llm_int8_skip_modules=skipped,
    )


def _computing_in(dtype: Any) -> torch.dtype:
    if isinstance(dtype, str) and dtype != "auto":
        dtype = getattr(torch, dtype)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def output_embedding_name(config: Any) -> str | None:
    """What the LLM calls its output embedding; the loss reads it, so it is not quantized."""
    with torch.device("meta"):
        language_model = LANGUAGE_MODEL.build(config)
    head = language_model.get_output_embeddings()
    return next((name for name, module in language_model.named_modules() if module is head), None)


def four_bit_layers(model: nn.Module) -> dict[str, Any]:
    """Name -> layer with 4-bit weights."""
    if not is_bitsandbytes_available():
        return {}
    from bitsandbytes.nn import Linear4bit

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def parameter_count(model: nn.Module) -> int:
    """How many numbers a model has; two 4-bit ones share a byte."""
    packed = {layer.weight: math.prod(layer.weight.quant_state.shape) for layer in four_bit_layers(model).values()}
    return sum(packed.get(parameter, parameter.numel()) for parameter in model.parameters())


class QuantizedLanguageModel(FrozenBackbonesModel):
    """`quantization` of the configuration: the float weights of the named LLM are quantized as they are loaded.

    A checkpoint that holds the LLM itself holds it quantized.
    """

    @classmethod
    def _load_frozen(cls, *args: Any, config: Any, **kwargs: Any) -> Any:
        _check_not_quantized_otherwise(config)
        if not config.quantization:
            return super()._load_frozen(*args, config=config, **kwargs)
        if _settings_of(config):
            kwargs["key_mapping"] = _KEEP_NAMES
        else:
            kwargs["quantization_config"] = quantization_settings(config, kwargs.get("dtype") or config.dtype)
        loaded = super()._load_frozen(*args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # Trainer refuses models that are quantized throughout; this one has parts to train.
        model.is_quantized = False
        if config.quantization == "8bit":  # each layer would warn in each pass that it computes in float16
            logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        for layer in four_bit_layers(model).values():
            # Without gradients it would repack its weights for AVX512-bf16, once and for all: rounded again, without
            # gradients ever after, in shapes that do not reload, and only for sizes that 32 divides.
            layer.support_avx512bf16_for_cpu = False
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, save_backbones: bool = False, **kwargs: Any) -> Any:
        """As `FrozenBackbonesModel` does.

        Raises `ValueError` when 4-bit weights that would be written have been repacked for this processor.
        """
        config = self.config
        if not config.quantization:
            return super().save_pretrained(save_directory, *args, save_backbones=save_backbones, **kwargs)
        if save_backbones or not LANGUAGE_MODEL.id(config):
            _refuse_repacked(self)
            return super().save_pretrained(save_directory, *args, save_backbones=save_backbones, **kwargs)
        try:
            # No weights of the LLM are written; with these settings a reader would expect quantized ones.
            self.config = copy.deepcopy(config)
            del self.config.quantization_config
            return super().save_pretrained(save_directory, *args, save_backbones=save_backbones, **kwargs)
        finally:
            self.config = config


def _settings_of(config: Any) -> Any:
    return getattr(config, "quantization_config", None)


def _check_not_quantized_otherwise(config: Any) -> None:
    """Weights that were saved quantized cannot be had otherwise."""
    settings = _settings_of(config)
    if settings is None:
        return
    values = settings if isinstance(settings, dict) else settings.to_dict()
    saved = "8bit" if values.get("load_in_8bit") else "4bit"
    if config.quantization != saved:
        raise ValueError(
            f"quantization is {config.quantization!r}, but this checkpoint holds the LLM in {saved}; load it so, or "
            f"one that names its LLM by id"
        )


def _refuse_repacked(model: nn.Module) -> None:
    for name, layer in four_bit_layers(model).items():
        if "original_qshape" in vars(layer.weight.quant_state):  # left by bitsandbytes, also when it packs back
            raise ValueError(
                f"bitsandbytes has repacked the 4-bit weights of '{name}' for this processor, and they would not "
                f"reload as they were; save before generating, save without the backbones, or leave "
                f"support_avx512bf16_for_cpu of the layers off as loading sets it"
            )
