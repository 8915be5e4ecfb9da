"""`examples/prepare_corpus.py`: any corpus as Parquet with a card, which `datasets` alone loads from folder or Hub."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCard
from loopback_hub import LoopbackHub

from speechzoo.data import load_corpus
from speechzoo.hub_cards.corpus_preparation import ExportArguments, PublishArguments, SourceArguments, prepare_corpus
from speechzoo.processing.audio_loading import load_audio

SCRIPT = Path(__file__).parents[1] / "examples" / "prepare_corpus.py"
SPLITS = {
    "slurp": ["train", "train_synthetic", "validation", "test"],
    "fluent_speech_commands": ["train", "validation", "test"],
    "slue_voxceleb": ["train", "validation", "test"],
    "slue_voxpopuli": ["train", "validation", "test"],
}
TinyCorpora = Callable[[str], Path]


def run(words: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=300
    )


# --- a folder ---


@pytest.mark.parametrize("name", sorted(SPLITS))
def test_every_corpus_loads_from_its_folder_without_our_code(name, tiny_corpora: TinyCorpora, tmp_path):
    data_dir, said = tiny_corpora(name), []
    exported = prepare_corpus(SourceArguments(name, data_dir), ExportArguments(tmp_path / "out"), say=said.append)
    assert [split.name for split in exported.splits] == SPLITS[name]
    assert f"License: {exported.license.name}." in said[0]
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")
    assert list(loaded) == SPLITS[name]
    for split in SPLITS[name]:
        wanted = load_corpus(name, split, data_dir=data_dir)
        assert_same(loaded[split], wanted)
        streamed = load_dataset(str(tmp_path / "out"), split=split, streaming=True)
        assert next(iter(streamed))["id"] == wanted[0]["id"]
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == exported.license.id and card.data.source_checksums


def assert_same(rows: Dataset, wanted: Dataset) -> None:
    """The same columns and labels, and to the ear the same clips."""
    assert rows.features == wanted.features and len(rows) == len(wanted)
    for row, source in zip(rows, wanted, strict=True):
        sound, file = row.pop("audio"), source.pop("audio")["path"]
        assert row == source
        assert "/" not in sound["path"] and (load_audio(sound) == load_audio(file)).all()
        if "#t=" not in file:
            assert sound["bytes"] == Path(file).read_bytes()


def test_text_alone_has_the_license_of_the_text(tiny_corpora: TinyCorpora, tmp_path):
    source = SourceArguments("slurp", tiny_corpora("slurp"), splits=["devel"], audio=False)
    exported = prepare_corpus(source, ExportArguments(tmp_path / "out"), say=lambda _: None)
    assert exported.license.id == "cc-by-4.0"
    rows = load_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")
    assert list(rows) == ["validation"] and "audio" not in rows["validation"].column_names
    assert set(exported.checksums) == {"dataset/slurp/devel.jsonl", "dataset/slurp/metadata.json"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "dataset/slurp/devel.jsonl" in card and "train.jsonl" not in card


@pytest.fixture
def own_folder(tmp_path: Path, tiny_corpora: TinyCorpora) -> Path:
    """Somebody's own recordings: four lines, two splits."""
    folder = tmp_path / "mine"
    folder.mkdir()
    sounds = sorted((tiny_corpora("slurp") / "audio" / "slurp_real").iterdir())[:4]
    lines = []
    for number, sound in enumerate(sounds):
        (folder / f"{number}.flac").write_bytes(sound.read_bytes())
        split = "test" if number == 3 else "train"
        lines.append({"audio": f"{number}.flac", "text": f"text {number}", "intent": "ab"[number % 2], "split": split})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_own_recordings_keep_their_splits_and_their_card_tells_how_to_load_them(own_folder, tmp_path, monkeypatch):
    publish = PublishArguments(title="Lamps: at home", license="cc-by-4.0", language=["de", "nds"])
    said: list[str] = []
    exported = prepare_corpus(
        SourceArguments("folder", own_folder), ExportArguments(tmp_path / "out"), publish, said.append
    )
    assert {split.name: split.rows for split in exported.splits} == {"train": 3, "test": 1}
    rows = load_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")
    assert rows["test"]["text"][:] == ["text 3"] and rows["test"].features["intent"].names == ["a", "b"]
    card = DatasetCard.load(tmp_path / "out" / "README.md").data
    assert card.pretty_name == "Lamps: at home" and card.tags == ["speechzoo"]
    assert "\n# Lamps: at home\n" in (tmp_path / "out" / "README.md").read_text() and "Lamps: at home. L" in said[0]
    assert (card.license, card.language) == ("cc-by-4.0", ["de", "nds"])
    assert list(card.source_checksums) == ["metadata.jsonl"]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL):
        exec(compile(code, "README.md", "exec"), names)
    assert [row["id"] for row in names["stream"]] == names["rows"]["id"][:] == rows["train"]["id"][:]
    assert len(names["samples"]) == names["rows"][0]["duration"] * names["sampling_rate"]


