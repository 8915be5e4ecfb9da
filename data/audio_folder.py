"""A plain folder of recordings with `metadata.jsonl`: one JSON object a line, `audio` a path below the folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Features, Value
from datasets.features.features import generate_from_arrow_type

from .chat_rows import MESSAGES, SpokenQuestion, line_of_question, question_of_line, warn_of_what_is_left_out
from .corpus_builder import ENTITIES, Record, SpeechCorpus, entity, wanted
from .corpus_errors import CorpusError, Place
from .tables import Line, Row, read_json_lines, shown

METADATA = "metadata.jsonl"
CLASSES = ("scenario", "action", "object", "location", "intent", "sentiment")
ALL = "train"  # the one split under which `datasets` keeps the rows that were asked for
_OWN = ("id", "audio", "duration", "entities")
_TEXTS = ("text", "speaker")  # numbers in them are written out
_KINDS: dict[type, str] = {str: "string", int: "int64", float: "float64", bool: "bool"}


class AudioFolder(SpeechCorpus):
    """Every key of the lines becomes a column, but for lists, whose items may mix types.

    `text` may be called `transcript`; `id` may be missing; `split`, where a line has one, is what `split` chooses by.
    Of entities, lists of `{"type", "start", "end"}` on the characters of `text`, `filler` may be missing. The
    classes of scenario, action, object, location, intent and sentiment are those of the whole file in the order of the
    alphabet, unless `labels` names them: give it where two folders must number them alike. The first value of another
    column decides its kind. A list of `messages` is a conversation, read as in `chat_rows`.
    """

    NAME = "folder"

    @property
    def metadata(self) -> Path:
        return self.folder / METADATA

    def how_to_get(self) -> str:
        return 'Write one line a clip: {"audio": "clips/1.wav"}; or read texts with audio=False'

    def tables(self) -> dict[str, Path]:
        if not self.metadata.is_file():
            raise CorpusError(self.metadata, f"there is no such file. {self.how_to_get()}")
        return {ALL: self.metadata}

    def split_name(self, name: str) -> str:
        return ALL

    def sound_folders(self, split: str) -> list[Path]:
        return [self.folder]

    def has_sounds(self) -> bool:
        return "audio" in self._seen.keys

    def lines(self, split: str) -> Iterator[Line]:
        if self.config.split not in {None, *self._seen.splits}:
            known = ", ".join(sorted(self._seen.splits)) or "none"
            raise CorpusError(self.metadata, f"has no rows of split '{self.config.split}'; it has {known}")
        for place, row in read_json_lines(self.metadata):
            if isinstance(row, CorpusError) or self.config.split in (None, row.get("split")):
                yield place, row

    def columns(self) -> Features:
        seen, labels = self._seen, self.config.labels
        for given in [*labels, *self.config.columns]:
            if given not in seen.keys:
                theirs = self.config.columns.get(given, given)
                raise CorpusError(self.metadata, f"has no column '{theirs}'; it has {', '.join(seen.keys)}")
        columns = {name: self._feature(name, kind) for name, kind in seen.kinds.items()}
        columns |= {name: ClassLabel(names=list(names)) for name, names in labels.items()}
        return Features({**columns, "entities": ENTITIES} if "entities" in seen.keys else columns)

    @cached_property
    def _seen(self) -> _Seen:
        """The columns of the whole file, all splits, so that those number their classes alike."""
        seen = _Seen()
        questions: list[SpokenQuestion | None] = []
        for place, row in read_json_lines(self.metadata):
            if isinstance(row, CorpusError):
                continue
            row = self._renamed(row)
            seen.take(row)
            if _is_conversation(row):
                with suppress(CorpusError):  # raised again when the record is made
                    questions.append(question := question_of_line(place, row))
                    seen.take(line_of_question(row, question) if question else {})
        warn_of_what_is_left_out(self.metadata, questions)
        return seen

    def _feature(self, name: str, kind: Any) -> Any:
        if name in CLASSES and kind is str:
            return ClassLabel(names=sorted(self._seen.labels[name]))
        if kind is dict:
            return self._struct(name)
        return Value(_KINDS[str if name in _TEXTS else kind])

    def _struct(self, name: str) -> Any:
        rows = (self._renamed(row) for _, row in read_json_lines(self.metadata) if not isinstance(row, CorpusError))
        try:
            kind = pa.array([row.get(name) for row in rows]).type
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
            raise CorpusError(self.metadata, f"'{name}' mixes kinds of values ({error}); use one") from None
        return generate_from_arrow_type(kind)

    def records(self, place: Place, row: Row, split: str) -> Iterable[Record]:
        row = self._renamed(row)
        if _is_conversation(row):
            if (question := question_of_line(place, row)) is None:
                return []
            row = line_of_question(row, question)
        if self.with_audio and not row.get("audio"):
            raise CorpusError(place, "there is no 'audio'; add it, or name its column by columns={'audio': ...}")
        record = {name: _value(place, name, row.get(name), kind) for name, kind in self._seen.kinds.items()}
        record |= {"id": self._id(place, row), "audio": row.get("audio"), "duration": _duration(place, row)}
        if row.get("entities") is not None:
            record["entities"] = _entities(place, row)
        return [record]

    def _renamed(self, row: Row) -> Row:
        """A row with our names of columns; what had such a name before gives way."""
        ours = {theirs: name for name, theirs in self.config.columns.items()}
        if "transcript" in row and "text" not in {*row, *self.config.columns}:
            ours = {"transcript": "text", **ours}
        kept = {name: value for name, value in row.items() if name in ours or name not in ours.values()}
        return {ours.get(name, name): value for name, value in kept.items()}

    def _id(self, place: Place, row: Row) -> str:
        name = row.get("id")
        if name is None:
            return f"{self.folder.parent.name}/{self.folder.name}-{place.line:06d}"
        if type(name) not in (str, int) or name == "":
            raise CorpusError(place, f"'id' is {shown(name)}; give a text or a number")
        return str(name)


@dataclass
class _Seen:
    """What a file holds: all `keys` in their order, the `splits`, and of each column its kind and its labels."""

    keys: dict[str, None] = field(default_factory=dict)
    splits: set[str] = field(default_factory=set)
    kinds: dict[str, type] = field(default_factory=dict)
    labels: dict[str, set[str]] = field(default_factory=dict)

    def take(self, row: Row) -> None:
        self.keys |= dict.fromkeys(row)
        if isinstance(row.get("split"), str):
            self.splits.add(row["split"])
        for name, value in row.items():
            if name in _OWN or isinstance(value, list) or value is None:
                continue
            kind = self.kinds.setdefault(name, type(value))
            if kind is int and type(value) is float:
                self.kinds[name] = float
            if name in CLASSES and isinstance(value, str):
                self.labels.setdefault(name, set()).add(value)


def _is_conversation(row: Row) -> bool:
    return isinstance(row.get(MESSAGES), list)


def _value(place: Place, name: str, value: Any, kind: type) -> Any:
    """A value of the column's kind; lists are left out."""
    if value is None or isinstance(value, list):
        return None
    if name in _TEXTS and type(value) in (str, int, float):
        return str(value)
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is not kind:
        raise CorpusError(place, f"'{name}' is {shown(value)}, and {kind.__name__} above; use one kind of value")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise CorpusError(place, f"'{name}' is {shown(value)}, which is too large; write it as text")
    return value


def _duration(place: Place, row: Row) -> float | None:
    if row.get("duration") is None:
        return None
    seconds = wanted(place, row, "duration", (int, float))
    if not 0 <= seconds < 1e9:
        raise CorpusError(place, f"'duration' is {shown(seconds)}; give seconds")
    return float(seconds)


def _entities(place: Place, row: Row) -> list[Record]:
    found = []
    text = wanted(place, row, "text", str)
    for item in wanted(place, row, "entities", list):
        if not isinstance(item, dict):
            raise CorpusError(place, f"the entity {shown(item)} is no object; write type, start and end")
        kind, start, end = (wanted(place, item, key, of) for key, of in (("type", str), ("start", int), ("end", int)))
        filler = wanted(place, item, "filler", str) if item.get("filler") is not None else None
        found.append(entity(place, text, kind, start, end, filler))
    return found
