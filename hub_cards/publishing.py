"""One commit to the Hub with everything a model needs."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from ..evaluation.report import Report, write_report
from .model_card import write_model_card


def names_local_backbones(config: Any) -> bool:
    """Whether a checkpoint of this configuration could be loaded on this machine only."""
    return any(Path(str(source)).is_dir() for source in (config.audio_model_id, config.text_model_id) if source)


def publish(
    model: Any,
    processor: Any,
    repository: str,
    extra_files: Iterable[Path] = (),
    report: Report | None = None,
    private: bool = True,
) -> str:
    """Uploads weights, processor, `report`, the card made from it and `extra_files` as one commit; returns its URL.

    Two backbones of the Hub stay named by id and revision. Where one of them is a local folder, which nobody else
    could load, both go along: the checkpoint is then self-contained, and report and card say so.
    """
    self_contained = names_local_backbones(model.config)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model.save_pretrained(folder, save_backbones=self_contained)
        processor.save_pretrained(folder)
        if report is not None:
            report = write_report(folder / "report.json", replace(report, self_contained=self_contained))
            write_model_card(folder, repository, report)
        for file in extra_files:
            (folder / file.name).write_bytes(file.read_bytes())
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Publish the trained model with its report"
        )
    return str(commit.commit_url)
