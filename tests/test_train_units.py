"""The script that trains codebooks as a user runs it; the folder it leaves takes a waveform."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from card_cases import check_card
from timed_corpus import write_timed_corpus
from transformers import AutoModel, AutoProcessor

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "examples" / "train_units.py"


def test_the_script_trains_compares_layers_and_leaves_a_model(backbones, tmp_path):
    corpus = str(write_timed_corpus(tmp_path / "corpus"))
    values = {
        "unit": {"audio_model": str(backbones.encoder("hubert")), "layer": 1, "clusters": 12},
        "data": {"train_data": [corpus], "test_data": [corpus]},
        "training": {"batch_frames": 100, "compared_layers": [2]},
        "output": {"output_dir": str(tmp_path / "units"), "results_file": str(tmp_path / "result.json")},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(values))  # JSON is YAML
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPEECHZOO_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(SCRIPT), "--config", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "result.json").read_text())
    assert {row["name"] for row in report["measurements"]} == {"layer 1", "layer 2"}
    assert report["parameters"]["trainable"] == 12 * 32 < report["parameters"]["total"]
    assert report["backbones"][0]["id"] == "hubert" and report["backbones"][0]["revision"]
    check_card(tmp_path / "units")
    assert "(layers.png)" in (tmp_path / "units" / "README.md").read_text()
    model, processor = (auto.from_pretrained(tmp_path / "units") for auto in (AutoModel, AutoProcessor))
    [frames] = model.extract(**processor(next((tmp_path / "corpus" / "audio").glob("*.wav"))))
    assert set(processor.units(frames).units) <= set(range(12))
