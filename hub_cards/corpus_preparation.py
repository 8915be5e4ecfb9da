"""From a corpus on disk to a repository of the Hub: Parquet shards, a card, and one commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from datasets import Dataset

from ..data.corpora import CORPORA, load_corpus
from ..data.corpus_builder import SpeechCorpus
from ..data.corpus_errors import CorpusError
from ..data.corpus_sources import HUB_LICENSES, CorpusSource, License, check_languages, source_of
from ..data.downloads import download_corpus
from ..data.parquet_export import ExportedSplit, ExportSettings, export_lock, export_split, file_hashes
from ..training.adapter_arguments import option
from .card_seal import is_kept
from .dataset_card import ExportedCorpus, check_card_is_ours, write_dataset_card
from .hub_upload import Destination, upload

__all__ = ["ExportArguments", "PublishArguments", "SourceArguments", "prepare_corpus", "publish_dataset"]

SKIPPED = "skipped.json"


@dataclass
class SourceArguments:
    """The corpus."""

    corpus: str = field(metadata={"help": f"one of {', '.join(CORPORA)}; may stand first, without the flag"})
    data_dir: Path = field(metadata={"help": "folder it lies in, laid out as its makers publish it"})
    splits: list[str] = field(default_factory=list, metadata={"help": "which of its splits; all when left out"})
    audio: bool | None = option(None, "with recordings, or sentences alone; recordings where there are any")
    download: bool = option(False, "fetch it into data_dir first, where its makers let it be fetched")


@dataclass
class ExportArguments:
    """What is written."""

    output_dir: Path = field(metadata={"help": "folder of the shards and the card"})
    shard_megabytes: int = option(400, "about how large one file becomes")
    num_proc: int = option(1, "files written at a time")
    on_error: Literal["raise", "skip"] = option("raise", "what becomes of rows and recordings that cannot be read")


@dataclass
class PublishArguments:
    """Publication."""

    push_to_hub: str | None = option(None, "publish to this Hub id, in private")
    allow_redistribution: bool = option(False, "publish for everybody, where the license allows it")
    title: str | None = option(None, "what a folder of your own recordings is called on its card")
    license: str | None = option(None, "license of a folder of your own recordings, as the Hub spells it")
    language: list[str] = field(
        default_factory=list, metadata={"help": "languages of a folder of your own recordings, such as: en de"}
    )
    edited_card: str | None = option(
        None,
        "keep or replace: a card there that a person wrote or edited, refused when left out; the head of one that is "
        "kept, which load_dataset reads, has to fit the new files",
    )


def prepare_corpus(
    corpus: SourceArguments,
    export: ExportArguments,
    publish: PublishArguments | None = None,
    say: Callable[[str], None] = print,
) -> ExportedCorpus:
    """Writes `data/*.parquet` and `README.md` into the output folder, and publishes both where asked.

    A second run keeps the shards that are finished. What `on_error="skip"` left out is counted and listed in
    `skipped.json`, which stays here, as do the lists beside the shards. One process writes into an output folder at a
    time; others wait for it.

    Args:
        corpus: what is read.
        export: where and how it is written.
        publish: whether and for whom it is published.
        say: gets the lines of the terminal, the license first.

    Raises:
        CorpusError: the corpus is not there, or a row or recording of it cannot be used.
        ValueError: there is no such corpus or split; it may not be redistributed and should be; its license or
            language is none of the Hub's; the repository is public and should not be; the output folder lies in the
            corpus, or has a `README.md` that a person wrote or edited; so has the Hub, and `edited_card` is not told.
        OSError: the output folder cannot be written to; a `PublishingError` where the Hub does not answer or refuses.
    """
    publish = publish or PublishArguments()
    _check_words(corpus, export, publish)
    if corpus.download:
        download_corpus(corpus.corpus, corpus.data_dir, audio=corpus.audio is not False)
    splits = _splits(corpus, export)
    with_audio = "audio" in next(iter(splits.values()))[0].features
    license = _license(corpus.corpus, with_audio, publish)
    terms = f"License: {license.name}. Redistribution is {license.redistribution or 'not allowed'}."
    say(f"{_source(corpus, publish).title}. {terms}")
    export.output_dir.mkdir(parents=True, exist_ok=True)
    with export_lock(export.output_dir):
        exported = _write(corpus, export, publish, splits, license)
        _list_skipped(export.output_dir, exported.splits, say)
        files = [shard for split in exported.splits for shard in split.shards]
        say(f"{exported.rows:,} rows in {len(files)} files: {export.output_dir}")
        if publish.push_to_hub:
            private = not publish.allow_redistribution
            url, private = publish_dataset(export.output_dir, publish.push_to_hub, files, private, publish.edited_card)
            say(f"published {'in private' if private else 'for everybody'}: {url}")
    return exported


def publish_dataset(
    folder: Path, repository: str, files: Sequence[str], private: bool = True, edited_card: str | None = None
) -> tuple[str, bool]:
    """Uploads the card and these files as one commit, which also removes shards of an earlier one.

    Args:
        edited_card: what becomes of a card there that a person wrote or edited: "keep" or "replace".

    Returns:
        The commit's URL, and whether the repository is private.

    Raises:
        ValueError: the repository is there, public, and should be private; a person edited the card there and
            `edited_card` is not told.
        PublishingError: the Hub refuses or cannot be reached.
    """
    message = "Publish the corpus as Parquet with its card"
    to = Destination(repository, "dataset", private)
    card = [] if is_kept(folder / "README.md", to, edited_card) else ["README.md"]
    commit, is_private = upload(folder, to, message, only=[*card, *files], stale=["data/*.parquet"])
    return str(commit.commit_url), is_private


def _check_words(corpus: SourceArguments, export: ExportArguments, publish: PublishArguments) -> None:
    """Raises `ValueError` for what is wrong before anything is read."""
    if corpus.corpus not in CORPORA:
        raise ValueError(f"there is no corpus '{corpus.corpus}'; choose one of {', '.join(CORPORA)}")
    source = source_of(corpus.corpus)
    own = corpus.corpus == "folder"
    if publish.title and not own:
        raise ValueError(f"'{source.name}' has its own title, {source.title}; leave out --title")
    if publish.license and not own:
        raise ValueError(f"'{source.name}' has its own license, {source.license.name}; leave out --license")
    if publish.license and publish.license not in HUB_LICENSES:
        near = [id for id in sorted(HUB_LICENSES) if id.startswith(publish.license.lower()[:5])]
        examples = ", ".join(near or ["cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"])
        raise ValueError(f"the Hub has no license '{publish.license}'; it has for instance {examples}")
    if publish.language and not own:
        raise ValueError(f"the language of '{source.name}' is known; leave out --language")
    check_languages(publish.language)
    if export.output_dir.expanduser().resolve().is_relative_to(corpus.data_dir.expanduser().resolve()):
        raise ValueError(f"{export.output_dir} lies in the corpus, {corpus.data_dir}; choose another output folder")
    check_card_is_ours(export.output_dir)


def _source(corpus: SourceArguments, publish: PublishArguments) -> CorpusSource:
    source = source_of(corpus.corpus)
    return replace(source, title=publish.title) if publish.title else source


def _license(name: str, with_audio: bool, publish: PublishArguments) -> License:
    license = source_of(name).license_for(with_audio)
    if publish.license:
        # These two ids do not say what is allowed.
        terms = "" if publish.license in ("unknown", "other") else "as its owner says"
        license = License(publish.license, publish.license, terms)
    if publish.allow_redistribution and not license.redistribution:
        hint = "name the license of your recordings by --license" if name == "folder" else "publish it in private"
        raise ValueError(f"'{name}' may not be redistributed (license: {license.name}); {hint}")
    return license


_Splits: TypeAlias = "dict[str, tuple[Dataset, list[CorpusError]]]"


def _write(
    corpus: SourceArguments, export: ExportArguments, publish: PublishArguments, splits: _Splits, license: License
) -> ExportedCorpus:
    """Shards and card."""
    settings = ExportSettings(export.shard_megabytes * 1_000_000, export.num_proc, export.on_error)
    exported = ExportedCorpus(
        _source(corpus, publish),
        license,
        [_exported(name, *rows, export.output_dir, settings) for name, rows in splits.items()],
        _checksums(corpus, splits),
        publish.language,
    )
    write_dataset_card(export.output_dir, publish.push_to_hub or export.output_dir.resolve().name, exported)
    return exported


def _checksums(corpus: SourceArguments, splits: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the files that the rows of these splits were made from, by path."""
    builder = _builder(corpus)
    tables = builder.tables()
    return file_hashes(builder.folder, [*(tables[builder.split_name(name)] for name in splits), *builder.side_files()])


