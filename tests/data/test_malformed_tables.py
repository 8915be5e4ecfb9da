"""Whatever is thrown at a loader, it either takes a row or says which line it could not take."""

import json
import tempfile
from pathlib import Path

import pytest
from corpus_cases import (
    FSC_HEADER,
    VOXCELEB_HEADER,
    VOXPOPULI_HEADER,
    slurp_row,
    write_fsc,
    write_slurp,
    write_sound,
    write_voxceleb,
    write_voxpopuli,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechzoo.data import load_corpus
from speechzoo.data.corpus_errors import CorpusError

QUICK = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def folder_corpus(folder: Path) -> Path:
    write_sound(folder / "clips" / "1.flac")
    (folder / "metadata.jsonl").write_text(
        json.dumps({"id": "1", "audio": "clips/1.flac", "text": "up", "intent": "a"})
    )
    return folder


GOOD = {
    "slurp": lambda folder: write_slurp(folder, [slurp_row(1, "wake me", [("time", (1,))], ("1.flac",))]),
    "fluent_speech_commands": lambda folder: write_fsc(folder, ["0,wavs/speakers/a/1.wav,a,Hi,increase,heat,none"]),
    "slue_voxceleb": lambda folder: write_voxceleb(
        folder, [("1", "well", "s", "test", "Neutral", 0, 1)], "test", "test_raw"
    ),
    "slue_voxpopuli": lambda folder: write_voxpopuli(
        folder, [("1", "W", "well", "s", "test", "[]", "[['ORG', 0, 4]]")], "test"
    ),
    "folder": folder_corpus,
}
TABLES = {
    "slurp": "dataset/slurp/test.jsonl",
    "fluent_speech_commands": "fluent_speech_commands_dataset/data/test_data.csv",
    "slue_voxceleb": "slue-voxceleb/slue-voxceleb_test.tsv",
    "slue_voxpopuli": "slue-voxpopuli/slue-voxpopuli_test.tsv",
    "folder": "metadata.jsonl",
}
HEADERS = {"fluent_speech_commands": FSC_HEADER, "slue_voxceleb": VOXCELEB_HEADER, "slue_voxpopuli": VOXPOPULI_HEADER}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """One good corpus of each kind, whose table the tests overwrite."""
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in GOOD.items()}


@pytest.fixture(scope="module")
def good_tables(tmp_path_factory):
    """The good table of each, as it was before any test."""
    return {name: (make(tmp_path_factory.mktemp(name)) / TABLES[name]).read_bytes() for name, make in GOOD.items()}


def read(name: str, folder: Path, table: bytes) -> tuple[list, list[CorpusError]]:
    """The rows of a table that were taken, and the errors of those that were not, of both ways to read."""
    (folder / TABLES[name]).write_bytes(table)
    split = None if name == "folder" else "test"
    errors: list[CorpusError] = []
    stream = load_corpus(name, split, data_dir=folder, streaming=True, on_error="skip", skipped=errors)
    rows = list(stream)
    with tempfile.TemporaryDirectory() as cache:
        places = {"data_dir": folder, "cache_dir": cache}
        if rows:
            again: list[CorpusError] = []
            prepared = load_corpus(name, split, on_error="skip", skipped=again, **places)
            assert repr(list(prepared)) == repr(rows) and [*map(str, again)] == [*map(str, errors)]
        if errors:
            with pytest.raises(CorpusError) as caught:
                load_corpus(name, split, **places)
            assert str(caught.value) == str(errors[0])
    return rows, errors


def check(name: str, folder: Path, table: bytes) -> None:
    try:
        rows, errors = read(name, folder, table)
    except CorpusError as error:  # the whole file is no table
        assert str(folder / TABLES[name]) in str(error) and "\n" not in str(error)
        return
    for error in errors:
        assert str(error).startswith(f"{folder / TABLES[name]}, line ") and "\n" not in str(error)
        assert 1 <= int(str(error).split("line ")[1].split(":")[0]) <= table.count(b"\n") + 1
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", list(GOOD))
def test_the_good_table_is_taken(corpora, good_tables, name):
    rows, errors = read(name, corpora[name], good_tables[name])
    assert len(rows) == 1 and not errors


@pytest.mark.parametrize("name", list(GOOD))
@QUICK
@given(noise=st.binary(max_size=80))
def test_noise_instead_of_a_table(corpora, name, noise):
    check(name, corpora[name], noise)


@pytest.mark.parametrize("name", list(GOOD))
@QUICK
@given(data=st.data())
def test_a_damaged_table(corpora, good_tables, name, data):
    """Some bytes of a good table replaced, taken out or put in."""
    table = bytearray(good_tables[name] * data.draw(st.integers(1, 2)))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(table)))
        end = data.draw(st.integers(start, min(len(table), start + 6)))
        table[start:end] = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"\n", b"\t", b",", b'"', b"\0", b"null"])
        )
    check(name, corpora[name], bytes(table))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1.flac", "time", "set"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["surface", "file", "type", "span", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@QUICK
@given(changes=st.dictionaries(st.sampled_from(sorted(slurp_row(1, "a"))), VALUES, min_size=1, max_size=3))
def test_rows_of_slurp_with_values_of_any_kind(corpora, changes):
    rows = [slurp_row(1, "wake me", [("time", (1,))], ("1.flac",)), {**slurp_row(2, "wake her"), **changes}]
    check("slurp", corpora["slurp"], "\n".join(map(json.dumps, rows)).encode())


@QUICK
@given(
    changes=st.dictionaries(
        st.sampled_from(["id", "audio", "text", "entities", "intent", "cut", "duration", "split", "new"]),
        VALUES,
        min_size=1,
    )
)
def test_lines_of_a_folder_with_values_of_any_kind(corpora, changes):
    rows = [{"audio": "clips/1.flac", "text": "up"}, {"audio": "clips/1.flac", "text": "down", **changes}]
    check("folder", corpora["folder"], "\n".join(map(json.dumps, rows)).encode())


@pytest.mark.parametrize("name", list(HEADERS))
@QUICK
@given(
    cells=st.lists(
        st.text(max_size=6) | st.sampled_from(["None", "1", "Neutral", "[['ORG', 0, 4]]", "nan", "../1"]),
        min_size=7,
        max_size=7,
    )
)
def test_rows_of_tables_with_cells_of_any_kind(corpora, name, cells):
    blank = "," if name == "fluent_speech_commands" else "\t"
    header = HEADERS[name] if blank == "," else HEADERS[name].replace(" ", "\t")
    check(name, corpora[name], f"{header}\n{blank.join(cells)}\n".encode(errors="surrogatepass"))
