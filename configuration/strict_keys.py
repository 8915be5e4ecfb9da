"""What the configurations share: unknown keys are errors, and a backbone's architecture is given by its model type."""

import difflib
from dataclasses import fields
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

# What transformers itself writes into a config.json beside the fields of the class.
_WRITTEN_BY_TRANSFORMERS = {
    "architectures",
    "attn_implementation",
    "auto_map",
    "base_model_tp_plan",
    "custom_pipelines",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "processor_class",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def refuse_unknown_keys(config: PreTrainedConfig, keys: dict[str, Any]) -> None:
    """Raises `ValueError` for a key that is neither a field of `config` nor transformers' own; names the nearest.

    Takes `custom_pipelines` out of `keys` unless the class is a checkpoint's own code: where the package is, its
    pipelines are registered, and transformers would ask to trust the checkpoint's.
    """
    if not type(config).__module__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}."):
        keys.pop("custom_pipelines", None)
    known = {field.name for field in fields(config)}
    for key in keys:
        if not key.startswith("_") and key not in known | _WRITTEN_BY_TRANSFORMERS:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"{type(config).__name__} has no field '{key}'{hint}")


def backbone_architecture(given: dict[str, Any] | PreTrainedConfig | None, default: str) -> PreTrainedConfig:
    """The configuration object of a backbone; a mapping says its class by `model_type`, which `default` replaces."""
    if isinstance(given, PreTrainedConfig):
        return given
    values = dict(given or {})
    return AutoConfig.for_model(values.pop("model_type", default), **values)


__all__ = ["backbone_architecture", "refuse_unknown_keys"]
