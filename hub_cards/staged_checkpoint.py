"""A folder made ready for others: weights, processor, and a card for a model that no run reports on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, PreTrainedModel
from transformers.utils import (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
)

from ..evaluation.report import Backbone, Report
from ..modeling.auto_classes import AutoModelAsSaved
from ..modeling.modeling_frozen_backbones import FrozenBackbonesModel, check_backbone_is_there
from .code_export import CodeExportError, registered_classes
from .hub_upload import Destination, is_on_hub, newest_commit
from .saved_model import read_saved_model

__all__ = [
    "backbones_as_published",
    "bare_report",
    "refuse_local_names",
    "stage_folder",
    "stage_model",
    "stage_processor",
]

_ROLES = {"audio": "speech encoder", "text": "language model"}
_UNITS = "speech units"  # the role of a unit model
# The Hub's task of a model, by the Auto class that gives it.
_TASKS = {
    "AutoModelForMultimodalLM": "any-to-any",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForAudioClassification": "audio-classification",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForCTC": "automatic-speech-recognition",
    "AutoModelForSpeechSeq2Seq": "automatic-speech-recognition",
}


def stage_model(model: PreTrainedModel, folder: Path, save_backbones: bool, **settings: Any) -> bool:
    """Saves a model; returns whether its backbones, which others could not load or should not need to, went along.

    Args:
        save_backbones: in any case.
        **settings: of `save_pretrained`.

    Raises `FileNotFoundError` for a backbone that is a folder and gone.
    """
    self_contained = _goes_with_backbones(type(model), model.config, save_backbones)
    whole = {"save_backbones": True} if self_contained else {}
    model.save_pretrained(folder, **whole, **settings)
    return self_contained


def stage_folder(source: Path, folder: Path, save_backbones: bool, offline: bool) -> bool:
    """The same of a saved model, which is loaded only where backbones go along.

    Args:
        offline: backbones are loaded from this disk alone.

    Raises `FileNotFoundError` where there is no model in the folder.
    """
    if not (source / CONFIG_NAME).is_file():
        raise FileNotFoundError(f"there is no {CONFIG_NAME} in '{source}'; give the folder of a trained model")
    weights = _weights(source)
    config = AutoConfig.from_pretrained(source)
    if _goes_with_backbones(_saved_class(config, source), config, save_backbones):
        model = AutoModelAsSaved.from_pretrained(str(source), local_files_only=offline)
        return stage_model(model, folder, save_backbones=True)
    for name in (CONFIG_NAME, GENERATION_CONFIG_NAME):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    for file in weights:
        _link_or_copy(file, folder / file.name)
    return False


def _goes_with_backbones(model_class: type, config: PreTrainedConfig, save_backbones: bool) -> bool:
    if not issubclass(model_class, FrozenBackbonesModel):
        return False
    named = model_class.named_backbones(config)
    for backbone, source in named.items():
        check_backbone_is_there(source, backbone.name)
    return bool(named) and (save_backbones or any(Path(source).is_dir() for source in named.values()))


def _saved_class(config: PreTrainedConfig, source: Path) -> type:
    """The class whose weights are saved."""
    wanted = config.architectures or []
    for member in registered_classes(type(config)).values():
        if member.__name__ in wanted:
            return member
    raise CodeExportError(f"'{source}' holds a model of the class {' '.join(wanted)}, which is not of this package")


def _weights(source: Path) -> list[Path]:
    """The file of the weights, or their shards and the list of them."""
    if (source / SAFE_WEIGHTS_NAME).is_file():
        return [source / SAFE_WEIGHTS_NAME]
    index = source / SAFE_WEIGHTS_INDEX_NAME
    if not index.is_file():
        raise FileNotFoundError(f"there is no {SAFE_WEIGHTS_NAME} in '{source}'; give the folder of a trained model")
    shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return [index, *(source / shard for shard in shards)]


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.absolute())
    except OSError:  # as on Windows, without the right to
        shutil.copyfile(source, target)


# ---- the processor -----------------------------------------------------------------------------------------------


def stage_processor(source: Path, folder: Path, names: Mapping[str, str], to: Destination | None) -> None:
    """Saves the processor of a folder, which names other models as `names` says.

    Another id takes the revision with it, which would be none of that repository. Where `names` has none either, it
    becomes the newest commit, so that what that repository gets later changes nothing here.

    Args:
        to: whose Hub is asked for that commit; `None` asks nobody and leaves it open.

    Raises:
        ValueError: there is no such name, or no processor.
        PublishingError: the Hub does not tell.
    """
    if not (source / PROCESSOR_NAME).is_file():
        if names:
            raise ValueError(f"there is no processor in '{source}' that could name {', '.join(names)}; leave it out")
        return
    processor = AutoProcessor.from_pretrained(source)
    known = [field for field in processor.to_dict() if field.endswith(("_id", "_revision"))]
    for field, value in sorted(names.items()):  # ids before revisions
        if field not in known:
            raise ValueError(f"the processor has no '{field}'; it has {', '.join(known) or 'no names of models'}")
        if field.endswith("_id") and value != getattr(processor, field):
            setattr(processor, f"{field.removesuffix('_id')}_revision", None)
        setattr(processor, field, value)
    for field in (field for field in names if field.endswith("_id")):
        revision = f"{field.removesuffix('_id')}_revision"
        if to is not None and revision in known and getattr(processor, revision) is None:
            setattr(processor, revision, newest_commit(to, names[field]))
    processor.save_pretrained(folder)


def refuse_local_names(folder: Path, to: Destination | None) -> None:
    """Refuses a saved model or processor that names another model by what others cannot load.

    Args:
        to: whose Hub is asked for each name, since a folder that is gone may be called as a repository is. `None` asks
            nobody: only folders that are here, and names that no repository has, are found.

    Raises:
        ValueError: a name is a folder, or nothing on the Hub.
        PublishingError: the Hub does not tell.
    """
    ways = {
        CONFIG_NAME: "publish it with --save_backbones, or that first and name it: from_pretrained(..., {}=ID)",
        PROCESSOR_NAME: "publish that first and name it: --name {}=ORGANIZATION/NAME, or set it on the processor",
    }
    for file, way in ways.items():
        for field, value in _values(folder / file).items():
            if field.endswith("_id") and isinstance(value, str) and (fault := _fault(value, to)):
                raise ValueError(f"{field} in {file} is '{value}', {fault}; {way.format(field)}")


def _fault(name: str, to: Destination | None) -> str:
    """Why others could not load a model of that name; empty where they could."""
    try:
        validate_repo_id(name)
        is_folder = Path(name).is_dir()
    except HFValidationError:
        is_folder = True
    if is_folder:
        return "a folder that others do not have"
    return "" if to is None or is_on_hub(to, name) else "which is neither a folder here nor a model on the Hub"


def _values(path: Path) -> dict[str, Any]:
    """What a JSON file says; nothing where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# ---- the card ----------------------------------------------------------------------------------------------------


