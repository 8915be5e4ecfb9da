"""Train a speech-text adapter on all speakers of a corpus but one, test it on that one, and so for each speaker.

python examples/leave_one_speaker_out.py --data ../shared/data/fsdd

Settings are chosen for each speaker on the other speakers alone; logistic regression on pooled log-mel features goes
through the same procedure beside it.
"""

import os
from functools import partial
from pathlib import Path

from speechzoo.data.corpora import load_corpus, task_examples
from speechzoo.evaluation.adapter_evaluation import Decoding, answer_speech
from speechzoo.evaluation.adapter_report import Stopwatch, count_parameters, describe_backbones, describe_corpus
from speechzoo.evaluation.leave_one_speaker_out import (
    count_trainings,
    leave_one_speaker_out,
    measure_gain,
    measure_speakers,
)
from speechzoo.evaluation.report import Example, Report, environment, write_report
from speechzoo.hub_cards.result_tables import measurement_table
from speechzoo.training.adapter_arguments import (
    AdapterArguments,
    BackboneArguments,
    DataArguments,
    OptimizationArguments,
    SpeakerArguments,
)
from speechzoo.training.adapter_learner import AdapterLearner, Groups, changed
from speechzoo.training.command_line import as_command, parse_arguments
from speechzoo.training.pooled_log_mel import answer_by_logistic_regression, pooled_log_mel

CONFIGURATION = Path(__file__).parent / "configs" / "leave_one_speaker_out.yaml"
TASK = "answer"


def main() -> None:
    sections = (BackboneArguments, AdapterArguments, OptimizationArguments, SpeakerArguments)
    *given, experiment = parse_arguments(__doc__ or "", *sections, underneath=CONFIGURATION)
    groups: Groups = (given[0], given[1], given[2])
    candidates = {name: changed(groups, values) for name, values in experiment.candidates.items()}
    watch = Stopwatch()

    examples = task_examples(load_corpus(experiment.data), {TASK: experiment.column})
    speakers, targets = list(examples["speaker"]), list(examples["target"])
    with watch("logistic regression"):
        features = pooled_log_mel(examples["audio"])
        regression = leave_one_speaker_out(
            speakers,
            targets,
            lambda value, seed, training, test: answer_by_logistic_regression(
                features, targets, value, training, test
            ),
            {str(value): value for value in experiment.regularization},
        )
    data = DataArguments(prompts={TASK: experiment.prompt}, audio_token=experiment.audio_token)
    choices = tuple(sorted(set(targets))) if experiment.closed else ()
    decoding = Decoding(64, experiment.max_new_tokens, choices)
    runs = count_trainings(len(set(speakers)), len(candidates), len(experiment.seeds))
    learner = AdapterLearner(examples, speakers, data, partial(answer_speech, decoding=decoding), runs)
    with watch("adapters"):
        adapters = leave_one_speaker_out(speakers, targets, learner, candidates, experiment.seeds)

    facts = {"split": "speakers left out", "dataset": experiment.data.name, "task": "audio-classification"}
    system, baseline = "speech-text adapter", "logistic regression"
    shown = range(0, len(examples), max(1, len(examples) // 12))
    report = Report(
        title="Speech-text adapter on human speech, one speaker left out",
        system=learner.model.config.model_type,
        command=as_command(),
        seeds={f"training {number}": seed for number, seed in enumerate(experiment.seeds)},
        environment=environment(),
        measurements=[
            *measure_speakers(system, adapters, speakers, targets, **facts),
            *measure_speakers(baseline, regression, speakers, targets, **facts),
            *measure_gain("gain over logistic regression", adapters, regression, speakers, **facts),
        ],
        examples=[Example(targets[row], adapters.answers[0][row], TASK, speakers[row]) for row in shown],
        wall_seconds=watch.seconds,
        parameters=count_parameters(learner.model),
        limits=experiment.limits,
        corpora=[describe_corpus(experiment.data.name, "training and test", examples, experiment.data_license)],
        backbones=describe_backbones(learner.model),
        settings={
            "chosen": {system: adapters.settings, baseline: regression.settings},
            "accuracy on the other speakers": {system: adapters.inner, baseline: regression.inner},
            "candidates": experiment.candidates,
            "unfrozen": groups[0].unfrozen,
            **vars(groups[1]),
            **{name: getattr(groups[2], name) for name in ("epochs", "batch_size", "learning_rate", "warmup_steps")},
        },
        paper="2310.00230",
        language=["en"],
    )
    report = write_report(experiment.results_file, report)
    print(measurement_table(report.measurements))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
