"""The front door to every corpus, and the examples that training and evaluation make of one.

Audio stays undecoded until a processor asks for it.
"""

from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Audio, ClassLabel, Dataset, IterableDataset, Value, concatenate_datasets, load_dataset
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError
from transformers.utils import logging

from .audio_folder import ALL, METADATA, AudioFolder
from .chat_rows import chat_rows, is_chat
from .corpus_builder import SpeechCorpus, skip_report
from .corpus_errors import CorpusError
from .downloads import download_corpus
from .fluent_speech_commands import FluentSpeechCommands
from .slue import SlueVoxCeleb, SlueVoxPopuli
from .slurp import NluEvaluation, Slurp
from .synthetic_corpus import RECIPES, build_synthetic_corpus
from .tiny_corpora import TINY_CORPORA, tiny_corpus

logger = logging.get_logger(__name__)

CORPORA: Mapping[str, type[SpeechCorpus]] = {
    "slurp": Slurp,
    "nlu_evaluation": NluEvaluation,
    "fluent_speech_commands": FluentSpeechCommands,
    "slue_voxceleb": SlueVoxCeleb,
    "slue_voxpopuli": SlueVoxPopuli,
    "folder": AudioFolder,
}

SYNTHETIC = "synthetic:"


def load_corpus(
    source: str | Path,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    data_dir: str | Path | None = None,
    streaming: bool = False,
    audio: bool | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    check_audio: bool = True,
    on_error: Literal["raise", "skip"] = "raise",
    skipped: MutableSequence[CorpusError] | None = None,
    download: bool = False,
    cache_dir: str | Path | None = None,
) -> Dataset | IterableDataset:
    """A corpus as a data set: one row a recording, or a sentence where there are no recordings.

    Columns are the same for all corpora, and left out where a corpus has none: `id`, `audio` (undecoded: a path, or
    bytes), `duration` (seconds), `text`, `speaker`, `scenario`, `action`, `object`, `location`, `intent`, `sentiment`
    (classes), `entities` (type, start and end on the characters of `text`, filler); and what is the corpus's own.
    The path of a cut recording is a media fragment (`clip.flac#t=2.5,5.52`), which `load_audio` reads; to embed audio,
    use `examples/prepare_corpus.py`.

    A column `messages`, which `columns` may name (`{"messages": "conversations"}`), is read as the module `chat_rows`
    describes: one row a conversation, with `audio`, `context` and `answer`.

    Args:
        source: "slurp", "nlu_evaluation", "fluent_speech_commands", "slue_voxceleb" or "slue_voxpopuli", with
            `data_dir`, which may also be written behind it: "slurp:DATA_DIR"; a folder with `metadata.jsonl`;
            "synthetic:NAME", a recipe of this package or one of the corpora in its layout ("synthetic:slurp"), which
            is spoken on first use; or the id or folder of a data set, where `id:configuration` picks one.
        split: train, validation, test, or the corpus's own name of one. A folder without it is read whole; of a data
            set it is "train" by default.
        columns: our name of a column -> its name in the corpus, for instance `{"text": "sentence"}`.
        data_dir: where the corpus lies, laid out as its makers publish it.
        streaming: rows are read as they are asked for, and nothing is kept in the cache.
        audio: False reads texts alone; True insists on recordings; None takes recordings where there are any, and
            warns where there are none.
        labels: names of classes by column, for a folder whose classes must be numbered as another's.
        check_audio: open the header of every recording first, which finds missing and damaged files and gives the
            duration.
        on_error: "skip" leaves faulty rows out, counts them in a warning and lists them in `skipped`.
        skipped: a list that fills with an error for every row left out; of a stream while it is read, in the process
            that reads it.
        download: fetch the corpus into `data_dir` first, where its makers let it be fetched.
        cache_dir: folder of the prepared tables, the cache of `datasets` by default.

    Raises:
        CorpusError: the corpus is not there or a row of it cannot be used; it names file, line and value. A
            `ValueError`, as are the rest: no such split or column, no row, no audio, two rows with one id.
    """
    settings: dict[str, Any] = {
        "split": split,
        "audio": audio,
        "labels": {column: list(names) for column, names in (labels or {}).items()},
        "check_audio": check_audio,
        "on_error": on_error,
    }
    name, folder = _whereabouts(str(source), data_dir, download)
    if name is None:
        _refuse_settings(source, settings)
        rows = _from_hub(folder, str(source), split, streaming, cache_dir)
        return _checked(_asked(_named(rows, columns or {}, source), source), source, split)
    if labels and name != "folder":
        raise ValueError(f"'{name}' knows its labels; leave labels out")
    if download:
        download_corpus(name, folder, audio=audio is not False)
    settings |= {"data_dir": str(folder), "columns": dict(columns or {}) if name == "folder" else {}}
    if split is None and name != "folder":
        known = ", ".join(CORPORA[name](hash="", **settings).tables())
        raise ValueError(f"'{name}' wants a split: one of {known}")
    faults = [] if skipped is None else skipped
    read = _streamed if streaming else _prepared
    rows = read(CORPORA[name], settings, split, faults, cache_dir)
    return rows if name == "folder" else _named(rows, columns or {}, source)


