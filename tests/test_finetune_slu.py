"""The script for few-shot understanding as a user runs it, on tiny corpora in their layouts; its configurations."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from card_cases import check_card
from joint_encoder_cases import TINY
from transformers import AutoModelForCTC, AutoModelForSequenceClassification, AutoProcessor

from speechzoo import SpeechLMConfig, SpeechLMForPreTraining, SpeechLMProcessor
from speechzoo.data.corpora import load_corpus
from speechzoo.evaluation.sweep_cells import SweepArguments
from speechzoo.processing.processing_speechlm import letter_tokenizer
from speechzoo.processing.unit_vocabulary import UnitVocabulary
from speechzoo.training.command_line import parse_arguments
from speechzoo.training.slu_finetuning_arguments import (
    JointStartArguments,
    MarkDecodingArguments,
    SLUDataArguments,
    SLUOutputArguments,
    SLUTaskArguments,
    SLUUpdateArguments,
)

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "finetune_slu.py"
CONFIGS = ROOT / "examples" / "configs"
CONFIGURATIONS = sorted([*CONFIGS.glob("slu_*.yaml"), *CONFIGS.glob("slue_speechlm_*.yaml")])
SWEEPS = [CONFIGS / "sweeps" / f"slu_{task}.yaml" for task in ("intents", "sentiment", "entities")]
GROUPS = (
    JointStartArguments,
    SLUTaskArguments,
    SLUDataArguments,
    SLUUpdateArguments,
    MarkDecodingArguments,
    SLUOutputArguments,
)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A random pre-training checkpoint at 50 frames a second, whose units are all of English's phones."""
    folder, phones = tmp_path_factory.mktemp("pretrained"), UnitVocabulary.phones(positions=False)
    torch.manual_seed(0)
    sizes = {"unit_vocab_size": len(phones), "text_vocab_size": len(letter_tokenizer()), "label_rate": 50.0}
    convolutions = {"conv_dim": [16] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, *[2] * 6]}
    config = SpeechLMConfig(**{**TINY, **sizes, **convolutions, "max_unit_positions": 800})
    SpeechLMForPreTraining(config).save_pretrained(folder / "model-7")
    processor = SpeechLMProcessor.from_model_config(config, phones.symbols, lexicon=None)
    processor.save_pretrained(folder / "model-7")
    return folder


@pytest.fixture
def run(pretrained, tiny_corpora, tmp_path):
    """Runs the script for a few updates; what it leaves: its report, and the words it ended with."""

    def run(task: str, corpus: str, train_on: str, **groups: dict) -> tuple[dict, str]:
        source = f"{corpus}:{tiny_corpora(corpus)}"
        values = {
            "joint_start": {"model": str(pretrained / "model-{seed}"), "freeze_layers": 1},
            "slu_task": {"task": task, "train_on": train_on, "speech_minutes": 0.5, **groups.get("task", {})},
            "slu_data": {
                "speech_data": [f"{source}@train"],
                "text_data": [f"{source}@train"],
                "validation_data": [f"{source}@validation"],
                "test_data": {task: f"{source}@test"},
                **groups.get("data", {}),
            },
            "slu_update": {"max_steps": 4, "warmup_steps": 1, "hold_steps": 1, "head_only_steps": 1, "seed": 7}
            | {"batch_frames": 1500, "evaluations": 1, **groups.get("update", {})},
            "mark_decoding": {"beam": 10},
            "slu_output": {"output_dir": str(tmp_path / "tuned"), "hard_units": True, "examples": 2},
        }
        (tmp_path / "run.yaml").write_text(json.dumps(values))  # JSON is YAML
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPEECHZOO_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, str(SCRIPT), "--config", str(tmp_path / "run.yaml")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
        report = tmp_path / "tuned" / "report.json"
        return (json.loads(report.read_text()) if report.is_file() else {}), done.stdout + done.stderr

    return run


