"""Divergences against float64 brute force and scipy; kept teachers against the bounds that are stated; memory."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from torch.utils._python_dispatch import TorchDispatchMode

from speechzoo.evaluation.report import read_report
from speechzoo.modeling.modeling_divergences import (
    Divergence,
    TopDistribution,
    linear_divergences,
    linear_divergences_to_top,
    logits_divergences,
    logits_divergences_to_top,
    logits_top_distribution,
    top_distribution,
)

POSITIONS, WIDTH, VOCABULARY, CHUNK = 23, 8, 101, 10
DIRECTIONS = ("forward", "reverse", "jensen_shannon")
EVERY_DIRECTION = pytest.mark.parametrize("direction", DIRECTIONS)
EVERY_TEMPERATURE = pytest.mark.parametrize("temperature", [0.7, 2.5])


def case(dtype=torch.float32, biased=True):
    """States of student and teacher, and a frozen head; far enough apart for divergences of about a nat."""
    generator = torch.Generator().manual_seed(0)
    student, teacher, weight = (
        torch.randn(rows, WIDTH, generator=generator) * 0.7 for rows in (POSITIONS, POSITIONS, VOCABULARY)
    )
    bias = torch.randn(VOCABULARY, generator=generator).to(dtype) if biased else None
    return student.to(dtype).requires_grad_(), teacher.to(dtype).requires_grad_(), weight.to(dtype), bias


def doubled(*tensors):
    return [None if tensor is None else tensor.detach().double() for tensor in tensors]


def logits_of(states, weight, bias):
    return states @ weight.T + (0 if bias is None else bias)


def textbook(student_logits, teacher_logits, divergence):
    """[N] by the definitions, in float64, with autograd."""
    q, p = ((logits / divergence.temperature).softmax(-1) for logits in (student_logits, teacher_logits))
    m = (p + q) / 2
    forward, reverse = (p * (p / q).log()).sum(-1), (q * (q / p).log()).sum(-1)
    shannon = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2
    return (
        dict(zip(DIRECTIONS, (forward, reverse, shannon), strict=True))[divergence.direction]
        * divergence.temperature**2
    )


def brute_force(student, teacher, weight, bias, divergence):
    """Divergences [N] and the gradient of their sum to the student, in float64."""
    student, teacher, weight, bias = doubled(student, teacher, weight, bias)
    student.requires_grad_()
    values = textbook(logits_of(student, weight, bias), logits_of(teacher, weight, bias), divergence)
    return values.detach(), torch.autograd.grad(values.sum(), student)[0]


def assert_close(got, wanted, tolerance=1e-5):
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)


# ---- values and gradients ------------------------------------------------------------------------------------------


@EVERY_DIRECTION
@EVERY_TEMPERATURE
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients(direction, temperature, biased):
    student, teacher, weight, bias = case(biased=biased)
    divergence = Divergence(direction, temperature)
    expected, gradient = brute_force(student, teacher, weight, bias, divergence)
    values = linear_divergences(student, teacher, weight, divergence, bias, CHUNK)
    assert values.dtype == torch.float32 and values.shape == (POSITIONS,)
    assert_close(values, expected)
    values.sum().backward()
    assert_close(student.grad, gradient)
    assert teacher.grad is None


@EVERY_DIRECTION
@EVERY_TEMPERATURE
def test_logits_give_the_same_as_states(direction, temperature):
    student, teacher, weight, bias = case()
    divergence = Divergence(direction, temperature)
    expected, gradient = brute_force(student, teacher, weight, bias, divergence)
    student_logits, teacher_logits = (logits_of(states, weight, bias) for states in (student, teacher))
    before = student_logits.detach().clone()
    values = logits_divergences(student_logits, teacher_logits, divergence)
    assert_close(values, expected)
    values.sum().backward()
    assert_close(student.grad, gradient)
    assert teacher.grad is None and torch.equal(student_logits, before)


def test_values_of_a_textbook():
    """Teacher (1/2, 1/2), student (3/4, 1/4), and two that share nothing."""
    teacher, student = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    found = [logits_divergences(student, teacher, Divergence(direction)).item() for direction in DIRECTIONS]
    p, q = teacher.exp()[0].numpy(), student.exp()[0].numpy()
    assert found == pytest.approx([rel_entr(p, q).sum(), rel_entr(q, p).sum(), jensenshannon(p, q) ** 2], rel=1e-5)
    assert found[:2] == pytest.approx([0.5 * math.log(4 / 3), 0.75 * math.log(1.5) - 0.25 * math.log(2)], rel=1e-5)
    apart = torch.tensor([[0.0, -math.inf]]), torch.tensor([[-math.inf, 0.0]])
    assert logits_divergences(*apart, Divergence("jensen_shannon")).item() == pytest.approx(math.log(2))


@EVERY_DIRECTION
def test_equal_ones_have_no_divergence_and_no_gradient(direction):
    student, _, weight, bias = case()
    values = linear_divergences(student, student.detach(), weight, Divergence(direction), bias, CHUNK)
    values.sum().backward()
    assert values.abs().max() < 1e-6 and student.grad.abs().max() < 1e-6


@EVERY_DIRECTION
def test_a_token_that_both_rule_out_changes_nothing(direction):
    """A head may give minus infinity to the padding of its vocabulary."""
    student, teacher = (torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    padded = [torch.nn.functional.pad(logits, (0, 2), value=-math.inf) for logits in (student, teacher)]
    divergence = Divergence(direction, 2.0)
    student.requires_grad_(), padded[0].requires_grad_()
    values, wider = logits_divergences(student, teacher, divergence), logits_divergences(*padded, divergence)
    assert torch.allclose(values, wider, atol=1e-6)
    values.sum().backward(), wider.sum().backward()
    assert torch.allclose(padded[0].grad[:, :7], student.grad, atol=1e-6) and not padded[0].grad[:, 7:].any()
    top = logits_top_distribution(padded[1], 7, 2.0)
    padded[0].grad = None
    logits_divergences_to_top(padded[0], top, divergence).sum().backward()
    assert torch.allclose(padded[0].grad[:, :7], student.grad, atol=1e-6) and not padded[0].grad[:, 7:].any()


@EVERY_DIRECTION
def test_each_position_has_its_own_divergence_and_gradient(direction):
    student, teacher, weight, bias = case()
    values = linear_divergences(student, teacher, weight, Divergence(direction), bias, CHUNK)
    for position in (0, CHUNK, POSITIONS - 1):
        one = slice(position, position + 1)
        expected, gradient = brute_force(student[one], teacher[one], weight, bias, Divergence(direction))
        assert values[position].item() == pytest.approx(expected.item(), rel=1e-5)
        [found] = torch.autograd.grad(values[position], student, retain_graph=True)
        assert_close(found[one], gradient)
        assert found.abs().sum() == found[one].abs().sum()


@EVERY_DIRECTION
def test_half_precision_states_give_float32_values(direction):
    student, teacher, weight, bias = case(torch.bfloat16)
    expected, gradient = brute_force(student, teacher, weight, bias, Divergence(direction))
    values = linear_divergences(student, teacher, weight, Divergence(direction), bias, CHUNK)
    assert values.dtype == torch.float32
    assert abs(values.sum().item() - expected.sum().item()) < 0.02 * expected.sum().item()
    values.sum().backward()
    assert student.grad.dtype == torch.bfloat16
    assert (student.grad.double() - gradient).norm() < 0.02 * gradient.norm()


def test_no_position_is_an_empty_result():
    student, teacher, weight, bias = case()
    top = top_distribution(teacher[:0], weight, 5, 1.0, bias)
    for values in (
        linear_divergences(student[:0], teacher[:0], weight, Divergence(), bias),
        linear_divergences_to_top(student[:0], top, weight, Divergence(), bias),
    ):
        assert values.shape == (0,)
        values.sum().backward()
    assert not student.grad.any()


# ---- memory --------------------------------------------------------------------------------------------------------


class AliveLogits(TorchDispatchMode):
    """The most rows of tensors as wide as the vocabulary that were made and still exist, and the most of one."""

    def __init__(self):
        super().__init__()
        self.alive, self.most, self.largest = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape[-1:] == (VOCABULARY,) and not function.is_view:
            self.alive[result.untyped_storage()._cdata] = (
                torch.multiprocessing.reductions.StorageWeakRef(result.untyped_storage()),
                result.numel() // VOCABULARY,
            )
            self.largest = max(self.largest, result.numel() // VOCABULARY)
        self.alive = {key: (held, rows) for key, (held, rows) in self.alive.items() if not held.expired()}
        self.most = max(self.most, sum(rows for _, rows in self.alive.values()))
        return result


@EVERY_DIRECTION
def test_a_chunk_of_logits_of_either_exists_at_a_time_and_none_is_kept(direction):
    student, teacher, weight, _ = case(biased=False)
    kept = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
        AliveLogits() as spy,
    ):
        values = linear_divergences(student, teacher, weight, Divergence(direction), chunk=CHUNK)
        values.sum().backward()
    beside = 2 if direction == "jensen_shannon" else 1
    assert (
        spy.largest == CHUNK and spy.most == (2 + beside) * CHUNK
    )  # student, teacher, and what they are compared with
    assert kept and all(tensor.shape[-1] != VOCABULARY for tensor in kept)


def test_nothing_is_kept_where_nothing_is_learned():
    student, teacher, weight, bias = case()
    top = top_distribution(teacher, weight, 5, 1.0, bias)
    assert not any(tensor.requires_grad for tensor in (top.log_probabilities, top.tail))
    with torch.no_grad():
        assert not linear_divergences(student, teacher, weight, Divergence(), bias).requires_grad
    assert not linear_divergences_to_top(student.detach(), top, weight, Divergence(), bias).requires_grad


# ---- kept teachers -------------------------------------------------------------------------------------------------


@EVERY_TEMPERATURE
def test_the_likeliest_tokens_and_the_rest(temperature):
    _, teacher, weight, bias = case()
    probabilities = (logits_of(*doubled(teacher, weight, bias)) / temperature).softmax(-1).numpy()
    for top in (
        top_distribution(teacher, weight, 6, temperature, bias, CHUNK),
        logits_top_distribution(logits_of(teacher, weight, bias), 6, temperature),
    ):
        order = np.argsort(-probabilities)
        assert (top.token_ids.numpy() == order[:, :6]).all() and len(top) == POSITIONS
        sorted_ones = np.take_along_axis(probabilities, order, -1)
        assert np.allclose(top.log_probabilities.numpy(), np.log(sorted_ones[:, :6]), atol=1e-5)
        assert np.allclose(top.tail.numpy(), np.log(sorted_ones[:, 6:].sum(-1)), atol=1e-5)
        assert top.temperature == temperature


def test_a_tail_smaller_than_rounding_is_kept():
    top = logits_top_distribution(torch.tensor([[0.0, -40.0, -41.0]]), 1)
    assert top.tail.item() == pytest.approx(-40 + math.log(1 + math.exp(-1)), abs=1e-5)


def parts_of_the_tail(logits, token_ids):
    """P or Q [N], and probabilities inside the tail [N, V], zero at the k tokens; in float64."""
    probabilities = logits.softmax(-1).scatter(-1, token_ids, 0.0)
    mass = probabilities.sum(-1)
    return mass, probabilities / mass[:, None]


@EVERY_DIRECTION
@EVERY_TEMPERATURE
@pytest.mark.parametrize("k", [1, 12])
def test_what_is_missing_is_what_happens_inside_the_tail(direction, temperature, k):
    student, teacher, weight, bias = case()
    divergence = Divergence(direction, temperature)
    whole, _ = brute_force(student, teacher, weight, bias, divergence)
    top = top_distribution(teacher, weight, k, temperature, bias, CHUNK)
    missing = whole - linear_divergences_to_top(student, top, weight, divergence, bias, CHUNK).detach().double()
    teacher_tail, student_tail = (
        parts_of_the_tail(logits_of(*doubled(states, weight, bias)) / temperature, top.token_ids)
        for states in (teacher, student)
    )
    (p_mass, p), (q_mass, q) = teacher_tail, student_tail
    assert (missing > 1e-4).all()  # never above the whole, and far from equal here
    bounds = {
        "forward": p_mass * torch.tensor(rel_entr(p.numpy(), q.numpy()).sum(-1)),
        "reverse": q_mass * torch.tensor(rel_entr(q.numpy(), p.numpy()).sum(-1)),
        "jensen_shannon": (p_mass + q_mass) / 2 * math.log(2),
    }
    bound = bounds[direction] * temperature**2
    assert (missing < bound).all() if direction == "jensen_shannon" else torch.allclose(missing, bound, atol=1e-5)


@EVERY_TEMPERATURE
def test_the_forward_gradient_differs_inside_the_tail_alone(temperature):
    student, teacher, weight, bias = case()
    logits = logits_of(student, weight, bias).detach().requires_grad_()
    expected = logits_of(teacher, weight, bias).detach()
    top = logits_top_distribution(expected, 12, temperature)
    divergence = Divergence("forward", temperature)
    [whole] = torch.autograd.grad(logits_divergences(logits, expected, divergence).sum(), logits)
    [kept] = torch.autograd.grad(logits_divergences_to_top(logits, top, divergence).sum(), logits)
    difference = (whole - kept).abs()
    assert difference.gather(-1, top.token_ids).max() < 1e-6
    assert (difference.sum(-1) <= 2 * temperature * top.tail.exp()).all() and difference.sum(-1).min() > 1e-3


@EVERY_DIRECTION
@pytest.mark.parametrize("k", [1, 12, VOCABULARY])
def test_gradients_of_merged_tokens(direction, k):
    """Against autograd through a sum of probabilities, in float64; with all tokens kept, the whole divergence."""
    student, teacher, weight, bias = case()
    divergence = Divergence(direction, 1.7)
    top = top_distribution(teacher, weight, k, 1.7, bias, CHUNK)
    merge = torch.ones(POSITIONS, VOCABULARY, dtype=torch.double).scatter(-1, top.token_ids, 0.0)
    wide, narrow, *head = doubled(student, teacher, weight, bias)
    wide.requires_grad_()

    def merged(states):
        probabilities = (logits_of(states, *head) / 1.7).softmax(-1)
        kept, rest = probabilities.gather(-1, top.token_ids), (probabilities * merge).sum(-1, keepdim=True)
        return (torch.cat([kept, rest], -1) if k < VOCABULARY else kept).log() * 1.7

    expected = textbook(merged(wide), merged(narrow), divergence)
    [gradient] = torch.autograd.grad(expected.sum(), wide)
    values = linear_divergences_to_top(student, top, weight, divergence, bias, CHUNK)
    assert_close(values, expected.detach())
    values.sum().backward()
    assert_close(student.grad, gradient)


def test_kept_teachers_are_cut_joined_and_moved():
    _, teacher, weight, bias = case()
    top = top_distribution(teacher, weight, 4, 2.0, bias)
    again = TopDistribution.joined([top[:5], top[5:]]).to("cpu")
    for name in ("token_ids", "log_probabilities", "tail"):
        assert torch.equal(getattr(again, name), getattr(top, name))
    assert again.temperature == 2.0 and len(top[:5]) == 5
    with pytest.raises(ValueError, match=r"temperatures \[1.0, 2.0\] cannot be one"):
        TopDistribution.joined([top, replace(top, temperature=1.0)])


# ---- refusals ------------------------------------------------------------------------------------------------------


def test_other_settings_are_refused():
    with pytest.raises(ValueError, match=r"direction 'both' is unknown; choose one of forward, reverse"):
        Divergence("both")
    for temperature in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"must be a positive number"):
            Divergence(temperature=temperature)


def test_what_cannot_be_compared_is_refused():
    student, teacher, weight, bias = case()
    top = top_distribution(teacher, weight, 4, 2.0, bias)
    with pytest.raises(ValueError, match=r"select the same supervised positions of both"):
        linear_divergences(student, teacher[:1], weight, Divergence(), bias)
    with pytest.raises(ValueError, match=r"22 positions and the kept teacher 23"):
        linear_divergences_to_top(student[1:], top, weight, Divergence(temperature=2.0), bias)
    with pytest.raises(ValueError, match=r"kept at temperature 2.0 and is compared at 1.0"):
        linear_divergences_to_top(student, top, weight, Divergence(), bias)
    with pytest.raises(ValueError, match=r"freeze the head"):
        linear_divergences(student, teacher, weight.requires_grad_(), Divergence(), bias)
    for k in (0, VOCABULARY + 1):
        with pytest.raises(ValueError, match=rf"k = {k} of 101 tokens cannot be kept"):
            top_distribution(teacher, weight, k, 1.0, bias)


def test_a_second_derivative_is_refused_rather_than_wrong():
    student, teacher, weight, bias = case()
    values = linear_divergences(student, teacher, weight, Divergence(), bias)
    [gradient] = torch.autograd.grad(values.sum(), student, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        gradient.sum().backward()


# ---- the benchmark at toy size -------------------------------------------------------------------------------------


def test_the_sides_of_the_benchmark_agree_and_all_is_reported(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import supervised_divergence as benchmark

    arguments = benchmark.BenchmarkArguments(
        tokens=32,
        supervised=5,
        vocabulary=400,
        width=8,
        rounds=2,
        memory_rounds=2,
        device="cpu",
        output=tmp_path / "it",
    )
    monkeypatch.setattr(benchmark, "parse_arguments", lambda *_: (arguments,))
    monkeypatch.setattr(benchmark, "in_fresh_process", lambda _, side, __: 10 if side == benchmark.OURS else 40)
    assert isinstance(benchmark.memory_run("supervised", arguments), int)
    benchmark.main()
    measured = {(one.name, one.metric): one.value for one in read_report(tmp_path / "it").measurements}
    assert len(measured) == 5 * (4 + 3) and measured["all logits over supervised", "memory ratio"] == 4
    differences = [value for (_, metric), value in measured.items() if "difference" in metric]
    assert len(differences) == 3 * 7 and 0 < max(differences) < 1e-5
    _, gradient = benchmark.step("supervised", benchmark.inputs(arguments), 2.0)
    assert gradient[:, -5:].abs().min() > 0 and not gradient[:, :-5].any()
    assert benchmark.difference((1.5, gradient * 1.25), (1.0, gradient)) == pytest.approx(
        (0.5, gradient.abs().max().item() / 4, 0.25)
    )
