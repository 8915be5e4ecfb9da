"""Recordings and texts with the answer that understanding them takes, and how much speech of them is learned from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datasets import Dataset

from .corpora import load_corpus
from .few_shot import nested_subsets
from .labeled_utterances import Answer, LabeledUtterance
from .synthesized_speech import SYNTHESIZED

__all__ = [
    "LabeledRecording",
    "SpeechChoice",
    "as_labeled",
    "labeled_recordings",
    "not_spoken_by",
    "speech_of_minutes",
    "spoken_by",
]

SpeechChoice = Literal["random", "balanced"]


@dataclass(frozen=True)
class LabeledRecording:
    """A clip with its words and its answer.

    Args:
        text: the words as the answer spells them.
        answer: name of a class, or a text.
        audio: whatever `load_audio` takes; `None` where texts alone were read.
        seconds: how long it lasts; 0 without audio.
    """

    id: str
    text: str
    answer: str
    speaker: str | None = None
    audio: Any = None
    seconds: float = 0.0


def labeled_recordings(
    source: str,
    column: str,
    answers: Callable[[Dataset], Mapping[str, Answer]],
    *,
    audio: bool = True,
    clips: int | None = None,
) -> list[LabeledRecording]:
    """The clips of a corpus, in its order.

    Args:
        source: as `load_corpus` takes it; `source@split` picks a split.
        column: that of the labels.
        answers: makes the answers of a corpus's rows, by id.
        audio: without it no recording is looked for, and a corpus of sentences alone will do.
        clips: so many of them, the first.

    Raises `ValueError` without the column, and for audio of unknown length.
    """
    name, _, split = source.partition("@")
    rows = load_corpus(name, split or None, audio=audio)
    wanted = [column, "duration"] if audio else [column]
    if missing := [one for one in wanted if one not in rows.column_names]:
        raise ValueError(f"'{source}' has no column '{missing[0]}'; it has {', '.join(rows.column_names)}")
    rows = rows.select(range(min(clips or len(rows), len(rows))))
    found = answers(rows)
    given = [found[clip] for clip in rows["id"]]
    sounds = list(rows["audio"]) if audio else [None] * len(rows)
    seconds = list(rows["duration"]) if audio else [0.0] * len(rows)
    return [
        LabeledRecording(clip, one.text, one.answer, one.speaker, sound, float(length))
        for clip, one, sound, length in zip(rows["id"], given, sounds, seconds, strict=True)
    ]


def as_labeled(recordings: Sequence[LabeledRecording]) -> list[LabeledUtterance]:
    """The same without sound, as what scores answers and refuses leaks takes them."""
    return [LabeledUtterance(one.id, [], one.text, one.answer, one.speaker) for one in recordings]


def spoken_by(recordings: Sequence[LabeledRecording], speakers: Sequence[str]) -> list[LabeledRecording]:
    """The recordings of these speakers; all where no speaker is named.

    Raises `ValueError` for sound without a speaker, and for a name that no recording has.
    """
    if not speakers:
        return list(recordings)
    _refuse_nameless(recordings)
    known = {one.speaker for one in recordings if one.speaker is not None}
    if unknown := sorted(set(speakers) - known):
        raise ValueError(f"no clip is of speaker '{unknown[0]}'; there are {', '.join(sorted(known))}")
    return [one for one in recordings if one.speaker in speakers]


def not_spoken_by(
    recordings: Sequence[LabeledRecording], speakers: Sequence[str], theirs: Collection[str] = ()
) -> list[LabeledRecording]:
    """The recordings of all others; all where no speaker is named.

    Args:
        theirs: ids of what these speakers said, which is dropped in a synthesizer's voice, too.

    Raises `ValueError` for sound without a speaker.
    """
    if not speakers:
        return list(recordings)
    _refuse_nameless(recordings)
    spoken_anew = {f"{SYNTHESIZED}{clip}" for clip in theirs}
    return [one for one in recordings if one.speaker not in speakers and one.id not in spoken_anew]


def _refuse_nameless(recordings: Sequence[LabeledRecording]) -> None:
    if nameless := [one.id for one in recordings if one.speaker is None and one.audio is not None]:
        raise ValueError(f"clip '{nameless[0]}' has no speaker; speakers cannot be held apart here")


def speech_of_minutes(
    recordings: Sequence[LabeledRecording],
    minutes: float,
    seed: int = 0,
    choice: SpeechChoice = "random",
    classes: bool = True,
) -> list[LabeledRecording]:
    """Recordings of at most so many minutes, in the order of `recordings`.

    Nested: with the same seed fewer minutes lie within more. How the paper drew its subsets is not established, both
    choices are our reading: "random" takes clips by lot, so that classes keep their shares; "balanced" makes classes,
    and then speakers, as equal as they go (see `nested_subsets`).

    Args:
        classes: whether answers are classes; "balanced" else looks at speakers alone.

    Raises `ValueError` for more minutes than there are, or so few that no clip fits.
    """
    budget = 60 * minutes
    if choice == "balanced":
        chosen = set(nested_subsets(_table(recordings), [budget], seed, "answer" if classes else None).ids[budget])
    else:
        chosen = _by_lot(recordings, budget, seed)
    return [one for one in recordings if one.id in chosen]


def _table(recordings: Sequence[LabeledRecording]) -> Dataset:
    return Dataset.from_dict(
        {
            "id": [one.id for one in recordings],
            "duration": [one.seconds for one in recordings],
            "speaker": [one.speaker for one in recordings],
            "answer": [one.answer for one in recordings],
        }
    )


def _by_lot(recordings: Sequence[LabeledRecording], budget: float, seed: int) -> set[str]:
    """Ids of the clips whose lots come first, as many as fit."""
    total = sum(one.seconds for one in recordings)
    if not 0 < budget <= total:
        raise ValueError(f"{budget / 60:g} minutes of speech are asked for, and there are {total / 60:.1f}")
    chosen: set[str] = set()
    for one in sorted(recordings, key=lambda one: hashlib.sha256(f"{seed} {one.id}".encode()).digest()):
        budget -= one.seconds
        if budget < 0:
            break
        chosen.add(one.id)
    if not chosen:
        raise ValueError("no clip fits into so little speech; ask for more minutes")
    return chosen
