"""Pre-train SpeechLM or SpeechUT from the waveform, with unpaired speech and text, and test what they hear and read.

The tiny zoo, offline, from the speech encoder that lies in examples/tiny_zoo (speechlm_speech_encoder.yaml makes it):
    python examples/pretrain_speechlm.py
    python examples/pretrain_speechlm.py --swap 0 --output_dir output/speechlm_without_swapping
Your own recordings:
    accelerate launch examples/pretrain_speechlm.py --config examples/configs/FILE.yaml

Without --config, examples/configs/speechlm_tiny_zoo.yaml lies underneath.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformers import set_seed

from speechzoo.data.joint_pretraining_rows import (
    LabeledClip,
    PlannedBatch,
    PretrainingCollator,
    PretrainingStream,
    validation_batches,
)
from speechzoo.evaluation.adapter_report import Stopwatch, count_parameters, describe_backbone
from speechzoo.evaluation.joint_pretraining_quality import JointEncoderTest, LetterReader
from speechzoo.evaluation.reload_check import reloads_equal
from speechzoo.evaluation.report import Corpus, Report, environment, training_history
from speechzoo.hub_cards.run_report import finish_run
from speechzoo.training.adapter_training import train, training_arguments, use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments, plain_settings
from speechzoo.training.joint_pretraining import (
    JointCorpora,
    assemble_joint_encoder,
    batch_sizes,
    check_texts,
    joint_config,
    make_joint_pretrainer,
    read_joint_corpora,
)
from speechzoo.training.joint_pretraining_arguments import (
    FrameLabelArguments,
    JointDataArguments,
    JointEncoderArguments,
    JointPretrainingOutputArguments,
    JointUpdateArguments,
)
from speechzoo.training.joint_pretraining_labels import LABELINGS
from speechzoo.training.text_to_unit_arguments import SpeechUnitArguments

GROUPS = (
    JointEncoderArguments,
    FrameLabelArguments,
    SpeechUnitArguments,
    JointDataArguments,
    JointUpdateArguments,
    JointPretrainingOutputArguments,
)
TINY_ZOO = Path(__file__).parent / "configs" / "speechlm_tiny_zoo.yaml"
PAPERS = {"speechlm": "2209.15329", "speechut": "2210.03730"}


def main() -> None:
    encoder, labeling, units, data, update, output = parse_arguments(__doc__ or "", *GROUPS, underneath=TINY_ZOO)
    rows = [f"{name}: units, {part} encoder" for name in data.test_data for part in ("speech", "unit")]
    if unknown := sorted(output.check.keys() - set(rows)):
        raise SystemExit(f"check names the row '{unknown[0]}'; the rows with bars are {', '.join(rows) or 'none'}")
    use_all_cores()
    set_seed(update.seed)
    output = replace(output, output_dir=Path(str(output.output_dir).replace("{seed}", str(update.seed))))
    watch = Stopwatch()

    with watch("corpora and units"):
        labels = LABELINGS[labeling.labels](labeling, units, data, joint_config(encoder))
        corpora = read_joint_corpora(data, labels)
    with watch("assembling"):
        model, processor = assemble_joint_encoder(
            encoder, labels, update.seed, labeling.text_to_unit, labeling.text_to_unit_revision
        )
    sizes = batch_sizes(update, model.config)
    read = corpora.texts if sizes.letters else []
    check_texts(processor, [*read, *corpora.held_out_texts] if read else [])
    coverage = processor.reader.coverage(read)
    print(f"texts: {coverage}")
    stream = PretrainingStream(corpora.speech, read, sizes, update.seed)
    validation = validation_batches(corpora.validation, sizes) if corpora.validation else None
    arguments = training_arguments(update, output, update.max_steps, validation is not None)
    trainer = make_joint_pretrainer(model, processor, stream, validation, arguments)
    with watch("training"):
        train(trainer, output.resume)
    if not trainer.is_world_process_zero():
        return

    model.save_pretrained(output.output_dir)
    processor.save_pretrained(output.output_dir)
    test = JointEncoderTest(model, processor, sizes.labels, corpora.speech, read, update.seed)
    with watch("final test"):
        measurements = [
            row for name, clips in corpora.tests.items() for row in test.run(name, clips, data.test_data[name])
        ]
    with watch("reload"):
        batch = PretrainingCollator(processor, model.config)([PlannedBatch(tuple(corpora.speech[:2]))])
        batch.pop("labels")
        if not reloads_equal(LetterReader(model), batch, output.output_dir, "AutoModelForCTC"):
            raise SystemExit(f"'{output.output_dir}' gives other logits after loading; the checkpoint is not sound")

    facts = {"texts": len(read), "words_without_lexicon": coverage.unknown, "units": len(processor.units)}
    report = Report(
        title=output.card_title,
        system=model.config.model_type,
        command=as_command(),
        seeds={"training": update.seed},
        environment=environment(),
        measurements=measurements,
        history=training_history(trainer.state.log_history),
        wall_seconds=watch.seconds,
        parameters=count_parameters(model),
        limits=output.limits,
        corpora=describe_corpora(corpora, data, model.config.label_rate),
        backbones=[describe_backbone("speech encoder", encoder.start, encoder.start_revision, frozen=False)]
        if encoder.start
        else [],
        settings={**plain_settings(encoder, labeling, units, data, update), **facts},
        paper=PAPERS[model.config.model_type],
        learning_curve="learning_curve.png",
        pipeline_tag="automatic-speech-recognition",
    )
    finish_run(report, output)


def describe_corpora(corpora: JointCorpora, data: JointDataArguments, label_rate: float) -> list[Corpus]:
    """What was heard, each corpus by its role."""
    parts = [
        (data.speech_data, "training", corpora.speech),
        (data.validation_data, "choosing settings", corpora.validation),
        *(([data.test_data[name]], "final test", clips) for name, clips in corpora.tests.items()),
    ]
    return [describe(", ".join(sources), role, clips, label_rate) for sources, role, clips in parts if clips]


def describe(name: str, role: str, clips: Sequence[LabeledClip], label_rate: float) -> Corpus:
    hours = sum(len(clip.labels) for clip in clips) / label_rate / 3600
    speakers = {clip.speaker for clip in clips if clip.speaker}
    return Corpus(name, role, len(clips), round(hours, 3), len(speakers) or None)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
