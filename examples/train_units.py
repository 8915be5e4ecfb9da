"""Train a codebook of speech units on one layer of a speech encoder, measure it, and compare layers.

The tiny zoo, offline:
    python examples/train_units.py
Your own encoder and recordings:
    python examples/train_units.py --config examples/configs/units_hubert_base.yaml
A codebook that scikit-learn saved by joblib (reading it runs its code; nothing else here reads such files):
    python examples/train_units.py --joblib_codebook km.bin --config FILE.yaml

Without --config, examples/configs/units_tiny_zoo.yaml lies underneath. An interrupted run continues when it is started
again.
"""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets

from speechzoo import SpeechUnitModel, SpeechUnitProcessor
from speechzoo.data.corpora import load_corpus
from speechzoo.data.corpus_sources import check_languages, check_license
from speechzoo.data.extracted_units import encode_clips
from speechzoo.data.timed_labels import timed_labels
from speechzoo.evaluation.adapter_report import Stopwatch, count_parameters, describe_backbone
from speechzoo.evaluation.report import Corpus, Measurement, Parameters, Report, environment
from speechzoo.evaluation.unit_layer_plot import plot_layers
from speechzoo.evaluation.unit_quality import UnitQuality, measure_units
from speechzoo.hub_cards.run_report import publish_run, write_results
from speechzoo.training.adapter_arguments import option
from speechzoo.training.adapter_training import use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments
from speechzoo.training.unit_codebook import CodebookSettings, convert_joblib, train_codebook

TINY_ZOO = Path(__file__).parent / "configs" / "units_tiny_zoo.yaml"
MEASURES = ("pnmi", "phone_purity", "cluster_purity", "units_per_second", "used_clusters", "inertia")
DECIDE_UNITS = ("layer", "clusters", "averaging", "smoothing")


@dataclass
class UnitArguments:
    """The encoder and the codebook."""

    audio_model: str = field(metadata={"help": "speech encoder: Hub id or folder"})
    layer: int = field(metadata={"help": "layer whose frames become units, counted from 1"})
    audio_model_revision: str | None = option(None, "revision of the encoder")
    dtype: str = option("float32", "precision of the encoder, which belongs to the units")
    encoding: str = option("clip", "clip or window, for encoders with a fixed window")
    averaging: int = option(1, "width in frames of the moving average of hidden states before the codebook")
    smoothing: int = option(1, "width in frames of the mode filter before deduplication")
    clusters: int = option(100, "number of centroids")
    joblib_codebook: Path | None = option(None, "convert this scikit-learn file in place of training")


@dataclass
class DataArguments:
    """Recordings."""

    train_data: list[str] = field(metadata={"help": "corpora to train on; source@split picks a split"})
    test_data: list[str] = field(metadata={"help": "corpora to measure on; their phones are used where they have any"})
    train_clips: int | None = option(None, "train on so many clips of each corpus, the first")
    test_clips: int | None = option(None, "measure on so many clips of each corpus, the first")


@dataclass
class TrainingArguments:
    """K-means and the comparison of layers."""

    seed: int = option(0, "of the centroids and of the order of clips")
    batch_frames: int = option(10_000, "frames in a mini-batch")
    passes: int = option(1, "how often all clips are seen")
    clips_at_once: int = option(16, "clips that are encoded together")
    compared_layers: list[int] = option([], "layers that get a codebook too, to be compared")


@dataclass
class OutputArguments:
    """Results."""

    output_dir: Path = option(Path("output/units"), "folder of the unit model, report.json, layers.png and the card")
    results_file: Path | None = option(None, "a second copy of the report")
    card_title: str = option("Speech units", "headline of the report and of the card")
    limits: list[str] = option([], "what readers should know, one sentence each")
    card_language: list[str] = option(["en"], "languages it understands, for the card")
    card_license: str = option("apache-2.0", "license of the trained weights, for the card")
    push_to_hub: str | None = option(None, "publish to this Hub id")
    private: bool = option(True, "make the published repository private")
    verify: bool = option(True, "before that, try the published code in a process without this package")

    def __post_init__(self) -> None:
        check_license(self.card_license)
        check_languages(self.card_language)


