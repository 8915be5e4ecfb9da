"""Conversations as rows of a corpus: the question spoken, the answer written.

A conversation is a list of messages as chat templates take them, `{"role": "user", "content": ...}`. Content is text,
or a list of parts `{"type": "text", "text": ...}` and `{"type": "audio", "path": ...}`. Older sets write
`{"from": "human", "value": ...}`. Each conversation gives one row:

- `audio`: the clip of the user's first spoken turn. It stands in a part, under `audio` or `path`; or it is the row's
  own column `audio`, whose place is marked by a part `{"type": "audio"}` or by `<audio>` in a text. Without a mark it
  belongs to the user's first turn.
- `context`: every text before the answer, in order, one below the other: those of the system and of the spoken turn as
  they are, those of other turns behind who said them. Where texts are what the clip says, leave `{context}` out of the
  prompt, which then does not read them.
- `answer`: what the assistant writes to it.

Later answers would need speech of several turns, or follow a written turn: they are no rows; nor are conversations
where nobody speaks, or where something stands between the spoken turn and its answer. A warning counts both. Speech
of the assistant is not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Audio, Dataset, Features, LargeList, List, Value, concatenate_datasets
from datasets.fingerprint import update_fingerprint
from transformers.utils import logging

from .corpus_errors import CorpusError, Place
from .tables import Row, shown

logger = logging.get_logger(__name__)

MESSAGES = "messages"
MARK = "<audio>"
BINARY = (Value("binary"), Value("large_binary"))
ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
OF_THE_ROW = object()  # stands for the clip in the row's own column
_NUMBER = "number"  # of an embedded clip among all parts of the column


@dataclass(frozen=True)
class SpokenQuestion:
    """The clip (a path, or a mapping with one), what is read with it, and the answer."""

    clip: Any
    context: str
    answer: str
    later_answers: int


@dataclass(frozen=True)
class _Turn:
    role: str
    texts: list[str]
    clips: list[Any]


def spoken_question(messages: Any, place: Place | str, row_has_clip: bool) -> SpokenQuestion | None:
    """What a conversation asks in speech first, and what is answered; None where nobody speaks or answers.

    Raises `CorpusError` for a turn with two clips, a clip that is not there, and what is no conversation.
    """
    if not isinstance(messages, list):
        raise CorpusError(place, f"'{MESSAGES}' is {shown(messages)}; write a list of messages")
    turns = [_turn(message, place) for message in messages]
    of_user = [index for index, turn in enumerate(turns) if turn.role == "user"]
    if row_has_clip and of_user and not any(turn.clips for turn in turns):
        turns[of_user[0]].clips.append(OF_THE_ROW)
    asked = next((index for index in of_user if turns[index].clips), len(turns))
    reply = [*takewhile(lambda turn: turn.role == "assistant", turns[asked + 1 :])]
    answer = _lines(text for turn in reply for text in turn.texts)
    if not answer:
        return None
    later = [turn for turn in turns[asked + 1 + len(reply) :] if turn.role == "assistant" and _lines(turn.texts)]
    clip = _only(turns[asked].clips, place, row_has_clip)
    return SpokenQuestion(clip, _context(turns[: asked + 1]), answer, len(later))


def _turn(message: Any, place: Place | str) -> _Turn:
    if not isinstance(message, Mapping):
        raise CorpusError(place, f"the message {shown(message)} is no object; write its role and content")
    role, content = _first(message, "role", "from"), _first(message, "content", "value")
    if role not in ROLES:
        raise CorpusError(place, f"a message has the role {shown(role)}; use one of {', '.join(ROLES)}")
    turn = _Turn(ROLES[role], [], [])
    for part in content if isinstance(content, list) else [content]:
        _take(turn, part, place)
    return turn


def _take(turn: _Turn, part: Any, place: Place | str) -> None:
    """Adds a part of the content to its turn."""
    kind = part.get("type") if isinstance(part, Mapping) else "text"
    text = part.get("text") if isinstance(part, Mapping) else part
    if kind == "audio":
        source = _first(part, "audio", "path")
        turn.clips.append(OF_THE_ROW if source is None else source)
    elif kind == "text" and isinstance(text, str | None):
        turn.clips.extend([OF_THE_ROW] * (text or "").count(MARK))
        turn.texts.append((text or "").replace(MARK, " ").strip())
    else:
        raise CorpusError(place, f"a message holds {shown(part)}; use parts of type text and audio, or a text")


def _first(values: Mapping[str, Any], *keys: str) -> Any:
    return next((values[key] for key in keys if values.get(key) is not None), None)


def _only(clips: Sequence[Any], place: Place | str, row_has_clip: bool) -> Any:
    if len(clips) > 1:
        raise CorpusError(
            place, f"a turn of the user holds {len(clips)} clips, and a prompt takes one; join them, or leave it out"
        )
    if clips[0] is OF_THE_ROW and not row_has_clip:
        raise CorpusError(place, "an audio part has neither 'audio' nor 'path', nor has the row; name the clip")
    return clips[0]


def _context(turns: Sequence[_Turn]) -> str:
    *earlier, asked = turns
    before = [
        text if turn.role == "system" else f"{turn.role}: {text}" for turn in earlier if (text := _lines(turn.texts))
    ]
    return _lines([*before, *asked.texts])


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)


def warn_of_what_is_left_out(source: Any, questions: Sequence[SpokenQuestion | None]) -> None:
    silent = sum(question is None for question in questions)
    later = sum(question.later_answers for question in questions if question is not None)
    if silent:
        logger.warning(f"{source}: {silent} of {len(questions)} conversations have no spoken and answered question")
    if later:
        logger.warning(f"{source}: {later} answers after the first spoken question are left out")


# ---- a line of metadata.jsonl ---------------------------------------------------------------------------------------


def question_of_line(place: Place, row: Row) -> SpokenQuestion | None:
    """The question of a line with messages. Raises `CorpusError` as `spoken_question`."""
    _refuse_taken(row, place)
    return spoken_question(row[MESSAGES], place, row.get("audio") is not None)


def line_of_question(row: Row, question: SpokenQuestion) -> Row:
    """The line with `audio`, `context` and `answer` in place of its messages."""
    audio = row["audio"] if question.clip is OF_THE_ROW else _path(question.clip)
    kept = {name: value for name, value in row.items() if name != MESSAGES}
    return {**kept, "audio": audio, "context": question.context, "answer": question.answer}


def _refuse_taken(names: Iterable[str], place: Place | str) -> None:
    if taken := {"context", "answer"} & {*names}:
        name = min(taken)
        raise CorpusError(place, f"conversations give '{name}', which is there already; rename it by columns")


def _path(clip: Any) -> Any:
    return clip.get("path") if isinstance(clip, Mapping) else clip


# ---- a data set -----------------------------------------------------------------------------------------------------


def is_chat(features: Mapping[str, Any] | None) -> bool:
    """Whether a data set holds conversations: lists in a column `messages`."""
    return isinstance((features or {}).get(MESSAGES), (List, LargeList))


def chat_rows(dataset: Dataset, source: str) -> Dataset:
    """One row for each conversation with a spoken question, its other columns kept.

    Encoded audio is neither decoded nor, where all clips of a set are asked for, copied.

    Args:
        source: what errors and warnings call the data set.

    Raises:
        CorpusError: a conversation makes no sense, or none is spoken and answered; it names the row.
    """
    _refuse_taken(dataset.column_names, source)
    has_clip = _has_clip(dataset)
    questions = [
        spoken_question(messages, _row(source, row), has_clip[row])
        for row, messages in enumerate(_conversations(dataset))
    ]
    warn_of_what_is_left_out(source, questions)
    found = {row: question for row, question in enumerate(questions) if question is not None}
    if not found:
        raise CorpusError(
            source, f"no conversation of '{MESSAGES}' has a spoken question with an answer; check its roles"
        )
    ours = Dataset(pa.table(_columns(dataset, found, source)), fingerprint=_fingerprint(dataset, source))
    others = dataset.remove_columns(MESSAGES)
    if "audio" in ours.column_names:
        ours = ours.cast_column("audio", Audio(decode=False))
        others = others.remove_columns([name for name in ("audio",) if name in others.column_names])
    return concatenate_datasets([others.select(list(found)), ours], axis=1) if others.column_names else ours


def _fingerprint(dataset: Dataset, source: str) -> str:
    return update_fingerprint(dataset._fingerprint, chat_rows.__name__, {"source": source})


def _columns(dataset: Dataset, found: Mapping[int, SpokenQuestion], source: str) -> dict[str, Any]:
    """What the conversations give; `audio` among it where clips stand in them."""
    texts = {name: [getattr(question, name) for question in found.values()] for name in ("context", "answer")}
    inside = {row: question.clip for row, question in found.items() if question.clip is not OF_THE_ROW}
    if not inside:
        return texts
    for row in found:
        if row not in inside:
            raise CorpusError(_row(source, row), "its clip is the column 'audio', others are in messages; use one way")
    return {"audio": _encoded(dataset, inside, source), **texts}


def _row(source: str, row: int) -> str:
    return f"{source}, row {row}"


# ---- encoded audio inside of messages -------------------------------------------------------------------------------


def _has_clip(dataset: Dataset) -> list[bool]:
    if "audio" not in dataset.column_names:
        return [False] * len(dataset)
    return _column(dataset, "audio").is_valid().to_pylist()


def _column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    return dataset.select_columns([name]).with_format("arrow")[:].column(name)


def _conversations(dataset: Dataset) -> Iterator[Any]:
    """The messages of each row without encoded audio; parts that have some are told their number."""
    feature = dataset.features[MESSAGES]
    light = _without_sound(feature)
    if light == feature:
        yield from dataset[MESSAGES]
        return
    kind = Features({MESSAGES: light}).arrow_schema.field(MESSAGES).type
    numbers = count()
    for messages in Dataset(pa.table({MESSAGES: _column(dataset, MESSAGES).cast(kind)}))[MESSAGES]:
        for message in messages or ():
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                number = next(numbers)
                if isinstance(part.get("audio"), dict):
                    part["audio"][_NUMBER] = number
        yield messages


def _without_sound(feature: Any) -> Any:
    if isinstance(feature, Audio):
        return {"path": Value("string")}
    if isinstance(feature, (List, LargeList)):
        return type(feature)(_without_sound(feature.feature))
    if isinstance(feature, dict):
        return {name: _without_sound(item) for name, item in feature.items() if item not in BINARY}
    return feature


def _encoded(dataset: Dataset, clips: Mapping[int, Any], source: str) -> pa.ChunkedArray:
    """The clips of rows as `datasets` keeps audio: bytes and path."""
    paths = [_path(clip) for clip in clips.values()]
    numbers = [clip.get(_NUMBER) if isinstance(clip, Mapping) else None for clip in clips.values()]
    contents = _chosen(_sound_of_parts(dataset), numbers) if any(n is not None for n in numbers) else None
    if contents is None:
        contents = pa.chunked_array([pa.nulls(len(paths), pa.binary())])
    for row, path, there in zip(clips, paths, contents.is_valid().to_pylist(), strict=True):
        if not (there or isinstance(path, str)):
            raise CorpusError(_row(source, row), f"the clip {shown(clips[row])} is no path of a file; write one")
    column, start = [], 0
    for chunk in contents.chunks:
        names = pa.array(paths[start : start + len(chunk)], pa.string())
        column.append(pa.StructArray.from_arrays([chunk, names], ["bytes", "path"]))
        start += len(chunk)
    return pa.chunked_array(column)


def _sound_of_parts(dataset: Dataset) -> pa.ChunkedArray:
    """Encoded audio of every part of every message, null where a part has none."""
    chunks = []
    for messages in _column(dataset, MESSAGES).chunks:
        parts = pc.list_flatten(pc.struct_field(pc.list_flatten(messages), "content"))
        chunks.append(pc.struct_field(parts, ["audio", "bytes"]).cast(pa.binary()))
    return pa.chunked_array(chunks)


def _chosen(values: pa.ChunkedArray, numbers: Sequence[int | None]) -> pa.ChunkedArray:
    """`values.take(numbers)` for growing numbers; memory is shared where no bytes of others lie in between."""
    if None in numbers:
        return values.take(pa.array(numbers, pa.int64()))
    wanted, base, chunks = np.array(numbers), 0, []
    for chunk in values.chunks:
        inside = wanted[(wanted >= base) & (wanted < base + len(chunk))] - base
        chunks.append(_shared(chunk, inside) if len(inside) else chunk[:0])
        base += len(chunk)
    return pa.chunked_array(chunks)


def _shared(values: pa.BinaryArray, wanted: np.ndarray) -> pa.BinaryArray:
    _, offsets, contents = values.buffers()
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    starts, ends = bounds[wanted], bounds[wanted + 1]
    missing = values.is_null().to_numpy(zero_copy_only=False)[wanted]
    if missing.any() or (starts[1:] != ends[:-1]).any():
        return values.take(pa.array(wanted))
    return pa.Array.from_buffers(
        values.type, len(wanted), [None, pa.py_buffer(np.append(starts, ends[-1:])), contents]
    )
