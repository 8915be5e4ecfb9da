"""A Hub on this machine's loopback: what the real clients need to create, upload, tag, list and download repositories.

It speaks the part of the Hub's HTTP interface that `huggingface_hub`, `transformers` and `datasets` use, keeps
everything in memory, and is gone when its `with` block ends::

    with LoopbackHub() as hub:
        subprocess.run([sys.executable, "publish.py"], env={**os.environ, **hub.environment(fresh_folder)})
        hub.files("org/my-model")["config.json"]

or, to try publishing by hand, `python tests/loopback_hub.py` prints the variables to export and serves until Ctrl-C.

The clients read their variables when they are imported, so they belong in the environment of a fresh process.
Left out: Xet (clients must have it off), pull requests, searches, likes, gated repositories.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

USER = "org"
TOKEN = "hf_loopback"
# The Hub stores these as text, whatever their size; anything else above the limit goes through its large-file store.
TEXT_SUFFIXES = (".md", ".json", ".py", ".txt", ".yaml", ".jinja")
LARGE_FILE_BYTES = 1000
DATE = "%Y-%m-%dT%H:%M:%S.000Z"


@dataclass(frozen=True)
class StoredFile:
    data: bytes
    large: bool = False  # came through the large-file store (LFS)

    @property
    def git_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


Tree = dict[str, StoredFile]


@dataclass(frozen=True)
class Commit:
    id: str
    title: str
    date: str
    tree: Tree
    parent: str | None


@dataclass
class Repository:
    kind: str  # model, dataset or space
    name: str  # owner/name
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)  # branches and tags, by the id of their commit
    tags: set[str] = field(default_factory=set)

    def commit(self, branch: str, tree: Tree, title: str) -> Commit:
        parent = self.references.get(branch)
        content = [parent, title, len(self.commits), *sorted((path, file.git_id) for path, file in tree.items())]
        id = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        self.commits[id] = Commit(id, title, time.strftime(DATE, time.gmtime()), tree, parent)
        self.references[branch] = id
        return self.commits[id]

    def at(self, revision: str) -> Commit:
        id = self.references.get(revision, revision)
        if id not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[id]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: Message
    body: bytes

    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Reply:
    body: Any = b""  # bytes go out as they are, anything else as JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class HubError(Exception):
    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}
        self.reply = Reply({"error": message}, status, headers)


class LoopbackHub:
    """The server, and what was pushed to it. It listens, on a port of the system's choice, inside its `with` block."""

    def __init__(self, token: str = TOKEN) -> None:
        self.token = token
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploads: dict[str, bytes] = {}  # large files by SHA-256, before a commit names them
        self.requests: list[str] = []  # "GET /api/models/org/name -> 200"
        self.errors: list[str] = []  # tracebacks of the server's own faults
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> LoopbackHub:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def environment(self, home: str | Path) -> dict[str, str]:
        """Variables for a fresh process that uses this Hub and no other, with its caches in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            # Nothing listens there: whatever leaves the loopback fails at once.
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def repository(self, name: str, kind: str = "model") -> Repository:
        if (kind, name) not in self.repositories:
            raise HubError(404, "RepoNotFound", f"Repository not found: {kind} {name}")
        return self.repositories[kind, name]

    def files(self, name: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        """The content of every file of a repository, by path."""
        return {path: file.data for path, file in self.repository(name, kind).at(revision).tree.items()}

    def answer(self, request: Request) -> Reply:
        try:
            for pattern, respond in ROUTES:
                if match := re.fullmatch(pattern, request.path):
                    _check_token(self, request)
                    return respond(self, request, **_path_parameters(match))
            raise HubError(404, "NotFound", f"no route for {request.method} {request.path}")
        except HubError as error:
            return error.reply
        except Exception:
            self.errors.append(traceback.format_exc())
            return Reply({"error": self.errors[-1]}, 500)


def _check_token(hub: LoopbackHub, request: Request) -> None:
    """Changes need the token. Reading does not, and the link to store a large file is a permission itself."""
    open_routes = r"/api/validate-yaml|.*/paths-info/.*|/lfs-objects/.*"
    is_open = request.method in ("GET", "HEAD") or re.fullmatch(open_routes, request.path)
    if not is_open and request.headers.get("Authorization") != f"Bearer {hub.token}":
        raise HubError(401, "Unauthorized", "Changing a repository needs the token")


def _path_parameters(match: re.Match[str]) -> dict[str, str]:
    """Named groups of a route, unquoted. `datasets/` and no prefix at all are the two ways to write a kind."""
    parameters = {name: unquote(value or "") for name, value in match.groupdict().items()}
    if "kind" in parameters:
        parameters["kind"] = parameters["kind"].rstrip("/").removesuffix("s") or "model"
    return parameters


# --- accounts and repositories ---


def who_am_i(hub: LoopbackHub, request: Request) -> Reply:
    token = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": "write"}}
    return Reply({"type": "user", "name": USER, "fullname": USER, "orgs": [], "auth": token})


def validate_yaml(hub: LoopbackHub, request: Request) -> Reply:
    try:
        front_matter(request.json()["content"])
    except yaml.YAMLError as error:
        return Reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return Reply({"errors": [], "warnings": []})


def create_repository(hub: LoopbackHub, request: Request) -> Reply:
    asked = request.json()
    kind, name = asked.get("type") or "model", f"{asked.get('organization') or USER}/{asked['name']}"
    url = f"{hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
    if (kind, name) in hub.repositories:
        return Reply({"error": "You already created this repo", "url": url}, 409)
    private = bool(asked.get("private")) or asked.get("visibility") == "private"
    repository = hub.repositories[kind, name] = Repository(kind, name, private)
    attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
    repository.commit("main", {".gitattributes": StoredFile(attributes)}, "initial commit")
    return Reply({"url": url, "name": name, "id": "0" * 24})


def repository_info(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str = "main") -> Reply:
    repository = hub.repository(name, kind)
    if request.method == "DELETE":
        del hub.repositories[kind, name]
        return Reply({})
    commit = repository.at(revision)
    card = front_matter(commit.tree["README.md"].data.decode()) if "README.md" in commit.tree else {}
    identity = {"_id": "0" * 24, "id": name, "modelId": name, "author": name.split("/")[0], "sha": commit.id}
    state = {"private": repository.private, "gated": False, "disabled": False, "lastModified": commit.date}
    described = {"tags": card.get("tags") or [], "cardData": card}
    described |= {key: card.get(key) for key in ("pipeline_tag", "library_name")}
    siblings = [_sibling(path, file) for path, file in sorted(commit.tree.items())]
    return Reply({**identity, **state, **described, "siblings": siblings})


def front_matter(readme: str) -> dict[str, Any]:
    """The YAML between the first two `---` lines of a card."""
    match = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", readme, re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else {}


def _sibling(path: str, file: StoredFile) -> dict[str, Any]:
    large = {"lfs": {"sha256": file.sha256, "size": len(file.data), "pointerSize": 130}} if file.large else {}
    return {"rfilename": path, "size": len(file.data), "blobId": file.git_id, **large}


# --- branches, tags, history ---


def list_references(hub: LoopbackHub, request: Request, kind: str, name: str) -> Reply:
    repository = hub.repository(name, kind)

    def listed(tags: bool) -> list[dict[str, str]]:
        prefix = "refs/tags/" if tags else "refs/heads/"
        chosen = [(name, id) for name, id in repository.references.items() if (name in repository.tags) == tags]
        return [{"name": name, "ref": prefix + name, "targetCommit": id} for name, id in chosen]

    return Reply({"branches": listed(tags=False), "tags": listed(tags=True), "converts": []})


def change_branch(hub: LoopbackHub, request: Request, kind: str, name: str, branch: str) -> Reply:
    repository = hub.repository(name, kind)
    return _change_reference(repository, request, branch, request.json().get("startingPoint") or "main")


def change_tag(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str) -> Reply:
    """A new tag is named in the body and the path says where it points; to delete one, the path names it."""
    repository = hub.repository(name, kind)
    tag = request.json().get("tag", revision)
    reply = _change_reference(repository, request, tag, revision)
    repository.tags.add(tag)
    return reply


def _change_reference(repository: Repository, request: Request, reference: str, target: str) -> Reply:
    if request.method == "DELETE":
        repository.at(reference)
        del repository.references[reference]
    elif reference in repository.references:
        raise HubError(409, "ReferenceExists", f"Reference already exists: {reference}")
    else:
        repository.references[reference] = repository.at(target).id
    return Reply({})


def list_commits(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str) -> Reply:
    repository = hub.repository(name, kind)
    history: list[dict[str, Any]] = []
    next_id, authors = repository.at(revision).id, [{"user": USER}]
    while commit := repository.commits.get(next_id):
        history.append(
            {"id": commit.id, "title": commit.title, "message": "", "date": commit.date, "authors": authors}
        )
        next_id = commit.parent or ""
    return Reply(history)


# --- listing and downloading files ---


def list_tree(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str, folder: str = "") -> Reply:
    tree = hub.repository(name, kind).at(revision).tree
    recursive = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    prefix = folder.strip("/") + "/" if folder.strip("/") else ""
    inside = {path: file for path, file in sorted(tree.items()) if path.startswith(prefix)}
    if prefix and not inside:
        raise HubError(404, "EntryNotFound", f"No such folder: {folder}")
    folders, files = set(), []
    for path, file in inside.items():
        *parents, _ = path.removeprefix(prefix).split("/")
        visible = parents if recursive else parents[:1]
        folders |= {prefix + "/".join(visible[: depth + 1]) for depth in range(len(visible))}
        if recursive or not parents:
            files.append(_file_entry(path, file))
    return Reply([_folder_entry(path) for path in sorted(folders)] + files)


def paths_info(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str) -> Reply:
    tree = hub.repository(name, kind).at(revision).tree
    is_form = "form" in request.headers.get("Content-Type", "")
    paths = parse_qs(request.body.decode())["paths"] if is_form else request.json()["paths"]
    files = [_file_entry(path, tree[path]) for path in paths if path in tree]
    folders = [_folder_entry(path) for path in paths if any(file.startswith(path + "/") for file in tree)]
    return Reply(files + folders)


def _file_entry(path: str, file: StoredFile) -> dict[str, Any]:
    large = {"lfs": {"oid": file.sha256, "size": len(file.data), "pointerSize": 130}} if file.large else {}
    return {"type": "file", "path": path, "size": len(file.data), "oid": file.git_id, **large}


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def download(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str, path: str) -> Reply:
    """Large files come from here too: clients would follow a redirect to the same host and miss the commit's id."""
    commit = hub.repository(name, kind).at(revision)
    if path not in commit.tree:
        raise HubError(404, "EntryNotFound", f"Entry not found: {path}", **{"X-Repo-Commit": commit.id})
    file = commit.tree[path]
    etag = file.sha256 if file.large else file.git_id
    headers = {"X-Repo-Commit": commit.id, "ETag": f'"{etag}"', "Content-Type": "application/octet-stream"}
    if not (asked := re.match(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))):
        return Reply(file.data, 200, headers)
    first, last = int(asked[1]), int(asked[2] or len(file.data) - 1)
    part = file.data[first : last + 1]
    headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(file.data)}"
    return Reply(part, 206, headers)


