"""The card of a trained model, rendered from its report and from what lies in its folder, and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..data.corpus_sources import SOURCES, check_license
from ..evaluation.report import Corpus, Measurement, Report, read_report
from .card_seal import sealed
from .card_templates import card_templates
from .result_tables import measurement_table
from .saved_model import SavedModel, read_saved_model

GENERATED = "Apache-2.0 (from this project's own grammars)"

# The Hub's task of a metric; of others, that of the model.
_TASKS = {
    "wer": "automatic-speech-recognition",
    "cer": "automatic-speech-recognition",
    "bleu": "translation",
    "accuracy": "audio-classification",
}


def write_model_card(folder: str | Path, model_id: str, report: Report | str | Path | None = None) -> Path:
    """Writes `README.md` into the folder of a saved model.

    Code that the model is to carry must be there before: the card says how to load it with that.

    Args:
        folder: Where the model is saved.
        model_id: What users of the card give to `from_pretrained`, `organization/name`.
        report: A report or its file; `report.json` in `folder` when left out.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: there is no model in the folder, or no report.
    """
    source = Path(folder) / "report.json" if report is None else report
    read = source if isinstance(source, Report) else read_report(source)
    path = Path(folder) / "README.md"
    path.write_text(render_model_card(read, model_id, read_saved_model(folder)), encoding="utf-8")
    return path


def render_model_card(report: Report, model_id: str, saved: SavedModel) -> str:
    """The card as text: YAML for the Hub, then Markdown; sealed, so that it is known whether somebody edited it."""
    body = render_body("model_card.md.jinja", report, model_id, saved)
    return sealed(with_front_matter(card_data(report, model_id), body))


def render_body(template: str, report: Report, model_id: str, saved: SavedModel, **more: Any) -> str:
    """The Markdown of a card, by `model_card.md.jinja` or a template that extends it."""
    noun = "clip" if any(corpus.hours for corpus in report.corpora) else "item"
    body = (
        card_templates()
        .get_template(template)
        .render(
            report=report,
            model_id=model_id,
            saved=saved,
            results_table=measurement_table(report.measurements, noun),
            **{"corpora": [_as_shown(corpus) for corpus in report.corpora], **more},
        )
    )
    return re.sub(r"\n{3,}", "\n\n", body)  # Parts that are left out leave their blank lines.


def card_data(report: Report, model_id: str) -> ModelCardData:
    """What the Hub reads of a card: license, tags, backbones, and the measurements as its `model-index`."""
    name, paper = model_id.split("/")[-1], [f"arxiv:{report.paper}"] if report.paper else []
    return ModelCardData(
        language=report.language or None,
        license=report.license,
        library_name="transformers",
        pipeline_tag=report.pipeline_tag,
        tags=list(dict.fromkeys(["speechzoo", report.system, *paper, *report.tags])),
        base_model=[backbone.id for backbone in report.backbones if backbone.on_hub] or None,
        metrics=sorted({measurement.metric for measurement in report.measurements}) or None,
        model_name=name if report.measurements else None,
        eval_results=[_eval_result(measurement, report) for measurement in report.measurements] or None,
    )


def known_license(corpus: str) -> str:
    """Of corpora as `load_corpus` names them, with what comes behind their names; empty where none is known."""
    names = (re.split(r"[:@]", source)[0] for source in corpus.split(", "))
    stated = {name: source.license.name for name, source in SOURCES.items() if source.license.id != "unknown"}
    known = {"synthetic": GENERATED, **stated}
    return ", ".join(dict.fromkeys(known[name] for name in names if name in known))


def without_folders(sources: str) -> str:
    """The same without the folders above the last of a path: they are of the machine, which nobody is told of."""
    return re.sub(r"(?<![\w./])(?!//)[~/][^\s,]*/", "", sources)  # but for those of `https://`


def without_folders_of_the_run(report: Report) -> Report:
    """What others are told of a run: its report without the folders of the machine."""
    return replace(
        report,
        command=without_folders(report.command),
        corpora=[replace(corpus, name=without_folders(corpus.name)) for corpus in report.corpora],
        measurements=[replace(one, dataset=without_folders(one.dataset)) for one in report.measurements],
        backbones=[replace(one, id=without_folders(one.id)) for one in report.backbones],
        settings=_without_folders_inside(report.settings),
    )


def _without_folders_inside(value: Any) -> Any:
    """A setting, or what lists and mappings hold."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, Mapping):
        return {name: _without_folders_inside(inner) for name, inner in value.items()}
    return [_without_folders_inside(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _as_shown(corpus: Corpus) -> Corpus:
    license = corpus.license or known_license(corpus.name)
    return replace(corpus, name=without_folders(corpus.name), license=license)


def with_front_matter(data: ModelCardData, body: str) -> str:
    """A whole card. Raises `ValueError` for a license unknown to the Hub, and for what it could not read."""
    check_license(str(data.license))
    text = f"---\n{data.to_yaml()}\n---\n\n{body}"
    ModelCard(text)  # Raises when the Hub's own reader does not understand the front matter.
    return text


def _eval_result(measurement: Measurement, report: Report) -> EvalResult:
    """A measurement with all that it is to be judged by; each has its own, for readers take them apart."""
    facts = {
        "interval_95": [measurement.low, measurement.high] if measurement.low is not None else None,
        "resampled": measurement.resampled or None,
        "items": measurement.items or None,
        "speakers": measurement.speakers,
        "chance": measurement.chance,
        "majority": measurement.majority,
        "topline": measurement.topline,
        "note": measurement.note or None,
        "seeds": dict(report.seeds) or None,
        "command": report.command,
    }
    tested = measurement.dataset or (report.corpora[0].name if report.corpora else "own recordings")
    dataset = without_folders(tested)
    return EvalResult(
        task_type=measurement.task or _TASKS.get(measurement.metric, report.pipeline_tag),
        dataset_type=dataset,
        dataset_name=dataset,
        dataset_split=measurement.split or None,
        metric_type=measurement.metric,
        metric_name=measurement.name,
        metric_value=measurement.value,
        metric_args={key: value for key, value in facts.items() if value is not None},
    )
