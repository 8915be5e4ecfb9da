"""Chunked cross-entropy against float64 brute force: values, gradients, dtypes, memory."""

import pytest
import torch
from speech_text_cases import labeled
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from speechzoo.modeling import modeling_losses
from speechzoo.modeling.modeling_losses import chunked_cross_entropies, linear_cross_entropy, mean_over_items

POSITIONS, WIDTH, VOCABULARY, CHUNK = 37, 8, 101, 10


@pytest.fixture(params=["library", "fallback"])
def function(request, monkeypatch):
    """PyTorch's own function where it has one, and ours when it is taken away."""
    if request.param == "fallback":
        monkeypatch.delattr(nn.functional, "linear_cross_entropy", raising=False)
    elif not hasattr(nn.functional, "linear_cross_entropy"):
        pytest.skip("this PyTorch has no linear_cross_entropy")
    return linear_cross_entropy


def case(dtype=torch.float32, biased=True):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(POSITIONS, WIDTH, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator).to(dtype).requires_grad_()
    bias = torch.randn(VOCABULARY, generator=generator).to(dtype).requires_grad_() if biased else None
    labels = torch.randint(VOCABULARY, (POSITIONS,), generator=generator)
    return hidden, weight, labels, bias


def brute_force(hidden, weight, labels, bias):
    """Sum and gradients in float64."""
    inputs = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight, bias) if tensor is not None]
    logits = inputs[0] @ inputs[1].T + (inputs[2] if bias is not None else 0)
    total = (logits.logsumexp(-1) - logits[torch.arange(len(labels)), labels]).sum()
    return total.detach(), torch.autograd.grad(total, inputs)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("biased", [True, False])
def test_value_and_gradients(function, biased, reduction):
    hidden, weight, labels, bias = case(biased=biased)
    expected, expected_gradients = brute_force(hidden, weight, labels, bias)
    total = function(hidden, weight, labels, bias, reduction, CHUNK).sum()
    assert total.dtype == torch.float32
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=1e-4)
    given = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
    for got, wanted in zip(torch.autograd.grad(total, given), expected_gradients, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)


def test_each_position_has_its_own_loss_and_gradient(function):
    hidden, weight, labels, bias = case()
    losses = function(hidden, weight, labels, bias, "none", CHUNK)
    for position in (0, CHUNK, POSITIONS - 1):
        alone = brute_force(hidden[position : position + 1], weight, labels[position : position + 1], bias)
        assert losses[position].item() == pytest.approx(alone[0].item(), rel=1e-6)
        [gradient] = torch.autograd.grad(losses[position], hidden, retain_graph=True)
        torch.testing.assert_close(gradient[position].double(), alone[1][0][0], rtol=1e-4, atol=1e-5)
        assert gradient.abs().sum() == gradient[position].abs().sum()


def test_half_precision_weights_give_a_float32_sum(function):
    hidden, weight, labels, bias = case(torch.bfloat16)
    total = function(hidden, weight, labels, bias, chunk=CHUNK)
    assert total.dtype == torch.float32
    expected, _ = brute_force(hidden, weight, labels, bias)
    assert abs(total.item() - expected.item()) < 0.01 * expected.item()
    total.backward()
    assert hidden.grad.dtype == torch.bfloat16 and hidden.grad.abs().sum() > 0


def test_half_precision_sums_do_not_stick():
    """4,096 equal losses: a bfloat16 sum would stop growing long before."""
    hidden, weight = torch.zeros(4096, 2, dtype=torch.bfloat16), torch.zeros(5, 2, dtype=torch.bfloat16)
    total = linear_cross_entropy(hidden, weight, torch.zeros(4096, dtype=torch.long))
    assert total.item() == pytest.approx(4096 * torch.log(torch.tensor(5.0)).item(), rel=1e-5)


def test_no_supervised_position_is_zero(function):
    hidden, weight, labels, bias = case()
    total = function(hidden[:0], weight, labels[:0], bias)
    loss = mean_over_items(total, torch.full((2, 5), -100))
    assert loss.item() == 0
    if total.requires_grad:
        loss.backward()
        assert not hidden.grad.isnan().any()


def test_the_mean_is_over_what_is_supervised_unless_told():
    labels = torch.tensor([[-100, 3, 4], [-100, -100, 5]])
    assert mean_over_items(torch.tensor(6.0), labels).item() == 2
    assert mean_over_items(torch.tensor(6.0), labels, 12).item() == 0.5
    assert mean_over_items(torch.tensor(6.0), labels, torch.tensor(24)).item() == 0.25


class LargestTensor(TorchDispatchMode):
    """Rows of the largest tensor whose last dimension is the vocabulary, over everything computed."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in () if function.is_view else result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary:
                self.rows = max(self.rows, tensor.numel() // self.vocabulary)
        return result


def largest_allocation(step) -> int:
    """Bytes that the hungriest operation of a step keeps for itself; sees inside PyTorch's fused functions too."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    return max(event.self_cpu_memory_usage for event in profile.events())


def test_no_more_logits_than_a_chunk_exist_at_a_time(function):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(800, WIDTH, generator=generator).requires_grad_()
    weight = torch.randn(1000, WIDTH, generator=generator).requires_grad_()
    labels = torch.randint(1000, (800,), generator=generator)
    all_logits = 800 * 1000 * 4
    whole = largest_allocation(lambda: nn.functional.cross_entropy(hidden @ weight.T, labels).backward())
    chunked = largest_allocation(lambda: function(hidden, weight, labels, chunk=CHUNK).backward())
    assert whole >= all_logits > 20 * chunked


def test_the_loop_keeps_no_logits_for_the_backward_pass():
    hidden, weight, labels, bias = case()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        chunked_cross_entropies(hidden, weight, labels, bias, chunk=CHUNK)
    assert kept and not any(tensor.ndim == 2 and tensor.shape == (CHUNK, VOCABULARY) for tensor in kept)


def test_the_model_never_makes_all_logits(backbones, monkeypatch):
    """A whole training step: prompt and padding cost no logits, and the answer a chunk at a time."""
    model, processor = backbones.build()
    monkeypatch.delattr(nn.functional, "linear_cross_entropy", raising=False)
    monkeypatch.setattr(modeling_losses.linear_cross_entropy, "__defaults__", (None, "sum", 5))
    batch = labeled(processor)
    supervised = int((batch["labels"] != -100).sum())
    with LargestTensor(64) as spy:
        model(**batch).loss.backward()
    assert 0 < spy.rows <= 5 < supervised
    with LargestTensor(64) as spy:
        model(**batch, return_logits=True)
    assert spy.rows == batch["labels"].numel()
