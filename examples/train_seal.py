"""Train Seal's projector between a frozen speech encoder and a frozen LLM, test it, and publish it.

The LLM reads a transcript and hears the same sentence through the projector, which learns until the LLM says of one
what it says of the other. The tiny zoo, offline:
    accelerate launch examples/train_seal.py
The paper's baseline on the same data and steps, cross-entropy on the transcript (PSRT):
    accelerate launch examples/train_seal.py --objective psrt
Your own backbones and recordings:
    accelerate launch examples/train_seal.py --config examples/configs/FILE.yaml

Without --config, examples/configs/seal_tiny_zoo.yaml lies underneath.
"""

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

from transformers import set_seed

from speechzoo import SealProjectorForConditionalGeneration
from speechzoo.data.seal_collator import SealCollator
from speechzoo.evaluation.adapter_report import Stopwatch
from speechzoo.evaluation.teacher_divergence import divergence_measurements
from speechzoo.hub_cards.speech_text_run import SpeechTextRun, read_run_examples
from speechzoo.training.adapter_arguments import BackboneArguments, DataArguments, OptimizationArguments
from speechzoo.training.adapter_training import (
    answer_field,
    assemble_system,
    keep_encoder_frames,
    make_trainer,
    optimizer_updates,
    train,
    training_arguments,
    use_all_cores,
)
from speechzoo.training.command_line import as_command, parse_arguments
from speechzoo.training.seal_arguments import (
    AlignmentArguments,
    InContextArguments,
    SealOutputArguments,
    SealProjectorArguments,
)
from speechzoo.training.seal_training import (
    check_alignment,
    learned_examples,
    measured_examples,
    shown_transcripts,
    teacher_collator,
    with_demonstrated,
)

GROUPS = (
    BackboneArguments,
    SealProjectorArguments,
    AlignmentArguments,
    InContextArguments,
    DataArguments,
    OptimizationArguments,
    SealOutputArguments,
)
TINY_ZOO = Path(__file__).parent / "configs" / "seal_tiny_zoo.yaml"


def main() -> None:
    backbones, projector, alignment, in_context, data, optimization, output = parse_arguments(
        __doc__ or "", *GROUPS, underneath=TINY_ZOO
    )
    check_alignment(alignment, data.tasks)
    processes = use_all_cores()
    watch = Stopwatch()

    with watch("corpora"):
        examples = read_run_examples(data, output)

    set_seed(optimization.seed)
    with watch("assembling"):
        fields = {**asdict(projector), "divergence": alignment.divergence, "temperature": alignment.temperature}
        model, processor = assemble_system(SealProjectorForConditionalGeneration, backbones, data, **fields)
        model.config.answers = answer_field(data, examples.training)
    collator = SealCollator(processor, alignment.weights, alignment.first_token)
    with watch("targets"):
        transcripts = shown_transcripts(model, collator, examples.training, alignment, in_context)
        behind = partial(
            with_demonstrated,
            model,
            collator,
            alignment=alignment,
            in_context=in_context,
            transcripts=transcripts,
            seed=optimization.seed,
        )
        learned = [behind(learned_examples(model, collator, rows, alignment), rows) for rows in examples.given]
        # Before training, for what cannot be asked is refused here.
        tested = {
            name: behind(measured_examples(model, collator, rows, alignment), rows)
            for name, rows in examples.tests.items()
        }
    with watch("encoding"):
        if optimization.cache_features:
            heard, learned = keep_encoder_frames(model, processor, learned, optimization)
            collator = SealCollator(processor, alignment.weights, alignment.first_token, heard.store)
        collator = teacher_collator(model, collator, learned, alignment, optimization)

    updates = optimizer_updates(len(learned[0]), optimization, processes)
    rows = examples.with_learned(learned)
    arguments = training_arguments(optimization, output, updates, rows.validation is not None)
    trainer = make_trainer(model, collator, rows.training, rows.validation, arguments)
    with watch("training"):
        train(trainer, output.resume)
    if not trainer.is_world_process_zero():
        return

    with watch("divergence"):
        distances = [
            row
            for name, asked in tested.items()
            for row in divergence_measurements(name, model, collator, asked, split="final test")
        ]
    SpeechTextRun(
        trainer,
        data,
        output,
        examples,
        command=as_command(),
        seed=optimization.seed,
        paper="2407.14875",
        settings={
            **asdict(projector),
            **asdict(alignment),
            **(asdict(in_context) if in_context.demonstrated else {}),
            "updates": updates,
            "batch_size": optimization.batch_size,
            "learning_rate": optimization.learning_rate,
            "bf16": arguments.bf16,
        },
        watch=watch,
        measurements=distances,
    ).finish()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