def main() -> None:
    units, data, training, output = parse_arguments(
        __doc__ or "", UnitArguments, DataArguments, TrainingArguments, OutputArguments, underneath=TINY_ZOO
    )
    use_all_cores()
    watch = Stopwatch()
    with watch("corpora"):
        train_rows = read(data.train_data, data.train_clips)
        test_rows = read(data.test_data, data.test_clips)
        phones = {clip: labels for source in data.test_data for clip, labels in timed_labels(source).items()}

    measured: dict[int, UnitQuality] = {}
    for layer in sorted({units.layer, *training.compared_layers}):
        with watch(f"layer {layer}"):
            model, processor = trained(units, layer, train_rows, training, output.output_dir)
            measured[layer] = measure_units(model, processor, test_rows, phones)
        print(f"layer {layer}: {measured[layer]}")
        if layer == units.layer:
            model.save_pretrained(output.output_dir)
            processor.save_pretrained(output.output_dir)
            kept = model

    encoder = kept.config
    report = Report(
        title=output.card_title,
        system=kept.config.model_type,
        command=as_command(),
        seeds={"training": training.seed},
        environment=environment(),
        measurements=[row for layer, quality in measured.items() for row in rows_of(layer, quality, data.test_data)],
        wall_seconds=watch.seconds,
        corpora=[describe(data.train_data, "training", train_rows), describe(data.test_data, "final test", test_rows)],
        parameters=Parameters(kept.codebook.centroids.numel(), count_parameters(kept).total),
        backbones=[describe_backbone("speech encoder", encoder.audio_model_id, encoder.audio_model_revision)],
        settings={**vars(training), **{name: getattr(units, name) for name in DECIDE_UNITS}},
        limits=output.limits,
        paper="2310.08715",
        license=output.card_license,
        language=output.card_language,
        pipeline_tag="feature-extraction",
        plots={"layers.png": "How well the units of each compared layer tell phones apart"},
    )
    plot_layers(output.output_dir / "layers.png", measured, output.card_title)
    write_results(report, output.output_dir, output.results_file)
    print(f"unit model, report, plot and card are in {output.output_dir}; codebook {kept.config.codebook_hash}")
    publish_run(output.output_dir, output.push_to_hub, output.private, output.verify)


def read(sources: Sequence[str], most: int | None) -> Dataset:
    """The recordings of several corpora: id, audio and, where it is known, duration."""
    parts = []
    for source in sources:
        name, _, split = source.partition("@")
        rows = load_corpus(name, split or None, audio=True)
        rows = rows.select(range(min(most or len(rows), len(rows))))
        parts.append(rows.select_columns([name for name in ("id", "audio", "duration") if name in rows.column_names]))
    return concatenate_datasets(parts)


def trained(
    units: UnitArguments, layer: int, rows: Dataset, training: TrainingArguments, folder: Path
) -> tuple[SpeechUnitModel, SpeechUnitProcessor]:
    """A unit model of this layer with its processor."""
    model = SpeechUnitModel.from_encoder(
        units.audio_model,
        layer,
        units.clusters,
        audio_model_revision=units.audio_model_revision,
        dtype=getattr(torch, units.dtype),
        encoding=units.encoding,
        averaging=units.averaging,
        smoothing=units.smoothing,
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = SpeechUnitProcessor.from_model_config(model.config)
    if units.joblib_codebook is not None and layer == units.layer:
        model.set_codebook(torch.from_numpy(convert_joblib(units.joblib_codebook)))
        return model, processor

    def encode(places: Sequence[int]) -> list:
        chosen = rows.select(places)
        clips = [processor.load(row["audio"], name=row["id"]) for row in chosen]
        return encode_clips(model, processor, clips)

    settings = CodebookSettings(
        units.clusters, training.seed, training.batch_frames, training.passes, training.clips_at_once
    )
    facts = {
        "encoder": model.config.audio_weights,
        "layer": layer,
        "encoding": units.encoding,
        "averaging": units.averaging,
        "ids": rows["id"][:3],
    }
    centroids = train_codebook(len(rows), encode, settings, folder / "training" / f"layer_{layer}", facts)
    model.set_codebook(torch.from_numpy(centroids))
    return model, processor


def rows_of(layer: int, quality: UnitQuality, corpora: Sequence[str]) -> list[Measurement]:
    """What was measured of a layer, without what needs phones where there were none."""
    values = {name: getattr(quality, name) for name in MEASURES}
    return [
        Measurement(
            f"layer {layer}", name, float(value), items=quality.clips, split="test", dataset=", ".join(corpora)
        )
        for name, value in values.items()
        if value is not None
    ]


def describe(sources: Sequence[str], role: str, rows: Dataset) -> Corpus:
    hours = round(sum(rows["duration"]) / 3600, 3) if "duration" in rows.column_names else None
    return Corpus(", ".join(sources), role, len(rows), hours)


if __name__ == "__main__":
    main()