def backbones_as_published(backbones: Sequence[Backbone], folder: Path) -> list[Backbone]:
    """Those of a report, but the unit model as the processor in the folder names it: others load it by that."""
    named = _unit_models(folder)
    return [
        replace(named[0], license=one.license, parameters=one.parameters) if named and one.role == _UNITS else one
        for one in backbones
    ]


def _unit_models(folder: Path) -> list[Backbone]:
    """The one that the processor names, if any."""
    values = _values(folder / PROCESSOR_NAME)
    source = values.get("unit_model_id")
    return [Backbone(_UNITS, source, values.get("unit_model_revision"))] if source else []


def bare_report(folder: Path, repository: str, self_contained: bool, command: str) -> Report:
    """What can be said of a saved model that no run reports on; `command` published it."""
    config = AutoConfig.from_pretrained(folder)
    model_class = _saved_class(config, folder)
    named = model_class.named_backbones(config) if issubclass(model_class, FrozenBackbonesModel) else {}
    return Report(
        title=repository.rpartition("/")[2],
        system=config.model_type,
        command=command,
        backbones=[
            *(Backbone(_ROLES[one.name], source, one.revision(config)) for one, source in named.items()),
            *_unit_models(folder),
        ],
        license="unknown",
        prompts=_values(folder / PROCESSOR_NAME).get("prompts") or {},
        pipeline_tag=_TASKS.get(read_saved_model(folder).auto_class, "feature-extraction"),
        self_contained=self_contained,
    )
