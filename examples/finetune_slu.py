"""Fine-tune SpeechLM or SpeechUT on texts and a little speech to name intents, sentiment or entities; test on both.

The tiny zoo, offline (examples/pretrain_speechlm.py makes the model):
    accelerate launch examples/finetune_slu.py --train_on both --speech_minutes 5 --freeze_layers 1
    accelerate launch examples/finetune_slu.py --config examples/configs/slu_entities.yaml --beam 100
SLUE itself:
    accelerate launch examples/finetune_slu.py --config examples/configs/slue_speechlm_entities.yaml

Without --config, examples/configs/slu_intents.yaml lies underneath. Freeze depth by training data and seed, one table
and one plot a task, are sweeps: examples/configs/sweeps/slu_intents.yaml, slu_sentiment.yaml and slu_entities.yaml;
slu_digits.yaml leaves out one speaker of human digits in turn.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from accelerate import PartialState
from transformers import AutoProcessor, set_seed

from speechzoo import SpeechLMProcessor
from speechzoo.data.labeled_recordings import (
    LabeledRecording,
    as_labeled,
    labeled_recordings,
    not_spoken_by,
    spoken_by,
)
from speechzoo.data.modality_batches import ModalityCollator, read_as
from speechzoo.data.slue import SENTIMENTS
from speechzoo.evaluation.adapter_report import Stopwatch, count_parameters, describe_backbone
from speechzoo.evaluation.ctc_beam_search import BeamSearch
from speechzoo.evaluation.joint_understanding import (
    ROUTES,
    TASKS,
    JointTask,
    Listener,
    Route,
    beam_search_of,
    best_texts,
    load_unit_listener,
    validation_scores,
)
from speechzoo.evaluation.report import (
    Corpus,
    Example,
    Measurement,
    Report,
    environment,
    training_history,
)
from speechzoo.evaluation.slue_entities import END, MARKS
from speechzoo.hub_cards.run_report import finish_run
from speechzoo.training.adapter_training import train, use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments, plain_settings
from speechzoo.training.slu_finetuning import (
    describe_items,
    impossible_items,
    load_for_classes,
    load_for_letters,
    make_slu_trainer,
    slu_training_arguments,
    training_items,
)
from speechzoo.training.slu_finetuning_arguments import (
    JointStartArguments,
    MarkDecodingArguments,
    SLUDataArguments,
    SLUOutputArguments,
    SLUTaskArguments,
    SLUUpdateArguments,
)
from speechzoo.training.sutlm_finetuning import TRAINED_ON, refuse_shared_labeled

GROUPS = (
    JointStartArguments,
    SLUTaskArguments,
    SLUDataArguments,
    SLUUpdateArguments,
    MarkDecodingArguments,
    SLUOutputArguments,
)
TINY = Path(__file__).parent / "configs" / "slu_intents.yaml"


def main() -> None:
    start, asked, data, update, decoding, output = parse_arguments(__doc__ or "", *GROUPS, underneath=TINY)
    use_all_cores()
    start = replace(start, model=start.model.replace("{seed}", str(update.seed)))
    # Refused now rather than after training, and before the seed is set, for loading may draw.
    pretrained = load_unit_listener(start.model, start.model_revision) if output.hard_units else None
    set_seed(update.seed)
    watch = Stopwatch()
    task, modalities = TASKS[asked.task], TRAINED_ON[asked.train_on]

    with watch("corpora"):
        left_out = data.left_out_speakers
        tests = {name: spoken_by(read(task, [corpus]), left_out) for name, corpus in data.test_data.items()}
        tested = [one.id for clips in tests.values() for one in clips]
        others = partial(not_spoken_by, speakers=left_out, theirs=tested)
        tests = {name: clips[: data.test_clips] for name, clips in tests.items()}
        speech = others(read(task, data.speech_data)) if "speech" in modalities else []
        texts = others(read(task, data.text_data, audio=False)) if "text" in modalities else []
        validation = others(read(task, data.validation_data, "speech" in modalities))[: data.test_clips]
        learned = list({one.id: one for one in [*texts, *speech]}.values())
        refuse_shared_labeled(
            as_labeled(learned),
            {name: as_labeled(clips) for name, clips in {**tests, "validation_data": validation}.items()},
        )
    with watch("assembling"):
        classes = None if task.writes else classes_of(asked.task, learned)
        model, processor = assemble(start, task, classes, learned)
        items = training_items(speech, texts, processor, asked, update.batch_frames, update.seed)
        followed = {name: read_as(validation, name, processor, asked.text_seed) for name in modalities if validation}
    scores = None if task.writes else validation_scores
    arguments = slu_training_arguments(update, output, followed, scored=scores is not None)
    collator = ModalityCollator(processor, classes)
    if validation:
        collator.labels(validation)  # refused now rather than at the first evaluation
    trainer = make_slu_trainer(model, collator, items, followed, update, arguments, asked.temperature, scores)
    with watch("training"):
        train(trainer, output.resume)
    if not trainer.is_world_process_zero():
        return

    model.save_pretrained(output.output_dir)
    processor.save_pretrained(output.output_dir)
    heard = {item.recording.id: item.recording.answer for item in items}
    spoken = [item.recording for item in items if item.modality == "speech"]  # of so many minutes
    with watch("final test"):
        test = FinalTest.of(task, pretrained, asked, decoding, output, list(heard.values()))
        for name, clips in tests.items():
            test.run(name, clips, output.examples, dataset=data.test_data[name])

    report = Report(
        title=output.card_title,
        system=model.config.model_type,
        description=f"{asked.task}, trained on {asked.train_on}, tested on speech and on text",
        command=as_command(),
        seeds={"training": update.seed},
        environment=environment(),
        measurements=test.measurements,
        examples=test.examples,
        history=training_history(trainer.state.log_history),
        wall_seconds=watch.seconds,
        parameters=count_parameters(model),
        limits=output.limits,
        corpora=[
            *([describe(data.speech_data, "training, speech", spoken, data.data_license)] if spoken else []),
            *([describe(data.text_data, "training, text", texts, data.data_license)] if texts else []),
            *([describe(data.validation_data, "validation", validation)] if validation else []),
            *(describe([data.test_data[name]], "final test", clips) for name, clips in tests.items()),
        ],
        backbones=[describe_backbone("joint encoder", start.model, start.model_revision, frozen=False)],
        settings=plain_settings(start, asked, update, *([decoding] if task.writes else []))
        | describe_items(items, model.config.frame_rate)
        | {"batches": {name: round(share, 4) for name, share in trainer.batches.probabilities.items()}}
        | ({"too_short_for_ctc": impossible_items(items, processor)} if task.writes else {})
        | ({"left_out_speakers": data.left_out_speakers} if data.left_out_speakers else {}),
        paper="2310.05919",
        learning_curve="learning_curve.png",
        pipeline_tag="automatic-speech-recognition" if task.writes else "audio-classification",
    )
    finish_run(report, output)


def read(task: JointTask, sources: Sequence[str], audio: bool = True) -> list[LabeledRecording]:
    """The clips of several corpora with their answers."""
    return [one for source in sources for one in labeled_recordings(source, task.column, task.answers, audio=audio)]


def classes_of(task: str, learned: Iterable[LabeledRecording]) -> list[str]:
    """SLUE's sentiments, or all intents of the corpora that are trained on, whatever part of them is."""
    return list(SENTIMENTS) if task == "sentiment" else sorted({one.answer for one in learned})


