"""Average neuron-wise correlation (ANC, arXiv 2212.01924) between speech and text of the same utterances, by layer.

    speech, text = pooled_states(model, processor, recordings)
    layers = [correlate(*pair) for pair in zip(speech, text, strict=True)]

Neuron by neuron, not up to a rotation: a head that was trained on text must find the same things in the same places.

Shapes: N utterances, D neurons, T frames or units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from ..data.labeled_recordings import LabeledRecording
from ..processing.processing_speechlm import SpeechLMProcessor
from .joint_understanding import Listener, Route
from .report import Measurement
from .sweep_report import student_interval

__all__ = ["LayerCorrelation", "correlate", "measure_correlations", "plot_correlations", "pooled_states"]

Floats = npt.NDArray[np.float64]
SHUFFLES = 20


@dataclass(frozen=True)
class LayerCorrelation:
    """Means over neurons of the correlation and of its absolute value, of true pairs and of shuffled ones."""

    signed: float
    absolute: float
    shuffled_signed: float
    shuffled_absolute: float


def correlate(speech: npt.ArrayLike, text: npt.ArrayLike, shuffles: int = SHUFFLES, seed: int = 0) -> LayerCorrelation:
    """The correlation of one layer.

    Args:
        speech, text: [N, D], row n of both being the same utterance.
        shuffles: how often the pairs are shuffled, none of them staying together; the control is the mean.
        seed: of these draws.

    A neuron that never changes correlates with nothing: 0. Raises `ValueError` for shapes that differ, and for fewer
    than 3 utterances.
    """
    first, second = _standardized(speech), _standardized(text)
    if first.shape != second.shape or len(first) < 3:
        raise ValueError(f"the states are {first.shape} and {second.shape}; give at least 3 pairs of one width")
    paired = (first * second).sum(0)  # [D]
    control = [(first * second[order]).sum(0) for order in _shuffled(len(first), shuffles, seed)]
    return LayerCorrelation(
        float(paired.mean()), float(np.abs(paired).mean()), float(np.mean(control)), float(np.abs(control).mean())
    )


def _standardized(states: npt.ArrayLike) -> Floats:
    """Centered, every neuron of length 1, in float64."""
    centered = np.asarray(states, dtype=np.float64)
    centered = centered - centered.mean(0)
    length = np.linalg.norm(centered, axis=0)
    return np.divide(centered, length, out=np.zeros_like(centered), where=length > 1e-12 * max(1.0, length.max()))


def _shuffled(count: int, times: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Orders in which nothing stays in its place: each is followed by its successor in a random round."""
    draws, orders = np.random.default_rng(seed), []
    for _ in range(times):
        ring = draws.permutation(count)
        order = np.empty(count, np.int64)
        order[ring] = np.roll(ring, 1)
        orders.append(order)
    return orders


@torch.no_grad()
def pooled_states(
    model: Any,
    processor: SpeechLMProcessor,
    recordings: Sequence[LabeledRecording],
    batch_size: int = 16,
    text_seed: int = 0,
) -> tuple[list[Floats], list[Floats]]:
    """What goes into the shared layers and what each of them makes, of speech and of text: [N, D] for each.

    Args:
        model: a headless `SpeechLMModel` or `SpeechUTModel`.
        recordings: clips with text.

    Means over the frames, or units, of each clip.
    """
    listener = Listener(model, processor, batch_size=batch_size, text_seed=text_seed)
    return _pooled(listener, recordings, "speech"), _pooled(listener, recordings, "text")


def _pooled(listener: Listener, recordings: Sequence[LabeledRecording], route: Route) -> list[Floats]:
    layers = listener.model.unit_encoder.layers
    seen: list[Tensor] = []
    hooks = [layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))]
    hooks += [layer.register_forward_hook(lambda _, given, made: seen.append(made)) for layer in layers]
    found = np.empty((len(layers) + 1, len(recordings), listener.model.config.hidden_size))
    try:
        for places, output in listener.outputs(recordings, route):
            for layer, states in enumerate(seen):
                found[layer, places] = _mean(states, output.frame_attention_mask)
            seen.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return list(found)


def _mean(states: Tensor, mask: Tensor) -> Floats:
    """States [B, T, D] over what `mask` [B, T] leaves."""
    kept = mask[..., None].double()
    return ((states.double() * kept).sum(1) / kept.sum(1)).cpu().numpy()


def measure_correlations(
    name: str, runs: Sequence[Sequence[LayerCorrelation]], utterances: int, **facts: Any
) -> list[Measurement]:
    """Rows "`name`: layer 0", which goes into the shared layers, and on; chance is that of shuffled pairs.

    Args:
        runs: the layers of a model of each seed; values are means, with Student's intervals over seeds.
    """
    rows = []
    for number, layer in enumerate(zip(*runs, strict=True)):
        for kind, metric in (("signed", "neuron_correlation"), ("absolute", "absolute_neuron_correlation")):
            interval = student_interval([getattr(one, kind) for one in layer])
            chance = float(np.mean([getattr(one, f"shuffled_{kind}") for one in layer]))
            given = {"items": utterances, "chance": chance, "resampled": "seeds" if len(runs) > 1 else ""}
            given |= {"note": "chance: shuffled pairs", **facts}
            rows.append(Measurement.of(f"{name}: layer {number}", metric, interval, **given))
    return rows


def plot_correlations(
    path: str | Path, models: Mapping[str, Sequence[Sequence[LayerCorrelation]]], title: str = ""
) -> None:
    """Draws a line over layers for each model, signed at the left and absolute at the right; saves a PNG.

    Lines are means over a model's seeds, in a band from the lowest to the highest; shuffled pairs are dotted. Raises
    `ValueError` without a model.
    """
    if not models:
        raise ValueError("there is no model to draw")
    names_in_legend = 0.25 * ((len(models) + 1) // 2)  # inches, of two columns
    figure = Figure(figsize=(9, 3.6 + names_in_legend), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for panel, kind in zip(figure.subplots(1, 2), ("signed", "absolute"), strict=True):
        for number, (name, runs) in enumerate(models.items()):
            _draw_model(panel, name, kind, runs, f"C{number}")
        panel.set_xlabel("shared layer (0: what goes in)")
        panel.set_ylabel(f"{kind} correlation, mean over neurons")
        panel.set_xticks(range(max(len(runs[0]) for runs in models.values())))
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title)
    # No version of matplotlib in the file: the same figures give the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw_model(panel: Axes, name: str, kind: str, runs: Sequence[Sequence[LayerCorrelation]], color: str) -> None:
    values = np.array([[getattr(layer, kind) for layer in run] for run in runs])  # [seeds, layers]
    control = np.array([[getattr(layer, f"shuffled_{kind}") for layer in run] for run in runs])
    depth = range(values.shape[1])
    panel.plot(depth, values.mean(0), "o-", color=color, label=name)
    panel.fill_between(depth, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
    panel.plot(depth, control.mean(0), ":", color=color)
