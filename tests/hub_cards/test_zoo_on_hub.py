"""Every model of the zoo through a Hub: published, forgotten here, loaded by name with and without the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exported_cases import CHECKPOINTS
from loopback_hub import LoopbackHub
from safetensors import safe_open
from safetensors.torch import load_file
from speech_text_cases import Backbones

from speechzoo.hub_cards import checkpoint_probe
from speechzoo.hub_cards.code_verification import run_without_package

pytestmark = pytest.mark.slow

# Published from folders, but for those that name backbones of the Hub, whose commits they pin. Then the main branch of
# the LLM moves.
PUBLISH = """
import json, sys
from pathlib import Path

import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import speechzoo
from speechzoo.hub_cards.checkpoint_probe import probe
from speechzoo.hub_cards.code_export import export_code
from speechzoo.hub_cards.publishing import publish, publish_folder
from speechzoo.hub_cards.staged_checkpoint import stage_folder, stage_processor

torch.set_num_threads(1)
backbones, checkpoints, told = map(Path, sys.argv[1:4])

def said(folder):
    export_code(folder)
    return probe(folder)[0]

def remember(name, outputs):
    save_file(outputs, told / f"{name}.safetensors")

# What names folders is published whole. A weight that lies elsewhere in its file is rounded otherwise, in the last
# digit, so that what is equal bit for bit is the whole checkpoint here and there.
for folder in sorted(checkpoints.iterdir()):
    whole = told / folder.name
    whole.mkdir()
    stage_folder(folder, whole, save_backbones=False, offline=True)
    stage_processor(folder, whole, {}, to=None)
    outputs, original = said(whole), said(folder)
    assert outputs.keys() == original.keys()
    for key, tensor in original.items():
        torch.testing.assert_close(outputs[key], tensor, rtol=1e-5, atol=1e-6)
    remember(folder.name, outputs)
    publish_folder(folder, f"org/{folder.name}", verify=False)

for family in ("wav2vec2", "llama"):
    HfApi().create_repo(f"org/{family}", private=True)
    HfApi().upload_folder(repo_id=f"org/{family}", folder_path=backbones / family)
made = {
    "named": {},
    "named_composite": {
        "lora_modules": [r"language_model\\..*\\.(q_proj|v_proj)", r"audio_tower\\..*\\.(q_proj|v_proj)"],
        "new_tokens": ["<intent>", "<slots>"],
    },
    "named_shards": {},
}
for name, fields in made.items():
    torch.manual_seed(5)
    model = speechzoo.SpeechTextAdapterForConditionalGeneration.from_backbones("org/wav2vec2", "org/llama", **fields)
    processor = speechzoo.SpeechTextAdapterProcessor.from_model_config(model.config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    model.eval().save_pretrained(checkpoints / name)
    processor.save_pretrained(checkpoints / name)
    remember(name, said(checkpoints / name))
    if name == "named_shards":
        model.push_to_hub(f"org/{name}", max_shard_size="30KB")
        processor.push_to_hub(f"org/{name}")
    else:
        publish(model, processor, f"org/{name}", verify=name == "named_composite")

moved = AutoModelForCausalLM.from_pretrained("org/llama")
with torch.no_grad():
    for parameter in moved.parameters():
        parameter.mul_(-1)
moved.push_to_hub("org/llama", commit_message="The branch moves")
print(json.dumps(list(made)))
"""

LOAD = """
import sys
from pathlib import Path
from safetensors.torch import save_file
import torch
import speechzoo
from speechzoo.hub_cards.checkpoint_probe import probe

torch.set_num_threads(1)
for number, name in enumerate(sys.argv[2:]):
    outputs, classes = probe(name)
    save_file(outputs, Path(sys.argv[1]) / f"{number}.safetensors", metadata=classes)
print("no backbone was swapped so far", file=sys.stderr)
speechzoo.SpeechTextAdapterForConditionalGeneration.from_pretrained("org/named", text_model_revision="main")
"""


def run(hub: LoopbackHub, home: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = {**os.environ, **hub.environment(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A Hub with every model, what each said before, and nothing else that is left of them here."""
    folder = tmp_path_factory.mktemp("zoo")
    told = tmp_path_factory.mktemp("told")
    made = Backbones(folder / "backbones")
    for name in ("wav2vec2", "llama"):
        (made.encoder if name == "wav2vec2" else made.language_model)(name)
    for name, save in CHECKPOINTS.items():
        save(made, folder / "checkpoints" / name)
    with LoopbackHub() as hub:
        done = run(hub, folder / "home", PUBLISH, folder / "backbones", folder / "checkpoints", told)
        names = [*sorted(CHECKPOINTS), *json.loads(done.stdout.splitlines()[-1])]
        shutil.rmtree(folder)
        yield hub, {name: load_file(told / f"{name}.safetensors") for name in names}
        assert not hub.errors, hub.errors[0]


@pytest.mark.parametrize("where", ["with the package", "without it"])
def test_every_model_says_in_a_fresh_process_what_it_said(zoo, tmp_path, monkeypatch, where):
    hub, expected = zoo
    ids = [f"org/{name}" for name in expected]
    if where == "with the package":
        before, after = run(hub, tmp_path / "home", LOAD, tmp_path, *ids).stderr.split(
            "no backbone was swapped so far"
        )
        assert "now runs on" not in before and "now runs on 'org/llama' at main" in after
    else:
        for name, value in hub.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        run_without_package(Path(checkpoint_probe.__file__), str(tmp_path), "1", *ids)
    for number, (name, outputs) in enumerate(expected.items()):
        path = tmp_path / f"{number}.safetensors"
        with safe_open(path, "pt") as file:
            packages = {full.partition(".")[0] for full in file.metadata().values()}
        assert packages == {"speechzoo" if where == "with the package" else "transformers_modules"}, name
        found = load_file(path)
        assert found.keys() == outputs.keys() and found, name
        assert not [key for key, tensor in outputs.items() if not torch.equal(found[key], tensor)], name


def test_checkpoints_hold_what_was_trained_and_name_the_rest_by_commit(zoo, tmp_path):
    hub, _ = zoo
    pinned = {family: list(hub.repository(f"org/{family}").commits)[1] for family in ("wav2vec2", "llama")}
    assert hub.repository("org/llama").at("main").id != pinned["llama"], "the branch has moved"
    for name in ("named", "named_composite", "named_shards"):
        config = json.loads(hub.files(f"org/{name}")["config.json"])
        assert (config["audio_model_id"], config["text_model_id"]) == ("org/wav2vec2", "org/llama")
        assert (config["audio_model_revision"], config["text_model_revision"]) == (pinned["wav2vec2"], pinned["llama"])
    (tmp_path / "one.safetensors").write_bytes(hub.files("org/named_composite")["model.safetensors"])
    tensors = load_file(tmp_path / "one.safetensors")
    kinds = {kind: [name for name in tensors if kind in name] for kind in ("adapter", "lora_", "prompt_tokens")}
    assert all(kinds.values()) and sum(map(len, kinds.values())) == len(tensors)
    shards = [name for name in hub.files("org/named_shards") if name.startswith("model-")]
    assert len(shards) > 1 and "model.safetensors" not in hub.files("org/named_shards")


def test_every_repository_is_private_and_complete(zoo):
    hub, expected = zoo
    for name in expected:
        files = hub.files(f"org/{name}")
        assert hub.repository(f"org/{name}").private
        assert {"README.md", "config.json"} <= files.keys(), name
        assert f"org/{name}" in files["README.md"].decode() and "auto_map" in json.loads(files["config.json"])
