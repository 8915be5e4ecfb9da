"""Whether a checkpoint still computes what it did when published, so that no library loads it wrongly unnoticed.

    record_loss(folder)     # once, beside the weights
    check_loss(folder)      # ever after, whatever the versions of torch and transformers

Where the weights themselves matter to nobody, a folder may hold `weights.json`, their names and shapes, in place of
them: they are then made from their names alone, by nothing that a new version of a library could change.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoProcessor
from transformers.utils import SAFE_WEIGHTS_NAME

from ..modeling.modeling_frozen_backbones import quiet_loading
from .saved_model import read_saved_model

__all__ = ["LOSS_FILE", "WEIGHTS_FILE", "CheckpointChangedError", "check_loss", "forget_weights", "record_loss"]

LOSS_FILE = "recorded_loss.json"
WEIGHTS_FILE = "weights.json"
TOLERANCE = 1e-4  # of the loss, or of one; what other processors and kernels change is a hundredth of it
TEXTS = ("turn on the lights", "lights off")


class CheckpointChangedError(ValueError):
    """A checkpoint does not load whole, or computes something else than when it was recorded."""


def record_loss(folder: str | Path) -> float:
    """Writes `recorded_loss.json` into the folder of a saved model. Raises as `check_loss` for what does not load."""
    loss = _loss_of(Path(folder))
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    (Path(folder) / LOSS_FILE).write_text(json.dumps({"loss": loss, **versions}, indent=2) + "\n", encoding="utf-8")
    return loss


def check_loss(folder: str | Path) -> float:
    """The loss of a saved model on a fixed batch, equal to the recorded one; of a unit model, the mean of its units.

    Raises:
        CheckpointChangedError: weights were missing, unexpected or of another shape; or the loss is another one.
        FileNotFoundError: nothing is recorded there.
        ValueError: the model is of a kind that has no loss here, headless for instance.
    """
    path = Path(folder) / LOSS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; record the loss with versions that you trust")
    recorded = json.loads(path.read_text(encoding="utf-8"))
    loss = _loss_of(Path(folder))
    if not abs(loss - recorded["loss"]) <= TOLERANCE * max(1.0, abs(recorded["loss"])):
        raise CheckpointChangedError(
            f"{folder}: the loss is {loss:.6f} with transformers {transformers.__version__} and torch "
            f"{torch.__version__}, and was {recorded['loss']:.6f} with {recorded['transformers']} and "
            f"{recorded['torch']}; do not use it with these versions before you know why"
        )
    return loss


def forget_weights(folder: str | Path) -> None:
    """Replaces the weights in a folder by their names and shapes. Raises `ValueError` for any but float32."""
    path = Path(folder) / SAFE_WEIGHTS_NAME
    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        if other := [name for name, part in slices.items() if part.get_dtype() != "F32"]:
            raise ValueError(f"'{other[0]}' is not in float32; save the model in that")
        shapes = {name: part.get_shape() for name, part in sorted(slices.items())}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in shapes.items())
    (Path(folder) / WEIGHTS_FILE).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    path.unlink()


# ---- weights -----------------------------------------------------------------------------------------------------


@contextmanager
def _with_weights(folder: Path) -> Iterator[Path]:
    """The folder, or a copy of it with weights where it has but their names."""
    if not (folder / WEIGHTS_FILE).is_file():
        yield folder
        return
    shapes = json.loads((folder / WEIGHTS_FILE).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        copied = Path(shutil.copytree(folder, Path(temporary) / folder.name))
        tensors = {name: torch.from_numpy(_values(name, shape)) for name, shape in shapes.items()}
        save_file(tensors, copied / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
        yield copied


def _values(name: str, shape: list[int]) -> np.ndarray:
    """Of a size at which each tensor matters to the output; the old generator of NumPy is frozen for good."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        drawn *= 2 / np.sqrt(np.prod(shape[1:]))
    else:
        drawn = 0.1 * drawn + (0 if name.endswith("bias") else 1)
    return drawn.astype(np.float32)


# ---- loss --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _loss_of(folder: Path) -> float:
    with _with_weights(folder) as place:
        config, auto_class = AutoConfig.from_pretrained(place), read_saved_model(place).auto_class
        read_to = BATCHES.get(config.model_type) or BATCHES.get(auto_class)
        if read_to is None:
            raise ValueError(f"there is no batch to try a model of {auto_class} with; add one to BATCHES")
        batch = read_to(config, place)
        headless = _loaded_whole("AutoModel", place, leftovers={"unexpected_keys"})  # a head, perhaps
        model = _loaded_whole(auto_class, place)
    if type(headless) is not type(model):
        _check_same(headless, model.base_model, folder)
    torch.manual_seed(0)
    output = model.eval()(**batch)
    return float(output.units.double().mean() if config.model_type == "speech_units" else output.loss)


def _loaded_whole(auto_class: str, place: Path, leftovers: Collection[str] = ()) -> Any:
    """The model in float32. Raises `CheckpointChangedError` for problems but those of the kinds `leftovers`."""
    load = getattr(transformers, auto_class).from_pretrained
    with quiet_loading():
        model, info = load(place, dtype=torch.float32, output_loading_info=True)
    found = {kind: sorted(map(str, names))[:3] for kind, names in info.items() if names}
    if problems := {kind: names for kind, names in found.items() if kind not in leftovers}:
        raise CheckpointChangedError(f"{place.name} does not load whole by {auto_class}: {problems}")
    return model


