"""How much faster candidates are scored when their prompt is read once than when it is read before each of them.

    python benchmarks/retrieval_caches.py

A prompt of P tokens and N continuations of C tokens cost N (P + C) tokens read in full and P + N C read by a shared
cache, so that no cache can be more than N (P + C) / (P + N C) times faster. Both sides run in this process, in turn,
on the same model with random weights, in forwards of the same rows: all continuations of a prompt, or of several.
Logits are those of continuations alone; they cost the same on both sides and do not count in the bound, nor does that
a query attends to all before it.
"""

import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig

from speechzoo import SUTLMConfig, SUTLMForCausalLM
from speechzoo.evaluation.continuation_scores import Floats, continuation_scores
from speechzoo.evaluation.intervals import mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.training.command_line import as_command, parse_arguments


@dataclass
class BenchmarkArguments:
    """What is measured: every prompt length with every continuation length and number of candidates."""

    prompt_tokens: list[int] = field(default_factory=lambda: [50, 200])
    continuation_tokens: list[int] = field(default_factory=lambda: [10, 50])
    candidates: list[int] = field(default_factory=lambda: [10, 31])
    prompts: int = 4
    rows: int = 64
    width: int = 512
    layers: int = 8
    heads: int = 8
    vocabulary: int = 8000
    rounds: int = 4
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("results/retrieval_caches.json")


@dataclass(frozen=True)
class Cell:
    """One prompt length P, continuation length C and number of candidates N."""

    prompt: int
    continuation: int
    candidates: int

    @property
    def bound(self) -> float:
        """Tokens read in full over tokens read with a shared cache."""
        whole = self.candidates * (self.prompt + self.continuation)
        return whole / (self.prompt + self.candidates * self.continuation)

    @property
    def name(self) -> str:
        return f"P = {self.prompt}, C = {self.continuation}, N = {self.candidates}"


@dataclass(frozen=True)
class Timings:
    """Seconds of each side in each round, and the largest difference of a score, in nats and over its size."""

    whole: list[float]
    shared: list[float]
    difference: float
    relative: float


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    model = random_model(arguments)
    cells = [
        Cell(*lengths)
        for lengths in product(arguments.prompt_tokens, arguments.continuation_tokens, arguments.candidates)
    ]
    timings = {cell: measured(model, cell, arguments) for cell in cells}
    report = Report(
        title="Retrieval with shared caches",
        system="sutlm",
        command=as_command(),
        seeds={"weights and tokens": arguments.seed},
        environment=environment(),
        measurements=measurements(timings),
        settings={
            f"mean seconds, {cell.name}, {side}": float(np.mean(seconds))
            for cell, found in timings.items()
            for side, seconds in (("whole", found.whole), ("shared", found.shared))
        },
    )
    write_report(arguments.output, report)
    for one in report.measurements:
        print(f"{one.name}: {one.metric} {one.value:.3g} ({one.low} to {one.high}) {one.note}")


def random_model(arguments: BenchmarkArguments) -> SUTLMForCausalLM:
    torch.manual_seed(arguments.seed)
    text_config = LlamaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.width,
        intermediate_size=4 * arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
    )
    return SUTLMForCausalLM(SUTLMConfig(text_config=text_config)).to(arguments.device).eval()


def measured(model: SUTLMForCausalLM, cell: Cell, arguments: BenchmarkArguments) -> Timings:
    """Both sides in turn, after one round to warm up."""
    generator = np.random.default_rng(arguments.seed)
    prompts = generator.integers(arguments.vocabulary, size=(arguments.prompts, cell.prompt)).tolist()
    continuations = generator.integers(arguments.vocabulary, size=(cell.candidates, cell.continuation)).tolist()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    scores: dict[bool, Floats] = {}
    for _ in range(arguments.rounds + 1):
        for share in seconds:
            start = time.perf_counter()  # scores come as numpy arrays, so the device is done when they are there
            scores[share] = continuation_scores(model, prompts, continuations, share_caches=share, rows=arguments.rows)
            seconds[share].append(time.perf_counter() - start)
    differences = np.abs(scores[True] - scores[False])
    relative = differences / np.abs(scores[False])
    return Timings(seconds[False][1:], seconds[True][1:], float(differences.max()), float(relative.max()))


def measurements(timings: dict[Cell, Timings]) -> list[Measurement]:
    rows = []
    for cell, found in timings.items():
        speedups = [whole / shared for whole, shared in zip(found.whole, found.shared, strict=True)]
        shares = [speedup / cell.bound for speedup in speedups]
        note = f"mean over {len(speedups)} rounds, each of which runs both"
        against = {"topline": cell.bound, "note": f"{note}; topline: the bound"}
        rows.append(Measurement.of(cell.name, "speedup", mean_interval(speedups), **against))
        rows.append(Measurement.of(cell.name, "share of the bound", mean_interval(shares), note=note))
    largest = max(found.difference for found in timings.values())
    relative = max(found.relative for found in timings.values())
    note = "sums of log probabilities over the tokens of a continuation"
    rows.append(Measurement("largest difference of scores", "nats", largest, note=note))
    rows.append(Measurement("largest difference of scores", "relative", relative, note=note))
    return rows


if __name__ == "__main__":
    main()