ROUTES = ("speech", "text", "hard units")


@pytest.mark.slow
@pytest.mark.parametrize(("train_on", "heard"), [("both", True), ("text", False)])
def test_sentiment_by_what_is_trained_on(run, tmp_path, train_on, heard):
    kept = {"load_best_model_at_end": True, "metric_for_best_model": "eval_{modality}_f1", "save_strategy": "steps"}
    update = {"training_arguments": {**kept, "save_steps": 4}}
    report, said = run("sentiment", "slue_voxceleb", train_on, update=update)
    assert report, said[-3000:]
    rows = {(row["name"], row["metric"]): row for row in report["measurements"]}
    assert {name for name, metric in rows if metric == "f1"} == {f"sentiment: {route}" for route in ROUTES}
    assert all({"chance", "majority", "low", "high"} <= row.keys() for row in rows.values())
    roles = {corpus["role"]: corpus["clips"] for corpus in report["corpora"]}
    assert ("training, speech" in roles) == heard and "training, text" in roles
    settings = report["settings"]
    assert settings["training_texts"] == roles["training, text"]
    assert settings["training_speech_clips"] == roles.get("training, speech", 0) < roles["training, text"]
    assert (0 < settings["training_speech_minutes"] <= 0.5) == heard
    assert set(settings["batches"]) == ({"speech", "text"} if heard else {"text"})
    assert report["history"][-1]["step"] == 4 and "text_f1" in report["history"][-1]["evaluation"]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert model.config.label2id == {"Negative": 0, "Neutral": 1, "Positive": 2}
    assert model.config.answers == {"sentiment": {}}
    check_card(tmp_path / "tuned")
    assert model.config.freeze_layers == 1 and (tmp_path / "tuned" / "learning_curve.png").is_file()


@pytest.mark.slow
def test_intents_from_speech_alone(run):
    report, said = run("intents", "fluent_speech_commands", "speech")
    assert report, said[-3000:]
    names = {row["name"] for row in report["measurements"]}
    assert names == {f"intents: {route}{part}" for route in ROUTES for part in ("", ", macro F1")}


@pytest.mark.slow
def test_entities_with_and_without_words(run, tmp_path):
    report, said = run("entities", "slue_voxpopuli", "both")
    assert report, said[-3000:]
    names = {row["name"] for row in report["measurements"]}
    ways = [route + decoding for route in ROUTES for decoding in ("", ", n-gram")]
    assert names == {f"entities: {way}{part}" for way in ways for part in ("", ", labels", ", words")}
    assert report["settings"]["too_short_for_ctc"] >= 0
    model, processor = (auto.from_pretrained(tmp_path / "tuned") for auto in (AutoModelForCTC, AutoProcessor))
    assert model.config.text_vocab_size == len(processor.tokenizer)


