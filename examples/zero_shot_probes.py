"""Ask trained speech-text adapters what they were never trained on: zero-shot probes, in the mean over seeds.

    python examples/zero_shot_probes.py --model output/seed_0 output/seed_1 output/seed_2

Without --config, examples/configs/zero_shot_probes.yaml lies underneath. Another corpus is probed by a YAML file of
its own; its column `facts` (a word by kind), or its columns `listed` and `distractors`, say what words a list holds.
"""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForMultimodalLM, AutoProcessor

import speechzoo  # noqa: F401  makes its models known to transformers
from speechzoo.data.corpora import load_corpus
from speechzoo.evaluation.adapter_evaluation import Decoding
from speechzoo.evaluation.adapter_report import Stopwatch, describe_backbones, side_by_side
from speechzoo.evaluation.probe_report import (
    SeedMeasurements,
    made_up_by_references,
    probe_page,
    report_probes,
    some_answers,
    sources_by_seed,
)
from speechzoo.evaluation.report import Corpus, Example, environment, read_report, write_report
from speechzoo.evaluation.sweep_report import SweepReport
from speechzoo.evaluation.zero_shot_probes import (
    Probe,
    ProbedClips,
    answer_probe,
    check_probes,
    measure_probe,
    refuse_trained_texts,
    story_content_words,
    with_word_lists,
)
from speechzoo.training.adapter_arguments import option
from speechzoo.training.adapter_training import refuse_shared_clips
from speechzoo.training.command_line import as_command, parse_arguments

CONFIGURATION = Path(__file__).parent / "configs" / "zero_shot_probes.yaml"


@dataclass
class ProbingArguments:
    """Models, what they are asked, and results."""

    model: list[str] = field(metadata={"help": "trained models, one for each seed: folders or Hub ids"})
    probes: dict[str, Probe] = field(metadata={"help": "name -> prompt, context, reference and scores"})
    data: str = option("synthetic:openings-test", "corpus that is probed; source@split picks a split")
    train_data: list[str] = option([], "corpora that the models were trained on, which must share no clip or text")
    columns: dict[str, str] = option({}, "our name of a column -> its name in the corpora")
    content_words: list[str] = option([], "words that can be made up; those of the stories where not given")
    limit: int | None = option(None, "probe so many clips, the first")
    batch_size: int = option(32, "clips in a batch")
    max_new_tokens: int = option(32, "longest answer in tokens")
    examples: int = option(3, "answers of the first model that are shown, for each probe")
    title: str = option("Zero-shot probes", "headline of the results")
    limits: list[str] = option([], "what readers should know, one sentence each")
    results_file: Path = option(Path("benchmarks/results/zero_shot_probes.json"), "the report; a page lies beside it")


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", ProbingArguments, underneath=CONFIGURATION)
    sources = sources_by_seed(arguments.model, arguments.train_data)
    watch = Stopwatch()

    with watch("corpora"):
        corpus = with_word_lists(read(arguments.data, arguments))
        corpus = corpus.select(range(min(arguments.limit or len(corpus), len(corpus))))
        check_probes(arguments.probes, corpus)
        for source in arguments.train_data:
            trained = read(source, arguments)
            refuse_shared_clips(trained, {arguments.data: corpus})
            refuse_trained_texts(corpus, source, trained["text"])
    content = {*arguments.content_words} or story_content_words()
    clips = {name: ProbedClips.of(corpus, probe, content) for name, probe in arguments.probes.items()}

    measured: dict[int, SeedMeasurements] = {}
    shown: list[Example] = []
    for seed, source in sources.items():
        model = AutoModelForMultimodalLM.from_pretrained(source).eval()
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        processor = AutoProcessor.from_pretrained(source)
        scores: SeedMeasurements = {}
        for name, probe in arguments.probes.items():
            print(f"seed {seed} ({len(measured) + 1} of {len(sources)}): {name}", flush=True)
            decoding = Decoding(arguments.batch_size, arguments.max_new_tokens)
            with watch(name):
                answers, gold = answer_probe(model, processor, corpus, name, probe, decoding)
            for score in probe.scores:
                scores[name, score] = measure_probe(name, score, clips[name], answers, gold)
            if not measured:
                shown += some_answers(name, probe, corpus, answers, arguments.examples)
        measured[seed] = scores

    report = report_probes(
        arguments.probes,
        measured,
        processor.prompts,
        title=arguments.title,
        system=model.config.model_type,
        command=as_command(),
        environment=environment(),
        examples=shown,
        wall_seconds=watch.seconds,
        corpora=[Corpus(arguments.data, "final test", len(corpus))]
        + [Corpus(source, "training", len(read(source, arguments))) for source in arguments.train_data],
        backbones=describe_backbones(model),
        limits=[*arguments.limits, *made_up_by_references(clips, arguments.probes)],
        paper="2310.00230",
        language=["en"],
    )
    write_report(arguments.results_file, report)
    page = probe_page(read_report(arguments.results_file, SweepReport))
    arguments.results_file.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page, side_by_side(shown), sep="\n")


def read(source: str, arguments: ProbingArguments) -> Dataset:
    name, _, split = source.partition("@")
    return load_corpus(name, split or None, arguments.columns)


if __name__ == "__main__":
    main()
