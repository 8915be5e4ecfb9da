"""The seal of a card: whether it is as it was rendered, or a person wrote or edited it, which is not lost unasked."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from .hub_upload import Destination, written_there

__all__ = ["is_kept", "sealed", "without_seal"]

# Field of the front matter: SHA-256 of the card without this line.
_SEAL = "rendered_by_speechzoo"


def sealed(card: str) -> str:
    """A card whose front matter ends with its seal."""
    return card.replace("\n---\n", f"\n{_SEAL}: {_digest(card)}\n---\n", 1)


def without_seal(card: str) -> str | None:
    """What was sealed; `None` for a card that a person wrote or edited since."""
    seal = re.search(rf"^{_SEAL}: (\w+)\n", card, flags=re.MULTILINE)
    text = card.replace(seal[0], "", 1) if seal else card
    return text if seal and seal[1] == _digest(text) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def is_kept(card: Path, to: Destination, edited_card: str | None) -> bool:
    """Whether the card on the Hub, which a person wrote or edited, stays in place of this one.

    Args:
        edited_card: what was told: "keep" or "replace".

    Raises:
        ValueError: a person wrote or edited it, it is another than this one, and nobody said what becomes of it.
        PublishingError: the Hub does not tell.
    """
    there = written_there(to, card.name)
    if there is None or without_seal(there) or there == card.read_text(encoding="utf-8"):
        return False
    if edited_card not in ("keep", "replace"):
        raise ValueError(
            f"a person wrote or edited the card of '{to.repository}'; pass --edited_card keep, or replace"
        )
    return edited_card == "keep"
