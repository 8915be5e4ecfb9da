"""`speechzoo score`: predictions against gold on the command line, as a table for people or JSON for programs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..data.corpus_errors import CorpusError
from . import fluent_speech_commands_scores as commands
from . import slue_scores as slue
from . import slurp_scores as slurp
from .prediction_files import (
    json_lines,
    keep_gold,
    known_speakers,
    read_predictions,
    read_speakers,
    require_all,
    speaker_column,
    speaker_of,
    text_of,
)
from .scoring_output import Result, label_rows, one_line_errors, score_row, show, value_row, wrote_errors
from .translation_scores import score_translations, translation_errors
from .word_error_rate import NORMALIZATIONS, count_word_errors

application = typer.Typer(
    help="Score predictions as the corpora's own evaluation programs do, with 95 % intervals.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

GoldFile = Annotated[Path, typer.Option("--gold", metavar="FILE", help="What is true.")]
PredictionFile = Annotated[
    Path, typer.Option("--predictions", metavar="FILE", help="What a system gave: JSON lines, gzip or not.")
]
SpeakerFile = Annotated[
    Path | None,
    typer.Option(
        "--speakers",
        metavar="FILE",
        help="JSON {id: speaker}, or SLURP's metadata.json, gzip or not. Intervals then resample speakers;"
        " without it the speakers that the gold rows name, or else utterances.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON with unrounded numbers, for programs.")]
WithInterval = Annotated[bool, typer.Option("--interval/--no-interval", help="Bootstrap 95 % intervals.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")]
Resamples = Annotated[int, typer.Option("--resamples", min=1, max=100_000, help="How many resamples are drawn.")]
ErrorFile = Annotated[
    str,
    typer.Option(
        "--errors",
        metavar="FILE",
        help="Write every wrong prediction there, one JSON object a line: id, expected, predicted, and the scores it"
        " costs. `-` prints them instead of the scores.",
    ),
]
PerLabel = Annotated[bool, typer.Option("--per-label", help="Also the scores of every label.")]


class SlurpKey(str, Enum):
    file = "file"
    slurp_id = "slurp_id"


class LabelAverage(str, Enum):
    micro = "micro"
    macro = "macro"


class TagSet(str, Enum):
    combined = "combined"
    raw = "raw"


Normalization = Enum("Normalization", {name: name for name in NORMALIZATIONS}, type=str)  # type: ignore[misc]
DEFAULT_NORMALIZATION = Normalization("default")


@dataclass(frozen=True)
class Request:
    """The options of every sub-command."""

    gold: GoldFile
    predictions: PredictionFile
    speakers: SpeakerFile = None
    interval: WithInterval = True
    resamples: Resamples = 1_000
    seed: Seed = 0
    as_json: AsJson = False
    errors: ErrorFile = ""

    @property
    def settings(self) -> dict[str, int]:
        """Of the bootstrap."""
        return {"resamples": self.resamples, "seed": self.seed}

    def known_speakers(
        self, keys: Sequence[str], named: Mapping[str, str | None], key_of: Callable[[str], str] = str
    ) -> dict[str, str]:
        """From the file, whose ids `key_of` makes those of the gold, or else as the gold rows name them."""
        return known_speakers(keys, named, read_speakers(self.speakers, key_of) if self.speakers else None)

    def resampling(self, keys: Sequence[str], speakers: Mapping[str, str]) -> dict[str, Any]:
        """Facts of the intervals."""
        if not self.interval:
            return {}
        if not speakers:
            return {"resampled": "utterances", "resampled_units": len(keys), **self.settings}
        unknown = len(keys) - len(speakers)
        units = len(set(speakers.values())) + unknown
        facts = {"resampled": "speakers", "resampled_units": units, "utterances_without_speaker": unknown}
        return {**facts, **self.settings}


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a sub-command that has its own options and those of `Request`, which it is given first."""

    def register(scorer: Callable[..., None]) -> Callable[..., None]:
        shared = dict(signature(Request).parameters)
        first = [shared[file] for file in ("gold", "predictions")]
        own = list(signature(scorer).parameters.values())[1:]
        others = [option for option in shared.values() if option not in first]

        @wraps(scorer)
        def run(**given: Any) -> None:
            with one_line_errors("speechzoo score", "fewer --resamples"):
                scorer(Request(**{option: given.pop(option) for option in shared}), **given)

        options = [option.replace(kind=Parameter.KEYWORD_ONLY) for option in (*first, *own, *others)]
        # Typer reads options from both.
        run.__signature__ = Signature(options)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in options}
        return application.command(name)(run)

    return register


