"""One commit to the Hub, or none: patient with a Hub that stumbles, silent about the token."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from huggingface_hub import CommitInfo, GitCommitInfo, HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import sha_fileobj

__all__ = [
    "Destination",
    "Patience",
    "PublishingError",
    "is_on_hub",
    "lies_there",
    "newest_commit",
    "upload",
    "with_owner",
    "written_there",
]

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# Answers after which the same request may succeed: too slow, too many, and faults of the Hub itself.
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}
_NETWORK_ERRORS = (HTTPError, RuntimeError, ConnectionError, json.JSONDecodeError)


class PublishingError(OSError):
    """The Hub could not be reached or refused; says what has become of the repository."""


@dataclass(frozen=True)
class Patience:
    """How often something is tried, and the seconds between tries, which double up to `longest_wait`."""

    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 30.0

    def waits(self) -> list[float]:
        return [min(self.first_wait * 2**number, self.longest_wait) for number in range(self.attempts - 1)]


@dataclass(frozen=True)
class Destination:
    """Where a commit goes.

    Args:
        repository: Hub id.
        kind: "model" or "dataset".
        private: whether a new repository is so, and one that is there has to be; `None` makes a new one private and
            takes one that is there as it is.
        tag: name for the commit.
        revision: branch, which is made where it is not there; `main` when left out.
        create_pr: opens a pull request instead.
        token: of the Hub; the one that was logged in with when left out.
    """

    repository: str
    kind: str = "model"
    private: bool | None = True
    tag: str | None = None
    revision: str | None = None
    create_pr: bool = False
    token: str | bool | None = field(default=None, repr=False)
    patience: Patience = Patience()

    @property
    def api(self) -> HfApi:
        # A line break at its end, as files have, would be an error that shows it.
        return HfApi(token=self.token.strip() if isinstance(self.token, str) else self.token)


def upload(
    folder: Path,
    to: Destination,
    message: str,
    description: str | None = None,
    only: Sequence[str] | None = None,
    stale: Sequence[str] = (),
) -> tuple[CommitInfo, bool]:
    """Uploads a folder as one commit.

    What cannot be sent is sent again, with longer and longer waits. Large files that the Hub's store already has, from
    an earlier attempt or an interrupted run, are not sent again, and a commit whose answer was lost is not made twice.
    Where it fails for good or is interrupted, the branches of the repository are as they were, and a repository or
    branch that was made for it is removed.

    Args:
        folder: its files go, at any depth.
        message, description: of the commit.
        only: patterns of the files that go; all when left out.
        stale: patterns of files there that go unless they are in `folder`.

    Returns:
        The commit, and whether the repository is private.

    Raises:
        ValueError: the repository is there, public, and should be private; or the tag is taken.
        PublishingError: the Hub refuses or cannot be reached. The token is in no error.
    """
    with _token_kept_secret(to.token), _told(to):
        made = _found(to)
        try:
            _make_repository(to, made)
            made.branch = _make_branch(to, made)
            commit = _persistently(
                to,
                lambda: to.api.upload_folder(
                    repo_id=to.repository,
                    repo_type=to.kind,
                    folder_path=folder,
                    commit_message=message,
                    commit_description=description,
                    revision=to.revision,
                    create_pr=to.create_pr,
                    allow_patterns=None if only is None else list(only),
                    delete_patterns=list(stale),
                ),
            )
        except BaseException as error:  # Ctrl-C, too
            _take_back(to, made, error)
            raise
        if to.tag:
            _set_tag(to, str(commit.oid))
        return commit, made.private


def with_owner(to: Destination) -> Destination:
    """The same with the user's own name before that of a repository that has none. Raises as `upload`."""
    if "/" in to.repository:
        return to
    with _token_kept_secret(to.token), _told(to):
        owner = _persistently(to, lambda: to.api.whoami())["name"]
    return replace(to, repository=f"{owner}/{to.repository}")


