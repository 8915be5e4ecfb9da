"""What clips mean by every kind of model: against other ways to the same numbers, in batches, in pieces."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from pipeline_cases import CLIPS, SENTIMENTS, UNDERSTANDING, near
from speech_text_cases import clip
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor, TextStreamer, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from speechzoo.pipelines import pipelines_of
from speechzoo.pipelines.clip_pieces import cut_at_pauses
from speechzoo.pipelines.pipeline_speech_understanding import SpeechUnderstandingPipeline
from speechzoo.processing.audio_loading import AudioError, load_audio, save_audio

TASK = "speech-understanding"


@pytest.fixture(scope="module")
def folders(backbones, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    for name, save in UNDERSTANDING.items():
        save(backbones, place / name)
    return {name: place / name for name in UNDERSTANDING}


@pytest.fixture(scope="module")
def pipes(folders):
    return {name: pipeline(TASK, model=str(folder)) for name, folder in folders.items()}


@pytest.mark.parametrize("name", UNDERSTANDING)
def test_a_batch_changes_nothing(pipes, name):
    given = {"adapter": {"task": "order", "max_new_tokens": 6}, "text of units": {"max_new_tokens": 6}}.get(name, {})
    alone = [pipes[name](one, **given) for one in CLIPS]
    assert near(pipes[name](CLIPS, batch_size=3, **given), alone)
    assert near(list(pipes[name](iter_of(CLIPS), batch_size=2, **given)), alone)
    assert len({json.dumps(one) for one in alone}) == len(alone), "or everything sounds the same"


@pytest.mark.parametrize("name", UNDERSTANDING)
def test_models_in_half_precision_are_run(folders, pipes, name):
    given = {"adapter": {"task": "intent"}, "text of units": {"max_new_tokens": 6}}.get(name, {})
    pipe = pipeline(TASK, model=str(folders[name]), dtype=torch.bfloat16)
    assert pipe.model.dtype == torch.bfloat16
    for found, wanted in zip(pipe(CLIPS, batch_size=3, **given), pipes[name](CLIPS, **given), strict=True):
        assert found.keys() == wanted.keys() and abs(found["score"] - wanted["score"]) < 0.1


def iter_of(clips):
    yield from clips


@pytest.mark.parametrize(("name", "given"), [("adapter", {"task": "order"}), ("text of units", {})])
def test_a_long_clip_leaves_the_one_beside_it_its_room(pipes, monkeypatch, name, given):
    """Where there are few positions, an answer ends for want of them; those of its own clip count."""
    pipe = pipes[name]
    monkeypatch.setattr(pipe.model.config.text_config, "max_position_embeddings", 64)
    clips = [CLIPS[0], CLIPS[1], CLIPS[0]]
    alone = [pipe(one, **given) for one in clips]
    assert near(pipe(clips, batch_size=3, **given), alone)
    assert len(alone[1]["text"].split()) > len(alone[0]["text"].split()), "or there was room for both"


# ---- the same numbers by other ways --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classes of speech", "classes of units"])
def test_classes_are_those_of_the_configuration(pipes, name):
    pipe = pipes[name]
    given = {"audio": CLIPS[1]} if name == "classes of speech" else {"units": pipe.processor.units(CLIPS[1])}
    with torch.no_grad():
        logits = pipe.model(**pipe.processor(**given, return_tensors="pt")).logits[0].double()
    wanted = dict(zip(SENTIMENTS, (logits.exp() / logits.exp().sum()).tolist(), strict=True))
    found = pipe(CLIPS[1])
    assert found["task"] == "sentiment" and near(found["scores"], wanted)
    assert found["label"] == max(wanted, key=wanted.get) and near(found["score"], max(wanted.values()))
    assert list(pipe(CLIPS[1], top_k=2)["scores"]) == sorted(wanted, key=wanted.get, reverse=True)[:2]


def test_letters_are_those_of_argmax(pipes):
    pipe = pipes["letters of speech"]
    with torch.no_grad():
        logits = pipe.model(**pipe.processor(audio=CLIPS[0])).logits[0]
    found = pipe(CLIPS[0])
    text = pipe.processor.decode_ctc(logits.argmax(-1).tolist())
    assert found["text"] == " ".join(word for word in text.split() if word not in "%]")
    assert 0 < found["score"] < 1


def token_log_probs(model, prompt: list[int], answer: list[int], **speech) -> list[float]:
    """By one forward pass over both, in float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer]), **speech).logits[0].double()
    found = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return found[range(len(answer)), answer].tolist()