# --- commands ---


@command("slurp")
def score_slurp(
    request: Request,
    by: Annotated[SlurpKey, typer.Option(help="Whether predictions name a recording or a sentence.")] = SlurpKey.file,
    average: Annotated[LabelAverage, typer.Option(help="How labels are averaged.")] = LabelAverage.micro,
    per_label: PerLabel = False,
) -> None:
    """SLURP: scenario, action, intent, entities and SLU-F1, equal to the corpus's own program.

    Gold: SLURP's own files, such as `test.jsonl`. Predictions, one a line:

    `{"file": "audio-1.flac", "scenario": "alarm", "action": "set", "entities": [{"type": "time", "filler": "noon"}]}`

    with `"slurp_id"` in place of `"file"` under `--by slurp_id`. Gold without a prediction is counted, not scored.
    """
    true = slurp.read_slurp_gold(request.gold, by.value)
    given = slurp.read_slurp_predictions(request.predictions, by.value)
    scores = slurp.score_slurp(true.frames, given.rows)
    if wrote_errors(request.errors, slurp.wrong_predictions(true.frames, given.rows)):
        return
    known = request.known_speakers(scores.keys, true.speakers)
    intervals = scores.intervals(average.value, known, **request.settings) if request.interval else {}
    rows = {
        metric: score_row(lambda counts=counts: counts.overall(average.value), intervals.get(metric, {}))  # type: ignore[misc]
        for metric, counts in scores.counts.items()
    }
    labels = {}
    if per_label:
        for metric, counts in scores.counts.items():
            found = scores.label_intervals(metric, known, **request.settings) if request.interval else {}
            labels[metric] = label_rows(counts, found)
    facts = {
        "by": by.value,
        "average": average.value,
        "gold_total": scores.gold_total,
        "gold_not_predicted": scores.gold_not_predicted,
        "unknown_predictions": scores.unknown_predictions,
        "repeated_predictions": given.repeated,
        **request.resampling(scores.keys, known),
    }
    show(Result("SLURP", rows, facts, labels), request.as_json)


@command("slue-ner")
def score_slue_entities(
    request: Request,
    tags: Annotated[TagSet, typer.Option(help="The 7 tags of the headline score, or all 18.")] = TagSet.combined,
    average: Annotated[LabelAverage, typer.Option(help="How tags are averaged.")] = LabelAverage.micro,
    per_label: PerLabel = False,
) -> None:
    """SLUE-VoxPopuli: F1 of named entities (tag and phrase) and label-F1 (tags alone), equal to the toolkit.

    Gold: the corpus's own table, `slue-voxpopuli_dev.tsv`, or JSON lines as for predictions. Predictions, one a line:

    `{"id": "...", "tagged": "we met in % france ]"}` or `{"id": "...", "entities": [["GPE", "france"]]}`

    with raw tags. Every gold row needs a prediction.
    """
    true = slue.read_entity_gold(request.gold)
    given = slue.read_entity_predictions(request.predictions)
    kinds: dict[str, Literal["standard", "label"]] = {"entities": "standard", "entity labels": "label"}
    scores = {
        name: slue.score_entities(true.entities, given.rows, tags=tags.value, kind=kind)
        for name, kind in kinds.items()
    }
    if wrote_errors(request.errors, slue.wrong_entities(true.entities, given.rows, tags.value)):
        return
    facts = {"tags": tags.value, "average": average.value, "repeated_predictions": given.repeated}
    show(
        _slue_result("SLUE named entities", scores, [average.value], true, request, facts, per_label), request.as_json
    )


