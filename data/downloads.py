"""Downloads of corpora that stand behind no license click, with resume, and checksums from the hosts' own records.

`download_corpus` fetches SLURP into the layout that its loader reads. Sizes and checksums are asked of the hosts each
time: Zenodo's record states an MD5 for each archive, GitHub's tree of a pinned commit the git blob id of each table.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets.utils import tqdm
from filelock import FileLock
from transformers.utils import logging

from .corpus_errors import CorpusError
from .corpus_sources import how_to_get, source_of

__all__ = ["Hosts", "Patience", "RemoteFile", "download_corpus", "fetch"]

logger = logging.get_logger(__name__)

SLURP_REPOSITORY = "pswietojanski/slurp"
SLURP_COMMIT = "8eb16545762be97ace75334109d73824217311f1"
SLURP_TABLES = ("train.jsonl", "train_synthetic.jsonl", "devel.jsonl", "test.jsonl", "metadata.json")
SLURP_FOLDER = "dataset/slurp"
SLURP_RECORD = "4274930"
SLURP_ARCHIVES = ("slurp_real.tar.gz", "slurp_synth.tar.gz")

_CATALOG = ".slurp_download.json"
_CHUNK = 1 << 20
_PASSING = (408, 429, 500, 502, 503, 504)
_UNPACKED = 1.05  # FLAC does not compress: what an archive holds is about as large as the archive
# Zenodo asks programs to say who they are.
_AGENT = {"User-Agent": "speechzoo (corpus download)", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Hosts:
    """Where the hosts are; a mirror takes the place of any."""

    zenodo: str = "https://zenodo.org"
    github_api: str = "https://api.github.com"
    github_files: str = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Patience:
    """How long a failing host is borne with.

    Args:
        attempts: how often in a row a request may fail without bringing one new byte.
        first_wait, longest_wait: seconds; the wait doubles from one to the other.
        timeout: seconds without a byte after which a connection counts as dropped.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    timeout: float = 60.0


@dataclass(frozen=True)
class RemoteFile:
    """A file and what its host says of it: `checksum` is `md5:<hex>`, or `git:<hex>` for a git blob id."""

    url: str
    size: int
    checksum: str


