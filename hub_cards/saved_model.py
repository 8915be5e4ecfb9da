"""What a card has to know of a saved model beside its report: who loads it, and what its own code needs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import CONFIG_NAME

from .code_closure import Module, parsed_module
from .code_export import distributions_of, registered_classes

__all__ = ["SavedModel", "read_saved_model"]

# Fields of a configuration that take a library which others do without.
_ASKING = {"lora_modules": "peft", "quantization": "bitsandbytes"}


@dataclass(frozen=True)
class SavedModel:
    """A checkpoint's folder.

    Attributes:
        auto_class: the Auto class that gives the class whose weights were saved.
        carries_code: whether it loads without this package.
        requirements: distributions that its code cannot be loaded without.
        optional: those that some functions of its code import when they run.
        pipelines: tasks of transformers that its code has pipelines for.
        tasks: what it can be asked, by its configuration's field `answers`.
    """

    auto_class: str
    carries_code: bool = False
    requirements: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    pipelines: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)


def read_saved_model(folder: str | Path) -> SavedModel:
    """Reads `config.json`, and the modules beside it where it names any.

    Raises:
        FileNotFoundError: there is no `config.json`.
        ValueError: no Auto class gives the class that the configuration names.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; save the model first, then write its card")
    config = json.loads(path.read_text(encoding="utf-8"))
    auto_class = _auto_class(config, path)
    if not config.get("auto_map"):
        return SavedModel(auto_class)
    modules = [_read(module) for module in sorted(Path(folder).glob("*.py"))]
    wanted = [library for module in modules for library in module.libraries]
    required = {name for _, name, may_fail in wanted if not may_fail}
    required |= {library for field, library in _ASKING.items() if config.get(field)}
    optional = {name for _, name, may_fail in wanted if may_fail} - required
    needed, asked_for = distributions_of(sorted(required), sorted(optional))
    pipelines, tasks = sorted(config.get("custom_pipelines", {})), sorted(config.get("answers") or {})
    return SavedModel(auto_class, True, needed, asked_for, pipelines, tasks)


def _auto_class(config: dict, path: Path) -> str:
    """The first by name of those that give the class that was saved; a headless one is what `AutoModel` gives."""
    classes = registered_classes(CONFIG_MAPPING[config["model_type"]])
    [saved] = config.get("architectures") or [classes["AutoModel"].__name__]
    models = {auto: member.__name__ for auto, member in classes.items() if auto.startswith("AutoModel")}
    loading = sorted(auto for auto, name in models.items() if name == saved)
    if not loading:
        raise ValueError(f"{path} names the class {saved}, which no Auto class gives; register it, or save another")
    return loading[0]


def _read(path: Path) -> Module:
    return parsed_module(path.stem, Path(path.name), path.read_text(encoding="utf-8"))
