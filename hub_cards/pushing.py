"""`push_to_hub` of models and processors: what transformers sends, and the code it needs, as one commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitInfo, ModelCard
from transformers import AutoConfig, PreTrainedModel, ProcessorMixin

from ..evaluation.report import write_report
from ..pipelines.pipeline_tasks import pipelines_of
from .code_export import export_code, export_processor_code
from .hub_upload import Destination, upload, with_owner, written_there
from .model_card import write_model_card
from .publishing import CARD_NAME, REPORT_NAME, STALE_WEIGHTS
from .staged_checkpoint import bare_report, refuse_local_names, stage_model

__all__ = ["push"]


def push(
    member: PreTrainedModel | ProcessorMixin,
    repo_id: str,
    *,
    commit_message: str | None,
    commit_description: str | None,
    private: bool | None,
    token: bool | str | None,
    revision: str | None,
    create_pr: bool,
    max_shard_size: int | str | None,
    tags: Sequence[str] | None,
) -> CommitInfo:
    """See `PushedWithCode.push_to_hub`."""
    to = with_owner(Destination(repo_id, private=private, token=token, revision=revision, create_pr=create_pr))
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kind, stale = "processor", list[str]()
        if isinstance(member, ProcessorMixin):
            _stage_processor(member, folder)
        else:
            kind, stale = "model", list(STALE_WEIGHTS)
            _stage_model(member, folder, to, max_shard_size, [*(member.model_tags or ()), *(tags or ())])
        commit, _ = upload(folder, to, commit_message or f"Upload {kind}", commit_description, stale=stale)
    return commit


def _stage_processor(processor: ProcessorMixin, folder: Path) -> None:
    processor.save_pretrained(folder)
    refuse_local_names(folder)
    export_processor_code(folder, processor)


def _stage_model(
    model: PreTrainedModel, folder: Path, to: Destination, max_shard_size: Any, tags: Sequence[str]
) -> None:
    self_contained = stage_model(model, folder, save_backbones=False, max_shard_size=max_shard_size)
    export_code(folder, pipelines_of(AutoConfig.from_pretrained(folder)))
    there = written_there(to, CARD_NAME)
    if there is None:
        bare = bare_report(folder, to.repository, self_contained)
        write_model_card(folder, to.repository, write_report(folder / REPORT_NAME, bare))
    card: Any = ModelCard.load(folder / CARD_NAME) if there is None else ModelCard(there)
    if missing := [tag for tag in tags if tag not in (card.data.tags or ())]:
        card.data.tags = [*(card.data.tags or ()), *missing]
        card.save(folder / CARD_NAME)
