"""Composite models whose large parts stay frozen: a checkpoint holds what was trained and names the rest.

`FrozenBackbonesModel` is a base of both the headless and the headed class.
"""

import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from ..configuration.hub_pushing import PushedWithCode
from .modeling_backbone_swaps import check_swap

logger = logging.get_logger(__name__)

# Where to look and how to authenticate; understood by every loading function of transformers.
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
# SpecAugment's vector is never used by a frozen encoder, and many published encoders come without it.
UNUSED_WHEN_FROZEN = ("masked_spec_embed",)


@dataclass(frozen=True)
class Backbone:
    """One frozen part.

    `module` is its name in the headless model; `name` the prefix of the fields `<name>_config`, `<name>_model_id` and
    `<name>_model_revision`; `auto_class` gives the transformers class that loads it; `part` takes from the loaded
    model what is used.
    """

    module: str
    name: str
    auto_class: Callable[[PreTrainedConfig], Any]
    part: Callable[[PreTrainedModel], PreTrainedModel]

    def config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        return getattr(config, f"{self.name}_config")

    def id(self, config: PreTrainedConfig) -> str | None:
        return getattr(config, f"{self.name}_model_id")

    def revision(self, config: PreTrainedConfig) -> str | None:
        return getattr(config, f"{self.name}_model_revision")

    def build(self, config: PreTrainedConfig) -> PreTrainedModel:
        """The architecture alone, with the weights transformers initializes."""
        sub_config = self.config(config)
        return self.part(self.auto_class(sub_config).from_config(sub_config))

    def load(self, config: PreTrainedConfig, dtype: Any, **hub: Any) -> PreTrainedModel:
        """The pretrained weights.

        Raises `ValueError` when some are missing or a folder's weights have changed, and `FileNotFoundError` when the
        folder is gone.
        """
        source, revision = str(self.id(config)), self.revision(config)
        check_backbone_is_there(source, self.name)
        if Path(source).is_dir():
            _check_fingerprint(source, revision)
            revision = None
        sub_config = copy.deepcopy(self.config(config))
        with quiet_loading():
            model, info = self.auto_class(sub_config).from_pretrained(
                source, revision=revision, config=sub_config, dtype=dtype, output_loading_info=True, **hub
            )
        missing = [key for key in info["missing_keys"] if not key.endswith(UNUSED_WHEN_FROZEN)]
        if missing:
            raise ValueError(
                f"'{source}' lacks {len(missing)} weights of {type(model).__name__}, first '{sorted(missing)[0]}'; "
                f"is it a checkpoint of this architecture?"
            )
        return self.part(model)

    def matches(self, parameter: str, patterns: list[str] | None) -> bool:
        return any(re.match(pattern, parameter) for pattern in patterns or ())


def _language_model_class(config: PreTrainedConfig) -> Any:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_encoder() if model.config.is_encoder_decoder else model


SPEECH_ENCODER = Backbone("audio_tower", "audio", lambda config: AutoModel, _encoder_of)
LANGUAGE_MODEL = Backbone("language_model", "text", _language_model_class, lambda model: model)


