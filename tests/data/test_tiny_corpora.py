"""Tiny corpora: kept in the cache, the same in every build, and read back by the loaders as they were made."""

import hashlib
from dataclasses import replace

import pytest
import soundfile

from speechzoo.data import tiny_corpora as module
from speechzoo.data.corpora import load_corpus
from speechzoo.data.synthetic_corpus import RECIPES, build_synthetic_corpus, read_corpus
from speechzoo.data.tiny_corpora import tiny_corpus, tiny_corpus_recipes
from speechzoo.processing.audio_loading import load_audio

NAMES = ("slurp", "fluent_speech_commands", "slue_voxceleb", "slue_voxpopuli")


def fingerprint(folder):
    """Hash of every file's name and content; of ogg files the samples, for their bytes hold a random serial number."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        is_ogg = path.suffix == ".ogg"
        content = soundfile.read(path, dtype="int16")[0].tobytes() if is_ogg else path.read_bytes()
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return digest.hexdigest()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fluent_speech_commands"])
def test_a_second_build_is_the_same(name, tiny_corpora, tmp_path):
    again = tiny_corpus(name, "mini", tmp_path)
    assert again.parts[-1] == tiny_corpora(name).parts[-1]
    assert fingerprint(again) == fingerprint(tiny_corpora(name))


def test_a_corpus_in_the_cache_is_not_made_again(tiny_corpora, monkeypatch):
    data_dir = tiny_corpora("slue_voxceleb")
    monkeypatch.setattr(module, "build_synthetic_corpus", None)
    assert tiny_corpus("slue_voxceleb", "mini", data_dir.parents[1]) == data_dir


def test_another_layout_or_text_gets_another_folder(tiny_corpora, tmp_path, monkeypatch):
    folder = tiny_corpora("slue_voxceleb").parent
    monkeypatch.setattr(module, "LAYOUT_VERSION", module.LAYOUT_VERSION + 1)
    assert tiny_corpus("slue_voxceleb", "mini", folder.parent).parent.name != folder.name


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    def fail(spoken, folder):
        folder.mkdir()
        (folder / "half").touch()
        raise OSError("disk full")

    monkeypatch.setitem(module._CORPORA, "slurp", module._TinyCorpus(module._splits("requests"), fail))
    with pytest.raises(OSError, match="disk full"):
        tiny_corpus("slurp", "mini", tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if "tiny" in path.name]


def test_of_two_processes_the_slower_takes_what_the_faster_made(tiny_corpora, tmp_path, monkeypatch):
    """And a second build of this corpus is the same as well."""
    corpus, finished = module._CORPORA["fluent_speech_commands"], []

    def overtaken(spoken, folder):
        if not finished:
            finished.append(True)
            finished.append(tiny_corpus("fluent_speech_commands", "mini", tmp_path))
        corpus.write(spoken, folder)

    monkeypatch.setitem(module._CORPORA, "fluent_speech_commands", replace(corpus, write=overtaken))
    assert tiny_corpus("fluent_speech_commands", "mini", tmp_path) == finished[1]
    assert len(list(finished[1].rglob("*.wav"))) == 24 + 8 + 12
    assert not list(tmp_path.glob(".*"))
    assert fingerprint(finished[1]) == fingerprint(tiny_corpora("fluent_speech_commands"))


def test_unknown_names_and_sizes_are_errors(tmp_path):
    for name, size in (("librispeech", "mini"), ("slurp", "huge")):
        with pytest.raises(ValueError, match=f"no tiny corpus '{name}' of size '{size}'; choose slurp, "):
            tiny_corpus(name, size, tmp_path)


def test_small_corpora_are_large_enough_for_tables():
    for name in NAMES:
        recipes = tiny_corpus_recipes(name)
        assert recipes["train"].count >= 1500 and recipes["validation"].count >= 200 and recipes["test"].count >= 400
        for split, recipe in recipes.items():
            assert recipe == RECIPES[recipe.name] and recipe.voices == split.removesuffix("_synthetic")


@pytest.fixture
def made(tiny_corpora):
    def read(name, split):
        data_dir = tiny_corpora(name)
        cache = next(parent for parent in data_dir.parents if any(parent.glob("mini-*")))
        return read_corpus(build_synthetic_corpus(tiny_corpus_recipes(name, "mini")[split], cache))

    return read


def loaded(name, split, tiny_corpora, tmp_path):
    rows = load_corpus(name, data_dir=tiny_corpora(name), split=split, cache_dir=tmp_path)
    for row in rows:
        row |= {c: f.int2str(row[c]) for c, f in rows.features.items() if hasattr(f, "int2str") and row[c] is not None}
        yield row


def entities_of(record):
    return [(entity["type"], entity["start"], entity["end"]) for entity in record["entities"]]


def seconds_of(row):
    return len(load_audio(row["audio"], 16_000)) / 16_000


@pytest.mark.parametrize("split", ["train", "train_synthetic", "validation", "test"])
def test_slurp_loads_as_it_was_made(split, made, tiny_corpora, tmp_path):
    by_text = {record["transcript"]: record for record in made("slurp", split)}
    rows = list(loaded("slurp", split, tiny_corpora, tmp_path))
    assert {row["text"] for row in rows} == set(by_text)
    durations = {record["duration"] for record in by_text.values()}
    for row in rows:
        record = by_text[row["text"]]
        assert all(row[column] == record[column] for column in ("scenario", "action", "intent"))
        assert entities_of(row) == entities_of(record)
        assert (row["speaker"] is None) == (split == "train_synthetic")
        assert row["duration"] == pytest.approx(seconds_of(row), abs=1e-3)
        assert min(durations) - 0.001 <= row["duration"] <= max(durations) + 3


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_fluent_speech_commands_loads_as_it_was_made(split, made, tiny_corpora, tmp_path):
    rows = loaded("fluent_speech_commands", split, tiny_corpora, tmp_path)
    for row, record in zip(rows, made("fluent_speech_commands", split), strict=True):
        assert [row[c].lower() for c in ("action", "object", "location")] == list(record["slots"].values())
        assert row["intent"].lower() == record["intent"]
        assert row["duration"] == pytest.approx(record["duration"], abs=1e-3) == seconds_of(row)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_slue_voxceleb_loads_as_it_was_made(split, made, tiny_corpora, tmp_path):
    by_text = {record["transcript"]: record for record in made("slue_voxceleb", split)}
    rows = list(loaded("slue_voxceleb", split, tiny_corpora, tmp_path))
    assert len(by_text) > len(rows) >= 0.8 * len(by_text)
    for row in rows:
        record = by_text[row["text"]]
        assert row["sentiment"] == record["sentiment"]
        # Filled up to a hundredth of a second.
        assert record["duration"] - 1e-3 <= row["duration"] < record["duration"] + 0.011
        assert seconds_of(row) == pytest.approx(row["duration"], abs=1e-3)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_slue_voxpopuli_loads_as_it_was_made(split, made, tiny_corpora, tmp_path):
    rows = loaded("slue_voxpopuli", split, tiny_corpora, tmp_path)
    for row, record in zip(rows, made("slue_voxpopuli", split), strict=True):
        assert row["text"] == record["transcript"] and entities_of(row) == entities_of(record)
        assert [entity["filler"] for entity in row["entities"]] == [
            row["text"][entity["start"] : entity["end"]] for entity in record["entities"]
        ]
        assert row["duration"] == pytest.approx(record["duration"], abs=1e-3)
        assert seconds_of(row) == pytest.approx(row["duration"], abs=1e-3)
