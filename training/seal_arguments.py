"""What the script that trains Seal's projector can be told beside what training an adapter is told."""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..data.text_episodes import LABELS
from .adapter_arguments import OutputArguments, option


@dataclass
class SealProjectorArguments:
    """The projector."""

    projector: Literal["convolution", "stack"] = option(
        "convolution", "strided convolutions, or frames laid in a row and a gated feed-forward network"
    )
    reduction_ratio: int = option(4, "encoder frames for one speech embedding: 1, 2, 4 or 8; 12.5 embeddings a second")
    projector_width: int | None = option(None, "width inside; that of the encoder where not given")
    encoding: Literal["clip", "window"] = option(
        "clip", "Whisper only: encode a clip at its own length, or padded to 30 s"
    )


@dataclass
class AlignmentArguments:
    """What the LLM shall say of speech as it does of the transcript; the paper leaves all of it open."""

    title = "What the LLM shall say of speech as it does of the transcript"

    objective: Literal["divergence", "cross_entropy", "psrt"] = option(
        "divergence",
        "between the LLM's distributions; cross_entropy on the same targets; or psrt, the paper's baseline: "
        "cross-entropy on transcripts, without prompts in `answers`",
    )
    divergence: Literal["forward", "reverse", "jensen_shannon"] = option(
        "forward", "KL of the transcript's distribution to that of speech, the reverse, or Jensen-Shannon"
    )
    temperature: float = option(1.0, "divides the logits of both")
    answers: list[str] = option(
        [], "prompts whose targets the LLM writes itself, from the transcript (reading B); others have their column's"
    )
    answer_tokens: int = option(64, "most tokens of such a target")
    first_token: bool = option(False, "compare the first next-token distribution alone (reading C)")
    weights: dict[str, float] = option({}, "name of a prompt -> weight; 1 where not given, 0 tests it alone")
    kept_tokens: int = option(0, "keep the teacher's k likeliest tokens and read them; 0 runs the teacher each time")


@dataclass
class InContextArguments:
    """Demonstrations in front of a clip, for an LLM that learns in context; no label is read (our reading)."""

    title = "Demonstrations in front of a clip"

    demonstrated: dict[str, str] = option(
        {},
        "further prompt, {context} where demonstrations go -> one of `answers`, which says the class of a transcript",
    )
    demonstration: str = option("{transcript} {label} ", "how one is written")
    demonstration_words: list[str] = option(list(LABELS), "drawn anew for every clip, to stand for classes")
    demonstration_ways: int = option(4, "most classes in front of a clip")
    demonstration_shots: int = option(3, "most transcripts of a class")


@dataclass
class SealOutputArguments(OutputArguments):
    """Results."""

    title = "Results"

    output_dir: Path = option(Path("output/seal"), "folder of the checkpoint, report, card and plots")
    card_title: str = option("Seal projector", "headline of the model card")
