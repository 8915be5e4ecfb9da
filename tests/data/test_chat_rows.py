"""Conversations with speech become questions and answers, from folders and from data sets, with audio as it was."""

import io

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from corpus_cases import write_json_lines, write_sound
from datasets import Audio, Dataset, Features, List, Value, concatenate_datasets

from speechzoo.data.chat_rows import chat_rows
from speechzoo.data.corpora import load_corpus, task_examples
from speechzoo.data.corpus_errors import CorpusError
from speechzoo.processing.audio_loading import load_audio
from speechzoo.training.adapter_arguments import DataArguments
from speechzoo.training.adapter_training import read_examples

PART = {"type": Value("string"), "text": Value("string"), "audio": Audio(decode=False)}
PARTS = Features({"messages": List({"role": Value("string"), "content": List(PART)})})


def user(*content):
    """A turn of the user: a text, or parts."""
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def assistant(text):
    return {"role": "assistant", "content": text}


def text(words):
    return {"type": "text", "text": words}


def clip(path=None):
    return {"type": "audio"} | ({"path": path} if path else {})


def sound(index):
    """An encoded clip that tells its number by its length."""
    file = io.BytesIO()
    soundfile.write(file, np.full(1000 + index, 0.1), 16_000, format="WAV", subtype="PCM_16")
    return {"bytes": file.getvalue(), "path": None}


def embedded(*conversations):
    """A data set whose clips stand in the parts of the content."""
    rows = [
        [
            {**turn, "content": [{"type": "text", "text": None, "audio": None} | part for part in turn["content"]]}
            for turn in turns
        ]
        for turns in conversations
    ]
    return Dataset(pa.table({"messages": rows}, schema=PARTS.arrow_schema))


def beside(conversations, clips=None, **columns):
    """A data set with a column of clips."""
    clips = [sound(index) for index in range(len(conversations))] if clips is None else clips
    rows = Dataset.from_dict({"messages": conversations, "audio": clips, **columns})
    return rows.cast_column("audio", Audio(decode=False))


def samples(rows):
    return [len(load_audio(row)) for row in rows["audio"]]


@pytest.fixture
def folder(tmp_path):
    for index in range(4):
        write_sound(tmp_path / "clips" / f"{index}.wav", 0.1 * (index + 1))
    return tmp_path


def test_parts_of_the_content_in_a_folder(folder):
    """Both shapes of content in one file, a system prompt, texts around the clip, and a column of the row's own."""
    one = [
        {"role": "system", "content": "Be brief."},
        user(text("Look at"), clip("clips/2.wav"), text("and answer.")),
        assistant([text("Paris."), text("In France.")]),
    ]
    two = [user(clip("clips/0.wav")), assistant("Yes.")]
    write_json_lines(folder / "metadata.jsonl", [{"messages": one, "speaker": 7, "id": "a"}, {"messages": two}])
    rows = load_corpus(folder)
    assert rows["answer"] == ["Paris.\nIn France.", "Yes."]
    assert rows["context"] == ["Be brief.\nLook at\nand answer.", ""]
    assert rows["duration"] == pytest.approx([0.3, 0.1]) and rows["speaker"] == ["7", None]
    assert rows["id"][0] == "a" and samples(rows) == [4800, 1600]
    examples = task_examples(rows, {"instruction": "answer"})
    assert examples["target"] == rows["answer"] and examples["context"] == rows["context"]
    assert list(load_corpus(folder, streaming=True)) == list(rows)


def test_the_clip_of_the_row_in_a_folder(folder):
    """Unmarked it belongs to the first turn of the user; a mark puts it elsewhere."""
    unmarked = [user("What is this?"), assistant("A ramp."), user("Sure?"), assistant("Yes.")]
    marked = [user("Hello."), assistant("Hi."), user("<audio>\nWhat is this?"), assistant("A ramp.")]
    lines = [{"sound": f"clips/{index}.wav", "dialog": turns} for index, turns in enumerate((unmarked, marked))]
    write_json_lines(folder / "metadata.jsonl", lines)
    rows = load_corpus(folder, columns={"audio": "sound", "messages": "dialog"})
    assert rows["context"] == ["What is this?", "user: Hello.\nassistant: Hi.\nWhat is this?"]
    assert rows["answer"] == ["A ramp.", "A ramp."] and samples(rows) == [1600, 3200]


