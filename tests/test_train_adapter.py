"""The training script as a user runs it: trained, tested, published to a Hub, loaded back in a fresh process."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub
from safetensors.torch import load_file, save_file

from speechzoo import SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterProcessor
from speechzoo.hub_cards.code_verification import run_without_package

SCRIPT = Path(__file__).parents[1] / "examples" / "train_adapter.py"
LOAD = """
import sys, json
import speechzoo, torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM, AutoProcessor

torch.set_num_threads(1)
model, info = AutoModelForMultimodalLM.from_pretrained("org/adapter", output_loading_info=True)
assert not any(info.values()), info
processor = AutoProcessor.from_pretrained("org/adapter")
batch = processor(processor.prompt("asr"), sys.argv[1], targets="heat up", return_tensors="pt")
with torch.no_grad():
    save_file({"logits": model.eval()(**batch, return_logits=True).logits.contiguous()}, sys.argv[2])
"""


def run(command, **environment):
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *map(str, command)], env=settings, capture_output=True, text=True, timeout=600
    )


@dataclass
class Run:
    output: Path
    corpus: Path
    hub: LoopbackHub
    text: str
    environment: dict[str, str]
    configuration: Path


@pytest.fixture(scope="module")
def trained(backbones, corpus_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    configuration = folder / "run.yaml"
    values = {
        "backbone": {
            "audio_model": str(backbones.encoder("hubert")),
            "text_model": str(backbones.language_model("llama")),
        },
        "adapter": {"reduction": "stack"},
        "data": {
            "train_data": [f"{corpus_folder}@train"],
            "validation_data": [f"{corpus_folder}@test"],
            "test_data": {"tones": f"{corpus_folder}@test"},
            "tasks": {"asr": "text", "intent": "intent"},
            "prompts": {"asr": "transcribe {audio}", "intent": "{audio} please"},
            "data_license": "our own",
        },
        "optimization": {
            "max_steps": 4,
            "batch_size": 3,
            "warmup_steps": 1,
            "training_arguments": {"save_total_limit": 2},
            "cache_features": True,
            "bf16": False,
        },
        "output": {
            "output_dir": str(folder / "adapter"),
            "save_steps": 2,
            "max_new_tokens": 3,
            "card_title": "Tones",
            "card_language": ["de", "en"],
            "card_license": "mit",
        },
    }
    configuration.write_text(json.dumps(values))  # JSON is YAML
    with LoopbackHub() as hub:
        environment = {**hub.environment(folder / "home"), "SPEECHZOO_CACHE": str(folder / "cache")}
        words = ["--config", configuration, "--learning_rate", "0.01", "--push_to_hub", "org/adapter"]
        done = run([SCRIPT, *words], **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        yield Run(folder / "adapter", corpus_folder, hub, done.stdout, environment, configuration)
        assert not hub.errors, hub.errors[0]


def test_everything_is_there(trained):
    names = {path.name for path in trained.output.iterdir()}
    assert {"model.safetensors", "config.json", "processor_config.json", "report.json", "README.md"} <= names
    assert (trained.output / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert all(".adapter." in name for name in load_file(trained.output / "model.safetensors"))
    assert "reloaded in a fresh process with equal logits" in trained.text
    assert "trained" in trained.text and "  wanted  " in trained.text
    card = (trained.output / "README.md").read_text()
    assert card.startswith("---") and "# Tones" in card
    assert "license: mit\n" in card and "language:\n- de\n- en\n" in card


def test_the_report_says_what_was_run(trained):
    report = json.loads((trained.output / "report.json").read_text())
    assert [row["name"] for row in report["measurements"]] == ["tones: asr"]  # no test clip has an intent
    row = report["measurements"][0]
    assert (row["metric"], row["items"]) == ("wer", 2) and row["topline"] is not None
    assert report["settings"]["learning_rate"] == 0.01 and report["settings"]["updates"] == 4
    assert len(report["history"]) >= 4 and report["parameters"]["trainable"] < report["parameters"]["total"]
    assert "train_adapter.py" in report["command"]
    used = {corpus["role"]: corpus["clips"] for corpus in report["corpora"]}
    assert used == {"training": 6, "choosing settings": 2, "final test": 2}
    assert {corpus["role"]: corpus.get("license") for corpus in report["corpora"]}["training"] == "our own"
    (tested,) = (corpus for corpus in report["corpora"] if corpus["role"] == "final test")
    assert tested["name"] == row["dataset"] == f"{trained.corpus}@test" and not tested.get("license")


def test_what_was_published_comes_back_by_name_in_a_fresh_process(trained, tmp_path):
    files = trained.hub.files("org/adapter")
    assert {"model.safetensors", "config.json", "processor_config.json", "README.md", "report.json"} <= files.keys()
    assert {"learning_curve.png", "modeling_speech_text_adapter.py"} <= files.keys()
    assert len(trained.hub.repository("org/adapter").commits) == 2, "the first one, and all of this"
    # Its backbones are folders, so they went along.
    assert json.loads(files["config.json"])["audio_model_id"] is None
    assert json.loads(files["report.json"])["self_contained"] is True
    assert "The backbones are in this repository too" in files["README.md"].decode()
    assert trained.hub.repository("org/adapter").private
    clip, told = trained.corpus / "audio/3.flac", tmp_path / "logits.safetensors"
    environment = {**trained.environment, "HF_HOME": str(tmp_path / "home")}
    done = run(["-c", LOAD, clip, told], **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    model = SpeechTextAdapterForConditionalGeneration.from_pretrained(trained.output).eval()
    processor = SpeechTextAdapterProcessor.from_pretrained(trained.output)
    batch = processor(processor.prompt("asr"), str(clip), targets="heat up", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(load_file(told)["logits"], model(**batch, return_logits=True).logits)


WITHOUT_PACKAGE = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM

torch.set_num_threads(1)
model = AutoModelForMultimodalLM.from_pretrained("org/launched", trust_remote_code=True).eval()
with torch.no_grad():
    save_file({"logits": model(**load_file(sys.argv[1]), return_logits=True).logits.contiguous()}, sys.argv[2])
"""


