"""KL to a frozen teacher on supervised positions, chunk by chunk, against the same with the logits of all positions.

    python benchmarks/supervised_divergence.py

What is measured is the output layer of both and the loss, forward and backward, from the last hidden states of student
and teacher on: the body of the language model costs the same on every side. The sides, which give the same loss and
gradient:

- all divergences: logits and divergences of all positions, masked in the end;
- all logits: logits of all positions, as a language model returns them; divergences of the supervised ones;
- checkpointed: supervised positions alone, a chunk at a time, logits computed again in the backward pass;
- supervised: supervised positions alone, a chunk at a time, the gradient found with the divergence, as trained here.

Losses and gradients are compared with each other and with those of the definition in float64, which tells how much of
a difference is float32's own.
Seconds come from all sides in turn in one process. Memory is what a side holds above the weights, its inputs and their
gradient, from a process of its own; on a CPU it is resident memory, on a GPU what was allocated.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from peak_memory import MIB, PeakMemory, in_fresh_process
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speechzoo.evaluation.intervals import Interval, mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.modeling.modeling_divergences import Divergence, linear_divergences
from speechzoo.training.command_line import as_command, parse_arguments


@dataclass
class BenchmarkArguments:
    """What is measured."""

    rows: int = 2
    tokens: int = 256
    supervised: int = 40
    vocabulary: int = 128_000
    width: int = 1024
    temperature: float = 2.0
    dtype: str = "float32"
    rounds: int = 4
    memory_rounds: int = 3
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("results/supervised_divergence.json")


@dataclass(frozen=True)
class Inputs:
    """Last hidden states [B, T, D] of student, which takes a gradient, and teacher; the frozen head; what counts."""

    student: Tensor
    teacher: Tensor
    weight: Tensor  # [V, D]
    supervised: Tensor  # [B, T]


Side: TypeAlias = Callable[[Inputs, float], Tensor]
Outcome: TypeAlias = tuple[float, Tensor]  # the loss, and its gradient [B, T, D]


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    memory = {name: memory_of(name, arguments) for name in SIDES}  # before this process has grown
    seconds, found = timings(arguments)
    names = ("rows", "tokens", "supervised", "vocabulary", "width", "temperature", "dtype", "device")
    report = Report(
        title="KL divergence on supervised positions",
        system="seal_projector",
        command=as_command(),
        seeds={"states and weights": arguments.seed},
        environment=environment(),
        measurements=measurements(seconds, memory, found),
        settings={name: getattr(arguments, name) for name in names},
    )
    write_report(arguments.output, report)
    for one in report.measurements:
        print(f"{one.name}: {one.value:.4g} {one.metric} ({one.low} to {one.high})")


# ---- sides ---------------------------------------------------------------------------------------------------------


def all_divergences(given: Inputs, temperature: float) -> Tensor:
    expected, logits = both_logits(given.student, given.teacher, given.weight)
    values = library_divergences(logits, expected, temperature)
    return (values * given.supervised).sum() / given.supervised.sum()


def all_logits(given: Inputs, temperature: float) -> Tensor:
    expected, logits = both_logits(given.student, given.teacher, given.weight)
    return library_divergences(logits[given.supervised], expected[given.supervised], temperature).mean()


def checkpointed(given: Inputs, temperature: float, chunk: int = 256) -> Tensor:
    def values(student: Tensor, teacher: Tensor) -> Tensor:
        expected, logits = both_logits(student, teacher, given.weight)
        return library_divergences(logits, expected, temperature)

    chunks = (states[given.supervised].split(chunk) for states in (given.student, given.teacher))
    parts = [checkpoint(values, *pair, use_reentrant=False) for pair in zip(*chunks, strict=True)]
    return torch.cat(parts).mean()


def supervised(given: Inputs, temperature: float) -> Tensor:
    student, teacher = given.student[given.supervised], given.teacher[given.supervised]
    return linear_divergences(student, teacher, given.weight, Divergence("forward", temperature)).mean()


def both_logits(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        expected = nn.functional.linear(teacher, weight)
    return expected, nn.functional.linear(student, weight)


def library_divergences(logits: Tensor, expected: Tensor, temperature: float) -> Tensor:
    """Forward KL of the last dimension by PyTorch's own function."""
    student = (logits.float() / temperature).log_softmax(-1)
    with torch.no_grad():
        teacher = (expected.float() / temperature).softmax(-1)
    return nn.functional.kl_div(student, teacher, reduction="none").sum(-1) * temperature**2


SIDES: dict[str, Side] = {
    "all divergences": all_divergences,
    "all logits": all_logits,
    "checkpointed": checkpointed,
    "supervised": supervised,
}
OURS, EXACT = "supervised", "float64"


# ---- measuring -----------------------------------------------------------------------------------------------------