def test_what_cannot_be_read_is_skipped_counted_and_listed(own_folder, tmp_path):
    damaged, lines = own_folder / "1.flac", own_folder / "metadata.jsonl"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    lines.write_text(lines.read_text() + "{\n")
    said: list[str] = []
    source, output = SourceArguments("folder", own_folder), tmp_path / "out"
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 5"):
        prepare_corpus(source, ExportArguments(output), say=said.append)
    prepare_corpus(source, ExportArguments(output, on_error="skip"), say=said.append)
    listed = json.loads((output / "skipped.json").read_text())
    assert len(listed["train"]) == 2
    assert "line 5" in listed["train"][0] and "1.flac" in listed["train"][1]
    assert any("left out: train 2" in line for line in said)
    assert "Left out of train: 2" in (output / "README.md").read_text()
    for published in [output / "README.md", *output.rglob("*.parquet")]:
        assert str(own_folder).encode() not in published.read_bytes()


@pytest.mark.parametrize(
    ("name", "publish", "match"),
    [
        ("fluent_speech_commands", {"allow_redistribution": True}, "may not be redistributed.*Fluent Speech Commands"),
        ("folder", {"allow_redistribution": True}, "may not be redistributed.*name the license.*--license"),
        ("slurp", {"license": "mit"}, r"'slurp' has its own license, CC BY-NC 4\.0"),
        ("slurp", {"title": "Mine"}, "'slurp' has its own title, SLURP"),
        ("slurp", {"language": ["fr"]}, "the language of 'slurp' is known"),
        ("folder", {"license": "cc-by"}, "no license 'cc-by'; it has for instance cc-by-2.0"),
        ("folder", {"license": "my own"}, "no license 'my own'; it has for instance cc0-1.0"),
        ("folder", {"license": "unknown", "allow_redistribution": True}, "may not be redistributed.*unknown"),
        ("folder", {"license": "other", "allow_redistribution": True}, "may not be redistributed.*other"),
        ("folder", {"language": ["German"]}, "'German' is no code of a language"),
    ],
)
def test_what_a_license_forbids_is_refused_before_anything_is_written(
    name, publish, match, tiny_corpora, own_folder, tmp_path
):
    source = SourceArguments(name, own_folder if name == "folder" else tiny_corpora(name))
    with pytest.raises(ValueError, match=match):
        prepare_corpus(source, ExportArguments(tmp_path / "out"), PublishArguments("org/x", **publish))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", [".", "out"])
def test_an_output_folder_in_the_corpus_is_refused(inside, own_folder):
    with pytest.raises(ValueError, match="lies in the corpus"):
        prepare_corpus(SourceArguments("folder", own_folder), ExportArguments(own_folder / inside))
    assert not (own_folder / "out").exists() and not (own_folder / "README.md").exists()


