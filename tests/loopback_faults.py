"""Failures on purpose: what can go wrong between the loopback Hub and its clients."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from loopback_storage import Reply, Request

FaultKind = Literal["none", "error", "unheard", "unanswered", "cut", "damaged request", "damaged reply", "slow"]


@dataclass
class Fault:
    """What becomes of some requests.

    Args:
        pattern: regular expression for the beginning of `METHOD /path`.
        kind: "error", an answer with `status`; "unheard", the connection breaks before anything is done;
            "unanswered", it breaks when all is done; "cut", half of the answer comes; "damaged request" and "damaged
            reply", one bit is another; "slow", all is well, later.
        times: how many requests; after them all is well.
        spared: how many of them go well before.
        seconds: of waiting.
        status, headers: of the error; "{token}" in a header is what the client said to be its token.
    """

    pattern: str
    kind: FaultKind
    times: int = 1
    spared: int = 0
    seconds: float = 0.0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)

    def strikes(self, line: str) -> bool:
        """Whether it befalls a request, which is then counted."""
        if not re.match(self.pattern, line) or self.times == 0:
            return False
        if self.spared:
            self.spared -= 1
            return False
        self.times -= 1
        return True

    def received(self, body: bytes) -> bytes:
        """What the Hub gets of what was sent to it."""
        return _damaged(body) if self.kind == "damaged request" else body

    def answer(self, request: Request) -> Reply:
        """The error."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        headers = {name: value.replace("{token}", token) for name, value in self.headers.items()}
        return Reply({"error": f"a failure on purpose, for {token}"}, self.status, headers)

    def sent(self, body: bytes) -> bytes:
        """What the client gets of the answer."""
        if self.kind == "cut":
            return body[: len(body) // 2]
        return _damaged(body) if self.kind == "damaged reply" else body


NO_FAULT = Fault("", "none")


def _damaged(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body