def inputs(arguments: BenchmarkArguments) -> Inputs:
    """States whose logits have a standard deviation of about 2; a row's last positions are supervised."""
    generator = torch.Generator().manual_seed(arguments.seed)
    shape = (arguments.rows, arguments.tokens, arguments.width)
    student, teacher = (2 * torch.randn(shape, generator=generator) for _ in range(2))
    weight = torch.randn(arguments.vocabulary, arguments.width, generator=generator) * arguments.width**-0.5
    counted = torch.zeros(shape[:2], dtype=torch.bool)
    counted[:, -arguments.supervised :] = True
    place = {"device": arguments.device, "dtype": getattr(torch, arguments.dtype)}
    return Inputs(
        student.to(**place).requires_grad_(), teacher.to(**place), weight.to(**place), counted.to(arguments.device)
    )


def step(side: str, given: Inputs, temperature: float) -> Outcome:
    """One forward and backward pass: the loss, and the gradient [B, T, D]."""
    loss = SIDES[side](given, temperature)
    [gradient] = torch.autograd.grad(loss, given.student)
    if gradient.is_cuda:
        torch.cuda.synchronize()
    return loss.item(), gradient


def memory_of(side: str, arguments: BenchmarkArguments) -> list[int]:
    """Bytes above weights, inputs and gradient at the peak, a process each."""
    return [in_fresh_process(memory_run, side, arguments) for _ in range(arguments.memory_rounds)]


def memory_run(side: str, arguments: BenchmarkArguments) -> int:
    """One step, after one over a few positions to load what is loaded once."""
    given = inputs(arguments)
    few = Inputs(
        given.student[:1, -4:].detach().requires_grad_(),
        given.teacher[:1, -4:],
        given.weight,
        given.supervised[:1, -4:],
    )
    step(side, few, arguments.temperature)
    with PeakMemory(arguments.device) as peak:
        _, gradient = step(side, given, arguments.temperature)
    return peak.most - peak.before - gradient.nbytes


def timings(arguments: BenchmarkArguments) -> tuple[dict[str, list[float]], dict[str, Outcome]]:
    """Seconds of every side in each round after one to warm up, and what the sides and float64 found."""
    given = inputs(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    found: dict[str, Outcome] = {}
    for _ in range(arguments.rounds + 1):
        for name in SIDES:
            start = time.perf_counter()
            found[name] = step(name, given, arguments.temperature)
            seconds[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}, found | {EXACT: exact(given, arguments.temperature)}


def exact(given: Inputs, temperature: float) -> Outcome:
    """By the definition, in float64."""
    student = given.student.detach().double().requires_grad_()
    weight, counted = given.weight.double(), given.supervised
    expected, logits = (
        (states[counted] @ weight.T / temperature).log_softmax(-1) for states in (given.teacher.double(), student)
    )
    loss = (expected.exp() * (expected - logits)).sum(-1).mean() * temperature**2
    [gradient] = torch.autograd.grad(loss, student)
    return loss.item(), gradient


def difference(one: Outcome, other: Outcome) -> tuple[float, float, float]:
    """Of losses, over the loss; the largest of an entry of gradients, as it is and over the largest entry."""
    (loss, gradient), (other_loss, other_gradient) = one, other
    largest = float((gradient.double() - other_gradient.double()).abs().max())
    return abs(loss - other_loss) / abs(other_loss), largest, largest / float(other_gradient.abs().max())


def measurements(
    seconds: dict[str, list[float]], memory: dict[str, list[int]], found: dict[str, Outcome]
) -> list[Measurement]:
    facts = {"resampled": "items", "note": "mean over rounds, each of which runs every side"}
    facts["items"] = len(seconds[OURS])
    processes = {**facts, "items": len(memory[OURS]), "note": "mean over processes; above weights, inputs, gradient"}
    others = [name for name in SIDES if name != OURS]
    mebibytes = {name: [one / MIB for one in memory[name]] for name in SIDES}
    return [
        *(Measurement.of(name, "seconds", mean_interval(seconds[name]), **facts) for name in SIDES),
        *(Measurement.of(f"{name} over {OURS}", "speedup", _ratio(seconds, name), **facts) for name in others),
        *(Measurement.of(name, "MiB", mean_interval(mebibytes[name]), **processes) for name in SIDES),
        *(
            Measurement.of(f"{name} over {OURS}", "memory ratio", _ratio(mebibytes, name), **processes)
            for name in others
        ),
        *(one for name in others for one in _differences(f"{OURS} and {name}", found[OURS], found[name])),
        *(one for name in SIDES for one in _differences(f"{name} and {EXACT}", found[name], found[EXACT])),
    ]


def _differences(name: str, one: Outcome, other: Outcome) -> list[Measurement]:
    loss, absolute, relative = difference(one, other)
    return [
        Measurement(name, "difference of losses", loss, note="over the loss"),
        Measurement(name, "difference of gradients", absolute, note="largest of an entry, of the mean loss"),
        Measurement(name, "relative difference of gradients", relative, note="the same over the largest entry"),
    ]


def _ratio(costs: dict[str, list[float]], name: str) -> Interval:
    """How many times ours the cost of a side is."""
    return mean_interval([other / ours for other, ours in zip(costs[name], costs[OURS], strict=True)])


if __name__ == "__main__":
    main()
