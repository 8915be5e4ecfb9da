"""Original checkpoints of SpeechLM and SpeechUT, read without running anything that they hold.

They are pickles of tensors, fairseq dictionaries and omegaconf configurations. The unpickler here rebuilds tensors and
plain containers; of the other libraries' classes it makes stand-ins that keep what they were given, and it refuses
everything else. This is the one place in the package that reads a pickle.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# Rebuilding a tensor or a plain container.
HARMLESS = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("_codecs", "encode"),
    *(("builtins", name) for name in ("bool", "bytearray", "dict", "float", "int", "list", "set", "str", "tuple")),
}
# Packages whose objects fairseq puts beside the weights; none of their code is run, or has to be installed.
STAND_INS = {"argparse", "enum", "fairseq", "hydra", "numpy", "omegaconf", "pathlib", "speechlm", "speechut", "typing"}
# What they call for the types of fields, such as `List[str]`; stand-ins, too.
TYPE_FORMS = {("_operator", "getitem"), ("builtins", "type")}
# What a fine-tuned checkpoint writes before the names of the pre-trained model, and before its copy of the CTC head.
FINE_TUNED = {
    "w2v_encoder.w2v_model.": "w2v_encoder.proj.",
    "encoder.w2v_model.": "encoder.proj.",
}


@dataclass
class OriginalCheckpoint:
    """What a conversion needs.

    Args:
        tensors: by the names of the pre-trained model.
        fine_tuned: whether it is a fine-tuned checkpoint.
        copies: tensors of a fine-tuned checkpoint that repeat the CTC head, by its names.
        fields: `cfg.model` of the pre-trained model.
        normalize: whether waveforms are normalized.
        units, letters: symbols of the dictionaries by id, where the checkpoint has them.
    """

    tensors: dict[str, Tensor]
    fields: dict[str, Any]
    normalize: bool
    fine_tuned: bool = False
    copies: dict[str, Tensor] = field(default_factory=dict)
    units: list[str] | None = None
    letters: list[str] | None = None


class StandIn:
    """An object of a class that is not there: its arguments, its state, and nothing that it could do."""

    def __new__(cls, *arguments: Any, **_: Any) -> "StandIn":
        made = super().__new__(cls)
        made.arguments, made.state, made.entries = arguments, None, []
        return made

    arguments: tuple[Any, ...]
    state: Any
    entries: list[Any]

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries.append((key, value))

    def append(self, value: Any) -> None:
        self.entries.append(value)

    def extend(self, values: Any) -> None:
        self.entries.extend(values)


class RestrictedUnpickler(pickle.Unpickler):
    """Knows tensors, plain containers and stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        """Raises `pickle.UnpicklingError` for what a checkpoint has no business with."""
        if module == "__builtin__":  # as files of PyTorch, which hold a pickle for Python 2, call it
            module, name = "builtins", {"long": "int", "unicode": "str"}.get(name, name)
        if (module, name) in HARMLESS:
            found = super().find_class(module, name)
            return found if isinstance(found, type) else partial(found)  # what a file may write to is its own
        if module.split(".")[0] in STAND_INS or (module, name) in TYPE_FORMS:
            return type(name, (StandIn,), {"__module__": module})
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no checkpoint of these models needs")


def read_original(path: Path, configuration: Path | None = None) -> OriginalCheckpoint:
    """Reads a `.pt` of fairseq, or a `.safetensors` with the original names.

    Args:
        configuration: JSON with the original's fields under "model", and "normalize" or "normalize_audio", in the
            place of those in the file; safetensors need it.

    Raises `FileNotFoundError`, and `ValueError` for a file that holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}; give the path of the original's file")
    content = {"model": load_file(path)} if path.suffix == ".safetensors" else _unpickled(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise ValueError(f"{path} holds no state dict under 'model'; it is no checkpoint of fairseq")
    given = {} if configuration is None else json.loads(configuration.read_text())
    fields, normalize = _fields(plain(content.get("cfg")), given, path)
    tensors, copies = _without_prefix(dict(content["model"]), path)
    fine_tuned = tensors.keys() != content["model"].keys()
    symbols = plain(content.get("task_state"))
    symbols = symbols if isinstance(symbols, dict) else {}
    return OriginalCheckpoint(
        tensors=tensors,
        fine_tuned=fine_tuned,
        copies=copies,
        fields=fields,
        normalize=normalize,
        units=_symbols(symbols.get("text_src_dictionary")),
        letters=_symbols(symbols.get("text_dictionary")),
    )


def _unpickled(path: Path) -> Any:
    if _is_program(path):
        raise ValueError(f"{path} is refused: it is a TorchScript program, and loading it would run it")
    reader = SimpleNamespace(Unpickler=RestrictedUnpickler, load=_load, __name__="restricted")
    try:
        return torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)
    except (pickle.UnpicklingError, EOFError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is refused: {error}") from error


def _is_program(path: Path) -> bool:
    """Whether PyTorch would take the file for TorchScript, which it loads past any unpickler."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in archive.namelist())


