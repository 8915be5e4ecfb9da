"""The gate for new versions of libraries: what was published loads whole and computes what it did, or is refused."""

import json
import math
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from exported_cases import CHECKPOINTS
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from speechzoo import TextToUnitModel
from speechzoo.hub_cards import recorded_loss
from speechzoo.hub_cards.recorded_loss import CheckpointChangedError, check_loss, forget_weights, record_loss

ROOT = Path(__file__).parents[2]
PUBLISHED = sorted([*(ROOT / "examples" / "tiny_zoo").iterdir(), *(ROOT / "tests" / "published").iterdir()])


@pytest.fixture
def folder(backbones, tmp_path) -> Path:
    """A saved model with its recorded loss."""
    CHECKPOINTS["text_to_unit"](backbones, tmp_path / "saved")
    record_loss(tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_what_is_shipped_computes_what_it_did(folder, monkeypatch):
    monkeypatch.chdir(ROOT)  # some name their backbones from there
    assert math.isfinite(check_loss(folder))


def test_every_system_is_among_them():
    kinds = {json.loads((folder / "config.json").read_text())["model_type"] for folder in PUBLISHED}
    assert kinds == {"llama", "wav2vec2-bert"} | {
        *("seal_projector", "speech_text_adapter", "speech_units", "speechlm", "speechut", "sutlm", "text_to_unit")
    }
    assert not [path for folder in PUBLISHED for path in folder.glob("*.json") if "/tmp/" in path.read_text()]


@pytest.mark.parametrize("name", ["sutlm_labels", "speechlm_labels", "speechlm_ctc", "speechut_ctc"])
def test_fine_tuned_heads_can_be_recorded_too(backbones, tmp_path, name):
    CHECKPOINTS[name](backbones, tmp_path / name)
    assert record_loss(tmp_path / name) == check_loss(tmp_path / name)


def test_a_model_without_a_loss_is_refused(backbones, tmp_path):
    CHECKPOINTS["speechlm"](backbones, tmp_path / "headless")
    with pytest.raises(ValueError, match="there is no batch to try a model of AutoModel with"):
        record_loss(tmp_path / "headless")


def test_a_tensor_that_is_not_found_is_named(folder):
    rewrite(folder, lambda tensors: {name.replace("classifier", "head"): value for name, value in tensors.items()})
    with pytest.raises(CheckpointChangedError, match=r"does not load whole by AutoModel: .*'classifier\.bias'"):
        check_loss(folder)


def test_random_weights_are_found_where_the_loading_report_is_silent(folder, monkeypatch):
    """As when a library renames a module and ignores the old name."""
    rewrite(folder, lambda tensors: {name: value for name, value in tensors.items() if "classifier" not in name})
    monkeypatch.setattr(TextToUnitModel, "_keys_to_ignore_on_load_missing", [r"classifier"])
    with pytest.raises(CheckpointChangedError, match=r"the loss is \d+\.\d+ with .*, and was \d+\.\d+ with"):
        check_loss(folder)


def test_random_weights_are_found_below_a_head_alone(backbones, tmp_path, monkeypatch):
    CHECKPOINTS["sutlm"](backbones, tmp_path / "sutlm")
    record_loss(tmp_path / "sutlm")
    load = AutoModel.from_pretrained

    def wrongly(*given, **settings):
        model, info = load(*given, **settings)
        torch.nn.init.normal_(model.get_input_embeddings().weight)
        return model, info

    monkeypatch.setattr(AutoModel, "from_pretrained", wrongly)
    with pytest.raises(CheckpointChangedError, match=r"embed\S+' is another by AutoModel"):
        check_loss(tmp_path / "sutlm")


@pytest.mark.parametrize("value", [1.01, math.nan])
def test_weights_of_other_values_are_found(folder, value):
    rewrite(folder, lambda tensors: {n: v * value if n == "classifier.weight" else v for n, v in tensors.items()})
    with pytest.raises(CheckpointChangedError, match=r"do not use it with these versions"):
        check_loss(folder)


def test_weights_come_from_names_and_shapes_alone(folder, tmp_path):
    before = load_file(folder / "model.safetensors")
    forget_weights(folder)
    assert not (folder / "model.safetensors").exists()
    losses = [record_loss(folder), check_loss(folder)]
    with recorded_loss._with_weights(folder) as place:
        made = load_file(place / "model.safetensors")
    assert losses[0] == losses[1] and not (folder / "model.safetensors").exists()
    assert {name: value.shape for name, value in made.items()} == {name: value.shape for name, value in before.items()}
    assert torch.allclose(made["classifier.bias"][:2], torch.tensor([-0.1004, -0.1760]), atol=1e-4)


def test_what_was_not_recorded_and_half_precision_are_refused(folder, tmp_path):
    (folder / "recorded_loss.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"recorded_loss\.json; record the loss"):
        check_loss(folder)
    rewrite(folder, lambda tensors: {name: value.to(torch.bfloat16) for name, value in tensors.items()})
    with pytest.raises(ValueError, match=r"'\S+' is not in float32"):
        forget_weights(folder)


def test_the_script_ends_with_the_names_of_those_that_changed(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "broken")
    rewrite(tmp_path / "broken", lambda tensors: {name: 0 * value for name, value in tensors.items()})
    script = str(ROOT / "examples" / "check_published.py")
    monkeypatch.setattr(sys, "argv", [script, "--folders", str(folder), str(tmp_path / "broken")])
    with pytest.raises(SystemExit, match=r"broken: the loss is"):
        runpy.run_path(script, run_name="__main__")
    assert "saved: as recorded" in capsys.readouterr().out
