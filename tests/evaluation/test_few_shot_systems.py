"""Systems from what a file names: what is loaded, when, and what tells one from another."""

import json
from pathlib import Path

import few_shot_cases
import pytest
import tiny_models
import torch
from few_shot_cases import Clip, LabeledClip, material

from speechzoo.evaluation import few_shot_systems
from speechzoo.evaluation.few_shot_systems import (
    NeighborSettings,
    PerClip,
    SystemSettings,
    clips_of,
    make_neighbors,
    make_system,
    model_facts,
)
from speechzoo.evaluation.few_shot_tasks import FewShotMaterial, MaterialPart
from speechzoo.evaluation.prompt_readers import FewShotPrompt, SpeechPromptReader, TextPromptReader


@pytest.fixture
def transcribed(monkeypatch) -> list[str]:
    """What a recognizer was asked to hear; it hears "Heat up!" everywhere."""
    heard: list[str] = []

    def hear(self: few_shot_systems.Recognizer, clip: Clip) -> str:
        heard.append(clip.id)
        return " Heat up! "

    monkeypatch.setattr(few_shot_systems.Recognizer, "_hear", hear)
    return heard


def test_something_is_made_of_a_clip_once_and_not_before_it_is_asked_for():
    made: list[str] = []
    texts = PerClip({"a": Clip("a", "x"), "b": Clip("b", "y")}, lambda clip: made.append(clip.id) or clip.text)
    assert "a" in texts
    assert "c" not in texts
    assert made == []
    assert (texts["b"], texts["b"], made) == ("y", "y", ["b"])


def test_a_cascade_reads_what_was_heard_and_hears_only_what_is_read(backbones, transcribed):
    folder = str(backbones.language_model("llama"))
    settings = SystemSettings("cascade", folder, recognizer=folder, plain_text=True)
    system = make_system("cascade", settings, {"FSC": material()}, ("likelihood",))
    assert system.hears
    assert transcribed == []
    reader = system.load().reader
    assert isinstance(reader, TextPromptReader)
    clip = material().parts[0].queries[3].clip
    spoken, written = reader.embed([(clip,), ("heat up",)])
    assert spoken.tolist() == written.tolist()
    assert transcribed == [clip.id]


def test_gold_text_needs_no_sound_and_is_shown_text(backbones):
    settings = SystemSettings("text", str(backbones.language_model("llama")))
    system = make_system("gold", settings, {"FSC": material()}, ("likelihood",))
    assert (system.hears, system.demonstrations) == (False, ("text",))
    assert system.load().reader.name == "gold"


def test_an_encoder_decoder_reads_text_too(tmp_path):
    settings = SystemSettings("text", str(tiny_models.save_language_model("t5", tmp_path)))
    reader = make_system("gold", settings, {}, ("likelihood",)).load().reader
    assert reader.language_model.config.is_encoder_decoder


def test_a_saved_adapter_hears(backbones, tmp_path):
    model, processor = backbones.build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    system = make_system("adapter", SystemSettings("adapter", str(tmp_path)), {}, ("likelihood",), rows=8)
    scorer = system.load()
    assert isinstance(scorer.reader, SpeechPromptReader)
    assert scorer.rows == 8
    clip = Clip("c", "turn on", [0.1, -0.1] * 4000)
    prompts = [FewShotPrompt((), (clip, "please")), FewShotPrompt(("turn on lights ",), (clip, "please"))]
    assert len(scorer(prompts, ["lights", "heat up"])["likelihood"]) == 2


def test_a_model_of_each_seed(tmp_path):
    for seed in (3, 5):
        tiny_models.save_language_model("llama", tmp_path / f"seed{seed}", scale=1.0 + seed)
    settings = SystemSettings("text", str(tmp_path / "seed{seed}"))
    system = make_system("gold", settings, {}, ("likelihood",), (3, 5))
    assert system.under(3).facts["model"] == model_facts(str(tmp_path / "seed3"))
    assert system.under(5).facts["model"] == model_facts(str(tmp_path / "seed5")) != system.under(3).facts["model"]
    weights = [system.under(seed).load().reader.language_model.model.layers[0].mlp.up_proj.weight for seed in (3, 5)]
    assert not torch.equal(*weights)


def test_facts_are_of_weights_and_not_of_folders(backbones, tmp_path):
    folder = backbones.language_model("llama")
    copied = tiny_models.save_language_model("llama", tmp_path / "same")
    other = tiny_models.save_language_model("llama", tmp_path / "other", scale=3.0)
    assert model_facts(str(folder)) == model_facts(str(copied)) != model_facts(str(other))
    assert model_facts("somebody/model", "abc") == {"id": "somebody/model", "revision": "abc"}
    facts = make_system("x", SystemSettings("text", str(folder)), {}, ("sum",), content_free=(Clip("n", ""),)).facts
    assert str(folder) not in json.dumps(dict(facts))
    assert facts["rules"] == ["sum"]
    assert facts["content_free"] == ["n"]


@pytest.mark.parametrize("fields", [{"kind": "cascade"}, {"kind": "text", "recognizer": "x"}])
def test_a_recognizer_belongs_to_a_cascade(fields):
    with pytest.raises(ValueError, match=r"a cascade has a recognizer, and no other system"):
        SystemSettings(model="m", **fields)


def test_neighbors_by_transcripts_are_looked_for_in_what_was_heard(backbones, transcribed, tmp_path: Path):
    folder = str(backbones.language_model("llama"))
    said = NeighborSettings("text", folder)
    heard = NeighborSettings("text", folder, recognizer=folder)
    assert said.facts() != heard.facts()
    vectors = make_neighbors(heard, tmp_path).embed(material())
    assert vectors.keys() == material().clips.keys()
    assert len({vector.tobytes() for vector in vectors.values()}) == 1
    assert sorted(transcribed) == sorted(material().clips)


def test_two_tasks_may_share_clips_and_no_two_clips_share_an_id():
    assert clips_of({"a": material(), "b": material()}).keys() == material().clips.keys()
    part = MaterialPart((), (LabeledClip(Clip("test000", "other words"), "heat"),))
    other = FewShotMaterial(few_shot_cases.CLASSES, (part,))
    with pytest.raises(ValueError, match=r"clip 'test000' of 'b' is another in another task"):
        clips_of({"a": material(), "b": other})


def test_a_model_that_is_nowhere_is_told(tmp_path):
    settings = SystemSettings("seal", str(tmp_path / "seal_tiny_zoo"))
    system = make_system("seal", settings, {}, ("likelihood",))
    with pytest.raises(ValueError, match=r"seal_tiny_zoo' is no folder here, .* train it first"):
        system.load()
