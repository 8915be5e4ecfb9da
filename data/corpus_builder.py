"""What the builders of all corpora share: columns, the checks of every row, and what happens to rows that fail them.

A corpus says where its tables lie, which rows they have and what a row means. This base class turns that into a
`datasets` builder, map-style and streaming. It writes Arrow tables itself, because the encoders of `datasets` would
import torchcodec; audio stays a path that nobody decodes before it is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Literal, TypeAlias

import pyarrow as pa
from datasets import (
    ArrowBasedBuilder,
    Audio,
    BuilderConfig,
    ClassLabel,
    DatasetInfo,
    Features,
    List,
    SplitGenerator,
    Value,
)
from datasets.builder import Key
from transformers.utils import logging

from ..processing.audio_loading import AudioError, audio_seconds
from .corpus_errors import CorpusError, Place
from .corpus_sources import how_to_get
from .tables import Line, Row, read_json, shown

logger = logging.get_logger(__name__)

SAMPLING_RATE = 16_000
SKIPPED = "skipped.json"
ENTITIES = List({"type": Value("string"), "start": Value("int32"), "end": Value("int32"), "filler": Value("string")})
_ROWS_IN_MEMORY = 1000

Record: TypeAlias = "dict[str, Any]"


@dataclass
class SpeechCorpusConfig(BuilderConfig):
    """What of a corpus is read, and how strictly.

    Selection: `split`, one of the corpus's splits under any of its names; `audio`: recordings (True), sentences
    without them (False), or recordings where there are any (None).
    Labels: `labels`, names of classes by column, for corpora that do not know their own.
    Names: `columns`, our name of a column -> its name in the file, for corpora whose columns are their makers' own.
    Checks: `check_audio` opens the header of every recording; `on_error`: "raise" at the first faulty row, or "skip".
    """

    split: str | None = None
    audio: bool | None = None
    labels: dict[str, list[str]] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    check_audio: bool = True
    on_error: Literal["raise", "skip"] = "raise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_dir is None:
            raise ValueError("a corpus wants data_dir, the folder it lies in")
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is '{self.on_error}'; choose 'raise' or 'skip'")


class SpeechCorpus(ArrowBasedBuilder):
    """Base of all builders; use one as `Slurp(data_dir=..., split="test").as_streaming_dataset("test")`.

    Prepared tables are kept in the cache of `datasets` under a hash of the files on disk, so changed files are read
    anew; give any `hash` where nothing is to be prepared. `faults` fills with an error for each row that
    `on_error="skip"` leaves out.

    Raises:
        CorpusError: at construction, when the folder is not laid out as the corpus is.
    """

    BUILDER_CONFIG_CLASS = SpeechCorpusConfig
    NAME: ClassVar[str]  # as users call it
    ALIASES: ClassVar[Mapping[str, str]] = {}  # a corpus's own name of a split -> its name here

    config: SpeechCorpusConfig

    def __init__(self, **settings: Any) -> None:
        self.faults: MutableSequence[CorpusError] = []
        self._listed: set[str] = set()
        own = {one.name for one in fields(SpeechCorpusConfig)}
        self.config = SpeechCorpusConfig(**{name: value for name, value in settings.items() if name in own})
        fixed = {"hash": self.fingerprint()} if "hash" not in settings else {}
        super().__init__(**{"dataset_name": type(self).__name__, **fixed, **settings})

    # What a corpus says of itself.

    @abstractmethod
    def tables(self) -> dict[str, Path]:
        """The table of each split that is there."""

    @abstractmethod
    def lines(self, split: str) -> Iterator[Line]:
        """The rows of a split's table."""

    @abstractmethod
    def records(self, place: Place, row: Row, split: str) -> Iterable[Record]:
        """What a row means: `audio` as a path below the data folder, where only a part is meant a `cut_path`; labels
        as names. Raises `CorpusError` for a row that makes no sense."""

    @abstractmethod
    def columns(self) -> Features:
        """All columns but `id`, `audio` and `duration`."""

    @abstractmethod
    def sound_folders(self, split: str) -> list[Path]:
        """Where the recordings of a split lie, whether they are there or not."""

    def side_files(self) -> list[Path]:
        """Other files that rows depend on, such as a list of speakers."""
        return []

    # What all have in common.

    @cached_property
    def folder(self) -> Path:
        return Path(str(self.config.data_dir)).expanduser().absolute()

    @cached_property
    def with_audio(self) -> bool:
        """Whether recordings are read: where there are any, unless the settings say otherwise."""
        there = self.has_sounds()
        if self.config.audio and not there:
            raise CorpusError(self.folder, f"there are no recordings of this split. {self.how_to_get()}")
        if self.config.audio is None and not there:
            logger.warning(f"{self.folder}: there are no recordings of this split; texts alone are read")
        return there and self.config.audio is not False

    def how_to_get(self) -> str:
        """Where the corpus comes from and what its folder must look like."""
        return how_to_get(self.NAME, self.folder)

    def has_sounds(self) -> bool:
        return any(folder.is_dir() for split in self._wanted() for folder in self.sound_folders(split))

    def split_name(self, name: str) -> str:
        """Our name of a split. Raises `ValueError` for one that is not there."""
        known = self.tables()
        split = self.ALIASES.get(name, name)
        if split not in known:
            raise ValueError(f"'{self.folder}' has no split '{name}'; it has {', '.join(known)}")
        return split

    def fingerprint(self) -> str:
        """A hash of the tables' contents and of names, sizes and times of the recordings."""
        digest = hashlib.sha256(f"{self.folder.resolve()} {_CODE_VERSION}".encode(errors="surrogateescape"))
        for path in [*(self.tables()[split] for split in self._wanted()), *self.side_files()]:
            digest.update(path.read_bytes())
        for split in self._wanted() if self.with_audio else ():
            for folder in self.sound_folders(split):
                for name, size, changed in _files(folder):
                    digest.update(b"%s %d %d\n" % (name, size, changed))
        return digest.hexdigest()[:16]

    def _wanted(self) -> list[str]:
        return [self.split_name(self.config.split)] if self.config.split else list(self.tables())

    def _info(self) -> DatasetInfo:
        audio = {"audio": Audio(sampling_rate=SAMPLING_RATE, decode=False), "duration": Value("float64")}
        return DatasetInfo(
            features=Features({"id": Value("string"), **(audio if self.with_audio else {}), **self.columns()})
        )

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        return [SplitGenerator(name=split, gen_kwargs={"split": split}) for split in self._wanted()]

    def _generate_tables(self, split: str) -> Iterator[tuple[Key, pa.Table]]:  # type: ignore[override]
        schema = self.info.features.arrow_schema
        faults: list[CorpusError] = []
        records = self._good_records(split, faults)
        number = 0
        while batch := list(islice(records, _ROWS_IN_MEMORY)):
            yield Key(0, number), pa.Table.from_pylist([self._encoded(record) for record in batch], schema=schema)
            number += 1
        self._note_faults(split, faults)
        if not number:
            reason = skip_report(self.tables()[split], faults) if faults else "there are no rows"
            raise CorpusError(self.tables()[split], f"split '{self.config.split or split}' is empty: {reason}")

    def _good_records(self, split: str, faults: list[CorpusError]) -> Iterator[Record]:
        seen: dict[str, Place] = {}
        for place, row in self.lines(split):
            try:
                if isinstance(row, CorpusError):
                    raise row
                found = list(self.records(place, row, split))
            except CorpusError as error:
                self._fault(error, faults)
                continue
            for record in found:
                try:
                    yield self._checked(place, record, seen)
                except CorpusError as error:
                    self._fault(error, faults)

    def _fault(self, error: CorpusError, faults: list[CorpusError]) -> None:
        if self.config.on_error == "raise":
            raise error
        faults.append(error)
        if str(error) not in self._listed:  # a stream may be read several times
            self._listed.add(str(error))
            self.faults.append(error)

    def _note_faults(self, split: str, faults: list[CorpusError]) -> None:
        """Keeps the list beside the prepared data, for those who find it in the cache."""
        if not faults:
            return
        if os.path.isdir(self._output_dir):
            noted = [[str(error.place.file), error.place.line, error.problem] for error in faults]
            Path(self._output_dir, SKIPPED).write_text(json.dumps(noted, indent=1))
        else:
            logger.warning(skip_report(self.tables()[split], faults))

    def skipped(self) -> list[CorpusError]:
        """The rows that were left out when the prepared tables were made."""
        path = Path(self.cache_dir, SKIPPED)
        noted = read_json(path) if path.is_file() else []
        return [CorpusError(Place(Path(file), line), problem) for file, line, problem in noted]

    def _checked(self, place: Place, record: Record, seen: dict[str, Place]) -> Record:
        if record["id"] in seen:
            raise CorpusError(place, f"the id '{record['id']}' stands in {seen[record['id']]} too; give each its own")
        for column, feature in self.info.features.items():
            if isinstance(feature, ClassLabel) and record.get(column) not in (None, *feature.names):
                raise CorpusError(place, unknown_label(column, record[column], feature.names))
        if self.with_audio:
            record = self._with_sound(place, record)
        seen[record["id"]] = place
        return record

    def _with_sound(self, place: Place, record: Record) -> Record:
        source = str(self.folder / inside(place, record["audio"]))
        seconds = record.get("duration")
        try:
            if self.config.check_audio:
                seconds = audio_seconds(source)
        except AudioError as error:
            raise CorpusError(place, str(error)) from None
        return {**record, "audio": source, "duration": seconds}

    def _encoded(self, record: Record) -> Record:
        row: Record = {}
        for column, feature in self.info.features.items():
            value = record.get(column)
            if isinstance(feature, Audio):
                value = {"bytes": None, "path": value}
            elif isinstance(feature, ClassLabel) and value is not None:
                value = feature.str2int(value)
            row[column] = value
        return row


