"""What examples/finetune_slu.py can be told, grouped by purpose."""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .adapter_arguments import RunArguments, UpdateArguments, option


@dataclass
class JointStartArguments:
    """The pre-trained encoder, and what of it is frozen."""

    model: str = option("output/speechlm_tiny_zoo", "SpeechLM or SpeechUT: Hub id or folder; {seed} becomes the seed")
    model_revision: str | None = option(None, "its commit, tag or branch")
    freeze_layers: int = option(
        -1, "-1 trains all but the convolutions, 0 the layers that speech and text share, k all above the bottom k"
    )
    model_fields: dict[str, Any] = option(
        {}, "other fields of the model's configuration: masks of speech (mask_time_prob), dropouts, layerdrop"
    )


@dataclass
class SLUTaskArguments:
    """The task and what is trained on."""

    task: Literal["sentiment", "intents", "entities"] = option("intents", "what is asked of a clip")
    train_on: Literal["text", "speech", "both"] = option(
        "both", "text alone is zero-shot for speech; every test reads speech and text"
    )
    speech_minutes: float | None = option(
        None, "train on so much of the speech, where there is any; subsets of a seed are nested"
    )
    speech_choice: Literal["random", "balanced"] = option(
        "random", "how it is chosen: by lot, or classes and speakers as equal as they go; our reading"
    )
    temperature: float = option(5.0, "batches are drawn by a modality's share of the clips to the power of 1 over it")
    text_seed: int = option(0, "of the silences and durations of texts, drawn once for each clip")


@dataclass
class SLUDataArguments:
    """Recordings and texts: a corpus of `load_corpus`, source@split picks a split."""

    title = "Recordings and texts"

    speech_data: list[str] = option(
        ["synthetic:fluent_speech_commands@train"], "recordings to train on; or a corpus of synthesized voices"
    )
    text_data: list[str] = option(["synthetic:fluent_speech_commands@train"], "corpora whose texts are trained on")
    validation_data: list[str] = option([], "corpora whose loss is followed, read as in training")
    test_data: dict[str, str] = option(
        {"intents": "synthetic:fluent_speech_commands@test"},
        "name of results rows -> corpus that is tested at the end",
    )
    left_out_speakers: list[str] = option(
        [],
        "speakers who are tested, alone, and not trained on, nor what they said in a synthesizer's voice: for corpora "
        "without a split by speakers",
    )
    test_clips: int | None = option(None, "validate and test each on so many clips, the first")
    data_license: str = option("", "license of the data, for the report")


@dataclass
class SLUUpdateArguments(UpdateArguments):
    """Optimization."""

    title = "Optimization"

    max_steps: int = option(600, "updates of the weights, the same whatever is trained on")
    batch_frames: int = option(4375, "most frames of speech, or units of text, in a batch, padding included")
    batch_size: int = option(64, "most clips in a batch on one device")
    learning_rate: float = option(5e-4, "peak")
    warmup_steps: int = option(60, "updates of linear warm-up, from a hundredth of the peak")
    hold_steps: int = option(240, "updates at the peak; then it falls exponentially to the end")
    final_scale: float = option(0.05, "share of the peak that is left at the end")
    weight_decay: float = option(0.0, "of AdamW")
    head_only_steps: int = option(40, "updates of the head alone, at the beginning")

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}; give at least 1")
        if self.warmup_steps + self.hold_steps > self.max_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and hold_steps {self.hold_steps} are more than max_steps "
                f"{self.max_steps}"
            )
        if not 0 < self.final_scale <= 1:
            raise ValueError(f"final_scale is {self.final_scale}; it is a share of the peak, above 0")


@dataclass
class MarkDecodingArguments:
    """How letters and entity marks are decoded."""

    beam: int = option(0, "prefixes of a beam search with an n-gram model beside argmax; 0 for argmax alone")
    lm_order: int = option(4, "of the n-gram model, which the annotated training texts make")
    lm_weight: float = option(2.0, "of the n-gram model's logarithms to base 10")
    word_score: float = option(1.0, "for each word")
    open_vocabulary: bool = option(False, "also write words that no training text has")


@dataclass
class SLUOutputArguments(RunArguments):
    """Results."""

    title = "Results"

    output_dir: Path = option(Path("output/slu"), "folder of the model, its processor, report and learning curve")
    hard_units: bool = option(
        False, "test speech as the units that the pre-training head hears in it, too; wants a pre-training checkpoint"
    )
    examples: int = option(6, "answers shown for each test and route")
    card_title: str = option("Few-shot understanding by a joint speech-text encoder", "headline of the report")
