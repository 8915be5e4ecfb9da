"""Teacher distributions kept on disk: equal losses, no work twice, several processes, no stale entry."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from speechzoo.data import teacher_distributions
from speechzoo.data.feature_store import FACTS
from speechzoo.data.teacher_distributions import TeacherReading, TeacherStore, keep_distributions
from speechzoo.modeling.modeling_divergences import (
    Divergence,
    TopDistribution,
    linear_divergences,
    linear_divergences_to_top,
    top_distribution,
)

VOCABULARY, K, TEMPERATURE = 50, 8, 2.0


@pytest.fixture
def language_model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().requires_grad_(False)


class CountedTeacher:
    """Runs the LM over a padded batch, and counts what it was asked."""

    def __init__(self, language_model):
        self.language_model, self.batches = language_model, []

    def states(self, readings):
        longest = max(len(reading.token_ids) for reading in readings)
        padded = torch.zeros(len(readings), longest, dtype=torch.long)
        for row, reading in zip(padded, readings, strict=True):
            row[: len(reading.token_ids)] = torch.tensor(reading.token_ids)
        hidden = self.language_model.model(input_ids=padded).last_hidden_state  # padding on the right is not seen
        return torch.cat([row[list(reading.positions)] for row, reading in zip(hidden, readings, strict=True)])

    def __call__(self, readings):
        self.batches.append(list(readings))
        return top_distribution(self.states(readings), self.language_model.lm_head.weight, K, TEMPERATURE)

    @property
    def asked(self):
        return [reading for batch in self.batches for reading in batch]


@pytest.fixture
def teacher(language_model):
    return CountedTeacher(language_model)


@pytest.fixture
def store(tmp_path, language_model):
    return TeacherStore(tmp_path, language_model, K, TEMPERATURE)


def corpus(count=9):
    """Texts of 5 to 13 tokens, the last three of which are supervised; the last text is the first once more."""
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(VOCABULARY, (13 - place,), generator=generator).tolist() for place in range(count)]
    return [TeacherReading(text, range(len(text) - 4, len(text) - 1)) for text in (*texts, texts[0])]


# ---- what is kept --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "reverse", "jensen_shannon"])
def test_a_cached_epoch_runs_no_teacher_and_loses_only_the_tail(store, teacher, language_model, direction):
    readings, weight = corpus(), language_model.lm_head.weight
    keys = keep_distributions(teacher, readings, store, batch_size=4)
    asked, divergence = len(teacher.asked), Divergence(direction, TEMPERATURE)
    again = keep_distributions(teacher, readings, store, batch_size=4)
    assert again == keys and len(teacher.asked) == asked == 9
    student = torch.randn(30, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    cached = linear_divergences_to_top(
        student, TopDistribution.joined([store.read(key) for key in keys]), weight, divergence
    )
    alone = torch.cat([teacher.states([reading]) for reading in readings])
    live_top = top_distribution(alone, weight, K, TEMPERATURE)
    torch.testing.assert_close(
        cached, linear_divergences_to_top(student, live_top, weight, divergence), atol=1e-5, rtol=0
    )
    whole = linear_divergences(student, alone, weight, divergence)
    assert (cached < whole).all()
    gradients = [torch.autograd.grad(loss.sum(), student)[0] for loss in (cached, whole)]
    if direction == "forward":  # what reaches a state is at most what reaches the logits, times the longest row
        bound = 2 * TEMPERATURE * live_top.tail.exp() * weight.norm(dim=-1).max()
        assert ((gradients[0] - gradients[1]).norm(dim=-1) <= bound).all()


def test_what_is_written_is_read_by_another_as_it_was(store, teacher, tmp_path, language_model):
    readings = corpus()
    store.write({readings[0].key: teacher(readings[:1])})
    other = TeacherStore(tmp_path, language_model, K, TEMPERATURE)
    assert len(other) == 1 and readings[0].key in other and readings[1].key not in other
    kept, expected = other.read(readings[0].key), teacher(readings[:1])
    for name in ("token_ids", "log_probabilities", "tail"):
        got, wanted = getattr(kept, name), getattr(expected, name)
        assert got.dtype == wanted.dtype and torch.equal(got, wanted)
    assert kept.temperature == TEMPERATURE
    with pytest.raises(KeyError, match=r"run keep_distributions first"):
        other.read(readings[1].key)


def test_keys_are_everything_that_is_read_and_asked():
    reading = TeacherReading((1, 2, 3), (1, 2))
    assert reading.key == TeacherReading([1, 2, 3], range(1, 3)).key
    others = [
        replace(reading, token_ids=(1, 2, 4)),
        replace(reading, positions=(2,)),
        replace(reading, decoder_token_ids=(0, 1, 2)),
        TeacherReading((1, 2), (1,), (3, 2)),
        TeacherReading((1, 2, 3, 2), (1, 2)),
    ]
    assert len({one.key for one in (reading, *others)}) == 6


@pytest.mark.parametrize("positions", [(), (3,), (-1, 2)])
def test_positions_that_are_not_read_are_refused(positions):
    with pytest.raises(ValueError, match=r"must be places of the 3 tokens that are read"):
        TeacherReading((1, 2, 3), positions)
    TeacherReading((1,), (1, 2), decoder_token_ids=(0, 5, 6))


# ---- the work ------------------------------------------------------------------------------------------------------


def test_equal_readings_are_asked_once_in_batches_of_one_length(store, teacher):
    readings = corpus()
    keys = keep_distributions(teacher, readings, store, batch_size=4)
    assert keys == [reading.key for reading in readings] and keys[0] == keys[-1]
    lengths = [[len(reading.token_ids) for reading in batch] for batch in teacher.batches]
    assert lengths == [[5, 6, 7, 8], [9, 10, 11, 12], [13]]


def test_an_interrupted_run_goes_on(store, teacher, monkeypatch):
    readings = corpus()
    with monkeypatch.context() as patch:
        write, written = store.write, []
        patch.setattr(store, "write", lambda entries: (write(entries), written.append(1)) if not written else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            keep_distributions(teacher, readings, store, batch_size=2, shard_readings=4)
    assert len(store) == 4 and len(teacher.asked) == 8
    keep_distributions(teacher, readings, store, batch_size=2, shard_readings=4)
    assert len(store) == 9 and len(teacher.asked) == 8 + 5


def test_processes_share_the_work_though_one_begins_late(tmp_path, language_model, monkeypatch):
    """The second opens the store when the first has filled it halfway, and neither does the other's share."""
    readings, teachers, keys = corpus(), [CountedTeacher(language_model) for _ in range(2)], []
    monkeypatch.setattr(teacher_distributions, "_check_complete", lambda *_: None)  # nothing waits in one process
    for index, counted in enumerate(teachers):
        state = SimpleNamespace(
            process_index=index, num_processes=2, is_local_main_process=index == 0, wait_for_everyone=lambda: None
        )
        monkeypatch.setattr(teacher_distributions, "PartialState", lambda state=state: state)
        keys.append(keep_distributions(counted, readings, TeacherStore(tmp_path, language_model, K, TEMPERATURE)))
    asked = [{reading.key for reading in counted.asked} for counted in teachers]
    assert keys[0] == keys[1] and not asked[0] & asked[1]
    assert asked[0] | asked[1] == set(keys[0]) and {len(one) for one in asked} == {4, 5}


