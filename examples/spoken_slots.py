"""Train a speech-text adapter to write the slots of a spoken order, and test it on people it has not heard.

python examples/spoken_slots.py --data ../shared/data/speech_to_intent

Five folds of speakers. A speaker group such as g33-57 is an estimate: its clips very probably share a speaker, but one
speaker may appear as two groups. Of its two numbers the first is the coarser, 18 of them for 38 groups, so that groups
which share it may be one person under two conditions. Folds therefore keep whole first numbers together, the largest
first, each into the fold that has the fewest clips so far; intervals resample whole first numbers, too.

The model writes all slots as one line of text, from one prompt. It learns from orders by synthetic voices first, where
`first_data` names any, then from the people of all folds but one. Logistic regression on pooled log-mel features, one
for each slot, goes through the same folds beside it. Where there are several candidates, or strengths of
regularization, one is chosen for each fold on the other folds alone, by the mean F1 of an order.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets

from speechzoo.data.corpora import load_corpus, task_examples
from speechzoo.data.slot_texts import EMPTY, read_slots, write_slots
from speechzoo.data.speaker_folds import balanced_folds, first_number
from speechzoo.evaluation.adapter_evaluation import Decoding, answer_speech
from speechzoo.evaluation.adapter_report import Stopwatch, count_parameters, describe_backbones, describe_corpus
from speechzoo.evaluation.leave_one_speaker_out import count_trainings, leave_one_speaker_out
from speechzoo.evaluation.report import Example, Report, environment, write_report
from speechzoo.evaluation.slot_scores import (
    Slots,
    f1_of_each,
    mean_scores,
    measure_slot_gain,
    measure_slots,
    most_frequent,
    score_of_drawing,
    score_slots,
)
from speechzoo.hub_cards.result_tables import measurement_table
from speechzoo.training.adapter_arguments import (
    AdapterArguments,
    BackboneArguments,
    DataArguments,
    OptimizationArguments,
    SlotArguments,
)
from speechzoo.training.adapter_learner import AdapterLearner, Groups, changed
from speechzoo.training.command_line import as_command, parse_arguments
from speechzoo.training.pooled_log_mel import answer_by_logistic_regression, pooled_log_mel

CONFIGURATION = Path(__file__).parent / "configs" / "spoken_slots.yaml"
TASK = "slots"


def main() -> None:
    sections = (BackboneArguments, AdapterArguments, OptimizationArguments, SlotArguments)
    *given, experiment = parse_arguments(__doc__ or "", *sections, underneath=CONFIGURATION)
    groups: Groups = (given[0], given[1], given[2])
    candidates = {name: changed(groups, values) for name, values in experiment.candidates.items()}
    watch = Stopwatch()

    corpus = load_corpus(experiment.data, columns={"speaker": experiment.group})
    names = list(corpus.features[experiment.column])
    examples = slot_examples(corpus, experiment.column, names)
    targets, gold = list(examples["target"]), read_lines(examples["target"], names)
    people = [first_number(group) for group in examples["speaker"]]
    folds = [f"fold {number}" for number in balanced_folds(people, experiment.folds)]

    def judge(lines: Sequence[str], answers: Sequence[str]) -> list[float]:
        return f1_of_each(read_lines(lines, names), read_lines(answers, names))

    with watch("logistic regression"):
        strengths = {str(value): value for value in experiment.regularization}
        learner = partial(regress, pooled_log_mel(examples["audio"]), gold, names)
        regression = leave_one_speaker_out(folds, targets, learner, strengths, judge=judge)
    sources = experiment.first_data
    with watch("reading first data"):
        first = [slot_examples(load_corpus(source), experiment.column, names) for source in sources]
    adapter = AdapterLearner(
        examples,
        folds,
        DataArguments(prompts={TASK: experiment.prompt}, audio_token=experiment.audio_token),
        partial(answer_speech, decoding=Decoding(64, experiment.max_new_tokens)),
        runs=count_trainings(experiment.folds, len(candidates), len(experiment.seeds)),
        first=concatenate_datasets(first) if first else None,
        first_epochs=experiment.first_epochs,
        copies=experiment.copies,
    )
    with watch("adapters"):
        adapters = leave_one_speaker_out(folds, targets, adapter, candidates, experiment.seeds, judge)

    system, baseline, constant = "speech-text adapter", "logistic regression", "most frequent value in every slot"
    reached = {
        system: mean_scores([score_slots(gold, read_lines(lines, names), names) for lines in adapters.answers]),
        baseline: score_slots(gold, read_lines(regression.answers[0], names), names),
        constant: score_slots(gold, most_frequent(gold, folds, names, filled=True), names),
    }
    majority = score_slots(gold, most_frequent(gold, folds, names), names)
    guess = score_of_drawing(gold, folds, names)
    facts = {"split": f"{experiment.folds} folds of speakers", "dataset": experiment.data.name}
    compared = [measure_slots(name, one, people, guess, majority, **facts) for name, one in reached.items()]
    shown = range(0, len(examples), max(1, len(examples) // 12))
    heard = [describe_corpus(source, "training", rows) for source, rows in zip(sources, first, strict=True)]
    in_fold = {fold: sorted({who for who, own in zip(people, folds, strict=True) if own == fold}) for fold in folds}
    report = Report(
        title="Speech-text adapter on spoken orders, people left out",
        system=adapter.model.config.model_type,
        command=as_command(),
        seeds={f"training {number}": seed for number, seed in enumerate(experiment.seeds)},
        environment=environment(),
        measurements=[
            *(row for rows in compared for row in rows),
            *measure_slot_gain(f"gain over {baseline}", reached[system], reached[baseline], people, **facts),
            *measure_slot_gain(f"gain over the {constant}", reached[system], reached[constant], people, **facts),
        ],
        examples=[
            Example(targets[row], adapters.answers[0][row], TASK, str(examples["speaker"][row])) for row in shown
        ],
        wall_seconds=watch.seconds,
        parameters=count_parameters(adapter.model),
        limits=experiment.limits,
        corpora=[
            describe_corpus(experiment.data.name, "training and test", examples, experiment.data_license),
            *heard,
        ],
        backbones=describe_backbones(adapter.model),
        settings={
            "folds": in_fold,
            "chosen": {system: adapters.settings, baseline: regression.settings},
            "F1 of an order on the other folds": {system: adapters.inner, baseline: regression.inner},
            **{name: getattr(experiment, name) for name in ("candidates", "prompt", "first_epochs", "copies")},
            "unfrozen": groups[0].unfrozen,
            **vars(groups[1]),
            **{name: getattr(groups[2], name) for name in ("epochs", "batch_size", "learning_rate", "warmup_steps")},
        },
        paper="2310.00230",
        language=["en"],
    )
    report = write_report(experiment.results_file, report)
    print(measurement_table(report.measurements))


def read_lines(lines: Sequence[str], names: Sequence[str]) -> list[Slots]:
    return [read_slots(line, names) for line in lines]


def slot_examples(corpus: Dataset, column: str, names: Sequence[str]) -> Dataset:
    """Examples whose target is the line of their slots."""
    lines = [write_slots(slots, names) for slots in corpus[column]]
    return task_examples(corpus.add_column("line", lines), {TASK: "line"})


def regress(
    features: np.ndarray,
    gold: Sequence[Slots],
    names: Sequence[str],
    regularization: float,
    seed: int,
    training: list[int],
    test: list[int],
) -> list[str]:
    """Answers each slot by a logistic regression of its own, for which to be empty is one of the values."""
    columns = []
    for name in names:
        values = [slots.get(name, EMPTY) for slots in gold]
        columns.append(answer_by_logistic_regression(features, values, regularization, training, test))
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return [write_slots({name: None if row[name] == EMPTY else row[name] for name in names}, names) for row in rows]


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
