"""What is saved by not running the layers above those that units are made of, and that batches change no unit.

    python benchmarks/unit_layers.py

Encoders of the size of HuBERT-base with random weights, cut after each of `layers`, and the whole one; all run in
turn in this process on the same noise. Timed is the encoder from samples to hidden states, without the search for the
nearest centroid. Then clips of different lengths get their units alone and in batches of several sizes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import HubertConfig

from speechzoo import SpeechUnitConfig, SpeechUnitModel
from speechzoo.evaluation.intervals import Interval, mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.training.command_line import as_command, parse_arguments

SAMPLING_RATE = 16_000


@dataclass
class BenchmarkArguments:
    """What is measured."""

    layers: list[int] = field(default_factory=lambda: [6, 9])
    clips: int = 4
    seconds: float = 4.0
    rounds: int = 5
    compared_clips: int = 16
    shortest: float = 1.0
    longest: float = 5.0
    batch_sizes: list[int] = field(default_factory=lambda: [2, 8])
    clusters: int = 500
    whole: int = 12
    width: int = 768
    heads: int = 12
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("results/unit_layers.json")


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    models = {layer: unit_model(layer, arguments) for layer in (*arguments.layers, arguments.whole)}
    seconds = measure_in_turn(models, arguments)
    measurements = [*costs(seconds, arguments), *(equality(models[layer], arguments) for layer in arguments.layers)]
    report = Report(
        title="Layers that units do not need",
        system="sutlm",
        command=as_command(),
        seeds={"weights and clips": arguments.seed},
        environment=environment(),
        measurements=measurements,
        settings={
            "layers of the whole encoder": arguments.whole,
            "width": arguments.width,
            "clusters": arguments.clusters,
            "batch sizes of the comparison": ", ".join(map(str, arguments.batch_sizes)),
        },
    )
    write_report(arguments.output, report)
    for one in measurements:
        print(f"{one.name}: {one.value:.4f} {one.metric} ({one.low} to {one.high})")


def unit_model(layer: int, arguments: BenchmarkArguments) -> SpeechUnitModel:
    """A HuBERT cut after `layer`, whose centroids are frames of noise, so that units differ."""
    torch.manual_seed(arguments.seed)
    config = SpeechUnitConfig(
        audio_config=HubertConfig(
            hidden_size=arguments.width,
            num_hidden_layers=arguments.whole,
            num_attention_heads=arguments.heads,
            intermediate_size=4 * arguments.width,
        ),
        layer=layer,
        clusters=arguments.clusters,
    )
    model = SpeechUnitModel(config).to(arguments.device)
    frames_needed = arguments.clusters * config.frame_stride + config.frame_kernel
    clip = noise(np.random.default_rng(arguments.seed + 1), frames_needed)
    model.set_codebook(model.encode(*padded([clip]))[0][0, : arguments.clusters])
    return model


def noise(generator: np.random.Generator, samples: int) -> Tensor:
    """[n] of noise whose loudness and color change ten times a second, as speech does."""
    pieces = -(-samples * 10 // SAMPLING_RATE)
    loudness, color = (np.repeat(generator.uniform(0, 1, pieces), SAMPLING_RATE // 10)[:samples] for _ in range(2))
    white = generator.standard_normal(samples + 1)
    return torch.from_numpy((loudness * (white[1:] + (2 * color - 1) * white[:-1])).astype(np.float32))


def padded(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Samples [C, n] and their mask."""
    lengths = torch.tensor([len(clip) for clip in clips])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True), mask


@torch.no_grad()
def measure_in_turn(models: dict[int, SpeechUnitModel], arguments: BenchmarkArguments) -> dict[int, list[float]]:
    """Seconds of each encoder in each round, after one round to warm up."""
    generator = np.random.default_rng(arguments.seed)
    batch = padded([noise(generator, int(arguments.seconds * SAMPLING_RATE)) for _ in range(arguments.clips)])
    seconds: dict[int, list[float]] = {layer: [] for layer in models}
    for _ in range(arguments.rounds + 1):
        for layer, model in models.items():
            start = time.perf_counter()
            model.encode(*batch)
            if arguments.device != "cpu":
                torch.accelerator.synchronize()
            seconds[layer].append(time.perf_counter() - start)
    return {layer: times[1:] for layer, times in seconds.items()}


def costs(seconds: dict[int, list[float]], arguments: BenchmarkArguments) -> list[Measurement]:
    """Seconds per second of audio of every encoder, and what a cut one costs of the whole one."""
    audio = arguments.clips * arguments.seconds
    note = f"mean over {arguments.rounds} rounds of {arguments.clips} clips of {arguments.seconds:g} s"
    whole = seconds[arguments.whole]
    return [
        *(
            Measurement.of(f"layers 1 to {layer}", "seconds per second of audio", _per(times, audio), note=note)
            for layer, times in seconds.items()
        ),
        *(
            Measurement.of(
                f"layers 1 to {layer} over 1 to {arguments.whole}",
                "ratio",
                mean_interval([cut / all_layers for cut, all_layers in zip(seconds[layer], whole, strict=True)]),
                note=f"{note}, each of which runs both",
            )
            for layer in arguments.layers
        ),
    ]


def _per(times: list[float], audio: float) -> Interval:
    return mean_interval([time / audio for time in times])


def equality(model: SpeechUnitModel, arguments: BenchmarkArguments) -> Measurement:
    """The share of clips whose units are exactly the same alone and in batches of every size."""
    generator = np.random.default_rng(arguments.seed + 2)
    lengths = generator.uniform(arguments.shortest, arguments.longest, arguments.compared_clips) * SAMPLING_RATE
    clips = [noise(generator, int(length)) for length in lengths]
    alone = [model.extract(*padded([clip]))[0] for clip in clips]
    equal = np.ones(len(clips), dtype=bool)
    for size in arguments.batch_sizes:
        starts = range(0, len(clips), size)
        batched = [units for start in starts for units in model.extract(*padded(clips[start : start + size]))]
        equal &= [one == other for one, other in zip(alone, batched, strict=True)]
    frames, used = sum(map(len, alone)), len(set().union(*alone))
    return Measurement(
        f"layer {model.config.layer}: units of a clip alone and in batches are equal",
        "share of clips",
        float(equal.mean()),
        items=len(clips),
        note=f"{frames} frames, {used} different units",
    )


if __name__ == "__main__":
    main()
