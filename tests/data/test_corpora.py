"""Corpora from folders and data sets: what is read, what is refused, and the mixture of tasks."""

import json

import pytest
from datasets import Audio, ClassLabel, Dataset, Value

from speechzoo.data.corpora import load_corpus, task_examples
from speechzoo.data.corpus_errors import CorpusError
from speechzoo.processing.audio_loading import cut_path, load_audio


def write(folder, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def folder(corpus_folder, tmp_path):
    """An empty folder with the recordings of the corpus."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "audio").symlink_to(corpus_folder / "audio")
    return tmp_path / "corpus"


def test_a_folder_is_read_undecoded(corpus_folder):
    rows = load_corpus(corpus_folder)
    assert len(rows) == 8 and rows["id"][:2] == ["c0", "c1"]
    assert rows[0]["audio"] == {"bytes": None, "path": str(corpus_folder / "audio/0.flac")}
    assert rows[7]["intent"] is None and rows.features["intent"].int2str(rows[0]["intent"]) == "turn"
    assert len(load_audio(rows[3]["audio"])) == 4000 + 3 * 1111


def test_a_split_and_columns_by_other_names(corpus_folder):
    rows = load_corpus(corpus_folder, "test", {"words": "transcript", "speaker": "speaker"})
    assert rows["id"] == ["c6", "c7"] and "words" in rows.column_names and "transcript" not in rows.column_names
    assert load_corpus(corpus_folder, "test")["text"] == rows["words"]


def test_audio_by_another_name(folder):
    write(folder, {"file_name": "audio/0.flac", "sentence": "up", "alignment": [["up", 0.1, "x"]]})
    rows = load_corpus(folder, columns={"audio": "file_name", "text": "sentence"})
    assert rows[0] == {
        "id": f"{folder.parent.name}/{folder.name}-000001",
        "audio": {"bytes": None, "path": str(folder / "audio/0.flac")},
        "duration": 0.25,
        "text": "up",
    }


@pytest.mark.parametrize(
    ("records", "settings", "error", "message"),
    [
        ([{"audio": "audio/9.flac"}], {}, CorpusError, r"metadata.jsonl, line 1: .*9.flac: there is no such file"),
        ([{"audio": "audio/0.flac"}, {"text": "up"}], {}, ValueError, r"metadata.jsonl, line 2: there is no 'audio'"),
        ([{"audio": {"path": "0.flac"}}], {}, ValueError, r"line 1: {'path': '0.flac'} is no path of an audio"),
        ([{"audio": "audio/0.flac"}, "{up"], {}, ValueError, r"metadata.jsonl, line 2: not JSON"),
        ([{"audio": "audio/0.flac"}], {"split": "test"}, ValueError, r"has no rows of split 'test'"),
        ([], {}, ValueError, r"metadata.jsonl: .* is empty: there are no rows"),
        (
            [{"audio": "audio/0.flac"}],
            {"columns": {"words": "text"}},
            ValueError,
            r"has no column 'text'; it has audio",
        ),
        ([{"audio": "audio/0.flac", "id": 1}] * 2, {}, ValueError, r"line 2: the id '1' stands in .*line 1 too"),
    ],
)
def test_a_faulty_folder_is_one_clear_error(folder, records, settings, error, message):
    with pytest.raises(error, match=message):
        load_corpus(write(folder, *records), **settings)


def test_generated_ids_tell_splits_apart(folder):
    write(folder, *({"audio": "audio/0.flac", "split": split} for split in ("train", "test")))
    assert not {*load_corpus(folder, "train")["id"]} & {*load_corpus(folder, "test")["id"]}


def test_a_data_set_with_embedded_audio(corpus_folder, tmp_path):
    """Parquet with the recordings inside, classes by number, another name for the audio."""
    recordings = [(corpus_folder / f"audio/{index}.flac").read_bytes() for index in range(3)]
    rows = {"sound": [{"bytes": recording, "path": f"{i}.flac"} for i, recording in enumerate(recordings)]}
    dataset = Dataset.from_dict({**rows, "intent": [1, 0, 1]})
    dataset = dataset.cast_column("sound", Audio()).cast_column("intent", ClassLabel(names=["off", "on"]))
    (tmp_path / "set").mkdir()
    dataset.to_parquet(tmp_path / "set" / "train.parquet")
    corpus = load_corpus(str(tmp_path / "set"), columns={"audio": "sound"})
    assert len({*corpus["id"]}) == 3
    examples = task_examples(corpus, {"intent": "intent"})
    assert examples["target"] == ["on", "off", "on"]
    assert len(load_audio(examples[2]["audio"])) == 4000 + 2 * 1111
    with pytest.raises(ValueError, match="has no column 'audio'; it has sound, intent: name it in columns"):
        load_corpus(str(tmp_path / "set"))


def test_an_unknown_synthetic_corpus_names_the_known():
    with pytest.raises(ValueError, match="there is no synthetic corpus 'comands'; choose one of commands-test"):
        load_corpus("synthetic:comands")


def test_each_clip_stands_once_for_each_task_it_has_an_answer_to(corpus_folder):
    examples = task_examples(load_corpus(corpus_folder), {"asr": "text", "intent": "intent"})
    assert examples["task"] == ["asr"] * 8 + ["intent"] * 5
    assert examples["target"][8:] == ["turn", "heat", "bring", "lights", "turn"]
    assert examples["id"] == [f"c{index}" for index in [*range(8), *range(5)]]
    assert examples["length"][1] == pytest.approx(5111 / 16000) and examples["speaker"][1] == "s1"


def test_what_is_unknown_of_a_clip_is_empty(folder):
    write(
        folder,
        {"audio": "audio/0.flac", "label": "up", "speaker": "a", "duration": 2},
        {"audio": "audio/1.flac", "label": "off"},
    )
    examples = task_examples(load_corpus(folder), {"intent": "label"})
    assert (examples["speaker"], examples["length"]) == (["a", ""], [0.25, 5111 / 16000])
    unchecked = task_examples(load_corpus(folder, check_audio=False), {"intent": "label"})
    assert unchecked["length"] == [2.0, 0.0], "unless headers are read, durations are what the metadata says"
    assert examples["transcript"] == ["", ""] and examples.features["length"] == Value("float64")


def test_clips_without_an_answer_are_counted(corpus_folder, folder, caplog):
    task_examples(load_corpus(corpus_folder), {"asr": "text", "intent": "intent"})
    assert [record.getMessage() for record in caplog.records] == ["task 'intent': 3 of 8 clips have no 'intent'"]
    caplog.clear()
    write(folder, {"audio": "audio/0.flac", "transcript": ""}, {"audio": "audio/1.flac", "transcript": "up"})
    task_examples(load_corpus(folder), {"asr": "text"})
    assert "1 of 2 clips have no 'text'" in caplog.text


def test_tasks_without_answers_are_errors(corpus_folder, folder):
    with pytest.raises(ValueError, match="task 'mood' wants column 'mood'; the corpus has"):
        task_examples(load_corpus(corpus_folder), {"mood": "mood"})
    write(folder, {"audio": "audio/0.flac", "transcript": ""})
    with pytest.raises(ValueError, match="no clip has a target in any of the columns text"):
        task_examples(load_corpus(folder), {"asr": "text"})


# --- what a folder may hold ---


def load(folder, **settings):
    return load_corpus(folder, **settings)


def named(rows, column):
    return [rows.features[column].names[value] for value in rows[column]]


def test_classes_of_a_folder_are_numbered_over_all_its_splits(folder):
    intents = {"train": "up", "test": "down", "validation": "left"}
    lines = [{"audio": "audio/0.flac", "split": split, "intent": intent} for split, intent in intents.items()]
    write(folder, *lines)
    parts = [load(folder, split=split) for split in intents]
    assert {tuple(rows.features["intent"].names) for rows in parts} == {("down", "left", "up")}
    assert [named(rows, "intent") for rows in parts] == [["up"], ["down"], ["left"]]
    given = load(folder, labels={"intent": ["up", "left", "down"]})
    assert list(given["intent"]) == [0, 2, 1]
    with pytest.raises(CorpusError, match=r"line 1: intent 'up' is unknown; .* Known: left, down"):
        load(folder, labels={"intent": ["left", "down"]})
    with pytest.raises(CorpusError, match="has no column 'intnt'; it has audio, split, intent"):
        load(folder, labels={"intnt": ["up"]})
    with pytest.raises(CorpusError, match="has no rows of split 'tset'; it has test, train, validation"):
        list(load(folder, split="tset", streaming=True))


def test_entities_of_a_folder(folder):
    entities = [{"type": "city", "start": 3, "end": 8}, {"type": "time", "start": 0, "end": 2, "filler": "now"}]
    write(folder, {"audio": "audio/0.flac", "text": "in paris", "entities": entities}, {"audio": "audio/1.flac"})
    rows = load(folder)
    assert rows["entities"] == [[{**entities[0], "filler": "paris"}, entities[1]], None]
    write(folder, {"audio": "audio/0.flac", "text": "in paris", "entities": [{**entities[0], "end": 9}]})
    with pytest.raises(CorpusError, match="line 1: the city from 3 to 9 lies outside the 8 characters"):
        load(folder)


def test_a_renamed_column_takes_the_place_of_another(folder):
    for record in ({"sentence": "right", "text": "wrong"}, {"text": "wrong", "sentence": "right"}):
        write(folder, {"audio": "audio/0.flac", **record})
        assert load(folder, columns={"text": "sentence"})["text"] == ["right"]
    with pytest.raises(CorpusError, match="has no column 'nope'; it has audio, text, sentence"):
        load(folder, columns={"id": "nope"})


def test_kinds_of_values(folder):
    write(
        folder,
        {"audio": "audio/0.flac", "text": 5, "speaker": 3, "n": 1, "share": 1, "slots": {"a": 1}},
        {"audio": "audio/1.flac", "text": "x", "speaker": "b", "n": "2", "share": 0.5, "slots": {"b": "c"}},
        {"audio": "audio/2.flac", "n": 3},
    )
    skipped = []
    rows = load(folder, on_error="skip", skipped=skipped)
    assert (rows["text"], rows["speaker"], rows["n"]) == (["5", None], ["3", None], [1, 3])
    assert [(error.place.line, error.problem) for error in skipped] == [
        (2, "'n' is '2', and int above; use one kind of value")
    ]
    with pytest.raises(CorpusError, match="line 2: 'n' is '2', and int above"):
        load(folder)


def test_texts_alone_in_a_folder(folder, caplog):
    write(folder, {"text": "up"}, {"text": "down"})
    assert load(folder)["text"] == ["up", "down"] and "texts alone are read" in caplog.text
    with pytest.raises(CorpusError, match="Write one line a clip"):
        load(folder, audio=True)


def test_settings_that_do_not_apply_are_refused(tmp_path, folder):
    with pytest.raises(ValueError, match="which has no 'on_error'"):
        load_corpus("org/set", on_error="skip")
    with pytest.raises(ValueError, match="'slurp' knows its labels"):
        load_corpus("slurp", "test", data_dir=tmp_path, labels={"intent": ["a"]})
    with pytest.raises(ValueError, match="is spoken, not fetched"):
        load_corpus("synthetic:slurp", "test", download=True)
    with pytest.raises(ValueError, match="is no corpus with a data_dir"):
        load_corpus(folder, data_dir=tmp_path)


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(CorpusError, match="there is no such folder"):
        load_corpus(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match=r"there is neither metadata.jsonl nor a data set"):
        load_corpus(tmp_path)


def test_a_stream_of_a_data_set_has_ids(corpus_folder, tmp_path):
    recording = (corpus_folder / "audio/0.flac").read_bytes()
    rows = Dataset.from_dict({"audio": [{"bytes": recording, "path": "0.flac"}] * 2})
    rows.cast_column("audio", Audio(decode=False)).to_parquet(tmp_path / "train.parquet")
    prepared, stream = (load_corpus(tmp_path, streaming=streaming, audio=True) for streaming in (False, True))
    assert [row["id"] for row in stream] == list(prepared["id"]) and len({*prepared["id"]}) == 2


def test_a_file_with_the_name_of_a_cut_is_itself(corpus_folder, tmp_path):
    odd = tmp_path / "odd.flac#t=0,1"
    odd.write_bytes((corpus_folder / "audio/0.flac").read_bytes())
    assert len(load_audio(odd)) == 4000
    assert cut_path("a.flac", 0.00001, 1e-7) == "a.flac#t=0.00001,0" and cut_path("a", -0.0, 2.5) == "a#t=0,2.5"
