"""Fine-tuning SpeechLM or SpeechUT to understand speech from texts and a little speech (arXiv 2310.05919).

    model, processor = load_for_classes("output/speechlm", SENTIMENTS, freeze_layers=2)
    items = [*read_as(texts, "text", processor), *read_as(recordings, "speech", processor)]
    trainer = make_slu_trainer(model, ModalityCollator(processor, SENTIMENTS), items, {}, update, arguments)

Shapes: B rows, T frames.
"""

import inspect
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCTC,
    AutoModelForSequenceClassification,
    AutoProcessor,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ..data.labeled_recordings import LabeledRecording, SpeechChoice, speech_of_minutes
from ..data.labeled_utterances import InputModality
from ..data.modality_batches import ModalityBatches, ModalityCollator, ModalityItem, read_as
from ..modeling.modeling_joint_encoders import JointEncoderForCTC, JointEncoderForSequenceClassification
from ..processing.processing_speechlm import LETTERS, SpeechLMProcessor, letter_tokenizer
from .adapter_arguments import RunArguments
from .adapter_training import training_arguments
from .progress import use_live_progress
from .slu_finetuning_arguments import SLUTaskArguments, SLUUpdateArguments

FIRST_SCALE = 0.01  # of the learning rate, at the first update


# --- the pre-trained model ---


def load_for_classes(
    source: str, labels: Sequence[str], *, revision: str | None = None, **fields: Any
) -> tuple[JointEncoderForSequenceClassification, SpeechLMProcessor]:
    """A pre-trained encoder under a new classifier, and its processor.

    Args:
        source: Hub id or folder of any SpeechLM or SpeechUT; its heads are left out, the new one follows torch's seed.
        labels: names of the classes.
        **fields: of the configuration, such as `freeze_layers`; unknown ones raise `ValueError`.
    """
    names = dict(enumerate(labels))
    fields |= {"id2label": names, "label2id": {label: number for number, label in names.items()}}
    model = _under_a_new_head(AutoModelForSequenceClassification, source, revision, fields)
    return model, AutoProcessor.from_pretrained(source, revision=revision)


def load_for_letters(
    source: str, texts: Sequence[str], *, marks: Sequence[str] = (), revision: str | None = None, **fields: Any
) -> tuple[JointEncoderForCTC, SpeechLMProcessor]:
    """A pre-trained encoder under one new linear layer that spells `texts` and `marks`, and a processor that does.

    Arguments as in `load_for_classes`.
    """
    processor = with_letters(AutoProcessor.from_pretrained(source, revision=revision), [*texts, *marks])
    fields = {"ctc_conv_kernel": 0, **fields, "text_vocab_size": len(processor.tokenizer)}
    return _under_a_new_head(AutoModelForCTC, source, revision, fields), processor


def _under_a_new_head(auto_class: Any, source: str, revision: str | None, fields: Mapping[str, Any]) -> Any:
    config = AutoConfig.from_pretrained(source, revision=revision)
    if unknown := sorted(fields.keys() - config.to_dict().keys() - {"id2label", "label2id"}):
        raise ValueError(f"the configuration of '{source}' has no field '{unknown[0]}'; correct model_fields")
    config = type(config).from_dict({**config.to_dict(), **fields, "dtype": "float32"})
    body = AutoModel.from_pretrained(source, revision=revision, config=config, dtype=torch.float32)
    model = auto_class.from_config(config)
    model.base_model.load_state_dict(body.state_dict())
    return model


def with_letters(processor: SpeechLMProcessor, texts: Sequence[str]) -> SpeechLMProcessor:
    """The processor with a tokenizer that has every character of `texts` as a letter, entity marks included."""
    found = sorted({letter for text in texts for letter in text.upper() if not letter.isspace()} - set(LETTERS))
    parts = ("self", "feature_extractor", "tokenizer")
    names = [name for name in inspect.signature(SpeechLMProcessor.__init__).parameters if name not in parts]
    fields = {name: getattr(processor, name) for name in names}
    return SpeechLMProcessor(processor.feature_extractor, letter_tokenizer([*LETTERS, *found]), **fields)


# --- what is trained on ---


def training_items(
    speech: Sequence[LabeledRecording],
    texts: Sequence[LabeledRecording],
    processor: SpeechLMProcessor,
    task: SLUTaskArguments,
    most: int,
    seed: int,
) -> list[ModalityItem]:
    """The texts, and the speech as far as `task.speech_minutes` goes.

    Args:
        most: frames of a batch. seed: of the choice of speech.
    """
    if task.speech_minutes is not None and speech:
        choice: SpeechChoice = task.speech_choice
        speech = speech_of_minutes(speech, task.speech_minutes, seed, choice, task.task != "entities")
    parts: tuple[tuple[InputModality, Sequence[LabeledRecording]], ...] = (("text", texts), ("speech", speech))
    return [item for modality, clips in parts for item in read_as(clips, modality, processor, task.text_seed, most)]


def impossible_items(items: Sequence[ModalityItem], processor: SpeechLMProcessor) -> int:
    """How many clips have fewer frames than CTC needs for their letters, so that nothing is learned of them."""
    return sum(item.length < _frames_wanted(processor.letter_ids(item.recording.answer)) for item in items)