def is_on_hub(to: Destination, model: str) -> bool:
    """Whether a commit's author sees another model there. Raises `PublishingError` where the Hub does not tell."""
    with _token_kept_secret(to.token), _told(to):
        return _persistently(to, lambda: to.api.repo_exists(model))


def newest_commit(to: Destination, model: str) -> str | None:
    """That of another model there, `None` where a commit's author sees none. Raises the same."""
    with _token_kept_secret(to.token), _told(to):
        try:
            return _persistently(to, lambda: to.api.model_info(model)).sha
        except (RepositoryNotFoundError, HFValidationError):
            return None


def written_there(to: Destination, name: str) -> str | None:
    """The text of a file where a commit would go, `None` where there is none.

    Raises `PublishingError` where the Hub does not tell: what is there would else be replaced as if it were not.
    """
    return _asked(to, partial(_download, to, name))


def lies_there(to: Destination, files: Iterable[Path]) -> bool:
    """Whether all these are large files where a commit would go, byte for byte. Raises the same."""

    def hashes(revision: str | None) -> dict[str, str]:
        found = to.api.get_paths_info(to.repository, list(wanted), repo_type=to.kind, revision=revision)
        return {one.path: one.lfs.sha256 for one in found if isinstance(one, RepoFile) and one.lfs}

    wanted = {file.name: _sha256(file) for file in files}
    return _asked(to, hashes) == wanted


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return sha_fileobj(content).hex()


def _asked(to: Destination, ask: Callable[[str | None], Result]) -> Result | None:
    """What the Hub says of the revision that a commit would go to, `None` where there is no such thing."""
    with _token_kept_secret(to.token), _told(to):
        for revision in dict.fromkeys([to.revision, None]):  # a new branch begins as the main one
            try:
                return _persistently(to, partial(ask, revision))
            except RevisionNotFoundError:
                continue
            except (EntryNotFoundError, RepositoryNotFoundError):
                return None
    return None


def _download(to: Destination, name: str, revision: str | None) -> str:
    """Not by way of the cache: where the Hub is silent, the client would take what lies there, however old."""
    with TemporaryDirectory() as fresh:
        try:
            path = to.api.hf_hub_download(to.repository, name, repo_type=to.kind, revision=revision, cache_dir=fresh)
        except LocalEntryNotFoundError as error:  # nothing was heard; by its class, nothing would be there
            silence = error.__cause__
            raise silence if isinstance(silence, _NETWORK_ERRORS) else ConnectionError(str(error)) from None
        return Path(path).read_text(encoding="utf-8")


# ---- the repository ----------------------------------------------------------------------------------------------


@dataclass
class _Made:
    """What an upload found and made before it."""

    repository: bool  # was not there
    private: bool
    branches: list[str] = field(default_factory=list)  # that were there
    branch: bool = False


def _found(to: Destination) -> _Made:
    """What is there. Raises `ValueError` for a repository that is public and should be private, or has the tag."""
    try:
        info = _persistently(to, lambda: to.api.repo_info(to.repository, repo_type=to.kind))
    except RepositoryNotFoundError:
        return _Made(repository=True, private=to.private is not False)
    if to.private and not info.private:
        ways = "choose another name, or publish for everybody: --public, in training --no_private, or private=False"
        raise ValueError(f"'{to.repository}' is there and public; {ways}")
    references = _persistently(to, lambda: to.api.list_repo_refs(to.repository, repo_type=to.kind))
    if to.tag in [tag.name for tag in references.tags]:
        raise ValueError(f"'{to.repository}' has a tag '{to.tag}' already; choose another, or delete it there")
    return _Made(False, bool(info.private), [branch.name for branch in references.branches])


def _make_repository(to: Destination, made: _Made) -> None:
    if made.repository:
        _persistently(
            to,
            lambda: to.api.create_repo(to.repository, repo_type=to.kind, private=made.private, exist_ok=True),
        )


