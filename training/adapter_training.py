"""The steps of training a speech-text adapter: assemble, read corpora, train."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..configuration.answer_forms import answer_forms
from ..data.corpora import load_corpus, task_examples
from ..data.encoded_speech import encode_corpus, open_store
from ..data.seal_collator import SealCollator
from ..data.speech_text_collator import SpeechTextCollator
from ..data.synthetic_corpus import default_cache_directory
from ..modeling.modeling_speech_text_adapter import SpeechTextAdapterForConditionalGeneration
from ..modeling.modeling_speech_text_generation import SpeechTextForConditionalGeneration
from ..processing.processing_speech_text_adapter import SpeechTextAdapterProcessor
from .adapter_arguments import (
    AdapterArguments,
    BackboneArguments,
    DataArguments,
    OptimizationArguments,
    RunArguments,
    UpdateArguments,
)
from .progress import use_live_progress

FEATURES = "features"  # the folder of kept encoder frames, in the cache


def assemble(
    backbones: BackboneArguments, adapter: AdapterArguments, data: DataArguments
) -> tuple[SpeechTextForConditionalGeneration, SpeechTextAdapterProcessor]:
    """A model with a random adapter between two pretrained backbones, and its processor."""
    return assemble_system(SpeechTextAdapterForConditionalGeneration, backbones, data, **asdict(adapter))


def assemble_system(
    system: type[SpeechTextForConditionalGeneration], backbones: BackboneArguments, data: DataArguments, **fields: Any
) -> tuple[SpeechTextForConditionalGeneration, SpeechTextAdapterProcessor]:
    """A model of this class, with random weights between two pretrained backbones, and its processor.

    Random weights, those of LoRA too, follow the seed that was set last.

    Args:
        **fields: of the system's own configuration.
    """
    model = system.from_backbones(
        backbones.audio_model,
        backbones.text_model,
        audio_model_revision=backbones.audio_model_revision,
        text_model_revision=backbones.text_model_revision,
        dtype=backbones.dtype,
        unfrozen=backbones.unfrozen,
        lora_modules=backbones.lora_modules or None,
        lora_rank=backbones.lora_rank,
        lora_alpha=backbones.lora_alpha,
        lora_dropout=backbones.lora_dropout,
        lora_seed=torch.initial_seed(),
        quantization=backbones.quantization,
        **fields,
    )
    processor = SpeechTextAdapterProcessor.from_model_config(
        model.config,
        prompts=data.prompts,
        audio_token=data.audio_token,
        chunk_seconds=data.chunk_seconds,
        max_audio_seconds=data.max_audio_seconds,
    )
    return model, processor


def read_training_examples(data: DataArguments) -> Dataset:
    """The examples of `train_data`. Raises `ValueError` when there are none, of a task or at all."""
    if not data.train_data:
        raise ValueError("there is nothing to train on; name at least one corpus in train_data")
    examples = read_examples(data.train_data, data)
    if missing := sorted(set(data.tasks) - set(examples["task"])):
        raise ValueError(f"no training corpus has the column '{data.tasks[missing[0]]}' of task '{missing[0]}'")
    return examples


def answer_field(data: DataArguments, examples: Dataset) -> dict[str, dict[str, Any]] | None:
    """The field `answers` of a configuration, by `data.answer_forms` and the targets of training examples.

    Raises `ValueError` for a task that is not trained on, and for a form that there is not.
    """
    if unknown := sorted(data.answer_forms.keys() - data.tasks.keys()):
        raise ValueError(f"answer_forms describes '{unknown[0]}', which is no task; choose of {', '.join(data.tasks)}")
    targets = zip(examples["task"], examples["target"], strict=True)
    labels: dict[str, set[str]] = {}
    for task, target in targets:
        labels.setdefault(task, set()).add(target)
    found = {task: _answer_form(task, given, labels[task]) for task, given in data.answer_forms.items()}
    answer_forms(found)
    return found or None


def _answer_form(task: str, given: Any, targets: set[str]) -> dict[str, Any]:
    match given:
        case "labels":
            return {"labels": sorted(targets)}
        case list():
            return {"slots": given}
        case dict():
            return given
    raise ValueError(f"answer_forms of '{task}' is {given!r}; write `labels`, a list of slots, or marks and end")


def refuse_shared_clips(train_examples: Dataset, tests: Mapping[str, Dataset]) -> None:
    """Raises `ValueError` when a test holds the id of a clip that is trained on."""
    trained = set(train_examples["id"])
    for name, rows in tests.items():
        if shared := trained & set(rows["id"]):
            raise ValueError(
                f"test '{name}' shares {len(shared)} clips with the training data, first '{min(shared)}'; "
                f"keep them apart, for instance by source@split"
            )


def read_examples(sources: Sequence[str], data: DataArguments) -> Dataset:
    """Every clip and task of several corpora, mixed in proportion to their sizes.

    Raises `ValueError` for a corpus that has answers for no task, and for two corpora that share the id of a clip.
    """
    parts = []
    for source in sources:
        name, _, split = source.partition("@")
        corpus = load_corpus(name, split or None, data.columns)
        tasks = {task: column for task, column in data.tasks.items() if column in corpus.column_names}
        if not tasks:
            raise ValueError(f"'{name}' has none of the columns {', '.join(data.tasks.values())} that tasks name")
        parts.append(task_examples(corpus, tasks))
    _check_distinct(dict(zip(sources, parts, strict=True)))
    return concatenate_datasets(parts)


def _check_distinct(examples: Mapping[str, Dataset]) -> None:
    """Clips are known by their ids, so two corpora must not share one."""
    owner: dict[str, str] = {}
    for source, rows in examples.items():
        for clip in set(rows["id"]):
            if owner.setdefault(clip, source) != source:
                raise ValueError(f"'{owner[clip]}' and '{source}' both have a clip '{clip}'; give each its own id")


def use_all_cores() -> int:
    """Gives PyTorch this process's share of the cores and returns the number of processes.

    Launchers set one thread for each process, which leaves most of a CPU idle. Raises `RuntimeError` when a launcher
    started several processes that do not know of each other.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if PartialState(cpu=not torch.cuda.is_available()).num_processes != processes:
        raise RuntimeError(f"{processes} processes were started as single ones; launch with torchrun or --multi_gpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    return processes


def keep_encoder_frames(
    model: SpeechTextForConditionalGeneration,
    processor: SpeechTextAdapterProcessor,
    examples: Sequence[Dataset],
    optimization: OptimizationArguments,
) -> tuple[SpeechTextCollator, list[Dataset]]:
    """Runs the frozen encoder once per clip; the collator and the data sets then need no audio."""
    model.to(PartialState().device)
    root = (optimization.cache_directory or default_cache_directory()) / FEATURES
    store = open_store(root, model, processor)
    keyed = [encode_corpus(model, processor, rows, store, workers=optimization.workers) for rows in examples]
    return SpeechTextCollator(processor, store=store), keyed


def has_bfloat16_units() -> bool:
    """Whether bfloat16 arithmetic is faster than float32 here."""
    return torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()


def training_arguments(
    optimization: UpdateArguments, output: RunArguments, updates: int, evaluates: bool
) -> TrainingArguments:
    """transformers' own arguments. `updates`: optimizer steps of the whole run.

    Raises `ValueError` for a token among them, which reports would tell.
    """
    if tokens := {"hub_token", "push_to_hub_token"} & optimization.training_arguments.keys():
        raise ValueError(f"training_arguments has {min(tokens)}, which the report would tell; set HF_TOKEN instead")
    every = max(1, updates // max(optimization.evaluations, 1))
    fields: dict[str, Any] = {
        "output_dir": str(output.output_dir / "checkpoints"),
        "max_steps": updates,
        "per_device_train_batch_size": optimization.batch_size,
        "per_device_eval_batch_size": output.test_batch_size,
        "gradient_accumulation_steps": optimization.accumulation_steps,
        "learning_rate": optimization.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": optimization.warmup_steps,
        "weight_decay": optimization.weight_decay,
        "adam_beta2": 0.98,
        "bf16": has_bfloat16_units() if optimization.bf16 is None else optimization.bf16,
        "seed": optimization.seed,
        "dataloader_num_workers": optimization.workers,
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": every,
        "logging_steps": max(1, updates // 100),
        "save_strategy": "steps" if output.save_steps else "no",
        "save_steps": output.save_steps or updates,
        "save_total_limit": 1,
        "remove_unused_columns": False,
        "prediction_loss_only": True,
        "label_names": ["labels"],
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
        # Each process reads a stream for itself: batches of several differ in length, and do not make one tensor.
        "accelerator_config": {"dispatch_batches": False},
    }
    if optimization.gradient_checkpointing:
        fields["gradient_checkpointing"] = True
    return TrainingArguments(**{**fields, **optimization.training_arguments})


def optimizer_updates(examples: int, optimization: OptimizationArguments, processes: int = 1) -> int:
    """Updates of the whole run: given, or so many epochs of whole batches."""
    if optimization.max_steps > 0:
        return optimization.max_steps
    per_update = optimization.batch_size * optimization.accumulation_steps * processes
    return max(1, round(optimization.epochs * examples / per_update))


def make_trainer(
    model: SpeechTextForConditionalGeneration,
    collator: SpeechTextCollator | SealCollator,
    train_examples: Dataset,
    validation_examples: Dataset | None,
    arguments: TrainingArguments,
) -> Trainer:
    """A `Trainer` with live progress on one line."""
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=train_examples,
        eval_dataset=validation_examples,
        processing_class=collator.processor,
    )
    seconds = sum(train_examples["length"]) / len(train_examples)
    use_live_progress(trainer, seconds or None)
    return trainer


def train(trainer: Trainer, resume: bool) -> None:
    """Trains from the start, or from the last checkpoint of the output folder.

    Raises `FileNotFoundError` when there is none to resume from.
    """
    checkpoint = get_last_checkpoint(trainer.args.output_dir) if resume else None
    if resume and checkpoint is None:
        raise FileNotFoundError(f"'{trainer.args.output_dir}' holds no checkpoint; train with --save_steps first")
    trainer.train(resume_from_checkpoint=checkpoint)
    # Mixed precision wraps the model's forward; what is saved and tested must run as it will after loading.
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
