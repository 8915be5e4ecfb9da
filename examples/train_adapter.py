"""Train an adapter between a frozen speech encoder and a frozen LLM, test it, and publish it.

The tiny zoo, offline:
    accelerate launch examples/train_adapter.py
Your own backbones and recordings:
    accelerate launch examples/train_adapter.py --config examples/configs/FILE.yaml

Without --config, examples/configs/tiny_zoo.yaml lies underneath.
"""

import os
import sys
from pathlib import Path

from transformers import set_seed

from speechzoo.data.speech_text_collator import SpeechTextCollator
from speechzoo.evaluation.adapter_report import Stopwatch, check_plan, first_clips
from speechzoo.hub_cards.speech_text_run import SpeechTextRun
from speechzoo.training.adapter_arguments import (
    AdapterArguments,
    BackboneArguments,
    DataArguments,
    OptimizationArguments,
    OutputArguments,
)
from speechzoo.training.adapter_training import (
    assemble,
    keep_encoder_frames,
    make_trainer,
    optimizer_updates,
    read_examples,
    read_training_examples,
    refuse_shared_clips,
    train,
    training_arguments,
    use_all_cores,
)
from speechzoo.training.command_line import as_command, parse_arguments

GROUPS = (BackboneArguments, AdapterArguments, DataArguments, OptimizationArguments, OutputArguments)
TINY_ZOO = Path(__file__).parent / "configs" / "tiny_zoo.yaml"


def main() -> None:
    words = sys.argv[1:]
    chosen = words if any(word.startswith("--config") for word in words) else ["--config", str(TINY_ZOO), *words]
    backbones, adapter, data, optimization, output = parse_arguments(__doc__ or "", *GROUPS, argv=chosen)
    processes = use_all_cores()
    watch = Stopwatch()

    with watch("corpora"):
        train_examples = read_training_examples(data)
        validation_examples = read_examples(data.validation_data, data) if data.validation_data else None
        tests = {name: read_examples([source], data) for name, source in data.test_data.items()}
        refuse_shared_clips(train_examples, tests)
        if output.test_limit:
            tests = {name: first_clips(rows, output.test_limit) for name, rows in tests.items()}
        check_plan(tests, data.metrics, output.check)

    set_seed(optimization.seed)
    with watch("assembling"):
        model, processor = assemble(backbones, adapter, data)
    collator = SpeechTextCollator(processor)
    if optimization.cache_features:
        with watch("encoding"):
            collator, (train_examples, *rest) = keep_encoder_frames(
                model, processor, [rows for rows in (train_examples, validation_examples) if rows], optimization
            )
            validation_examples = rest[0] if rest else None
    updates = optimizer_updates(len(train_examples), optimization, processes)
    arguments = training_arguments(optimization, output, updates, validation_examples is not None)
    trainer = make_trainer(model, collator, train_examples, validation_examples, arguments)
    with watch("training"):
        train(trainer, output.resume)
    if not trainer.is_world_process_zero():
        return

    SpeechTextRun(
        trainer,
        data,
        output,
        train_examples,
        validation_examples,
        tests,
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