class FrozenBackbonesModel(PushedWithCode, PreTrainedModel):
    """Freezing, saving and loading for a model whose backbones are named by id and revision in its configuration."""

    config: PreTrainedConfig
    _keys_to_ignore_on_save: Any
    _always_ignored_on_save: set[str]
    _backbones: tuple[Backbone, ...] = ()
    _headless_prefix = ""  # where the headless model sits in this class: "" or "model."

    @classmethod
    def named_backbones(cls, config: PreTrainedConfig) -> dict[Backbone, str]:
        """The backbones whose weights a checkpoint of this configuration leaves out -> their Hub ids or folders."""
        return {backbone: str(source) for backbone in cls._backbones if (source := backbone.id(config))}

    def post_init(self) -> None:
        super().post_init()
        # Exact names; Trainer reads the second attribute when it resumes.
        self._always_ignored_on_save = self._keys_to_ignore_on_save - self._left_out_keys()
        self._keys_to_ignore_on_save = self._always_ignored_on_save | self._left_out_keys()

    def _headless_name(self, key: str) -> str:
        return key.removeprefix(f"{self.base_model_prefix}.")

    def _frozen_backbone(self, key: str) -> Backbone | None:
        """The backbone that a tensor belongs to, or `None` where it is trained."""
        name = self._headless_name(key)
        for backbone in self._backbones:
            if name.startswith(f"{backbone.module}.") and not backbone.matches(name, self.config.unfrozen):
                return backbone
        return None

    def _left_out_keys(self) -> set[str]:
        """Frozen tensors that are loaded by id: they are not saved. LoRA tensors inside a backbone are."""
        owners = {key: self._frozen_backbone(key) for key in self.state_dict() if "lora_" not in key}
        return {key for key, owner in owners.items() if owner is not None and owner.id(self.config)}

    def freeze_backbones(self) -> None:
        """Sets `requires_grad` as the configuration says. Raises `ValueError` for a pattern that matches nothing."""
        names = [self._headless_name(name) for name, _ in self.named_parameters()]
        for pattern in self.config.unfrozen or ():
            if not any(re.match(pattern, name) for name in names):
                raise ValueError(f"unfrozen pattern '{pattern}' matches no parameter; names look like '{names[0]}'")
        for name, parameter in self.named_parameters():
            if self._frozen_backbone(name) is not None:
                parameter.requires_grad_(False)

    def _refuse_lost_training(self) -> None:
        left_out = self._left_out_keys()
        for name, parameter in self.named_parameters():
            if name in left_out and parameter.requires_grad:
                raise ValueError(
                    f"'{name}' requires gradients, but the configuration calls it frozen and it would not be saved; "
                    f"add '{self._headless_name(name)}' to `unfrozen`, or call save_pretrained(save_backbones=True)"
                )

    def save_pretrained(
        self,
        save_directory: Any,
        *args: Any,
        state_dict: dict | None = None,
        save_backbones: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Saves what was trained; with `save_backbones`, a self-contained checkpoint that names no other.

        Raises `ValueError` when a tensor that would be left out requires gradients.
        """
        # Names as they are in the model; the older ones that transformers restores belong to a backbone by itself.
        kwargs.setdefault("save_original_format", False)
        config: PreTrainedConfig = self.config
        always_ignored = self._always_ignored_on_save
        try:
            if save_backbones:
                self._keys_to_ignore_on_save, self.config = always_ignored, _self_contained(config, self._backbones)
            else:
                self._refuse_lost_training()
                self._keys_to_ignore_on_save = always_ignored | self._left_out_keys()
                # transformers empties the mapping that it is given.
                state_dict = dict(self.state_dict() if state_dict is None else state_dict)
            return super().save_pretrained(save_directory, *args, state_dict=state_dict, **kwargs)
        finally:
            self.config = config
            self._keys_to_ignore_on_save = always_ignored | self._left_out_keys()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        """Loads the trained tensors, and each frozen backbone from where the configuration says.

        Fields of the configuration can be given by name, for instance `text_model_id="folder"` for a moved backbone.
        Another backbone in the place of one is judged by `check_swap`.
        """
        path = pretrained_model_name_or_path
        if path is None:
            return cls._load_frozen(None, *args, config=config, **kwargs)
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        # A configuration would keep it for itself, "auto" too.
        dtype = kwargs.pop("torch_dtype", None) or kwargs.pop("dtype", None)
        if config is None:
            config, kwargs = cls.config_class.from_pretrained(path, return_unused_kwargs=True, **kwargs)
            kwargs |= hub
        cls._check_swaps(path, config, hub)
        named = cls.named_backbones(config)
        headless = not cls._headless_prefix
        trained = cls._saved_tensors(path, hub) if named or config.lora_modules or headless else {}
        # transformers would take a headed checkpoint's "model." away from the LLM inside, and leave that random.
        headed = headless and any(name.startswith(f"{cls.base_model_prefix}.") for name in trained)
        if not named and not headed and cls._as_named_here(config, trained).keys() == trained.keys():
            return cls._load_frozen(path, *args, config=config, dtype=dtype or "auto", **kwargs)
        dtype = dtype or config.dtype or "auto"
        rest = {name: value for name, value in kwargs.items() if name not in hub}
        loaded = cls._assemble(config, trained, dtype, hub, *args, **rest)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.config.name_or_path = model.name_or_path = str(path)
        if model.can_generate():
            model.generation_config = cls._saved_generation_config(path, hub) or model.generation_config
        return loaded

    @classmethod
    def _check_swaps(cls, path: Any, config: Any, hub: dict[str, Any]) -> None:
        """Raises `ValueError` for a backbone in the place of another that does not fit what was trained."""
        try:
            trained = cls.config_class.from_pretrained(path, **hub)
        except OSError:  # there are weights alone
            return
        for backbone in cls._backbones:
            check_swap(backbone.name, trained, config, **_elsewhere(hub))

    @classmethod
    def _load_frozen(cls, *args: Any, **kwargs: Any) -> Any:
        """transformers' own loading, which makes every weight require gradients, and freezing after it."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_backbones()
        return loaded

    @classmethod
    def _saved_generation_config(cls, path: Any, hub: dict[str, Any]) -> GenerationConfig | None:
        try:
            return GenerationConfig.from_pretrained(path, **hub)
        except OSError:  # the headless model saves none
            return None

    def adopt(self, backbone: Backbone, pretrained: PreTrainedModel) -> None:
        """Takes over what `pretrained` knows beside its weights: how it likes to generate."""
        if pretrained.can_generate():
            self.get_submodule(
                f"{self._headless_prefix}{backbone.module}"
            ).generation_config = pretrained.generation_config

    @classmethod
    def _assemble(
        cls, config: Any, trained: dict[str, torch.Tensor], dtype: Any, hub: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """A model of `config` from the pretrained backbones and the `trained` tensors, which have the last word."""
        prefix = cls._headless_prefix
        tensors: dict[str, torch.Tensor] = {}
        parts: dict[Backbone, PreTrainedModel] = {}
        for backbone in cls._backbones:
            if backbone.id(config):
                parts[backbone] = part = backbone.load(config, dtype, **_elsewhere(hub))
                dtype = part.dtype if dtype == "auto" else dtype
                tensors |= {f"{prefix}{backbone.module}.{key}": value for key, value in part.state_dict().items()}
        tensors = cls._as_named_here(config, tensors)
        stem = f"{cls.base_model_prefix}."
        trained = {f"{prefix}{key.removeprefix(stem)}": value for key, value in trained.items()}
        trained = cls._as_named_here(config, trained)
        tensors = _replaced(tensors, trained)
        loaded = cls._load_frozen(None, *args, config=config, state_dict=tensors, dtype=dtype, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for backbone, part in parts.items():
            model.adopt(backbone, part)
        return loaded

    @classmethod
    def _as_named_here(cls, config: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors of a checkpoint under the names that a model of `config` has for them."""
        return tensors

    @classmethod
    def _saved_tensors(cls, path: Any, hub: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Everything trained, from one file, or from several where the checkpoint was saved in shards."""
        try:
            files = [cached_file(path, SAFE_WEIGHTS_NAME, **hub)]
        except OSError as missing:
            files = cls._shards(path, hub, missing)
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    @classmethod
    def _shards(cls, path: Any, hub: dict[str, Any], missing: OSError) -> list[str]:
        try:
            index = cached_file(path, SAFE_WEIGHTS_INDEX_NAME, **hub)
        except OSError:
            raise missing from None
        files, _ = get_checkpoint_shard_files(path, index, **hub)
        return files


def _elsewhere(hub: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of downloads from another repository than that of the checkpoint."""
    return {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}


def _replaced(pretrained: dict[str, torch.Tensor], trained: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All tensors, with the trained ones in place of the pretrained; names that are tied to one change together."""
    changed = {pretrained[name].data_ptr(): tensor for name, tensor in trained.items() if name in pretrained}
    return {name: changed.get(tensor.data_ptr(), tensor) for name, tensor in pretrained.items()} | trained


def pinned_revision(source: str, revision: str | None, **hub: Any) -> str | None:
    """The commit that `revision` of a Hub repository means now, or the fingerprint of a local folder."""
    if Path(source).is_dir():
        return fingerprint(source)
    # A cached file lies in snapshots/<commit>/, with and without the network.
    return Path(cached_file(source, "config.json", revision=revision, **hub)).parent.name


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over the names, sizes, first and last mebibyte of a folder's safetensors files.

    Raises `FileNotFoundError` when there are none.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"'{folder}' holds no safetensors weights; convert the checkpoint first")
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(2**20))
            stream.seek(max(size - 2**20, 0))
            digest.update(stream.read())
    return digest.hexdigest()


def fingerprint_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the names, shapes, types and bytes of tensors in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_backbone_is_there(source: str, name: str) -> None:
    """A Hub id has one slash at most, so a longer path that is no folder is a folder that is missing.

    Raises `FileNotFoundError`, which says how to give the backbone `name` another place.
    """
    if not Path(source).is_dir() and (source.count("/") > 1 or source.startswith((".", "/"))):
        raise FileNotFoundError(
            f"the backbone folder '{source}' is not here; run where it was when the adapter was trained, or say where "
            f"it is now: from_pretrained(..., {name}_model_id='FOLDER')"
        )


def _check_fingerprint(folder: str, expected: str | None) -> None:
    if expected is not None and fingerprint(folder) != expected:
        raise ValueError(
            f"the weights in '{folder}' are not those this checkpoint was trained on; restore them, or accept "
            f"others by passing the revision of this backbone as None"
        )


def _self_contained(config: Any, backbones: tuple[Backbone, ...]) -> Any:
    """A copy of `config` that names no other checkpoint."""
    config = copy.deepcopy(config)
    for backbone in backbones:
        setattr(config, f"{backbone.name}_model_id", None)
        setattr(config, f"{backbone.name}_model_revision", None)
    return config


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silences the loading report: what it would say is checked by the caller."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