def test_what_other_processes_wrote_elsewhere_is_noticed(store, teacher, monkeypatch):
    first_of_two = SimpleNamespace(
        process_index=0, num_processes=2, is_local_main_process=True, wait_for_everyone=lambda: None
    )
    monkeypatch.setattr(teacher_distributions, "PartialState", lambda: first_of_two)
    with pytest.raises(RuntimeError, match=r"4 readings .* on a disk that all processes share"):
        keep_distributions(teacher, corpus(), store)


def test_a_teacher_that_skips_a_position_is_refused(store, teacher):
    with pytest.raises(ValueError, match=r"gave 26 distributions for 27 positions"):
        keep_distributions(lambda readings: teacher(readings)[:-1], corpus(), store)
    assert len(store) == 0


# ---- what is stale -------------------------------------------------------------------------------------------------


def test_another_teacher_k_or_temperature_has_another_store(store, tmp_path, teacher, language_model):
    reading = corpus()[0]
    store.write({reading.key: teacher([reading])})
    assert reading.key not in TeacherStore(tmp_path, language_model, K + 1, TEMPERATURE)
    assert reading.key not in TeacherStore(tmp_path, language_model, K, 1)
    language_model.model.norm.weight[0] += 1e-3
    assert reading.key not in TeacherStore(tmp_path, language_model, K, TEMPERATURE)
    language_model.model.norm.weight[0] = 1
    assert reading.key in TeacherStore(tmp_path, language_model, K, TEMPERATURE)


def test_what_does_not_belong_is_refused(store, tmp_path, teacher, language_model):
    said = teacher(corpus()[:1])
    with pytest.raises(ValueError, match=r"temperature 1.0 do not belong in a store of k = 8 at temperature 2.0"):
        store.write({"a": replace(said, temperature=1.0)})
    with pytest.raises(ValueError, match=r"of k = 7 at temperature 2.0 do not belong"):
        store.write({"a": replace(said, token_ids=said.token_ids[:, :7])})
    (store.folder / FACTS).write_text("{}")
    with pytest.raises(ValueError, match=r"remove the folder"):
        TeacherStore(tmp_path, language_model, K, TEMPERATURE)


def test_a_teacher_that_is_trained_is_refused(tmp_path, language_model):
    language_model.model.norm.requires_grad_(True)
    with pytest.raises(ValueError, match=r"freeze it, or let the teacher run live"):
        TeacherStore(tmp_path, language_model)
