"""A tiny checkpoint of every model class of the zoo, as `save_pretrained` leaves it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from joint_encoder_cases import random_model
from speech_text_cases import Backbones, clip
from sutlm_cases import joint_model, joint_processor

from speechzoo import (
    SealProjectorForConditionalGeneration,
    SpeechLMForCTC,
    SpeechLMForPreTraining,
    SpeechLMForSequenceClassification,
    SpeechLMModel,
    SpeechLMProcessor,
    SpeechTextAdapterForConditionalGeneration,
    SpeechUnitModel,
    SpeechUnitProcessor,
    SpeechUTForConditionalGeneration,
    SpeechUTForCTC,
    SpeechUTForPreTraining,
    SpeechUTForSequenceClassification,
    SpeechUTModel,
    SUTLMForSequenceClassification,
    TextToUnitConfig,
    TextToUnitModel,
)
from speechzoo.processing.processing_speechlm import letter_tokenizer
from speechzoo.processing.unit_vocabulary import UnitVocabulary

PHONES = UnitVocabulary.phones()
CLUSTERS = [str(cluster) for cluster in range(24)]


def _speech_text(encoder: str, llm: str, system: Any, alone: bool = False, **fields: Any) -> Callable:
    def save(backbones: Backbones, folder: Path) -> None:
        model, processor = backbones.build(encoder, llm, system=system, **fields)
        torch.manual_seed(4)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, as if LoRA were not there
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder, save_backbones=alone)
        processor.save_pretrained(folder)

    return save


def _units(encoder: str, alone: bool = False) -> Callable:
    def save(backbones: Backbones, folder: Path) -> None:
        model = SpeechUnitModel.from_encoder(str(backbones.encoder(encoder)), 1, 8)
        processor = SpeechUnitProcessor.from_model_config(model.config)
        frames, _ = model.encode(**processor([clip(16000, seed=9)]))
        model.set_codebook(frames[0, :8].float())
        model.save_pretrained(folder, save_backbones=alone)
        processor.save_pretrained(folder)

    return save


def _sutlm(family: str, labels: bool = False) -> Callable:
    def save(backbones: Backbones, folder: Path) -> None:
        processor = joint_processor()
        model = joint_model(family, processor)
        torch.manual_seed(3)
        (SUTLMForSequenceClassification(model.config) if labels else model).save_pretrained(folder)
        processor.save_pretrained(folder)

    return save


def _joint(model_class: Any, units: list[str]) -> Callable:
    def save(backbones: Backbones, folder: Path) -> None:
        sizes = {"unit_vocab_size": len(UnitVocabulary(units)), "text_vocab_size": len(letter_tokenizer())}
        model = random_model(model_class, **sizes, max_unit_positions=500)
        model.save_pretrained(folder)
        SpeechLMProcessor.from_model_config(model.config, units, lexicon=None).save_pretrained(folder)

    return save


def _text_to_unit(backbones: Backbones, folder: Path) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.2}
    config = TextToUnitConfig.preset("tiny", phones=tuple(PHONES.symbols[:7]), clusters=11, **shape)
    TextToUnitModel(config).save_pretrained(folder)


_ADAPTER, _SEAL = SpeechTextAdapterForConditionalGeneration, SealProjectorForConditionalGeneration
# Every class with a head or without, and every model that names backbones once by folder and once self-contained.
CHECKPOINTS: dict[str, Callable[[Backbones, Path], None]] = {
    "adapter": _speech_text("wav2vec2", "llama", _ADAPTER),
    "adapter_alone": _speech_text("whisper", "t5", _ADAPTER, alone=True),
    "adapter_lora": _speech_text("hubert", "gpt2", _ADAPTER, lora_modules=[r"language_model\..*\.c_attn"]),
    "seal": _speech_text("hubert", "qwen3", _SEAL),
    "seal_alone": _speech_text("whisper", "llama", _SEAL, alone=True),
    "units": _units("hubert"),
    "units_alone": _units("w2v-bert", alone=True),
    "sutlm": _sutlm("llama"),
    "sutlm_labels": _sutlm("opt", labels=True),
    "speechlm": _joint(SpeechLMModel, PHONES.symbols),
    "speechlm_pretraining": _joint(SpeechLMForPreTraining, PHONES.symbols),
    "speechlm_ctc": _joint(SpeechLMForCTC, CLUSTERS),
    "speechlm_labels": _joint(SpeechLMForSequenceClassification, PHONES.symbols),
    "speechut": _joint(SpeechUTModel, CLUSTERS),
    "speechut_pretraining": _joint(SpeechUTForPreTraining, CLUSTERS),
    "speechut_ctc": _joint(SpeechUTForCTC, CLUSTERS),
    "speechut_labels": _joint(SpeechUTForSequenceClassification, CLUSTERS),
    "speechut_writer": _joint(SpeechUTForConditionalGeneration, PHONES.symbols),
    "text_to_unit": _text_to_unit,
}
