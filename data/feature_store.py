"""What a frozen encoder says of a clip, computed once and kept.

Entries are addressed by content: a folder for everything that decides the features (encoder, its weights, the
preprocessing, the dtype), and in it a key for each clip, the hash of its samples. Shards are safetensors files that
appear only when complete, so several processes may write and an interrupted run continues.

Shapes: S samples, F encoder frames, D width.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

FACTS = "facts.json"


class FeatureStore:
    """Frames of clips, read and written by key.

    Args:
        root: folder of all stores.
        facts: plain values that together decide the features. Other facts are another store.

    Raises `ValueError` when the store on disk does not belong to these facts.
    """

    def __init__(self, root: str | Path, facts: Mapping[str, Any]) -> None:
        text = json.dumps(dict(facts), sort_keys=True, indent=2)
        self.folder = Path(root) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_facts(text)
        self._places: dict[str, tuple[Path, int]] = {}  # key -> shard, number of chunks
        self.refresh()

    def _check_facts(self, text: str) -> None:
        path = self.folder / FACTS
        if not path.is_file():
            _write_whole(path, text.encode())
        if path.read_text() != text:
            raise ValueError(f"'{self.folder}' holds features of another encoder; remove the folder to compute anew")

    def refresh(self) -> None:
        """Looks at what is on disk; other processes may have written."""
        known = {shard for shard, _ in self._places.values()}
        for shard in sorted(self.folder.glob("*.safetensors")):
            if shard not in known:
                self._index(shard)

    def _index(self, shard: Path) -> None:
        chunks: dict[str, int] = {}
        with safe_open(shard, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118  not a mapping
                key = name.partition("/")[0]
                chunks[key] = chunks.get(key, 0) + 1
        self._places |= {key: (shard, count) for key, count in chunks.items()}

    @staticmethod
    def key(clip: np.ndarray) -> str:
        """The address of a clip [S]: SHA-256 of its float32 samples."""
        return hashlib.sha256(np.ascontiguousarray(clip, dtype=np.float32).tobytes()).hexdigest()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, key: str) -> list[np.ndarray]:
        """The frames [F, D] of each chunk of a clip. Raises `KeyError` for a clip that was never encoded."""
        if key not in self._places:
            raise KeyError(f"the clip with key {key[:12]} is not in '{self.folder}'; encode the corpus first")
        shard, count = self._places[key]
        with safe_open(shard, framework="numpy") as tensors:
            return [tensors.get_tensor(f"{key}/{index}") for index in range(count)]

    def write(self, entries: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Adds clips, the frames [F, D] of their chunks each, as one shard."""
        tensors = {f"{key}/{index}": chunk for key, clip in entries.items() for index, chunk in enumerate(clip)}
        shard = self.folder / f"{uuid.uuid4().hex}.safetensors"
        unfinished = shard.with_suffix(".unfinished")
        save_file(tensors, unfinished)
        os.replace(unfinished, shard)
        self._index(shard)


def _write_whole(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