@command("slue-sentiment")
def score_slue_sentiment(
    request: Request,
    per_label: PerLabel = False,
) -> None:
    """SLUE-VoxCeleb: macro and weighted scores of Negative, Neutral, Positive.

    SLUE reports the macro recall and F1. What its toolkit prints as "micro" is the weighted average.

    Gold: the corpus's own table, `slue-voxceleb_dev.tsv`, or JSON lines as for predictions; rows with `<mixed>` or
    `Disagreement` are dropped and counted. Predictions, one a line:

    `{"id": "...", "sentiment": "Neutral"}`
    """
    true = slue.read_sentiment_gold(request.gold)
    given = slue.read_sentiment_predictions(request.predictions)
    scores = slue.score_sentiment(true.sentiments, given.rows)
    wrong = (
        {"id": key, "expected": label, "predicted": given.rows[key], "costs": ["macro", "weighted"]}
        for key, label in true.sentiments.items()
        if given.rows[key] != label
    )
    if wrote_errors(request.errors, wrong):
        return
    facts = {"gold_dropped": true.dropped, "repeated_predictions": given.repeated}
    averages = ["macro", "weighted"]
    show(_slue_result("SLUE sentiment", {"": scores}, averages, true, request, facts, per_label), request.as_json)


def _slue_result(
    title: str,
    scores: Mapping[str, slue.SlueScores],
    averages: Sequence[Any],
    gold: slue.SlueGold,
    request: Request,
    facts: dict[str, Any],
    per_label: bool,
) -> Result:
    """One row for each scorer and average; where there is but one of either, the row has the other's name."""
    first = next(iter(scores.values()))
    known = request.known_speakers(first.keys, gold.speakers)
    rows, labels = {}, {}
    for name, scored in scores.items():
        for average in averages:
            found = scored.intervals(average, known, **request.settings) if request.interval else {}
            rows[name or average] = score_row(lambda one=scored, how=average: one.overall(how), found)  # type: ignore[misc]
        if per_label:
            found = scored.label_intervals(known, **request.settings) if request.interval else {}
            labels[name or "classes"] = label_rows(scored.counts, found)
    facts = {"gold_total": len(first.keys), "unknown_predictions": first.unknown_predictions, **facts}
    return Result(title, rows, {**facts, **request.resampling(first.keys, known)}, labels)


@command("fluent-speech-commands")
def score_fluent_speech_commands(
    request: Request,
    per_label: PerLabel = False,
) -> None:
    """Fluent Speech Commands: the share of utterances with action, object and location all right.

    Gold: the corpus's own table, `test_data.csv`, whose speakers the intervals resample, or JSON lines as for
    predictions. Predictions, one a line:

    `{"path": "wavs/speakers/....wav", "action": "increase", "object": "heat", "location": "kitchen"}`

    where `"id"` may stand for `"path"`, and `"intent": "increase heat kitchen"` for the three slots.
    """
    true = commands.read_command_gold(request.gold)
    given = commands.read_command_predictions(request.predictions)
    scores = commands.score_commands(true.commands, given.rows)
    if wrote_errors(request.errors, commands.wrong_commands(true.commands, given.rows)):
        return
    known = request.known_speakers(scores.keys, true.speakers, commands.recording_id)
    found = scores.intervals(known, **request.settings) if request.interval else {}
    values = {"accuracy": scores.accuracy, **scores.slot_accuracy}
    rows = {name: value_row("accuracy", value, found.get(name)) for name, value in values.items()}
    intents = {intent: {"accuracy": value} for intent, value in scores.intent_accuracy.items()}
    facts = {
        "gold_total": len(scores.keys),
        "unknown_predictions": scores.unknown_predictions,
        "unheard_commands": scores.unheard_commands,
        "repeated_predictions": given.repeated,
        **request.resampling(scores.keys, known),
    }
    result = Result("Fluent Speech Commands", rows, facts, {"intents": intents} if per_label else {})
    show(result, request.as_json)


