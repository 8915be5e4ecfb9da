"""Correlate speech and text states of the same utterances, layer by layer, in one model or several; report and plot.

    python examples/neuron_correlation.py --data synthetic:fluent_speech_commands@test \
        --models '{"pre-trained": "output/speechlm_tiny_zoo", "fine-tuned": "output/slu_intents"}'

The plot lies beside the report. Shuffled pairs are the control. Models of several seeds make one line:

    python examples/neuron_correlation.py --data synthetic:fluent_speech_commands@test --seeds 0 1 2 \
        --models '{"pre-trained": "output/speechlm_tiny_zoo/seed{seed}"}'
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import PartialState
from transformers import AutoConfig, AutoModel, AutoProcessor

from speechzoo.data.labeled_recordings import LabeledRecording, labeled_recordings
from speechzoo.data.labeled_utterances import Answer
from speechzoo.evaluation.adapter_report import Stopwatch, describe_backbone
from speechzoo.evaluation.neuron_correlation import (
    LayerCorrelation,
    correlate,
    measure_correlations,
    plot_correlations,
    pooled_states,
)
from speechzoo.evaluation.report import Corpus, Measurement, Report, environment, write_report
from speechzoo.hub_cards.result_tables import measurement_table
from speechzoo.training.adapter_training import use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments, plain_settings


@dataclass
class CorrelationArguments:
    """Models and utterances."""

    models: dict[str, str] = field(
        metadata={
            "help": "name -> SpeechLM or SpeechUT, with any head: folder or Hub id; {seed} becomes each of seeds"
        }
    )
    data: str = field(metadata={"help": "corpus of recordings with texts; source@split picks a split"})
    role: str = field(default="final test", metadata={"help": "what it is to the models, for the report"})
    clips: int | None = field(default=None, metadata={"help": "so many of them, the first"})
    column: str = field(default="text", metadata={"help": "column of the texts"})
    batch_size: int = field(default=16, metadata={"help": "clips in a batch"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "of the models"})
    seed: int = field(default=0, metadata={"help": "of shuffles, and of silences and durations of texts"})
    title: str = field(default="Correlation of speech and text", metadata={"help": "headline"})
    results_file: Path = field(
        default=Path("output/neuron_correlation.json"), metadata={"help": "the report; .png beside it is the plot"}
    )


def main() -> None:
    [asked] = parse_arguments(__doc__ or "", CorrelationArguments)
    use_all_cores()
    watch = Stopwatch()

    def answers(rows):
        return {clip: Answer("", text) for clip, text in zip(rows["id"], rows[asked.column], strict=True)}

    clips = labeled_recordings(asked.data, asked.column, answers, clips=asked.clips)
    found: dict[str, list[list[LayerCorrelation]]] = {}
    measurements: list[Measurement] = []
    folders = {
        name: list(dict.fromkeys(source.replace("{seed}", str(seed)) for seed in asked.seeds))
        for name, source in asked.models.items()
    }
    for name, sources in folders.items():
        with watch(name):
            found[name] = [layers(source, clips, asked) for source in sources]
        measurements += measure_correlations(name, found[name], len(clips), dataset=asked.data, split=asked.role)
    report = Report(
        title=asked.title,
        system=AutoConfig.from_pretrained(next(iter(folders.values()))[0]).model_type,
        command=as_command(),
        seeds={"shuffles": asked.seed, **{f"model {number}": seed for number, seed in enumerate(asked.seeds)}},
        environment=environment(),
        measurements=measurements,
        wall_seconds=watch.seconds,
        corpora=[Corpus(asked.data, asked.role, len(clips))],
        backbones=[describe_backbone(name, source) for name, sources in folders.items() for source in sources],
        settings=plain_settings(asked),
        paper="2212.01924",
    )
    write_report(asked.results_file, report)
    plot_correlations(asked.results_file.with_suffix(".png"), found, asked.title)
    print(measurement_table(measurements))


def layers(folder: str, clips: Sequence[LabeledRecording], asked: CorrelationArguments) -> list[LayerCorrelation]:
    """What goes into a model's shared layers, and each of them."""
    model = AutoModel.from_pretrained(folder).to(PartialState().device)
    states = pooled_states(model, AutoProcessor.from_pretrained(folder), clips, asked.batch_size, asked.seed)
    return [correlate(*layer, seed=asked.seed) for layer in zip(*states, strict=True)]


if __name__ == "__main__":
    main()
