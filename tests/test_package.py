"""The house keeps its order: folders, layers, names, sizes, and what importing the package does."""

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
PACKAGE_FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
SCRIPT_FOLDERS = ["examples", "benchmarks", "tests"]
# Modules that `evaluate` copies and runs on their own: data of the package, which they import as any user does.
COPIED_CODE = ROOT / "evaluation" / "metrics"

# A module may import its own folder and those of earlier layers; folders of one layer do not import each other.
LAYERS = [
    {"configuration"},
    {"modeling", "processing"},
    {"data"},
    {"training", "evaluation"},
    {"pipelines"},
    {"hub_cards"},
    {"zoo"},
]
LAYER_OF = {folder: number for number, layer in enumerate(LAYERS) for folder in layer}
# The export of code for the Hub follows `from .module import name` and nothing else.
EXPORTED = {"configuration", "modeling", "processing", "pipelines"}
# Reads pickles of others, by an unpickler that runs nothing of theirs.
READS_PICKLES = ROOT / "hub_cards" / "original_checkpoints.py"
UNWANTED = {"torchaudio", "torchcodec", "librosa", "pickle", "cPickle", "dill", "cloudpickle", "ffmpeg", "pydub"}
MOST_LINES = 500


def modules(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if COPIED_CODE not in path.parents]


def imports(path: Path) -> Iterator[tuple[int, str, int]]:
    """Line, module and level (the number of leading dots) of every import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "", node.level
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)


def misplaced_imports(path: Path, folder: str) -> list[str]:
    """What is wrong with the imports of a module of `folder`, one line each."""
    faults = []
    for line, module, level in imports(path):
        first = module.split(".")[0]
        # The root of the package is the folder zoo; everywhere else it is one level up.
        target = first if level == (1 if folder == "zoo" else 2) else folder
        if level == 0 and first in {"speechzoo", *LAYER_OF}:
            faults.append(f"{path.name}:{line}: import {module}: write a relative import")
        elif not module and (level > 1 or folder in EXPORTED):
            faults.append(f"{path.name}:{line}: name the module: from ..folder.module import name")
        elif level and target != folder and LAYER_OF.get(target, 99) >= LAYER_OF[folder]:
            faults.append(f"{path.name}:{line}: {folder} must not import {target}")
    return faults


# --- folders ---


def test_the_package_list_equals_the_folders():
    expected = {"speechzoo" if folder == "zoo" else f"speechzoo.{folder}": folder for folder in PACKAGE_FOLDERS}
    assert SETUPTOOLS["package-dir"] == expected
    assert sorted(SETUPTOOLS["packages"]) == sorted(expected)
    assert set(PACKAGE_FOLDERS) <= set(LAYER_OF), "a new folder belongs in LAYERS"


def test_package_folders_hold_no_folders_of_code():
    nested = [path for folder in PACKAGE_FOLDERS for path in (ROOT / folder).glob("*/**/*.py")]
    assert {path.parents[1] for path in nested} <= {COPIED_CODE}, "setuptools would not install them"


def test_copied_code_imports_the_package_by_name():
    """One module a folder, called like it; where it is copied to, it has no siblings."""
    for path in COPIED_CODE.rglob("*.py"):
        assert path.stem == path.parent.name
        assert all(level == 0 for _, _, level in imports(path))


def test_every_data_file_is_installed():
    """What is not code reaches an installed package only through a pattern in package-data."""
    for package, folder in SETUPTOOLS["package-dir"].items():
        patterns = SETUPTOOLS["package-data"].get(package, [])
        files = [path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()]
        files = [name for name in files if not name.endswith(".pyc") and ("/" in name or not name.endswith(".py"))]
        assert not [name for name in files if not any(fnmatch(name, pattern) for pattern in patterns)], folder


def test_file_names_are_unique_over_all_folders():
    """So that the export for the Hub can lay them flat."""
    paths = [*modules(*PACKAGE_FOLDERS), *COPIED_CODE.rglob("*.py")]
    names = Counter(path.name for path in paths if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


# --- code ---


def test_imports_run_one_way():
    assert not [
        fault for folder in PACKAGE_FOLDERS for path in modules(folder) for fault in misplaced_imports(path, folder)
    ]


@pytest.mark.parametrize(
    ("folder", "code", "needle"),
    [
        ("modeling", "from ..processing.x import y", "modeling must not import processing"),
        ("processing", "from ..modeling.x import y", "processing must not import modeling"),
        ("configuration", "def f():\n    from ..modeling.x import y", "configuration must not import modeling"),
        ("data", "from ..training.x import y", "data must not import training"),
        ("evaluation", "from .. import zoo", "name the module"),
        ("modeling", "from . import x", "name the module"),
        ("training", "from ..elsewhere.x import y", "training must not import elsewhere"),
        ("data", "from speechzoo.modeling.x import y", "relative"),
        ("data", "import processing.x", "relative"),
        ("data", "from ..processing.x import y", None),
        ("data", "from .y import z\nimport torch\nfrom transformers.x import modeling", None),
        ("zoo", "from .modeling.x import y", None),
    ],
)
def test_the_rule_of_imports_finds_offenders(tmp_path, folder, code, needle):
    (tmp_path / "module.py").write_text(code)
    faults = misplaced_imports(tmp_path / "module.py", folder)
    assert (needle in faults[0]) if needle else not faults


def test_unwanted_libraries_stay_out():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in modules(*PACKAGE_FOLDERS, "examples", "benchmarks")
        for line, module, level in imports(path)
        if level == 0 and module.split(".")[0] in UNWANTED and (path, module) != (READS_PICKLES, "pickle")
    ]
    assert not found


def test_weights_are_not_pickled():
    """`torch.load` and `torch.save` are pickle by another name; safetensors takes their place."""
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules(*PACKAGE_FOLDERS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("torch.load", "torch.save")
        and (path, ast.unparse(node)) != (READS_PICKLES, "torch.load")
    ]
    assert not calls


def test_no_file_is_long():
    lengths = {path: len(path.read_text().splitlines()) for path in modules(*PACKAGE_FOLDERS, *SCRIPT_FOLDERS)}
    assert not {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > MOST_LINES}


# --- importing ---

IMPORT = """
import json, sys
touched = []
events = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "subprocess.Popen")
sys.addaudithook(lambda event, arguments: touched.append([event, repr(arguments)]) if event in events else None)
import speechzoo
network = [event for event in touched if event[0].startswith("socket")]
import torch, transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
import speechzoo.evaluation.learning_curve

