"""The pipelines by task, and which of them a checkpoint has."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedConfig
from transformers.pipelines import PIPELINE_REGISTRY

from ..modeling.auto_classes import AutoModelAsSaved
from .pipeline_speech_instruction import SpeechInstructionPipeline
from .pipeline_speech_understanding import SpeechUnderstandingPipeline
from .pipeline_speech_units import SpeechUnitsPipeline
from .speech_pipeline import SpeechPipeline

PIPELINES: Mapping[str, type[SpeechPipeline]] = {
    "speech-understanding": SpeechUnderstandingPipeline,
    "speech-instruction": SpeechInstructionPipeline,
    "speech-units": SpeechUnitsPipeline,
}


def pipelines_of(config: PreTrainedConfig) -> dict[str, type[SpeechPipeline]]:
    """Task -> class of the pipelines that a saved checkpoint of this configuration can be run by, as `export_code`
    takes them; the first is what it is for. Empty for models without a fine-tuned head."""
    architecture = next(iter(config.architectures or ()), "")
    return {task: member for task, member in PIPELINES.items() if member.takes(config, architecture)}


def register_pipelines() -> None:
    """Makes the tasks known to `transformers.pipeline`."""
    for task, member in PIPELINES.items():
        if task not in PIPELINE_REGISTRY.supported_tasks:  # again, it would warn
            PIPELINE_REGISTRY.register_pipeline(task, member, pt_model=AutoModelAsSaved, type="multimodal")


__all__ = ["PIPELINES", "pipelines_of", "register_pipelines"]
