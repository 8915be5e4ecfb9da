"""What the loopback Hub does for each address that the real clients know."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import yaml
from loopback_storage import HubError, Reply, Repository, Request, StoredFile, Tree

if TYPE_CHECKING:
    from loopback_hub import LoopbackHub

USER = "org"
# The Hub stores these as text, whatever their size; anything else above the limit goes through its large-file store.
TEXT_SUFFIXES = (".md", ".json", ".py", ".txt", ".yaml", ".jinja")
LARGE_FILE_BYTES = 1000


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


def delete_repository(hub: LoopbackHub, request: Request) -> Reply:
    asked = request.json()
    name, kind = f"{asked.get('organization') or USER}/{asked['name']}", asked.get("type") or "model"
    hub.repository(name, kind)
    del hub.repositories[kind, name]
    return Reply({})


def repository_info(hub: LoopbackHub, request: Request, kind: str, name: str, revision: str = "main") -> Reply:
    repository = hub.repository(name, kind)
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
    headers = {"X-Repo-Commit": commit.id, "ETag": f'"{file.etag}"', "Content-Type": "application/octet-stream"}
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
        mode = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        return {**mode, "oid": tree[path].etag if path in tree else None}

    return Reply({"files": [plan(file["path"], file["size"]) for file in request.json()["files"]]})


def plan_large_files(hub: LoopbackHub, request: Request, kind: str, name: str) -> Reply:
    uploads = hub.repository(name, kind).uploads

    def plan(oid: str, size: int) -> dict[str, Any]:
        link = {"upload": {"href": f"{hub.url}/lfs-objects/{kind}/{name}/{oid}"}}
        return {"oid": oid, "size": size, **({} if oid in uploads else {"actions": link})}

    objects = [plan(asked["oid"], asked["size"]) for asked in request.json()["objects"]]
    return Reply({"transfer": "basic", "objects": objects})


def store_large_file(hub: LoopbackHub, request: Request, kind: str, name: str, sha256: str) -> Reply:
    if hashlib.sha256(request.body).hexdigest() != sha256:
        raise HubError(400, "BadChecksum", "The upload does not match its SHA-256")
    hub.repository(name, kind).uploads[sha256] = request.body
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
            _apply(repository, tree, operation["key"], operation["value"])
    commit = repository.commit(branch, tree, title)
    url = f"{hub.url}/{'' if kind == 'model' else kind + 's/'}{name}/commit/{commit.id}"
    return Reply({"success": True, "commitOid": commit.id, "commitUrl": url, "hookOutput": ""})


def _apply(repository: Repository, tree: Tree, operation: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if operation == "file":
        content = value["content"]
        tree[path] = StoredFile(base64.b64decode(content) if value.get("encoding") == "base64" else content.encode())
    elif operation == "lfsFile":
        tree[path] = StoredFile(repository.uploads[value["oid"]], large=True)
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
    (r"/api/repos/delete", delete_repository),
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
    (r"/lfs-objects/(?P<kind>\w+)/(?P<name>[^/]+/[^/]+)/(?P<sha256>[0-9a-f]{64})", store_large_file),
    (_WEB + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", download),
]
