"""Training a language model on: from the weights of a folder, on the examples of the course, in their order."""

import pytest
import torch
from transformers import TrainingArguments

from speechzoo.data.text_task_dataset import TextTaskDataset
from speechzoo.training.training_tiny_language_model import (
    InContextSettings,
    LanguageModelSettings,
    new_language_model,
    teach_in_context_learning,
    train_tokenizer,
)

SETTINGS = InContextSettings(steps=2, batch_size=4)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    tokenizer = train_tokenizer()
    shape = LanguageModelSettings(hidden_size=16, layers=1, heads=2, intermediate_size=16)
    new_language_model(tokenizer, shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def teach(start, folder, learning_rate):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=SETTINGS.steps,
        per_device_train_batch_size=SETTINGS.batch_size,
        learning_rate=learning_rate,
        logging_steps=1,
        use_cpu=True,
        save_strategy="no",
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )
    return teach_in_context_learning(start, SETTINGS, arguments)


def test_it_starts_from_the_weights_of_the_folder(start, tmp_path):
    """With a learning rate of zero they stay; with another one every one of them moves."""
    still, tokenizer, log = teach(start, tmp_path, 0.0)
    moved, _, _ = teach(start, tmp_path, 1e-2)
    before = type(still).from_pretrained(start).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in still.state_dict().items())
    assert not any(torch.equal(tensor, before[name]) for name, tensor in moved.state_dict().items())
    assert still.config.use_cache and len(tokenizer) == still.config.vocab_size
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2]


def test_the_first_loss_is_that_of_the_examples_of_the_course(start, tmp_path):
    """Computed here label by label, on examples drawn anew: closed episodes among them, in batches of like length."""
    model, tokenizer, log = teach(start, tmp_path, 0.0)
    dataset = TextTaskDataset(tokenizer, SETTINGS.mixture, SETTINGS.steps * SETTINGS.batch_size, SETTINGS.seed)
    examples = sorted(dataset, key=lambda example: len(example["input_ids"]))
    expected = sorted(mean_loss(model, examples[first : first + 4]) for first in (0, 4))
    assert sorted(float(entry["loss"]) for entry in log if "loss" in entry) == pytest.approx(expected, abs=2e-3)
    assert any(example["input_ids"][-1] == tokenizer.eos_token_id for example in examples)


@torch.no_grad()
def mean_loss(model, examples):
    losses = []
    for example in examples:
        scores = model(torch.tensor([example["input_ids"]])).logits[0].log_softmax(-1)
        losses += [-scores[place - 1, label].item() for place, label in enumerate(example["labels"]) if label != -100]
    return sum(losses) / len(losses)