def _make_branch(to: Destination, made: _Made) -> bool:
    if to.revision is None or to.revision in ("main", *made.branches) or to.revision.startswith("refs/"):
        return False
    branch = to.revision
    _persistently(to, lambda: to.api.create_branch(to.repository, branch=branch, repo_type=to.kind, exist_ok=True))
    return True


def _take_back(to: Destination, made: _Made, error: BaseException) -> None:
    """Removes the repository or branch that was made for an upload that failed; adds what could not be."""
    try:
        if made.repository and len(_persistently(to, lambda: _commits(to))) <= 1:
            _persistently(to, lambda: to.api.delete_repo(to.repository, repo_type=to.kind, missing_ok=True))
        elif made.branch:
            _persistently(to, lambda: to.api.delete_branch(to.repository, branch=str(to.revision), repo_type=to.kind))
    except RepositoryNotFoundError:  # it could not even be made
        return
    except _NETWORK_ERRORS:
        error.args = (f"{error}; what was made for it, an empty repository or branch, could not be removed again",)


def _commits(to: Destination) -> list[GitCommitInfo]:
    return to.api.list_repo_commits(to.repository, repo_type=to.kind, revision=to.revision)


def _set_tag(to: Destination, commit: str) -> None:
    tag = str(to.tag)
    try:
        _persistently(
            to,
            lambda: to.api.create_tag(to.repository, tag=tag, revision=commit, repo_type=to.kind, exist_ok=True),
        )
    except _NETWORK_ERRORS as error:
        raise PublishingError(f"commit {commit} is in '{to.repository}', but not its tag '{tag}': {error}") from error


# ---- patience ----------------------------------------------------------------------------------------------------


def _persistently(to: Destination, action: Callable[[], Result]) -> Result:
    """The result of an action that is repeated while its failures may pass."""
    for number, wait in enumerate(to.patience.waits(), start=2):
        try:
            return action()
        except _NETWORK_ERRORS as error:
            if not _may_pass(error):
                raise
            wait = max(wait, _asked_wait(error))
            attempt = f"attempt {number} of {to.patience.attempts} in {wait:g} s"
            logger.warning("'%s': %s; %s", to.repository, _without(_secret(to.token), _line(error)), attempt)
            time.sleep(wait)
    return action()


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed.

    The client calls every failure of the large-file store a `RuntimeError`: bytes may have been damaged on the way, or
    a link have expired, and a new attempt gets a new link.
    """
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in _PASSING_STATUS
    return not isinstance(error, OfflineModeIsEnabled)


def _asked_wait(error: Exception) -> float:
    """Seconds that the Hub asks for."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return float(asked) if asked.isdigit() else 0.0


# ---- errors ------------------------------------------------------------------------------------------------------


@contextmanager
def _told(to: Destination) -> Iterator[None]:
    """Failures of the network and of the Hub as `PublishingError`."""
    try:
        yield
    except PublishingError:
        raise
    except _NETWORK_ERRORS as error:
        raise PublishingError(f"nothing was published to '{to.repository}': {_line(error)}") from error


def _line(error: BaseException) -> str:
    """An error and what it came from, in one line."""
    told = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RuntimeError) and error.__cause__:
        return f"{told} ({_line(error.__cause__)})"
    is_answer = isinstance(error, HfHubHTTPError) or not isinstance(error, HTTPError)
    return told if is_answer else f"no connection to the Hub ({told})"


@contextmanager
def _token_kept_secret(token: str | bool | None) -> Iterator[None]:
    """An error that would show the token is raised without it and without what it came from, which shows it too."""
    secret = _secret(token)
    try:
        yield
    except Exception as error:
        if secret and secret in "".join(traceback.format_exception(error)):
            raise PublishingError(_without(secret, str(error))) from None
        raise


def _secret(token: str | bool | None) -> str:
    return (token if isinstance(token, str) else get_token() or "").strip()


def _without(secret: str, text: str) -> str:
    return text.replace(secret, "<token>") if secret else text
