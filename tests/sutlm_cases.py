"""Tiny random joint models of speech units and text, with their processors."""

from typing import Any

import tiny_models
import torch

from speechzoo import SUTLMConfig, SUTLMForCausalLM, SUTLMProcessor
from speechzoo.processing.unit_text import UnitSegmenter

UNITS = 12


def joint_processor(tokenizer: Any = None) -> SUTLMProcessor:
    """Twelve raw units behind the tokens of a text tokenizer; words by default."""
    return SUTLMProcessor(tokenizer or tiny_models.tokenizer(), UnitSegmenter.raw(UNITS))


def joint_model(family: str, processor: SUTLMProcessor, **fields: Any) -> SUTLMForCausalLM:
    """A random model whose weights are scaled up, so that what a token attends to shows."""
    torch.manual_seed(0)
    text_config = tiny_models.CAUSAL[family]()
    text_config.vocab_size = processor.vocab_size
    model = SUTLMForCausalLM(SUTLMConfig(text_config=text_config, **processor.config_fields, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model
