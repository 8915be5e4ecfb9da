"""Embeddings of clips for neighbors: those of each clip alone, made once and kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from speech_text_cases import CLIPS
from transformers import AutoModel, AutoTokenizer

from speechzoo.evaluation.few_shot_embeddings import SentenceEmbedder, SpeechEmbedder, embed_clips
from speechzoo.evaluation.prompt_readers import Clip

TEXTS = ("turn on the lights", "heat up", "bring shoes", "lights off please")
HEARD = [Clip(f"c{number}", text, CLIPS[number]) for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def sentences(backbones: Any) -> SentenceEmbedder:
    folder = backbones.language_model("llama")
    return SentenceEmbedder(AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("encoder", ["wav2vec2", "whisper"])
@torch.no_grad()
def test_speech_is_the_mean_over_all_frames_of_a_clip(backbones, encoder):
    """Chunks of unlike lengths weigh by their frames; a batch changes nothing."""
    model, processor = backbones.build(encoder)
    processor.chunk_seconds = 0.7
    found = SpeechEmbedder(model, processor).embed(HEARD)
    for clip, vector in zip(HEARD, found, strict=True):
        frames = []
        for chunk in processor.chunks(processor.load(clip.audio)):
            padded = processor.pad([processor.extract(chunk)])
            states, lengths = model.model.encode_audio(**{name: torch.from_numpy(x) for name, x in padded.items()})
            frames.append(states[0, : lengths[0]])
        np.testing.assert_allclose(vector, torch.cat(frames).mean(0).numpy(), atol=1e-5)


@torch.no_grad()
def test_projected_speech_is_the_mean_of_what_the_llm_reads(backbones):
    model, processor = backbones.build()
    found = SpeechEmbedder(model, processor, "projector").embed(HEARD)
    for clip, vector in zip(HEARD, found, strict=True):
        inputs = processor([processor.audio_token], [clip.audio], return_tensors="pt")
        speech = {name: inputs[name] for name in ("input_features", "input_features_mask")}
        read = model.model.get_audio_features(**speech, return_dict=True).pooler_output
        np.testing.assert_allclose(vector, read.mean(0).numpy(), atol=1e-5)


@torch.no_grad()
def test_a_sentence_is_the_mean_of_its_last_hidden_states(sentences):
    found = sentences.embed(HEARD)
    for text, vector in zip(TEXTS, found, strict=True):
        states = sentences.model(**sentences.tokenizer(text, return_tensors="pt")).last_hidden_state
        np.testing.assert_allclose(vector, states[0].mean(0).numpy(), atol=1e-5)


def test_of_an_encoder_decoder_the_encoder_is_taken(tmp_path):
    folder = tiny_models.save_language_model("t5", tmp_path)
    embedder = SentenceEmbedder(AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder))
    assert embedder.embed(HEARD).shape == (4, 32)


def test_transcripts_stand_in_for_what_was_said(sentences):
    heard = SentenceEmbedder(sentences.model, sentences.tokenizer, {one.id: "heat up" for one in HEARD})
    found = heard.embed(HEARD)
    np.testing.assert_array_equal(found, np.repeat(found[:1], 4, axis=0))
    assert {heard.key(one) for one in HEARD} == {sentences.key(HEARD[1])}


def test_embeddings_are_made_once(sentences, tmp_path: Path, monkeypatch):
    first = embed_clips(sentences, HEARD[:3], tmp_path, batch_size=2, shard=2)
    asked: list[str] = []
    embed = SentenceEmbedder.embed
    monkeypatch.setattr(
        SentenceEmbedder, "embed", lambda self, clips: asked.extend(one.id for one in clips) or embed(self, clips)
    )
    again = embed_clips(sentences, HEARD, tmp_path, batch_size=2)
    assert asked == ["c3"]
    assert again.keys() == {one.id for one in HEARD}
    for name, vector in first.items():
        np.testing.assert_array_equal(again[name], vector)


def test_another_projector_has_another_store(backbones):
    model, processor = backbones.build()
    facts = [SpeechEmbedder(model, processor, of).facts for of in ("encoder", "projector")]
    with torch.no_grad():
        next(model.model.bridge.parameters()).add_(0.1)
    changed = [SpeechEmbedder(model, processor, of).facts for of in ("encoder", "projector")]
    assert facts[0] == changed[0]
    assert facts[1] != changed[1]


def test_sounds_are_known_by_their_samples(backbones):
    embedder = SpeechEmbedder(*backbones.shared())
    same = Clip("other", "other words", HEARD[0].audio)
    assert embedder.key(HEARD[0]) == embedder.key(same) != embedder.key(HEARD[1])
