"""What a frozen LM says of texts, computed once and kept: its likeliest tokens at every supervised position.

An entry is found by the tokens that the teacher read and the positions it was asked at, which say all there is of
prompt, text, answer and tokenizer; a store belongs to the weights of the teacher, its temperature and k.

Shapes: N supervised positions, T tokens, k tokens that are kept.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..modeling.modeling_divergences import TopDistribution
from ..modeling.modeling_frozen_backbones import fingerprint_tensors
from ..modeling.modeling_lora import is_lora
from .feature_store import FeatureStore

KEPT_TOKENS = 64


@dataclass(frozen=True)
class TeacherReading:
    """A text with its prompt and answer, as the teacher reads it.

    Args:
        token_ids: [T], special tokens included; of an encoder-decoder, what its encoder reads.
        positions: [N] places of the tokens after which the teacher is asked; of an encoder-decoder, among
            `decoder_token_ids`.
        decoder_token_ids: what an encoder-decoder's decoder reads, its start token included.
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    decoder_token_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        read = len(self.decoder_token_ids or self.token_ids)
        if not self.positions or not 0 <= min(self.positions) <= max(self.positions) < read:
            raise ValueError(f"positions {list(self.positions)} must be places of the {read} tokens that are read")

    @property
    def key(self) -> str:
        """The address of its distributions."""
        facts = [list(part) for part in (self.token_ids, self.positions, self.decoder_token_ids)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


# The distributions at the positions of all readings, laid end to end. The LM runs in evaluation mode, in any batch.
Teacher: TypeAlias = Callable[[Sequence[TeacherReading]], TopDistribution]


class TeacherStore:
    """Distributions of a teacher on disk, for any number of processes.

    Args:
        root: folder of all stores.
        language_model: the frozen teacher; it is not held.
        k: tokens kept of each distribution; temperature: at which they are taken.

    Raises `ValueError` when the teacher is trained, and when the store on disk does not belong to it.
    """

    def __init__(
        self, root: str | Path, language_model: PreTrainedModel, k: int = KEPT_TOKENS, temperature: float = 1.0
    ) -> None:
        self.k, self.temperature = k, float(temperature)
        self._store = FeatureStore(root, teacher_facts(language_model, k, temperature))

    @property
    def folder(self) -> Path:
        return self._store.folder

    def __contains__(self, key: str) -> bool:
        return key in self._store

    def __len__(self) -> int:
        return len(self._store)

    def refresh(self) -> None:
        """Looks at what is on disk; other processes may have written."""
        self._store.refresh()

    def read(self, key: str) -> TopDistribution:
        """The distributions of a reading. Raises `KeyError` for one that the teacher never saw."""
        if key not in self._store:
            raise KeyError(f"no distribution of this teacher is kept under {key[:12]}; run keep_distributions first")
        token_ids, log_probabilities, tail = map(torch.from_numpy, self._store.read(key))
        return TopDistribution(token_ids.long(), log_probabilities, tail, self.temperature)

    def write(self, entries: Mapping[str, TopDistribution]) -> None:
        """Adds distributions by key, in one file. Raises `ValueError` for those of another k or temperature."""
        self._store.write({key: self._arrays(distribution) for key, distribution in entries.items()})

    def _arrays(self, distribution: TopDistribution) -> list[np.ndarray]:
        k, temperature = distribution.token_ids.shape[-1], distribution.temperature
        if (k, temperature) != (self.k, self.temperature):
            raise ValueError(
                f"distributions of k = {k} at temperature {temperature} do not belong in a store of k = {self.k} at "
                f"temperature {self.temperature}; make the store with their settings"
            )
        kept = (distribution.token_ids.int(), distribution.log_probabilities.float(), distribution.tail.float())
        return [tensor.detach().cpu().contiguous().numpy() for tensor in kept]


def teacher_facts(language_model: PreTrainedModel, k: int, temperature: float) -> dict[str, Any]:
    """Everything beside the tokens it reads that decides what is kept of a teacher.

    Raises `ValueError` when it is trained, for then what it says changes.
    """
    if any(parameter.requires_grad or is_lora(name) for name, parameter in language_model.named_parameters()):
        raise ValueError(
            "distributions of a language model that is trained cannot be kept; freeze it, or let the teacher run live"
        )
    return {
        "kind": "teacher distributions",
        "language_model": type(language_model).__name__,
        "weights": fingerprint_tensors(language_model.state_dict()),
        "dtype": str(language_model.dtype),
        "k": k,
        "temperature": float(temperature),
    }


def keep_distributions(
    teacher: Teacher,
    readings: Sequence[TeacherReading],
    store: TeacherStore,
    batch_size: int = 32,
    shard_readings: int = 512,
) -> list[str]:
    """Runs the teacher over the readings that the store lacks, each once; the key of every reading, in order.

    Under a launcher each process runs its share; all must see one folder.

    Args:
        readings: any sequence, so that a corpus need not be tokenized in memory.
        batch_size: readings in a forward, of nearly one length.
        shard_readings: readings in a file of the store; what an interruption may lose.

    Raises `ValueError` when the teacher gives fewer or more distributions than it was asked for.
    """
    keys, order = _by_length(readings)
    state = PartialState()
    # Shares are cut before looking at the store: processes look at different times, and must agree on whose is whose.
    share = [place for place in order[state.process_index :: state.num_processes] if keys[place] not in store]
    pending: dict[str, TopDistribution] = {}
    starts = range(0, len(share), batch_size)
    for start in tqdm(starts, desc="teacher", unit="batch", disable=not state.is_local_main_process):
        pending |= _asked(teacher, [readings[place] for place in share[start : start + batch_size]])
        if len(pending) >= shard_readings:
            store.write(pending)
            pending = {}
    if pending:
        store.write(pending)
    state.wait_for_everyone()
    store.refresh()
    _check_complete(store, keys)
    return keys


def _by_length(readings: Sequence[TeacherReading]) -> tuple[list[str], list[int]]:
    """All keys, and the place of the first reading of each key, from short to long."""
    keys: list[str] = []
    lengths: dict[str, tuple[int, int]] = {}  # key -> tokens, place
    for place, reading in enumerate(readings):
        keys.append(reading.key)
        lengths.setdefault(keys[-1], (len(reading.token_ids) + len(reading.decoder_token_ids), place))
    return keys, [place for _, place in sorted(lengths.values())]


@torch.no_grad()
def _asked(teacher: Teacher, readings: Sequence[TeacherReading]) -> dict[str, TopDistribution]:
    """What the teacher says, by key."""
    said = teacher(readings)
    ends = np.cumsum([len(reading.positions) for reading in readings]).tolist()
    if len(said) != ends[-1]:
        raise ValueError(
            f"the teacher gave {len(said)} distributions for {ends[-1]} positions; it must give one for each position "
            f"of each reading"
        )
    return {reading.key: said[start:end] for reading, start, end in zip(readings, [0, *ends[:-1]], ends, strict=True)}


def _check_complete(store: TeacherStore, keys: Sequence[str]) -> None:
    missing = sum(key not in store for key in set(keys))
    if missing:
        raise RuntimeError(
            f"{missing} readings that other processes ran are not in '{store.folder}'; put the store on a disk that "
            f"all processes share"
        )


__all__ = ["KEPT_TOKENS", "TeacherReading", "TeacherStore", "keep_distributions", "teacher_facts"]
