"""The most memory that a piece of work holds at one time, best measured in a process that did nothing before.

with PeakMemory("cpu") as peak:
    work()
peak.before, peak.most  # bytes
"""

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import psutil
import torch

Result = TypeVar("Result")
MIB = 2**20
_PERIOD = 0.001  # seconds between two looks at the process


class PeakMemory:
    """Bytes at the start of the block, and the most inside it.

    On a CPU the resident memory of the process, looked at a thousand times a second; on a GPU what PyTorch's allocator
    gave out.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.before = self.most = 0
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = self.most = torch.cuda.memory_allocated()
        else:
            self.before = self.most = resident()
            self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            self.most = torch.cuda.max_memory_allocated()
        else:
            self._done.set()
            self._watch.join()

    def _look(self) -> None:
        while not self._done.wait(_PERIOD):
            self.most = max(self.most, resident())


def resident() -> int:
    """Bytes of this process that lie in memory."""
    return psutil.Process().memory_info().rss


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What `function`, which a module holds by its name, returns in a process that imports this one's script anew."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
