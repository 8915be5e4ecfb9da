"""Data set cards: what the Hub and `datasets` read back, and what a person reads."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from datasets import Audio, ClassLabel, Features, List, Value
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, HfApi

from speechzoo.data.corpus_errors import CorpusError
from speechzoo.data.corpus_sources import CC_BY, SOURCES
from speechzoo.data.parquet_export import ExportedSplit
from speechzoo.hub_cards.corpus_preparation import publish_dataset
from speechzoo.hub_cards.dataset_card import ExportedCorpus, render_dataset_card, write_dataset_card

FEATURES = Features(
    {
        "id": Value("string"),
        "audio": Audio(sampling_rate=16000, decode=False),
        "duration": Value("float64"),
        "text": Value("string"),
        "speaker": Value("string"),
        "intent": ClassLabel(names=["alarm_set", "play_music", "qa|maths"]),
        "entities": List(
            {"type": Value("string"), "start": Value("int32"), "end": Value("int32"), "filler": Value("string")}
        ),
        "slurp_id": Value("int64"),
    }
)


def split(name: str, rows: int, shards: int) -> ExportedSplit:
    return ExportedSplit(
        name=name,
        shards=[f"data/{name}-{i:05d}-of-{shards:05d}.parquet" for i in range(shards)],
        features=FEATURES,
        rows=rows,
        memory_bytes=2_000_000,
        file_bytes=1_500_000,
        seconds=rows * 3.6,
        texts=rows,
        speakers={"FE-1", "ME-2"},
        labels={"intent": Counter({"alarm_set": rows - 1, "qa|maths": 1})},
        entities=Counter({"time": 3, "date": 1}),
        audio_sha256=f"{rows:064x}",
    )


@pytest.fixture
def corpus() -> ExportedCorpus:
    splits = [split("train", 1500, 2), split("test", 500, 1)]
    splits[1].skipped = [CorpusError("test, clip 'x'", "damaged")]
    source = SOURCES["slurp"]
    return ExportedCorpus(source, source.license, splits, {"dataset/slurp/train.jsonl": "ab" * 32})


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_front_matter_has_what_the_hub_and_load_dataset_ask_for(corpus, tmp_path: Path):
    path = write_dataset_card(tmp_path, "org/slurp", corpus)
    data = DatasetCard.load(path).data
    assert (data.license, data.language, data.pretty_name) == ("cc-by-nc-4.0", ["en"], SOURCES["slurp"].title)
    assert data.tags == ["speechzoo", "slurp"]
    assert data.size_categories == "1K<n<10K"
    assert data.task_categories == ["automatic-speech-recognition", "audio-classification", "token-classification"]
    assert data.configs == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "test", "path": "data/test-*.parquet"},
            ],
        }
    ]
    raw = front_matter(path.read_text())
    assert raw["source_checksums"] == {"dataset/slurp/train.jsonl": "ab" * 32}
    assert raw["audio_checksums"] == {"train": f"{1500:064x}", "test": f"{500:064x}"}


def test_features_and_splits_come_back(corpus, tmp_path):
    path = write_dataset_card(tmp_path, "org/slurp", corpus)
    info = DatasetInfosDict.from_dataset_card_data(DatasetCard.load(path).data)["default"]
    assert info.features == FEATURES
    assert {name: one.num_examples for name, one in info.splits.items()} == {"train": 1500, "test": 500}
    assert (info.download_size, info.dataset_size) == (3_000_000, 4_000_000)


def test_people_find_splits_labels_license_checksums_and_citation(corpus):
    text = render_dataset_card("org/slurp", corpus)
    assert "| train | 1,500 | 1.50 | 2 | 1.5 MB |" in text
    assert "Left out of test: 1 that could not be read." in text and "Left out of train" not in text
    assert "### intent (3)" in text
    assert "| 0 | alarm_set | 1499 | 499 |" in text and "| 1 | play_music | 0 | 0 |" in text
    assert r"| 2 | qa\|maths | 1 | 1 |" in text
    assert "### entities (2 types)" in text and "| date | 1 | 1 |" in text
    assert "[CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/)" in text
    assert "Redistribution is allowed with attribution, for non-commercial purposes only." in text
    assert "[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/)" in text
    assert f"| `dataset/slurp/train.jsonl` | `{'ab' * 32}` |" in text
    assert f"| test | `{500:064x}` |" in text
    assert "@inproceedings{bastianelli2020slurp," in text
    assert 'load_dataset("org/slurp", split="train", streaming=True)' in text


def test_signs_in_names_of_labels_are_shown(corpus):
    """`<none>` would be a tag of HTML, which no reader sees."""
    features = Features({**FEATURES, "intent": ClassLabel(names=["<none>", "a*b"])})
    splits = [replace(one, features=features, entities=Counter({"<date>": 1})) for one in corpus.splits]
    text = render_dataset_card("org/slurp", replace(corpus, splits=splits))
    assert r"| 0 | \<none> | 0 | 0 |" in text and r"| 1 | a\*b | 0 | 0 |" in text and r"| \<date> | 1 | 1 |" in text


def test_every_table_has_the_columns_of_its_head(corpus):
    """Rows of unequal length, or a blank line within, are no table to a reader of Markdown."""
    lines = render_dataset_card("org/slurp", corpus).splitlines()
    heads = [i for i, line in enumerate(lines) if re.fullmatch(r"\|( -+:? \|)+", line)]
    assert len(heads) == 6
    for head in heads:
        width = len(re.findall(r"(?<!\\)\|", lines[head]))
        row = head - 1
        rows = 0
        while lines[row].startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", lines[row])) == width, lines[row]
            row, rows = row + 1, rows + 1
        assert rows > 2 and not lines[head - 2].strip()


def test_text_alone_says_nothing_of_audio(corpus):
    features = Features(
        {name: kind for name, kind in FEATURES.items() if name not in ("audio", "duration", "speaker")}
    )
    silent = {"features": features, "seconds": 0.0, "speakers": set(), "audio_sha256": ""}
    splits = [replace(one, **silent) for one in corpus.splits]  # type: ignore[arg-type]
    text = render_dataset_card("org/slurp", replace(corpus, splits=splits, license=CC_BY))
    assert front_matter(text)["license"] == "cc-by-4.0" and "audio_checksums" not in front_matter(text)
    assert front_matter(text)["task_categories"] == ["text-classification", "token-classification"]
    assert "| train | 1,500 | 1.5 MB |" in text
    assert "soundfile" not in text and "list of the clips" not in text and "The text and its labels alone" not in text


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_corpus_has_a_card(corpus, name):
    source = SOURCES[name]
    text = render_dataset_card("org/name", replace(corpus, source=source, license=source.license, checksums={}))
    assert text.split("---\n", 2)[2].lstrip().startswith(f"# {source.title}\n")
    assert "\n\n\n" not in text
    data = front_matter(text)
    if name == "fluent_speech_commands":
        assert (data["license"], data["license_name"]) == ("other", "fluent-speech-commands-public-license")
        assert "Redistribution is not allowed." in text


def test_a_column_without_a_value_makes_no_task(corpus):
    empty = [replace(one, texts=0, entities=Counter(), labels={"intent": Counter()}) for one in corpus.splits]
    assert "task_categories" not in front_matter(render_dataset_card("org/slurp", replace(corpus, splits=empty)))
    spoken = [replace(empty[0], texts=1), empty[1]]
    text = render_dataset_card("org/slurp", replace(corpus, splits=spoken))
    assert front_matter(text)["task_categories"] == ["automatic-speech-recognition"]


def test_a_folder_of_recordings_claims_no_language_and_instructs_nobody(corpus):
    own = replace(corpus, source=SOURCES["folder"], license=SOURCES["folder"].license)
    text = render_dataset_card("org/mine", own)
    assert "language" not in front_matter(text) and "Write metadata.jsonl" not in text
    assert front_matter(render_dataset_card("org/mine", replace(own, languages=["de"])))["language"] == ["de"]


def test_a_card_of_ours_is_written_anew_and_any_other_readme_stays(corpus, tmp_path):
    path = write_dataset_card(tmp_path, "org/slurp", corpus)
    assert "# SLURP" in write_dataset_card(tmp_path, "org/slurp", corpus).read_text()
    card = path.read_text()
    claimed = "This card was generated by speechzoo once.\n"
    for mine in ("# My notes\n", "", claimed, card.replace("# SLURP", "# My SLURP")):
        path.write_text(mine)
        with pytest.raises(ValueError, match=r"README\.md is there and no card of ours"):
            write_dataset_card(tmp_path, "org/slurp", corpus)
        assert path.read_text() == mine


def test_what_a_person_wrote_on_a_card_on_the_hub_goes_only_when_told_to(corpus, hub, tmp_path):
    def published(edited_card: str | None = None) -> str:
        publish_dataset(tmp_path, "org/slurp", ["data/train-00000-of-00001.parquet"], edited_card=edited_card)
        return hub.files("org/slurp", "dataset")["README.md"].decode()

    (tmp_path / "data").mkdir()
    shard = tmp_path / "data" / "train-00000-of-00001.parquet"
    for rows in (b"first", b"second"):  # nobody touched the card
        shard.write_bytes(rows)
        path = write_dataset_card(tmp_path, "org/slurp", corpus)
        assert published() == path.read_text()
    edited = f"{path.read_text()}\nBy hand.\n"
    HfApi().upload_file(
        path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id="org/slurp", repo_type="dataset"
    )
    shard.write_bytes(b"third")
    with pytest.raises(ValueError, match="edited the card of 'org/slurp'; pass --edited_card keep, or replace"):
        published()
    assert hub.files("org/slurp", "dataset")["data/train-00000-of-00001.parquet"] == b"second"
    assert published("keep") == edited
    assert hub.files("org/slurp", "dataset")["data/train-00000-of-00001.parquet"] == b"third"
    assert published("replace") == path.read_text()


def test_splits_with_other_columns_are_refused(corpus):
    corpus.splits[1].features = Features({"id": Value("string")})
    with pytest.raises(ValueError, match="split 'test' has other columns than 'train'"):
        render_dataset_card("org/slurp", corpus)


@pytest.mark.parametrize(
    ("rows", "category"), [(999, "n<1K"), (1000, "1K<n<10K"), (120_000, "100K<n<1M"), (2_000_000, "n>1M")]
)
def test_sizes_are_the_hubs_categories(corpus, rows, category):
    text = render_dataset_card("org/slurp", replace(corpus, splits=[split("train", rows, 1)]))
    assert front_matter(text)["size_categories"] == category
