"""How much faster Whisper encodes short clips at their own length than padded to its window of 30 s.

    python benchmarks/whisper_clip_versus_window.py

Both sides run in this process, in turn, on the same clips with the same random weights at the size of whisper-small.
Log-mel extraction is left out: it is the same work for a clip in both.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from speechzoo.evaluation.intervals import mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.modeling.modeling_padding_safe_encoders import encode_speech
from speechzoo.training.command_line import as_command, parse_arguments

SAMPLING_RATE = 16000
KERNEL, STRIDE = 1, 2  # mel frames to encoder frames


@dataclass
class BenchmarkArguments:
    """What is measured."""

    seconds: float = 3.0
    clips: int = 4
    rounds: int = 7
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("results/whisper_clip_versus_window.json")


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    torch.manual_seed(arguments.seed)
    encoder = WhisperModel(small_size()).encoder.eval().to(arguments.device)
    batches = {name: features(name, arguments) for name in ("clip", "window")}
    runs: dict[str, Callable[[], Any]] = {
        name: lambda name=name: encode_speech(encoder, *batches[name], name, KERNEL, STRIDE)[0].last_hidden_state
        for name in batches
    }
    seconds = measure_in_turn(runs, arguments)
    ratios = [window / clip for clip, window in zip(seconds["clip"], seconds["window"], strict=True)]
    shape = f"{arguments.clips} clips of {arguments.seconds:g} s"
    ratio = Measurement.of(
        f"whisper-small size, {shape}: clip over window",
        "speedup",
        mean_interval(ratios),
        items=len(ratios),
        note="mean over rounds, each of which runs both",
    )
    report = Report(
        title="Whisper: clip against window",
        system="speech_text_adapter",
        command=as_command(),
        seeds={"weights and clips": arguments.seed},
        environment=environment(),
        measurements=[ratio],
        settings={f"median seconds, {name}": statistics.median(times) for name, times in seconds.items()},
    )
    write_report(arguments.output, report)
    print(f"{ratio.name}: {ratio.value:.1f} times faster ({ratio.low:.1f} to {ratio.high:.1f})")


def small_size() -> WhisperConfig:
    """The encoder of openai/whisper-small; the decoder, which does not run, is kept to one layer."""
    return WhisperConfig(
        d_model=768, encoder_layers=12, encoder_attention_heads=12, encoder_ffn_dim=3072, decoder_layers=1
    )


def features(encoding: str, arguments: BenchmarkArguments) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mel [C, M, n] of noise and its mask [C, n]."""
    extractor = WhisperFeatureExtractor()
    samples = int(arguments.seconds * SAMPLING_RATE)
    noise = np.random.default_rng(arguments.seed).standard_normal((arguments.clips, samples)).astype(np.float32)
    padding = "max_length" if encoding == "window" else False
    mel = extractor(list(noise), sampling_rate=SAMPLING_RATE, padding=padding, return_tensors="pt").input_features
    mask = (torch.arange(mel.shape[-1]) < samples // extractor.hop_length).long().expand(len(mel), -1)
    return mel.to(arguments.device), mask.to(arguments.device)


@torch.no_grad()
def measure_in_turn(runs: dict[str, Callable[[], Any]], arguments: BenchmarkArguments) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if arguments.device != "cpu":
                torch.accelerator.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}


if __name__ == "__main__":
    main()