# --- uploading ---


def plan_upload(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str) -> Reply:
    """Tell the client which files go inside the commit and which through the large-file store."""
    tree = hub.repository(name, kind).at(revision).tree

    def plan(path: str, size: int) -> dict[str, Any]:
        large = size > LARGE_FILE_BYTES and not path.endswith(TEXT_SUFFIXES)
        present = tree[path].git_id if path in tree else None
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": present}

    return Reply({"files": [plan(file["path"], file["size"]) for file in request.json()["files"]]})


def plan_large_files(hub: LoopbackHub, request: Request, kind: str, name: str) -> Reply:
    hub.repository(name, kind)

    def plan(oid: str, size: int) -> dict[str, Any]:
        actions = {} if oid in hub.uploads else {"actions": {"upload": {"href": f"{hub.url}/lfs-objects/{oid}"}}}
        return {"oid": oid, "size": size, **actions}

    objects = [plan(asked["oid"], asked["size"]) for asked in request.json()["objects"]]
    return Reply({"transfer": "basic", "objects": objects})


def store_large_file(hub: LoopbackHub, request: Request, sha256: str) -> Reply:
    if hashlib.sha256(request.body).hexdigest() != sha256:
        raise HubError(400, "BadChecksum", "The upload does not match its SHA-256")
    hub.uploads[sha256] = request.body
    return Reply()


