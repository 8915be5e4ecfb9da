"""The script that trains Seal's projector, whole and as a process: three ways to train, one report each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "examples" / "train_seal.py"


@pytest.fixture(scope="module")
def configuration(backbones, corpus_folder, tmp_path_factory):
    values = {
        "backbone": {
            "audio_model": str(backbones.encoder("hubert")),
            "text_model": str(backbones.language_model("llama")),
        },
        "alignment": {"answers": ["intent"], "answer_tokens": 3},
        "data": {
            "train_data": [f"{corpus_folder}@train"],
            "validation_data": [f"{corpus_folder}@test"],
            "test_data": {"tones": f"{corpus_folder}@test"},
            "tasks": {"asr": "text", "intent": "text"},
            "prompts": {"asr": "repeat {audio}", "intent": "{audio} please"},
            "metrics": {"asr": "wer", "intent": "wer"},
        },
        "optimization": {"max_steps": 2, "batch_size": 3, "warmup_steps": 0, "bf16": False, "cache_features": True},
        "seal_output": {"max_new_tokens": 3},
    }
    path = tmp_path_factory.mktemp("seal") / "run.yaml"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("flags", [[], ["--kept_tokens", "8"], ["--objective", "psrt"]], ids=str)
def test_a_run_ends_in_a_checkpoint_and_a_report_with_divergences(configuration, tmp_path, flags):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPEECHZOO_CACHE": str(tmp_path / "cache")}
    words = [SCRIPT, "--config", configuration, "--output_dir", tmp_path / "out", *flags]
    done = subprocess.run([sys.executable, *map(str, words)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(".projector." in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {(row["name"], row["metric"]) for row in report["measurements"]}
    assert rows == {
        (f"tones: {task}", metric) for task in ("asr", "intent") for metric in ("wer", "divergence, nats a token")
    }
    assert report["paper"] == "2407.14875" and report["system"] == "seal_projector"
    assert "seal_projector" in (tmp_path / "out" / "README.md").read_text()
