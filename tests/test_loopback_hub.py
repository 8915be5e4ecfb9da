"""The real clients against the loopback Hub: a process publishes, empties its caches, and loads."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub

pytestmark = pytest.mark.slow  # two processes import all the clients

PUBLISH = """
import sys
from pathlib import Path
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import HfApi, ModelCard, ModelCardData, create_repo, upload_folder
from transformers import LlamaConfig, LlamaForCausalLM

sizes = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(**sizes))
with torch.no_grad():
    model.lm_head.weight.fill_(1.0)
model.push_to_hub("org/lm")
HfApi().create_tag("org/lm", tag="v1")
with torch.no_grad():
    model.lm_head.weight.fill_(2.0)
model.push_to_hub("org/lm", commit_message="twos")
data = ModelCardData(language="en", license="apache-2.0", library_name="transformers", tags=["speech"])
ModelCard(f"---\\n{data.to_yaml()}\\n---\\n# A small model\\n").push_to_hub("org/lm")

create_repo("org/files", private=True)
folder = Path(sys.argv[1])
(folder / "inner").mkdir()
(folder / "inner" / "big.bin").write_bytes(bytes(range(256)) * 300)
(folder / "note.txt").write_text("small")
upload_folder(repo_id="org/files", folder_path=folder, commit_message="both files")
HfApi().create_branch("org/files", branch="draft")
HfApi().delete_file("note.txt", repo_id="org/files", revision="draft")

train = Dataset.from_dict({"text": ["one", "two", "three"], "label": [1, 2, 3]})
test = Dataset.from_dict({"text": ["four"], "label": [4]})
DatasetDict({"train": train, "test": test}).push_to_hub("org/rows")
"""

LOAD = """
import json, os, shutil
from datasets import load_dataset
from huggingface_hub import list_repo_files, model_info, snapshot_download
from transformers import AutoModelForCausalLM

shutil.rmtree(os.environ["HF_HOME"])

def head(**keywords):
    model, report = AutoModelForCausalLM.from_pretrained("org/lm", output_loading_info=True, **keywords)
    assert not any(report.values()), report
    return model.lm_head.weight.unique().tolist()

folder = Path(snapshot_download("org/files"))
rows, info, api = load_dataset("org/rows"), model_info("org/lm"), HfApi()
print(json.dumps({
    "main": head(), "v1": head(revision="v1"),
    "commit": head(revision=next(c.commit_id for c in api.list_repo_commits("org/lm") if c.title == "twos")),
    "titles": [commit.title for commit in api.list_repo_commits("org/lm")],
    "tags": [tag.name for tag in api.list_repo_refs("org/lm").tags],
    "card": ModelCard.load("org/lm").data.to_dict(), "library": info.library_name, "info_tags": info.tags,
    "snapshot": {str(f.relative_to(folder)): f.stat().st_size for f in folder.rglob("*") if f.is_file()},
    "private": model_info("org/files").private, "draft": list_repo_files("org/files", revision="draft"),
    "branches": sorted(branch.name for branch in api.list_repo_refs("org/files").branches),
    "train": rows["train"].to_dict(), "test": rows["test"].to_dict(),
    "streamed": [row["text"] for row in load_dataset("org/rows", split="train", streaming=True)],
    "missing": api.repo_exists("org/nothing"), "no file": api.file_exists("org/lm", "nothing.bin"),
    "no revision": api.revision_exists("org/lm", "v2"),
}))
"""


def run_client(hub: LoopbackHub, home: Path, script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    environment = {**os.environ, **hub.environment(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoopbackHub, dict[str, Any]]]:
    """A Hub to which a process has published, and what it then found there; one process, for its imports are slow."""
    with LoopbackHub() as hub:
        home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("folder")
        printed = run_client(hub, home, PUBLISH + LOAD, str(folder))
        yield hub, json.loads(printed.splitlines()[-1])
        assert not hub.errors, hub.errors[0]


@pytest.fixture(scope="module")
def hub(client: tuple[LoopbackHub, dict[str, Any]]) -> LoopbackHub:
    return client[0]


@pytest.fixture(scope="module")
def loaded(client: tuple[LoopbackHub, dict[str, Any]]) -> dict[str, Any]:
    return client[1]


def test_a_model_comes_back_by_name_tag_and_commit(loaded):
    assert (loaded["main"], loaded["v1"], loaded["commit"]) == ([2.0], [1.0], [2.0])
    assert loaded["tags"] == ["v1"]
    assert loaded["titles"][1:] == ["twos", "Upload LlamaForCausalLM", "initial commit"]


def test_a_card_comes_back_and_describes_the_repository(loaded):
    assert loaded["card"] == {
        "language": "en",
        "license": "apache-2.0",
        "library_name": "transformers",
        "tags": ["speech"],
    }
    assert (loaded["library"], loaded["info_tags"]) == ("transformers", ["speech"])


def test_a_folder_comes_back(loaded):
    assert loaded["snapshot"] == {".gitattributes": 50, "inner/big.bin": 76800, "note.txt": 5}
    assert loaded["private"] is True


def test_branches_keep_their_own_files(loaded):
    assert loaded["branches"] == ["draft", "main"]
    assert loaded["draft"] == [".gitattributes", "inner/big.bin"]


def test_a_dataset_comes_back(loaded):
    assert loaded["train"] == {"text": ["one", "two", "three"], "label": [1, 2, 3]}
    assert loaded["test"] == {"text": ["four"], "label": [4]}
    assert loaded["streamed"] == ["one", "two", "three"]


def test_what_is_not_there_is_reported_missing(loaded):
    assert not loaded["missing"] and not loaded["no file"] and not loaded["no revision"]


def test_what_was_pushed_can_be_looked_at(hub):
    assert hub.files("org/files")["inner/big.bin"] == bytes(range(256)) * 300
    assert hub.files("org/lm")["README.md"] != hub.files("org/lm", revision="v1").get("README.md")
    assert any(request.startswith("PUT /lfs-objects/") for request in hub.requests)
    assert hub.repository("org/lm").at("main").tree["model.safetensors"].large


def test_changing_needs_the_token(hub):
    request = urllib.request.Request(hub.url + "/api/repos/create", data=b'{"name": "stolen"}', method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 401
    assert ("model", "org/stolen") not in hub.repositories


def test_bad_metadata_of_a_card_is_refused(hub):
    body = json.dumps({"repoType": "model", "content": "---\ntags: [unclosed\n---\n"}).encode()
    request = urllib.request.Request(hub.url + "/api/validate-yaml", data=body, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400


def test_a_fresh_hub_is_empty(loopback_hub, hub):
    assert loopback_hub.url != hub.url
    assert not loopback_hub.repositories
