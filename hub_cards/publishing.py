"""One commit to the Hub with everything a model needs."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi


def names_local_backbones(config: Any) -> bool:
    """Whether a checkpoint of this configuration could be loaded on this machine only."""
    return any(Path(str(source)).is_dir() for source in (config.audio_model_id, config.text_model_id) if source)


def publish(model: Any, processor: Any, repository: str, extra_files: Iterable[Path], private: bool = True) -> str:
    """Uploads weights, processor and `extra_files` (card, report, plots) as one commit, and returns its URL.

    Backbones that are local folders go along, since nobody else could load them; those of the Hub stay named by id
    and revision.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model.save_pretrained(folder, save_backbones=names_local_backbones(model.config))
        processor.save_pretrained(folder)
        for file in extra_files:
            (folder / file.name).write_bytes(file.read_bytes())
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Publish the trained model with its report"
        )
    return str(commit.commit_url)
