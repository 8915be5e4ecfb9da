"""A picture of what the layers of an encoder know of phones."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .unit_quality import UnitQuality

_MEASURES = {"pnmi": "PNMI", "phone_purity": "phone purity", "cluster_purity": "cluster purity"}
_MARKERS = "osD"


def plot_layers(path: str | Path, layers: Mapping[int, UnitQuality], title: str = "") -> None:
    """Draws the measures that need phones over the layers, and units a second below; saves a PNG.

    Raises `ValueError` when no layer was measured.
    """
    if not layers:
        raise ValueError("no layer was measured; name at least one")
    labeled = all(quality.pnmi is not None for quality in layers.values())
    figure = Figure(figsize=(7, 6 if labeled else 3.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 if labeled else 1, 1, sharex=True, squeeze=False)[:, 0]
    numbers = sorted(layers)
    if labeled:
        for place, (name, label) in enumerate(_MEASURES.items()):
            values = [getattr(layers[number], name) for number in numbers]
            panels[0].plot(numbers, values, marker=_MARKERS[place], label=label)
        panels[0].set_ylabel("share, 0 to 1")
        panels[0].set_ylim(bottom=0)
        panels[0].legend(frameon=False)
    panels[-1].plot(numbers, [layers[number].units_per_second for number in numbers], color="C3", marker="^")
    panels[-1].set_ylabel("units a second")
    panels[-1].set_ylim(bottom=0)
    panels[-1].set_xlabel("layer of the encoder")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)  # one layer alone has no width
    for panel in panels:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    # No version of matplotlib in the file: the same measures give the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})
