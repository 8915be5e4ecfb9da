"""`speechzoo predict`: answers in the order of the recordings, JSON that is the pipeline's, errors on one line."""

import json

import pytest
from pipeline_cases import CLIPS, UNDERSTANDING, near, save_units
from transformers import GPT2Config, pipeline
from typer.testing import CliRunner

from speechzoo.commands import application
from speechzoo.pipelines.predict_command import shown
from speechzoo.processing.audio_loading import save_audio


@pytest.fixture(scope="module")
def folder(backbones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    UNDERSTANDING["adapter"](backbones, folder / "adapter")
    UNDERSTANDING["classes of speech"](backbones, folder / "classes")
    save_units(backbones, folder / "units")
    GPT2Config().save_pretrained(folder / "gpt2")
    for number, one in enumerate(CLIPS):
        save_audio(folder / f"{number}.flac", one / 2)
    (folder / "empty.wav").write_bytes(b"")
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def run(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(application, ["predict", *words])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


@pytest.mark.parametrize(
    ("task", "words", "given"),
    [
        ("speech-understanding", ["adapter", "--task", "intent"], {"task": "intent"}),
        (
            "speech-understanding",
            ["adapter", "--task", "asr", "--label", "lights on", "--label", "off"],
            {"task": "asr", "labels": ["lights on", "off"]},
        ),
        (
            "speech-instruction",
            ["adapter", "--instruction", "lights {audio}", "--max_new_tokens", "3"],
            {"instruction": "lights {audio}", "max_new_tokens": 3},
        ),
        (
            "speech-instruction",
            ["adapter", "--instruction", "{context} lights {audio}", "--context", "heat up", "--max_new_tokens", "3"],
            {"instruction": "{context} lights {audio}", "context": "heat up", "max_new_tokens": 3},
        ),
        ("speech-understanding", ["classes", "--batch-size", "2"], {}),
        ("speech-units", ["units"], {}),
    ],
)
def test_it_says_what_the_pipeline_says(run, folder, task, words, given):
    paths = [f"{number}.flac" for number in (2, 0, 1)]
    code, said, _ = run(words[0], *paths, *words[1:], "--json")
    found = [json.loads(line) for line in said.splitlines()]
    assert code == 0 and [one.pop("audio") for one in found] == paths
    assert near(found, pipeline(task, model=str(folder / words[0]))(paths, **given))


def test_people_read_a_line_for_each_recording(run):
    _, said, _ = run("classes", "0.flac", "1.flac")
    _, found, _ = run("classes", "0.flac", "1.flac", "--json")
    first = json.loads(found.splitlines()[0])
    assert said.splitlines()[0] == f"0.flac: {first['label']}  ({first['score']:.3f})"
    assert len(said.splitlines()) == 6, "and one for each other class"
    _, said, _ = run("units", "1.flac#t=0.1,0.3")
    assert said.startswith("1.flac#t=0.1,0.3: ") and said.split(": ")[1].split()[0].isdigit()
    _, said, _ = run("classes", "0.flac", "--chunk-seconds", "1.0", "--task", "sentiment")
    assert "s:" not in said, "it is not longer"
    assert shown("0.flac", {"text": "", "score": 0.75}) == "0.flac: (nothing)  (0.750)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["classes", "0.flac", "gone.flac"], "gone.flac: there is no such file"),
        (["classes", "empty.wav"], "empty.wav: the file is empty"),
        (["classes", "0.flac", "--task", "intent"], "there is no task 'intent'; this model has sentiment"),
        (["adapter", "0.flac"], "choose one by task="),
        (
            ["classes", "0.flac", "--instruction", "why"],
            "which has no pipeline for instruction; it can do understanding",
        ),
        (["classes", "0.flac", "--context", "why"], "has no use for 'context'"),
        (["gpt2", "0.flac"], "'gpt2' is a gpt2, which has no pipeline; fine-tune it"),
        (["./none", "0.flac"], "the model './none' is not here; set MODEL to where it is now"),
        (["org/none", "0.flac"], "the model 'org/none' cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told_on_one_line(run, words, message):
    code, said, error = run(*words)
    assert code == 2 and not said
    assert error.startswith("speechzoo predict: ") and message in error and len(error.splitlines()) == 1


def test_help_names_every_option(run):
    code, said, _ = run("--help")
    assert code == 0 and "intents, slots, sentiment, entities" in " ".join(said.split())