def test_entities_of_units_are_what_the_model_writes(folders):
    """The marks are words that it writes anyway, once each; every word is one token of this tokenizer."""
    pipe = pipeline(TASK, model=str(folders["text of units"]), answers={"said": {}})
    assert pipe.processor.extractor.clusters == 12  # is loaded now, for that draws numbers too
    said = _drawn(pipe)["text"].split()
    start, *_, stop = (place for place, word in enumerate(said) if said.count(word) == 1)
    assert stop - start > 1, "choose another seed"
    pipe.model.config.answers = {"entities": {"marks": {"THING": said[start]}, "end": said[stop]}}
    found = _drawn(pipe)
    prompt = pipe.processor.sequence([("audio", CLIPS[0]), ("text", "")])
    tokens = [token for word in said for token in pipe.processor.text_tokens(word)]
    log_probs = token_log_probs(pipe.model, prompt, tokens)
    (entity,) = found["entities"]
    assert near(entity.pop("score"), float(np.exp(np.mean(log_probs[start : stop + 1]))))
    assert entity == {"label": "THING", "text": " ".join(said[start + 1 : stop])}
    assert found["text"] == " ".join(word for word in said if word not in (said[start], said[stop]))
    assert near(found["score"], float(np.exp(np.mean(log_probs))))


def _drawn(pipe):
    """Greedily, a model of random weights says a word or two again and again."""
    torch.manual_seed(0)
    return pipe(CLIPS[0], max_new_tokens=10, do_sample=True, temperature=3.0)


def test_labels_are_as_likely_as_their_tokens(pipes):
    pipe = pipes["adapter"]
    processor, found = pipe.processor, pipe(CLIPS[0], task="intent")
    batch = processor([processor.prompt("intent")], [CLIPS[0]], return_tensors="pt")
    speech = {name: batch[name] for name in ("input_features", "input_features_mask")}
    labels = ["lights on", "lights off", "heat up"]
    sums = []
    for label in labels:
        tokens = processor.tokenizer(label, add_special_tokens=False)["input_ids"]
        answer = [*tokens, processor.tokenizer.eos_token_id]
        sums.append(sum(token_log_probs(pipe.model, batch["input_ids"][0].tolist(), answer, **speech)))
    wanted = np.exp(sums) / np.exp(sums).sum()
    assert near(found["scores"], dict(zip(labels, wanted.tolist(), strict=True)))
    assert pipe(CLIPS[0], task="intent", labels=["heat up", "lights on"])["score"] > found["scores"]["heat up"]


def test_what_is_written_is_what_generate_writes(pipes):
    pipe = pipes["adapter"]
    processor = pipe.processor
    batch = processor([processor.prompt("order")], [CLIPS[1]], return_tensors="pt")
    speech = {name: batch[name] for name in ("input_features", "input_features_mask")}
    for options in ({}, {"num_beams": 3}):
        found = pipe(CLIPS[1], task="order", max_new_tokens=5, **options)
        said = pipe.model.generate(**batch, max_new_tokens=5, do_sample=False, **options)
        assert found["text"] == processor.decode_answers(said, batch["input_ids"])[0]
        new = said[0, batch["input_ids"].shape[1] :].tolist()
        log_probs = token_log_probs(pipe.model, batch["input_ids"][0].tolist(), new, **speech)
        assert near(found["score"], float(np.exp(np.mean(log_probs))))
        assert near(pipe(CLIPS, batch_size=3, task="order", max_new_tokens=5, **options)[1], found)
    assert "slots" in found and "scores" not in found


# ---- inputs --------------------------------------------------------------------------------------------------------


