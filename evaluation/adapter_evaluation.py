"""Answers of a speech-text model on test clips, and what they are worth beside guesses and gold text."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from ..data.speech_text_collator import SpeechTextCollator
from ..data.written_answers import written_answers
from ..modeling.modeling_speech_text_generation import SpeechTextForConditionalGeneration
from ..processing.processing_speech_text_adapter import SpeechTextAdapterProcessor
from .intervals import Interval, mean_interval, ratio_interval
from .label_trie import LabelTrie
from .report import Measurement
from .translation_scores import score_translations
from .word_error_rate import count_word_errors, normalize_text

HUB_TASKS = {"wer": "automatic-speech-recognition", "accuracy": "audio-classification", "bleu": "translation"}


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: greedily, in batches of similar length.

    choices: where given, nothing else is answered; of two that begin alike the likelier next token decides.
    """

    batch_size: int = 32
    max_new_tokens: int = 64
    choices: tuple[str, ...] = ()

    def batches(self, lengths: Sequence[float]) -> Iterator[list[int]]:
        order = [int(index) for index in np.argsort(lengths, kind="stable")]
        for start in tqdm(range(0, len(order), self.batch_size), desc="answering", unit="batch", leave=False):
            yield order[start : start + self.batch_size]


def answer_speech(
    model: SpeechTextForConditionalGeneration,
    processor: SpeechTextAdapterProcessor,
    examples: Dataset,
    decoding: Decoding,
) -> list[str]:
    """What the model answers to each of `task_examples`, in their order."""
    collate = SpeechTextCollator(processor, for_generation=True)
    answers = [""] * len(examples)
    model.eval()
    for batch in decoding.batches(examples["length"]):
        inputs = collate([examples[index] for index in batch]).to(model.device)
        generated = model.generate(
            **inputs,
            max_new_tokens=decoding.max_new_tokens,
            do_sample=False,
            prefix_allowed_tokens_fn=_spelling(processor, decoding.choices, inputs["input_ids"]),
        )
        for index, answer in zip(batch, processor.decode_answers(generated, inputs["input_ids"]), strict=True):
            answers[index] = answer
    return answers


def _spelling(
    processor: SpeechTextAdapterProcessor, choices: Sequence[str], input_ids: torch.Tensor
) -> Callable[[int, torch.Tensor], list[int]] | None:
    """What `generate` asks for the tokens that may come next: those that go on spelling one of the choices."""
    if not choices:
        return None
    tokenizer = processor.tokenizer
    start = 1 if processor.is_encoder_decoder else input_ids.shape[1]
    trie = LabelTrie(tokenizer(list(choices), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
    return lambda _, tokens: trie.following(tokens[start:].tolist())


def answer_gold_text(
    model: SpeechTextForConditionalGeneration,
    processor: SpeechTextAdapterProcessor,
    examples: Dataset,
    decoding: Decoding,
) -> list[str]:
    """What the LLM answers when the true transcript stands where the speech would: the topline."""
    return answer_texts(model, processor, examples, examples["transcript"], decoding)


def answer_texts(
    model: SpeechTextForConditionalGeneration,
    processor: SpeechTextAdapterProcessor,
    examples: Dataset,
    texts: Sequence[str],
    decoding: Decoding,
) -> list[str]:
    """What the LLM answers when `texts` stand where the speech of the examples would."""
    rows = zip(examples["task"], examples["context"], texts, strict=True)
    prompts = [processor.prompt(task, context).replace(processor.audio_token, text) for task, context, text in rows]
    return written_answers(model, processor, prompts, decoding.max_new_tokens, decoding.batch_size)


def measure(
    name: str, metric: str, examples: Dataset, answers: Sequence[str], topline: Sequence[str] | None, **facts: Any
) -> Measurement:
    """One row of results.

    Args:
        metric: "wer" (errors over words), "bleu" (sacreBLEU, 0 to 100) or "accuracy" (share of answers that are the
            target, normalized).
        topline: answers to gold text. facts: `training_targets` (answers seen in training, for chance and majority)
            and any field of `Measurement`.

    Intervals resample speakers where at least two are known, clips otherwise. For WER and BLEU, chance answers each
    clip with a training target drawn at random and majority with the most frequent one.
    """
    targets, speakers = list(examples["target"]), list(examples["speaker"])
    training_targets = facts.pop("training_targets", None) or targets
    by_speaker = len(set(speakers)) > 1
    interval = score(metric, targets, answers, speakers if by_speaker else None)
    return Measurement.of(
        name,
        metric,
        interval,
        items=len(targets),
        speakers=len(set(speakers)) if by_speaker else None,
        resampled="speakers" if by_speaker else "items",
        chance=_chance(metric, targets, training_targets),
        majority=_majority(metric, targets, training_targets),
        topline=score(metric, targets, topline).value if topline is not None else None,
        task=HUB_TASKS[metric],
        **facts,
    )


def score(
    metric: str, targets: Sequence[str], answers: Sequence[str], speakers: Sequence[str] | None = None
) -> Interval:
    """The corpus value of a metric with its interval."""
    if metric == "wer":
        counted = count_word_errors(targets, answers)
        return ratio_interval(counted.errors, counted.reference_words, speakers)
    if metric == "accuracy":
        return mean_interval(correct(targets, answers), speakers)
    if metric == "bleu":
        return score_translations(targets, answers).interval(speakers)
    raise ValueError(f"there is no metric '{metric}'; choose 'wer', 'bleu' or 'accuracy'")


def correct(targets: Sequence[str], answers: Sequence[str]) -> list[bool]:
    """Whether each answer is its target, both normalized."""
    pairs = zip(targets, answers, strict=True)
    return [normalize_text(target) == normalize_text(answer) for target, answer in pairs]


def _chance(metric: str, targets: Sequence[str], training_targets: Sequence[str]) -> float:
    if metric == "accuracy":
        return 1 / len(set(training_targets))
    drawn = np.random.default_rng(0).integers(len(training_targets), size=len(targets))
    return _value(metric, targets, [training_targets[index] for index in drawn])


def _majority(metric: str, targets: Sequence[str], training_targets: Sequence[str]) -> float:
    answer = Counter(training_targets).most_common(1)[0][0]
    return _value(metric, targets, [answer] * len(targets))


def _value(metric: str, targets: Sequence[str], answers: Sequence[str]) -> float:
    if metric == "accuracy":
        return float(np.mean(correct(targets, answers)))
    if metric == "bleu":
        return score_translations(targets, answers).bleu
    return count_word_errors(targets, answers).rate