def test_faults_of_a_folder_name_the_line(folder, caplog):
    spoken = [user(clip("clips/0.wav")), assistant("Yes.")]
    wrong = {
        "2 clips, and a prompt takes one": [user(clip("clips/0.wav"), clip("clips/1.wav")), assistant("Yes.")],
        "neither 'audio' nor 'path', nor has the row": [user(clip()), assistant("Yes.")],
        "the role 'robot'; use one of system": [*spoken, {"role": "robot", "content": "x"}],
        "use parts of type text and audio": [user(clip("clips/0.wav"), {"type": "image", "path": "x"})],
        "the message 'Yes.' is no object": ["Yes."],
        "no such file": [user(clip("clips/9.wav")), assistant("Yes.")],
    }
    lines = [{"messages": turns} for turns in (spoken, [user("Hi."), assistant("Hello.")], *wrong.values())]
    write_json_lines(folder / "metadata.jsonl", lines)
    skipped = []
    rows = load_corpus(folder, on_error="skip", skipped=skipped)
    assert rows["answer"] == ["Yes."]
    assert [error.place.line for error in skipped] == [3, 4, 5, 6, 7, 8]
    assert all(words in error.problem for words, error in zip(wrong, skipped, strict=True)), skipped
    assert "1 of 3 conversations have no spoken and answered question" in caplog.text
    with pytest.raises(CorpusError, match=r"metadata.jsonl, line 3: a turn of the user holds 2 clips"):
        load_corpus(folder)


def test_a_folder_that_has_the_column_already(folder):
    line = {"messages": [user(clip("clips/0.wav")), assistant("Yes.")], "answer": "No."}
    write_json_lines(folder / "metadata.jsonl", [line])
    with pytest.raises(CorpusError, match=r"conversations give 'answer', which is there already; rename it"):
        load_corpus(folder)
    rows = load_corpus(folder, columns={"gold": "answer"})
    assert (rows["answer"], rows["gold"]) == (["Yes."], ["No."])


def test_a_data_set_with_a_column_of_clips(tmp_path):
    conversations = [[user(f"Question {index}."), assistant(f"Answer {index}.")] for index in range(3)]
    beside(conversations, client=["a", "b", "c"]).to_parquet(tmp_path / "train.parquet")
    rows = load_corpus(tmp_path, columns={"speaker": "client"}, cache_dir=tmp_path / "cache")
    assert {*rows.column_names} == {"id", "audio", "speaker", "context", "answer"}
    assert rows["answer"] == ["Answer 0.", "Answer 1.", "Answer 2."] and rows["speaker"] == ["a", "b", "c"]
    assert rows["context"][2] == "Question 2." and samples(rows) == [1000, 1001, 1002]
    assert not rows.features["audio"].decode


def test_a_data_set_with_clips_inside(tmp_path):
    conversations = [
        [
            {"role": "system", "content": [text("Be brief.")]},
            user({"type": "audio", "audio": sound(0)}),
            assistant([text("A.")]),
        ],
        [user(text("Written.")), assistant([text("Not this.")])],
        [user(text("Name it."), {"type": "audio", "audio": sound(2)}), assistant([text("C.")])],
    ]
    embedded(*conversations).to_parquet(tmp_path / "train.parquet")
    rows = load_corpus(tmp_path, cache_dir=tmp_path / "cache")
    assert rows["answer"] == ["A.", "C."] and rows["context"] == ["Be brief.", "Name it."]
    assert samples(rows) == [1000, 1002] and {*rows.column_names} == {"id", "audio", "context", "answer"}
    assert task_examples(rows, {"instruction": "answer"})["target"] == ["A.", "C."]


def test_older_and_mixed_shapes(folder):
    """from and value; texts beside parts, which `datasets` keeps as JSON."""
    older = [{"from": "human", "value": "<audio>"}, {"from": "gpt", "value": "Yes."}]
    path = str(folder / "clips" / "1.wav")
    write_json_lines(
        folder / "older" / "train.jsonl", [{"conversations": older, "audio": {"bytes": None, "path": path}}]
    )
    rows = load_corpus(folder / "older", columns={"messages": "conversations"}, cache_dir=folder / "cache")
    assert (rows["answer"], rows["context"], samples(rows)) == (["Yes."], [""], [3200])
    mixed = [{"role": "system", "content": "Be brief."}, user(clip(path), text("Now.")), assistant("Yes.")]
    write_json_lines(folder / "mixed" / "train.jsonl", [{"messages": mixed}] * 2)
    rows = load_corpus(folder / "mixed", cache_dir=folder / "cache")
    assert (rows["context"], samples(rows)) == (["Be brief.\nNow."] * 2, [3200] * 2)


