"""Fine-tune a pretrained joint language model on SLUE's sentiment or entities, by speech, text or both; test on each.

The tiny corpora, offline (examples/train_sutlm.py makes the model):
    accelerate launch examples/finetune_sutlm.py
    accelerate launch examples/finetune_sutlm.py --config examples/configs/sutlm_slue_entities.yaml --train_on text
SLUE itself:
    accelerate launch examples/finetune_sutlm.py --config examples/configs/sutlm_slue_350m.yaml

Without --config, examples/configs/sutlm_slue_sentiment.yaml lies underneath. All six cells of a table, and several
pretrained models, are one sweep: examples/configs/sweeps/sutlm_slue_sentiment.yaml and sutlm_slue_entities.yaml.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import transformers
from accelerate import PartialState
from transformers import AutoProcessor, set_seed

from speechzoo import SUTLMProcessor
from speechzoo.data.labeled_utterances import MODALITIES, LabeledUtterance, labeled_utterances, load_labels
from speechzoo.data.slue import SENTIMENTS
from speechzoo.data.synthetic_corpus import default_cache_directory
from speechzoo.data.utterances import UtteranceReader
from speechzoo.evaluation.adapter_report import Stopwatch, count_parameters, describe_backbone
from speechzoo.evaluation.report import (
    Corpus,
    Example,
    Measurement,
    Report,
    environment,
    training_history,
)
from speechzoo.evaluation.slue_entities import END, MARKS
from speechzoo.evaluation.sutlm_understanding import TASKS, UnderstandingDecoding, UnderstandingTask
from speechzoo.hub_cards.run_report import finish_run
from speechzoo.training.adapter_training import train, training_arguments, use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments, plain_settings
from speechzoo.training.sutlm_finetuning import (
    TRAINED_ON,
    AnswerSequences,
    ClassSequences,
    LabeledSequences,
    load_for_answers,
    load_for_classes,
    make_finetuning_trainer,
    refuse_shared_labeled,
    sequences_of_labeled,
)
from speechzoo.training.sutlm_finetuning_arguments import (
    DataArguments,
    OptimizationArguments,
    OutputArguments,
    StartArguments,
    UnderstandingArguments,
)

GROUPS = (StartArguments, UnderstandingArguments, DataArguments, OptimizationArguments, OutputArguments)
TINY = Path(__file__).parent / "configs" / "sutlm_slue_sentiment.yaml"


def main() -> None:
    start, understanding, data, optimization, output = parse_arguments(__doc__ or "", *GROUPS, underneath=TINY)
    use_all_cores()
    set_seed(optimization.seed)
    watch = Stopwatch()
    start = replace(start, model=start.model.replace("{seed}", str(optimization.seed)))
    task = TASKS[understanding.task]

    with watch("corpora and units"):
        reader = open_units(start, data)
        training = read(task, reader, data.train_data, data.train_clips, data)
        validation = read(task, reader, data.validation_data, data.test_clips, data)
        tests = {name: read(task, reader, [corpus], data.test_clips, data) for name, corpus in data.test_data.items()}
        refuse_shared_labeled(training, {**tests, "validation_data": validation})
    with watch("assembling"):
        model, processor, sequences = assemble(start, understanding, optimization)
    modalities, most = TRAINED_ON[understanding.train_on], understanding.max_tokens
    rows = sequences_of_labeled(sequences, training, modalities, most)
    validation_rows = sequences_of_labeled(sequences, validation, modalities, most) if validation else None
    arguments = training_arguments(optimization, output, optimization.max_steps, validation_rows is not None)
    trainer = make_finetuning_trainer(model, processor, rows, validation_rows, arguments)
    with watch("training"):
        train(trainer, output.resume)
    if not trainer.is_world_process_zero():
        return

    model.save_pretrained(output.output_dir)
    processor.save_pretrained(output.output_dir)
    with watch("final test"):
        decoding = UnderstandingDecoding(
            output.test_batch_size, output.max_new_tokens, beams=output.beams, glue=understanding.glue
        )
        test = FinalTest(task, output.output_dir, decoding, [utterance.answer for utterance in training])
        for name, utterances in tests.items():
            test.run(name, utterances, output.examples, dataset=data.test_data[name])

    report = Report(
        title=output.card_title,
        system=model.config.model_type,
        description=f"{understanding.task}, trained on {understanding.train_on}, tested on speech and on text",
        command=as_command(),
        seeds={"training": optimization.seed},
        environment=environment(),
        measurements=test.measurements,
        examples=test.examples,
        history=training_history(trainer.state.log_history),
        wall_seconds=watch.seconds,
        parameters=count_parameters(model),
        limits=output.limits,
        corpora=[
            describe(", ".join(data.train_data), "training", training, data.data_license),
            *([describe(", ".join(data.validation_data), "validation", validation)] if validation else []),
            *(describe(data.test_data[name], "final test", utterances) for name, utterances in tests.items()),
        ],
        backbones=[
            describe_backbone("joint language model", start.model, start.model_revision, frozen=False),
            describe_backbone("speech units", str(processor.unit_model_id), processor.unit_model_revision),
        ],
        settings=plain_settings(start, understanding, optimization) | {"training_sequences": len(rows)},
        paper="2310.08715",
        learning_curve="learning_curve.png",
        pipeline_tag="text-generation" if model.can_generate() else "audio-classification",
    )
    finish_run(report, output)


def open_units(start: StartArguments, data: DataArguments) -> UtteranceReader:
    """The unit model that the pretrained model's processor names, on this process's device.

    Raises `ValueError` when it names none and none is given, or when the one given makes other units.
    """
    processor = AutoProcessor.from_pretrained(start.model, revision=start.model_revision)
    store = data.store or default_cache_directory() / "features"
    return UtteranceReader.of(processor, store, start.unit_model)


def read(
    task: UnderstandingTask, reader: UtteranceReader, sources: Sequence[str], clips: int | None, data: DataArguments
) -> list[LabeledUtterance]:
    """The clips of several corpora with their units and answers."""
    return [
        utterance
        for source in sources
        for utterance in labeled_utterances(
            reader.read(source, clips, data.noise_db), task.answers(load_labels(source, task.column))
        )
    ]


def assemble(
    start: StartArguments, understanding: UnderstandingArguments, optimization: OptimizationArguments
) -> tuple[Any, SUTLMProcessor, LabeledSequences]:
    """The pretrained model made ready for the task, its processor, and how clips become sequences."""
    sequences: LabeledSequences
    if understanding.task == "sentiment":
        model, processor = load_for_classes(
            start.model,
            SENTIMENTS,
            revision=start.model_revision,
            classifier_dropout=optimization.classifier_dropout,
        )
        sequences = ClassSequences(processor, SENTIMENTS)
    else:
        model, processor = load_for_answers(start.model, [*MARKS.values(), END], revision=start.model_revision)
        sequences = AnswerSequences(processor, understanding.glue)
    task = TASKS[understanding.task]
    model.config.answers = {task.column: {**task.form, "glue": understanding.glue}}
    if start.unit_model:
        processor.name_unit_model(start.unit_model)
    return model, processor, sequences


@dataclass
class FinalTest:
    """Tests what was saved, read again from its folder, on each modality.

    training_answers: what chance and majority are made of.
    """

    task: UnderstandingTask
    folder: Path
    decoding: UnderstandingDecoding
    training_answers: list[str]
    measurements: list[Measurement] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    def __post_init__(self) -> None:
        auto_class = getattr(transformers, self.task.auto_class)
        self.model = auto_class.from_pretrained(self.folder).to(PartialState().device)
        self.processor = AutoProcessor.from_pretrained(self.folder)

    def run(self, name: str, utterances: Sequence[LabeledUtterance], shown: int, **facts: Any) -> None:
        for modality in MODALITIES:
            given = self.task.predict(self.model, self.processor, utterances, modality, self.decoding)
            self.measurements += self.task.measure(
                name, utterances, given, modality, self.training_answers, split="final test", **facts
            )
            self.examples += [
                Example(utterance.answer, answer, f"{name}: {modality}", utterance.speaker or "")
                for utterance, answer in list(zip(utterances, given, strict=True))[:shown]
            ]


def describe(name: str, role: str, utterances: Sequence[LabeledUtterance], license: str = "") -> Corpus:
    speakers = {utterance.speaker for utterance in utterances if utterance.speaker}
    return Corpus(name, role, len(utterances), speakers=len(speakers) or None, license=license)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