def _load(file: Any, **options: Any) -> Any:
    return RestrictedUnpickler(file, **options).load()


def plain(value: Any) -> Any:
    """Stand-ins of omegaconf, argparse and fairseq objects as dictionaries, lists and values."""
    if isinstance(value, StandIn):
        return _plain_stand_in(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def _plain_stand_in(value: StandIn) -> Any:
    state = value.state
    if isinstance(state, Mapping):
        for name in ("_content", "_val"):  # containers and leaves of omegaconf
            if name in state:
                return plain(state[name])
        return plain(state)
    return plain(value.arguments[0]) if len(value.arguments) == 1 else plain(list(value.arguments))


def _fields(cfg: Any, given: dict[str, Any], path: Path) -> tuple[dict[str, Any], bool]:
    """`cfg.model`, for a fine-tuned checkpoint that of the model it began from; and whether audio is normalized."""
    cfg = cfg if isinstance(cfg, dict) else {}
    start = cfg.get("model") or {}
    start = (start.get("w2v_args") or {}) if "w2v_args" in start else cfg
    model = given.get("model") or start.get("model")
    if not model:
        raise ValueError(
            f"{path} does not hold the configuration of the pre-trained model; pass it as a JSON file with the "
            f"original's fields under 'model'"
        )
    model = {name: _resolved(value, start, path) for name, value in model.items()}
    return model, _normalize(path, given, given.get("task"), start.get("task"), cfg.get("task"))


def _normalize(path: Path, *places: Any) -> bool:
    """What the first place says that says anything."""
    for place in places:
        for name in ("normalize", "normalize_audio"):
            if isinstance(place, dict) and place.get(name) is not None:
                return bool(place[name])
    raise ValueError(f"{path} does not say whether audio is normalized; pass JSON with normalize as true or false")


def _resolved(value: Any, config: Any, path: Path) -> Any:
    """What a reference such as `"${task.label_rate}"` stands for; other values as they are."""
    reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if reference is None:
        return value
    for part in reference[1].split("."):
        if not isinstance(config, dict) or part not in config:
            raise ValueError(f"{path} refers to {value} in its configuration and does not hold it")
        config = config[part]
    return config


def _without_prefix(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    for prefix, copy in FINE_TUNED.items():
        if not any(name.startswith(prefix) for name in tensors):
            continue
        inner = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        copies = {
            name.replace(copy, "unit_encoder_ctc_head."): value
            for name, value in tensors.items()
            if name.startswith(copy)
        }
        if strange := [name for name in tensors if not name.startswith((prefix, copy))]:
            raise ValueError(f"{path} holds tensors beside '{prefix}*' and '{copy}*': {', '.join(strange[:5])}")
        return inner, copies
    return tensors, {}


def _symbols(dictionary: Any) -> list[str] | None:
    symbols = dictionary.get("symbols") if isinstance(dictionary, dict) else None
    return symbols if isinstance(symbols, list) else None


def convolutions(text: str) -> list[tuple[int, int, int]]:
    """Channels, kernel and stride of each convolution, from `"[(512,10,5)] + [(512,3,2)] * 4"`; nothing is evaluated.

    Raises `ValueError` for another form.
    """
    pattern = r"\[\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\)\](?:\s*\*\s*(\d+))?"
    if re.sub(pattern, "", text).replace("+", "").strip():
        raise ValueError(f"conv_feature_layers is '{text}'; the form [(512,10,5)] + [(512,3,2)] * 4 is understood")
    layers: list[tuple[int, int, int]] = []
    for width, kernel, stride, times in re.findall(pattern, text):
        layers += [(int(width), int(kernel), int(stride))] * int(times or 1)
    return layers


__all__ = ["OriginalCheckpoint", "convolutions", "read_original"]
