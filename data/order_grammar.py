"""Spoken orders at a coffee maker, with their slots.

The slots and their values are those of the people's orders in Picovoice's speech-to-intent benchmark, so that a model
may learn from synthetic voices what such orders are about before it hears people.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_MILKS = ("milk", "whole milk", "skim milk", "almond milk", "soy milk", "cream")
_SUGARS = ("sugar", "brown sugar", "sweetener")
_AMOUNTS = ("some", "a bit of", "a little bit of", "a lot of", "lots of")
_OPENINGS = ("brew", "can i get", "can i have", "i want", "get me", "give me", "i'd like", "make me", "may i have")


def _amounts(things: tuple[str, ...]) -> tuple[str, ...]:
    return (*things, *(f"{amount} {thing}" for amount in _AMOUNTS for thing in things))


VALUES: dict[str, tuple[str, ...]] = {
    "coffeeDrink": ("americano", "cappuccino", "coffee", "drip coffee", "espresso", "house coffee", "iced coffee",
                    "iced mocha", "latte", "mocha"),
    "roast": ("dark roast", "medium roast", "light roast"),
    "size": ("small", "medium", "large", "eight ounce", "twelve ounce", "sixteen ounce", "twenty ounce"),
    "numberOfShots": ("single shot", "double shot", "triple shot"),
    "milkAmount": _amounts(_MILKS),
    "sugarAmount": _amounts(_SUGARS),
}  # fmt: skip


@dataclass(frozen=True)
class Order:
    """Lower-case words, and slot -> value, `None` for a slot that is not filled."""

    text: str
    slots: dict[str, str | None]


def draw_order(seed: int, index: int) -> Order:
    """Order number `index` of a corpus: a drink, and each other slot every second time.

    What describes the drink stands before it and what goes into it behind, both in any order.
    """
    rng = random.Random(f"order {seed} {index}")
    slots = {name: _draw(name, rng) if name == "coffeeDrink" or rng.random() < 0.5 else None for name in VALUES}
    before = _shuffled([slots["roast"], slots["size"], slots["numberOfShots"]], rng)
    behind = " and ".join(_shuffled([slots["milkAmount"], slots["sugarAmount"]], rng))
    drink = " ".join([*before, str(slots["coffeeDrink"])])
    article = "an" if drink[0] in "aei" else "a"
    return Order(f"{rng.choice(_OPENINGS)} {article} {drink}" + (f" with {behind}" if behind else ""), slots)


def _draw(name: str, rng: random.Random) -> str:
    """Every second amount is left unsaid, as people do."""
    values = VALUES[name]
    plain = {"milkAmount": len(_MILKS), "sugarAmount": len(_SUGARS)}.get(name, len(values))
    return rng.choice(values[:plain] if rng.random() < 0.5 else values)


def _shuffled(values: list[str | None], rng: random.Random) -> list[str]:
    said = [value for value in values if value]
    rng.shuffle(said)
    return said
