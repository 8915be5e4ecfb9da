"""A picture of a training run: loss and evaluation over steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from .report import HistoryPoint

_METRIC_LABELS = {"wer": "word error rate", "accuracy": "accuracy", "loss": "evaluation loss"}
_MARKERS = "osD^vP*X"


def plot_learning_curve(path: str | Path, history: Sequence[HistoryPoint], title: str = "") -> None:
    """Draws the training loss with evaluation losses and, in a panel below, other evaluation metrics; saves a PNG.

    Metrics whose name ends in `loss` (nats per token) share the panel of the training loss; the others are shares
    between 0 and 1. Perplexities say what losses do, and are left out.

    Raises `ValueError` when the history has no point.
    """
    if not history:
        raise ValueError("a learning curve needs a logged step: train with logging_steps below the number of steps")
    names = sorted({name for point in history for name in point.evaluation if not name.endswith("perplexity")})
    shares = [name for name in names if not name.endswith("loss")]
    figure = Figure(figsize=(8, 6.2 if shares else 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(
        2 if shares else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 2] if shares else None
    )[:, 0]
    _draw_losses(rows[0], history, [name for name in names if name.endswith("loss")])
    if shares:
        _draw_shares(rows[1], history, shares)
    for axes in rows:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    rows[-1].set_xlabel("training step (one update of the weights)")
    rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title)
    # No version of matplotlib in the file: the same history gives the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw_losses(axes: Axes, history: Sequence[HistoryPoint], names: Sequence[str]) -> None:
    steps, losses = _series([(point.step, point.loss) for point in history])
    window = max(1, len(losses) // 20)
    if window > 1:
        axes.plot(steps, losses, color="C0", alpha=0.3, linewidth=1)
    label = "training loss" + (f", mean of {window} points" if window > 1 else "")
    axes.plot(steps, _running_mean(losses, window), color="C0", linewidth=2, label=label)
    _draw_points(axes, history, names)
    axes.set_ylabel("loss (nats per token)")
    positive = np.concatenate([line.get_ydata() for line in axes.lines])
    # A loss that falls tenfold is unreadable on a linear axis.
    if positive.size and positive.min() > 0 and positive.max() > 10 * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_shares(axes: Axes, history: Sequence[HistoryPoint], names: Sequence[str]) -> None:
    _draw_points(axes, history, names)
    axes.set_ylabel("share, 0 to 1")
    axes.set_ylim(bottom=0)


def _draw_points(axes: Axes, history: Sequence[HistoryPoint], names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        steps, values = _series([(point.step, point.evaluation.get(name)) for point in history])
        marker = _MARKERS[position % len(_MARKERS)]
        label = _METRIC_LABELS.get(name, name.replace("_", " "))
        axes.plot(steps, values, marker=marker, linestyle="--", linewidth=1, color=f"C{position + 1}", label=label)


def _series(points: Sequence[tuple[int, float | None]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    known = [(step, value) for step, value in points if value is not None]
    steps, values = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def _running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """The mean of up to `window` values around each point; less at the ends."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    positions = np.arange(len(values))
    starts = np.maximum(positions - window // 2, 0)
    ends = np.minimum(positions + (window + 1) // 2, len(values))
    return (sums[ends] - sums[starts]) / (ends - starts)
