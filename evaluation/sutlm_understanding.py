"""What a fine-tuned SUTLM understands of clips, read as speech and as text: SLUE's sentiment and named entities.

    task = TASKS["entities"]
    answers = task.predict(model, processor, utterances, "speech", decoding)
    rows = task.measure("entities", utterances, answers, "speech", training_answers)

Scores are those of SLUE's toolkit. Shapes: B clips, T tokens.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset

from ..data.labeled_utterances import (
    Answer,
    Glue,
    InputModality,
    LabeledUtterance,
    class_tokens,
    question_tokens,
    written_answer,
)
from ..data.slue import SENTIMENTS
from ..modeling.modeling_sutlm import SUTLMForCausalLM, SUTLMForSequenceClassification
from ..processing.processing_sutlm import SUTLMProcessor
from .adapter_evaluation import Decoding
from .intervals import Interval, mean_interval, ratio_interval
from .label_scores import LabelCounts
from .prediction_files import speaker_column
from .report import Measurement
from .slue_entities import (
    COMBINED,
    END,
    MARKS,
    Entity,
    combine_tags,
    parse_tagged,
    prepare_entities,
    tagged_of,
    tagged_words,
)
from .slue_scores import Kind, SlueScores, score_entities, score_sentiment
from .speech_text_continuations import continue_sequences
from .word_error_rate import count_word_errors, keep_text

_DRAWS = 20  # of random answers, for what chance gives


@dataclass(frozen=True)
class UnderstandingDecoding(Decoding):
    """How answers are made: in batches of similar length; what is generated is text, by beams or greedily.

    glue: what stands before a generated answer, as in training.
    """

    beams: int = 1
    glue: Glue = "start"


class UnderstandingTask(Protocol):
    """What is asked of a clip, and how answers are scored."""

    @property
    def column(self) -> str:
        """The column of a corpus that holds the labels."""

    @property
    def auto_class(self) -> str:
        """The Auto class that reads a fine-tuned folder."""

    @property
    def form(self) -> dict[str, Any]:
        """How an answer reads, as a configuration's field `answers` says it."""

    def answers(self, rows: Dataset) -> dict[str, Answer]:
        """The right answer to each clip, by id. Raises `ValueError` for a row without a label."""

    def predict(
        self,
        model: Any,
        processor: SUTLMProcessor,
        utterances: Sequence[LabeledUtterance],
        modality: InputModality,
        decoding: UnderstandingDecoding,
    ) -> list[str]:
        """The model's answer to each clip."""

    def measure(
        self,
        name: str,
        utterances: Sequence[LabeledUtterance],
        predictions: Sequence[str],
        modality: InputModality,
        training_answers: Sequence[str],
        **facts: Any,
    ) -> list[Measurement]:
        """Rows called "`name`: `modality`", with what chance and the most frequent answer of training give.

        Intervals resample speakers where at least two are known, clips otherwise. `facts` are fields of
        `Measurement`.
        """


# --- sentiment ---


