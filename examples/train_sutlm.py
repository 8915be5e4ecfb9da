"""Train a joint language model of speech units and text, and test whether it carries meaning across modalities.

The tiny zoo, offline:
    accelerate launch examples/train_sutlm.py
Your own recordings:
    accelerate launch examples/train_sutlm.py --config examples/configs/FILE.yaml

Without --config, examples/configs/sutlm_tiny_zoo.yaml lies underneath.
"""

import os
from pathlib import Path

from transformers import set_seed

from speechzoo.data.packed_batches import PackedCollator
from speechzoo.evaluation.adapter_report import Stopwatch, count_parameters, describe_backbone
from speechzoo.evaluation.context_retrieval import RetrievalSettings, check_continuations
from speechzoo.evaluation.reload_check import reloads_equal
from speechzoo.evaluation.report import Report, environment, training_history
from speechzoo.evaluation.retrieval_candidates import draw_candidates
from speechzoo.evaluation.sutlm_evaluation import (
    JointTest,
    describe_unit_model,
    describe_utterances,
    read_pairs,
)
from speechzoo.hub_cards.run_report import finish_run
from speechzoo.training.adapter_training import train, training_arguments, use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments, plain_settings
from speechzoo.training.sutlm_arguments import (
    JointModelArguments,
    JointOutputArguments,
    JointTestArguments,
    MixtureArguments,
    PretrainingArguments,
    UnitArguments,
)
from speechzoo.training.sutlm_training import (
    assemble_joint_model,
    facts_of,
    make_joint_trainer,
    open_reader,
    read_joint_data,
    read_validation_data,
    refuse_shared_utterances,
    sequences_of,
)

GROUPS = (
    JointModelArguments,
    UnitArguments,
    MixtureArguments,
    PretrainingArguments,
    JointTestArguments,
    JointOutputArguments,
)
TINY_ZOO = Path(__file__).parent / "configs" / "sutlm_tiny_zoo.yaml"


def main() -> None:
    language_model, units, mixture, pretraining, tests, output = parse_arguments(
        __doc__ or "", *GROUPS, underneath=TINY_ZOO
    )
    use_all_cores()
    set_seed(pretraining.seed)
    watch = Stopwatch()

    with watch("corpora and units"):
        reader = open_reader(units)
        data = read_joint_data(reader, units, mixture)
        validation_data = read_validation_data(reader, units, mixture)
        test_data = {
            name: reader.read(source, tests.test_clips, units.noise_db) for name, source in tests.test_data.items()
        }
        held_out = {**test_data, "validation": validation_data.speech if validation_data else []}
        refuse_shared_utterances(data, held_out, not tests.shared_texts)
        pairs = {
            name: read_pairs(test_data[name], source, reader.frame_rate, tests.first_column)
            for name, source in tests.test_data.items()
        }
        for name in pairs:  # what cannot be drawn is told before training
            draw_candidates(pairs[name], tests.candidates, tests.test_seed)
    with watch("assembling"):
        model, processor = assemble_joint_model(language_model, units, data, reader.clusters, pretraining.seed)
        for name in pairs:
            check_continuations(processor, pairs[name])
    mixed = [
        sequences_of(processor, part, mixture, reader.frame_rate, pretraining.seed) if part else None
        for part in (data, validation_data)
    ]
    arguments = training_arguments(pretraining, output, pretraining.max_steps, validation_data is not None)
    trainer = make_joint_trainer(model, processor, mixed[0], mixed[1], pretraining, arguments)
    with watch("training"):
        train(trainer, output.resume)
    if not trainer.is_world_process_zero():
        return

    model.save_pretrained(output.output_dir)
    processor.save_pretrained(output.output_dir)
    settings = RetrievalSettings(tests.candidates, tests.glue[0], seed=tests.test_seed, rows=output.test_batch_size)
    test = JointTest(model, processor, settings, tests.glue[1:])
    with watch("final test"):
        measurements = []
        for name, source in tests.test_data.items():
            measurements += test.run(name, pairs[name], dataset=source)
            measurements += test.attention(name, test_data[name], reader.frame_rate, dataset=source)
    with watch("reload"):
        batch = PackedCollator()([mixed[0][place] for place in range(4)])
        if not reloads_equal(model, batch, output.output_dir, "AutoModelForCausalLM"):
            raise SystemExit(f"'{output.output_dir}' gives other logits after loading; the checkpoint is not sound")

    heard = list(dict.fromkeys([*mixture.speech_data, *mixture.paired_data]))
    used = [
        (heard, "training", list(data.utterances.values())),
        (mixture.validation_data, "validation", validation_data.speech if validation_data else []),
        *(([tests.test_data[name]], "final test", utterances) for name, utterances in test_data.items()),
    ]
    report = Report(
        title=output.card_title,
        system=model.config.model_type,
        command=as_command(),
        seeds={"training": pretraining.seed, "candidates": tests.test_seed},
        environment=environment(),
        measurements=measurements,
        history=training_history(trainer.state.log_history),
        wall_seconds=watch.seconds,
        parameters=count_parameters(model),
        limits=output.limits,
        corpora=[
            describe_utterances(", ".join(sources), role, utterances, reader.frame_rate)
            for sources, role, utterances in used
            if utterances
        ],
        backbones=[
            describe_backbone(
                "tokenizer alone" if language_model.from_scratch else "language model",
                language_model.text_model,
                language_model.text_model_revision,
                frozen=False,
            ),
            describe_unit_model(processor),
        ],
        settings={**plain_settings(language_model, units, mixture, pretraining), **facts_of(processor, data)},
        paper="2310.08715",
        learning_curve="learning_curve.png",
        pipeline_tag="text-generation",
    )
    finish_run(report, output)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