def make_commit(hub: LoopbackHub, request: Request, kind: str, name: str, branch: str) -> Reply:
    if "create_pr" in request.query:
        raise HubError(400, "NotSupported", "Pull requests are not supported here")
    repository, title = hub.repository(name, kind), ""
    tree = dict(repository.at(branch).tree)
    for line in request.body.splitlines():
        operation = json.loads(line)
        if operation["key"] == "header":
            title = operation["value"].get("summary", "")
        else:
            _apply(hub, tree, operation["key"], operation["value"])
    commit = repository.commit(branch, tree, title)
    url = f"{hub.url}/{'' if kind == 'model' else kind + 's/'}{name}/commit/{commit.id}"
    return Reply({"success": True, "commitOid": commit.id, "commitUrl": url, "hookOutput": ""})


def _apply(hub: LoopbackHub, tree: Tree, operation: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if operation == "file":
        content = value["content"]
        tree[path] = StoredFile(base64.b64decode(content) if value.get("encoding") == "base64" else content.encode())
    elif operation == "lfsFile":
        tree[path] = StoredFile(hub.uploads[value["oid"]], large=True)
    elif operation == "deletedFile":
        tree.pop(path, None)
    elif operation == "deletedFolder":
        for inside in [file for file in tree if file.startswith(path.rstrip("/") + "/")]:
            del tree[inside]
    else:
        raise HubError(400, "NotSupported", f"Unknown operation of a commit: {operation}")


_API = r"/api/(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)"
_WEB = r"/(?P<kind>datasets/|spaces/)?(?P<name>[^/]+/[^/]+)"
ROUTES: list[tuple[str, Callable[..., Reply]]] = [
    (r"/api/whoami-v2", who_am_i),
    (r"/api/validate-yaml", validate_yaml),
    (r"/api/repos/create", create_repository),
    (_API, repository_info),
    (_API + r"/revision/(?P<revision>[^/]+)", repository_info),
    (_API + r"/refs", list_references),
    (_API + r"/branch/(?P<branch>[^/]+)", change_branch),
    (_API + r"/tag/(?P<revision>[^/]+)", change_tag),
    (_API + r"/commits/(?P<revision>[^/]+)", list_commits),
    (_API + r"/tree/(?P<revision>[^/]+)(?P<folder>/.*)?", list_tree),
    (_API + r"/paths-info/(?P<revision>[^/]+)", paths_info),
    (_API + r"/preupload/(?P<revision>[^/]+)", plan_upload),
    (_API + r"/commit/(?P<branch>[^/]+)", make_commit),
    (_WEB + r"\.git/info/lfs/objects/batch", plan_large_files),
    (r"/lfs-objects/(?P<sha256>[0-9a-f]{64})", store_large_file),
    (_WEB + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", download),
]


def _handler_for(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            url = urlsplit(self.path)
            request = Request(self.command, url.path, parse_qs(url.query), self.headers, self.read_body())
            with hub.lock:
                reply = hub.answer(request)
                hub.requests.append(f"{self.command} {self.path} -> {reply.status}")
            self.send(reply)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def send(self, reply: Reply) -> None:
            is_json = not isinstance(reply.body, bytes)
            body = json.dumps(reply.body).encode() if is_json else reply.body
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", **reply.headers, "Content-Length": str(len(body))}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing on the terminal; `hub.requests` has it all."""

    return Handler


def main() -> None:
    with LoopbackHub() as hub, tempfile.TemporaryDirectory() as home, contextlib.suppress(KeyboardInterrupt):
        print(*(f"export {name}={value}" for name, value in hub.environment(home).items()), sep="\n", flush=True)
        hub.thread.join()


if __name__ == "__main__":
    main()
