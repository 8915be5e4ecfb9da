"""What a fine-tuned SpeechLM or SpeechUT understands, by speech, by text, and by the units that are heard in speech.

    listener = Listener(model, processor, pretrained, batch_size=32)
    answers = listener.classes(recordings, "speech")
    rows = TASKS["intents"].measure("intents", as_labeled(recordings), answers, "speech", training_answers)

Shapes: B clips, S samples, F frames, T frames or units, V letters, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from datasets import Dataset
from sklearn.metrics import f1_score
from torch import Tensor
from transformers import AutoModelForPreTraining

from ..data.labeled_recordings import LabeledRecording
from ..data.labeled_utterances import Answer, LabeledUtterance
from ..data.modality_batches import text_units, unit_batch
from ..modeling.modeling_joint_encoders import JointEncoderOutput
from ..processing.processing_speechlm import SpeechLMProcessor
from ..processing.unit_vocabulary import AFTER, BEFORE
from .adapter_evaluation import Decoding
from .ctc_beam_search import BeamSearch
from .intervals import Interval, mean_interval
from .label_scores import LabelCounts, count_pairs
from .prediction_files import speaker_column
from .report import Measurement
from .slue_scores import SlueScores
from .sutlm_understanding import NamedEntities, Sentiment
from .word_ngrams import WordNGrams

Route = Literal["speech", "text", "hard units"]
ROUTES: tuple[Route, ...] = get_args(Route)


# --- what is heard ---


@torch.no_grad()
def hard_units(pretrained: Any, input_values: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
    """Speech [B, S] as the units that the pre-training head of the speech encoder finds likeliest.

    Args:
        pretrained: a `SpeechLMForPreTraining` or `SpeechUTForPreTraining`.

    Returns:
        `input_ids` and `unit_attention_mask` [B, F], for the shared layers to read as they read text. Special symbols
        are never heard. A unit for every frame, as text has: repetitions stay.
    """
    output = pretrained.base_model(input_values=input_values, attention_mask=attention_mask)
    units, mask = likeliest_units(pretrained, output), output.frame_attention_mask
    return {
        "input_ids": units.masked_fill(mask == 0, pretrained.config.pad_token_id),
        "unit_attention_mask": mask,
    }


def likeliest_units(pretrained: Any, output: JointEncoderOutput) -> Tensor:
    """Ids [B, F] of what the speech encoder hears in every frame, special symbols left out."""
    logits = pretrained.unit_predictor.speech_logits(output.speech_hidden_state)  # [B, F, U]
    return logits[..., len(BEFORE) : logits.shape[-1] - len(AFTER)].argmax(-1) + len(BEFORE)


def load_unit_listener(source: str, revision: str | None = None) -> Any:
    """The pre-trained model that hears units in speech.

    Raises `ValueError` for a checkpoint of another head, whose prediction of units would be drawn at random.
    """
    model, told = AutoModelForPreTraining.from_pretrained(source, revision=revision, output_loading_info=True)
    if missing := sorted(name for name in told["missing_keys"] if name.startswith("unit_predictor.")):
        raise ValueError(
            f"'{source}' predicts no units, it lacks {missing[0]}; hard units want a checkpoint of pre-training: name "
            f"one, or leave out hard_units"
        )
    return model.eval()


@dataclass(frozen=True)
class Listener:
    """Reads clips through a fine-tuned model, in batches of similar length.

    Args:
        pretrained: the pre-training checkpoint, for hard units.
        text_seed: of the silences and durations of texts, drawn for each clip as `text_units` does.
    """

    model: Any
    processor: SpeechLMProcessor
    pretrained: Any = None
    batch_size: int = 32
    text_seed: int = 0

    def classes(self, recordings: Sequence[LabeledRecording], route: Route) -> list[str]:
        """The name of each clip's likeliest class."""
        found = [""] * len(recordings)
        for places, output in self.outputs(recordings, route):
            for place, number in zip(places, output.logits.argmax(-1).tolist(), strict=True):
                found[place] = self.model.config.id2label[number]
        return found

    def letters(self, recordings: Sequence[LabeledRecording], route: Route) -> list[np.ndarray]:
        """Log probabilities [T, V] of each clip's letters."""
        found: list[np.ndarray] = [np.empty(0)] * len(recordings)
        for places, output in self.outputs(recordings, route):
            log_probs = output.logits.float().log_softmax(-1).cpu().numpy()
            for place, row, length in zip(places, log_probs, output.logit_lengths.tolist(), strict=True):
                found[place] = row[:length]
        return found

    @torch.no_grad()
    def outputs(self, recordings: Sequence[LabeledRecording], route: Route) -> Iterator[tuple[list[int], Any]]:
        """Places of clips and what the model says of them.

        Raises `ValueError` for another route, and for hard units without the pre-training checkpoint.
        """
        if route not in ROUTES:
            raise ValueError(f"there is no route '{route}'; choose {', '.join(ROUTES)}")
        if route == "hard units" and self.pretrained is None:
            raise ValueError("hard units are heard by the pre-training checkpoint; give it")
        self.model.eval()
        lengths = [len(one.text) if route == "text" else one.seconds for one in recordings]
        for places in Decoding(self.batch_size).batches(lengths):
            yield places, self.model(**self._inputs([recordings[place] for place in places], route))

    def _inputs(self, clips: Sequence[LabeledRecording], route: Route) -> dict[str, Tensor]:
        if route == "text":
            units = [text_units(one, self.processor, self.text_seed) for one in clips]
            return self._placed(unit_batch(units, self.processor.vocabulary))
        speech = self.processor(audio=[one.audio for one in clips], names=[one.id for one in clips])
        placed = self._placed(speech)
        return hard_units(self.pretrained.eval(), **placed) if route == "hard units" else placed

    def _placed(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}


