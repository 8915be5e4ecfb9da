"""The README's Python is run, block after block in one namespace, as a reader would type it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from exported_cases import CHECKPOINTS
from speech_text_cases import clip
from timed_corpus import unit_model

from speechzoo import SpeechTextAdapterProcessor, SUTLMProcessor
from speechzoo.processing.audio_loading import save_audio

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
# What only a Hub can show; the block before it loads the model.
PUBLISHING = [code for code in BLOCKS if "publish(" in code or "push_to_hub(" in code]
LOCAL = [code for code in BLOCKS if code not in PUBLISHING]
# Where the README's readers have folders of their own: tiny checkpoints of the same kinds.
FOLDERS = {
    "output/tiny_adapter": "adapter",
    "output/sutlm_tiny_zoo": "sutlm",
    "examples/tiny_zoo/speech_units": "units",
    "speechlm-p-base": "speechlm",
}
CORPORA = {"slurp": "slurp", "fsc": "fluent_speech_commands"}


@pytest.fixture(scope="module")
def home(backbones, tiny_corpora, tmp_path_factory) -> Path:
    """A folder with all that the README's code names."""
    home = tmp_path_factory.mktemp("reader")
    for folder, case in FOLDERS.items():
        CHECKPOINTS[case](backbones, home / folder)
    adapter = SpeechTextAdapterProcessor.from_pretrained(home / "output/tiny_adapter")
    adapter.prompts |= {"intent": "{audio} lights"}
    adapter.save_pretrained(home / "output/tiny_adapter")
    for part in unit_model(backbones):
        part.save_pretrained(home / "units")
    processor = SUTLMProcessor.from_pretrained(home / "output/sutlm_tiny_zoo")
    processor.name_unit_model(str(home / "units"))
    processor.save_pretrained(home / "output/sutlm_tiny_zoo")
    (home / "corpora").mkdir()
    for folder, name in CORPORA.items():
        (home / "corpora" / folder).symlink_to(tiny_corpora(name))
    save_audio(home / "recording.flac", 0.5 * clip(16000))
    return home


def training_clips() -> Dataset:
    """Three hours of clips by eight speakers, without their audio."""
    rows = range(2400)
    return Dataset.from_dict(
        {
            "id": [f"clip {row}" for row in rows],
            "duration": [4.6] * len(rows),
            "speaker": [f"speaker {row % 8}" for row in rows],
            "intent": [f"intent {row % 12}" for row in rows],
        }
    )


def test_every_model_that_is_loaded_is_known_here():
    named = set(re.findall(r"(?:from_pretrained\(|model=)\"([^\"]+)\"", "\n".join(BLOCKS)))
    assert named <= FOLDERS.keys(), "add a tiny checkpoint of that kind to FOLDERS"
    assert len(LOCAL) >= 7 and PUBLISHING


def test_the_python_of_the_readme_runs(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    names: dict[str, Any] = {"train": training_clips()}
    for number, code in enumerate(LOCAL, start=1):
        exec(compile(code, f"README.md, Python block {number}", "exec"), names)
    assert isinstance(names["slurp"].name, str) and len(names["ten_minutes"]) == 130  # of 4.6 s each
    assert names["heard"].shape[-1] == names["read"].shape[-1]


@pytest.mark.slow
def test_what_the_readme_publishes_reaches_a_hub(home, loopback_hub, tmp_path):
    environment = {**os.environ, **loopback_hub.environment(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    code = "\n".join([LOCAL[0], *PUBLISHING])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"config.json", "model.safetensors"} <= loopback_hub.files("you/your-model").keys()
