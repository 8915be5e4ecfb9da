"""Training a tiny language model: pieces of its vocabulary, examples of its course in their order, its rate."""

import pytest
import torch

from speechzoo.data.text_episodes import LABELS
from speechzoo.data.text_task_dataset import TextTaskDataset
from speechzoo.data.text_tasks import in_context_mixture, vocabulary
from speechzoo.training.training_tiny_language_model import (
    LanguageModelSettings,
    in_context_settings,
    train_language_model,
    train_tokenizer,
)
from speechzoo.training.training_tiny_zoo import tiny_zoo_arguments

SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16}
SETTINGS = LanguageModelSettings(**SHAPE, steps=2, batch_size=4, mixture=in_context_mixture())


def train(folder, learning_rate):
    arguments = tiny_zoo_arguments(SETTINGS.steps, SETTINGS.batch_size, learning_rate, SETTINGS.seed, folder)
    arguments.disable_tqdm = True
    return train_language_model(SETTINGS, arguments)


def test_words_are_whole_or_in_pieces():
    whole, pieces = train_tokenizer(), train_tokenizer(in_context_settings().pieces)
    assert all(len(whole.tokenize(word)) == 1 for word in vocabulary() if "'" not in word)
    assert len(pieces) == in_context_settings().pieces
    assert 1 < sum(len(pieces.tokenize(word)) for word in vocabulary()) / len(vocabulary()) < 4
    assert all(len(pieces.tokenize(label)) == 1 for label in LABELS)
    for tokenizer in (whole, pieces):
        text = "zyx the lamp of emma, 7"
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_first_loss_is_that_of_the_examples_of_the_course(tmp_path):
    """Computed here label by label, on examples drawn anew, of which one is an episode."""
    model, tokenizer, log = train(tmp_path, 0.0)
    dataset = TextTaskDataset(tokenizer, SETTINGS.mixture, SETTINGS.steps * SETTINGS.batch_size, SETTINGS.seed)
    examples = sorted(dataset, key=lambda example: len(example["input_ids"]))
    expected = sorted(mean_loss(model, examples[first : first + 4]) for first in (0, 4))
    assert sorted(float(entry["loss"]) for entry in log if "loss" in entry) == pytest.approx(expected, abs=2e-3)
    sign = tokenizer.convert_tokens_to_ids("<int>")
    assert any(example["input_ids"].count(sign) > 1 for example in examples)


def test_every_weight_moves(tmp_path):
    still, moved = (train(tmp_path, rate)[0].state_dict() for rate in (0.0, 1e-2))
    assert not any(torch.equal(tensor, still[name]) for name, tensor in moved.items())


@pytest.mark.parametrize("decay", [1.0, in_context_settings().decay])
def test_the_learning_rate_falls_in_the_last_share_of_the_steps(tmp_path, decay):
    arguments = tiny_zoo_arguments(100, 4, 1.0, 0, tmp_path, decay=decay)
    assert arguments.warmup_steps == 10
    falling = arguments.lr_scheduler_kwargs["num_decay_steps"]
    assert falling == (90 if decay == 1 else 20)


@torch.no_grad()
def mean_loss(model, examples):
    losses = []
    for example in examples:
        scores = model(torch.tensor([example["input_ids"]])).logits[0].log_softmax(-1)
        losses += [-scores[place - 1, label].item() for place, label in enumerate(example["labels"]) if label != -100]
    return sum(losses) / len(losses)
