"""Another backbone in the place of the one that a checkpoint was trained beside: refused, told, or let be."""

import json
import logging
import shutil

import pytest
import tiny_models
import torch
from speech_text_cases import labeled
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoTokenizer

from speechzoo import SpeechTextAdapterForConditionalGeneration, SpeechUnitModel


@pytest.fixture
def told(caplog):
    """The warnings of swaps so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [line for line in caplog.messages if "now runs on" in line]


@pytest.fixture
def trained(backbones, tmp_path):
    model, processor = backbones.build("wav2vec2", "llama")
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", processor


@pytest.mark.parametrize(
    ("family", "fields", "reason"),
    [
        ("llama", {"hidden_size": 48}, "has hidden_size 48, and this checkpoint was trained beside a llama of 32"),
        ("llama", {"num_hidden_layers": 3}, "has num_hidden_layers 3, .* a llama of 2"),
        ("llama", {"vocab_size": 70}, "has vocab_size 70"),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "has rope_parameters"),
        ("qwen3", {}, "is a model of type qwen3, and this checkpoint was trained beside a llama"),
        ("t5", {}, "is a model of type t5"),
    ],
)
def test_an_llm_of_another_shape_is_refused(trained, tmp_path, family, fields, reason):
    other = tiny_models.save_language_model(family, tmp_path / "other", **fields)
    with pytest.raises(ValueError, match=rf"other' {reason}.*train anew beside this one"):
        AutoModelForMultimodalLM.from_pretrained(trained[0], text_model_id=str(other), text_model_revision=None)


@pytest.mark.parametrize("change", ["template", "word"])
def test_an_llm_that_reads_otherwise_is_refused(trained, tmp_path, change):
    other = tiny_models.save_language_model("llama", tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    if change == "template":
        tokenizer.chat_template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    else:
        tokenizer.add_tokens(["shoe"])
    tokenizer.save_pretrained(other)
    with pytest.raises(ValueError, match="other' reads prompts by another vocabulary or chat template"):
        AutoModelForMultimodalLM.from_pretrained(trained[0], text_model_id=str(other), text_model_revision=None)


def test_another_llm_that_fits_is_told(trained, tmp_path, told):
    folder, processor = trained
    other = tiny_models.save_language_model("llama", tmp_path / "other", scale=2.0)
    before = AutoModelForMultimodalLM.from_pretrained(folder)
    assert not told()
    after = AutoModelForMultimodalLM.from_pretrained(folder, text_model_id=str(other), text_model_revision=None)
    (line,) = told()
    assert "llama' at revision" in line and f"now runs on '{other}' at None" in line and "measure it again" in line
    with torch.no_grad():
        assert not torch.equal(before(**labeled(processor)).loss, after(**labeled(processor)).loss)


def test_the_same_weights_elsewhere_are_no_swap(backbones, trained, tmp_path, told):
    folder, _ = trained
    moved = shutil.copytree(backbones.language_model("llama"), tmp_path / "moved")
    assert AutoModelForMultimodalLM.from_pretrained(folder, text_model_id=str(moved))
    shutil.rmtree(moved)
    tiny_models.save_language_model("llama", moved, scale=2.0)
    with pytest.raises(ValueError, match="are not those this checkpoint was trained on"):
        AutoModelForMultimodalLM.from_pretrained(folder, text_model_id=str(moved))
    assert not told()


def test_a_speech_encoder_is_judged_too(backbones, trained, told):
    other = {"audio_model_id": str(backbones.encoder("hubert")), "audio_model_revision": None}
    with pytest.raises(ValueError, match=r"hubert' is a model of type hubert, and this .* beside a wav2vec2"):
        AutoModelForMultimodalLM.from_pretrained(trained[0], **other)


def test_a_checkpoint_that_does_not_know_how_its_llm_read_takes_any_of_its_shape(trained, tmp_path, told):
    """As those that were saved before it was written down."""
    config = json.loads((trained[0] / "config.json").read_text())
    assert config.pop("prompt_fingerprint")
    (trained[0] / "config.json").write_text(json.dumps(config))
    other = tiny_models.save_language_model("llama", tmp_path / "other")
    AutoTokenizer.from_pretrained(other).save_pretrained(other)
    assert AutoModelForMultimodalLM.from_pretrained(trained[0], text_model_id=str(other), text_model_revision=None)
    assert len(told()) == 1


def test_another_backbone_in_a_whole_configuration_is_judged_too(trained, tmp_path, told):
    config = AutoConfig.from_pretrained(trained[0])
    config.text_model_id = str(tiny_models.save_language_model("llama", tmp_path / "other", scale=2.0))
    config.text_model_revision = None
    assert SpeechTextAdapterForConditionalGeneration.from_pretrained(trained[0], config=config)
    assert len(told()) == 1


def test_a_codebook_is_not_given_to_another_encoder(backbones, tmp_path):
    model = SpeechUnitModel.from_encoder(str(backbones.encoder("hubert")), 1, 8)
    model.set_codebook(torch.eye(8, model.config.audio_config.hidden_size))
    model.save_pretrained(tmp_path / "units")
    other = {"audio_model_id": str(backbones.encoder("wav2vec2")), "audio_model_revision": None}
    with pytest.raises(ValueError, match="is a model of type wav2vec2, and this checkpoint was trained beside a hub"):
        SpeechUnitModel.from_pretrained(tmp_path / "units", **other)
