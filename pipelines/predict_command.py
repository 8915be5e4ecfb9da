"""`speechzoo predict`: what a checkpoint says of recordings, on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import islice
from typing import Annotated, Any

import typer
from transformers import AutoConfig, AutoProcessor
from transformers.utils import logging

from ..evaluation.scoring_output import one_line_errors
from ..modeling.auto_classes import AutoModelAsSaved
from ..processing.audio_loading import audio_seconds
from ..processing.pretrained_sources import check_is_there
from .pipeline_tasks import PIPELINES, pipelines_of
from .speech_pipeline import SpeechPipeline

Kind = Enum("Kind", {task.removeprefix("speech-"): task.removeprefix("speech-") for task in PIPELINES}, type=str)  # type: ignore[misc]

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id or folder of a checkpoint.")]
Audio = Annotated[
    list[str],
    typer.Argument(
        metavar="AUDIO...", help="Recordings: WAV, FLAC, Ogg, MP3, ...; `clip.wav#t=2.5,5` reads 2.5 to 5 seconds."
    ),
]
Wanted = Annotated[
    Kind | None,
    typer.Option(
        "--pipeline", help="What is wanted, where the checkpoint can say several things; the first it can by default."
    ),
]
Task = Annotated[
    str | None, typer.Option("--task", help="What is asked, where the checkpoint knows several tasks, such as intent.")
]
Instruction = Annotated[
    str | None,
    typer.Option("--instruction", help="Ask this of each recording; `{audio}` says where the speech stands in it."),
]
Context = Annotated[
    str | None,
    typer.Option("--context", help="A text to read, in place of `{context}` in the prompt or instruction."),
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="TEXT", help="Choose among these answers; repeat it for each.")
]
Chunk = Annotated[
    float | None,
    typer.Option(
        "--chunk-seconds", min=1, help="Cut longer recordings at pauses, and answer to the parts and to the whole."
    ),
]
NewTokens = Annotated[int | None, typer.Option(min=1, help="Longest written answer, in tokens.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Recordings that are run together; it changes no answer.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda:0, ...; an accelerator where there is one by default.")]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of a Hub repository.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, with unrounded numbers, for programs.")]


def predict(
    model: Model,
    audio: Audio,
    pipeline: Wanted = None,
    task: Task = None,
    instruction: Instruction = None,
    context: Context = None,
    label: Labels = None,
    chunk_seconds: Chunk = None,
    max_new_tokens: NewTokens = None,
    batch_size: BatchSize = 8,
    device: Device = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Say what a checkpoint makes of recordings: intents, slots, sentiment, entities, answers, or units of speech.

    Answers come in the order of the recordings. A recording that cannot be used ends the program, by one line that
    names it.
    """
    asked = {
        "task": task,
        "instruction": instruction,
        "context": context,
        "labels": label or None,
        "chunk_seconds": chunk_seconds,
        "max_new_tokens": max_new_tokens,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    with one_line_errors("speechzoo predict", "a smaller --batch-size"):
        for path in audio:
            audio_seconds(path)  # before a model is loaded for nothing
        kind = "instruction" if pipeline is None and instruction is not None else pipeline and pipeline.value
        pipe = load(model, kind, device, revision)
        results = pipe((path for path in audio), batch_size=batch_size, **given)
        for path, result in zip(audio, results, strict=True):
            print(json.dumps({"audio": path, **result}, ensure_ascii=False) if as_json else shown(path, result))


def load(source: str, kind: str | None, device: str | None = None, revision: str | None = None) -> SpeechPipeline:
    """The pipeline of a checkpoint.

    Raises `ValueError` where it has none, or not that kind; `OSError` where there is no such checkpoint.
    """
    check_is_there(source, "model", "MODEL")
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
    except OSError as error:
        raise OSError(f"the model '{source}' cannot be read: {error}") from error
    known = pipelines_of(config)
    task = f"speech-{kind}" if kind else next(iter(known), "")
    if task not in known:
        what = f"a {' or '.join(config.architectures or [config.model_type])}"
        kinds = ", ".join(name.removeprefix("speech-") for name in known)
        can = f"it can do {kinds}" if known else "fine-tune it, or choose a model that was"
        raise ValueError(f"'{source}' is {what}, which has no pipeline{f' for {kind}' if kind else ''}; {can}")
    model = AutoModelAsSaved.from_pretrained(source, revision=revision, dtype="auto")
    processor = AutoProcessor.from_pretrained(source, revision=revision)
    return known[task](model, processor, task=task, **({} if device is None else {"device": device}))


def shown(path: str, result: Mapping[str, Any]) -> str:
    """A result for people: the recording and the answer on a line, parts of the answer on lines of their own."""
    return "\n".join([f"{path}: {_line(result)}", *(f"    {line}" for line in _parts(result))])


def _line(result: Mapping[str, Any]) -> str:
    if "units" in result:
        return " ".join(map(str, result["units"]))
    answer = result["label"] if "label" in result else result["text"]
    return f"{answer or '(nothing)'}  ({result['score']:.3f})"


def _parts(result: Mapping[str, Any]) -> Iterator[str]:
    others = list(result.get("scores", {}).items())[1:]
    yield from (f"{label}  ({score:.3f})" for label, score in islice(others, 4))
    for name in ("entities", "slots"):
        yield from (f"{one['label']}: {one['text']}  ({one['score']:.3f})" for one in result.get(name, ()))
    for chunk in result.get("chunks", ()):
        yield f"{chunk['start']:.2f} to {chunk['end']:.2f} s: {_line(chunk)}"


__all__ = ["load", "predict", "shown"]
