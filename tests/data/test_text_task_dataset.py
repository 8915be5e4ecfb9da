"""Text tasks as token ids: what is supervised, counted in another way, and the order they are trained in."""

import random
from collections import Counter
from itertools import pairwise

import pytest
import torch

from speechzoo.data.text_episodes import Episode, EpisodeCourse
from speechzoo.data.text_task_dataset import (
    PromptEncoder,
    TextCollator,
    TextTaskDataset,
    in_order_by_length,
    spread_out,
)
from speechzoo.data.text_tasks import TextMixture, draw_task, in_context_mixture
from speechzoo.training.training_tiny_language_model import train_tokenizer

SIZE = 1000


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


@pytest.fixture(scope="module")
def examples(tokenizer):
    """Task, causal example and seq2seq example of one and the same course."""
    tasks = [draw_task(TextMixture(), SIZE, 0, index) for index in range(SIZE)]
    causal, seq2seq = (TextTaskDataset(tokenizer, TextMixture(), SIZE, 0, seq2seq=value) for value in (False, True))
    return list(zip(tasks, causal, seq2seq, strict=True))


def without_spreading(tokens, filler):
    """Runs of one token stand for one token, fillers for none: what is left of a text that was spread out."""
    kept = [token for token in tokens if token != filler]
    return [token for number, token in enumerate(kept) if number == 0 or token != kept[number - 1]]


def test_examples_decode_to_their_tasks(examples, tokenizer):
    """By the text of the ids, which no spreading changes but for words said again."""
    filler = tokenizer.convert_tokens_to_ids("<audio>")
    spread = 0
    for task, example, _ in examples:
        if isinstance(task, Episode):
            continue
        supervised = [token for token in example["labels"] if token != -100]
        assert tokenizer.decode(supervised) == f"{task.answer}</s>"
        assert example["input_ids"][-len(supervised) :] == supervised
        prompt = example["input_ids"][: -len(supervised)]
        shown = task.text if task.shown is None else task.shown
        context = f"{task.context}<ctx>" if task.context else ""
        expected = tokenizer.encode(f"{context}{shown}{task.sign}")
        assert without_spreading(prompt, filler) == without_spreading(expected, filler)
        spread += len(prompt) != len(expected)
        assert len(prompt) == len(expected) or prompt.count(filler) >= expected.count(filler)
        before = len(tokenizer.encode(context)) if context else 1
        assert prompt[:before] == expected[:before], "only the text is spread out"
    assert 0.4 < spread / sum(not isinstance(task, Episode) for task, _, _ in examples[300:]) < 0.6


def test_nothing_is_spread_out_at_first(examples, tokenizer):
    filler = tokenizer.convert_tokens_to_ids("<audio>")
    assert not any(filler in example["input_ids"] for _, example, _ in examples[:300])


def test_an_episode_supervises_every_word_but_the_first_of_its_class(examples, tokenizer):
    sign = tokenizer.convert_tokens_to_ids("<int>")
    whole, episodes = 0, [(task, example) for task, example, _ in examples if isinstance(task, Episode)]
    for task, example in episodes:
        tokens, labels = example["input_ids"], example["labels"]
        answers = [place + 1 for place, token in enumerate(tokens) if token == sign]
        assert [tokenizer.decode(tokens[place]) for place in answers] == list(task.labels)
        expected = [answers[n] for n, word in enumerate(task.labels) if word in task.labels[:n]]
        assert [place for place, label in enumerate(labels) if label != -100] == expected
        assert all(labels[place] == tokens[place] for place in expected) and expected[-1] == len(tokens) - 1
        plain = PromptEncoder(tokenizer).episode(task)["input_ids"]
        whole += plain == tokens
    assert len(episodes) > 60 and 0.3 < whole / len(episodes) < 0.7


def test_the_plain_form_of_an_episode(tokenizer):
    episode = Episode(("lights on", "music off", "lamp on"), ("red", "blue", "red"))
    example = PromptEncoder(tokenizer).episode(episode)
    assert tokenizer.decode(example["input_ids"]) == "<s> lights on<int> red music off<int> blue lamp on<int> red"
    assert [label for label in example["labels"] if label != -100] == tokenizer.encode("red", add_special_tokens=False)


def test_of_names_of_classes_the_last_is_supervised_and_a_closed_episode_ends(tokenizer):
    episode = Episode(("lights on", "music off", "lamp on"), ("blue", "blue", "warm hat"), asked="last")
    for closed in (False, True):
        example = PromptEncoder(tokenizer).episode(episode, closed=closed)
        text = "<s> lights on<int> blue music off<int> blue lamp on<int> warm hat" + "</s>" * closed
        assert tokenizer.decode(example["input_ids"]) == text
        supervised = [token for token in example["labels"] if token != -100]
        assert tokenizer.decode(supervised).strip() == "warm hat" + "</s>" * closed


