"""Which of transformers' Auto classes give which class of a model."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.auto_factory import _BaseAutoModelClass


class AutoModelAsSaved:
    """Loads a checkpoint as the class whose weights it holds, whatever its head."""

    @classmethod
    def from_pretrained(cls, source: str, **kwargs: Any) -> PreTrainedModel:
        """As of any Auto class. Raises `ValueError` where no registered class is that of the checkpoint."""
        given = {name: kwargs[name] for name in _OF_CONFIGURATIONS if kwargs.get(name) is not None}
        config = AutoConfig.from_pretrained(source, **given)
        for auto in saved_by(type(config), config.architectures):
            return getattr(modeling_auto, auto).from_pretrained(source, **kwargs)
        raise ValueError(
            f"'{source}' was saved as {', '.join(config.architectures or ['nothing'])}, which no Auto class "
            f"gives; load it by its own class and pass the model"
        )


_OF_CONFIGURATIONS = ("revision", "token", "trust_remote_code", "local_files_only", "cache_dir", "subfolder")


def auto_model_classes(config_class: type[PreTrainedConfig]) -> dict[str, type]:
    """Auto class -> class of a model that is registered for this configuration."""
    autos = inspect.getmembers(modeling_auto, _is_auto)
    mappings = {name: auto._model_mapping for name, auto in autos if auto._model_mapping is not None}
    found = {name: mapping.get(config_class, None) for name, mapping in mappings.items()}
    return {name: member for name, member in found.items() if member is not None}


def _is_auto(member: Any) -> bool:
    return inspect.isclass(member) and issubclass(member, _BaseAutoModelClass)


def saved_by(config_class: type[PreTrainedConfig], architectures: list[str] | None) -> list[str]:
    """The Auto classes that give the class whose weights were saved, sorted."""
    classes = auto_model_classes(config_class)
    return sorted(name for name, member in classes.items() if member.__name__ in (architectures or ()))


__all__ = ["AutoModelAsSaved", "auto_model_classes", "saved_by"]
