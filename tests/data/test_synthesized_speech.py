"""Texts of a corpus in a synthesized voice: labels stay, recordings do not, ids are others."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from speechzoo.data import load_corpus
from speechzoo.data.corpus_builder import ENTITIES
from speechzoo.data.synthesized_speech import synthesize_corpus
from speechzoo.evaluation.joint_understanding import TASKS

TEXTS = ["lights on", "mister hill came on monday", "off"]


def corpus(texts=TEXTS):
    features = {"id": Value("string"), "text": Value("string"), "speaker": Value("string"), "entities": ENTITIES}
    features["intent"] = ClassLabel(names=["down", "up"])
    spans = [[], [{"type": "PERSON", "start": 0, "end": 11, "filler": "mister hill"}], []]
    columns = {"id": ["s/1", "s/2", "s/3"], "text": texts, "speaker": ["ann"] * 3, "entities": spans}
    return Dataset.from_dict({**columns, "intent": ["up", "up", "down"]}, Features(features))


def test_a_corpus_is_spoken_with_its_labels(tmp_path):
    folder = synthesize_corpus(corpus(), tmp_path / "spoken", ["en-us", "en-gb-x-rp"])
    rows = load_corpus(str(folder))
    assert rows["id"] == [f"synthesized-s/{number}" for number in (1, 2, 3)]
    assert (list(rows["text"]), list(rows["speaker"])) == (TEXTS, ["en-us", "en-gb-x-rp", "en-us"])
    assert 0.2 < rows["duration"][2] < rows["duration"][0] < rows["duration"][1] < 5
    assert rows.features["intent"].int2str(list(rows["intent"])) == ["up", "up", "down"]
    answers = TASKS["entities"].answers(rows)
    assert answers["synthesized-s/2"].answer == "} mister hill ] came on monday"
    assert sorted(path.name for path in folder.iterdir()) == ["audio", "metadata.jsonl"]
    again = synthesize_corpus(corpus(), tmp_path / "again", ["en-us", "en-gb-x-rp"])
    assert (again / "audio" / "1.flac").read_bytes() == (folder / "audio" / "1.flac").read_bytes()


def test_a_text_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"clip 's/2' has no text"):
        synthesize_corpus(corpus(["on", " ", "off"]), tmp_path / "spoken")
    assert not (tmp_path / "spoken").exists()
