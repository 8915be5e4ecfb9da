"""The cards of the tiny zoo's encoder and language models, rendered from their training reports and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from huggingface_hub import ModelCardData

from ..evaluation.report import read_report
from .model_card import GENERATED, render_body, with_front_matter
from .saved_model import read_saved_model

__all__ = ["render_tiny_zoo_card", "write_tiny_zoo_card"]

_CURVE_POINTS = 20
_PLACE = "examples/tiny_zoo"  # where the zoo lies, wherever a model was trained


def write_tiny_zoo_card(folder: str | Path) -> Path:
    """Writes `README.md` beside the `training_report.json` of a model's folder."""
    path = Path(folder) / "README.md"
    path.write_text(render_tiny_zoo_card(folder), encoding="utf-8")
    return path


def render_tiny_zoo_card(folder: str | Path) -> str:
    """The card of the model in that folder. Raises `ValueError` when huggingface_hub cannot read its front matter."""
    report = read_report(Path(folder) / "training_report.json")
    evaluated = [point for point in report.history if point.evaluation] or report.history
    body = render_body(
        "tiny_zoo_card.md.jinja",
        report,
        f"{_PLACE}/{Path(folder).name}",
        read_saved_model(folder),
        corpora=[replace(corpus, license=GENERATED) for corpus in report.corpora],
        curve=evaluated[:: max(len(evaluated) // _CURVE_POINTS, 1)],
        curve_names=sorted({name for point in evaluated for name in point.evaluation if name != "loss"}),
    )
    data = ModelCardData(
        language=report.language,
        license=report.license,
        library_name="transformers",
        pipeline_tag=report.pipeline_tag,
        tags=["speechzoo", report.system, *report.tags],
    )
    return with_front_matter(data, body)
