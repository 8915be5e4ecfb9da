"""`push_to_hub` of models and processors: what transformers sends, and the code it needs, as one commit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitInfo, ModelCard
from transformers import AutoConfig, PreTrainedModel, ProcessorMixin

from ..evaluation.report import write_report
from ..pipelines.pipeline_tasks import pipelines_of
from .card_seal import sealed, without_seal
from .code_export import export_code, export_processor_code
from .hub_upload import Destination, lies_there, upload, with_owner, written_there
from .model_card import write_model_card
from .publishing import CARD_NAME, REPORT_NAME, STALE_WEIGHTS
from .staged_checkpoint import bare_report, refuse_local_names, stage_model

__all__ = ["push"]

logger = logging.getLogger(__name__)


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
            _stage_processor(member, folder, to)
        else:
            tags = [*(member.model_tags or ()), *(tags or ())]
            kind, stale = "model", _stage_model(member, folder, to, max_shard_size, tags)
        commit, _ = upload(folder, to, commit_message or f"Upload {kind}", commit_description, stale=stale)
    return commit


def _stage_processor(processor: ProcessorMixin, folder: Path, to: Destination) -> None:
    processor.save_pretrained(folder)
    refuse_local_names(folder, to)
    export_processor_code(folder, processor)


def _stage_model(
    model: PreTrainedModel, folder: Path, to: Destination, max_shard_size: Any, tags: Sequence[str]
) -> list[str]:
    """Returns what becomes stale: of other weights there is no report here, so that an earlier one goes."""
    self_contained = stage_model(model, folder, save_backbones=False, max_shard_size=max_shard_size)
    refuse_local_names(folder, to)
    export_code(folder, pipelines_of(AutoConfig.from_pretrained(folder)))
    there = written_there(to, CARD_NAME)
    is_other = there is None or not lies_there(to, folder.glob("*.safetensors"))
    if there is None or (is_other and without_seal(there)):
        _render_card(folder, to, self_contained, there, tags)
    else:
        _add_tags(folder / CARD_NAME, there, tags)
        if is_other:
            logger.warning("'%s' keeps its card, which a person wrote; see whether its results hold", to.repository)
    return [*STALE_WEIGHTS, REPORT_NAME] if is_other else list(STALE_WEIGHTS)


def _render_card(folder: Path, to: Destination, self_contained: bool, there: str | None, tags: Sequence[str]) -> None:
    """A card without results; of the one `there` it has license, languages and tags, which hold for other weights."""
    report = bare_report(folder, to.repository, self_contained, f'model.push_to_hub("{to.repository}")')
    if there is not None:
        known: Any = ModelCard(there).data
        tags = [*known.tags, *tags]
        report = replace(report, license=known.license, language=known.language or [])
    write_model_card(folder, to.repository, write_report(folder / REPORT_NAME, replace(report, tags=list(tags))))


def _add_tags(path: Path, there: str, tags: Sequence[str]) -> None:
    """Writes the card that is there where it lacks some."""
    rendered = without_seal(there)
    card: Any = ModelCard(rendered or there)
    if missing := [tag for tag in tags if tag not in (card.data.tags or ())]:
        card.data.tags = [*(card.data.tags or ()), *missing]
        path.write_text(sealed(str(card)) if rendered else str(card), encoding="utf-8")
