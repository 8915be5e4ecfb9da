"""Tiny fine-tuned checkpoints that say what their answers mean, one of every kind that understands speech."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from joint_encoder_cases import random_model
from joint_slu_cases import PHONES
from speech_text_cases import Backbones, clip
from sutlm_cases import UNITS, joint_model, joint_processor

from speechzoo import (
    SpeechLMForCTC,
    SpeechLMForSequenceClassification,
    SpeechLMProcessor,
    SpeechUnitModel,
    SpeechUnitProcessor,
    SUTLMForSequenceClassification,
)
from speechzoo.processing.processing_speechlm import LETTERS, letter_tokenizer
from speechzoo.processing.unit_vocabulary import UnitVocabulary

SENTIMENTS = ["Negative", "Neutral", "Positive"]
LABELS = dict(enumerate(SENTIMENTS))
CLIPS = [clip(16000), clip(9000, 1), clip(12123, 2)]


def near(found: Any, wanted: Any, tolerance: float = 1e-5) -> bool:
    """Whether two results are equal, but for rounding of numbers."""
    if isinstance(found, float):
        return abs(found - wanted) < tolerance
    if isinstance(found, dict):
        return found.keys() == wanted.keys() and all(near(found[key], wanted[key], tolerance) for key in found)
    if isinstance(found, list):
        return len(found) == len(wanted) and all(map(near, found, wanted))
    return found == wanted


def save_units(backbones: Backbones, folder: Path, clusters: int = UNITS) -> Path:
    """A unit model of so many clusters."""
    model = SpeechUnitModel.from_encoder(str(backbones.encoder("hubert")), 1, clusters)
    processor = SpeechUnitProcessor.from_model_config(model.config)
    frames, _ = model.encode(**processor([clip(16000, seed=9)]))
    model.set_codebook(frames[0, :clusters].float())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _joint_encoder(model_class: Any, letters: str, **fields: Any) -> Callable:
    def save(backbones: Backbones, folder: Path) -> None:
        tokenizer = letter_tokenizer(letters)
        sizes = {"unit_vocab_size": len(UnitVocabulary(PHONES.symbols)), "text_vocab_size": len(tokenizer)}
        model = random_model(model_class, **sizes, **fields)
        model.save_pretrained(folder)
        parts = {"lexicon": None, "max_audio_seconds": 1.5}
        SpeechLMProcessor.from_model_config(model.config, PHONES.symbols, tokenizer, **parts).save_pretrained(folder)

    return save


def _sutlm(labels: bool, **fields: Any) -> Callable:
    def save(backbones: Backbones, folder: Path) -> None:
        processor = joint_processor()
        model = joint_model("llama", processor, **fields)
        if labels:
            torch.manual_seed(5)
            model = SUTLMForSequenceClassification(model.config)
        processor.name_unit_model(str(save_units(backbones, folder / "units")))
        model.save_pretrained(folder)
        processor.save_pretrained(folder)

    return save


def _adapter(backbones: Backbones, folder: Path) -> None:
    prompts = {"intent": "speech {audio}", "order": "bring {audio} please", "asr": "transcribe {audio}"}
    answers = {
        "intent": {"labels": ["lights on", "lights off", "heat up"]},
        "order": {"slots": ["drink", "size"]},
    }
    model, processor = backbones.build(prompts=prompts, answers=answers)
    processor.max_audio_seconds = 1.5
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


MARKED = {"marks": {"PLACE": "kitchen", "THING": "shoes"}, "end": "please"}
CLASSES = {"id2label": LABELS, "label2id": {label: number for number, label in LABELS.items()}}
UNDERSTANDING: dict[str, Callable[[Backbones, Path], None]] = {
    "classes of speech": _joint_encoder(
        SpeechLMForSequenceClassification, LETTERS, **CLASSES, answers={"sentiment": {}}
    ),
    "letters of speech": _joint_encoder(
        SpeechLMForCTC, LETTERS + "%]", ctc_conv_kernel=0, answers={"entities": {"marks": {"GPE": "%"}, "end": "]"}}
    ),
    "classes of units": _sutlm(True, **CLASSES, answers={"sentiment": {}}),
    "text of units": _sutlm(False, answers={"entities": MARKED}),
    "adapter": _adapter,
}
