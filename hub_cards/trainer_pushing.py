"""transformers' `Trainer(push_to_hub=True)`: the repository gets the model's code, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import CONFIG_NAME, FEATURE_EXTRACTOR_NAME, PROCESSOR_NAME

from ..pipelines.pipeline_tasks import pipelines_of
from .code_export import export_code
from .hub_upload import Destination
from .staged_checkpoint import refuse_local_names

__all__ = ["CodeGoesAlong"]


class CodeGoesAlong(TrainerCallback):
    """Lays the model's code into the folder that a `Trainer` uploads; of use where `push_to_hub=True`.

        Trainer(model, args, processing_class=processor, callbacks=[CodeGoesAlong()], ...)

    A `Trainer` does not call `push_to_hub` of models and processors but uploads its output folder, which would load
    where this package is installed and nowhere else. From the start of training on that folder holds the code, and
    what is saved of model and processor names it. The card remains that of `Trainer`; for one with results, and code
    that was tried elsewhere first, publish the folder when it is trained: `speechzoo publish`.

    Raises, before the first step:
        ValueError: a backbone, or what the processor names, is not on the Hub; `CodeExportError` for a model that is
            not of this package, one wrapped by peft for instance.
        PublishingError: the Hub does not tell.
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        if not (args.push_to_hub and args.should_save) or model is None:
            return
        folder = Path(str(args.output_dir))
        model.config.architectures = [type(model).__name__]
        for part in filter(None, (model.config, processing_class)):
            part.save_pretrained(folder)
        refuse_local_names(folder, Destination(args.hub_model_id or folder.name, token=args.hub_token))
        export_code(folder, pipelines_of(model.config))
        _name_code(model.config, _read(folder / CONFIG_NAME))
        for name in (PROCESSOR_NAME, FEATURE_EXTRACTOR_NAME):
            if (folder / name).is_file():
                _name_code(processing_class, _read(folder / name))


def _name_code(part: Any, saved: dict[str, Any]) -> None:
    """Gives a configuration or processor what the exporter wrote into its file, so that it is saved again."""
    for name in {"auto_map", "custom_pipelines"} & saved.keys():
        setattr(part, name, saved[name])
    extractor = saved.get("feature_extractor", {})
    if "auto_map" in extractor:
        part.feature_extractor.auto_map = extractor["auto_map"]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
