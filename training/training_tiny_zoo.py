"""What the training of the tiny zoo's two models shares: Trainer settings and the way checkpoints are saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainingArguments

from .adapter_training import has_bfloat16_units

_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path")


def tiny_zoo_arguments(
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    scratch: Path,
    evaluation_steps: int | None = None,
    decay: float = 1.0,
) -> TrainingArguments:
    """AdamW, on the CPU, in bfloat16 where the CPU has units for it.

    decay: the last share of the steps, in which the learning rate falls to 0 along a cosine.
    """
    warmup = min(200, steps // 10)
    return TrainingArguments(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=20,
        learning_rate=learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": min(round(decay * steps), steps - warmup), "decay_type": "cosine"},
        warmup_steps=warmup,
        weight_decay=0.01,
        adam_beta2=0.98,
        seed=seed,
        bf16=has_bfloat16_units(),
        use_cpu=True,
        logging_steps=max(steps // 100, 1),
        eval_strategy="steps" if evaluation_steps else "no",
        eval_steps=evaluation_steps,
        save_strategy="no",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
    )


def save_checkpoint(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    """Save a model in bfloat16, half the bytes, with its processor or tokenizer.

    The configuration asks for float32, so that the model computes in it whoever loads it, on any CPU.
    """
    model.eval().to(torch.bfloat16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    model.to(torch.float32)
    _rewrite(folder / "config.json", dtype="float32")
    _rewrite(folder / "tokenizer_config.json")


def _rewrite(path: Path, **changes: Any) -> None:
    content = {**json.loads(path.read_text()), **changes}
    kept = {name: value for name, value in content.items() if name not in _OF_THIS_MACHINE}
    path.write_text(json.dumps(kept, indent=2) + "\n")