def test_every_kind_of_input_says_the_same(pipes, tmp_path):
    path = tmp_path / "clip.flac"
    save_audio(path, CLIPS[1] / 2)
    samples = load_audio(path)
    given = [
        *(str(path), path, path.read_bytes(), io.BytesIO(path.read_bytes())),
        *(samples, torch.from_numpy(samples), samples.tolist()),
        {"array": samples, "sampling_rate": 16000},
        {"bytes": path.read_bytes(), "path": None},
        {"id": "a", "audio": {"path": str(path)}, "text": "not looked at"},
    ]
    pipe = pipes["classes of speech"]
    wanted = pipe(samples)
    streams = [one for one in given if isinstance(one, io.BytesIO)]
    assert all(near(pipe(one), wanted) for one in given)
    streams[0].seek(0)
    assert near(pipe(given, batch_size=4), [wanted] * len(given))
    assert pipe([]) == []


@pytest.mark.parametrize("name", ["classes of speech", "classes of units"])
def test_a_column_of_a_data_set_says_what_the_list_says(pipes, tmp_path, name):
    paths = [str(tmp_path / f"{number}.flac") for number in range(len(CLIPS))]
    for path, one in zip(paths, CLIPS, strict=True):
        save_audio(path, one / 2)
    rows = Dataset.from_dict({"sound": paths, "text": ["", "", ""]})
    wanted = [pipes[name](path) for path in paths]
    assert near(pipes[name](paths, batch_size=2), wanted)
    assert near(list(pipes[name](KeyDataset(rows, "sound"), batch_size=2)), wanted)
    assert not near(wanted[0], wanted[1])


def test_samples_may_have_another_rate(pipes):
    pipe = pipes["classes of speech"]
    wanted = pipe({"array": CLIPS[1], "sampling_rate": 8000})
    assert near(pipe(CLIPS[1], sampling_rate=8000), wanted)
    assert not near(pipe(CLIPS[1]), wanted)


def test_a_clip_that_cannot_be_used_is_named(pipes, tmp_path):
    pipe = pipes["adapter"]
    with pytest.raises(AudioError, match=r"^clip 1: 1 of 9000 samples are NaN"):
        pipe([CLIPS[0], np.where(np.arange(9000) == 5, np.nan, CLIPS[1])], task="intent")
    with pytest.raises(AudioError, match=r"gone\.wav: there is no such file"):
        pipe(str(tmp_path / "gone.wav"), task="intent")
    with pytest.raises(AudioError, match=r"^call 7: .* too few"):
        pipe({"id": "call 7", "audio": CLIPS[0][:10]}, task="intent")


# ---- long clips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("classes of speech", {}),
        ("letters of speech", {}),
        ("classes of units", {}),
        ("adapter", {"task": "order", "max_new_tokens": 4}),
    ],
)
def test_a_long_clip_is_its_pieces(pipes, name, given):
    pipe, long = pipes[name], clip(40000, 5)
    found = pipe([CLIPS[1], long], chunk_seconds=1.0, batch_size=2, **given)
    spans = cut_at_pauses(long, 16000, 1.0)
    parts = [pipe(long[start:end], **given) for start, end in spans]
    chunks = found[1].pop("chunks")
    assert [(one.pop("start"), one.pop("end")) for one in chunks] == [(a / 16000, b / 16000) for a, b in spans]
    for part in parts:
        part.pop("task")
    assert len(spans) > 2 and near(chunks, parts)
    assert near(found[0], pipe(CLIPS[1], **given)) and "chunks" not in found[0]
    shares = [(end - start) / 40000 for start, end in spans]
    if name.startswith("classes"):
        means = {
            label: sum(share * part["scores"][label] for share, part in zip(shares, parts, strict=True))
            for label in SENTIMENTS
        }
        assert near(found[1]["scores"], means) and near(found[1]["score"], max(means.values()))
        shortened = pipe(long, chunk_seconds=1.0, top_k=2)
        wanted = [dict(list(one["scores"].items())[:2]) for one in (found[1], *parts)]
        assert near([one["scores"] for one in (shortened, *shortened["chunks"])], wanted)
    else:
        assert found[1]["text"] == " ".join(part["text"] for part in parts if part["text"])
        kind = "slots" if name == "adapter" else "entities"
        assert near(found[1][kind], [one for part in parts for one in part[kind]])


