"""A checkpoint's own code: a folder that transformers loads without this package.

export = export_code(folder)      # writes modules beside the weights, and `auto_map` into the configurations
AutoModel.from_pretrained(folder, trust_remote_code=True)       # anywhere
AutoModel.from_pretrained(folder)       # after `import speechzoo`, whose classes win: no code of the folder runs
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from transformers import FeatureExtractionMixin, PreTrainedConfig, ProcessorMixin
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME, PROCESSOR_NAME

from ..modeling.auto_classes import AutoModelAsSaved, auto_model_classes, saved_by
from .code_closure import CodeExportError, check_flat, close_over

__all__ = ["CodeExport", "export_code", "export_processor_code", "registered_classes"]


@dataclass(frozen=True)
class CodeExport:
    """What was put into a folder.

    Attributes:
        files: names of the modules, sorted.
        auto_map: Auto class -> "module.Class".
        requirements: distributions that the code cannot be loaded without.
        optional: distributions that some of its functions import when they run.
        pipelines: task -> "module.Class".
    """

    files: list[str]
    auto_map: dict[str, str]
    requirements: list[str]
    optional: list[str]
    pipelines: dict[str, str] = field(default_factory=dict)


def export_code(folder: str | Path, pipelines: Mapping[str, type] | None = None) -> CodeExport:
    """Lays the code of a saved model, its processor and `pipelines` into its folder, and names it in the JSON files.

    Files of those names are replaced, so that an export after another leaves the newer one.

    Args:
        folder: holds `config.json`, and `processor_config.json` where the model has a processor.
        pipelines: task -> class of a pipeline that is registered with transformers under that task.

    Raises:
        FileNotFoundError: there is no `config.json`.
        CodeExportError: the model is none of this package; its code cannot be laid flat, see `close_over`; a pipeline
            is not registered.
    """
    folder, pipelines = Path(folder), dict(pipelines or {})
    config = _read_json(folder / CONFIG_NAME)
    classes = registered_classes(_config_class(config, folder))
    heads = saved_by(classes["AutoConfig"], config.get("architectures"))
    custom_pipelines = {task: _pipeline_entry(task, member, heads) for task, member in pipelines.items()}
    export = _export(folder, classes, list(pipelines.values()))
    if custom_pipelines:
        _change_json(folder / CONFIG_NAME, lambda values: values.update(custom_pipelines=custom_pipelines))
    return replace(export, pipelines={task: entry["impl"] for task, entry in custom_pipelines.items()})


def export_processor_code(folder: str | Path, processor: ProcessorMixin) -> CodeExport:
    """The same for a processor that was saved into a folder without its model.

    Raises `CodeExportError` for a processor of transformers, and for what cannot be laid flat.
    """
    package = _root(CodeExport)
    if _root(type(processor)) != package:
        raise CodeExportError(f"{type(processor).__name__} is none of {package}; transformers loads it")
    found: dict[str, type] = {"AutoProcessor": type(processor)}
    for part in vars(processor).values():
        if isinstance(part, FeatureExtractionMixin) and _root(type(part)) == package:
            found["AutoFeatureExtractor"] = type(part)
    return _export(Path(folder), found)


def _export(folder: Path, classes: dict[str, type], more: Sequence[type] = ()) -> CodeExport:
    """Writes the modules of the classes that the folder's JSON files are of, and of `more`."""
    changes = _named_in(folder, classes)
    used = {name: classes[name] for names in changes.values() for name in names}
    closure = close_over({member.__module__ for member in [*used.values(), *more]})
    _write_modules(folder, closure.sources)
    for name, names in changes.items():
        _write_auto_map(folder / name, {auto: _reference(classes[auto]) for auto in names})
    requirements, optional = distributions_of(closure.requirements, closure.optional)
    files, auto_map = [f"{name}.py" for name in closure.sources], {name: _reference(used[name]) for name in used}
    return CodeExport(files, auto_map, requirements, optional)


def registered_classes(config_class: type[PreTrainedConfig]) -> dict[str, type]:
    """Auto class -> class that is registered for models of this configuration."""
    mappings = {"AutoProcessor": PROCESSOR_MAPPING, "AutoFeatureExtractor": FEATURE_EXTRACTOR_MAPPING}
    found = {name: mapping.get(config_class, None) for name, mapping in mappings.items()}
    processing = {name: member for name, member in found.items() if member is not None}
    return {"AutoConfig": config_class} | auto_model_classes(config_class) | processing


