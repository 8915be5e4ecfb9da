"""What the script that trains text-to-unit models can be told, grouped by purpose."""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .adapter_arguments import RunArguments, UpdateArguments, option
from .sutlm_arguments import ReadingArguments


@dataclass
class SpeechUnitArguments(ReadingArguments):
    """Speech units, and how corpora are read."""

    title = "Speech units, and how corpora are read"

    unit_model: str = option("examples/tiny_zoo/speech_units", "trained unit model: folder or Hub id")
    unit_model_revision: str | None = option(None, "its commit, tag or branch")


@dataclass
class PhoneArguments:
    """Phones of texts, and which frames say them."""

    lexicon: str = option("cmudict", "cmudict, or a file with a word and its phones on each line")
    sound_out: bool = option(True, "say words by their letters that the lexicon lacks; else they are spoken noise")
    aligner_clips: int | None = option(600, "learn from so many clips which units say which phones; all if null")
    aligner_rounds: int = option(10, "of aligning and counting")
    word_slack: float | None = option(
        0.06, "seconds by which words may stray from times that a corpus knows; null passes over these times"
    )


@dataclass
class TextToUnitArguments:
    """The model."""

    preset: Literal["tiny", "base"] = option("tiny", "its shape")
    shape: dict[str, Any] = option({}, "fields of TextToUnitConfig that replace those of the preset")


@dataclass
class SpokenDataArguments:
    """Clips with texts. A corpus is a folder, a data set id or synthetic:NAME; source@split picks a split."""

    title = "Clips with texts"

    train_data: list[str] = option([], "corpora to train on")
    validation_data: list[str] = option([], "corpora whose loss is followed while training")
    test_data: dict[str, str] = option({}, "name of a results row -> corpus that is tested at the end")
    clips: int | None = option(None, "so many clips of each corpus, the first")


@dataclass
class TextToUnitUpdateArguments(UpdateArguments):
    """Optimization."""

    title = "Optimization"

    max_steps: int = option(1500, "updates of the weights")
    batch_size: int = option(16, "clips in a batch on one device")


@dataclass
class TextToUnitOutputArguments(RunArguments):
    """Results."""

    title = "Results"

    output_dir: Path = option(Path("output/text_to_unit"), "folder of the model, its report and learning curve")
    card_title: str = option("Text to speech units", "headline of the report")