def _check_same(headless: Any, below_head: Any, folder: Path) -> None:
    """Raises `CheckpointChangedError` where `AutoModel` gives other weights: no loss would tell."""
    expected = below_head.state_dict()
    for name, tensor in headless.state_dict().items():
        if name not in expected or not torch.equal(tensor, expected[name]):
            raise CheckpointChangedError(f"{folder}: '{name}' is another by AutoModel than below the head")


def _clips() -> list[np.ndarray]:
    noise = np.random.RandomState(0).standard_normal(16000)
    return [(0.2 * noise[:samples]).astype(np.float32) for samples in (16000, 9000)]


def _prompts(config: Any, place: Path) -> dict[str, Any]:
    processor = AutoProcessor.from_pretrained(place)
    task = next(task for task, prompt in sorted(processor.prompts.items()) if prompt.count("{audio}") == 1)
    prompts = [processor.prompt(task)] * len(TEXTS)
    return dict(processor(prompts, _clips(), targets=list(TEXTS), return_tensors="pt"))


def _units_and_text(config: Any, place: Path) -> dict[str, Any]:
    batch = AutoProcessor.from_pretrained(place)(text=list(TEXTS), units=[[1, 0, 1], [0]], return_tensors="pt")
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def _text(config: Any, place: Path) -> dict[str, Any]:
    """A text to be copied, as the tiny zoo's models were taught."""
    tokenizer = AutoProcessor.from_pretrained(place)
    asked = len(tokenizer(f"{TEXTS[0]}<asr>")["input_ids"])
    batch = tokenizer(f"{TEXTS[0]}<asr>{TEXTS[0]}", return_tensors="pt")
    labels = batch["input_ids"].clone()
    labels[:, :asked] = -100
    return {**batch, "labels": labels}


def _recognition(config: Any, place: Path) -> dict[str, Any]:
    processor = AutoProcessor.from_pretrained(place)
    speech = processor(_clips(), sampling_rate=16_000, return_tensors="pt")
    letters = processor.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    return {**speech, "labels": letters["input_ids"].masked_fill(letters["attention_mask"] == 0, -100)}


def _classes(config: Any, place: Path) -> dict[str, Any]:
    return {**AutoProcessor.from_pretrained(place)(audio=_clips()), "labels": torch.tensor([0, 1])}


def _classes_of_units(config: Any, place: Path) -> dict[str, Any]:
    batch = AutoProcessor.from_pretrained(place)(text=list(TEXTS), units=[[1, 0, 1], [0]], return_tensors="pt")
    return {**batch, "labels": torch.tensor([0, 1])}


def _heard_letters(config: Any, place: Path) -> dict[str, Any]:
    return dict(AutoProcessor.from_pretrained(place)(audio=_clips(), labels=list(TEXTS)))


def _letters(config: Any, place: Path) -> dict[str, Any]:
    return dict(AutoProcessor.from_pretrained(place)(audio=_clips(), labels=list(TEXTS), end=True))


def _frames(config: Any, place: Path) -> dict[str, Any]:
    """Speech with a unit for every label, some frames masked and some swapped."""
    batch = dict(AutoProcessor.from_pretrained(place)(audio=_clips()))
    frames = (batch["input_values"].shape[1] - config.frame_kernel) // config.inputs_to_logits_ratio + 1
    labels = torch.arange(round(frames * config.label_rate / config.frame_rate)) % (config.unit_vocab_size - 8) + 4
    places = torch.arange(frames).expand(len(_clips()), -1)
    chosen = {"mask_time_indices": places % 8 < 3, "swap_indices": places % 8 > 5}
    return {**batch, "labels": labels.expand(len(_clips()), -1), **chosen}


def _phones(config: Any, place: Path) -> dict[str, Any]:
    phones, durations = torch.arange(6)[None] % len(config.phones), torch.tensor([[2, 1, 3, 1, 2, 4]])
    labels = torch.arange(int(durations.sum()))[None] % config.clusters
    return {"phone_ids": phones, "durations": durations, "labels": labels}


def _speech(config: Any, place: Path) -> dict[str, Any]:
    return dict(AutoProcessor.from_pretrained(place)(_clips()))


# By the type of a model where it is read to in a way of its own, else by its Auto class.
BATCHES: dict[str, Callable[[Any, Path], dict[str, Any]]] = {
    "llama": _text,
    "speech_units": _speech,
    "text_to_unit": _phones,
    "wav2vec2-bert": _recognition,
    "AutoModelForAudioClassification": _classes,
    "AutoModelForCTC": _heard_letters,
    "AutoModelForCausalLM": _units_and_text,
    "AutoModelForMultimodalLM": _prompts,
    "AutoModelForPreTraining": _frames,
    "AutoModelForSequenceClassification": _classes_of_units,
    "AutoModelForSpeechSeq2Seq": _letters,
}
