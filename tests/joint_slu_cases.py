"""A tiny random pre-trained encoder in a folder, and clips with answers for it."""

from pathlib import Path

import torch
from joint_encoder_cases import TINY, TINY_DECODER
from speech_text_cases import clip

from speechzoo import SpeechLMConfig, SpeechLMForPreTraining, SpeechLMProcessor, SpeechUTConfig, SpeechUTForPreTraining
from speechzoo.data.labeled_recordings import LabeledRecording
from speechzoo.processing.lexicon import Lexicon
from speechzoo.processing.processing_speechlm import letter_tokenizer
from speechzoo.processing.unit_vocabulary import UnitVocabulary

PHONES = UnitVocabulary(["SIL", "SPN", "AA", "AO", "F", "HH", "IY", "L", "N", "T"])
LEXICON = Lexicon({"heat": ("HH", "IY", "T"), "off": ("AO", "F"), "on": ("AA", "N"), "lit": ("L", "IY", "T")})


def processor(config: SpeechLMConfig | SpeechUTConfig) -> SpeechLMProcessor:
    return SpeechLMProcessor.from_model_config(config, PHONES.symbols, lexicon=LEXICON, sound_out=False)


def save_pretrained(folder: Path, model_type: str = "speechlm") -> Path:
    """A pre-training checkpoint with random weights, and its processor."""
    torch.manual_seed(0)
    fields = {**TINY, "unit_vocab_size": len(PHONES), "text_vocab_size": len(letter_tokenizer())}
    if model_type == "speechut":
        model = SpeechUTForPreTraining(SpeechUTConfig(**fields, **TINY_DECODER))
    else:
        model = SpeechLMForPreTraining(SpeechLMConfig(**fields))
    model.save_pretrained(folder)
    processor(model.config).save_pretrained(folder)
    return folder


def recordings(count: int = 8, audio: bool = True) -> list[LabeledRecording]:
    """Commands of two classes by three speakers, each of another length."""
    texts = ("heat on", "heat off lit", "lit on", "off")
    return [
        LabeledRecording(
            f"clip-{number}",
            texts[number % 4],
            "on" if "on" in texts[number % 4] else "off",
            f"speaker-{number % 3}",
            clip(2000 + 150 * number, seed=number) if audio else None,
            (2000 + 150 * number) / 16000 if audio else 0.0,
        )
        for number in range(count)
    ]
