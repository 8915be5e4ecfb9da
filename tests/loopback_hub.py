"""A Hub on this machine's loopback: what the real clients need to create, upload, tag, list and download repositories.

It speaks the part of the Hub's HTTP interface that `huggingface_hub`, `transformers` and `datasets` use, keeps
everything in memory, and is gone when its `with` block ends::

    with LoopbackHub() as hub:
        hub.fail("PUT /lfs-objects/", "error", times=2)     # see loopback_faults
        subprocess.run([sys.executable, "publish.py"], env={**os.environ, **hub.environment(fresh_folder)})
        hub.files("org/my-model")["config.json"]

or, to try publishing by hand, `python tests/loopback_hub.py` prints the variables to export and serves until Ctrl-C.

The clients read their variables when they are imported, so they belong in the environment of a fresh process.
Left out: Xet (clients must have it off), pull requests, searches, likes, gated repositories.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import tempfile
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_faults import NO_FAULT, Fault, FaultKind
from loopback_routes import ROUTES
from loopback_storage import HubError, Reply, Repository, Request

TOKEN = "hf_loopback"


class LoopbackHub:
    """The server, and what was pushed to it. It listens, on a port of the system's choice, inside its `with` block."""

    def __init__(self, token: str = TOKEN) -> None:
        self.token = token
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []  # "GET /api/models/org/name -> 200"
        self.faults: list[Fault] = []  # failures on purpose that are still to come
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

    def fail(self, pattern: str, kind: FaultKind, **settings: Any) -> None:
        """The next requests whose `METHOD /path` begins with the regular expression `pattern` fail on purpose."""
        self.faults.append(Fault(pattern, kind, **settings))

    def fault_for(self, line: str) -> Fault:
        """What becomes of a request."""
        with self.lock:
            return next((fault for fault in self.faults if fault.strikes(line)), NO_FAULT)

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
                    parameters = _path_parameters(match)
                    _check_token(self, request, parameters)
                    return respond(self, request, **parameters)
            raise HubError(404, "NotFound", f"no route for {request.method} {request.path}")
        except HubError as error:
            return error.reply
        except Exception:
            self.errors.append(traceback.format_exc())
            return Reply({"error": self.errors[-1]}, 500)


def _check_token(hub: LoopbackHub, request: Request, asked: dict[str, str]) -> None:
    """Changes and private repositories need the token. The link to store a large file is a permission itself."""
    open_routes = r"/api/validate-yaml|.*/paths-info/.*|/lfs-objects/.*"
    repository = hub.repositories.get((asked.get("kind", ""), asked.get("name", "")))
    is_hidden = repository is not None and repository.private and not request.path.startswith("/lfs-objects/")
    is_open = request.method in ("GET", "HEAD") or re.fullmatch(open_routes, request.path)
    if request.headers.get("Authorization") == f"Bearer {hub.token}":
        return
    if is_hidden:
        raise HubError(401, "RepoNotFound", "There is no such repository for you")
    if not is_open:
        raise HubError(401, "Unauthorized", "Changing a repository needs the token")


def _path_parameters(match: re.Match[str]) -> dict[str, str]:
    """Named groups of a route, unquoted. `datasets/` and no prefix at all are the two ways to write a kind."""
    parameters = {name: unquote(value or "") for name, value in match.groupdict().items()}
    if "kind" in parameters:
        parameters["kind"] = parameters["kind"].rstrip("/").removesuffix("s") or "model"
    return parameters


def _handler_for(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # it would hold each body back for 40 ms, until the headers are confirmed

        def handle_request(self) -> None:
            url = urlsplit(self.path)
            fault = hub.fault_for(f"{self.command} {url.path}")
            time.sleep(fault.seconds)
            body = fault.received(self.read_body())
            if fault.kind == "unheard":
                return self.hang_up()
            request = Request(self.command, url.path, parse_qs(url.query), self.headers, body)
            with hub.lock:
                reply = fault.answer(request) if fault.kind == "error" else hub.answer(request)
                hub.requests.append(f"{self.command} {self.path} -> {reply.status}")
            if fault.kind == "unanswered":
                return self.hang_up()
            self.send(reply, fault)

        def hang_up(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

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

        def send(self, reply: Reply, fault: Fault) -> None:
            is_json = not isinstance(reply.body, bytes)
            body = json.dumps(reply.body).encode() if is_json else reply.body
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", **reply.headers, "Content-Length": str(len(body))}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(fault.sent(body))
            if fault.kind == "cut":
                self.hang_up()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing on the terminal; `hub.requests` has it all."""

    return Handler


def main() -> None:
    with LoopbackHub() as hub, tempfile.TemporaryDirectory() as home, contextlib.suppress(KeyboardInterrupt):
        print(*(f"export {name}={value}" for name, value in hub.environment(home).items()), sep="\n", flush=True)
        hub.thread.join()


if __name__ == "__main__":
    main()
