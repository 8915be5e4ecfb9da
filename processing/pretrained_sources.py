"""Models that a processor names and loads when it needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

__all__ = ["check_is_there", "commit_of"]


def check_is_there(source: str, what: str, field: str) -> None:
    """A Hub id has one slash at most, so a longer path that is no folder is a folder that is missing.

    Raises `FileNotFoundError`, which calls the model `what` and says which `field` to set.
    """
    if not os.path.isdir(source) and (source.count("/") > 1 or source.startswith((".", "/"))):
        raise FileNotFoundError(f"the {what} '{source}' is not here; set {field} to where it is now")


def commit_of(source: str, revision: str | None, hub: dict[str, Any]) -> str | None:
    """The commit that `revision` means now, `None` for a folder; works without the network for what is cached."""
    if os.path.isdir(source):
        return None
    # A cached file lies in snapshots/<commit>/.
    return Path(cached_file(source, "config.json", revision=revision, **hub)).parent.name
