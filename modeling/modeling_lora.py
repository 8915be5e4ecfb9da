"""LoRA (arXiv 2106.09685) on the backbones of a composite model: put in, swapped, merged, taken out.

The configuration says where it goes, so that LoRA and adapter are one checkpoint. The layers are those of peft, which
is imported where it is needed: it takes seconds, which models without LoRA need not wait for.
"""

import inspect
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .modeling_frozen_backbones import HUB_ARGUMENTS, Backbone, FrozenBackbonesModel

OWN = "default"  # the LoRA set that is trained and saved; peft's own name for the first one

# What two checkpoints must share for one model to run either.
_SHARED_FIELDS = (
    *("encoding", "frame_kernel", "frame_stride", "audio_token_id", "quantization"),
    "reduction_ratio",
)


def lora_set(name: str) -> str | None:
    """The LoRA set that a tensor belongs to, by its name: `...lora_A.<set>.weight`."""
    found = re.search(r"(?:^|\.)lora_[AB]\.(\w+)\.", name)
    return found and found[1]


def is_lora(name: str) -> bool:
    """Whether a tensor of this name belongs to LoRA."""
    return lora_set(name) is not None


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """Name -> peft's layer, for every layer that has LoRA."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def lora_targets(headless: Any, patterns: Sequence[str]) -> dict[str, list[str]]:
    """Backbone -> names inside it of the linear layers that the patterns match.

    Raises `ValueError` for a pattern that matches nothing, modules of two parts, or what cannot have LoRA.
    """
    layers = lora_layers(headless)
    modules = {name: module for name, module in headless.named_modules() if not _inside(name, layers)}
    targets: dict[str, set[str]] = {}
    for pattern in patterns:
        matched = [name for name in modules if re.fullmatch(pattern, name)]
        part = _only_part(pattern, matched, modules, [backbone.module for backbone in headless._backbones])
        for name in matched:
            linear = layers[name].get_base_layer() if name in layers else modules[name]
            if linear is headless.language_model.get_output_embeddings():
                raise ValueError(f"LoRA pattern '{pattern}' hits '{name}', the LLM's output embedding; leave it out")
            _check_can_have_lora(f"LoRA pattern '{pattern}' hits '{name}'", linear, modules[name.rpartition(".")[0]])
        targets.setdefault(part, set()).update(name.removeprefix(f"{part}.") for name in matched)
    return {part: sorted(names) for part, names in targets.items()}


def _inside(name: str, layers: Mapping[str, Any]) -> bool:
    """Whether a module lies below one of `layers`."""
    return any(end.end() < len(name) and name[: end.start()] in layers for end in re.finditer(r"\.", name))


def _only_part(pattern: str, matched: list[str], modules: Mapping[str, nn.Module], backbones: list[str]) -> str:
    """The backbone that a pattern hits."""
    if not matched:
        linear = next(name for name, module in modules.items() if isinstance(module, (nn.Linear, Conv1D)))
        raise ValueError(f"LoRA pattern '{pattern}' matches no whole module name; names look like '{linear}'")
    first_of = {name.partition(".")[0]: name for name in reversed(matched)}
    if wrong := sorted(first_of.keys() - set(backbones)):
        raise ValueError(f"LoRA pattern '{pattern}' hits '{first_of[wrong[0]]}', which is in no frozen backbone")
    if len(first_of) > 1:
        hit = " and ".join(f"'{first_of[part]}'" for part in sorted(first_of))
        raise ValueError(f"LoRA pattern '{pattern}' hits {hit}; write one pattern for each backbone that is meant")
    return next(iter(first_of))


def _check_can_have_lora(hit: str, module: nn.Module, owner: nn.Module) -> None:
    if not isinstance(module, (nn.Linear, Conv1D)):
        raise ValueError(f"{hit}, a {type(module).__name__}; LoRA goes on linear layers")
    if any("multi_head_attention_forward" in names for names in _names_in_code(type(owner))):
        raise ValueError(
            f"{hit}, whose weights {type(owner).__name__} reads without running the layer: LoRA would do nothing "
            f"there; choose other layers, for instance the feed-forward ones"
        )


def _names_in_code(kind: type) -> Iterator[tuple[str, ...]]:
    """What each function of a class refers to."""
    for base in kind.__mro__:
        yield from (value.__code__.co_names for value in vars(base).values() if inspect.isfunction(value))


def inject_lora(headless: Any, config: Any, name: str = OWN) -> None:
    """Puts the LoRA layers of a configuration into the backbones; the rest requires gradients as it did."""
    if not config.lora_modules:
        return
    from peft import LoraConfig, inject_adapter_in_model

    for part, targets in lora_targets(headless, config.lora_modules).items():
        backbone = headless.get_submodule(part)
        trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
        settings = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules="|".join(map(re.escape, targets)),
            fan_in_fan_out=isinstance(backbone.get_submodule(targets[0]), Conv1D),
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several sets are meant
            inject_adapter_in_model(settings, backbone, name)
        for parameter in trained:  # peft freezes them
            parameter.requires_grad_(True)


@torch.no_grad()
def initialize_lora(model: nn.Module, config: Any) -> None:
    """First weights as in section 4.1 of the paper: A random by `lora_seed`, B zero, so that nothing changes.

    What A is drawn from is that of peft. Both are float32 from here on, for loading keeps the type of the layers.
    """
    if not config.lora_modules:
        return
    generator = torch.Generator().manual_seed(config.lora_seed)
    for layer in lora_layers(model).values():
        down, up = layer.lora_A[OWN].float().weight, layer.lora_B[OWN].float().weight
        first = torch.empty(down.shape, device="cpu")
        down.copy_(nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator))
        up.zero_()


class LoraOnBackbones(FrozenBackbonesModel):
    """LoRA as part of the configuration of a composite model, and sets of it that take turns.

    A set is what one checkpoint has trained: its LoRA and its adapter.
    """

    _bridge_name: str  # of the module that is trained beside LoRA
    # Kept by the headless model: bridges of the sets that are not in use, and the name of the one that is.
    _resting_bridges: dict[str, dict[str, Tensor]]
    _lora_in_use: str | None

    @property
    def _headless(self) -> Any:
        return self.get_submodule(self._headless_prefix.rstrip("."))

    def _frozen_backbone(self, key: str) -> Backbone | None:
        return None if is_lora(key) else super()._frozen_backbone(key)

    @property
    def lora_sets(self) -> list[str]:
        """Names of the sets that were loaded beside the model's own."""
        return sorted({self._headless._lora_in_use, *self._headless._resting_bridges} - {OWN, None})

    def _left_out_keys(self) -> set[str]:
        """LoRA of loaded sets is not saved either."""
        return super()._left_out_keys() | {key for key in self.state_dict() if lora_set(key) not in (None, OWN)}

    def save_pretrained(self, save_directory: Any, *args: Any, save_backbones: bool = False, **kwargs: Any) -> Any:
        """As `FrozenBackbonesModel` does.

        Raises `ValueError` while LoRA is not the model's own, and for a self-contained checkpoint while other sets
        are loaded, for their layers would be in it.
        """
        if self._headless._lora_in_use != OWN:
            raise ValueError(
                f"LoRA is set to '{self._headless._lora_in_use}', and only the model's own can be saved; "
                f"call set_lora('{OWN}') first"
            )
        names_all = all(backbone.id(self.config) for backbone in self._backbones)
        if self.lora_sets and (save_backbones or not names_all):
            raise ValueError(
                f"the backbones cannot be saved while LoRA sets are loaded into them; call drop_lora for "
                f"{', '.join(self.lora_sets)} first"
            )
        return super().save_pretrained(save_directory, *args, save_backbones=save_backbones, **kwargs)

    @classmethod
    def _as_named_here(cls, config: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if not config.lora_modules:
            return tensors
        start = len(cls._headless_prefix)
        patterns = [re.compile(pattern) for pattern in config.lora_modules]
        return {key[:start] + _wrapped(key[start:], patterns): tensor for key, tensor in tensors.items()}

    @classmethod
    def _assemble(cls, config: Any, trained: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        loaded = super()._assemble(config, trained, *args, **kwargs)
        if not any(is_lora(name) for name in trained):
            initialize_lora(loaded[0] if isinstance(loaded, tuple) else loaded, config)
        return loaded

    def load_lora(self, path: Any, name: str, **hub: Any) -> None:
        """Reads LoRA and adapter of another checkpoint of the same backbones, for `set_lora(name)`.

        Args:
            path: folder or Hub id.
            name: letters, digits and underscores, not yet used.
            hub: arguments of the download, such as `revision` and `token`.

        Raises `ValueError` when the checkpoint was trained on other backbones or with an adapter of another shape.
        """
        headless = self._headless
        if not re.fullmatch(r"\w+", name) or name in {OWN, headless._lora_in_use, *headless._resting_bridges}:
            raise ValueError(f"'{name}' cannot name a LoRA set; take a new word that is not '{OWN}'")
        if unknown := sorted(hub.keys() - set(HUB_ARGUMENTS)):
            raise ValueError(f"load_lora knows no '{unknown[0]}'; it takes {', '.join(HUB_ARGUMENTS)}")
        config = self.config_class.from_pretrained(path, **hub)
        saved = {self._headless_name(key): tensor for key, tensor in self._saved_tensors(path, hub).items()}
        self._check_fits(path, config, saved)
        inject_lora(headless, config, name)
        _fill(headless, name, saved)
        start = f"{self._bridge_name}."
        bridge = {key.removeprefix(start): value for key, value in saved.items() if key.startswith(start)}
        headless._resting_bridges[name] = bridge
        self.set_lora(headless._lora_in_use)

    def _check_fits(self, path: Any, config: Any, saved: Mapping[str, Tensor]) -> None:
        if self.config.new_tokens or config.new_tokens:
            raise ValueError(f"new tokens were trained here or in '{path}'; load it by itself")
        for field in (*_SHARED_FIELDS, *self.config.bridge_fields):
            ours, theirs = getattr(self.config, field), getattr(config, field)
            if ours != theirs:
                raise ValueError(f"'{path}' has {field} {theirs!r} and this model {ours!r}; load it by itself")
        if self.config.unfrozen or config.unfrozen:
            raise ValueError(f"weights of the backbones were trained here or in '{path}'; load it by itself")
        for backbone in self._backbones:
            same = (
                backbone.revision(config) == backbone.revision(self.config)
                if backbone.id(config)
                else self._holds(saved, backbone.module)
            )
            if not same:
                raise ValueError(f"'{path}' was not trained on the {backbone.module} of this model; load it by itself")

    def _holds(self, saved: Mapping[str, Tensor], part: str) -> bool:
        """Whether the weights of a backbone in a self-contained checkpoint are those of this model."""
        ours = {_unwrapped(key): tensor for key, tensor in self._headless.state_dict().items()}
        weights = {_unwrapped(key): value for key, value in saved.items() if key.startswith(part) and not is_lora(key)}
        return all(key in ours and torch.equal(ours[key].cpu(), value) for key, value in weights.items())

    @torch.no_grad()
    def set_lora(self, name: str | None) -> None:
        """Runs with the LoRA set and adapter `name`: "default" is the model's own, `None` its own without any LoRA.

        Only the model's own is trained and saved. Raises `ValueError` for a set that was not loaded.
        """
        headless = self._headless
        known = {OWN, headless._lora_in_use, *headless._resting_bridges} - {None}
        if name is not None and name not in known:
            raise ValueError(f"no LoRA set '{name}' was loaded; there are {', '.join(sorted(map(str, known)))}")
        before, after = headless._lora_in_use or OWN, name or OWN
        if before != after:
            state = headless.bridge.state_dict()
            headless._resting_bridges[before] = {key: tensor.clone() for key, tensor in state.items()}
            headless.bridge.load_state_dict(headless._resting_bridges.pop(after))
        for layer in lora_layers(headless).values():
            has_it = name in layer.lora_A
            layer.enable_adapters(has_it)
            if has_it:
                layer.set_adapter([name])
            for key, parameter in layer.named_parameters():
                if is_lora(key):
                    parameter.requires_grad_(name == OWN and lora_set(key) == OWN)
        headless._lora_in_use = name

    def drop_lora(self, name: str) -> None:
        """Forgets a loaded set. Raises `ValueError` when it is in use or was not loaded."""
        headless = self._headless
        if name not in self.lora_sets or name == headless._lora_in_use:
            raise ValueError(f"'{name}' is no loaded LoRA set that is out of use; there are {self.lora_sets}")
        del headless._resting_bridges[name]
        for path, layer in lora_layers(headless).items():
            if name in layer.lora_A:
                layer.delete_adapter(name)
            if not layer.lora_A:
                headless.set_submodule(path, layer.get_base_layer())
        self.set_lora(headless._lora_in_use)

    def unload_lora(self) -> None:
        """Takes all LoRA out, loaded sets too: the backbones are as they were pretrained, the adapter stays."""
        headless = self._headless
        self.set_lora(OWN)
        for name, layer in lora_layers(headless).items():
            headless.set_submodule(name, layer.get_base_layer())
        for backbone in self._backbones:  # peft's own notes
            vars(headless.get_submodule(backbone.module)).pop("peft_config", None)
        headless._resting_bridges.clear()
        self.config.lora_modules = None

    def merge_lora(self) -> None:
        """Adds the model's own LoRA to the weights it belongs to, and takes it out.

        The backbones it changed are then no longer those of their Hub id: the configuration stops naming them, and
        `save_pretrained` writes their weights.

        Raises `ValueError` where there is no LoRA, and for a quantized LLM, whose weights would be rounded again.
        """
        if not self.config.lora_modules:
            raise ValueError("there is no LoRA to merge; lora_modules of the configuration is empty")
        if self.config.quantization:
            raise ValueError(
                "LoRA cannot be merged exactly into quantized weights; load the checkpoint with quantization=None"
            )
        self.set_lora(OWN)
        layers = lora_layers(self._headless)
        for layer in layers.values():
            layer.merge(safe_merge=True, adapter_names=[OWN])
        changed = {name.partition(".")[0] for name in layers}
        self.unload_lora()
        for backbone in self._backbones:
            if backbone.module in changed:
                setattr(self.config, f"{backbone.name}_model_id", None)
                setattr(self.config, f"{backbone.name}_model_revision", None)


def _wrapped(key: str, patterns: Sequence[re.Pattern[str]]) -> str:
    """The name of a pretrained tensor in a model with LoRA, whose layers keep what they wrap as `base_layer`."""
    for dot in re.finditer(r"\.", key):
        module, rest = key[: dot.start()], key[dot.end() :]
        if any(pattern.fullmatch(module) for pattern in patterns):
            return key if rest.startswith("base_layer.") or is_lora(rest) else f"{module}.base_layer.{rest}"
    return key


def _unwrapped(key: str) -> str:
    return key.replace(".base_layer.", ".")


@torch.no_grad()
def _fill(headless: nn.Module, name: str, saved: Mapping[str, Tensor]) -> None:
    """Copies the own LoRA of a checkpoint into the set `name` of a model."""
    for layer_name, layer in lora_layers(headless).items():
        if name in layer.lora_A:
            for matrix in ("lora_A", "lora_B"):
                weight = getattr(layer, matrix)[name].float().weight
                weight.copy_(saved[f"{layer_name}.{matrix}.{OWN}.weight"])