@pytest.mark.slow
def test_one_command_trains_and_publishes_for_those_who_lack_the_package(trained, tmp_path, monkeypatch):
    words = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu", SCRIPT, "--config"]
    words += [trained.configuration, "--output_dir", tmp_path / "launched", "--push_to_hub", "org/launched"]
    done = run(words, **trained.environment)
    assert done.returncode == 0, done.stderr[-3000:]
    repository = trained.hub.repository("org/launched")
    assert f"published: {trained.hub.url}/org/launched/commit/{repository.at('main').id}" in done.stdout
    report = json.loads(trained.hub.files("org/launched")["report.json"])
    card = ModelCard(trained.hub.files("org/launched")["README.md"].decode())
    measured = {row["name"]: row["value"] for row in report["measurements"]}
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == measured
    model = SpeechTextAdapterForConditionalGeneration.from_pretrained(tmp_path / "launched").eval()
    processor = SpeechTextAdapterProcessor.from_pretrained(tmp_path / "launched")
    batch = processor(
        processor.prompt("asr"), str(trained.corpus / "audio/3.flac"), targets="heat up", return_tensors="pt"
    )
    save_file(dict(batch), tmp_path / "batch.safetensors")
    script, told = tmp_path / "load.py", tmp_path / "logits.safetensors"
    script.write_text(WITHOUT_PACKAGE)
    for name, value in {**trained.environment, "HF_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    run_without_package(script, str(tmp_path / "batch.safetensors"), str(told))
    with torch.no_grad():
        assert torch.equal(load_file(told)["logits"], model(**batch, return_logits=True).logits)


@pytest.mark.slow
def test_lora_through_a_quantized_llm_is_trained_published_and_told(trained, tmp_path):
    pytest.importorskip("bitsandbytes")
    words = ["--config", trained.configuration, "--output_dir", tmp_path / "tuned", "--push_to_hub", "org/tuned"]
    words += ["--lora_modules", r"language_model\..*\.(q_proj|v_proj)", r"audio_tower\..*\.(q_proj|v_proj)"]
    words += ["--lora_rank", "4", "--quantization", "4bit"]
    refused = run([SCRIPT, *words], **trained.environment)
    assert refused.returncode and "leave out cache_features, or of unfrozen and lora_modules" in refused.stderr
    done = run([SCRIPT, *words, "--no_cache_features"], **trained.environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "reloaded in a fresh process with equal logits" in done.stdout
    tensors = load_file(tmp_path / "tuned/model.safetensors")
    assert all(".adapter." in name or "lora_" in name for name in tensors)
    assert {name.split(".")[1] for name, tensor in tensors.items() if "lora_B" in name and tensor.any()} == {
        "audio_tower",
        "language_model",
    }
    files = trained.hub.files("org/tuned")
    settings = json.loads(files["report.json"])["settings"]
    assert (settings["quantization"], settings["lora_rank"], len(settings["lora_modules"])) == ("4bit", 4, 2)
    assert "| language model in 4 bits with LoRA of rank 4 |" in files["README.md"].decode()
    told = []
    for source in ("org/tuned", tmp_path / "tuned"):
        told.append(tmp_path / f"{len(told)}.safetensors")
        load = LOAD.replace("org/adapter", str(source))
        done = run(["-c", load, trained.corpus / "audio/3.flac", told[-1]], **trained.environment)
        assert done.returncode == 0, done.stderr[-3000:]
    published, local = (load_file(path)["logits"] for path in told)
    assert torch.equal(published, local)


@pytest.mark.slow
def test_an_interrupted_run_is_resumed(trained, tmp_path):
    """From its first checkpoint, as an interruption would leave it, to the same weights."""
    folder = tmp_path / "adapter"
    shutil.copytree(trained.output / "checkpoints" / "checkpoint-2", folder / "checkpoints" / "checkpoint-2")
    words = ["--config", trained.configuration, "--learning_rate", "0.01", "--output_dir", folder, "--resume"]
    done = run([SCRIPT, *words], **trained.environment)
    assert done.returncode == 0, done.stderr[-3000:]
    expected, resumed = (load_file(path / "model.safetensors") for path in (trained.output, folder))
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.items())


def test_mistakes_end_with_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong.yaml").write_text("optimization: {learning_rat: 0.01}")
    for words, message in (
        (["--learning_rat", "0.01"], "unknown argument '--learning_rat'"),
        (["--config", str(tmp_path / "wrong.yaml")], "unknown key 'learning_rat'"),
    ):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert message in error and "learning_rate" in error
