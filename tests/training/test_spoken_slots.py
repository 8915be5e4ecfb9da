"""The script that fills slots over folds of speakers, run whole on toy backbones: who hears whom, and the report."""

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
GROUPS = ("g1-1", "g1-2", "g2-1", "g3-1", "g4-1", "g4-3")
PITCH = {"mocha": 300, "latte": 1500}


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("script", ROOT / "examples" / "spoken_slots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save_orders(folder: Path, groups: tuple[str, ...], clips: int) -> Path:
    """Tones that say the drink by their pitch and the size by their loudness; every third order has no size."""
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for group in groups:
        for number in range(clips):
            slots = {"drink": ("mocha", "latte")[number % 2]} | ({"size": "large"} if number % 3 else {})
            tone = np.sin(2 * np.pi * PITCH[slots["drink"]] * np.arange(4800 + 160 * number) / 16_000)
            name = f"{folder.name}-{group}-{number}"
            loud = tone * (0.5 if "size" in slots else 0.05)
            soundfile.write(folder / f"{name}.wav", loud + rng.normal(0, 1e-3, len(tone)), 16_000)
            lines.append({"id": name, "audio": f"{name}.wav", "speaker_group": group, "slots": slots})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("first", [False, True], ids=["people alone", "other orders first"])
def test_folds_keep_people_apart(script, tmp_path, monkeypatch, first):
    data = save_orders(tmp_path / "orders", GROUPS, 6)
    other = save_orders(tmp_path / "other", ("voice",), 6)
    trained, answered = [], []

    def keep(model, processor, examples, optimization, plain=adapter_learner.keep_encoder_frames):
        trained.append([name for rows in examples for name in rows["id"]])
        return plain(model, processor, examples, optimization)

    def answer(model, processor, examples, decoding, plain=script.answer_speech):
        answered.append(list(examples["id"]))
        return plain(model, processor, examples, decoding)

    monkeypatch.setattr(adapter_learner, "keep_encoder_frames", keep)
    monkeypatch.setattr(script, "answer_speech", answer)
    backbones = {
        "audio_model": save_encoder("w2v-bert", tmp_path / "encoder"),
        "text_model": save_language_model("llama", tmp_path / "language_model"),
    }
    flags = {"epochs": 1, "batch_size": 16, "folds": 3, "copies": 1, "max_new_tokens": 4, "audio_token": "<audio>"}
    flags |= {
        "prompt": "order {audio}",
        "cache_directory": tmp_path / "kept",
        "results_file": tmp_path / "report.json",
    }
    words = [word for name, value in {**backbones, **flags}.items() for word in (f"--{name}", str(value))]
    sources = ["--first_data", str(other)] if first else ["--first_data"]
    monkeypatch.setattr(sys, "argv", ["spoken_slots.py", "--data", str(data), *words, *sources])
    script.main()

    started = [names for names in trained if any(name.startswith("other") for name in names)]
    assert len(started) == first and all(len(names) == 6 for names in started)
    folds = [names for names in trained if names not in started]
    assert len(folds) == len(answered) == 3
    for heard, tested in zip(folds, answered, strict=True):
        numbers = [{name.split("-")[1] for name in names} for names in (heard, tested)]
        assert not numbers[0] & numbers[1], "no first number on both sides"
        assert len(heard) == 2 * (36 - len(tested)), "each clip and its copy"
    assert sorted(name for names in answered for name in names) == sorted(
        f"orders-{group}-{number}" for group in GROUPS for number in range(6)
    )

    rows = {row.name: row for row in read_report(tmp_path / "report.json").measurements}
    assert rows["logistic regression, slots"].value == 1.0, "tones are easy"
    constant = rows["most frequent value in every slot, slots"]
    # Half of the drinks, and all of the 24 sizes; no size is asked for 12 times.
    assert constant.value == pytest.approx(2 * (18 + 24) / (36 + 36 + 36 + 24))
    gain = rows["gain over logistic regression, slots"]
    assert gain.value == pytest.approx(rows["speech-text adapter, slots"].value - 1)
    assert (gain.speakers, gain.resampled) == (4, "speakers")
