"""What an epoch of Seal costs when the teacher's distributions were kept and when the teacher runs in every step.

    python benchmarks/kept_teacher.py

Twice: with the tiny zoo's trained models on its own commands, and with backbones of the sizes of whisper-small and
Qwen3-0.6B, random weights, on noise of an utterance's length. The encoder's frames are kept on both sides; both read
the same clips in the same batches, in turn in this process, forward and backward, without an update of the weights, so
that they stay equal. Losses of both sides are compared on the trained models, for a random teacher knows no likely
tokens. The teacher of the kept side is made to fail when it is asked.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from cached_features import batches, corpus, full_size, synchronize
from datasets import Dataset

from speechzoo import SealProjectorForConditionalGeneration
from speechzoo.data.corpora import load_corpus, task_examples
from speechzoo.data.encoded_speech import encode_corpus, open_store
from speechzoo.data.seal_collator import SealCollator
from speechzoo.evaluation.intervals import mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.training.adapter_arguments import BackboneArguments, DataArguments, OptimizationArguments
from speechzoo.training.adapter_training import assemble_system
from speechzoo.training.command_line import as_command, parse_arguments
from speechzoo.training.seal_arguments import AlignmentArguments
from speechzoo.training.seal_training import teacher_collator


@dataclass
class BenchmarkArguments:
    """What is measured."""

    tiny_clips: int = 144
    tiny_batch_size: int = 48
    clips: int = 8
    seconds: float = 3.0
    batch_size: int = 4
    kept_tokens: int = 64
    rounds: int = 5
    seed: int = 0
    text_model: Path = Path("examples/tiny_zoo/in_context_language_model")
    tokenizer: Path = Path("examples/tiny_zoo/language_model")
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("results/kept_teacher.json")


@dataclass(frozen=True)
class Epoch:
    """Seconds, and the loss of every batch."""

    seconds: float
    losses: list[float]


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    torch.manual_seed(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tiny = measure(*tiny_zoo(arguments), arguments.tiny_batch_size, folder / "tiny", arguments)
        model, processor = full_size(arguments, SealProjectorForConditionalGeneration)
        full = measure(model, processor, corpus(folder, arguments), arguments.batch_size, folder / "full", arguments)
    report = Report(
        title="A teacher that is kept",
        system="seal_projector",
        command=as_command(),
        seeds={"weights and clips": arguments.seed},
        environment=environment(),
        measurements=[
            ratio("tiny zoo", tiny, arguments.tiny_clips),
            ratio("whisper-small and Qwen3-0.6B in size", full, arguments.clips),
            Measurement("tiny zoo: largest difference of losses", "nats a token", largest_difference(tiny)),
        ],
        settings={
            f"mean seconds, {name}, {side}": float(np.mean([one[side].seconds for one in rounds]))
            for name, rounds in (("tiny zoo", tiny), ("full size", full))
            for side in ("live", "kept")
        }
        | {"kept_tokens": arguments.kept_tokens},
    )
    write_report(arguments.output, report)
    for one in report.measurements:
        print(f"{one.name}: {one.value:.4f} ({one.low} to {one.high})")


def tiny_zoo(arguments: BenchmarkArguments) -> tuple[Any, Any, Dataset]:
    """The tiny zoo's backbones under a new projector, its processor, and commands to say again."""
    data = DataArguments(prompts={"asr": "{audio}<asr>"}, audio_token="<audio>")
    backbones = BackboneArguments(text_model=str(arguments.text_model))
    model, processor = assemble_system(SealProjectorForConditionalGeneration, backbones, data)
    rows = task_examples(load_corpus("synthetic:commands-validation"), {"asr": "text"})
    return model.to(arguments.device), processor, rows.select(range(arguments.tiny_clips))


def measure(
    model: Any, processor: Any, rows: Dataset, batch_size: int, folder: Path, arguments: BenchmarkArguments
) -> list[dict[str, Epoch]]:
    """The epochs of both sides, round by round."""
    store = open_store(folder, model, processor)
    keyed = encode_corpus(model, processor, rows, store, batch_size=batch_size)
    live = SealCollator(processor, store=store)
    alignment = AlignmentArguments(kept_tokens=arguments.kept_tokens)
    kept = teacher_collator(model, live, [keyed], alignment, OptimizationArguments(cache_directory=folder))
    rounds = []
    for _ in range(arguments.rounds + 1):
        heard = epoch(model, live, keyed, batch_size, arguments.device)
        with without_teacher(model):
            rounds.append({"live": heard, "kept": epoch(model, kept, keyed, batch_size, arguments.device)})
    return rounds[1:]  # the first warms up


def epoch(model: Any, collator: SealCollator, rows: Dataset, batch_size: int, device: str) -> Epoch:
    """One pass over the corpus, forward and backward."""
    model.train()
    losses = []
    start = time.perf_counter()
    for batch in batches(rows, batch_size):
        loss = model(**collator(batch).to(device)).loss
        loss.backward()
        losses.append(loss.item())
        model.zero_grad()
    synchronize(device)
    return Epoch(time.perf_counter() - start, losses)


@contextmanager
def without_teacher(model: Any) -> Iterator[None]:
    """A model whose teacher cannot be asked."""
    with patch.object(type(model), "_taught", None), patch.object(type(model), "teacher_distributions", None):
        yield


def ratio(name: str, rounds: list[dict[str, Epoch]], clips: int) -> Measurement:
    found = mean_interval([one["kept"].seconds / one["live"].seconds for one in rounds])
    note = f"mean over {len(rounds)} rounds of {clips} clips, each running both"
    return Measurement.of(f"{name}: epoch with a kept teacher over a live one", "ratio", found, note=note)


def largest_difference(rounds: list[dict[str, Epoch]]) -> float:
    return max(
        abs(live - kept) for one in rounds for live, kept in zip(one["live"].losses, one["kept"].losses, strict=True)
    )


if __name__ == "__main__":
    main()