def assemble(
    start: JointStartArguments, task: JointTask, classes: Sequence[str] | None, learned: Sequence[LabeledRecording]
) -> tuple[Any, SpeechLMProcessor]:
    """The pre-trained encoder under the task's new head, and its processor."""
    fields = {**start.model_fields, "freeze_layers": start.freeze_layers, "answers": {task.column: task.form}}
    if classes is not None:
        return load_for_classes(start.model, classes, revision=start.model_revision, **fields)
    marks, texts = [*MARKS.values(), END], [one.answer for one in learned]
    return load_for_letters(start.model, texts, marks=marks, revision=start.model_revision, **fields)


@dataclass
class FinalTest:
    """Tests what was saved, read again from its folder, on each route.

    search: a beam search beside argmax, where answers are written. training_answers: what chance and majority are
    made of.
    """

    task: JointTask
    listener: Listener
    routes: tuple[Route, ...]
    training_answers: list[str]
    search: BeamSearch | None = None
    measurements: list[Measurement] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        task: JointTask,
        pretrained: Any,
        asked: SLUTaskArguments,
        decoding: MarkDecodingArguments,
        output: SLUOutputArguments,
        training_answers: list[str],
    ) -> "FinalTest":
        device = PartialState().device
        model = getattr(transformers, task.auto_class).from_pretrained(output.output_dir).to(device)
        processor = AutoProcessor.from_pretrained(output.output_dir)
        search = None
        if task.writes and decoding.beam:
            search = beam_search_of(
                processor,
                training_answers,
                decoding.lm_order,
                beam=decoding.beam,
                lm_weight=decoding.lm_weight,
                word_score=decoding.word_score,
                open_vocabulary=decoding.open_vocabulary,
            )
        heard = pretrained.to(device) if pretrained is not None else None
        listener = Listener(model, processor, heard, output.test_batch_size, asked.text_seed)
        routes = tuple(route for route in ROUTES if heard is not None or route != "hard units")
        return cls(task, listener, routes, training_answers, search)

    def run(self, name: str, clips: Sequence[LabeledRecording], shown: int, **facts: Any) -> None:
        for route in self.routes:
            for way, answers in self._answers(clips, route).items():
                self.measurements += self.task.measure(
                    name, as_labeled(clips), answers, way, self.training_answers, split="final test", **facts
                )
                self.examples += [
                    Example(one.answer, answer, f"{name}: {way}", one.speaker or "")
                    for one, answer in list(zip(clips, answers, strict=True))[:shown]
                ]

    def _answers(self, clips: Sequence[LabeledRecording], route: Route) -> dict[str, list[str]]:
        """By route, and by decoding where there are several."""
        if not self.task.writes:
            return {route: self.listener.classes(clips, route)}
        letters = self.listener.letters(clips, route)
        found = {route: best_texts(letters, self.listener.processor)}
        if self.search is not None:
            found[f"{route}, n-gram"] = [self.search.decode(row) for row in letters]
        return found


def describe(sources: Sequence[str], role: str, clips: Sequence[LabeledRecording], license: str = "") -> Corpus:
    speakers = {one.speaker for one in clips if one.speaker}
    hours = round(sum(one.seconds for one in clips) / 3600, 3) or None
    return Corpus(", ".join(sources), role, len(clips), hours, len(speakers) or None, license)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
