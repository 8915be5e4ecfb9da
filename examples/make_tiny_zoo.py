"""Build the tiny zoo from nothing: a speech encoder (CTC) and language models that learn a handful of text tasks.

python examples/make_tiny_zoo.py                     what is shipped, with measurements and cards
python examples/make_tiny_zoo.py --only encoder      one of them
python examples/make_tiny_zoo.py --only in_context_language_model
                                                     the language model, trained on until it learns from examples in
                                                     its prompt
python examples/make_tiny_zoo.py --only encoder_decoder --output_directory output/tiny_zoo
                                                     a T5 that learned the same, too large to ship beside the others
python examples/make_tiny_zoo.py --smoke             a few steps of everything, to see that it runs
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import AutoModelForCTC, AutoProcessor, AutoTokenizer, PreTrainedModel

from speechzoo.data.synthetic_corpus import RECIPES
from speechzoo.data.text_episodes import EpisodeCourse
from speechzoo.data.text_tasks import vocabulary
from speechzoo.evaluation.adapter_report import Stopwatch
from speechzoo.evaluation.in_context_evaluation import measure_in_context_learning
from speechzoo.evaluation.report import Corpus, Parameters, Report, environment, training_history, write_report
from speechzoo.evaluation.tiny_zoo_evaluation import measure_language_model, measure_speech_encoder, measure_tasks
from speechzoo.hub_cards.tiny_zoo_card import write_tiny_zoo_card
from speechzoo.training.adapter_arguments import option
from speechzoo.training.adapter_training import use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments
from speechzoo.training.training_tiny_language_model import (
    LanguageModelSettings,
    in_context_settings,
    train_language_model,
)
from speechzoo.training.training_tiny_speech_encoder import SpeechEncoderSettings, train_speech_encoder
from speechzoo.training.training_tiny_zoo import save_checkpoint, tiny_zoo_arguments

TINY_ZOO = Path(__file__).parent / "tiny_zoo"
TEST_SETS = [f"{name}-{split}" for split in ("validation", "test") for name in ("commands", "stories", "words")] + [
    "commands-test-unseen-phrasings"
]


@dataclass
class TinyZooArguments:
    """What to build."""

    output_directory: Path = option(TINY_ZOO, "folder of the checkpoint folders")
    only: Literal["shipped", "encoder", "language_model", "in_context_language_model", "encoder_decoder"] = option(
        "shipped", "which model; 'shipped' are the encoder and the language model"
    )
    seed: int = option(0, "of texts, voices, initial weights and the order of the data")
    encoder_steps: int = option(
        SpeechEncoderSettings.steps, "training steps of the speech encoder, in each of its rounds"
    )
    language_model_steps: int | None = option(None, "training steps of a language model, if not those of its settings")
    cache_directory: Path | None = option(None, "folder of generated speech; SPEECHZOO_CACHE where not given")
    smoke: bool = option(False, "a few steps on a few clips")


def main() -> None:
    (choice,) = parse_arguments(__doc__ or "", TinyZooArguments)
    use_all_cores()
    if choice.only in ("shipped", "encoder"):
        make_speech_encoder(choice)
    if choice.only in ("shipped", "language_model"):
        make_language_model("language_model", LanguageModelSettings(), choice, finish_language_model)
    if choice.only == "in_context_language_model":
        make_language_model(choice.only, in_context_settings(), choice, finish_in_context_language_model)
    if choice.only == "encoder_decoder":
        settings = LanguageModelSettings(architecture="t5", layers=4)
        make_language_model(choice.only, settings, choice, finish_language_model)


def make_speech_encoder(choice: TinyZooArguments) -> None:
    """Train, measure and save the speech encoder."""
    settings = SpeechEncoderSettings(steps=choice.encoder_steps, seed=choice.seed)
    if choice.smoke:
        settings = replace(settings, rounds=1, steps=4, commands=20, stories=20, words=20)
    watch = Stopwatch()
    with watch("corpora and training"), tempfile.TemporaryDirectory() as scratch:
        every = settings.steps // 16 or settings.steps
        arguments = tiny_zoo_arguments(
            settings.steps, settings.batch_size, settings.learning_rate, settings.seed, Path(scratch), every
        )
        model, processor, facts = train_speech_encoder(settings, arguments, choice.cache_directory)
    folder = choice.output_directory / "speech_encoder"
    save_checkpoint(model, processor, folder)
    finish_speech_encoder(folder, settings, facts, watch, choice)


def finish_speech_encoder(
    folder: Path, settings: SpeechEncoderSettings, facts: Mapping[str, Any], watch: Stopwatch, choice: TinyZooArguments
) -> None:
    """Measure the checkpoint as saved, and write its report and card."""
    model, processor = AutoModelForCTC.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    names, count = (TEST_SETS[:1], 20) if choice.smoke else (TEST_SETS, None)
    with watch("measuring"):
        measurements = [
            measure_speech_encoder(model, processor, RECIPES[name], choice.cache_directory, count) for name in names
        ]
    clips, hours = facts["training clips"], facts["training seconds of speech"] / 3600
    write_tiny_zoo_card_of(
        folder,
        Report(
            title="Tiny speech encoder",
            description="A w2v-BERT 2.0 architecture of 4 layers, trained with CTC over characters at 50 Hz.",
            system="wav2vec2-bert",
            command=as_command(),
            seeds={"all": settings.seed},
            environment=environment(),
            measurements=measurements,
            history=training_history(facts["log"]),
            wall_seconds=watch.seconds,
            parameters=Parameters(model.num_parameters(), model.num_parameters()),
            limits=[
                "It knows the voices of one formant synthesizer, espeak-ng. It does not transfer to another "
                "synthesizer or to people without further training.",
                "The vocabulary of its training texts is 300 words; other words come out as their sounds suggest.",
            ],
            corpora=[
                Corpus(
                    "espeak-ng synthetic speech",
                    "training",
                    clips,
                    hours,
                    note="commands, story sentences and random words, varied in speed, band and noise",
                )
            ],
            settings={name: value for name, value in asdict(settings).items() if name != "seed"},
            language=["en"],
            pipeline_tag="automatic-speech-recognition",
        ),
    )


def make_language_model(
    name: str, settings: LanguageModelSettings, choice: TinyZooArguments, finish: Callable[..., None]
) -> None:
    """Train a language model, save it in the folder `name`, and have it measured by `finish`."""
    settings = replace(settings, steps=choice.language_model_steps or settings.steps, seed=choice.seed)
    settings = replace(settings, steps=4, batch_size=8) if choice.smoke else settings
    watch = Stopwatch()
    with watch("training"), tempfile.TemporaryDirectory() as scratch:
        arguments = tiny_zoo_arguments(
            settings.steps,
            settings.batch_size,
            settings.learning_rate,
            settings.seed,
            Path(scratch),
            decay=settings.decay,
        )
        model, tokenizer, log = train_language_model(settings, arguments)
    folder = choice.output_directory / name
    save_checkpoint(model, tokenizer, folder)
    finish(type(model).from_pretrained(folder), folder, settings, log, watch, choice)


def finish_language_model(
    model: PreTrainedModel,
    folder: Path,
    settings: LanguageModelSettings,
    log: list[Any],
    watch: Stopwatch,
    choice: TinyZooArguments,
) -> None:
    """Measure the checkpoint as saved, and write its report and card."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with watch("measuring"):
        measurements = measure_language_model(model, tokenizer, 8 if choice.smoke else 250)
    plain = {name: value for name, value in asdict(settings).items() if name not in ("seed", "mixture")}
    mixture = {name: value for name, value in asdict(settings.mixture).items() if name != "episodes"}
    kind = "T5 of 4 and 4 layers" if model.config.is_encoder_decoder else "Llama of 5 layers"
    write_tiny_zoo_card_of(
        folder,
        Report(
            title="Tiny encoder-decoder" if model.config.is_encoder_decoder else "Tiny language model",
            description=f"A {kind} that learned a handful of text tasks, each asked for by a sign after the text: "
            "`<asr>` copies, `<int>` names the intent of a command, `<mt>` translates into an invented language, "
            "`<ans>` answers, `<dlg>` replies, `<con>` continues. A question or a list of words may stand before the "
            "text, closed by `<ctx>`.",
            system=model.config.model_type,
            command=as_command(),
            seeds={"all": settings.seed},
            environment=environment(),
            measurements=measurements,
            history=training_history(log),
            wall_seconds=watch.seconds,
            parameters=Parameters(model.num_parameters(), model.num_parameters()),
            limits=[
                f"It saw generated text of {len(vocabulary())} words and some made-up ones, and is no model of "
                "English.",
                "It does nothing useful for a prompt that ends in none of its signs.",
                "Episodes were a part of its training, but it did not learn in context from them: with labeled "
                "examples before a text it is at chance.",
                "Two of the 31 held-out phrasings are also requests to an assistant: it copied them and saw them in "
                "episodes, but never with their intent or translation.",
                "The rows say which texts of a task it was not trained on; random words that are spread out by "
                "fillers are hardly copied in order.",
            ],
            corpora=[
                Corpus(
                    "generated text",
                    "training",
                    settings.steps * settings.batch_size,
                    note="commands but the held-out phrasings, stories but the held-out ones, requests, opinions, "
                    "questions, random and invented words",
                )
            ],
            settings=plain | mixture,
            language=["en"],
            pipeline_tag="text-generation",
        ),
    )


