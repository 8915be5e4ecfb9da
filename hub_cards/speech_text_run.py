"""What comes before and after training a model that hears and writes: examples; test, report, card, publication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Dataset
from transformers import Trainer

from ..data.speech_text_collator import SpeechTextCollator
from ..evaluation.adapter_evaluation import Decoding
from ..evaluation.adapter_report import (
    FinalTest,
    Stopwatch,
    check_plan,
    count_parameters,
    describe_backbones,
    describe_corpus,
    first_clips,
    missed_bars,
    side_by_side,
    tuning_settings,
)
from ..evaluation.cascade import load_recognizer
from ..evaluation.reload_check import reloads_equal
from ..evaluation.report import Measurement, Report, environment, training_history
from ..training.adapter_arguments import DataArguments, OutputArguments
from ..training.adapter_training import read_examples, read_training_examples, refuse_shared_clips
from .result_tables import measurement_table
from .run_report import publish_run, write_results


@dataclass(frozen=True)
class RunExamples:
    """What a run trains on, follows the loss on, and is tested on."""

    training: Dataset
    validation: Dataset | None
    tests: Mapping[str, Dataset]

    @property
    def given(self) -> list[Dataset]:
        """Those of training and, where there are any, of validation."""
        return [rows for rows in (self.training, self.validation) if rows]

    def with_learned(self, learned: Sequence[Dataset]) -> RunExamples:
        """The same with other rows to learn, in the order of `given`."""
        return replace(self, training=learned[0], validation=learned[1] if len(learned) > 1 else None)


def read_run_examples(data: DataArguments, output: OutputArguments) -> RunExamples:
    """Reads all corpora. Raises `ValueError` where tests share clips with training, and for bars without a row."""
    training = read_training_examples(data)
    validation = read_examples(data.validation_data, data) if data.validation_data else None
    tests = {name: read_examples([source], data) for name, source in data.test_data.items()}
    refuse_shared_clips(training, tests)
    if output.test_limit:
        tests = {name: first_clips(rows, output.test_limit) for name, rows in tests.items()}
    check_plan(tests, data.metrics, output.check)
    return RunExamples(training, validation, tests)


@dataclass
class SpeechTextRun:
    """A training that is over.

    Args:
        trainer: with the trained model and its processor.
        data, output: as the script was told.
        examples: as the corpora have them.
        command, seed: of the script.
        paper: arXiv number of the system.
        settings: what a reader of the report should know, beside tuning.
        measurements: further rows of results.
        watch: seconds by phase.
    """

    trainer: Trainer
    data: DataArguments
    output: OutputArguments
    examples: RunExamples
    command: str
    seed: int
    paper: str
    settings: Mapping[str, Any]
    watch: Stopwatch
    measurements: Sequence[Measurement] = field(default_factory=list)

    @property
    def model(self) -> Any:
        return self.trainer.model

    @property
    def processor(self) -> Any:
        return self.trainer.processing_class

    def finish(self) -> Report:
        """Saves, tests and reloads the model, writes report, curve and card, and publishes where that was asked for.

        Raises `SystemExit` when the saved model gives other logits, a bar was missed, or publishing failed.
        """
        output = self.output
        self.model.save_pretrained(output.output_dir)
        self.processor.save_pretrained(output.output_dir)
        final_test = self._test()
        self._check_reload()
        report = write_results(self._report(final_test), output.output_dir, output.results_file)
        self._tell(report)
        publish_run(output.output_dir, output.push_to_hub, output.private, output.verify)
        if missed := missed_bars(report.measurements, output.check):
            raise SystemExit("\n".join(missed))
        return report

    def _test(self) -> FinalTest:
        final_test = FinalTest(
            self.model,
            self.processor,
            Decoding(self.output.test_batch_size, self.output.max_new_tokens),
            self.data.metrics,
            self.examples.training,
            self.output.examples,
            load_recognizer(self.output.cascade_model) if self.output.cascade_model else None,
        )
        with self.watch("final test"):
            for name, examples in self.examples.tests.items():
                final_test.run(name, examples, self.data.test_data[name])
        return final_test

    def _check_reload(self) -> None:
        training = self.examples.training
        rows = [training[index] for index in range(min(4, len(training)))]
        with self.watch("reload"):
            batch = SpeechTextCollator(self.processor)(rows)
            if not reloads_equal(self.model, dict(batch), self.output.output_dir):
                raise SystemExit(
                    f"'{self.output.output_dir}' gives other logits after loading; the checkpoint is not sound"
                )

    def _report(self, final_test: FinalTest) -> Report:
        output, data = self.output, self.data
        validation = self.examples.validation
        tests = [(data.test_data[name], "final test", rows) for name, rows in self.examples.tests.items()]
        followed = [(", ".join(data.validation_data), "choosing settings", validation)] if validation else []
        return Report(
            title=output.card_title,
            system=self.model.config.model_type,
            description=output.card_description,
            command=self.command,
            seeds={"training": self.seed},
            environment=environment(),
            measurements=[*final_test.measurements, *self.measurements],
            examples=final_test.shown,
            history=training_history(self.trainer.state.log_history),
            wall_seconds=self.watch.seconds,
            parameters=count_parameters(self.model),
            limits=output.limits,
            corpora=[
                describe_corpus(", ".join(data.train_data), "training", self.examples.training, data.data_license),
                *(describe_corpus(source, role, rows) for source, role, rows in [*followed, *tests]),
            ],
            backbones=describe_backbones(self.model),
            settings={**self.settings, **tuning_settings(self.model.config)},
            paper=self.paper,
            license=output.card_license,
            language=output.card_language,
            learning_curve="learning_curve.png",
            prompts=data.prompts,
        )

    def _tell(self, report: Report) -> None:
        print(side_by_side(report.examples), "\n")
        print(measurement_table(report.measurements), "\n")
        share = report.parameters.share if report.parameters else 0.0
        folder = self.output.output_dir
        print(f"trained {share:.2%} of the parameters; checkpoint, report and card are in {folder}")
        print(f"reloaded in a fresh process with equal logits; seconds by phase: {self.watch.seconds}")


__all__ = ["RunExamples", "SpeechTextRun", "read_run_examples"]
