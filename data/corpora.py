"""Corpora of recordings with labels, and the examples that training and evaluation make of them.

A corpus is a folder with `metadata.jsonl` (one JSON object a line: `audio`, a path below the folder, and any labels)
or whatever `datasets.load_dataset` reads. Audio stays undecoded until a processor asks for it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Audio, ClassLabel, Dataset, Value, concatenate_datasets, load_dataset
from transformers.utils import logging

from .synthetic_corpus import RECIPES, build_synthetic_corpus

logger = logging.get_logger(__name__)

METADATA = "metadata.jsonl"
SYNTHETIC = "synthetic:"


def load_corpus(source: str | Path, split: str | None = None, columns: Mapping[str, str] | None = None) -> Dataset:
    """A corpus as a data set with at least the columns `id` (text) and `audio` (bytes or a path, undecoded).

    Of a folder's metadata everything but lists becomes a column.

    Args:
        source: folder with `metadata.jsonl`; or the id or folder of a data set, where `id:configuration` picks one;
            or `synthetic:NAME`, a recipe of this package, which is spoken on first use.
        split: keeps the rows of a `split` column, or the data set's split ("train" by default there).
        columns: our name of a column -> its name in the corpus, for instance `{"transcript": "sentence"}`.

    Raises:
        FileNotFoundError: an audio file that the metadata names does not exist.
        ValueError: there is no audio column, no row, or a column named in `columns` is missing; two clips have one id.
    """
    folder = Path(source)
    if str(source).startswith(SYNTHETIC):
        folder = _speak(str(source).removeprefix(SYNTHETIC))
    audio = (columns or {}).get("audio", "audio")
    rows = _from_folder(folder, split, audio) if (folder / METADATA).is_file() else _from_hub(str(source), split)
    if not len(rows):
        raise ValueError(f"'{source}' has no rows" + (f" of split '{split}'" if split else ""))
    for ours, theirs in (columns or {}).items():
        if theirs not in rows.column_names:
            raise ValueError(f"'{source}' has no column '{theirs}'; it has {', '.join(rows.column_names)}")
        rows = rows.rename_column(theirs, ours) if theirs != ours else rows
    if "audio" not in rows.column_names:
        raise ValueError(
            f"'{source}' has no column 'audio'; it has {', '.join(rows.column_names)}: name it in columns"
        )
    if "id" not in rows.column_names:
        name = f"{source}@{split}" if split else str(source)
        rows = rows.add_column("id", [f"{name}-{index:06d}" for index in range(len(rows))])
    _check_ids(rows["id"], source)
    return rows.cast_column("id", Value("string"))


def _check_ids(ids: Iterable[Any], source: str | Path) -> None:
    seen: set[Any] = set()
    for clip in ids:
        if clip in seen:
            raise ValueError(f"'{source}' has two clips with the id '{clip}'; give each its own, or drop the column")
        seen.add(clip)


def _speak(recipe: str) -> Path:
    if recipe not in RECIPES:
        raise ValueError(f"there is no synthetic corpus '{recipe}'; choose one of {', '.join(sorted(RECIPES))}")
    return build_synthetic_corpus(RECIPES[recipe])


def _from_folder(folder: Path, split: str | None, audio: str) -> Dataset:
    lines = (folder / METADATA).read_text(encoding="utf-8").splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    records = [_record(line, f"{folder / METADATA}, line {number}", folder, audio) for number, line in numbered]
    kept = [record for record in records if split is None or record.get("split") == split]
    # Columns that not every line has are filled with None, so that kinds of clips may differ.
    names = {name: None for record in kept for name in record}
    rows = Dataset.from_list([{**names, **record} for record in kept])
    return rows.cast_column(audio, Audio(decode=False)) if kept else rows


def _record(line: str, place: str, folder: Path, audio: str) -> dict[str, Any]:
    """One line of metadata with the whole path of its `audio` column. Raises errors that name the `place`."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON ({error}); write one object a line") from None
    if not isinstance(record, dict) or not record.get(audio):
        raise ValueError(f"{place}: there is no '{audio}'; add it, or name its column by columns={{'audio': ...}}")
    if not isinstance(record[audio], str):
        raise ValueError(f"{place}: '{audio}' is {str(record[audio])[:60]}; give the path of a file as text")
    path = folder / record[audio]
    if not path.is_file():
        raise FileNotFoundError(f"{place}: {path} does not exist; restore it or drop the line")
    # Lists, such as alignments, may mix types, which a table cannot.
    return {**{name: value for name, value in record.items() if not isinstance(value, list)}, audio: str(path)}


def _from_hub(source: str, split: str | None) -> Dataset:
    name, _, configuration = source.partition(":")
    rows = load_dataset(name, configuration or None, split=split or "train")
    for column, feature in rows.features.items():
        if isinstance(feature, Audio):
            rows = rows.cast_column(column, Audio(decode=False))
    return rows


def task_examples(corpus: Dataset, tasks: Mapping[str, str]) -> Dataset:
    """One row for each clip and task that the clip has a target for.

    Concatenating tasks mixes them in proportion to their sizes, the rule of SLM (section 3.2).

    Args:
        tasks: name of the processor's prompt -> column that holds the answer.

    Returns:
        A data set with columns `id`, `audio`, `task`, `target`, `transcript` and `speaker` (empty where unknown) and
        `length` (seconds, 0 where unknown).

    Raises:
        ValueError: a column is missing, or no clip has a target.
    """
    parts = [_of_task(corpus, task, column) for task, column in tasks.items()]
    examples = concatenate_datasets(parts)
    if not len(examples):
        raise ValueError(f"no clip has a target in any of the columns {', '.join(tasks.values())}")
    return examples


def _of_task(corpus: Dataset, task: str, column: str) -> Dataset:
    if column not in corpus.column_names:
        raise ValueError(f"task '{task}' wants column '{column}'; the corpus has {', '.join(corpus.column_names)}")
    targets = corpus[column]
    kept = [index for index, target in enumerate(targets) if target not in (None, "")]
    if 0 < len(kept) < len(targets):
        logger.warning(f"task '{task}': {len(targets) - len(kept)} of {len(targets)} clips have no '{column}'")
    # Audio is never copied here: where every clip has a target, `select` is a view.
    chosen = corpus.select(kept)
    small = {
        "task": [task] * len(kept),
        "target": _texts(chosen, column),
        "transcript": [text or "" for text in _column(chosen, "transcript", "")],
        "speaker": ["" if speaker is None else str(speaker) for speaker in _column(chosen, "speaker", "")],
        "length": [float(seconds or 0) for seconds in _column(chosen, "duration", 0.0)],
    }
    examples = chosen.select_columns(["id", "audio"])
    for name, values in small.items():
        examples = examples.add_column(name, values)
    return examples


def _column(rows: Dataset, name: str, default: Any) -> list[Any]:
    return list(rows[name]) if name in rows.column_names else [default] * len(rows)


def _texts(rows: Dataset, column: str) -> list[str]:
    """Answers as text; classes that a data set numbers by their names."""
    feature = rows.features[column]
    return feature.int2str(list(rows[column])) if isinstance(feature, ClassLabel) else [*map(str, rows[column])]