def test_a_clip_that_is_too_long_is_refused_with_the_way_out(pipes, monkeypatch):
    for name in ("classes of speech", "adapter"):
        with pytest.raises(AudioError, match=r"^the clip: 2\.50 s is longer than the 1\.5 s .* chunk_seconds=1\.5"):
            pipes[name](clip(40000))
    with pytest.raises(AudioError, match=r"longer than the 1\.5 s that this model takes"):
        pipes["adapter"](clip(80000), chunk_seconds=3)
    with pytest.raises(ValueError, match=r"chunk_seconds is 0\.5"):
        pipes["adapter"](CLIPS[0], chunk_seconds=0.5)
    with pytest.raises(AudioError, match=r"^clip 0: \d+ tokens and 100000 new ones are more than the model's \d+ pos"):
        pipes["adapter"](CLIPS, task="asr", max_new_tokens=100_000, batch_size=2)
    for name in ("classes of units", "text of units"):
        monkeypatch.setattr(pipes[name].model.config.text_config, "max_position_embeddings", 31)
        with pytest.raises(AudioError, match=r"^clip 1: \d+ tokens .* the model's 31 positions; pass chunk_seconds"):
            pipes[name]([CLIPS[0][:5000], CLIPS[0]], batch_size=2)


# ---- what is asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "given"), [("adapter", {"task": "asr"}), ("text of units", {})])
def test_text_is_streamed_as_it_is_written(pipes, capsys, name, given):
    pipe = pipes[name]
    streamer = TextStreamer(pipe.processor.tokenizer, skip_prompt=True)
    found = pipe(CLIPS[0], streamer=streamer, max_new_tokens=6, **given)
    assert capsys.readouterr().out.split() == found["text"].split() != []


def test_options_of_the_pipeline_hold_for_its_calls(folders):
    pipe = pipeline(TASK, model=str(folders["adapter"]), max_new_tokens=3)
    assert len(pipe(CLIPS[0], task="asr")["text"].split()) == 3
    assert len(pipe(CLIPS[0], task="asr", max_new_tokens=5)["text"].split()) == 5


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("adapter", {}, r"several tasks: asr, intent, order; choose one by task="),
        ("adapter", {"task": "mood"}, r"there is no task 'mood'; this model has asr, intent, order"),
        ("adapter", {"task": "intent", "max_new_tokens": 4}, r"nothing is generated, so that 'max_new_tokens'"),
        ("adapter", {"task": "intent", "labels": ["on", "qq", "zz"]}, r"label 'zz' is the same as 'qq'"),
        ("adapter", {"task": "intent", "labels": "yes"}, r"give a list of texts"),
        ("adapter", {"task": "asr", "num_return_sequences": 2}, r"num_return_sequences gives several"),
        ("adapter", {"task": "asr", "tsak": 1}, r"tsak"),
        ("classes of speech", {"max_new_tokens": 4}, r"has no use for 'max_new_tokens'"),
        ("classes of units", {"labels": ["yes", "no"]}, r"knows the labels of its training alone"),
        ("letters of speech", {"task": "intent"}, r"there is no task 'intent'; this model has entities"),
    ],
)
def test_what_cannot_be_asked_is_refused(pipes, name, given, message):
    with pytest.raises(ValueError, match=message):
        pipes[name](CLIPS[1], **given)


def test_a_model_that_cannot_say_what_it_means_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match=r"there is no processor beside this SpeechTextAdapterFor"):
        SpeechUnderstandingPipeline(AutoModelForMultimodalLM.from_pretrained(folders["adapter"]))
    with pytest.raises(ValueError, match=r"SpeechTextAdapterModel does not say what its answers mean; fine-tune it"):
        SpeechUnderstandingPipeline(AutoModel.from_pretrained(folders["adapter"]))
    config = AutoConfig.from_pretrained(folders["text of units"])
    assert list(pipelines_of(config)) == [TASK]
    config.answers = None
    assert pipelines_of(config) == {}
    with pytest.raises(ValueError, match=r"answers of 'x': there is no 'mark'"):
        pipeline(TASK, model=str(folders["text of units"]), answers={"x": {"mark": "%"}})


def test_saving_keeps_what_it_says(pipes, tmp_path):
    pipes["letters of speech"].save_pretrained(tmp_path)
    again = pipeline(TASK, model=str(tmp_path))
    assert near(again(CLIPS[1]), pipes["letters of speech"](CLIPS[1]))
    assert AutoProcessor.from_pretrained(tmp_path).max_audio_seconds == 1.5
