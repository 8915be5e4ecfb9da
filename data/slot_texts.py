"""Slots as a line of text, one value after the other, which is what a language model learns to write."""

from collections.abc import Mapping, Sequence

EMPTY, SEPARATOR = "none", ","


def write_slots(slots: Mapping[str, str | None], names: Sequence[str]) -> str:
    """Values in the order of `names`, "none" for an empty slot: `iced mocha, none, brown sugar`.

    Raises `ValueError` for a slot that is none of `names`, and for a value that could not be read back.
    """
    if unknown := sorted(set(slots) - set(names)):
        raise ValueError(f"there is no slot '{unknown[0]}'; the slots are {', '.join(names)}")
    for name, value in slots.items():
        if value is not None and (SEPARATOR in value or value.strip() in ("", EMPTY)):
            raise ValueError(f"slot '{name}' holds {value!r}, which cannot be told from what stands between values")
    return f"{SEPARATOR} ".join(slots.get(name) or EMPTY for name in names)


def read_slots(text: str, names: Sequence[str]) -> dict[str, str]:
    """The filled slots of a line: values are told by their place, so what follows the last slot is passed over."""
    values = (value.strip() for value in text.split(SEPARATOR))
    return {name: value for name, value in zip(names, values, strict=False) if value not in ("", EMPTY)}
