"""Train an adapter between a frozen speech encoder and a frozen LLM, test it, and publish it.

The tiny zoo, offline:
    accelerate launch examples/train_adapter.py
Your own backbones and recordings:
    accelerate launch examples/train_adapter.py --config examples/configs/FILE.yaml

Without --config, examples/configs/tiny_zoo.yaml lies underneath.
"""

import os
from pathlib import Path

from transformers import set_seed

from speechzoo.data.speech_text_collator import SpeechTextCollator
from speechzoo.evaluation.adapter_report import Stopwatch
from speechzoo.hub_cards.speech_text_run import SpeechTextRun, read_run_examples
from speechzoo.training.adapter_arguments import (
    AdapterArguments,
    BackboneArguments,
    DataArguments,
    OptimizationArguments,
    OutputArguments,
)
from speechzoo.training.adapter_training import (
    answer_field,
    assemble,
    keep_encoder_frames,
    make_trainer,
    optimizer_updates,
    train,
    training_arguments,
    use_all_cores,
)
from speechzoo.training.command_line import as_command, parse_arguments

GROUPS = (BackboneArguments, AdapterArguments, DataArguments, OptimizationArguments, OutputArguments)
TINY_ZOO = Path(__file__).parent / "configs" / "tiny_zoo.yaml"


def main() -> None:
    backbones, adapter, data, optimization, output = parse_arguments(__doc__ or "", *GROUPS, underneath=TINY_ZOO)
    processes = use_all_cores()
    watch = Stopwatch()

    with watch("corpora"):
        examples = read_run_examples(data, output)

    set_seed(optimization.seed)
    with watch("assembling"):
        model, processor = assemble(backbones, adapter, data)
        model.config.answers = answer_field(data, examples.training)
    collator = SpeechTextCollator(processor)
    if optimization.cache_features:
        with watch("encoding"):
            collator, kept = keep_encoder_frames(model, processor, examples.given, optimization)
            examples = examples.with_learned(kept)
    updates = optimizer_updates(len(examples.training), optimization, processes)
    arguments = training_arguments(optimization, output, updates, examples.validation is not None)
    trainer = make_trainer(model, collator, examples.training, examples.validation, arguments)
    with watch("training"):
        train(trainer, output.resume)
    if not trainer.is_world_process_zero():
        return

    SpeechTextRun(
        trainer,
        data,
        output,
        examples,
        command=as_command(),
        seed=optimization.seed,
        paper="2310.00230",
        settings={
            "reduction": adapter.reduction,
            "reduction_ratio": adapter.reduction_ratio,
            "adapter_layers": adapter.adapter_layers,
            "updates": updates,
            "batch_size": optimization.batch_size,
            "learning_rate": optimization.learning_rate,
            "bf16": arguments.bf16,
        },
        watch=watch,
    ).finish()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