@pytest.mark.slow
def test_a_test_on_the_training_data_is_refused(run, tiny_corpora):
    again = f"slue_voxceleb:{tiny_corpora('slue_voxceleb')}@train"
    report, said = run("sentiment", "slue_voxceleb", "text", data={"test_data": {"again": again}})
    assert not report and "'again' shares" in said


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_configurations_are_read(path):
    start, task, data, update, decoding, _ = parse_arguments("", *GROUPS, argv=["--config", str(path)])
    SpeechLMConfig.preset("tiny", **start.model_fields)
    assert {*data.test_data} == {task.task} and task.temperature == 5
    if path.stem.startswith("slue_"):  # the published stages: 0.1, 0.4, 0.5
        assert (10 * update.warmup_steps, 10 * update.hold_steps) == (update.max_steps, 4 * update.max_steps)
        assert (update.final_scale, update.weight_decay) == (0.05, 0)
        assert (decoding.lm_order, decoding.lm_weight, decoding.word_score) == (4, 2.0, 1.0)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_vary_depth_and_training_data(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    [sweep] = parse_arguments("", SweepArguments, argv=["--config", str(path)])
    depths, amounts = set(), set()
    for cell in (cell for cell in sweep.cells if cell.seed == 0):
        start, task, data, update, decoding, output = parse_arguments("", *GROUPS, argv=sweep.words(cell)[1:])
        depths.add(start.freeze_layers)
        amounts.add((task.train_on, task.speech_minutes))
    of_intents = task.task == "intents"  # the others compare fewer depths, at one amount of speech
    measured = {"intents": {-1, 0, 1, 2, 3}, "sentiment": {-1, 0, 3}, "entities": {-1, 3}}
    assert depths == measured[task.task] and update.max_steps == sweep.budget["max_steps"]
    assert (10 * update.warmup_steps, 10 * update.hold_steps) == (update.max_steps, 4 * update.max_steps)
    assert {("text", None), ("speech", None)} <= amounts
    assert len({minutes for kind, minutes in amounts if kind == "both"}) == (5 if of_intents else 1)
    ways = [route + decoding_name for route in ROUTES for decoding_name in ("", ", n-gram")[: 1 + bool(decoding.beam)]]
    assert output.hard_units and {*data.test_data} == {task.task}
    assert {shown.name.removesuffix(", labels").removesuffix(", accuracy") for shown in sweep.measurements} == {
        f"{task.task}: {way}" for way in ways
    }


def test_every_speaker_of_the_human_digits_is_left_out_in_turn(monkeypatch):
    monkeypatch.chdir(ROOT)
    [sweep] = parse_arguments("", SweepArguments, argv=["--config", str(CONFIGS / "sweeps" / "slu_digits.yaml")])
    left_out = []
    for cell in (cell for cell in sweep.cells if cell.seed == 0 and cell.labels["trained_on"] == "text"):
        _, _, data, update, _, _ = parse_arguments("", *GROUPS, argv=sweep.words(cell)[1:])
        left_out.append(data.left_out_speakers)
    assert left_out == [["george"], ["jackson"], ["theo"], ["yweweler"]] and update.max_steps == 200


@pytest.mark.slow
def test_speakers_who_are_left_out_are_tested_alone(run, tiny_corpora):
    corpus = f"fluent_speech_commands:{tiny_corpora('fluent_speech_commands')}"
    speakers = sorted(set(load_corpus(corpus, "train")["speaker"]))
    asked = {"test_data": {"intents": f"{corpus}@train"}, "validation_data": [], "left_out_speakers": speakers[:1]}
    report, said = run("intents", "fluent_speech_commands", "both", data=asked)
    assert report, said[-3000:]
    corpora = {row["role"]: row for row in report["corpora"]}
    assert corpora["final test"]["speakers"] == 1
    assert corpora["training, speech"]["speakers"] <= len(speakers) - 1 == corpora["training, text"]["speakers"]


@pytest.mark.slow
def test_speech_and_text_are_correlated_over_seeds(pretrained, tiny_corpora, tmp_path):
    shutil.copytree(pretrained / "model-7", tmp_path / "model-7")
    shutil.copytree(pretrained / "model-7", tmp_path / "model-8")
    corpus = f"fluent_speech_commands:{tiny_corpora('fluent_speech_commands')}@test"
    command = [sys.executable, str(ROOT / "examples" / "neuron_correlation.py"), "--data", corpus, "--clips", "5"]
    command += ["--models", json.dumps({"random": str(tmp_path / "model-{seed}")}), "--seeds", "7", "8"]
    command += ["--results_file", str(tmp_path / "found.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPEECHZOO_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "found.json").read_text())
    row = report["measurements"][0]
    assert row["name"] == "random: layer 0" and row["low"] == row["high"] == row["value"], "two equal models"
    assert [one["id"] for one in report["backbones"]] == ["model-7", "model-8"]
    assert not any(one["on_hub"] for one in report["backbones"])
    assert (tmp_path / "found.png").is_file()
