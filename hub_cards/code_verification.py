"""Whether exported code does elsewhere what it does here: in a fresh process that lacks this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from . import checkpoint_probe
from .code_closure import CodeExportError
from .code_export import CodeExport

__all__ = ["Verification", "run_without_package", "verify_code"]

# Without `site`, no file of the environment can put an editable package back; one that is installed is refused.
_WITHOUT_PACKAGE = """
import importlib, json, runpy, sys
package, paths, *sys.argv = sys.argv[1:]
class Refused:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refused)
sys.path += json.loads(paths)
try:
    importlib.import_module(package)
except ModuleNotFoundError:
    pass
else:
    sys.exit(f"{package} can be imported where it should not be")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Verification:
    """What a checkpoint said elsewhere, equal to what it says here.

    Attributes:
        outputs: see `checkpoint_probe.probe`.
        classes: Auto class -> full name of the class of the checkpoint's own code.
    """

    outputs: dict[str, Tensor]
    classes: dict[str, str]


def verify_code(*folders: str | Path, timeout: float = 1800) -> list[Verification]:
    """Loads checkpoints with their exported code in one process without this package, and compares with this one.

    Here the classes of this package do the same, and no code of the folders runs.

    Args:
        timeout: seconds for the other process.

    Raises `CodeExportError` where the code does not load or run there, or says anything else than here.
    """
    with tempfile.TemporaryDirectory() as temporary:
        places = [str(Path(folder).absolute()) for folder in folders]
        threads = str(torch.get_num_threads())
        run_without_package(Path(checkpoint_probe.__file__), temporary, threads, *places, timeout=timeout)
        found = [_read(Path(temporary) / f"{number}.safetensors") for number in range(len(folders))]
    for folder, verification in zip(folders, found, strict=True):
        _compare(Path(folder), verification)
    return found


def run_without_package(script: Path, *arguments: str, timeout: float = 1800) -> str:
    """Runs a script in a fresh interpreter with this one's libraries but without this package; returns its output.

    Code of checkpoints is kept in a folder of its own, so that none of an earlier run is found.

    Raises `CodeExportError` with the end of what it complained of, or when `timeout` (seconds) is over.
    """
    package = CodeExport.__module__.partition(".")[0]
    paths = sorted({sysconfig.get_path(name) for name in ("purelib", "platlib")})
    command = [sys.executable, "-I", "-S", "-c", _WITHOUT_PACKAGE, package, json.dumps(paths), str(script), *arguments]
    with tempfile.TemporaryDirectory() as modules:
        environment = {**os.environ, "HF_MODULES_CACHE": modules}
        try:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise CodeExportError(f"{script.name} took more than {timeout:g} seconds without {package}") from error
    if done.returncode != 0:
        raise CodeExportError(f"{script.name} failed without {package}:\n{done.stderr[-3000:]}")
    return done.stdout


def _read(path: Path) -> Verification:
    with safe_open(path, "pt") as file:
        return Verification({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118


def _compare(folder: Path, elsewhere: Verification) -> None:
    """Raises `CodeExportError` for classes from the wrong place and for the first output that differs."""
    outputs, classes = checkpoint_probe.probe(folder)
    package = CodeExport.__module__.partition(".")[0]
    strangers = {auto: name for auto, name in classes.items() if name.partition(".")[0] != package}
    if strangers or classes.keys() != elsewhere.classes.keys():
        raise CodeExportError(
            f"{folder}: here {classes} were loaded and elsewhere {elsewhere.classes}; export the code again"
        )
    if outputs.keys() != elsewhere.outputs.keys():
        raise CodeExportError(f"{folder}: '{min(outputs.keys() ^ elsewhere.outputs.keys())}' came on one side alone")
    for name, expected in sorted(outputs.items()):
        if not torch.equal(expected, elsewhere.outputs[name]):
            raise CodeExportError(
                f"{folder}: '{name}' of the exported code is not that of {package}; was it exported by this version?"
            )