def inside(place: Place, path: Any) -> Path:
    """A path below the data folder. Raises `CorpusError` for one that leaves it; links are followed as they stand."""
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise CorpusError(place, f"{shown(path)} is no path of an audio file; write one below the data folder")
    parts = (*PurePosixPath(path).parts, *PureWindowsPath(path).parts)
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute() or ".." in parts:
        raise CorpusError(place, f"'{path}' leaves the data folder; write a path below it")
    return Path(path)


def wanted(place: Place, row: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """A value of a row that must be there and of a kind. Raises `CorpusError` otherwise."""
    if key not in row:
        raise CorpusError(place, f"there is no '{key}'; the row has {', '.join(map(str, row)) or 'nothing'}")
    value = row[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise CorpusError(place, f"'{key}' is {shown(value)}; it must be {names}")
    return value


def entity(place: Place, text: str, kind: str, start: int, end: int, filler: str | None = None) -> Record:
    """An entity on characters `start` to `end` (exclusive) of `text`. Raises `CorpusError` for a span outside."""
    if not 0 <= start < end <= len(text):
        raise CorpusError(
            place, f"the {kind} from {start} to {end} lies outside the {len(text)} characters of its text"
        )
    return {"type": kind, "start": start, "end": end, "filler": text[start:end] if filler is None else filler}


def unknown_label(column: str, value: Any, names: Iterable[str]) -> str:
    """The message for a label that no class has."""
    return f"{column} {shown(value)} is unknown; correct it, or leave the row out. Known: {shorten(names)}"


def skip_report(table: Path | str, faults: Sequence[CorpusError]) -> str:
    """What was left out, in one line: how many rows, and the first of them."""
    return f"{table}: {len(faults)} rows were skipped, the first because of {faults[0]}"


def shorten(names: Iterable[str], most: int = 12) -> str:
    listed = list(names)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest


def _files(folder: Path) -> Iterator[tuple[bytes, int, int]]:
    """Path, size and time of every file below a folder, in order; links to folders are followed once."""
    visited: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        visited.add(os.path.realpath(root))
        folders[:] = sorted(one for one in folders if os.path.realpath(os.path.join(root, one)) not in visited)
        for name in sorted(files):
            path = os.path.join(root, name)
            facts = os.stat(path) if os.path.exists(path) else os.lstat(path)
            yield os.fsencode(path), facts.st_size, facts.st_mtime_ns


# Prepared tables of older code are made anew; count up when the meaning of a row changes.
_CODE_VERSION = 2