def finish_in_context_language_model(
    model: PreTrainedModel,
    folder: Path,
    settings: LanguageModelSettings,
    log: list[Any],
    watch: Stopwatch,
    choice: TinyZooArguments,
) -> None:
    """Measure the checkpoint as saved, and write its report and card."""
    tokenizer, count = AutoTokenizer.from_pretrained(folder), 8 if choice.smoke else 120
    with watch("measuring"):
        in_context = measure_in_context_learning(model, tokenizer, count)
        tasks = measure_tasks(model, tokenizer, count, ("copy", "intent"), (False,))
    plain = {name: value for name, value in asdict(settings).items() if name not in ("seed", "mixture")}
    mixture = {name: value for name, value in asdict(settings.mixture).items() if name != "episodes"}
    write_tiny_zoo_card_of(
        folder,
        Report(
            title="Tiny language model that learns in context",
            description="A Llama of 4 layers that learns classes from labeled texts in its prompt: after `<s>`, each "
            "text is followed by `<int>` and its label, and the last text by `<int>` alone. Behind a text alone "
            "`<asr>` copies it, and `<int>` names the intent of a command.",
            system=model.config.model_type,
            command=as_command(),
            seeds={"all": settings.seed},
            environment=environment(),
            measurements=in_context + tasks,
            history=training_history(log),
            wall_seconds=watch.seconds,
            parameters=Parameters(model.num_parameters(), model.num_parameters()),
            limits=[
                "Text alone was shown and is measured: how well it learns from spoken examples depends on what turns "
                "speech into its embeddings.",
                "It learns which word stands for a class that it can tell apart already: it was taught the names of "
                "the 31 intents, those that no episode showed too, and those of scenarios and sentiments.",
                "It has the signs of the zoo's `language_model` and was taught two of them.",
                f"It saw generated text of {len(vocabulary())} words and some made-up ones, and is no model of "
                "English.",
                "Two of the 31 held-out phrasings are also requests to an assistant, which it copied; they are not "
                "among the unseen phrasings of the episodes.",
            ],
            corpora=[
                Corpus(
                    "generated text",
                    "training",
                    settings.steps * settings.batch_size,
                    note="copies, commands with their intents, and in the last half episodes of commands, requests "
                    "and opinions, of 2 to 4 classes with up to 5 texts each",
                )
            ],
            settings=plain | mixture | asdict(settings.mixture.episodes or EpisodeCourse()),
            language=["en"],
            pipeline_tag="text-generation",
        ),
    )


def write_tiny_zoo_card_of(folder: Path, report: Report) -> None:
    """Write the report, and the card from it."""
    write_report(folder / "training_report.json", report)
    write_tiny_zoo_card(folder)


if __name__ == "__main__":
    main()
