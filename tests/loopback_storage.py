"""What the loopback Hub keeps, what it is asked, and what it answers."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

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

    @property
    def etag(self) -> str:
        """What clients know the content by."""
        return self.sha256 if self.large else self.git_id


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
    uploads: dict[str, bytes] = field(default_factory=dict)  # large files by SHA-256, before a commit names them

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
