"""What every test gets: the network shut off, one thread, a cache of its own, test data, and a Hub on the loopback."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # helpers that lie beside the tests
from loopback_hub import LoopbackHub


def pytest_configure(config: pytest.Config) -> None:
    """Set what the libraries read when they are imported, which is before any fixture runs.

    One thread: models this small gain nothing from two, and sums come out in the same order on every machine.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MPLBACKEND", "agg")
    home = tempfile.TemporaryDirectory(prefix="speechzoo-tests-")
    config.add_cleanup(home.cleanup)
    os.environ["HF_HOME"] = home.name


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collection: `Trainer` collects, and would look through all of it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """What a test wrote goes to another process as UTF-8, which damaged tables are not."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "replace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Fail a test that connects to another machine or looks up its name, even where a library would cope."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect, lambda _, address: address))
        patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex, lambda _, address: address))
        patch.setattr(socket, "getaddrinfo", _guarded(socket.getaddrinfo, lambda host, *_, **__: (host,)))
        yield


def _guarded(function: Callable[..., Any], address_of: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        address = address_of(*arguments, **keywords)
        if isinstance(address, tuple) and not _is_local(address[0]):
            pytest.fail(
                f"a test tried to reach {address[0]}: tests use this machine alone, see the fixture loopback_hub"
            )
        return function(*arguments, **keywords)

    return call


def _is_local(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of recordings and references that SPEECHZOO_TEST_DATA names."""
    if not (folder := os.environ.get("SPEECHZOO_TEST_DATA")):
        pytest.skip(
            "SPEECHZOO_TEST_DATA is not set: it names the folder that holds data/fsdd and the other recordings"
        )
    if not (Path(folder) / "data").is_dir():
        pytest.fail(f"SPEECHZOO_TEST_DATA={folder} holds no folder data/")
    return Path(folder)


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tiny speech encoders and LLMs of every tested family, and models built of them."""
    import torch
    from speech_text_cases import Backbones

    torch.set_num_threads(1)
    return Backbones(tmp_path_factory.mktemp("backbones"))


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of eight clips by two speakers, six to train on and two to test, five of them with an intent."""
    from speech_text_cases import write_corpus

    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def tiny_corpora(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a corpus -> `data_dir` of a mini one in its original layout, spoken when first asked for."""
    from speechzoo.data.tiny_corpora import tiny_corpus

    cache = tmp_path_factory.mktemp("tiny-corpora")
    return lambda name: tiny_corpus(name, "mini", cache)


@pytest.fixture
def loopback_hub() -> Iterator[LoopbackHub]:
    """An empty Hub: `.url`, `.environment(home)` for subprocesses, `.files(name)` and `.requests` to look at."""
    with LoopbackHub() as hub:
        yield hub
        assert not hub.errors, hub.errors[0]


@pytest.fixture
def hub(loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """The same, used by the clients of this process too, which read these when they are imported."""
    from huggingface_hub import constants

    settings = {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "ENDPOINT": loopback_hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": loopback_hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", loopback_hub.token)
    return loopback_hub
