"""The spoken commands of the tiny zoo: 31 intents (action, object, location) and the phrasings that say them.

The table of intents is that of Fluent Speech Commands; every phrasing is our own. A phrasing belongs to one intent
only, and one of each intent is held out: no model of the zoo, neither of speech nor of text, is trained on it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Intent:
    """What a command asks for; `none` where it names no object or no place."""

    action: str
    object: str
    location: str

    def __str__(self) -> str:
        return f"{self.action} {self.object} {self.location}"


@dataclass(frozen=True)
class Command:
    """A phrasing (lower-case words) with its intent; `held_out` phrasings are kept from all training."""

    text: str
    intent: Intent
    held_out: bool


_ROOMS = ("bedroom", "kitchen", "washroom")

_LIGHTS_ON = (
    "turn on the lights {}",
    "turn the lights on {}",
    "switch on the lights {}",
    "lights on {}",
    "please turn on the lights {}",
    "could you switch the lights on {}",
    "i need the lights on {}",
    "make it bright {}",
    "it is too dark {}",
)
_LIGHTS_OFF = (
    "turn off the lights {}",
    "turn the lights off {}",
    "switch off the lights {}",
    "lights off {}",
    "please turn off the lights {}",
    "could you switch the lights off {}",
    "nobody needs the lights {}",
    "make it dark {}",
    "it is too bright {}",
)
_HEAT_UP = (
    "turn up the heat {}",
    "turn the heat up {}",
    "more heat {}",
    "make it warmer {}",
    "it is too cold {}",
    "please raise the heat {}",
    "could you turn the heat up {}",
    "increase the heat {}",
    "i am freezing {}",
)
_HEAT_DOWN = (
    "turn down the heat {}",
    "turn the heat down {}",
    "less heat {}",
    "make it cooler {}",
    "it is too hot {}",
    "please lower the heat {}",
    "could you turn the heat down {}",
    "decrease the heat {}",
    "i am sweating {}",
)
_LAMP_ON = (
    "turn on the lamp",
    "turn the lamp on",
    "switch on the lamp",
    "lamp on",
    "please turn on the lamp",
    "could you switch the lamp on",
    "i need the lamp to read",
    "start the lamp",
    "let the lamp shine",
)
_LAMP_OFF = (
    "turn off the lamp",
    "turn the lamp off",
    "switch off the lamp",
    "lamp off",
    "please turn off the lamp",
    "could you switch the lamp off",
    "nobody needs the lamp",
    "stop the lamp",
    "i am done with the lamp",
)
_MUSIC_ON = (
    "play some music",
    "start the music",
    "music on",
    "turn on the music",
    "please play a song",
    "could you play music",
    "let me hear some music",
    "i want to hear a song",
    "switch the music on",
)
_MUSIC_OFF = (
    "stop the music",
    "music off",
    "turn off the music",
    "please stop the song",
    "no more music",
    "could you stop the music",
    "i am tired of this song",
    "switch the music off",
    "end the song now",
)
_VOLUME_UP = (
    "turn up the volume",
    "turn the volume up",
    "make it louder",
    "louder please",
    "i can not hear this",
    "increase the volume",
    "it is too quiet",
    "please raise the volume",
    "more volume",
)
_VOLUME_DOWN = (
    "turn down the volume",
    "turn the volume down",
    "make it quieter",
    "quieter please",
    "this hurts my ears",
    "decrease the volume",
    "it is too loud",
    "please lower the volume",
    "less volume",
)
_BRING = (
    "bring me the {}",
    "get me the {}",
    "please bring the {}",
    "i would like my {}",
    "could you get the {}",
    "fetch the {}",
    "go and get my {}",
    "i need the {} now",
    "where is the {} bring it here",
)
_LANGUAGE = (
    "switch to {}",
    "change the language to {}",
    "speak {}",
    "please talk to me in {}",
    "i want to practice {}",
    "set the language to {}",
    "let us use {}",
    "could you speak {}",
    "use {} from now on",
)
_LANGUAGE_UNNAMED = (
    "change the language",
    "switch the language",
    "use another language",
    "please speak another language",
    "i want a different language",
    "could you change the language",
    "open the language settings",
    "this is the wrong language",
    "let us change the language",
)


def _in_every_place(action: str, thing: str, templates: tuple[str, ...]) -> dict[Intent, tuple[str, ...]]:
    """The intents of a command that may name a room: one without a room, one for each room."""
    places = {"none": "", **{room: f"in the {room}" for room in _ROOMS}}
    return {
        Intent(action, thing, room): tuple(template.format(place).strip() for template in templates)
        for room, place in places.items()
    }


def _with_each(templates: tuple[str, ...], names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [tuple(template.format(name) for template in templates) for name in names]


@cache
def phrasings() -> dict[Intent, tuple[str, ...]]:
    """All phrasings of each of the 31 intents."""
    things, languages = ("juice", "newspaper", "shoes", "socks"), ("chinese", "english", "german", "korean")
    bring = {Intent("bring", thing, "none"): p for thing, p in zip(things, _with_each(_BRING, things), strict=True)}
    speak = {
        Intent("change language", language, "none"): p
        for language, p in zip(languages, _with_each(_LANGUAGE, languages), strict=True)
    }
    return {
        Intent("activate", "lamp", "none"): _LAMP_ON,
        Intent("deactivate", "lamp", "none"): _LAMP_OFF,
        Intent("activate", "music", "none"): _MUSIC_ON,
        Intent("deactivate", "music", "none"): _MUSIC_OFF,
        Intent("increase", "volume", "none"): _VOLUME_UP,
        Intent("decrease", "volume", "none"): _VOLUME_DOWN,
        Intent("change language", "none", "none"): _LANGUAGE_UNNAMED,
        **_in_every_place("activate", "lights", _LIGHTS_ON),
        **_in_every_place("deactivate", "lights", _LIGHTS_OFF),
        **_in_every_place("increase", "heat", _HEAT_UP),
        **_in_every_place("decrease", "heat", _HEAT_DOWN),
        **bring,
        **speak,
    }


@cache
def commands() -> tuple[Command, ...]:
    """Every phrasing with its intent. Which one an intent holds out is fixed: number (5 i + 3) mod its phrasings."""
    return tuple(
        Command(text, intent, held_out=number == (5 * index + 3) % len(texts))
        for index, (intent, texts) in enumerate(phrasings().items())
        for number, text in enumerate(texts)
    )


def commands_seen() -> list[Command]:
    """The phrasings that models may be trained on."""
    return [command for command in commands() if not command.held_out]


def commands_held_out() -> list[Command]:
    """One phrasing per intent, for tests only."""
    return [command for command in commands() if command.held_out]


def intents() -> list[Intent]:
    """The 31 intents in a fixed order."""
    return list(phrasings())


def draw_command(seed: int, index: int, held_out: bool = False) -> Command:
    """Command number `index` of a corpus: intents take turns in a shuffled order, the phrasing is drawn at random."""
    pool = commands_held_out() if held_out else commands_seen()
    names = intents()
    round_number, place = divmod(index, len(names))
    random.Random(f"intents {seed} {round_number}").shuffle(names)
    choices = [command for command in pool if command.intent == names[place]]
    return random.Random(f"phrasing {seed} {index}").choice(choices)
