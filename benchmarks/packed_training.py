"""How much faster a joint LM trains on packed rows with a chunked loss than on padded batches with full logits.

    python benchmarks/packed_training.py                                                     # a CPU
    python benchmarks/packed_training.py --layers 24 --width 1024 --heads 16 --rows 16 --row_tokens 2048  # a GPU

Four sides train on the same sequences in the same batches: padded or packed, with the loss of the text LM's own class
(all logits at once) or with SUTLM's (chunks). Each is a transformers `Trainer`, and all run in turn in this process;
counted are tokens that are no padding, in forward pass, backward pass and the optimizer's step. The lengths are
log-normal with a median of 12 s, drawn again outside 1 to 35 s; that `sigma` gives 2 % of them more than 35 s before
that is our choice. Losses are compared in float32 before training, and memory is measured in processes of their own.
"""

import gc
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peak_memory import MIB, PeakMemory, in_fresh_process
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from speechzoo import SUTLMConfig, SUTLMForCausalLM
from speechzoo.data.packed_batches import PackedCollator, pack, shared_row
from speechzoo.evaluation.intervals import mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.modeling.modeling_losses import IGNORED
from speechzoo.training.command_line import as_command, parse_arguments

BASELINE = ("padded", "full logits")
SIDES = (BASELINE, ("padded", "chunked loss"), ("packed", "full logits"), ("packed", "chunked loss"))
Batch = list[list[dict[str, list[int]]]]  # rows of sequences


@dataclass
class BenchmarkArguments:
    """What is measured."""

    median_seconds: float = 12.0
    sigma: float = 0.5
    shortest: float = 1.0
    longest: float = 35.0
    tokens_per_second: float = 21.0  # deduplicated units of the tiny zoo, results/units_by_layer.json
    rows: int = 4
    row_tokens: int = 1024
    vocabulary: int = 32_000
    units: int = 10_000
    layers: int = 8
    width: int = 512
    heads: int = 8
    steps: int = 2
    rounds: int = 5
    bf16: bool = False
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("results/packed_training.json")


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    batches = draw_batches(arguments)
    models = build_models(arguments)
    apart = largest_difference(models, batches, arguments)
    speeds = measure_in_turn(models, batches, arguments)
    peaks = {side: in_fresh_process(peak_of_training, side, arguments) for side in SIDES}
    measurements = [
        *speed_measurements(speeds, arguments),
        Measurement("largest difference of losses on the same sequences", "nats", apart, items=len(batches)),
        *(Measurement(f"{', '.join(side)}: peak memory", "MiB", peak / MIB) for side, peak in peaks.items()),
    ]
    report = Report(
        title="Packed training",
        system="sutlm",
        command=as_command(),
        seeds={"weights and sequences": arguments.seed},
        environment=environment(),
        measurements=measurements,
        settings=settings(models, batches, arguments),
    )
    write_report(arguments.output, report)
    for one in measurements:
        print(f"{one.name}: {one.value:.4g} {one.metric} ({one.low} to {one.high})")


# ---- sequences and batches ----


def draw_batches(arguments: BenchmarkArguments) -> list[Batch]:
    """Batches of full rows for the steps that are timed, after one for the step that warms up."""
    rows = pack(sequences(arguments), arguments.row_tokens, lambda sequence: len(sequence["input_ids"]))
    return [list(islice(rows, arguments.rows)) for _ in range(arguments.steps + 1)]


def sequences(arguments: BenchmarkArguments) -> Iterator[dict[str, list[int]]]:
    """Without end: random tokens of units and text."""
    generator = np.random.default_rng(arguments.seed)
    while True:
        seconds = arguments.median_seconds * np.exp(arguments.sigma * generator.standard_normal())
        if arguments.shortest <= seconds <= arguments.longest:
            tokens = round(seconds * arguments.tokens_per_second)
            yield {"input_ids": generator.integers(arguments.vocabulary, size=max(tokens, 2)).tolist()}


def collate(layout: str, batch: Batch) -> dict[str, Tensor]:
    """The same sequences as packed rows, or each padded to the longest."""
    if layout == "packed":
        return PackedCollator()([shared_row(row) for row in batch])
    tokens = [torch.tensor(sequence["input_ids"]) for row in batch for sequence in row]

    def pad(values: list[Tensor], filling: int) -> Tensor:
        return nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=filling)

    masks = [torch.ones_like(one) for one in tokens]
    return {"input_ids": pad(tokens, 0), "labels": pad(tokens, IGNORED), "attention_mask": pad(masks, 0)}


def count_tokens(batch: Batch) -> int:
    return sum(len(sequence["input_ids"]) for row in batch for sequence in row)


# ---- models ----


