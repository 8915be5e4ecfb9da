"""Whether what was trained beside one backbone can run beside another that was named in its place."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging

from ..configuration.prompt_fingerprint import prompt_fingerprint

logger = logging.get_logger(__name__)

TEXT = "text"  # the backbone that reads prompts


def check_swap(name: str, trained: PreTrainedConfig, config: PreTrainedConfig, **hub: Any) -> None:
    """Looks at the backbone that `config` names where `trained`, the configuration of the checkpoint, names another.

    The same weights in another place are no swap. Others of the same shape that read the same prompts are taken with
    a warning.

    Args:
        name: prefix of its fields.
        hub: arguments of downloads.

    Raises `ValueError` for another architecture or shape, and for an LLM of another vocabulary or chat template.
    """
    was, now = _source(name, trained), _source(name, config)
    if was == now or now[0] is None or _is_moved_folder(was, now):
        return
    source, revision = str(now[0]), now[1]
    pin = {} if Path(source).is_dir() else {"revision": revision}
    _check_shape(source, getattr(trained, f"{name}_config"), AutoConfig.from_pretrained(source, **pin, **hub))
    if name == TEXT and trained.prompt_fingerprint is not None:
        _check_prompts(source, trained.prompt_fingerprint, AutoTokenizer.from_pretrained(source, **pin, **hub))
    logger.warning(
        "this checkpoint was trained on '%s' at revision %s and now runs on '%s' at %s, for which it was not trained: "
        "measure it again",
        *(*was, source, revision),
    )


def _source(name: str, config: PreTrainedConfig) -> tuple[str | None, str | None]:
    """Id and revision."""
    return getattr(config, f"{name}_model_id"), getattr(config, f"{name}_model_revision")


def _is_moved_folder(was: tuple[str | None, str | None], now: tuple[str | None, str | None]) -> bool:
    """A folder's revision is the fingerprint of its weights, which loading compares."""
    return Path(str(now[0])).is_dir() and now[1] is not None and now[1] == was[1]


def _check_shape(source: str, trained: PreTrainedConfig, given: PreTrainedConfig) -> None:
    if given.model_type != trained.model_type:
        raise ValueError(
            f"'{source}' is a model of type {given.model_type}, and this checkpoint was trained beside a "
            f"{trained.model_type}; train anew beside this one"
        )
    old, new = trained.to_dict(), given.to_dict()
    for field, value in old.items():
        is_shape = field == "rope_parameters" or (type(value) is int and not field.endswith("_id"))
        if is_shape and field in new and new[field] != value:
            raise ValueError(
                f"'{source}' has {field} {new[field]}, and this checkpoint was trained beside a {trained.model_type} "
                f"of {value}; train anew beside this one"
            )


def _check_prompts(source: str, trained: str, tokenizer: Any) -> None:
    if prompt_fingerprint(tokenizer) != trained:
        raise ValueError(
            f"'{source}' reads prompts by another vocabulary or chat template than the LLM that this checkpoint was "
            f"trained beside; train anew beside this one"
        )


__all__ = ["check_swap"]
