"""The script that trains text-to-unit models as a user runs it; a processor takes the folder it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from card_cases import check_card
from timed_corpus import TEXTS, unit_model, write_timed_corpus

from speechzoo import SpeechLMProcessor
from speechzoo.processing.feature_extraction_speechlm import SpeechLMFeatureExtractor
from speechzoo.processing.lexicon import Lexicon
from speechzoo.processing.processing_speechlm import letter_tokenizer

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "examples" / "train_text_to_unit.py"


def test_the_script_trains_tests_and_leaves_a_model(backbones, tmp_path):
    for part in unit_model(backbones):
        part.save_pretrained(tmp_path / "units")
    letters = Lexicon({word: tuple(word.upper()) for text in TEXTS for word in text.split()})
    (tmp_path / "lexicon.txt").write_text("\n".join(letters.lines()))
    values = {
        "speech_unit": {"unit_model": str(tmp_path / "units"), "store": str(tmp_path / "store")},
        "phone": {"lexicon": str(tmp_path / "lexicon.txt"), "sound_out": False, "aligner_rounds": 2},
        "text_to_unit": {"shape": {"hidden_size": 16}},
        "spoken_data": {
            "train_data": [str(write_timed_corpus(tmp_path / "train"))],
            "validation_data": [str(write_timed_corpus(tmp_path / "validation", TEXTS[:2], 40))],
            "test_data": {"tones": str(write_timed_corpus(tmp_path / "test", TEXTS[:3], 50))},
        },
        "text_to_unit_update": {"max_steps": 3, "batch_size": 2, "warmup_steps": 1},
        "text_to_unit_output": {"output_dir": str(tmp_path / "model"), "check": {"tones: unit_accuracy": 0.0}},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(values))  # JSON is YAML
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPEECHZOO_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(SCRIPT), "--config", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "model" / "report.json").read_text())
    rows = {row["name"] for row in report["measurements"]}
    measures = ("unit_accuracy", "duration_error", "unit_error_rate", "word_start_error")
    assert {f"tones: {measure}" for measure in measures} <= rows
    assert {f"tones: {measure} of the table" for measure in measures[:3]} <= rows
    assert {corpus["role"]: corpus["clips"] for corpus in report["corpora"]} == {
        "training": 5, "choosing settings": 2, "final test": 3,
    }  # fmt: skip
    check_card(tmp_path / "model")
    units = [str(unit) for unit in range(12)]
    processor = SpeechLMProcessor(SpeechLMFeatureExtractor(), letter_tokenizer(), units, letters, sound_out=False)
    processor.name_text_to_unit(str(tmp_path / "model"))
    assert set(processor.unit_ids(TEXTS[0])) <= set(range(4, 16))