def _config_class(config: dict[str, Any], folder: Path) -> type[PreTrainedConfig]:
    """That of the model in a folder, which must be of this package."""
    model_type = config.get("model_type", "")
    # Its `get` does not know what was registered.
    config_class = CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else None  # noqa: SIM401
    if config_class is None or _root(config_class) != _root(CodeExport):
        raise CodeExportError(
            f"{folder / CONFIG_NAME} is of a model of type '{model_type}', which is none of {_root(CodeExport)}; "
            f"transformers or its authors' package loads it"
        )
    return config_class


def _root(member: type) -> str:
    return member.__module__.partition(".")[0]


# ---- what is named where -----------------------------------------------------------------------------------------


def _named_in(folder: Path, classes: dict[str, type]) -> dict[str, list[str]]:
    """JSON file -> the Auto classes whose code it names; a feature extractor of transformers, say, needs none."""
    named: dict[str, list[str]] = {}
    if (folder / CONFIG_NAME).is_file():
        named[CONFIG_NAME] = [name for name in classes if name not in ("AutoProcessor", "AutoFeatureExtractor")]
    processor = folder / PROCESSOR_NAME
    if processor.is_file():
        values = _read_json(processor)
        named[PROCESSOR_NAME] = [
            *_if_it_is(classes, "AutoProcessor", values.get("processor_class")),
            *_if_it_is(classes, "AutoFeatureExtractor", _extractor_type(values.get("feature_extractor"))),
        ]
    extractor = folder / FEATURE_EXTRACTOR_NAME
    if extractor.is_file():
        kind = _extractor_type(_read_json(extractor))
        named[FEATURE_EXTRACTOR_NAME] = _if_it_is(classes, "AutoFeatureExtractor", kind)
    return named


def _if_it_is(classes: dict[str, type], auto: str, name: Any) -> list[str]:
    return [auto] if auto in classes and classes[auto].__name__ == name else []


def _extractor_type(values: Any) -> Any:
    return values.get("feature_extractor_type") if isinstance(values, dict) else None


def _write_auto_map(path: Path, auto_map: dict[str, str]) -> None:
    """Where transformers looks for each: a feature extractor inside a processor has a map of its own."""

    def change(values: dict[str, Any]) -> None:
        own = dict(auto_map)
        if path.name == PROCESSOR_NAME and (extractor := own.pop("AutoFeatureExtractor", None)):
            values["feature_extractor"]["auto_map"] = {"AutoFeatureExtractor": extractor}
        if own:
            values["auto_map"] = own

    _change_json(path, change)


def _pipeline_entry(task: str, member: type, heads: list[str]) -> dict[str, Any]:
    """What `config.json` says of a pipeline, by what transformers knows of it.

    heads: the Auto classes that give the class of this checkpoint, for a pipeline that takes several.
    """
    known = PIPELINE_REGISTRY.supported_tasks.get(task)
    if known is None or known["impl"] is not member:
        raise CodeExportError(
            f"{member.__name__} is not what transformers has for the task '{task}'; register it: "
            f"PIPELINE_REGISTRY.register_pipeline"
        )
    kind = {"type": known["type"]} if "type" in known else {}
    autos = heads if AutoModelAsSaved in known["pt"] else [auto.__name__ for auto in known["pt"]]
    return {"impl": _reference(member), "pt": autos, **kind}


def _reference(member: type) -> str:
    """A class as transformers names it in a checkpoint."""
    return f"{member.__module__.rpartition('.')[2]}.{member.__name__}"


def distributions_of(*several: list[str]) -> list[list[str]]:
    """What is installed to have these libraries, for each list of them."""
    known = _installed()
    return [sorted({known.get(name, [name])[0] for name in libraries}) for libraries in several]


@cache
def _installed() -> Mapping[str, list[str]]:
    """Library -> distributions; all that is installed is read for it."""
    return importlib.metadata.packages_distributions()


# ---- writing -----------------------------------------------------------------------------------------------------


def _write_modules(folder: Path, sources: dict[str, str]) -> None:
    """All or none: they are looked at as transformers would before they reach the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary)
        for name, source in sources.items():
            (written / f"{name}.py").write_text(source, encoding="utf-8")
        check_flat(written, sources)
        for name in sources:
            shutil.copyfile(written / f"{name}.py", folder / f"{name}.py")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; give the folder that save_pretrained wrote")
    return json.loads(path.read_text(encoding="utf-8"))


def _change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Written as transformers writes it."""
    values = _read_json(path)
    change(values)
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
