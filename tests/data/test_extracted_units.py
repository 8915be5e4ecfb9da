"""Units of a corpus: once, in shares, resumed, under the address of everything that decides them; and timed labels."""

import json

import numpy as np
import pytest
import torch
from accelerate import PartialState
from datasets import Audio, Dataset
from speech_text_cases import CLIPS, clip
from transformers import set_seed

from speechzoo import SpeechUnitModel, SpeechUnitProcessor
from speechzoo.data.extracted_units import encode_clips, extract_corpus, open_unit_store, read_units, unit_facts
from speechzoo.data.timed_labels import timed_labels
from speechzoo.processing.audio_loading import save_audio


@pytest.fixture(scope="module")
def parts(backbones):
    """A unit model, its processor, which cuts at 1.5 s, and six clips; the last has the sound of the first."""
    model = SpeechUnitModel.from_encoder(str(backbones.encoder("hubert")), 1, 12)
    processor = SpeechUnitProcessor.from_model_config(model.config, chunk_seconds=1.5)
    [frames] = encode_clips(model, processor, [clip(20000, seed=7)])
    model.set_codebook(torch.from_numpy(frames[:12]))
    return model, processor


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    clips = [0.5 * samples for samples in (*CLIPS, clip(11000, seed=5), CLIPS[0])]
    for place, samples in enumerate(clips):
        save_audio(folder / f"{place}.wav", samples)
    table = [
        {"id": f"c{place}", "audio": str(folder / f"{place}.wav"), "duration": len(samples) / 16000}
        for place, samples in enumerate(clips)
    ]
    return Dataset.from_list(table).cast_column("audio", Audio(decode=False))


def alone(model, processor, row):
    chunks = processor.chunks(processor.load(row["audio"]))
    return [unit for chunk in chunks for unit in model.extract(**processor(chunk))[0]]


def test_the_store_holds_what_each_clip_says_alone(parts, rows, tmp_path):
    model, processor = parts
    store = open_unit_store(tmp_path, model, processor)
    done = extract_corpus(model, processor, rows, store, batch_size=3, shard_clips=2)
    assert done.keys.keys() == set(rows["id"]) and len(store) == 5 and done.keys["c0"] == done.keys["c5"]
    assert done.audio_seconds == pytest.approx(sum(rows["duration"]), rel=0.5) and done.real_time_factor > 0
    for row in rows:
        assert read_units(store, done.keys[row["id"]]) == alone(model, processor, row)


def test_what_is_there_is_not_done_again(parts, rows, tmp_path, monkeypatch):
    model, processor = parts
    store = open_unit_store(tmp_path, model, processor)
    extract_corpus(model, processor, rows.select(range(3)), store)
    seen = []
    real = SpeechUnitModel.extract
    monkeypatch.setattr(
        SpeechUnitModel, "extract", lambda self, **batch: seen.extend(batch["input_features"]) or real(self, **batch)
    )
    again = open_unit_store(tmp_path, model, processor)
    done = extract_corpus(model, processor, rows, again)
    assert done.clips == 2 and len(again) == 5, "two sounds were new"
    assert len(seen) == 3, "one of them has two chunks"
    idle = extract_corpus(model, processor, rows.remove_columns("duration"), again)
    assert idle.clips == 0 and idle.real_time_factor is None and idle.keys == done.keys


def test_processes_share_the_work_evenly(parts, rows, tmp_path, monkeypatch):
    model, processor = parts
    store = open_unit_store(tmp_path, model, processor)
    PartialState()
    monkeypatch.setattr(PartialState, "num_processes", 2, raising=False)
    shares = []
    for process in range(2):
        monkeypatch.setattr(PartialState, "process_index", process, raising=False)
        monkeypatch.setitem(PartialState._shared_state, "num_processes", 2)
        monkeypatch.setitem(PartialState._shared_state, "process_index", process)
        shares.append(extract_corpus(model, processor, rows, store))
    assert sorted([*shares[0].keys, *shares[1].keys]) == sorted(rows["id"])
    assert len(shares[0].keys) == len(shares[1].keys) == 3
    assert {**shares[0].keys, **shares[1].keys}.keys() == set(rows["id"]) and len(store) == 5


def test_another_codebook_or_precision_is_another_store(parts, backbones, tmp_path):
    model, processor = parts
    here = unit_facts(model, processor)
    other = SpeechUnitModel.from_encoder(str(backbones.encoder("hubert")), 1, 12)
    with pytest.raises(ValueError, match=r"train one before"):
        unit_facts(other, processor)
    set_seed(0)
    other.set_codebook(torch.randn(12, 32))
    assert {name for name, value in unit_facts(other, processor).items() if value != here[name]} == {"codebook"}
    half = SpeechUnitModel.from_encoder(str(backbones.encoder("hubert")), 1, 12, dtype=torch.bfloat16)
    half.set_codebook(model.codebook.centroids)
    assert unit_facts(half, processor).items() - here.items() >= {("dtype", "bfloat16")}
    assert open_unit_store(tmp_path, half, processor).folder != open_unit_store(tmp_path, model, processor).folder


def test_frames_of_a_long_clip_are_laid_end_to_end(parts):
    model, processor = parts
    [frames] = encode_clips(model, processor, [CLIPS[3]])
    pieces = [encode_clips(model, processor, [chunk])[0] for chunk in processor.chunks(CLIPS[3])]
    assert len(pieces) == 2
    np.testing.assert_allclose(frames, np.concatenate(pieces), atol=1e-4)


def test_timed_labels_are_read_from_the_table(tmp_path):
    lines = [{"id": "a", "phones": [["h", 0.0, 0.1], ["aI", 0.1, 0.3]]}, {"id": "b"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert timed_labels(tmp_path) == {"a": [("h", 0.0, 0.1), ("aI", 0.1, 0.3)]}
    assert timed_labels(tmp_path, "words") == {} and timed_labels("openslr/librispeech_asr:clean@test") == {}
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"id": "c", "phones": [["h", 0.0]]}))
    with pytest.raises(ValueError, match=r"'c' has the label"):
        timed_labels(tmp_path)
