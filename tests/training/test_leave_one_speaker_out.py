"""The script that leaves one speaker out, run whole on toy backbones: whom each training hears, and the report."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from tiny_models import save_encoder, save_language_model

from speechzoo.evaluation.report import read_report
from speechzoo.training import adapter_learner

ROOT = Path(__file__).parents[2]
SPEAKERS, WORDS = ("ann", "bob", "cy"), ("kitchen", "bedroom")


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("script", ROOT / "examples" / "leave_one_speaker_out.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Two words of three speakers, four times each: tones, higher for one word, and noise of the speaker's own."""
    folder, lines = tmp_path / "digits", []
    folder.mkdir()
    rng = np.random.default_rng(0)
    for speaker in SPEAKERS:
        for number in range(8):
            word = number % 2
            samples = np.sin(2 * np.pi * (300 + 900 * word) * np.arange(4800 + 160 * number) / 16_000) / 2
            name = f"{speaker}-{number}"
            soundfile.write(folder / f"{name}.wav", samples + rng.normal(0, 0.01, len(samples)), 16_000)
            lines.append({"id": name, "audio": f"{name}.wav", "speaker": speaker, "transcript": WORDS[word]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture
def run(script, corpus, tmp_path, monkeypatch):
    """Runs the script with some flags; gives the report and, for each training, the clips trained on and answered."""
    encoder, language_model = tmp_path / "encoder", tmp_path / "language_model"
    save_encoder("w2v-bert", encoder)
    save_language_model("llama", language_model)
    trained, answered = [], []

    class Recorded(adapter_learner.VariedExamples):
        def __init__(self, examples, *arguments):
            trained.append(list(examples["id"]))
            super().__init__(examples, *arguments)

    def answer(model, processor, examples, decoding, plain=script.answer_speech):
        answered.append(list(examples["id"]))
        return plain(model, processor, examples, decoding)

    def go(*flags: str):
        report = tmp_path / "report.json"
        backbones = ["--audio_model", str(encoder), "--text_model", str(language_model), "--audio_token", "<audio>"]
        short = ["--epochs", "1", "--batch_size", "8", "--prompt", "speech {audio}", "--results_file", str(report)]
        monkeypatch.setattr(adapter_learner, "VariedExamples", Recorded)
        monkeypatch.setattr(script, "answer_speech", answer)
        words = ["leave_one_speaker_out.py", "--data", str(corpus), *backbones, *short, *flags]
        monkeypatch.setattr(sys, "argv", words)
        script.main()
        return read_report(report), list(zip(trained, answered, strict=True))

    return go


@pytest.mark.slow
def test_nobody_is_trained_on_and_answered(run):
    report, runs = run("--candidates", '{"narrow": {"adapter_layers": 1}, "wide": {"unfrozen": ["audio_tower"]}}')
    assert len(runs) == 2 * 3 + 3
    for trained, answered in runs:
        heard, unheard = ({name.split("-")[0] for name in names} for names in (trained, answered))
        assert not heard & unheard
        assert len(trained) + len(answered) == 24
    assert [len(answered) for _, answered in runs] == [16] * 6 + [8] * 3

    rows = {row.name: row for row in report.measurements}
    systems = ("speech-text adapter", "logistic regression")
    for system in systems:
        of_speakers = [rows[f"{system}, {speaker} held out"].value for speaker in SPEAKERS]
        assert rows[f"{system}, mean of speakers"].value == pytest.approx(np.mean(of_speakers))
        assert {row.chance for name, row in rows.items() if name.startswith(system)} == {0.5}
    assert rows["logistic regression, mean of speakers"].value == 1.0, "tones are easy"
    means = [rows[f"{system}, mean of speakers"].value for system in systems]
    assert rows["gain over logistic regression, mean of speakers"].value == pytest.approx(means[0] - means[1])
    assert set(report.settings["chosen"]["speech-text adapter"].values()) <= {"narrow", "wide"}
    assert {example.hypothesis for example in report.examples} <= set(WORDS), "answers are closed"


def test_a_candidate_with_a_mistake_is_named(run):
    with pytest.raises(ValueError, match="'learnign_rate'"):
        run("--candidates", '{"one": {"learnign_rate": 1}}')