def test_what_is_left_out_is_counted(caplog):
    conversations = [
        [user("<audio>"), assistant("One."), user("<audio> and?"), assistant("Two."), user("Why?"), assistant("So.")],
        [user("Written."), assistant("Written.")],
        [user("<audio>"), user("No answer before this.")],
        [user("Before."), assistant("Said."), user("<audio>"), assistant("Three.")],
    ]
    clips = [sound(0), None, sound(2), sound(3)]
    rows = chat_rows(beside(conversations, clips), "set")
    assert rows["answer"] == ["One.", "Three."] and samples(rows) == [1000, 1003]
    assert rows["context"][1] == "user: Before.\nassistant: Said."
    assert [record.getMessage() for record in caplog.records] == [
        "set: 2 of 4 conversations have no spoken and answered question",
        "set: 2 answers after the first spoken question are left out",
    ]


def test_faults_of_a_data_set_name_the_row(tmp_path):
    good, answer = [user("<audio>"), assistant("A.")], assistant([text("A.")])
    with pytest.raises(CorpusError, match=r"set, row 1: a turn of the user holds 2 clips"):
        chat_rows(beside([good, [user("<audio> <audio>"), assistant("A.")]]), "set")
    two = {"type": "audio", "audio": sound(0)}
    with pytest.raises(CorpusError, match=r"set, row 0: a turn of the user holds 2 clips"):
        chat_rows(embedded([user(two, two), answer]), "set")
    with pytest.raises(CorpusError, match=r"set, row 1: an audio part has neither"):
        chat_rows(embedded([user(two), answer], [user(clip()), answer]), "set")
    with pytest.raises(CorpusError, match=r"set, row 1: the clip .* is no path"):
        chat_rows(embedded([user(two), answer], [user({"type": "audio", "audio": {"bytes": None}}), answer]), "set")
    with pytest.raises(CorpusError, match=r"set: no conversation of 'messages' has a spoken question"):
        chat_rows(Dataset.from_dict({"messages": [[user("Written."), assistant("A.")]]}), "set")
    with pytest.raises(CorpusError, match=r"set: conversations give 'context', which is there already"):
        chat_rows(beside([good], context=["x"]), "set")
    beside([good]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"holds conversations, which cannot be streamed"):
        load_corpus(tmp_path, streaming=True)


def test_audio_is_neither_decoded_nor_copied():
    """What is no audio at all passes, and a large set costs no memory."""
    noise = {"bytes": b"no audio" * 100_000, "path": "x"}
    turns = [user(text("Hm?"), {"type": "audio", "audio": noise}), assistant([text("A.")])]
    inside = embedded(*[turns] * 20)
    outside = beside([[user("Hm?"), assistant("A.")]] * 20, [noise] * 20)
    for dataset in (inside, outside):
        before = pa.total_allocated_bytes()
        rows = chat_rows(dataset, "set")
        examples = task_examples(rows.add_column("id", [str(index) for index in range(20)]), {"instruction": "answer"})
        assert pa.total_allocated_bytes() - before < 1_000_000
        assert examples[19]["audio"] == noise


def test_a_set_that_was_put_together_and_chosen_from():
    """Conversations in several pieces and in another order, one of them spoken and not answered."""
    turns = [
        [user({"type": "audio", "audio": sound(index)}), assistant([text(str(index) if index != 2 else "")])]
        for index in range(7)
    ]
    dataset = concatenate_datasets([embedded(*turns[:4]), embedded(*turns[4:])])
    for rows in (dataset, dataset.select([6, 1, 3]), dataset.select(range(1, 6))):
        asked = chat_rows(rows, "set")
        assert samples(asked) == [1000 + int(answer) for answer in asked["answer"]]
    assert asked["answer"] == ["1", "3", "4", "5"]


def test_instructions_mix_with_other_tasks_by_size(folder):
    """Concatenated, each task has the share of its rows: 3 transcripts, 2 translations and 4 answers."""
    speech = [{"audio": f"clips/{index}.wav", "sentence": "up"} for index in range(3)]
    speech[0] |= {"translation": "hinauf"}
    speech[1] |= {"translation": "auf"}
    for name in ("speech", "chat"):
        for index in range(4):
            write_sound(folder / name / "clips" / f"{index}.wav")
    write_json_lines(folder / "speech" / "metadata.jsonl", speech)
    turns = [[user("Hi."), user(clip(f"clips/{index}.wav")), assistant("Yes.")] for index in range(4)]
    write_json_lines(folder / "chat" / "metadata.jsonl", [{"messages": one} for one in turns])
    tasks = {"asr": "sentence", "translation": "translation", "instruction": "answer"}
    examples = read_examples([str(folder / "speech"), str(folder / "chat")], DataArguments(tasks=tasks))
    assert sorted(examples["task"]) == ["asr"] * 3 + ["instruction"] * 4 + ["translation"] * 2
    assert {*examples.filter(lambda row: row["task"] == "instruction")["context"]} == {"user: Hi."}
