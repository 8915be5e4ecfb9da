"""Phones to the units of a codebook, by a trained text-to-unit model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import AutoModel

from .pretrained_sources import check_is_there, commit_of
from .unit_vocabulary import UnitVocabulary

__all__ = ["PretrainedTextToUnit", "TextToUnits", "phone_numbers"]


class TextToUnits(Protocol):
    """What the processor asks of whatever says text in units."""

    @property
    def clusters(self) -> int:
        """K, the size of the codebook."""

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the units; two of the same facts give the same."""

    def units(self, groups: Sequence[Sequence[str]]) -> list[int]:
        """A unit for each frame, of the phones of every word and silence."""


class PretrainedTextToUnit:
    """A saved text-to-unit model.

    Args:
        source: Hub id or folder.
        revision: of a Hub repository.
        hub: arguments of every download, such as `token`.

    Raises `FileNotFoundError` when the folder is gone.
    """

    def __init__(self, source: str, revision: str | None = None, hub: dict[str, Any] | None = None) -> None:
        check_is_there(source, "text-to-unit model", "text_to_unit_id")
        self.revision = commit_of(source, revision, hub or {})
        pin = {} if self.revision is None else {"revision": self.revision}
        self.model = AutoModel.from_pretrained(source, **pin, **(hub or {})).eval()
        self.vocabulary = UnitVocabulary(self.model.config.phones)

    @property
    def clusters(self) -> int:
        return self.model.config.clusters

    @property
    def facts(self) -> dict[str, Any]:
        return {"text_to_unit": self.model.weights_hash(), "phones": self.model.config.phones}

    def units(self, groups: Sequence[Sequence[str]]) -> list[int]:
        """Raises `ValueError` for a phone that the model does not know."""
        phones = torch.tensor([phone_numbers(self.vocabulary, groups)], device=self.model.device)
        return self.model.generate(phones)[0].units


def phone_numbers(vocabulary: UnitVocabulary, groups: Sequence[Sequence[str]]) -> list[int]:
    """The rows of a text-to-unit model's phone table; special symbols have none."""
    first = vocabulary.id(vocabulary.symbols[0])
    return [vocabulary.id(symbol) - first for group in groups for symbol in vocabulary.phones_of_word(group)]
