"""One commit to the Hub with everything a model needs: weights, processor, code, card, report and plots."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..evaluation.report import Report, read_report, write_report
from ..pipelines.pipeline_tasks import pipelines_of
from .card_seal import is_kept
from .code_export import export_code
from .code_verification import verify_code
from .hub_upload import Destination, upload
from .model_card import without_folders_of_the_run, write_model_card
from .staged_checkpoint import (
    backbones_as_published,
    bare_report,
    refuse_local_names,
    stage_folder,
    stage_model,
    stage_processor,
)

__all__ = ["STALE_WEIGHTS", "Publication", "publish", "publish_folder"]

REPORT_NAME, CARD_NAME = "report.json", "README.md"
PLOTS = ("*.png", "*.svg")
# transformers prefers one file of weights to shards, so that those of an earlier publication would be loaded.
# A `*` would stand for folders, too, and take files that nobody here wrote.
STALE_WEIGHTS = (SAFE_WEIGHTS_NAME, "model-?????-of-?????.safetensors", SAFE_WEIGHTS_INDEX_NAME)


@dataclass(frozen=True)
class Publication:
    """What was published, or would be.

    Attributes:
        repository: Hub id.
        sizes: file -> bytes.
        commit_url: empty after a dry run.
        private: whether only its owners see it; `None` after a dry run.
    """

    repository: str
    sizes: Mapping[str, int]
    commit_url: str = ""
    private: bool | None = None

    @property
    def listing(self) -> str:
        """The files by size, for the terminal."""
        lines = [f"{self.repository}: {len(self.sizes)} files, {sum(self.sizes.values()):,} bytes"]
        by_size = sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))
        return "\n".join([*lines, *(f"{size:>15,}  {name}" for name, size in by_size)])


def publish(
    model: PreTrainedModel,
    processor: Any,
    repository: str,
    extra_files: Iterable[Path] = (),
    report: Report | None = None,
    *,
    save_backbones: bool = False,
    verify: bool = True,
    dry_run: bool = False,
    edited_card: str | None = None,
    **destination: Any,
) -> Publication:
    """Uploads a model, its processor, their code, `report`, the card made from it and `extra_files` as one commit.

    Backbones of the Hub stay named by id and revision. Where one of them is a local folder, which nobody else could
    load, all go along: the checkpoint is then self-contained, and report and card say so.

    Args:
        model, processor: of this package; a model without a processor is published with `None`.
        repository: `organization/name`.
        extra_files: go beside them, plots for instance.
        save_backbones: makes the checkpoint self-contained in any case.
        verify: first loads all this in a process without the package and compares what the two say.
        dry_run: only tells what would go; no network is touched.
        edited_card: what becomes of a card there that a person wrote or edited: "keep" or "replace".
        **destination: `private` (True), `tag`, `token` and other fields of `Destination`.

    Raises:
        ValueError: the repository is public and should be private; the tag is taken; a person edited the card there
            and `edited_card` is not told; a backbone, or what the processor names, is not on the Hub; a picture of
            the report is missing; `CodeExportError` where the code does not work elsewhere.
        FileNotFoundError: a backbone is a folder that is gone.
        PublishingError: the Hub refuses or cannot be reached; it is then as it was.
    """
    to = _destination(repository, destination)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        self_contained = stage_model(model, folder, save_backbones)
        if processor is not None:
            processor.save_pretrained(folder)
        for file in extra_files:
            shutil.copyfile(file, folder / file.name)
        if report is not None:
            write_report(folder / REPORT_NAME, report)
        whole = ", save_backbones=True" if save_backbones else ""
        _report_at_least(folder, to, self_contained, f'publish(model, processor, "{repository}"{whole})')
        return _publish_staged(folder, to, self_contained, verify, dry_run, edited_card)


def publish_folder(
    source: str | Path,
    repository: str,
    *,
    save_backbones: bool = False,
    verify: bool = True,
    dry_run: bool = False,
    edited_card: str | None = None,
    names: Mapping[str, str] | None = None,
    **destination: Any,
) -> Publication:
    """The same of a folder that a training script or `save_pretrained` wrote.

    Weights, processor, report, card and plots go, and nothing else that lies there. The model is loaded only where
    backbones go along.

    Args:
        names: field of the processor -> Hub id (or revision) of the model that it shall name there; an id without a
            revision is named by its newest commit.

    Raises what `publish` raises, and `FileNotFoundError` where there is no model in the folder.
    """
    source, to = Path(source), _destination(repository, destination)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        self_contained = stage_folder(source, folder, save_backbones, offline=dry_run)
        stage_processor(source, folder, names or {}, None if dry_run else to)
        for pattern in (REPORT_NAME, CARD_NAME, *PLOTS):
            for file in source.glob(pattern):
                shutil.copyfile(file, folder / file.name)
        options = ["--save_backbones"] if save_backbones else []
        options += [word for pair in (names or {}).items() for word in ("--name", "=".join(pair))]
        command = shlex.join(["speechzoo", "publish", str(source), repository, *options])
        _report_at_least(folder, to, self_contained, command)
        return _publish_staged(folder, to, self_contained, verify, dry_run, edited_card)


def _destination(repository: str, fields: Mapping[str, Any]) -> Destination:
    if repository.count("/") != 1:
        raise ValueError(f"'{repository}' is no Hub id; write it as ORGANIZATION/NAME")
    return Destination(repository, **fields)


def _report_at_least(folder: Path, to: Destination, self_contained: bool, command: str) -> None:
    """Where there is neither report nor card, a report of what can be seen, and of the command that published it."""
    if not any((folder / name).is_file() for name in (REPORT_NAME, CARD_NAME)):
        write_report(folder / REPORT_NAME, bare_report(folder, to.repository, self_contained, command))


def _publish_staged(
    folder: Path, to: Destination, self_contained: bool, verify: bool, dry_run: bool, edited_card: str | None
) -> Publication:
    """Adds code and card to what lies in a folder, and uploads it."""
    refuse_local_names(folder, None if dry_run else to)
    export_code(folder, pipelines_of(AutoConfig.from_pretrained(folder)))
    _write_card(folder, to.repository, self_contained)
    if not dry_run and is_kept(folder / CARD_NAME, to, edited_card):
        (folder / CARD_NAME).unlink()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    if dry_run:
        return Publication(to.repository, sizes)
    if verify:
        verify_code(folder)
    message = "Publish the model with its processor, code, card and report"
    commit, private = upload(folder, to, message, stale=[*STALE_WEIGHTS, REPORT_NAME])
    return Publication(to.repository, sizes, str(commit.commit_url), private)


def _write_card(folder: Path, repository: str, self_contained: bool) -> None:
    """The card of the report; where there is none, one that lies there stays as it is."""
    if not (folder / REPORT_NAME).is_file():
        return
    report = without_folders_of_the_run(read_report(folder / REPORT_NAME))
    backbones = backbones_as_published(report.backbones, folder)
    report = replace(report, self_contained=self_contained, backbones=backbones)
    if missing := [name for name in report.pictures if not (folder / name).is_file()]:
        raise ValueError(f"the report names the picture '{missing[0]}', which is not beside it; add it (extra_files)")
    write_model_card(folder, repository, write_report(folder / REPORT_NAME, report))
