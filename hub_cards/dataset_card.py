"""The card of an exported corpus, rendered from what was written and from the facts about its source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Audio, ClassLabel, DatasetInfo, Features, List, SplitDict, SplitInfo, Value
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData

from ..data.corpus_sources import CorpusSource, License
from ..data.parquet_export import ExportedSplit
from .card_seal import sealed, without_seal
from .card_templates import card_templates

__all__ = ["ExportedCorpus", "check_card_is_ours", "render_dataset_card", "write_dataset_card"]

_MEANINGS = {
    "id": "unique in the corpus",
    "audio": "the encoded file; 16 kHz is what `Audio()` would decode it to",
    "duration": "seconds",
    "text": "what is said",
    "speaker": "who says it; null where unknown",
    "scenario": "domain of the request",
    "action": "what is to be done",
    "object": "with what it is to be done",
    "location": "where it is to be done",
    "intent": "the request as one label",
    "sentiment": "how the sentence sounds",
    "entities": "spans of characters of `text`, the end exclusive; `filler` is what scorers compare",
    "slurp_id": "number of the sentence in SLURP",
}


@dataclass(frozen=True)
class ExportedCorpus:
    """What a card is made of.

    Args:
        source: facts about the corpus.
        license: of this copy.
        splits: what was written.
        checksums: SHA-256 of the tables it was made from, by path.
        languages: what is spoken in it, codes as the Hub spells them; where empty, those of `source`.
    """

    source: CorpusSource
    license: License
    splits: Sequence[ExportedSplit]
    checksums: Mapping[str, str] = field(default_factory=dict)
    languages: Sequence[str] = ()

    @property
    def features(self) -> Features:
        return self.splits[0].features

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits)


def write_dataset_card(folder: str | Path, repository: str, corpus: ExportedCorpus) -> Path:
    """Writes `README.md` into the folder of an exported corpus and returns its path.

    Args:
        folder: where the shards are.
        repository: what users of the card give to `load_dataset`, `organization/name` or a folder.
        corpus: what was exported.

    Raises:
        ValueError: there is a `README.md` that a person wrote or edited; it stays.
    """
    check_card_is_ours(folder)
    path = Path(folder) / "README.md"
    path.write_text(render_dataset_card(repository, corpus), encoding="utf-8")
    return path


def check_card_is_ours(folder: str | Path) -> None:
    """Raises `ValueError` where the folder has a `README.md` that is not as `write_dataset_card` wrote it."""
    path = Path(folder) / "README.md"
    if path.is_file() and without_seal(path.read_text(encoding="utf-8", errors="replace")) is None:
        raise ValueError(
            f"{path} is there and no card of ours, or edited; move it away, or choose another output folder"
        )


def render_dataset_card(repository: str, corpus: ExportedCorpus) -> str:
    """The card as text: YAML for the Hub and for `load_dataset`, then Markdown; sealed, as model cards are.

    Raises:
        ValueError: huggingface_hub cannot read it, or the splits do not have the same columns.
    """
    for split in corpus.splits:
        if split.features != corpus.features:
            raise ValueError(f"split '{split.name}' has other columns than '{corpus.splits[0].name}'")
    body = (
        card_templates()
        .get_template("dataset_card.md.jinja")
        .render(
            repository=repository,
            source=corpus.source,
            license=corpus.license,
            splits=corpus.splits,
            checksums=corpus.checksums,
            with_audio="audio" in corpus.features,
            with_hours=any(split.seconds for split in corpus.splits),
            with_speakers=any(split.speakers for split in corpus.splits),
            columns=[(name, _kind(feature), _MEANINGS.get(name, "")) for name, feature in corpus.features.items()],
            labels=_label_tables(corpus),
            entities=_entity_table(corpus),
            version=version("speechzoo"),
        )
    )
    tidy = re.sub(r"\n{3,}", "\n\n", body)  # Parts that are left out leave their blank lines.
    text = f"---\n{card_data(corpus).to_yaml()}\n---\n\n{tidy}"
    DatasetCard(text)  # Raises when the Hub's own reader does not understand the front matter.
    return sealed(text)


def card_data(corpus: ExportedCorpus) -> DatasetCardData:
    """What the Hub and `load_dataset` read of a card: license, columns, splits and where their files are."""
    license, files = corpus.license, [(split.name, f"data/{split.name}-*.parquet") for split in corpus.splits]
    named: dict[str, Any] = {"license_name": license.name.lower().replace(" ", "-")} if license.id == "other" else {}
    data = DatasetCardData(
        pretty_name=corpus.source.title,
        language=list(corpus.languages or corpus.source.languages) or None,
        license=license.id,
        **named,
        task_categories=_task_categories(corpus) or None,
        size_categories=_size_category(corpus.rows),
        tags=["speechzoo", *([corpus.source.name] if corpus.source.homepage else [])],  # own recordings have no name
        configs=[{"config_name": "default", "data_files": [{"split": split, "path": path} for split, path in files]}],
        source_checksums=dict(corpus.checksums) or None,
        audio_checksums={split.name: split.audio_sha256 for split in corpus.splits if split.audio_sha256} or None,
    )
    DatasetInfosDict({"default": _dataset_info(corpus)}).to_dataset_card_data(data)
    return data


def _dataset_info(corpus: ExportedCorpus) -> DatasetInfo:
    splits = SplitDict()
    for split in corpus.splits:
        splits.add(SplitInfo(split.name, num_bytes=split.memory_bytes, num_examples=split.rows))
    return DatasetInfo(
        features=corpus.features,
        splits=splits,
        download_size=sum(split.file_bytes for split in corpus.splits),
        dataset_size=sum(split.memory_bytes for split in corpus.splits),
    )


def _task_categories(corpus: ExportedCorpus) -> list[str]:
    """What the values are for: a column that is empty from top to bottom makes no task."""
    texts = any(split.texts for split in corpus.splits)
    classes = any(counts.total() for split in corpus.splits for counts in split.labels.values())
    with_audio = "audio" in corpus.features
    chosen = {
        "automatic-speech-recognition": with_audio and texts,
        "audio-classification": with_audio and classes,
        "text-classification": texts and not with_audio and classes,
        "token-classification": texts and any(split.entities for split in corpus.splits),
    }
    return [task for task, fits in chosen.items() if fits]


def _size_category(rows: int) -> str:
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for bound, name in bounds.items() if rows < bound), "n>1M")


def _kind(feature: Any) -> str:
    if isinstance(feature, Audio):
        return "audio"
    if isinstance(feature, ClassLabel):
        return f"class ({feature.num_classes})"
    if isinstance(feature, List):
        return f"list of {_kind(feature.feature)}"
    if isinstance(feature, Mapping):
        return ", ".join(f"{name} ({_kind(inner)})" for name, inner in feature.items())
    return str(feature.dtype) if isinstance(feature, Value) else type(feature).__name__


def _label_tables(corpus: ExportedCorpus) -> list[tuple[str, list[tuple[str, list[int]]]]]:
    """For each column of classes, in the order of their numbers, how many clips of each split a class has."""
    tables = []
    for column, feature in corpus.features.items():
        if isinstance(feature, ClassLabel):
            counts: list[Mapping[str, int]] = [split.labels.get(column, {}) for split in corpus.splits]
            tables.append((column, [(name, [one.get(name, 0) for one in counts]) for name in feature.names]))
    return tables


def _entity_table(corpus: ExportedCorpus) -> list[tuple[str, list[int]]]:
    types = sorted({name for split in corpus.splits for name in split.entities})
    return [(name, [split.entities[name] for split in corpus.splits]) for name in types]
