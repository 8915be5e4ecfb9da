"""Fine-tuning a pretrained SUTLM to understand: to name the class of a clip, or to write an answer behind it.

    model, processor = load_for_classes("output/sutlm", SENTIMENTS)
    task = ClassSequences(processor, SENTIMENTS)
    rows = sequences_of_labeled(task, utterances, ("speech", "text"))
    trainer = make_finetuning_trainer(model, processor, rows, None, arguments)

Whatever of the pretrained model was frozen is trained here. Shapes: B rows, T tokens.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from datasets import Dataset
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
    Trainer,
    TrainingArguments,
)

from ..data.labeled_utterances import (
    MODALITIES,
    Glue,
    InputModality,
    LabeledUtterance,
    answer_tokens,
    class_tokens,
    question_tokens,
    written_answer,
)
from ..data.synthesized_speech import SYNTHESIZED
from ..modeling.modeling_losses import IGNORED
from ..modeling.modeling_sutlm import SUTLMForCausalLM, SUTLMForSequenceClassification
from ..processing.processing_sutlm import SUTLMProcessor
from .progress import use_live_progress

TRAINED_ON: Mapping[str, tuple[InputModality, ...]] = {"speech": ("speech",), "text": ("text",), "both": MODALITIES}


# --- the pretrained model ---


def load_for_classes(
    source: str, labels: Sequence[str], *, revision: str | None = None, **fields: Any
) -> tuple[SUTLMForSequenceClassification, SUTLMProcessor]:
    """A pretrained body under a new classifier, whose weights follow torch's seed; and the processor.

    Args:
        source: Hub id or folder of any SUTLM.
        labels: names of the classes.
        **fields: of `SUTLMConfig`, such as `classifier_dropout`.
    """
    names = dict(enumerate(labels))
    model = AutoModelForSequenceClassification.from_pretrained(
        source,
        revision=revision,
        dtype=torch.float32,
        id2label=names,
        label2id={label: number for number, label in names.items()},
        **fields,
    )
    return _all_trained(model), AutoProcessor.from_pretrained(source, revision=revision)


def load_for_answers(
    source: str, words: Sequence[str], *, revision: str | None = None
) -> tuple[SUTLMForCausalLM, SUTLMProcessor]:
    """A pretrained model whose vocabulary can spell `words`, and the processor.

    Words that the text tokenizer cannot spell get a token and a row each, see `with_words`; the values of new rows
    follow torch's seed. Both are saved with the model, so that `AutoModelForCausalLM` and `AutoProcessor` read them.
    """
    model = _all_trained(AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=torch.float32))
    processor = with_words(AutoProcessor.from_pretrained(source, revision=revision), words)
    if processor.vocab_size > model.config.vocab_size:
        model.resize_token_embeddings(processor.vocab_size)
    return model, processor


def _all_trained(model: Any) -> Any:
    if model.config.trained_rows == "units":
        model.fold_rows()
    return model


def with_words(processor: SUTLMProcessor, words: Sequence[str]) -> SUTLMProcessor:
    """A processor that spells each of `words`, standing alone, so that it can be read again.

    A byte-level tokenizer, or one with byte fallback, spells everything: it is returned as it is. Elsewhere a word
    that would become `<unk>`, or come back as another, becomes one added token behind the unit pieces.

    Raises `ValueError` when words are lost even so.
    """
    missing = [word for word in words if written_answer(processor, processor.text_tokens(word)) != word]
    if missing:
        tokenizer = copy.deepcopy(processor.tokenizer)
        tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in missing])
        names = ("chat_template", "unit_model_id", "unit_model_revision", "unit_model_hash")
        given = {name: getattr(processor, name) for name in names}
        processor = SUTLMProcessor(tokenizer, processor.segmenter, **given)
    together = written_answer(processor, processor.text_tokens(" a ".join(words))).split()
    if [word for word in together if word in words] != list(words):
        lost = next((word for word in words if word not in together), words[0])
        raise ValueError(f"the text tokenizer cannot write '{lost}' as a word of its own; choose another text LM")
    return processor


# --- sequences ---


class LabeledSequences(Protocol):
    """How a clip with its answer becomes tokens and labels."""

    def encode(self, utterance: LabeledUtterance, modality: InputModality) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ClassSequences:
    """What a classifier reads, and the number of the class."""

    processor: SUTLMProcessor
    labels: Sequence[str]

    def encode(self, utterance: LabeledUtterance, modality: InputModality) -> dict[str, Any]:
        """`input_ids` [T] and `labels`. Raises `ValueError` for an answer that is no class."""
        if utterance.answer not in self.labels:
            raise ValueError(
                f"clip '{utterance.id}' has the label '{utterance.answer}'; choose of {', '.join(self.labels)}"
            )
        tokens = class_tokens(self.processor, utterance, modality)
        return {"input_ids": tokens, "labels": list(self.labels).index(utterance.answer)}


@dataclass(frozen=True)
class AnswerSequences:
    """The clip, then its answer and the end, of which alone there is a loss."""

    processor: SUTLMProcessor
    glue: Glue = "start"

    def encode(self, utterance: LabeledUtterance, modality: InputModality) -> dict[str, Any]:
        """`input_ids` and `labels`, [T] each."""
        question = question_tokens(self.processor, utterance, modality, self.glue)
        answer = answer_tokens(self.processor, utterance)
        return {"input_ids": [*question, *answer], "labels": [*[IGNORED] * len(question), *answer]}


def sequences_of_labeled(
    task: LabeledSequences,
    utterances: Sequence[LabeledUtterance],
    modalities: Sequence[InputModality],
    max_tokens: int | None = None,
) -> Dataset:
    """Every clip in each of the modalities: `input_ids`, `labels` and `length` (tokens), as a `Trainer` takes them.

    Raises `ValueError` where there is no clip, and for a sequence of more than `max_tokens`.
    """
    rows = []
    for modality in modalities:
        for utterance in utterances:
            row = task.encode(utterance, modality)
            length = len(row["input_ids"])
            if max_tokens is not None and length > max_tokens:
                raise ValueError(
                    f"clip '{utterance.id}' read as {modality} takes {length} tokens and max_tokens is {max_tokens}; "
                    f"raise it as far as the model's context goes, or leave the clip out"
                )
            rows.append({**row, "length": length})
    if not rows:
        raise ValueError("there is no clip to fine-tune on; name a corpus that has some")
    return Dataset.from_list(rows)


def refuse_shared_labeled(
    training: Sequence[LabeledUtterance], tests: Mapping[str, Sequence[LabeledUtterance]]
) -> None:
    """Raises `ValueError` when a test, or what settings are chosen by, holds the id of a clip that is trained on.

    So does a clip whose text is trained on in a synthesizer's voice. Else sentences may recur: people say the same in
    several clips.
    """
    trained = {utterance.id.removeprefix(SYNTHESIZED) for utterance in training}
    for name, utterances in tests.items():
        if shared := sorted(trained & {utterance.id.removeprefix(SYNTHESIZED) for utterance in utterances}):
            raise ValueError(
                f"'{name}' shares {len(shared)} clips with the training data, first '{shared[0]}'; keep them apart, "
                f"for instance by source@split"
            )


# --- training ---


@dataclass(frozen=True)
class LabeledCollator:
    """Batches padded on the left: `input_ids` and `attention_mask` [B, T], `labels` [B] or [B, T]."""

    processor: SUTLMProcessor

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        tokens = {"input_ids": [list(row["input_ids"]) for row in rows]}
        padded = self.processor.tokenizer.pad(
            tokens, padding_side="left", return_attention_mask=True, return_tensors="pt"
        )
        width = padded["input_ids"].shape[1]
        labels = [self._padded(row["labels"], width) for row in rows]
        return {**padded, "labels": torch.tensor(labels)}

    @staticmethod
    def _padded(labels: int | Sequence[int], width: int) -> int | list[int]:
        return labels if isinstance(labels, int) else [*[IGNORED] * (width - len(labels)), *labels]


def make_finetuning_trainer(
    model: Any,
    processor: SUTLMProcessor,
    train_rows: Dataset,
    validation_rows: Dataset | None,
    arguments: TrainingArguments,
) -> Trainer:
    """A `Trainer` on rows of `sequences_of_labeled`, with live progress on one line."""
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=LabeledCollator(processor),
        train_dataset=train_rows,
        eval_dataset=validation_rows,
        processing_class=processor,
    )
    use_live_progress(trainer, items="sequences")
    return trainer


__all__ = [
    "TRAINED_ON",
    "AnswerSequences",
    "ClassSequences",
    "LabeledCollator",
    "LabeledSequences",
    "load_for_answers",
    "load_for_classes",
    "make_finetuning_trainer",
    "refuse_shared_labeled",
    "sequences_of_labeled",
    "with_words",
]
