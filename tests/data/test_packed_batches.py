"""Packing against brute force; losses and gradients of packed rows against each sequence alone."""

import random

import pytest
import tiny_models
import torch
import transformers
from torch.utils.data import DataLoader

from speechzoo import SUTLMConfig, SUTLMForCausalLM
from speechzoo.data.packed_batches import PackedCollator, PackedRows, pack, shared_row

LENGTHS = (9, 1, 14, 6, 3, 11)
FAMILIES = {
    **{name: tiny_models.CAUSAL[name] for name in ("llama", "gpt2", "opt", "gemma3")},
    "mistral": lambda: transformers.MistralConfig(sliding_window=4, **tiny_models.DECODER),
}


def lists(*lengths: int, seed: int = 0) -> list[dict[str, list[int]]]:
    draw = random.Random(seed)
    return [{"input_ids": [draw.randrange(4, 64) for _ in range(length)]} for length in lengths]


def lengths_of(rows) -> list[list[int]]:
    return [[len(sequence) for sequence in row] for row in rows]


# --- rows ---


@pytest.mark.parametrize("seed", range(20))
def test_each_sequence_goes_into_the_first_row_with_room(seed):
    draw = random.Random(seed)
    sizes = [draw.randint(1, 30) for _ in range(60)]
    expected: list[list[int]] = []
    for number, size in enumerate(sizes):
        fitting = [row for row in expected if sum(sizes[other] for other in row) + size <= 30]
        if fitting:
            fitting[0].append(number)
        else:
            expected.append([number])
    packed = list(pack(range(60), 30, sizes.__getitem__, open_rows=None))
    assert sorted(packed) == sorted(expected)


@pytest.mark.parametrize("open_rows", [1, 2, 5])
def test_few_rows_wait(open_rows):
    draw = random.Random(0)
    sizes = [draw.randint(1, 20) for _ in range(200)]
    waiting = iter(range(200))
    seen: set[int] = set()
    for row in pack(waiting, 30, sizes.__getitem__, open_rows):
        assert sum(sizes[number] for number in row) <= 30
        seen |= set(row)
        read = 200 - waiting.__length_hint__()
        held = sum(sizes[number] for number in set(range(read)) - seen)
        assert held <= 30 * (open_rows + 1)
    assert seen == set(range(200))


def test_one_open_row_keeps_the_order():
    sequences = ["aaaa", "bbb", "c", "dddd", "ee", "ffffff", "g"]
    assert list(pack(sequences, 8, len, open_rows=1)) == [["aaaa", "bbb", "c"], ["dddd", "ee"], ["ffffff", "g"]]
    assert list(pack(sequences, 8, len)) == [["aaaa", "bbb", "c"], ["dddd", "ee", "g"], ["ffffff"]]


@pytest.mark.parametrize("size", [0, 9])
def test_sequences_that_fit_no_row_are_named(size):
    with pytest.raises(ValueError, match=f"sequence 2 has {size} tokens; rows take 1 to 8"):
        list(pack([5, 8, size], 8, int))


def test_a_row_restarts_positions_and_never_asks_for_a_first_token():
    row = shared_row([{"input_ids": [7, 8, 9], "modality": [0, 1, 1]}, {"input_ids": [5, 6], "labels": [5, 6]}])
    assert row == {
        "input_ids": [7, 8, 9, 5, 6],
        "labels": [-100, 8, 9, -100, 6],
        "position_ids": [0, 1, 2, 0, 1],
    }
    assert shared_row([{"input_ids": [7, 8, 9], "labels": [-100, -100, 9]}])["labels"] == [-100, -100, 9]


def test_a_stream_is_packed_alike_each_time_and_by_any_number_of_workers():
    rows = PackedRows(lambda: iter(lists(*LENGTHS * 5)), capacity=20, open_rows=3)
    alone = list(rows)
    assert list(rows) == alone
    assert sum(len(row["input_ids"]) for row in alone) == 5 * sum(LENGTHS)
    shared = list(DataLoader(rows, batch_size=None, num_workers=2))
    assert sorted(row["input_ids"] for row in shared) == sorted(row["input_ids"] for row in alone)


# --- losses ---


def sutlm(family: str, implementation: str = "sdpa") -> SUTLMForCausalLM:
    torch.manual_seed(0)
    fields = {"unit_token_start": 40, "unit_token_count": 20, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    config = SUTLMConfig(text_config=FAMILIES[family](), attn_implementation=implementation, **fields)
    model = SUTLMForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return model.eval()  # without dropout, which would differ


def gradients(model) -> list[torch.Tensor]:
    found = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    return found


@pytest.mark.parametrize(
    ("family", "implementation", "capacity"),
    [*((family, "sdpa", None) for family in FAMILIES), ("llama", "eager", 20), ("opt", "eager", 20)],
)
def test_losses_and_gradients_are_those_of_each_sequence_alone(family, implementation, capacity):
    model, sequences = sutlm(family, implementation), lists(*LENGTHS)
    targets = sum(LENGTHS) - len(LENGTHS)
    expected = 0.0
    for sequence in sequences:
        row = torch.tensor([sequence["input_ids"]])
        loss = model(row, labels=row, num_items_in_batch=targets).loss
        loss.backward()
        expected += loss.item()
    expected_gradients = gradients(model)
    batch = PackedCollator(capacity)(sequences)
    assert batch["input_ids"].shape == ((1, sum(LENGTHS)) if capacity is None else (3, 19))
    loss = model(**batch).loss
    loss.backward()
    assert abs(loss.item() - expected) < 1e-5
    for got, wanted in zip(gradients(model), expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_accumulated_batches_make_the_step_of_one():
    model, sequences = sutlm("gpt2"), lists(*LENGTHS)
    targets = sum(LENGTHS) - len(LENGTHS)
    model(**PackedCollator()(sequences)).loss.backward()
    whole = gradients(model)
    for part in (sequences[:2], sequences[2:]):
        batch = PackedCollator()(part)
        model(**batch, num_items_in_batch=targets).loss.backward()
    for got, wanted in zip(gradients(model), whole, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_sequence_sees_another(family):
    """Other tokens in one sequence change its own logits, from the place on, and no others."""
    model, sequences = sutlm(family), lists(9, 6, 14)
    batch = {name: tensor for name, tensor in PackedCollator()(sequences).items() if name != "labels"}
    before = model(**batch).logits[0]
    batch["input_ids"][0, 9:11] += 1
    changed = (model(**batch).logits[0] != before).any(-1).nonzero()[:, 0].tolist()
    assert changed == list(range(9, 15))


def test_padding_is_seen_by_none():
    model, sequences = sutlm("llama"), lists(12, 5)
    batch = PackedCollator(capacity=12)(sequences)
    assert batch["input_ids"].shape == (2, 12) and (batch["labels"][1, 5:] == -100).all()
    assert batch["position_ids"][1].tolist() == [*range(5), *range(7)]
    loss = model(**batch).loss
    other = PackedCollator(capacity=12, pad_token_id=33)(sequences)
    torch.testing.assert_close(model(**other).loss, loss, rtol=0, atol=0)
