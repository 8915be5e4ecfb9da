"""Train a text-to-unit model: phones in, units of a speech codebook and their durations out.

The tiny zoo, offline:
    python examples/train_text_to_unit.py
Your own unit model and recordings:
    accelerate launch examples/train_text_to_unit.py --config examples/configs/FILE.yaml

Without --config, examples/configs/text_to_unit_tiny_zoo.yaml lies underneath. Phones come from the CMU lexicon (pip
install 'speechzoo[phones]'), or from a file of your own (--lexicon FILE).
"""

from collections.abc import Iterable
from pathlib import Path

from transformers import AutoModel, set_seed

from speechzoo.data.spoken_texts import TextAligner, text_to_unit_examples
from speechzoo.evaluation.adapter_report import Stopwatch, count_parameters, describe_backbone
from speechzoo.evaluation.report import Corpus, Report, environment, training_history
from speechzoo.evaluation.text_to_unit_quality import PhoneTable, measure_alignment, measure_text_to_unit
from speechzoo.hub_cards.run_report import finish_run
from speechzoo.processing.unit_vocabulary import UnitVocabulary
from speechzoo.training.adapter_training import train, training_arguments, use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments, plain_settings
from speechzoo.training.text_to_unit_arguments import (
    PhoneArguments,
    SpeechUnitArguments,
    SpokenDataArguments,
    TextToUnitArguments,
    TextToUnitOutputArguments,
    TextToUnitUpdateArguments,
)
from speechzoo.training.text_to_unit_training import (
    SpokenCorpora,
    assemble_text_to_unit,
    make_text_to_unit_trainer,
    open_phone_reader,
    open_unit_reader,
    read_spoken_corpora,
)

GROUPS = (
    SpeechUnitArguments,
    PhoneArguments,
    TextToUnitArguments,
    SpokenDataArguments,
    TextToUnitUpdateArguments,
    TextToUnitOutputArguments,
)
TINY_ZOO = Path(__file__).parent / "configs" / "text_to_unit_tiny_zoo.yaml"


def main() -> None:
    units, phones, shape, data, update, output = parse_arguments(__doc__ or "", *GROUPS, underneath=TINY_ZOO)
    rows = [f"{name}: unit_accuracy" for name in data.test_data]
    if unknown := sorted(output.check.keys() - set(rows)):
        raise SystemExit(f"check names the row '{unknown[0]}'; the rows with bars are {', '.join(rows) or 'none'}")
    use_all_cores()
    set_seed(update.seed)
    watch = Stopwatch()

    with watch("corpora, units and phones"):
        reader, phone_reader = open_unit_reader(units), open_phone_reader(phones)
        others = [*data.validation_data, *data.test_data.values()]
        corpora, aligner = read_spoken_corpora(
            reader, phone_reader, units, phones, data.train_data, others, data.clips
        )
        vocabulary = UnitVocabulary(phone_reader.inventory)
        learned, followed = corpora.of(data.train_data), corpora.of(data.validation_data)
        examples = text_to_unit_examples(learned, vocabulary)
        validation = text_to_unit_examples(followed, vocabulary) if followed else None
        coverage = phone_reader.coverage(one.text for one in learned)
        print(f"training texts: {coverage}")

    model = assemble_text_to_unit(shape, vocabulary, reader.clusters, reader.frame_rate, update.seed)
    arguments = training_arguments(update, output, update.max_steps, validation is not None)
    trainer = make_text_to_unit_trainer(model, examples, validation, arguments)
    with watch("training"):
        train(trainer, output.resume)
    if not trainer.is_world_process_zero():
        return

    model.save_pretrained(output.output_dir)
    if AutoModel.from_pretrained(output.output_dir).weights_hash() != model.to("cpu").weights_hash():
        raise SystemExit(f"'{output.output_dir}' has other weights after loading; the checkpoint is not sound")
    table = PhoneTable.of(aligner, learned)
    with watch("final test"):
        measurements = []
        for name, source in data.test_data.items():
            measurements += measure_text_to_unit(model, table, corpora.spoken[source], name, source)
            heard = corpora.utterances[source]
            freely = TextAligner(phone_reader, reader.frame_rate, slack=None).align(aligner, heard)
            measurements += measure_alignment(freely, heard, reader.frame_rate, name, source)

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
        corpora=[
            *describe(data.train_data, "training", corpora, reader.frame_rate),
            *describe(data.validation_data, "choosing settings", corpora, reader.frame_rate),
            *describe(data.test_data.values(), "final test", corpora, reader.frame_rate),
        ],
        backbones=[describe_backbone("speech units", units.unit_model, units.unit_model_revision)],
        settings={**plain_settings(*(units, phones, shape, data, update)), "words_sounded_out": coverage.unknown},
        paper="2209.15329",
        learning_curve="learning_curve.png",
        pipeline_tag="other",
    )
    finish_run(report, output)


def describe(sources: Iterable[str], role: str, corpora: SpokenCorpora, frame_rate: float) -> list[Corpus]:
    """Each corpus with the clips that could be aligned."""
    return [
        Corpus(
            source,
            role,
            len(corpora.spoken[source]),
            round(sum(len(one.units) for one in corpora.spoken[source]) / frame_rate / 3600, 3),
        )
        for source in sources
    ]


if __name__ == "__main__":
    main()