@dataclass(frozen=True)
class Sentiment:
    """SLUE-SA: a classifier, whose headline is the macro F1.

    Chance guesses the classes equally often: the F1 of the counts that are expected of it.
    """

    column: str = "sentiment"
    auto_class: str = "AutoModelForSequenceClassification"
    labels: tuple[str, ...] = SENTIMENTS

    @property
    def form(self) -> dict[str, Any]:
        """The classes are those of `id2label`."""
        return {}

    def answers(self, rows: Dataset) -> dict[str, Answer]:
        feature = rows.features[self.column]
        found = {}
        for clip, text, label, speaker in _columns(rows, self.column):
            name = label if isinstance(label, str) else feature.int2str(label)
            found[clip] = Answer(name, text, speaker)
        return found

    @torch.no_grad()
    def predict(
        self,
        model: SUTLMForSequenceClassification,
        processor: SUTLMProcessor,
        utterances: Sequence[LabeledUtterance],
        modality: InputModality,
        decoding: UnderstandingDecoding,
    ) -> list[str]:
        model.eval()
        tokens = [class_tokens(processor, utterance, modality) for utterance in utterances]
        found = [""] * len(tokens)
        for batch in decoding.batches(list(map(len, tokens))):
            logits = model(**_padded(processor, [tokens[place] for place in batch], model.device)).logits
            for place, number in zip(batch, logits.argmax(-1).tolist(), strict=True):
                found[place] = model.config.id2label[number]
        return found

    def measure(
        self,
        name: str,
        utterances: Sequence[LabeledUtterance],
        predictions: Sequence[str],
        modality: InputModality,
        training_answers: Sequence[str],
        **facts: Any,
    ) -> list[Measurement]:
        gold = {utterance.id: utterance.answer for utterance in utterances}
        scores = score_sentiment(gold, dict(zip(gold, predictions, strict=True)))
        speakers = {utterance.id: utterance.speaker for utterance in utterances}
        majority = Counter(training_answers).most_common(1)[0][0]
        constant = score_sentiment(gold, dict.fromkeys(gold, majority))
        row = partial(_row, f"{name}: {modality}", speakers, "audio-classification", facts)
        right = [wanted == given for wanted, given in zip(gold.values(), predictions, strict=True)]
        return [
            row(
                "",
                "f1",
                scores.intervals("macro", speakers)["f1"],
                chance=self._expected_of_guesses(gold.values()),
                majority=constant.overall("macro").f1,
                note="macro F1",
            ),
            row(
                ", accuracy",
                "accuracy",
                mean_interval(right, speaker_column(scores.keys, speakers)),
                chance=1 / len(self.labels),
                majority=float(np.mean([wanted == majority for wanted in gold.values()])),
            ),
        ]

    def _expected_of_guesses(self, gold: Any) -> float:
        share, times, clips = 1 / len(self.labels), Counter(gold), len(gold)
        counts = {
            label: (times[label] * share, (clips - times[label]) * share, times[label] * (1 - share))
            for label in self.labels
        }
        return LabelCounts.of([counts], self.labels).overall("macro").f1


# --- named entities ---


@dataclass(frozen=True)
class NamedEntities:
    """SLUE-NER: a text with marks around entities is generated; the headline is the micro F1 over combined tags.

    Chance answers every clip with the entities of a training clip drawn at random, in the mean over draws; majority
    with the most frequent entity of training, or, where tags alone count, with that of the most frequent tag.
    """

    column: str = "entities"
    auto_class: str = "AutoModelForCausalLM"

    @property
    def form(self) -> dict[str, Any]:
        return {"marks": dict(MARKS), "end": END}

    def answers(self, rows: Dataset) -> dict[str, Answer]:
        """Texts are prepared as the toolkit does, those that are read too."""
        found = {}
        for clip, text, entities, speaker in _columns(rows, self.column):
            spans = [(one["type"], one["start"], one["end"] - one["start"]) for one in entities]
            try:
                tagged = tagged_of(prepare_entities(text, spans))
            except ValueError as error:
                raise ValueError(f"clip '{clip}': {error}") from None
            found[clip] = Answer(tagged, tagged_words(tagged), speaker)
        return found

    def predict(
        self,
        model: SUTLMForCausalLM,
        processor: SUTLMProcessor,
        utterances: Sequence[LabeledUtterance],
        modality: InputModality,
        decoding: UnderstandingDecoding,
    ) -> list[str]:
        model.eval()
        tokens = [question_tokens(processor, utterance, modality, decoding.glue) for utterance in utterances]
        found = [""] * len(tokens)
        for batch in decoding.batches(list(map(len, tokens))):
            questions = [tokens[place] for place in batch]  # they end in the sign that the answer begins with
            answers = continue_sequences(
                model,
                processor,
                questions,
                "text",
                "text",
                decoding.glue,
                decoding.max_new_tokens,
                beams=decoding.beams,
            )
            for place, (new, _) in zip(batch, answers, strict=True):
                found[place] = written_answer(processor, new)
        return found

    def measure(
        self,
        name: str,
        utterances: Sequence[LabeledUtterance],
        predictions: Sequence[str],
        modality: InputModality,
        training_answers: Sequence[str],
        **facts: Any,
    ) -> list[Measurement]:
        gold = {utterance.id: parse_tagged(utterance.answer) for utterance in utterances}
        given = dict(zip(gold, map(parse_tagged, predictions), strict=True))
        speakers = {utterance.id: utterance.speaker for utterance in utterances}
        trained = [parse_tagged(answer) for answer in training_answers]
        row = partial(_row, f"{name}: {modality}", speakers, "token-classification", facts)
        kinds: tuple[tuple[str, Kind, str], ...] = (
            ("", "standard", "F1, combined tags"),
            (", labels", "label", "label-F1, combined tags"),
        )
        return [
            *(
                row(
                    suffix,
                    "f1",
                    score_entities(gold, given, kind=kind).intervals(speakers=speakers)["f1"],
                    chance=_chance(gold, trained, kind),
                    majority=_f1(score_entities(gold, dict.fromkeys(gold, _most_frequent(trained, kind)), kind=kind)),
                    note=note,
                )
                for suffix, kind, note in kinds
            ),
            row(", words", "wer", _word_errors(utterances, predictions, speakers), note="words without the marks"),
        ]


