"""Peak memory of the language model's loss: chunk by chunk as SUTLM computes it, against all logits at once.

    python benchmarks/loss_memory.py

Counted is what forward and backward pass of the output layer hold above its weights, its inputs and the gradients of
both: the body is replaced by one that hands its inputs on. "Full logits" is the loss of the text LM's own class. SUTLM
tells the loss of units, text and switches apart; "one sum" is the same chunked loss without that, so that its price
shows. Every number comes from a process of its own; on a CPU it is resident memory, on a GPU what was allocated.
"""

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peak_memory import MIB, PeakMemory, in_fresh_process
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from speechzoo import SUTLMConfig, SUTLMForCausalLM
from speechzoo.configuration.configuration_sutlm import SWITCHES
from speechzoo.evaluation.intervals import Interval, mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.modeling.modeling_losses import IGNORED, linear_cross_entropy, mean_over_items
from speechzoo.training.command_line import as_command, parse_arguments

SIDES = ("full logits", "chunked", "chunked, one sum")


@dataclass
class BenchmarkArguments:
    """What is measured."""

    tokens: int = 8192
    rows: int = 4
    vocabulary: int = 32_768
    units: int = 10_000
    widths: list[int] = field(default_factory=lambda: [512, 1024])
    dtype: str = "float32"
    repetitions: int = 3
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("results/loss_memory.json")


@dataclass(frozen=True)
class LossRun:
    """Bytes above weights, inputs and gradients at the peak, and the loss in nats."""

    peak: int
    loss: float


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    measurements = [one for width in arguments.widths for one in measure(width, arguments)]
    report = Report(
        title="Memory of the loss",
        system="sutlm",
        command=as_command(),
        seeds={"weights and inputs": arguments.seed},
        environment=environment(),
        measurements=measurements,
        settings={name: getattr(arguments, name) for name in ("tokens", "vocabulary", "units", "dtype", "device")},
    )
    write_report(arguments.output, report)
    for one in measurements:
        print(f"{one.name}: {one.value:.4g} {one.metric} ({one.low} to {one.high})")


def measure(width: int, arguments: BenchmarkArguments) -> list[Measurement]:
    """The peak of every side in MiB, its share of that of full logits, and how far the losses are apart."""
    runs: dict[str, list[LossRun]] = {name: [] for name in SIDES}
    for _ in range(arguments.repetitions):
        for name in SIDES:
            runs[name].append(in_fresh_process(loss_run, name, width, arguments))
    full, *chunked = SIDES
    note = f"mean over {arguments.repetitions} pairs of processes"
    return [
        *(Measurement.of(f"D = {width}: {name}", "MiB", _mean(runs[name]), note=note) for name in SIDES),
        *(
            Measurement.of(f"D = {width}: {name} over {full}", "ratio", _ratio(runs[name], runs[full]), note=note)
            for name in chunked
        ),
        Measurement(f"D = {width}: largest difference of losses", "nats", _apart(runs)),
    ]


def _mean(runs: list[LossRun]) -> Interval:
    return mean_interval([run.peak / MIB for run in runs])


def _ratio(runs: list[LossRun], full: list[LossRun]) -> Interval:
    return mean_interval([one.peak / other.peak for one, other in zip(runs, full, strict=True)])


def _apart(runs: dict[str, list[LossRun]]) -> float:
    middle = statistics.median(run.loss for side in runs.values() for run in side)
    return max(abs(run.loss - middle) for side in runs.values() for run in side)


def loss_run(side: str, width: int, arguments: BenchmarkArguments) -> LossRun:
    """One forward and backward pass of the loss, after one over a few tokens to load what is loaded once."""
    torch.manual_seed(arguments.seed)
    model = output_layer(side, width, arguments)
    states, labels = inputs(width, arguments)
    one_pass(side, model, states[:, :8].detach().requires_grad_(), labels[:, :8])
    model.zero_grad(set_to_none=True)
    with PeakMemory(arguments.device) as peak:
        loss = one_pass(side, model, states, labels)
    gradients = [tensor.grad.nbytes for tensor in (*model.parameters(), states) if tensor.grad is not None]
    return LossRun(peak.most - peak.before - sum(gradients), loss)


class GivenStates(nn.Module):
    """A body that hands its inputs on, so that the loss alone is measured."""

    def forward(self, *others: Any, inputs_embeds: Tensor, **more: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


def output_layer(side: str, width: int, arguments: BenchmarkArguments) -> nn.Module:
    """SUTLM or the text LM's own class with the same head [V, D] and no body."""
    config = SUTLMConfig(
        text_config=GPT2Config(
            vocab_size=arguments.vocabulary,
            n_embd=width,
            n_layer=1,
            n_head=1,
            n_inner=1,
            bos_token_id=None,
            eos_token_id=None,
        ),
        unit_token_start=arguments.vocabulary - arguments.units,
        unit_token_count=arguments.units,
        **{name: token for token, name in enumerate(SWITCHES)},
    )
    if side == SIDES[0]:
        model = AutoModelForCausalLM.from_config(config.text_config)
        setattr(model, model.base_model_prefix, GivenStates())
    else:
        model = SUTLMForCausalLM(config)
        model.model.language_model = GivenStates()
    generator = torch.Generator().manual_seed(arguments.seed)
    with torch.no_grad():
        model.lm_head.weight.normal_(0, width**-0.5, generator=generator)
    return model.to(arguments.device, getattr(torch, arguments.dtype))


def inputs(width: int, arguments: BenchmarkArguments) -> tuple[Tensor, Tensor]:
    """Hidden states [B, T, D] that take a gradient, and labels [B, T] of units and text with a switch now and then."""
    generator = torch.Generator().manual_seed(arguments.seed)
    shape = (arguments.rows, arguments.tokens // arguments.rows)
    states = torch.randn(*shape, width, generator=generator)
    labels = torch.randint(arguments.vocabulary, shape, generator=generator)
    labels[:, 1::50] = torch.randint(len(SWITCHES), labels[:, 1::50].shape, generator=generator)
    dtype = getattr(torch, arguments.dtype)
    return states.to(arguments.device, dtype).requires_grad_(), labels.to(arguments.device)


def one_pass(side: str, model: Any, states: Tensor, labels: Tensor) -> float:
    if side == SIDES[2]:
        targets = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        keep = targets != IGNORED
        loss = mean_over_items(linear_cross_entropy(states[keep], model.lm_head.weight, targets[keep]), targets)
    else:
        loss = model(inputs_embeds=states, labels=labels, use_cache=False).loss
    loss.backward()
    return loss.item()


if __name__ == "__main__":
    main()