def _whereabouts(source: str, data_dir: str | Path | None, download: bool) -> tuple[str | None, Path]:
    """Name of the corpus and its folder; no name for what `datasets` reads."""
    name, _, rest = source.partition(":")
    if source.startswith(SYNTHETIC):
        if data_dir or download:
            raise ValueError(f"'{source}' is spoken, not fetched; leave data_dir and download out")
        return (rest if rest in CORPORA else "folder"), _speak(rest)
    if name in CORPORA and (rest or data_dir):
        return name, Path(rest or str(data_dir)).expanduser()
    path = Path(source).expanduser()
    if name in CORPORA and not path.exists():
        raise CorpusError(name, "say where it lies, by data_dir=... or as 'name:folder'")
    if data_dir is not None or download:
        raise ValueError(f"'{source}' is no corpus with a data_dir; choose one of {', '.join(CORPORA)}")
    if not path.exists() and (source.startswith(("/", ".", "~")) or source.count("/") > 1):
        raise CorpusError(path, "there is no such folder; check the path")
    return ("folder" if (path / METADATA).is_file() else None), path


def _speak(name: str) -> Path:
    if name in TINY_CORPORA:
        return tiny_corpus(name)
    if name not in RECIPES:
        known = ", ".join(sorted([*RECIPES, *TINY_CORPORA]))
        raise ValueError(f"there is no synthetic corpus '{name}'; choose one of {known}")
    return build_synthetic_corpus(RECIPES[name])


def _streamed(
    corpus: type[SpeechCorpus],
    settings: Mapping[str, Any],
    split: str | None,
    faults: MutableSequence[CorpusError],
    cache_dir: str | Path | None,
) -> IterableDataset:
    builder = corpus(hash="streamed", cache_dir=_text(cache_dir), **settings)
    builder.faults = faults
    return builder.as_streaming_dataset(split=builder.split_name(split or ALL))