autos = ("AutoModel", "AutoModelForMultimodalLM", "AutoModelForSpeechSeq2Seq", "AutoModelForCausalLM")
autos += ("AutoModelForSequenceClassification", "AutoModelForAudioClassification", "AutoModelForCTC")
autos += ("AutoModelForPreTraining",)
public = {name: getattr(speechzoo, name) for name in speechzoo.__all__}
classes = {name: member for name, member in public.items() if isinstance(member, type)}
configs = {name: member for name, member in classes.items() if issubclass(member, transformers.PreTrainedConfig)}
models = [name for name, member in classes.items() if issubclass(member, transformers.PreTrainedModel)]
registered = {}
for name, config in configs.items():
    found = {auto: getattr(transformers, auto)._model_mapping.get(config, None) for auto in autos}
    found["AutoProcessor"] = PROCESSOR_MAPPING.get(config, None)
    registered[name] = {auto: found.__name__ for auto, found in found.items() if found is not None}
    registered[name]["AutoConfig"] = [key for key in CONFIG_MAPPING if CONFIG_MAPPING[key] is config]
print(json.dumps({"network": network, "cuda": torch.cuda.is_initialized(), "version": speechzoo.__version__,
                  "pyplot": "matplotlib.pyplot" in sys.modules,
                  "models": models, "registered": registered}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    """What a fresh process saw when it imported the package."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}  # offline, the libraries would not try
    done = subprocess.run([sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 1, "importing prints nothing"
    return json.loads(done.stdout)


def test_importing_touches_neither_network_nor_gpu(imported):
    assert imported["network"] == []
    assert imported["cuda"] is False


def test_drawing_leaves_pyplot_alone(imported):
    """It would choose a backend for the whole process."""
    assert imported["pyplot"] is False


def test_importing_registers_the_speech_text_adapter(imported):
    assert imported["registered"]["SpeechTextAdapterConfig"] == {
        "AutoConfig": ["speech_text_adapter"],
        "AutoModel": "SpeechTextAdapterModel",
        "AutoModelForMultimodalLM": "SpeechTextAdapterForConditionalGeneration",
        "AutoModelForSpeechSeq2Seq": "SpeechTextAdapterForConditionalGeneration",
        "AutoProcessor": "SpeechTextAdapterProcessor",
    }


def test_every_public_model_is_within_reach_of_an_auto_class(imported):
    reached = {name for autos in imported["registered"].values() for name in autos.values() if isinstance(name, str)}
    assert imported["models"] and set(imported["models"]) <= reached
    assert all(autos["AutoConfig"] for autos in imported["registered"].values())


def test_the_version_is_that_of_the_distribution(imported):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert imported["version"] == declared == importlib.metadata.version("speechzoo")


# --- documents ---


def test_constraints_pin_every_direct_dependency():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for names in project["optional-dependencies"].values() for name in names),
    ]
    assert {_distribution(requirement) for requirement in wanted} <= pinned


def _distribution(requirement: str) -> str:
    name = requirement.split(";")[0]
    for mark in "<>=!~[ ":
        name = name.split(mark)[0]
    return name.lower().replace("_", "-")
