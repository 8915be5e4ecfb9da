"""The cards of the tiny zoo's two models, rendered from their training reports and from nothing else."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment as TemplateEnvironment
from jinja2 import PackageLoader, StrictUndefined

from ..evaluation.report import Report, read_report
from .result_tables import format_seconds, measurement_table

_USAGE = {
    "wav2vec2-bert": """from transformers import AutoModelForCTC, AutoProcessor

processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForCTC.from_pretrained(folder)
inputs = processor(samples, sampling_rate=16_000, return_tensors="pt")  # float32 mono samples
print(processor.batch_decode(model(**inputs).logits.argmax(-1)))""",
    "llama": """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer("turn on the lights in the kitchen<int>", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=8)[0]))""",
    "t5": """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSeq2SeqLM.from_pretrained(folder)
inputs = tokenizer("turn on the lights in the kitchen<int>", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=8)[0]))""",
}
_CURVE_POINTS = 20


def write_tiny_zoo_card(folder: str | Path) -> Path:
    """Writes `README.md` beside the `training_report.json` of a model's folder."""
    path = Path(folder) / "README.md"
    path.write_text(render_tiny_zoo_card(read_report(Path(folder) / "training_report.json")), encoding="utf-8")
    return path


def render_tiny_zoo_card(report: Report) -> str:
    """The card as text. Raises `ValueError` when huggingface_hub cannot read its front matter."""
    templates = TemplateEnvironment(
        loader=PackageLoader("speechzoo.hub_cards"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["duration"] = format_seconds
    evaluated = [point for point in report.history if point.evaluation] or report.history
    body = templates.get_template("tiny_zoo_card.md.jinja").render(
        report=report,
        usage=_USAGE[report.system],
        results_table=measurement_table(report.measurements),
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
    text = f"---\n{data.to_yaml()}\n---\n\n{body}\n"
    ModelCard(text)
    return text