def test_of_a_sequence_all_names_are_supervised(tokenizer):
    episode = Episode(("lights on", "music off"), ("warm hat", "blue"), asked="all")
    example = PromptEncoder(tokenizer).episode(episode)
    supervised = [token for token in example["labels"] if token != -100]
    assert tokenizer.decode(supervised) == "warm hat blue"
    assert tokenizer.decode(example["input_ids"]) == "<s> lights on<int> warm hat music off<int> blue"


def test_nothing_is_spread_out_for_a_model_that_learns_in_context(tokenizer):
    dataset, filler = (
        TextTaskDataset(tokenizer, in_context_mixture(), 300, 0),
        tokenizer.convert_tokens_to_ids("<audio>"),
    )
    assert not any(filler in example["input_ids"] for example in dataset)


def test_episodes_of_a_course_are_closed_and_spread_out_late(tokenizer):
    mixture, filler = TextMixture(0.0, 1.0, 0.8, episodes=EpisodeCourse()), tokenizer.convert_tokens_to_ids("<audio>")
    tasks = [draw_task(mixture, 600, 0, index) for index in range(600)]
    dataset = TextTaskDataset(tokenizer, mixture, 600, 0)
    drawn = [(task, dataset[index], index) for index, task in enumerate(tasks) if isinstance(task, Episode)]
    spread = Counter()
    for task, example, index in drawn:
        end = [*tokenizer.encode(task.labels[-1], add_special_tokens=False), tokenizer.eos_token_id]
        assert example["input_ids"][-len(end) :] == example["labels"][-len(end) :] == end
        assert len(example["input_ids"]) == len(example["labels"])
        kind = "whole" if filler not in example["input_ids"] else "spread"
        spread["early" if index < 360 else "late", kind] += 1
    assert not spread["early", "spread"]
    late = spread["late", "spread"] / (spread["late", "spread"] + spread["late", "whole"])
    assert late == pytest.approx(sum(mixture.episodes.spread), abs=0.1)
    closing = TextTaskDataset(tokenizer, mixture, 600, 0, seq2seq=True)[drawn[0][2]]
    assert closing["input_ids"][-1] == tokenizer.convert_tokens_to_ids("<int>")


def test_encoder_and_decoder_share_the_causal_example(examples, tokenizer):
    for task, causal, seq2seq in examples:
        split = list(seq2seq["labels"])
        assert split[-1] == tokenizer.eos_token_id
        whole = seq2seq["input_ids"] + (split[:-1] if isinstance(task, Episode) else split)
        assert whole == causal["input_ids"]
        assert -100 not in split and tokenizer.decode(seq2seq["input_ids"][-1]).strip() in (
            "<asr>", "<int>", "<mt>", "<ans>", "<dlg>", "<con>",
        )  # fmt: skip


def test_spreading_keeps_every_token_in_order():
    for seed in range(200):
        tokens = random.Random(seed).sample(range(10, 100), 8)
        spread = spread_out(tokens, 4, random.Random(seed))
        assert without_spreading(spread, 4) == tokens
        assert all(1 <= spread.count(token) <= 3 for token in tokens)
    assert spread_out([], 4, random.Random(1)).count(4) == len(spread_out([], 4, random.Random(1)))


def test_the_dataset_ends_and_depends_on_seed_and_index_alone(tokenizer):
    dataset = TextTaskDataset(tokenizer, TextMixture(), 20, 5)
    assert len(dataset) == len(list(dataset)) == 20 and list(dataset) == [dataset[index] for index in range(20)]
    assert list(TextTaskDataset(tokenizer, TextMixture(), 20, 6)) != list(dataset)
    with pytest.raises(IndexError):
        dataset[20]


def test_batches_of_like_length_stay_in_their_window():
    lengths = [random.Random(index).randint(1, 100) for index in range(1000)]
    order = in_order_by_length(lengths, batch_size=10, seed=0, window=20)
    assert sorted(order) == list(range(1000)) and order != list(range(1000))
    for start in range(0, 1000, 200):
        assert set(order[start : start + 200]) == set(range(start, start + 200))
        batches = [[lengths[index] for index in order[at : at + 10]] for at in range(start, start + 200, 10)]
        edges = sorted((min(batch), max(batch)) for batch in batches)
        assert all(this[1] <= following[0] for this, following in pairwise(edges))
        assert [min(batch) for batch in batches] != sorted(min(batch) for batch in batches)
    assert order == in_order_by_length(lengths, 10, 0, 20) != in_order_by_length(lengths, 10, 1, 20)


def test_the_collator_pads_on_the_right():
    batch = TextCollator(0)([{"input_ids": [1, 7, 8], "labels": [-100, 8]}, {"input_ids": [1], "labels": [9, 9, 2]}])
    assert torch.equal(batch["input_ids"], torch.tensor([[1, 7, 8], [1, 0, 0]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert torch.equal(batch["labels"], torch.tensor([[-100, 8, -100], [9, 9, 2]]))