@dataclass
class _Part:
    """The beginning of a file, `<target>.part`, with a note of which file it is the beginning of."""

    target: Path
    file: RemoteFile
    etag: str | None = field(default=None)

    @property
    def path(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def note(self) -> Path:
        return self.target.with_name(self.target.name + ".part.json")

    @property
    def have(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def open(self) -> None:
        """Takes up what an earlier run left. Raises `CorpusError` where the host's file is another one now."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if not (self.path.exists() and self.note.exists()):
            self.remove()
            return self.write_note()
        noted = json.loads(self.note.read_text())
        if (noted["size"], noted["checksum"]) != (self.file.size, self.file.checksum):
            raise CorpusError(self.path, f"{self.file.url} has changed since; delete this file and start again")
        self.etag = noted["etag"]
        if self.have > self.file.size:
            self.remove()
            self.write_note()

    def write_note(self) -> None:
        self.note.write_text(json.dumps({**asdict(self.file), "etag": self.etag}))

    def remove(self) -> None:
        for path in (self.path, self.note):
            path.unlink(missing_ok=True)


def download_corpus(
    name: str,
    data_dir: str | Path,
    *,
    audio: bool = True,
    hosts: Hosts | None = None,
    patience: Patience | None = None,
) -> Path:
    """Fetches a corpus into `data_dir`, in the layout its loader reads; what is there already is not fetched again.

    An interrupted download goes on where it stopped, and every file is checked against its host's checksum. Archives
    are unpacked and deleted. Once all is there, the hosts are not asked any more. One process downloads at a time;
    others wait for it and find the files.

    Args:
        name: of the corpus.
        data_dir: the folder, made where it is missing.
        audio: False fetches the tables alone.

    Returns:
        `data_dir`.

    Raises:
        CorpusError: the corpus cannot be had without accepting a license (the message says where and how); a host does
            not answer, or answers with another file than before; a checksum differs (the file is deleted); the disk is
            too small; an archive would write outside the folder.
        ValueError: there is no corpus of this name.
    """
    folder = Path(data_dir)
    if not source_of(name).download:
        raise CorpusError(folder, how_to_get(name, folder))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".download.lock"):
        _download_slurp(folder, audio, hosts or Hosts(), patience or Patience())
    return folder


def _download_slurp(folder: Path, audio: bool, hosts: Hosts, patience: Patience) -> None:
    wanted = [*(f"{SLURP_FOLDER}/{name}" for name in SLURP_TABLES)]
    wanted += [f"audio/{name}" for name in SLURP_ARCHIVES] if audio else []
    noted = _catalog(folder)
    if set(wanted) <= set(noted) and not _missing(folder, {name: noted[name] for name in wanted}):
        return  # without asking the hosts, which may be out of reach
    catalog = {**_slurp_tables(hosts, patience), **(_slurp_archives(hosts, patience) if audio else {})}
    missing = _missing(folder, catalog)
    coming = {target: file for target, file in missing.items() if not _is_whole(target, file)}
    archives = {target: file for target, file in missing.items() if target.name in SLURP_ARCHIVES}
    _check_disk(folder, coming, archives)
    for target, file in coming.items():
        fetch(file, target, patience)
    for target, file in archives.items():
        _unpack(target, file)
    _note_catalog(folder, {**noted, **catalog})


def _missing(folder: Path, catalog: Mapping[str, RemoteFile]) -> dict[Path, RemoteFile]:
    """Tables that are not there as their host states them, and archives that are not unpacked."""
    targets = {folder / name: file for name, file in catalog.items()}
    return {
        target: file
        for target, file in targets.items()
        if not (_is_unpacked if target.name in SLURP_ARCHIVES else _is_whole)(target, file)
    }


def _catalog(folder: Path) -> dict[str, RemoteFile]:
    """What the hosts said when the download was finished; nothing where it was of another version."""
    path = folder / _CATALOG
    content = json.loads(path.read_text()) if path.is_file() else {}
    same = content.get("version") == [SLURP_COMMIT, SLURP_RECORD]
    return {name: RemoteFile(**facts) for name, facts in content["files"].items()} if same else {}


def _note_catalog(folder: Path, catalog: Mapping[str, RemoteFile]) -> None:
    files = {name: asdict(file) for name, file in catalog.items()}
    (folder / _CATALOG).write_text(json.dumps({"version": [SLURP_COMMIT, SLURP_RECORD], "files": files}, indent=1))


def _slurp_tables(hosts: Hosts, patience: Patience) -> dict[str, RemoteFile]:
    """The tables of the pinned commit, by path, with the blob ids that its tree states."""
    url = f"{hosts.github_api}/repos/{SLURP_REPOSITORY}/git/trees/{SLURP_COMMIT}?recursive=1"
    answer = _ask(url, patience)
    try:
        blobs = {entry["path"]: entry for entry in answer["tree"] if entry["type"] == "blob"}
        files = {}
        for name in SLURP_TABLES:
            path = f"{SLURP_FOLDER}/{name}"
            address = f"{hosts.github_files}/{SLURP_REPOSITORY}/{SLURP_COMMIT}/{path}"
            files[path] = RemoteFile(address, int(blobs[path]["size"]), f"git:{blobs[path]['sha']}")
        return files
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(url, f"the answer lists no {error}; see {source_of('slurp').homepage}") from None


def _slurp_archives(hosts: Hosts, patience: Patience) -> dict[str, RemoteFile]:
    """The archives of the Zenodo record, by path, with the checksums that the record states."""
    url = f"{hosts.zenodo}/api/records/{SLURP_RECORD}"
    answer = _ask(url, patience)
    try:
        entries = {entry["key"]: entry for entry in answer["files"]}
        files = {
            f"audio/{name}": RemoteFile(
                str(entries[name]["links"]["self"]), int(entries[name]["size"]), str(entries[name]["checksum"])
            )
            for name in SLURP_ARCHIVES
        }
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(url, f"the record lists no {error}; see {hosts.zenodo}/records/{SLURP_RECORD}") from None
    for file in files.values():
        if not file.checksum.startswith("md5:") or urllib.parse.urlsplit(file.url).scheme not in ("http", "https"):
            stated = f"'{file.checksum}' and '{file.url}'"
            raise CorpusError(url, f"the record states {stated}, not an MD5 and a web address; fetch it by hand")
    return files


# --- one file ---


def fetch(file: RemoteFile, target: Path, patience: Patience | None = None) -> Path:
    """Downloads one file to `target`, which exists only once it is whole and its checksum is right.

    What has come so far is kept as `<target>.part`, and the next call asks for the rest. A host that sends the whole
    file instead is let start again.

    Raises:
        CorpusError: as `download_corpus` does.
    """
    patience, part = patience or Patience(), _Part(target, file)
    part.open()
    label = f"{target.name} ({file.size / 1e6:,.0f} MB)"
    with tqdm(total=file.size, initial=part.have, unit="B", unit_scale=True, desc=label) as bar:
        _receive(part, patience, bar)
    if (found := _checksum(part.path, file.checksum)) != file.checksum:
        part.remove()
        raise CorpusError(target, f"came as {found}, its host states {file.checksum}; deleted, download it again")
    part.path.replace(target)
    part.note.unlink()
    return target


def _receive(part: _Part, patience: Patience, bar: Any) -> None:
    """Appends to the part until it is as long as the file."""
    failures = 0
    part.path.touch()
    while (before := part.have) < part.file.size:
        try:
            _receive_some(part, patience.timeout, bar)
            problem, wait = "the connection was dropped", 0.0
        except urllib.error.HTTPError as error:
            problem, wait = _passing(part.file.url, error)
        except (OSError, http.client.HTTPException) as error:
            problem, wait = str(error) or type(error).__name__, 0.0
        failures = 0 if part.have > before else failures + 1
        if part.have < part.file.size:
            _wait(part.file.url, problem, failures, wait, patience)


def _receive_some(part: _Part, timeout: float, bar: Any) -> None:
    """One request for what is missing. Ends early where the connection does."""
    have = part.have
    headers = {**_AGENT, **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(part.file.url, headers=headers)
    with closing(urllib.request.urlopen(request, timeout=timeout)) as response:
        resumed = response.status == 206
        _check_same(part, response.headers, have, resumed)
        if have and not resumed:
            logger.warning(f"{part.file.url}: the host cannot resume; starting again")
            bar.reset()
        with open(part.path, "ab" if resumed else "wb") as sink:
            while chunk := response.read(_CHUNK):
                sink.write(chunk)
                bar.update(len(chunk))


def _check_same(part: _Part, headers: Any, have: int, resumed: bool) -> None:
    """Raises `CorpusError` where the host sends another file than its record states, or than it sent before."""
    length, etag = headers.get("Content-Length"), _strong(headers.get("ETag"))
    size = part.file.size if length is None else int(length) + (have if resumed else 0)
    changed = part.etag is not None and etag is not None and etag != part.etag
    misplaced = resumed and not str(headers.get("Content-Range", "")).startswith(f"bytes {have}-")
    if size != part.file.size or (changed and have) or misplaced:
        what = f"{size:,} bytes, ETag {etag}" + (f", range {headers.get('Content-Range')}" if resumed else "")
        raise CorpusError(
            part.path,
            f"{part.file.url} is now another file ({what}) than the {part.file.size:,} bytes, ETag {part.etag}, "
            "that it was; delete this file and download again",
        )
    if etag != part.etag:
        part.etag = etag
        part.write_note()


def _strong(etag: str | None) -> str | None:
    return etag.removeprefix("W/") if etag else None


def _ask(url: str, patience: Patience) -> Any:
    """What a host answers, as JSON."""
    request, failures = urllib.request.Request(url, headers=_AGENT), 0
    while True:
        failures += 1
        try:
            with closing(urllib.request.urlopen(request, timeout=patience.timeout)) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            problem, wait = _passing(url, error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem, wait = str(error) or type(error).__name__, 0.0
        _wait(url, problem, failures, wait, patience)


def _passing(url: str, error: urllib.error.HTTPError) -> tuple[str, float]:
    """A problem that may pass, and the seconds the host asks to wait. Raises `CorpusError` for any other."""
    if error.code not in _PASSING:
        limit = "; hosts limit requests by the hour: try later" if error.code == 403 else ""
        raise CorpusError(url, f"the host answers {error.code} {error.reason}{limit}") from None
    asked = error.headers.get("Retry-After", "")
    return f"{error.code} {error.reason}", float(asked) if asked.isdigit() else 0.0


def _wait(url: str, problem: str, failures: int, asked: float, patience: Patience) -> None:
    if failures >= patience.attempts:
        raise CorpusError(url, f"{failures} attempts in a row failed ({problem}); call again later, it will go on")
    doubled = patience.first_wait * 2 ** max(0, failures - 1)
    seconds = min(max(doubled, asked), patience.longest_wait)
    logger.warning(f"{url}: {problem}; trying again in {seconds:.0f} s")
    time.sleep(seconds)


def _checksum(path: Path, wanted: str) -> str:
    """`algorithm:hex` of a file, by the algorithm of `wanted`."""
    algorithm = wanted.partition(":")[0]
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size) if algorithm == "git" else hashlib.new(algorithm)
    with open(path, "rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return f"{algorithm}:{digest.hexdigest()}"


def _is_whole(target: Path, file: RemoteFile) -> bool:
    return (
        target.is_file() and target.stat().st_size == file.size and _checksum(target, file.checksum) == file.checksum
    )


# --- archives and space ---


def _folder_of(archive: Path) -> Path:
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


def _receipt(archive: Path) -> Path:
    """Written once an archive is unpacked: which it was, and how many files came out."""
    return archive.with_name(f".{archive.name}.unpacked.json")


def _is_unpacked(archive: Path, file: RemoteFile) -> bool:
    receipt, folder = _receipt(archive), _folder_of(archive)
    if not (receipt.is_file() and folder.is_dir()):
        return False
    facts = json.loads(receipt.read_text())
    return facts["checksum"] == file.checksum and sum(1 for _ in folder.iterdir()) >= facts["files"]


def _unpack(archive: Path, file: RemoteFile) -> None:
    """Unpacks into the archive's folder, notes it, and deletes the archive."""
    folder = _folder_of(archive)
    try:
        with tarfile.open(archive) as content, tqdm(desc=f"unpacking {archive.name}", unit=" files") as bar:
            # Pythons before 3.10.12 and 3.11.4 have no filters and pass this over; `_members` refuses what leaves.
            content.extraction_filter = getattr(tarfile, "data_filter", None)
            files = 0
            for member in _members(archive, content):
                content.extract(member, archive.parent)
                files += member.isreg()
                bar.update(int(member.isreg()))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise CorpusError(archive, f"cannot be unpacked ({error}); mend that and call again") from None
    if not folder.is_dir():
        raise CorpusError(archive, f"held no folder {folder.name}; see {source_of('slurp').homepage}")
    _receipt(archive).write_text(json.dumps({"checksum": file.checksum, "files": sum(1 for _ in folder.iterdir())}))
    archive.unlink()


def _members(archive: Path, content: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """What lies in the archive's own folder. Raises `CorpusError` for links and for paths that leave it."""
    name = _folder_of(archive).name
    for member in content:
        parts = Path(member.name).parts
        if not (member.isreg() or member.isdir()) or ".." in parts or member.name.startswith("/"):
            raise CorpusError(archive, f"holds '{member.name}', no plain file below {name}/; do not use this archive")
        if parts[:1] == (name,):  # Some archivers leave notes of their own beside it.
            yield member


def _check_disk(folder: Path, missing: dict[Path, RemoteFile], archives: dict[Path, RemoteFile]) -> None:
    """Raises `CorpusError` where what is still to come, and to be unpacked, would not fit."""
    coming = sum(file.size - _Part(target, file).have for target, file in missing.items())
    coming += int(sum(file.size for file in archives.values()) * _UNPACKED)
    free = shutil.disk_usage(folder).free
    if coming > free:
        wanted = f"{coming / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free"
        raise CorpusError(folder, f"{wanted}; make room or choose another folder")
