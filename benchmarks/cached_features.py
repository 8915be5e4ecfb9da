"""What an epoch of adapter training costs when a frozen encoder runs once per clip and when it runs each time.

    python benchmarks/cached_features.py

Encoder and LLM have the sizes of whisper-small and Qwen3-0.6B with random weights; clips are noise of an utterance's
length. Both sides read the same clips in the same batches, in turn in this process: one decodes audio, extracts
log-mel features and runs the encoder, the other reads the encoder's frames from the store. What follows (adapter, LLM,
loss and its gradient) is the same for both, and is timed once a round. Losses of both sides are compared.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoTokenizer, Qwen3Config, WhisperConfig, WhisperFeatureExtractor

from speechzoo import SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterProcessor
from speechzoo.data.encoded_speech import encode_corpus, open_store
from speechzoo.data.speech_text_collator import SpeechTextCollator
from speechzoo.evaluation.intervals import mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.modeling.modeling_padding_safe_encoders import frame_formula
from speechzoo.processing.audio_loading import save_audio
from speechzoo.training.command_line import as_command, parse_arguments

SAMPLING_RATE = 16_000
SAID = "turn on the lights in the kitchen"


@dataclass
class BenchmarkArguments:
    """What is measured."""

    clips: int = 16
    seconds: float = 3.0
    batch_size: int = 4
    rounds: int = 5
    seed: int = 0
    tokenizer: Path = Path("examples/tiny_zoo/language_model")
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    output: Path = Path("results/cached_features.json")


@dataclass(frozen=True)
class Epoch:
    """Seconds before the adapter and from the adapter on, and the loss of every batch."""

    before: float
    after: float
    losses: list[float]


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    torch.manual_seed(arguments.seed)
    model, processor = full_size(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        rows = corpus(Path(temporary), arguments)
        store = open_store(Path(temporary) / "store", model, processor)
        keyed = encode_corpus(model, processor, rows, store, batch_size=arguments.batch_size)
        sides = {
            "live": (SpeechTextCollator(processor), rows),
            "cached": (SpeechTextCollator(processor, store=store), keyed),
        }
        rounds = [
            {name: epoch(model, *side, arguments) for name, side in sides.items()} for _ in range(arguments.rounds + 1)
        ][1:]  # the first warms up
    report = Report(
        title="Cached features",
        system="speech_text_adapter",
        command=as_command(),
        seeds={"weights and clips": arguments.seed},
        environment=environment(),
        measurements=measurements(rounds, arguments),
        settings={
            f"mean seconds, {name}, {part}": float(np.mean([getattr(one[name], part) for one in rounds]))
            for name in sides
            for part in ("before", "after")
        },
    )
    write_report(arguments.output, report)
    for one in report.measurements:
        print(f"{one.name}: {one.value:.4f} ({one.low} to {one.high})")


def full_size(arguments: Any, system: Any = SpeechTextAdapterForConditionalGeneration) -> tuple[Any, Any]:
    """whisper-small's encoder and an LLM of Qwen3-0.6B's shape with random weights, and a processor for them.

    arguments: with the `device`, and the folder of a `tokenizer`. system: class of the model.
    """
    config = system.config_class(
        audio_config=WhisperConfig(
            d_model=768, encoder_layers=12, encoder_attention_heads=12, encoder_ffn_dim=3072, decoder_layers=1
        ),
        text_config=Qwen3Config(
            hidden_size=1024,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            intermediate_size=3072,
            vocab_size=151_936,
            tie_word_embeddings=True,
        ),
        encoding="clip",
    )
    model = system(config).to(arguments.device)
    model.config.frame_kernel, model.config.frame_stride = frame_formula(model.model.audio_tower)
    model.freeze_backbones()
    shared = ("is_encoder_decoder", "frame_kernel", "frame_stride", "reduction_ratio", "encoding")
    processor = SpeechTextAdapterProcessor(
        WhisperFeatureExtractor(),
        AutoTokenizer.from_pretrained(arguments.tokenizer),
        audio_token="<audio>",
        prompts={"asr": "{audio}<asr>"},
        **{name: getattr(config, name) for name in shared},
    )
    config.audio_token_id = processor.audio_token_id
    return model.train(), processor


def corpus(folder: Path, arguments: Any) -> Dataset:
    """Clips of noise with a transcript each, in the columns of `task_examples`.

    arguments: with `clips`, the `seconds` of each, and the `seed` of the noise.
    """
    generator = np.random.default_rng(arguments.seed)
    rows = []
    for index in range(arguments.clips):
        path = folder / f"{index}.flac"
        save_audio(path, generator.uniform(-0.3, 0.3, int(arguments.seconds * SAMPLING_RATE)))
        audio = {"bytes": None, "path": str(path)}
        facts = {"task": "asr", "target": SAID, "transcript": SAID, "length": arguments.seconds}
        rows.append({"id": str(index), "audio": audio, **facts})
    return Dataset.from_list(rows)


def epoch(model: Any, collator: SpeechTextCollator, rows: Dataset, arguments: BenchmarkArguments) -> Epoch:
    """One pass over the corpus without an update of the weights, so that both sides stay equal."""
    before = after = 0.0
    losses = []
    for batch in batches(rows, arguments.batch_size):
        start = time.perf_counter()
        inputs = collator(batch).to(arguments.device)
        if "input_features" in inputs:
            frames, lengths = model.model.encode_audio(inputs.pop("input_features"), inputs.pop("input_features_mask"))
            inputs["encoder_frames"] = frames
            inputs["encoder_frames_mask"] = (torch.arange(frames.shape[1]) < lengths.cpu()[:, None]).to(frames.device)
        synchronize(arguments.device)
        middle = time.perf_counter()
        loss = model(**inputs).loss
        loss.backward()
        losses.append(loss.item())
        model.zero_grad()
        synchronize(arguments.device)
        before, after = before + middle - start, after + time.perf_counter() - middle
    return Epoch(before, after, losses)


def batches(rows: Dataset, size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), size):
        yield [rows[index] for index in range(start, min(start + size, len(rows)))]


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def measurements(rounds: list[dict[str, Epoch]], arguments: BenchmarkArguments) -> list[Measurement]:
    without = [one["cached"].before / one["live"].before for one in rounds]
    # The step is the same work on both sides: its time is that of both, so that its noise does not blur the ratio.
    steps = [(one["cached"].after + one["live"].after) / 2 for one in rounds]
    including = [
        (one["cached"].before + step) / (one["live"].before + step) for one, step in zip(rounds, steps, strict=True)
    ]
    pairs = [pair for one in rounds for pair in zip(one["live"].losses, one["cached"].losses, strict=True)]
    note = f"mean over {len(rounds)} rounds of {arguments.clips} clips of {arguments.seconds:g} s, each running both"
    return [
        Measurement.of(
            "epoch with the cache over live, LLM step left out", "ratio", mean_interval(without), note=note
        ),
        Measurement.of(
            "epoch with the cache over live, LLM step included", "ratio", mean_interval(including), note=note
        ),
        Measurement("largest difference of losses", "nats", max(abs(live - cached) for live, cached in pairs)),
    ]


if __name__ == "__main__":
    main()