def _prepared(
    corpus: type[SpeechCorpus],
    settings: Mapping[str, Any],
    split: str | None,
    faults: MutableSequence[CorpusError],
    cache_dir: str | Path | None,
) -> Dataset:
    builder = corpus(cache_dir=_text(cache_dir), **settings)
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, CorpusError):
            raise error.__cause__ from None
        raise
    if found := builder.skipped():
        faults.extend(found)
        logger.warning(skip_report(builder.folder, found))
    return builder.as_dataset(split=builder.split_name(split or ALL))


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _refuse_settings(source: str | Path, settings: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a setting that only corpora in their original layout have.

    `audio` is none of them: these data sets have recordings, and nothing decodes them.
    """
    usual: dict[str, Any] = {"labels": {}, "check_audio": True, "on_error": "raise"}
    for name, value in usual.items():
        if settings[name] != value:
            raise ValueError(f"'{source}' is read by datasets.load_dataset, which has no '{name}'; leave it out")


def _from_hub(
    folder: Path, source: str, split: str | None, streaming: bool, cache_dir: str | Path | None
) -> Dataset | IterableDataset:
    name, _, configuration = source.partition(":")
    if folder.is_dir():
        name, configuration = str(folder), ""
    try:
        rows = load_dataset(
            name, configuration or None, split=split or "train", streaming=streaming, cache_dir=_text(cache_dir)
        )
    except (DataFilesNotFoundError, EmptyDatasetError):
        raise CorpusError(folder, f"there is neither {METADATA} nor a data set; write one line a clip") from None
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, Audio):
            rows = rows.cast_column(column, Audio(sampling_rate=feature.sampling_rate, decode=False))
    return rows


def _named(
    rows: Dataset | IterableDataset, columns: Mapping[str, str], source: str | Path
) -> Dataset | IterableDataset:
    for ours, theirs in columns.items():
        names = rows.column_names or ()
        if theirs not in names:
            raise ValueError(f"'{source}' has no column '{theirs}'; it has {', '.join(names)}")
        rows = rows.rename_column(theirs, ours) if theirs != ours else rows
    return rows


def _asked(rows: Dataset | IterableDataset, source: str | Path) -> Dataset | IterableDataset:
    """Conversations as questions and answers; any other data set as it is."""
    if not is_chat(rows.features):
        return rows
    if not isinstance(rows, Dataset):
        raise ValueError(f"'{source}' holds conversations, which cannot be streamed; load it without streaming")
    return chat_rows(rows, str(source))


def _checked(rows: Dataset | IterableDataset, source: str | Path, split: str | None) -> Dataset | IterableDataset:
    """A data set of somebody else's with audio and an id of its own for each row."""
    names = rows.column_names or ()
    if "audio" not in names:
        raise ValueError(f"'{source}' has no column 'audio'; it has {', '.join(names)}: name it in columns")
    if isinstance(rows, Dataset) and not len(rows):
        raise ValueError(f"'{source}' has no rows" + (f" of split '{split}'" if split else ""))
    if "id" not in names:
        name = f"{source}@{split}" if split else str(source)
        if isinstance(rows, IterableDataset):
            return rows.map(lambda _, index: {"id": f"{name}-{index:06d}"}, with_indices=True)
        return rows.add_column("id", [f"{name}-{index:06d}" for index in range(len(rows))])
    if isinstance(rows, Dataset):
        _check_ids(rows["id"], source)
    return rows.cast_column("id", Value("string"))


def _check_ids(ids: Iterable[Any], source: str | Path) -> None:
    seen: set[Any] = set()
    for clip in ids:
        if clip in seen:
            raise ValueError(f"'{source}' has two clips with the id '{clip}'; give each its own, or drop the column")
        seen.add(clip)


def task_examples(corpus: Dataset | IterableDataset, tasks: Mapping[str, str]) -> Dataset:
    """One row for each clip and task that the clip has a target for.

    Concatenating tasks mixes them in proportion to their sizes, the rule of SLM (section 3.2).

    Args:
        tasks: name of the processor's prompt -> column that holds the answer.

    Returns:
        A data set with columns `id`, `audio`, `task`, `target`, `transcript`, `speaker` and `context` (a text that is
        read before the clip; empty where there is none) and `length` (seconds, 0 where unknown).

    Raises:
        ValueError: a column is missing, or no clip has a target; or the corpus is a stream.
    """
    if not isinstance(corpus, Dataset):
        raise ValueError("the rows of a stream cannot be counted; load the corpus without streaming")
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
        "transcript": [text or "" for text in _column(chosen, "text", "")],
        "speaker": ["" if speaker is None else str(speaker) for speaker in _column(chosen, "speaker", "")],
        "context": [text or "" for text in _column(chosen, "context", "")],
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