def _frames_wanted(letters: Sequence[int]) -> int:
    return len(letters) + sum(first == second for first, second in pairwise(letters))


def describe_items(items: Sequence[ModalityItem], frame_rate: float) -> dict[str, Any]:
    """For a report: clips by modality, and minutes of speech."""
    counts = Counter(item.modality for item in items)
    frames = sum(item.length for item in items if item.modality == "speech")
    return {
        "training_speech_clips": counts["speech"],
        "training_speech_minutes": round(frames / frame_rate / 60, 2),
        "training_texts": counts["text"],
    }


# --- training ---


def tri_stage(step: int, warmup: int, hold: int, updates: int, final_scale: float) -> float:
    """What the peak learning rate is multiplied by at an update, counted from 0: up, level, exponentially down."""
    if step < warmup:
        return FIRST_SCALE + (1 - FIRST_SCALE) * step / warmup
    if step <= warmup + hold:
        return 1.0
    fallen = min(1.0, (step - warmup - hold) / max(1, updates - warmup - hold))
    return math.exp(math.log(final_scale) * fallen)


class HeadOnly(TrainerCallback):
    """Trains the head alone for so many updates, then whatever `freeze_layers` leaves; right after resuming, too."""

    def __init__(self, model: Any, updates: int) -> None:
        self.model, self.updates = model, updates
        self.layers = model.config.freeze_layers

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step < self.updates:
            self.model.freeze_encoder()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == self.updates:
            self.model.freeze_bottom(self.layers)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.model.freeze_bottom(self.layers)


class SLUTrainer(Trainer):
    """A `Trainer` whose batches come from `batches`, by a schedule in three stages."""

    lr_scheduler: Any

    def __init__(self, *args: Any, batches: ModalityBatches, update: SLUUpdateArguments, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches, self.update = batches, update

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        if self.lr_scheduler is None:
            stages = (self.update.warmup_steps, self.update.hold_steps, num_training_steps, self.update.final_scale)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: tri_stage(step, *stages))
        return self.lr_scheduler


def slu_training_arguments(
    update: SLUUpdateArguments, output: RunArguments, followed: Collection[str], scored: bool = False
) -> TrainingArguments:
    """transformers' own arguments; those of `update.training_arguments` come last.

    Args:
        followed: modalities of the validation.
        scored: whether validation needs predictions and not the loss alone.

    Raises `ValueError` for a `metric_for_best_model` that no validation measures.
    """
    given = {
        "per_device_train_batch_size": 1,  # how many clips a batch holds is decided elsewhere
        "prediction_loss_only": not scored,
        "train_sampling_strategy": "sequential",  # batches are drawn elsewhere
        "ddp_find_unused_parameters": True,  # a batch of text leaves the speech encoder out
        "accelerator_config": {"dispatch_batches": False, "even_batches": False},
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    asked = update.training_arguments
    if best := asked.get("metric_for_best_model"):
        asked = {**asked, "metric_for_best_model": _best_metric(best, followed)}
    update = replace(update, training_arguments={**given, **asked})
    return training_arguments(update, output, update.max_steps, bool(followed))


def _best_metric(asked: str, followed: Collection[str]) -> str:
    """The metric with its modality, which is speech where that is followed."""
    metric = asked.replace("{modality}", "speech" if "speech" in followed else "text").removeprefix("eval_")
    if metric.split("_")[0] not in followed:
        there = " and ".join(followed) or "nothing"
        raise ValueError(
            f"metric_for_best_model is '{asked}', and validation is of {there}; ask for 'eval_{{modality}}_loss' or "
            f"'eval_{{modality}}_f1', and give validation_data"
        )
    return f"eval_{metric}"


def make_slu_trainer(
    model: Any,
    collator: ModalityCollator,
    items: Sequence[ModalityItem],
    validation: Mapping[str, Sequence[ModalityItem]],
    update: SLUUpdateArguments,
    arguments: TrainingArguments,
    temperature: float = 5.0,
    scores: Callable[[Any], dict[str, float]] | None = None,
) -> SLUTrainer:
    """A `Trainer` with live progress on one line.

    Args:
        items: clips to train on, of one modality or both.
        validation: clips by modality, whose loss is followed.
        scores: of validation, made of predictions and labels.
    """
    batches = ModalityBatches(
        items,
        arguments.max_steps * arguments.gradient_accumulation_steps * arguments.world_size,
        update.batch_frames,
        update.batch_size,
        temperature,
        arguments.data_seed if arguments.data_seed is not None else arguments.seed,
    )
    # Without its processor: a `Trainer` would take the tokenizer's padding, which is CTC's blank, for the model's.
    trainer = SLUTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=list(items),
        eval_dataset={name: list(rows) for name, rows in validation.items()} or None,
        compute_metrics=scores,
        batches=batches,
        update=update,
    )
    trainer.add_callback(HeadOnly(model, update.head_only_steps))
    use_live_progress(trainer, items="batches")
    return trainer


__all__ = [
    "HeadOnly",
    "SLUTrainer",
    "describe_items",
    "impossible_items",
    "load_for_classes",
    "load_for_letters",
    "make_slu_trainer",
    "slu_training_arguments",
    "training_items",
    "tri_stage",
    "with_letters",
]