def best_texts(letters: Sequence[np.ndarray], processor: SpeechLMProcessor) -> list[str]:
    """The text of the likeliest letter of every frame, for each clip [T, V]."""
    return [processor.decode_ctc(row.argmax(-1)) for row in letters]


def beam_search_of(
    processor: SpeechLMProcessor, training_answers: Sequence[str], order: int = 4, **fields: Any
) -> BeamSearch:
    """A beam search for this processor's letters, over the words and marks of the training answers alone.

    Args:
        order: of the n-gram model.
        **fields: of `BeamSearch`.
    """
    tokenizer = processor.tokenizer
    letters = {number: name for name, number in tokenizer.get_vocab().items() if len(name) == 1}
    blank = tokenizer.pad_token_id  # which is what transformers' CTC tokenizers call it
    return BeamSearch(
        letters, WordNGrams.train(training_answers, order), blank, capitals=tokenizer.do_lower_case, **fields
    )


# --- what it is worth ---


@dataclass(frozen=True)
class Intents:
    """Intents of commands, as in Fluent Speech Commands: the headline is accuracy, with the macro F1 beside it.

    Chance guesses the classes of training equally often, and is never right where little speech has not all that are
    tested; its expected F1 is taken as accuracy's. Majority gives the most frequent one.
    """

    column: str = "intent"

    @property
    def form(self) -> dict[str, Any]:
        """The classes are those of `id2label`."""
        return {}

    def answers(self, rows: Dataset) -> dict[str, Answer]:
        """The intent of each clip, by id. Raises `ValueError` for a row without intent or text."""
        return Sentiment(column=self.column).answers(rows)

    def measure(
        self,
        name: str,
        utterances: Sequence[LabeledUtterance],
        predictions: Sequence[str],
        modality: str,
        training_answers: Sequence[str],
        **facts: Any,
    ) -> list[Measurement]:
        """Rows called "`name`: `modality`". Intervals resample speakers where there are several, clips otherwise."""
        wanted = [utterance.answer for utterance in utterances]
        majority = Counter(training_answers).most_common(1)[0][0]
        keys = tuple(utterance.id for utterance in utterances)
        known = {utterance.speaker for utterance in utterances} - {None}
        speakers = {utterance.id: utterance.speaker if len(known) > 1 else None for utterance in utterances}
        scores, constant = _macro(keys, wanted, predictions), _macro(keys, wanted, [majority] * len(keys))
        right = [first == second for first, second in zip(wanted, predictions, strict=True)]
        guessed = set(training_answers)
        chance = float(np.mean([answer in guessed for answer in wanted])) / len(guessed)

        def row(suffix: str, metric: str, interval: Interval, of_majority: float, note: str = "") -> Measurement:
            shared = {"items": len(keys), "speakers": len(known) or None, "task": "audio-classification"}
            compared = {
                "chance": chance,
                "majority": of_majority,
                "resampled": "speakers" if len(known) > 1 else "items",
            }
            title = f"{name}: {modality}{suffix}"
            return Measurement.of(title, metric, interval, note=note, **{**shared, **compared, **facts})

        accuracy = mean_interval(right, speaker_column(keys, speakers))
        macro = scores.intervals("macro", speakers)["f1"]
        return [
            row("", "accuracy", accuracy, float(np.mean([answer == majority for answer in wanted]))),
            row(", macro F1", "f1", macro, constant.overall("macro").f1, "macro F1"),
        ]


def _macro(keys: tuple[str, ...], wanted: Sequence[str], given: Sequence[str]) -> SlueScores:
    pairs = zip(wanted, given, strict=True)
    return SlueScores(LabelCounts.of([count_pairs([(gold, "")], [(said, "")]) for gold, said in pairs]), keys)


def validation_scores(prediction: Any) -> dict[str, float]:
    """Macro F1 and accuracy of classes, for a `Trainer` that chooses by them."""
    given, wanted = prediction.predictions.argmax(-1), prediction.label_ids
    return {"f1": float(f1_score(wanted, given, average="macro")), "accuracy": float((given == wanted).mean())}


@dataclass(frozen=True)
class JointTask:
    """A task: its answers and scores, and the Auto class of a fine-tuned folder.

    writes: whether the answer is a text that CTC spells; otherwise it is a class.
    """

    scoring: Intents | Sentiment | NamedEntities
    writes: bool = False

    @property
    def auto_class(self) -> str:
        return "AutoModelForCTC" if self.writes else "AutoModelForSequenceClassification"

    @property
    def column(self) -> str:
        return self.scoring.column

    @property
    def form(self) -> dict[str, Any]:
        """How an answer reads, as a configuration's field `answers` says it."""
        return self.scoring.form

    @property
    def answers(self) -> Callable[[Dataset], dict[str, Answer]]:
        return self.scoring.answers

    def measure(
        self, name: str, utterances: Sequence[LabeledUtterance], *rest: Any, **facts: Any
    ) -> list[Measurement]:
        """See `UnderstandingTask.measure`; a route, or a route and a decoding, stands for the modality."""
        return self.scoring.measure(name, utterances, *rest, **facts)


TASKS: Mapping[str, JointTask] = {
    "sentiment": JointTask(Sentiment()),
    "intents": JointTask(Intents()),
    "entities": JointTask(NamedEntities(), writes=True),
}

__all__ = [
    "ROUTES",
    "TASKS",
    "Intents",
    "JointTask",
    "Listener",
    "Route",
    "beam_search_of",
    "best_texts",
    "hard_units",
    "validation_scores",
]
