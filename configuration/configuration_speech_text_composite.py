"""What configurations of a frozen speech encoder, a frozen LLM and something trained between them share."""

from typing import Any, ClassVar, Literal

from transformers import AutoConfig, PreTrainedConfig

from .answer_forms import answer_forms
from .strict_keys import backbone_architecture, refuse_unknown_keys

ENCODINGS = ("clip", "window")
QUANTIZATIONS = ("8bit", "4bit")
RATIOS = (1, 2, 4, 8)


class SpeechTextCompositeConfig(PreTrainedConfig):
    """Fields of every model that lays speech embeddings among those of an LLM's prompt.

    > The two backbones

    audio_config, text_config (`dict` or `PreTrainedConfig`):
        Architectures of the speech encoder and of the LLM; any model type that transformers knows. An LLM that is not
        trained runs without dropout, so its dropout rates are set to zero here.
    audio_model_id, text_model_id (`str`, *optional*):
        Hub id or folder from which the frozen weights are loaded. `None` means that the checkpoint holds them itself.
    audio_model_revision, text_model_revision (`str`, *optional*):
        Commit of the Hub repository, or for a folder the SHA-256 of its weights.
    prompt_fingerprint (`str`, *optional*):
        Of the LLM's vocabulary and chat template, by which another LLM in its place is judged; the processor's
        `from_model_config` fills it in.

    > How the speech encoder is run

    encoding (`"clip"` or `"window"`, defaults to `"clip"`):
        For encoders with a fixed window (Whisper, 30 s): `"clip"` encodes a clip at its own length, which is faster;
        `"window"` pads to the whole window as in pre-training and crops the result. Others are always run per clip.
    frame_kernel, frame_stride (`int`):
        `F = (n - frame_kernel) // frame_stride + 1` encoder frames come from n extracted features (samples or mel
        frames). `from_backbones` asks the encoder for both.

    > What stands between them

    reduction_ratio (`int`, defaults to 4): 1, 2, 4 or 8 frames become one speech embedding.

    > What is trained

    unfrozen (`list[str]`, *optional*):
        Regular expressions matched against the start of backbone parameter names, for instance `"audio_tower"` or
        `r"audio_tower\\.encoder\\.layers\\.(2|3)\\."`. What they match is trained and saved with the rest.

    lora_modules (`list[str]`, *optional*):
        Regular expressions, each of which matches whole names of linear layers in one backbone, with whose name,
        `language_model` or `audio_tower`, it begins: for instance
        `r"language_model\\..*\\.(q_proj|v_proj)"`. These layers get LoRA (arXiv 2106.09685), which is trained and
        saved with the rest.
    lora_rank (`int`, defaults to 8), lora_alpha (`float`, defaults to 16.0), lora_dropout (`float`, defaults to 0.0):
        Its rank r, the numerator of its scale alpha / r, and the dropout before it.
    lora_seed (`int`, defaults to 0): seed of its first weights.

    new_tokens (`list[str]`, *optional*):
        Words for prompts that the LLM does not know, each of which becomes one token. Their embeddings are trained and
        saved with the rest; the LLM reads them and never writes them.
    new_token_ids (`list[int]`, *optional*): their ids, which the processor's `from_model_config` fills in.

    > How the LLM is held

    quantization (`"8bit"` or `"4bit"`, *optional*):
        Its linear layers in LLM.int8 or in 4-bit NormalFloat with double quantization, by bitsandbytes; its embeddings
        and everything else stay as they are.

    > What its answers mean

    answers (`dict[str, dict]`, *optional*): task -> the form of what the model writes, see `answer_forms`.

    > How text and speech meet

    audio_token_id (`int`): id of the placeholder that stands for one speech embedding. It may lie outside the
        LLM's vocabulary, whose table is not enlarged.
    linear_head (`bool`, defaults to `False`):
        The LLM's logits are its output embedding applied to its last hidden state and nothing else, so that the loss
        may skip the logits. `from_backbones` finds out by asking the LLM.

    Raises `ValueError` for unknown keys and for values outside these lists.
    """

    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}
    # What decides the shape and the work of the trained part, beside the fields here.
    bridge_fields: ClassVar[tuple[str, ...]] = ()

    audio_config: Any = None
    text_config: Any = None
    audio_model_id: str | None = None
    audio_model_revision: str | None = None
    text_model_id: str | None = None
    text_model_revision: str | None = None
    prompt_fingerprint: str | None = None

    encoding: Literal["clip", "window"] = "clip"
    frame_kernel: int = 400
    frame_stride: int = 320

    reduction_ratio: int = 4

    unfrozen: list[str] | None = None
    lora_modules: list[str] | None = None
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_seed: int = 0

    new_tokens: list[str] | None = None
    new_token_ids: list[int] | None = None

    quantization: Literal["8bit", "4bit"] | None = None

    answers: dict[str, Any] | None = None

    audio_token_id: int = 3
    linear_head: bool = False

    initializer_range: float = 0.02
    # Copies of the LLM's, where transformers' generation and Trainer look for them.
    hidden_size: int | None = None
    vocab_size: int | None = None
    bos_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_unknown_keys(self, kwargs)
        self.audio_config = backbone_architecture(self.audio_config, "wav2vec2")
        self.text_config = backbone_architecture(self.text_config, "llama")
        super().__post_init__(**kwargs)
        self._check_values()
        if not self._starts("language_model", self.unfrozen):
            self.text_config = _without_dropout(self.text_config)
        if self._starts("audio_tower", self.lora_modules) and not self._starts("audio_tower", self.unfrozen):
            self.audio_config = _without_dropout(self.audio_config)
        self.is_encoder_decoder = bool(self.text_config.is_encoder_decoder)
        self.hidden_size = self.text_config.hidden_size
        self.vocab_size = self.text_config.vocab_size
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(self.text_config, name, None))

    @staticmethod
    def _starts(part: str, patterns: list[str] | None) -> bool:
        return any(pattern.startswith(part) for pattern in patterns or ())

    def _check_values(self) -> None:
        answer_forms(self.answers)
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding is '{self.encoding}'; choose one of {', '.join(ENCODINGS)}")
        for pattern in self.lora_modules or ():
            if not pattern.startswith(("audio_tower", "language_model")):
                raise ValueError(f"LoRA pattern '{pattern}' has to begin with audio_tower or language_model")
        if self.quantization not in (None, *QUANTIZATIONS):
            raise ValueError(f"quantization is '{self.quantization}'; choose {' or '.join(QUANTIZATIONS)}, or None")
        if self.reduction_ratio not in RATIOS:
            raise ValueError(f"reduction_ratio is {self.reduction_ratio}; choose 1, 2, 4 or 8")
        self._check_least(frame_stride=1, lora_rank=1)

    def _check_least(self, **least: int) -> None:
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least {smallest}")


def _without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy of `config` whose dropout rates are zero: a frozen model must stay in `train()` for checkpointing.

    Of a speech encoder SpecAugment too, whose mask embedding would stay random.
    """
    values = config.to_dict()
    rates: dict[str, Any] = {
        name: 0.0 for name, value in values.items() if "drop" in name and isinstance(value, float) and value > 0
    }
    if values.get("apply_spec_augment"):
        rates["apply_spec_augment"] = False
    if not rates:
        return config
    quiet = type(config).from_dict({**values, **rates})
    quiet._attn_implementation = config._attn_implementation
    return quiet


__all__ = ["SpeechTextCompositeConfig"]
