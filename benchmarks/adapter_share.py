"""What share of a model the trained adapter is, by counting parameters without allocating them.

    python benchmarks/adapter_share.py

Counted for the tiny zoo and for the paper's shape: a speech encoder of about 0.6 billion parameters in place of USM,
which is not public, and mT0-xxl-mt (13 billion), with two adapter layers of width 2560.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, MT5Config, WhisperConfig

from speechzoo import SpeechTextAdapterConfig, SpeechTextAdapterForConditionalGeneration
from speechzoo.evaluation.adapter_report import count_parameters
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.training.command_line import as_command, parse_arguments


@dataclass
class ShareArguments:
    """Files."""

    zoo: Path = Path("examples/tiny_zoo")
    output: Path = Path("results/adapter_share.json")


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", ShareArguments)
    shapes = {
        "tiny zoo": SpeechTextAdapterConfig(
            audio_config=AutoConfig.from_pretrained(arguments.zoo / "speech_encoder"),
            text_config=AutoConfig.from_pretrained(arguments.zoo / "language_model"),
            reduction="stack",
        ),
        "the paper's shape": SpeechTextAdapterConfig(
            audio_config=whisper_large_v3(), text_config=mt0_xxl(), adapter_width=2560, adapter_heads=20
        ),
    }
    measurements = [share(name, config) for name, config in shapes.items()]
    write_report(
        arguments.output,
        Report(
            title="Share of the adapter",
            system="speech_text_adapter",
            command=as_command(),
            environment=environment(),
            measurements=measurements,
        ),
    )
    for measurement in measurements:
        print(f"{measurement.name}: {measurement.value:.2%} ({measurement.note})")


def share(name: str, config: SpeechTextAdapterConfig) -> Measurement:
    """Trained parameters over all that run, the embedding tables included."""
    with torch.device("meta"):
        counted = count_parameters(SpeechTextAdapterForConditionalGeneration(config))
    note = f"{counted.trainable / 1e6:.1f} of {counted.total / 1e6:.1f} million parameters"
    return Measurement(f"{name}: trained share", "share", counted.share, note=note)


def whisper_large_v3() -> WhisperConfig:
    return WhisperConfig(
        d_model=1280,
        encoder_layers=32,
        encoder_attention_heads=20,
        encoder_ffn_dim=5120,
        decoder_layers=1,
        decoder_attention_heads=20,
        num_mel_bins=128,
    )


def mt0_xxl() -> MT5Config:
    return MT5Config(
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        vocab_size=250112,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )


if __name__ == "__main__":
    main()