def build_models(arguments: BenchmarkArguments) -> dict[str, PreTrainedModel]:
    """The text LM's own class and SUTLM with the same weights; without dropout, so that losses can be compared."""
    torch.manual_seed(arguments.seed)
    config = SUTLMConfig(
        text_config=GPT2Config(
            vocab_size=arguments.vocabulary,
            n_positions=arguments.row_tokens,
            n_layer=arguments.layers,
            n_embd=arguments.width,
            n_head=arguments.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
            use_cache=False,  # transformers forgets where sequences in a row end when it makes a cache
        ),
        unit_token_start=arguments.vocabulary - arguments.units,
        unit_token_count=arguments.units,
    )
    stock, joint = AutoModelForCausalLM.from_config(config.text_config), SUTLMForCausalLM(config)
    joint.model.language_model.load_state_dict(stock.base_model.state_dict())
    joint.tie_weights()
    return {"full logits": stock.to(arguments.device), "chunked loss": joint.to(arguments.device)}


@torch.no_grad()
def largest_difference(
    models: dict[str, PreTrainedModel], batches: list[Batch], arguments: BenchmarkArguments
) -> float:
    """Between any side's loss and that of the baseline on the same sequences, in nats a token."""
    apart = 0.0
    for batch in batches:
        losses = {}
        for layout, loss in SIDES:
            inputs = {name: tensor.to(arguments.device) for name, tensor in collate(layout, batch).items()}
            losses[layout, loss] = models[loss](**inputs).loss.item()
        apart = max(apart, *(abs(value - losses[BASELINE]) for value in losses.values()))
    return apart


# ---- training ----


class InOrder(Trainer):
    """Takes the batches as they come."""

    def _get_train_sampler(self, *arguments: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


@dataclass
class StepClock(TrainerCallback):
    """The time at the end of every step."""

    device: str
    times: list[float] = field(default_factory=list)

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        if self.device != "cpu":
            torch.accelerator.synchronize()
        self.times.append(time.perf_counter())


def train(model: PreTrainedModel, layout: str, batches: list[Batch], arguments: BenchmarkArguments) -> float:
    """Tokens a second over all steps but the first."""
    clock = StepClock(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = InOrder(
            model,
            TrainingArguments(
                folder,
                max_steps=len(batches),
                per_device_train_batch_size=1,
                learning_rate=1e-4,
                bf16=arguments.bf16,
                use_cpu=arguments.device == "cpu",
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
            ),
            train_dataset=[collate(layout, batch) for batch in batches],
            data_collator=lambda batch: batch[0],
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return sum(map(count_tokens, batches[1:])) / (clock.times[-1] - clock.times[0])


def measure_in_turn(
    models: dict[str, PreTrainedModel], batches: list[Batch], arguments: BenchmarkArguments
) -> dict[tuple[str, str], list[float]]:
    """Tokens a second of every side in every round; each round begins with another side."""
    speeds: dict[tuple[str, str], list[float]] = {side: [] for side in SIDES}
    for number in range(arguments.rounds):
        first = number % len(SIDES)
        for layout, loss in (*SIDES[first:], *SIDES[:first]):
            speeds[layout, loss].append(train(models[loss], layout, batches, arguments))
    return speeds


def peak_of_training(side: tuple[str, str], arguments: BenchmarkArguments) -> int:
    """Bytes of weights, gradients, optimizer, activations and loss, above what the libraries take."""
    layout, loss = side
    batches = draw_batches(arguments)[:2]
    with PeakMemory(arguments.device) as peak:
        model = build_models(arguments)[loss]
        gc.collect()  # the other model
        train(model, layout, batches, arguments)
    return peak.most - peak.before


# ---- what came out ----


def speed_measurements(speeds: dict[tuple[str, str], list[float]], arguments: BenchmarkArguments) -> list[Measurement]:
    note = f"mean over {arguments.rounds} rounds of {arguments.steps} steps, each of which runs every side"
    baseline = speeds[BASELINE]
    ratios = {
        side: [ours / theirs for ours, theirs in zip(values, baseline, strict=True)]
        for side, values in speeds.items()
        if side != BASELINE
    }
    return [
        *(
            Measurement.of(", ".join(side), "tokens per second", mean_interval(values), note=note)
            for side, values in speeds.items()
        ),
        *(
            Measurement.of(
                f"{', '.join(side)}, over {', '.join(BASELINE)}", "speedup", mean_interval(values), note=note
            )
            for side, values in ratios.items()
        ),
    ]


def settings(
    models: dict[str, PreTrainedModel], batches: list[Batch], arguments: BenchmarkArguments
) -> dict[str, Any]:
    """Sizes, and what share of each layout's positions is no padding."""
    tokens = sum(map(count_tokens, batches))
    positions = {
        layout: sum(collate(layout, batch)["input_ids"].numel() for batch in batches)
        for layout in ("padded", "packed")
    }
    names = "layers width heads vocabulary sigma tokens_per_second rows row_tokens bf16 device".split()
    return {
        **{name: getattr(arguments, name) for name in names},
        "parameters": models[BASELINE[1]].num_parameters(),
        "tokens in a batch": tokens / len(batches),
        "sequences in a batch": sum(len(row) for batch in batches for row in batch) / len(batches),
        **{f"share of positions that are no padding, {layout}": tokens / count for layout, count in positions.items()},
    }


if __name__ == "__main__":
    main()