def _builder(corpus: SourceArguments) -> SpeechCorpus:
    return CORPORA[corpus.corpus](hash="", data_dir=str(corpus.data_dir), audio=corpus.audio)


def _splits(corpus: SourceArguments, export: ExportArguments) -> _Splits:
    """Rows of each split, and what its loader left out."""
    if corpus.corpus == "folder":
        return _splits_of_folder(corpus, export)
    builder = _builder(corpus)
    names = [builder.split_name(split) for split in corpus.splits] or list(builder.tables())
    return {name: _rows(corpus, export, name) for name in names}


def _splits_of_folder(corpus: SourceArguments, export: ExportArguments) -> _Splits:
    rows, faults = _rows(corpus, export, None)
    if "split" not in rows.column_names:
        return {"train": (rows, faults)}
    found = list(dict.fromkeys(rows["split"]))
    if None in found:
        raise ValueError(f"some lines of {corpus.data_dir} have a split and some have none; give all one, or none")
    if unknown := [split for split in corpus.splits if split not in found]:
        raise ValueError(f"'{corpus.data_dir}' has no split '{unknown[0]}'; it has {', '.join(found)}")
    names = corpus.splits or found
    parts = {
        name: rows.select([index for index, split in enumerate(rows["split"]) if split == name]) for name in names
    }
    # A line that cannot be read does not tell its split.
    return {name: (part, faults if name == names[0] else []) for name, part in parts.items()}


def _rows(corpus: SourceArguments, export: ExportArguments, split: str | None) -> tuple[Dataset, list[CorpusError]]:
    faults: list[CorpusError] = []
    rows = load_corpus(
        corpus.corpus,
        split,
        data_dir=corpus.data_dir,
        audio=corpus.audio,
        on_error=export.on_error,
        skipped=faults,
    )
    assert isinstance(rows, Dataset)
    return rows, faults


def _exported(
    name: str, rows: Dataset, faults: Sequence[CorpusError], folder: Path, settings: ExportSettings
) -> ExportedSplit:
    exported = export_split(rows, name, folder, settings)
    exported.skipped = [*faults, *exported.skipped]
    return exported


def _list_skipped(folder: Path, splits: Sequence[ExportedSplit], say: Callable[[str], None]) -> None:
    skipped = {split.name: [str(error) for error in split.skipped] for split in splits if split.skipped}
    (folder / SKIPPED).unlink(missing_ok=True)
    if skipped:
        (folder / SKIPPED).write_text(json.dumps(skipped, indent=1) + "\n", encoding="utf-8")
        counts = ", ".join(f"{name} {len(errors)}" for name, errors in skipped.items())
        say(f"left out: {counts}; {folder / SKIPPED} says why")
