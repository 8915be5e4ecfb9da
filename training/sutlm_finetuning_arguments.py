"""What examples/finetune_sutlm.py can be told, grouped by purpose."""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .adapter_arguments import RunArguments, UpdateArguments, option


@dataclass
class StartArguments:
    """The pretrained model."""

    model: str = option("output/sutlm_tiny_zoo", "SUTLM: Hub id or folder; {seed} in it becomes the seed")
    model_revision: str | None = option(None, "its commit, tag or branch")
    unit_model: str | None = option(
        None, "unit model, Hub id or folder, where it is not the one that the SUTLM's processor names"
    )


@dataclass
class UnderstandingArguments:
    """The task and what is trained on."""

    task: Literal["sentiment", "entities"] = option("sentiment", "SLUE's classification or its named entities")
    train_on: Literal["speech", "text", "both"] = option(
        "speech",
        "what is read in training; both is every clip twice, with as many updates. Tests read speech and text",
    )
    glue: Literal["start", "switch"] = option(
        "start", "what stands before a generated answer: <T_EN>, or <U2T> behind speech, as in AST (our reading)"
    )
    max_tokens: int = option(1024, "longest sequence; a longer one is refused")


@dataclass
class DataArguments:
    """Recordings: a corpus of `load_corpus`, source@split picks a split."""

    title = "Recordings"

    train_data: list[str] = option(["synthetic:slue_voxceleb@train"], "corpora to train on")
    validation_data: list[str] = option([], "corpora whose loss, read as in training, is followed")
    test_data: dict[str, str] = option(
        {"sentiment": "synthetic:slue_voxceleb@test"}, "name of results rows -> corpus that is tested at the end"
    )
    train_clips: int | None = option(None, "train on so many clips of each corpus, the first")
    test_clips: int | None = option(None, "validate and test on so many clips of each corpus, the first")
    noise_db: float | None = option(None, "add white noise to the speech, at this ratio of signal to noise in dB")
    store: Path | None = option(None, "folder of the feature store, which keeps units; in the cache by default")
    data_license: str = option("", "license of the data, for the report")


@dataclass
class OptimizationArguments(UpdateArguments):
    """Optimization."""

    title = "Optimization"

    max_steps: int = option(600, "updates of the weights, the same whatever is trained on")
    batch_size: int = option(32, "sequences in a batch on one device")
    learning_rate: float = option(5e-4, "peak; cosine decay follows the warm-up")
    warmup_steps: int = option(60, "updates of linear warm-up")
    classifier_dropout: float = option(0.2, "before both layers of the classifier")

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}; give at least 1")


@dataclass
class OutputArguments(RunArguments):
    """Results."""

    title = "Results"

    output_dir: Path = option(Path("output/sutlm_slue"), "folder of the model, its processor and report.json")
    test_batch_size: int = option(32, "clips in a batch of the final test")
    max_new_tokens: int = option(128, "longest generated answer, in tokens")
    beams: int = option(1, "beams of generated answers; 1 is greedy")
    examples: int = option(6, "answers shown for each test and modality")
    card_title: str = option("Understanding by a joint language model", "headline of the report")
