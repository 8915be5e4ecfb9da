"""How much faster a closed label set is scored when demonstrations and queries are read once than by whole forwards.

    python benchmarks/label_caches.py

Every query stands behind the same demonstrations. Read in full, N labels of C tokens behind demonstrations of P tokens
and a query of T cost N (P + T + C) tokens a query, by themselves or together in a forward. With shared caches they
cost T + N C, and P tokens once for all queries. All sides run in this process, in turn, on the same model with random
weights: one forward for each label, forwards of many labels, and shared caches with as many.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from speechzoo.evaluation.intervals import mean_interval
from speechzoo.evaluation.label_scoring import LabelScores, label_scores, predictions
from speechzoo.evaluation.prompt_readers import FewShotPrompt, TextPromptReader
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.training.command_line import as_command, parse_arguments


@dataclass
class BenchmarkArguments:
    """The prompts, and the model that reads them.

    demonstration_tokens, query_tokens: those of a clip of three seconds at 12.5 embeddings a second and a few words.
    label_tokens: of the labels, in turn.
    """

    shots: int = 5
    labels: int = 31
    demonstration_tokens: int = 48
    query_tokens: int = 44
    label_tokens: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    queries: int = 8
    rows: int = 64
    width: int = 512
    layers: int = 8
    heads: int = 8
    vocabulary: int = 8000
    rounds: int = 3
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("results/label_caches.json")


@dataclass(frozen=True)
class Side:
    """One way to score, with the seconds of each round."""

    name: str
    options: dict[str, Any]
    seconds: list[float] = field(default_factory=list)


class Numbers:
    """A tokenizer of texts that are written as token ids."""

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    reader = TextPromptReader(random_model(arguments), Numbers())
    sides = [
        Side("one forward a label", {"share_caches": False, "rows": 1}),
        Side("many labels a forward", {"share_caches": False, "rows": arguments.rows}),
        Side("shared caches", {"rows": arguments.rows}),
    ]
    scores = measure(reader, sides, arguments)
    report = Report(
        title="Closed labels with shared caches",
        system="few-shot harness",
        command=as_command(),
        seeds={"weights and tokens": arguments.seed},
        environment=environment(),
        measurements=measurements(sides, scores, arguments),
        settings={f"mean seconds, {side.name}": float(np.mean(side.seconds)) for side in sides},
    )
    write_report(arguments.output, report)
    for one in report.measurements:
        print(f"{one.name}: {one.metric} {one.value:.3g} ({one.low} to {one.high}) {one.note}")


def random_model(arguments: BenchmarkArguments) -> LlamaForCausalLM:
    torch.manual_seed(arguments.seed)
    config = LlamaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.width,
        intermediate_size=4 * arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
    )
    return LlamaForCausalLM(config).to(arguments.device).eval()


def measure(reader: TextPromptReader, sides: list[Side], arguments: BenchmarkArguments) -> list[LabelScores]:
    """What each side scores, all in turn, after one round to warm up."""
    prompts, labels = drawn(arguments)
    scores: list[LabelScores] = []
    for number in range(arguments.rounds + 1):
        scores = []
        for side in sides:
            start = time.perf_counter()  # scores come as numpy arrays, so the device is done when they are there
            scores.append(label_scores(reader, prompts, labels, **side.options))
            side.seconds.extend([time.perf_counter() - start] if number else [])
    return scores


def drawn(arguments: BenchmarkArguments) -> tuple[list[FewShotPrompt], list[str]]:
    """Prompts with the same demonstrations, and labels that differ."""
    generator = np.random.default_rng(arguments.seed)

    def text(tokens: int) -> str:
        return "".join(f" {token}" for token in generator.integers(1, arguments.vocabulary, size=tokens))

    demonstrations = tuple(text(arguments.demonstration_tokens) for _ in range(arguments.shots))
    prompts = [FewShotPrompt(demonstrations, (text(arguments.query_tokens),)) for _ in range(arguments.queries)]
    labels: dict[str, None] = {}
    while len(labels) < arguments.labels:
        labels[text(arguments.label_tokens[len(labels) % len(arguments.label_tokens)])] = None
    return prompts, list(labels)


def measurements(sides: list[Side], scores: list[LabelScores], arguments: BenchmarkArguments) -> list[Measurement]:
    *whole, shared = sides
    facts = {"items": arguments.rounds, "resampled": "items", "topline": bound(arguments)}
    note = "mean over rounds, each of which runs all; topline: tokens read in full over those read with shared caches"
    rows = []
    for side in whole:
        speedups = [one / other for one, other in zip(side.seconds, shared.seconds, strict=True)]
        rows.append(Measurement.of(f"against {side.name}", "speedup", mean_interval(speedups), note=note, **facts))
    *others, found = scores
    sums = max(np.abs(other.sums - found.sums).max() for other in others)
    means = max(np.abs(other.means - found.means).max() for other in others)
    changed = sum(predictions(other.means) != predictions(found.means) for other in others)
    rows.append(Measurement("largest difference of length-normalized scores", "nats", float(means)))
    rows.append(Measurement("largest difference of summed scores", "nats", float(sums)))
    rows.append(Measurement("ways to score whose predictions differ", "count", float(changed)))
    return rows


def bound(arguments: BenchmarkArguments) -> float:
    """Tokens read in full over tokens read with shared caches."""
    cycle = arguments.label_tokens
    answers = sum(cycle[number % len(cycle)] for number in range(arguments.labels))
    demonstrations = arguments.shots * arguments.demonstration_tokens
    whole = arguments.labels * (demonstrations + arguments.query_tokens) + answers
    return arguments.queries * whole / (demonstrations + arguments.queries * (arguments.query_tokens + answers))


if __name__ == "__main__":
    main()
