"""How far what an LM says of speech is from what it says of the text, at supervised positions, in chunks of logits.

The teacher's distribution is p = softmax(logits / temperature), the student's q likewise; both come from one frozen
head. Nothing is kept of the logits for the backward pass: as the head is frozen, the gradient of a position is known
as soon as its divergence is.

Shapes: N supervised positions, D width, V vocabulary, k tokens that are kept of a teacher.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .modeling_losses import CHUNK

Direction = Literal["forward", "reverse", "jensen_shannon"]


@dataclass(frozen=True)
class Divergence:
    """Which divergence, in nats, and at which temperature.

    The loss carries temperature squared, so that gradients keep their size. Raises `ValueError` for other values.

    Args:
        direction: "forward" is KL(p || q), teacher first; "reverse" KL(q || p); "jensen_shannon" the mean of
            KL(p || m) and KL(q || m) with m the mean of both, at most log 2.
        temperature: divides the logits of both.
    """

    direction: Direction = "forward"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise ValueError(
                f"direction '{self.direction}' is unknown; choose one of {', '.join(get_args(Direction))}"
            )
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature} must be a positive number")


@dataclass(frozen=True)
class TopDistribution:
    """The teacher's k likeliest tokens at each position, and how likely all others are together.

    Args:
        token_ids, log_probabilities: [N, k], likeliest first.
        tail: [N] logarithm of the summed probability of all other tokens.
        temperature: at which they were taken.
    """

    token_ids: Tensor
    log_probabilities: Tensor
    tail: Tensor
    temperature: float = 1.0

    def __len__(self) -> int:
        return len(self.tail)

    def __getitem__(self, rows: slice) -> "TopDistribution":
        return TopDistribution(self.token_ids[rows], self.log_probabilities[rows], self.tail[rows], self.temperature)

    def to(self, device: torch.device | str) -> "TopDistribution":
        return TopDistribution(
            self.token_ids.to(device), self.log_probabilities.to(device), self.tail.to(device), self.temperature
        )

    @classmethod
    def joined(cls, parts: Sequence["TopDistribution"]) -> "TopDistribution":
        """Those of several texts, laid end to end. Raises `ValueError` when their temperatures differ."""
        temperatures = {part.temperature for part in parts}
        if len(temperatures) > 1:
            raise ValueError(f"distributions of temperatures {sorted(temperatures)} cannot be one; keep each apart")
        return cls(
            torch.cat([part.token_ids for part in parts]),
            torch.cat([part.log_probabilities for part in parts]),
            torch.cat([part.tail for part in parts]),
            temperatures.pop(),
        )


# ---- divergences ---------------------------------------------------------------------------------------------------


def linear_divergences(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    divergence: Divergence,
    bias: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Divergences [N] in float32 of `states @ weight.T + bias`, with gradients to the student alone.

    Args:
        student, teacher: last hidden states [N, D] at the same positions; weight: [V, D]; bias: [V].
        chunk: positions whose logits exist at one time.

    Raises `ValueError` when student and teacher differ in shape, or when the head is trained.
    """
    _check_alike(student, teacher)

    def compare(logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        expected = _normalized(_logits(teacher[rows], weight, bias, divergence.temperature))
        logits = _normalized(logits)  # under the old name, so that the old ones are gone
        return _COMPARISONS[divergence.direction](expected, logits)

    return _through_head(student, weight, bias, chunk, divergence.temperature, compare)


def logits_divergences(student: Tensor, teacher: Tensor, divergence: Divergence) -> Tensor:
    """The same [N] of logits [N, V], for heads that are more than a matrix."""
    _check_alike(student, teacher)
    with torch.no_grad():
        expected, logits = (_normalized(_scaled(given, divergence.temperature)) for given in (teacher, student))
        found = _COMPARISONS[divergence.direction](expected, logits)
    return _attached(student, *found, divergence.temperature)


def linear_divergences_to_top(
    student: Tensor,
    top: TopDistribution,
    weight: Tensor,
    divergence: Divergence,
    bias: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Divergences [N] from a kept teacher: its k tokens, and all others as if they were one more.

    Never above `linear_divergences`: merging tokens cannot set two distributions further apart. What is missing
    happens inside the tail. With P and Q the probabilities that teacher and student give to all others, it is, times
    temperature squared:

    - forward: exactly P times the divergence inside the tail;
    - reverse: exactly Q times it;
    - Jensen-Shannon: at most (P + Q) / 2 * log 2.

    The forward gradient to the logits is the same at the k tokens; at all others its absolute differences sum to
    2 * temperature * P at most.

    Args:
        student: [N, D]; top: of the same N positions; weight: [V, D]; bias: [V].

    Raises `ValueError` when positions or temperatures differ, or when the head is trained.
    """
    _check_top(student, top, divergence)

    def compare(logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        return _compared_to_top(logits, top[rows], divergence.direction)

    return _through_head(student, weight, bias, chunk, divergence.temperature, compare)


def logits_divergences_to_top(student: Tensor, top: TopDistribution, divergence: Divergence) -> Tensor:
    """The same [N] of logits [N, V]."""
    _check_top(student, top, divergence)
    with torch.no_grad():
        found = _compared_to_top(_scaled(student, divergence.temperature), top, divergence.direction)
    return _attached(student, *found, divergence.temperature)


# ---- kept teachers -------------------------------------------------------------------------------------------------


@torch.no_grad()
def top_distribution(
    teacher: Tensor,
    weight: Tensor,
    k: int,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    chunk: int = CHUNK,
) -> TopDistribution:
    """The k likeliest tokens after each of the hidden states [N, D] of a teacher with the head [V, D].

    Raises `ValueError` for a k that is not in 1 to V.
    """
    parts = [_top(_logits(teacher[rows], weight, bias, temperature), k) for rows in _chunks(len(teacher), chunk)]
    token_ids, log_probabilities, tail = (torch.cat(column) for column in zip(*parts, strict=True))
    return TopDistribution(token_ids, log_probabilities, tail, temperature)


@torch.no_grad()
def logits_top_distribution(teacher: Tensor, k: int, temperature: float = 1.0) -> TopDistribution:
    """The same of logits [N, V]."""
    return TopDistribution(*_top(_scaled(teacher, temperature), k), temperature=temperature)


def _top(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    if not 0 < k <= logits.shape[-1]:
        raise ValueError(f"k = {k} of {logits.shape[-1]} tokens cannot be kept; choose from 1 to all of them")
    logits = _normalized(logits)
    log_probabilities, token_ids = logits.topk(k)
    # Summed, because one minus the rest would lose a small tail to rounding.
    tail = logits.scatter_(-1, token_ids, -math.inf).logsumexp(-1)
    return token_ids, log_probabilities, tail


# ---- one chunk: without autograd, and what may be overwritten is, for the peak is made of a chunk's logits ----------


def _chunks(count: int, chunk: int) -> list[slice]:
    """At least one, so that no positions give an empty result."""
    return [slice(start, start + chunk) for start in range(0, max(count, 1), chunk)]


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """[n, V] in float32, over the temperature."""
    return nn.functional.linear(states.to(weight.dtype), weight, bias).float().div_(temperature)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """A float32 copy over the temperature."""
    return logits.float() / temperature


def _normalized(logits: Tensor) -> Tensor:
    """Log probabilities; finite, so that a token that both rule out adds nothing."""
    return logits.log_softmax(-1).clamp_(min=torch.finfo(logits.dtype).min)


def _forward(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Values [n], and gradients [n, V] to the student's logits over the temperature; as the two below."""
    p = log_p.softmax(-1)  # sums to one, as exponentials of rounded logarithms do not
    values = log_p.sub_(log_q).mul_(p).sum(-1)
    return values, log_q.exp_().sub_(p)


def _reverse(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    q = log_q.exp()
    ratios = log_q.sub_(log_p)
    values = torch.mul(q, ratios, out=log_p).sum(-1)
    return values, ratios.sub_(values[:, None]).mul_(q)


def _jensen_shannon(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    log_m = torch.logaddexp(log_p, log_q).sub_(math.log(2))
    from_teacher = _mean_ratio(log_p, log_m)
    from_student, gradients = _reverse(log_m, log_q)
    return (from_teacher + from_student) / 2, gradients.div_(2)


def _mean_ratio(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) [n]."""
    p = log_p.exp()
    return log_p.sub_(log_q).mul_(p).sum(-1)


_COMPARISONS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "forward": _forward,
    "reverse": _reverse,
    "jensen_shannon": _jensen_shannon,
}


def _compared_to_top(logits: Tensor, top: TopDistribution, direction: str) -> tuple[Tensor, Tensor]:
    """A merged token's logit is the log-sum-exp of those it merges, which share its gradient by their softmax."""
    kept = logits.gather(-1, top.token_ids)
    tail = logits.scatter_(-1, top.token_ids, -math.inf).logsumexp(-1, keepdim=True)
    teacher = torch.cat([top.log_probabilities, top.tail[:, None]], -1).float()
    values, merged = _COMPARISONS[direction](_normalized(teacher), _normalized(torch.cat([kept, tail], -1)))
    shares = logits.sub_(tail.clamp(min=torch.finfo(tail.dtype).min)).exp_()
    return values, shares.mul_(merged[:, -1:]).scatter_(-1, top.token_ids, merged[:, :-1])


def _through_head(
    student: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    chunk: int,
    temperature: float,
    compare: Callable[[Tensor, slice], tuple[Tensor, Tensor]],
) -> Tensor:
    """Compares the student's logits chunk by chunk; of the gradient to them only what reaches the states is kept."""
    _check_frozen(weight, bias)
    learns = student.requires_grad and torch.is_grad_enabled()

    def one(rows: slice) -> tuple[Tensor, Tensor]:
        states = student[rows]
        values, gradients = compare(_logits(states, weight, bias, temperature), rows)
        return values, (gradients.to(weight.dtype) @ weight).to(student.dtype) if learns else states

    with torch.no_grad():
        values, gradients = (torch.cat(parts) for parts in zip(*map(one, _chunks(len(student), chunk)), strict=True))
    return _attached(student, values, gradients, temperature)


# ---- the backward pass ---------------------------------------------------------------------------------------------


def _attached(student: Tensor, values: Tensor, gradients: Tensor, temperature: float) -> Tensor:
    """Values times temperature squared; one temperature leaves the gradient by the division of the logits."""
    return _KnownGradient.apply(student, values * temperature**2, gradients, temperature)


class _KnownGradient(torch.autograd.Function):
    """Hands on values [N] whose gradients to each row of the student [N, ...] were found with them."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, values: Tensor, gradients: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(gradients)
        ctx.factor, ctx.dtype = factor, student.dtype
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        return ((outer * ctx.factor)[:, None] * gradients).to(ctx.dtype), None, None, None


# ---- refusals ------------------------------------------------------------------------------------------------------


def _check_alike(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student has shape {tuple(student.shape)} and the teacher {tuple(teacher.shape)}; select the same "
            f"supervised positions of both"
        )


def _check_top(student: Tensor, top: TopDistribution, divergence: Divergence) -> None:
    if len(student) != len(top):
        raise ValueError(
            f"the student has {len(student)} positions and the kept teacher {len(top)}; keep the teacher's "
            f"distributions anew for these texts"
        )
    if top.temperature != divergence.temperature:
        raise ValueError(
            f"the teacher was kept at temperature {top.temperature} and is compared at {divergence.temperature}; keep "
            f"it anew, or compare at its temperature"
        )


def _check_frozen(weight: Tensor, bias: Tensor | None) -> None:
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        raise ValueError("the head is trained, but only the student is taught here; freeze the head")


__all__ = [
    "Direction",
    "Divergence",
    "TopDistribution",
    "linear_divergences",
    "linear_divergences_to_top",
    "logits_divergences",
    "logits_divergences_to_top",
    "logits_top_distribution",
    "top_distribution",
]