def _f1(scores: SlueScores) -> float:
    return scores.overall().f1


def _chance(gold: Mapping[str, Sequence[Entity]], trained: Sequence[Sequence[Entity]], kind: Kind) -> float:
    places = np.random.default_rng(0).integers(len(trained), size=(_DRAWS, len(gold)))
    draws = [dict(zip(gold, (trained[place] for place in row), strict=True)) for row in places]
    return float(np.mean([_f1(score_entities(gold, drawn, kind=kind)) for drawn in draws]))


def _most_frequent(trained: Sequence[Sequence[Entity]], kind: Kind) -> list[Entity]:
    """The most frequent entity, or one of the most frequent combined tag; nothing where there is none that counts."""
    entities = [entity for clip in trained for entity in clip if entity[0] in COMBINED]
    if kind == "label":
        tags = Counter(tag for tag, _ in combine_tags(entities))
        most = tags.most_common(1)[0][0] if tags else None
        entities = [entity for entity in entities if COMBINED[entity[0]] == most]
    return [Counter(entities).most_common(1)[0][0]] if entities else []


def _word_errors(
    utterances: Sequence[LabeledUtterance], predictions: Sequence[str], speakers: Mapping[str, str | None]
) -> Interval:
    references = [tagged_words(utterance.answer) for utterance in utterances]
    counted = count_word_errors(references, [tagged_words(answer) for answer in predictions], keep_text)
    return ratio_interval(counted.errors, counted.reference_words, speaker_column(tuple(speakers), speakers))


TASKS: Mapping[str, UnderstandingTask] = {"sentiment": Sentiment(), "entities": NamedEntities()}


# --- both ---


def _columns(rows: Dataset, column: str) -> list[tuple[str, str, Any, str | None]]:
    """Id, text, label and speaker of each row. Raises `ValueError` for one without a label or a text."""
    speakers = rows["speaker"] if "speaker" in rows.column_names else [None] * len(rows)
    found = list(zip(rows["id"], rows["text"], rows[column], speakers, strict=True))
    for clip, text, label, _ in found:
        if label is None or text is None:
            what = column if label is None else "text"
            raise ValueError(f"clip '{clip}' has no {what}; a blind table cannot be learned from or tested on")
    return found


def _padded(processor: SUTLMProcessor, tokens: list[list[int]], device: torch.device) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` [B, T], padded on the left."""
    batch = processor.tokenizer.pad(
        {"input_ids": tokens}, padding_side="left", return_attention_mask=True, return_tensors="pt"
    )
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _row(
    name: str,
    speakers: Mapping[str, str | None],
    task: str,
    facts: Mapping[str, Any],
    suffix: str,
    metric: str,
    interval: Interval,
    **fields: Any,
) -> Measurement:
    known = {speaker for speaker in speakers.values() if speaker is not None}
    return Measurement.of(
        name + suffix,
        metric,
        interval,
        items=len(speakers),
        speakers=len(known) or None,
        task=task,
        resampled="speakers" if known else "items",
        **{**facts, **fields},
    )


__all__ = ["TASKS", "NamedEntities", "Sentiment", "UnderstandingDecoding", "UnderstandingTask"]
