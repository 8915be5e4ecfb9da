"""What tests of training scripts ask of the card that lies beside the model."""

import json
from pathlib import Path

from huggingface_hub import ModelCard


def check_card(folder: Path) -> None:
    """It has the report's numbers, says how to load the model, and names pictures that are there."""
    report = json.loads((folder / "report.json").read_text())
    card = ModelCard.load(folder / "README.md")
    told = {(one.metric_name, one.metric_type, one.metric_value) for one in card.data.eval_results}
    assert told == {(row["name"], row["metric"], row["value"]) for row in report["measurements"]}
    assert all(one.metric_args["command"] == report["command"] for one in card.data.eval_results)
    assert "import speechzoo" in card.text and f'from_pretrained("{folder}")' in card.text
    assert all((folder / name).is_file() for name in [report.get("learning_curve"), *report.get("plots", {})] if name)
    assert "## Cost" in card.text and report["environment"]["cpu"] in card.text