@command("wer")
def score_words(
    request: Request,
    normalization: Annotated[
        Normalization,
        typer.Option(
            help="default: no punctuation, apostrophes deleted. librispeech: apostrophes kept. slue: the SLUE"
            " toolkit's. none: texts as they are."
        ),
    ] = DEFAULT_NORMALIZATION,
) -> None:
    """Word error rate of transcripts: errors over words of the corpus.

    Gold and predictions, one a line: `{"id": "...", "text": "what was said"}`; gold rows may have a `"speaker"`.
    """
    true, named, given, repeated = read_texts(request.gold, request.predictions)
    normalize = NORMALIZATIONS[normalization.value]
    counted = count_word_errors(list(true.values()), [given[key] for key in true], normalize)
    wrong = (
        {"id": key, "expected": normalize(text), "predicted": normalize(given[key]), "costs": [f"wer: {count}"]}
        for (key, text), count in zip(true.items(), counted.errors.tolist(), strict=True)
        if count
    )
    if wrote_errors(request.errors, wrong):
        return
    known = request.known_speakers(list(true), named)
    clusters = speaker_column(list(true), known)
    found = counted.interval(clusters, **request.settings) if request.interval else None
    kinds = ("substitutions", "deletions", "insertions", "reference_words")
    facts = {
        "gold_total": len(true),
        "unknown_predictions": sum(key not in true for key in given),
        "repeated_predictions": repeated,
        "normalization": normalization.value,
        **{kind: int(getattr(counted, kind).sum()) for kind in kinds},
        **request.resampling(list(true), known),
    }
    show(Result("Word error rate", {"wer": value_row("wer", counted.rate, found)}, facts), request.as_json)


@command("bleu")
def score_translation(
    request: Request,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Compare without regard to case.")] = False,
    tokenize: Annotated[str, typer.Option(help="A tokenizer of sacrebleu; empty is its default.")] = "",
) -> None:
    """Corpus BLEU of translations by sacrebleu, 0 to 100, with its signature.

    Gold and predictions, one a line: `{"id": "...", "text": "the translation"}`; gold rows may have a `"speaker"`.
    """
    true, named, given, repeated = read_texts(request.gold, request.predictions)
    scores = score_translations(
        list(true.values()), [given[key] for key in true], lowercase=lowercase, tokenize=tokenize
    )
    if wrote_errors(request.errors, translation_errors(true, given)):
        return
    known = request.known_speakers(list(true), named)
    clusters = speaker_column(list(true), known)
    found = scores.interval(clusters, **request.settings) if request.interval else None
    facts = {
        "gold_total": len(true),
        "unknown_predictions": sum(key not in true for key in given),
        "repeated_predictions": repeated,
        "signature": scores.signature,
        **request.resampling(list(true), known),
    }
    show(Result("BLEU", {"bleu": value_row("bleu", scores.bleu, found)}, facts), request.as_json)


# --- what commands share ---


def read_texts(gold: Path, predictions: Path) -> tuple[dict[str, str], dict[str, str | None], dict[str, str], int]:
    """Gold texts and speakers, predicted texts, all by id, and how many predictions were repeated."""
    texts: dict[str, str] = {}
    speakers: dict[str, str | None] = {}
    for place, row in json_lines(gold):
        key = text_of(row, "id", place)
        keep_gold(texts, key, text_of(row, "text", place), place)
        speakers[key] = speaker_of(row, place)
    if not texts:
        raise CorpusError(gold, "there is no row: there is nothing to score")
    given = read_predictions(predictions, lambda row, place: (text_of(row, "id", place), text_of(row, "text", place)))
    require_all(texts, given.rows, "predict an empty text where nothing was heard")
    return texts, speakers, given.rows, given.repeated