def test_a_readme_of_somebody_else_is_refused_before_anything_is_written(own_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("# My notes\n")
    with pytest.raises(ValueError, match="no card of ours"):
        prepare_corpus(SourceArguments("folder", own_folder), ExportArguments(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["README.md"]


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_and_a_hub_out_of_reach_are_one_line_each(own_folder, tmp_path):
    (tmp_path / "file").write_text("")
    words = [str(SCRIPT), "folder", "--data_dir", str(own_folder), "--output_dir"]
    done = run([*words, str(tmp_path / "file")])
    again = "The same call keeps the finished shards and goes on"
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(again) and "file" in done.stderr.splitlines()[-1]
    words += [str(tmp_path / "out"), "--push_to_hub", "org/mine"]
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x"}
    for environment, reason in ((nobody, "no connection to the Hub"), ({"HF_HUB_OFFLINE": "1"}, "offline")):
        done = run(words, environment)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert reason in last and last.endswith(again)
    assert len(list((tmp_path / "out" / "data").glob("*.parquet"))) == 2


def test_the_command_line_names_mistakes_in_one_line(tmp_path, monkeypatch):
    """The word that ends a program is what Python prints of it."""
    (tmp_path / "in").mkdir()
    words = ["slurp", "--data_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "SLURP: A Spoken Language Understanding Resource Package is not here." in ended.value.code
    assert "dataset/slurp/train.jsonl" in ended.value.code


# --- the Hub ---

# The script, and then other repositories; the first upload to one of them breaks off.
PUBLISH = """
import json, runpy, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--output_dir") + 1])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
from speechzoo.hub_cards.corpus_preparation import publish_dataset

def attempt(*arguments, **keywords):
    try:
        return publish_dataset(*arguments, **keywords)[1]
    except Exception as error:
        return str(error)

files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("data/*.parquet"))
print(json.dumps({
    "stumbled": attempt(folder, "org/again", files),
    "public": attempt(folder, "org/public", files, private=False),
    "fewer": attempt(folder, "org/public", files[:1], private=False),
    "kept private": attempt(folder, "org/public", files),
}))
"""

LOAD = """
import json, time
from datasets import load_dataset

start = time.perf_counter()
stream = iter(load_dataset("org/slurp", split="train", streaming=True))
streamed = next(stream)
seconds = time.perf_counter() - start
rows = load_dataset("org/slurp")
print(json.dumps({
    "splits": {name: len(part) for name, part in rows.items()},
    "features": repr(rows["test"].features),
    "ids": rows["test"]["id"][:],
    "entities": rows["test"]["entities"][:],
    "bytes": [len(sound["bytes"]) for sound in rows["test"]["audio"]],
    "streamed": [len(row["audio"]["bytes"]) for row in [streamed, *stream]],
    "seconds": seconds,
}))
"""


@dataclass
class Published:
    hub: LoopbackHub
    folder: Path
    data_dir: Path
    printed: str
    attempts: dict[str, Any]  # at other repositories, what was returned or raised
    seen: dict[str, Any]  # by a process with empty caches that knows `datasets` alone


@pytest.fixture(scope="module")
def published(tiny_corpora: TinyCorpora, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """SLURP as the script publishes it, what came of other repositories, and what another process finds."""
    folder, data_dir = tmp_path_factory.mktemp("prepared") / "out", tiny_corpora("slurp")
    with LoopbackHub() as hub:
        words = ["slurp", "--data_dir", str(data_dir), "--output_dir", str(folder), "--shard_megabytes", "1"]
        words += ["--push_to_hub", "org/slurp"]
        hub.fail("PUT /lfs-objects/dataset/org/again/", "error", status=403, spared=1)
        done = run(["-c", PUBLISH, str(SCRIPT), *words], hub.environment(tmp_path_factory.mktemp("home")))
        assert done.returncode == 0, done.stderr[-3000:]
        read = run(["-c", LOAD], hub.environment(tmp_path_factory.mktemp("fresh")))
        assert read.returncode == 0, read.stderr[-3000:]
        attempts, seen = (json.loads(printed.splitlines()[-1]) for printed in (done.stdout, read.stdout))
        yield Published(hub, folder, data_dir, done.stdout, attempts, seen)
        assert not hub.errors, hub.errors[0]


@pytest.mark.slow
def test_the_hub_serves_every_split_to_those_who_know_datasets_alone(published):
    for split, rows in published.seen["splits"].items():
        assert rows == len(load_corpus("slurp", split, data_dir=published.data_dir))
    test = load_corpus("slurp", "test", data_dir=published.data_dir)
    assert published.seen["features"] == repr(test.features)
    assert published.seen["ids"] == test["id"][:] and published.seen["entities"] == test["entities"][:]
    assert published.seen["bytes"] == [Path(sound["path"]).stat().st_size for sound in test["audio"]]


@pytest.mark.slow
def test_the_hub_streams(published):
    print("seconds to the first row of a stream:", published.seen["seconds"])
    train = load_corpus("slurp", "train", data_dir=published.data_dir)
    assert published.seen["streamed"] == [Path(sound["path"]).stat().st_size for sound in train["audio"]]


@pytest.mark.slow
def test_it_is_private_in_one_commit_and_says_its_license(published):
    repository = published.hub.repository("org/slurp", "dataset")
    assert repository.private
    titles = [commit.title for commit in repository.commits.values()]
    assert titles == ["initial commit", "Publish the corpus as Parquet with its card"]
    assert re.search(r"License: CC BY-NC 4\.0\. Redistribution is allowed .* non-commercial", published.printed)
    assert "published in private: " in published.printed
    files = published.hub.files("org/slurp", "dataset")
    assert sum(name.startswith("data/train-") for name in files) > 1
    assert b"org/slurp" in files["README.md"]
    assert all(name.endswith((".parquet", "README.md", ".gitattributes")) for name in files)
    assert not [name for name, data in files.items() if str(published.data_dir).encode() in data]


@pytest.mark.slow
def test_an_upload_that_stumbles_sends_the_rest_alone(published):
    assert published.attempts["stumbled"] is True
    sent = [line for line in published.hub.requests if line.startswith("PUT /lfs-objects/dataset/org/again/")]
    stored = Counter(line for line in sent if line.endswith("200"))
    assert len(sent) == len(stored) + 1 and set(stored.values()) == {1}
    assert len(stored) == len(list(published.folder.glob("data/*.parquet")))
    assert len(published.hub.repository("org/again", "dataset").commits) == 2


@pytest.mark.slow
def test_what_is_public_is_so_on_purpose_and_never_taken_for_private(published):
    assert published.attempts["public"] is False
    assert not published.hub.repository("org/public", "dataset").private
    assert "'org/public' is there and public" in published.attempts["kept private"]


@pytest.mark.slow
def test_shards_of_an_earlier_publication_go(published):
    assert published.attempts["fewer"] is False
    shards = [name for name in published.hub.files("org/public", "dataset") if name.endswith(".parquet")]
    assert len(shards) == 1
