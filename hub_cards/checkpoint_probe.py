"""What a checkpoint says of fixed inputs, through transformers' Auto classes.

This file imports nothing of its package, so it runs where the package is not:

    python checkpoint_probe.py OUTPUT_FOLDER THREADS FOLDER...      # writes 0.safetensors, 1.safetensors, ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor
from transformers.utils import PROCESSOR_NAME
from transformers.utils.hub import cached_file

__all__ = ["PROBED", "probe"]

Batch = dict[str, Tensor]
NEW_TOKENS = 6


def probe(folder: str | Path, trust_remote_code: bool | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Loads a checkpoint by `AutoConfig`, `AutoProcessor`, `AutoModel` and the Auto classes of its head, and runs it.

    Args:
        folder: or a Hub id.

    Returns:
        What came of it: "processor.batch.name" of inputs, "Auto class.batch.name" of forward passes and of greedy
        generation; and Auto class -> full name of the class that it loaded.

    Raises `ValueError` for a model that this probe knows no inputs of.
    """
    folder = str(folder)
    trust = {} if trust_remote_code is None else {"trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(folder, **trust)
    if config.model_type not in PROBED:
        raise ValueError(f"there are no inputs to try a model of type '{config.model_type}' with; add them to PROBED")
    loaded: dict[str, Any] = {"AutoConfig": config} | _processors(folder, trust)
    batches = PROBED[config.model_type](config, loaded.get("AutoProcessor"))
    found = {f"processor.{batch}.{name}": value for batch, inputs in batches.items() for name, value in inputs.items()}
    for auto in _auto_classes(config):
        model = getattr(transformers, auto).from_pretrained(folder, **trust).eval()
        loaded[auto] = model
        for name, inputs in batches.items():
            found |= {f"{auto}.{name}.{key}": value for key, value in _outputs(model, inputs).items()}
    classes = {auto: f"{type(member).__module__}.{type(member).__qualname__}" for auto, member in loaded.items()}
    return {name: value.detach().contiguous().clone() for name, value in found.items()}, classes


def _processors(folder: str, trust: dict[str, bool]) -> dict[str, Any]:
    path = cached_file(folder, PROCESSOR_NAME, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return {}
    found = {"AutoProcessor": AutoProcessor.from_pretrained(folder, **trust)}
    extractor = json.loads(Path(path).read_text(encoding="utf-8")).get("feature_extractor") or {}
    if "AutoFeatureExtractor" in extractor.get("auto_map", {}):
        found["AutoFeatureExtractor"] = AutoFeatureExtractor.from_pretrained(folder, **trust)
    return found


def _auto_classes(config: Any) -> list[str]:
    """`AutoModel`, and those that give the class whose weights were saved."""
    heads = [auto for auto, name in config.auto_map.items() if name.rpartition(".")[2] in (config.architectures or ())]
    return sorted({"AutoModel", *heads} - {"AutoConfig"})


@torch.no_grad()
def _outputs(model: Any, inputs: Batch) -> dict[str, Tensor]:
    found: dict[str, Any] = {}
    speaks = model.config.model_type == "text_to_unit"  # by a `generate` of its own, to which remote code adds a mixin
    writes = model.can_generate() and not speaks
    if not (writes and model.config.is_encoder_decoder):
        torch.manual_seed(0)
        found |= model(**inputs)
    if writes:
        prompt = {name: value for name, value in inputs.items() if name != "decoder_input_ids"}
        recorded = {"return_dict_in_generate": True, "output_logits": True}
        said = model.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False, **recorded)
        found |= {"generated": said.sequences, "generated_logits": torch.stack(said.logits)}
    if speaks:
        found["said"] = torch.tensor(model.generate(inputs["phone_ids"])[0].units)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


# ---- inputs ------------------------------------------------------------------------------------------------------


def _clips() -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [(0.2 * torch.randn(samples, generator=generator)).numpy() for samples in (16000, 9000)]


def _speech(config: Any, processor: Any) -> dict[str, Batch]:
    return {"speech": dict(processor(audio=_clips(), return_tensors="pt"))}


def _speech_and_units(config: Any, processor: Any) -> dict[str, Batch]:
    """Words are sounded out by letters, for a lexicon may need an optional package; units that only another model can
    make are left out."""
    batches = _speech(config, processor)
    if processor.text_to_unit_id is None and "SIL" in processor.vocabulary:
        processor.lexicon = None
        batches["text"] = dict(processor(text=["a zoo of speech", "loud"]))
    return batches


def _prompts(config: Any, processor: Any) -> dict[str, Batch]:
    task = next(task for task, prompt in sorted(processor.prompts.items()) if prompt.count("{audio}") == 1)
    clips = _clips()
    batch = dict(processor([processor.prompt(task)] * len(clips), clips, return_tensors="pt"))
    if processor.is_encoder_decoder:
        batch["decoder_input_ids"] = torch.zeros(len(clips), 1, dtype=torch.long)
    return {"prompts": batch}


def _units_and_text(config: Any, processor: Any) -> dict[str, Batch]:
    return {"joint": dict(processor(text=["turn on the lights", "off"], units=[[1, 0, 1], [0]], return_tensors="pt"))}


def _phones(config: Any, processor: None) -> dict[str, Batch]:
    count = len(config.phones)
    return {"phones": {"phone_ids": torch.arange(6)[None] % count, "durations": torch.tensor([[2, 1, 3, 1, 2, 4]])}}


PROBED: dict[str, Callable[[Any, Any], dict[str, Batch]]] = {
    "seal_projector": _prompts,
    "speech_text_adapter": _prompts,
    "speech_units": _speech,
    "speechlm": _speech_and_units,
    "speechut": _speech_and_units,
    "sutlm": _units_and_text,
    "text_to_unit": _phones,
}


def main(output_folder: str, threads: str, *folders: str) -> None:
    torch.set_num_threads(int(threads))  # sums in another order would not be equal
    for number, folder in enumerate(folders):
        outputs, classes = probe(folder, trust_remote_code=True)
        save_file(outputs, Path(output_folder) / f"{number}.safetensors", metadata=classes)


if __name__ == "__main__":
    main(*sys.argv[1:])
