"""Configuration of SUTLM (arXiv 2310.08715): one causal LM over speech units and text."""

import copy
from typing import Any, Literal

from transformers import AutoConfig, GPT2Config, PreTrainedConfig

from .answer_forms import answer_forms
from .strict_keys import backbone_architecture, refuse_unknown_keys

# Layers, width and heads. The paper has the 350M model alone, whose shape is our reading: that of GPT-3 medium. The
# two larger ones are GPT-3's of that size, the tiny one is for tests and demonstrations.
SHAPES = {"tiny": (4, 128, 4), "350M": (24, 1024, 16), "1B": (24, 2048, 32), "7B": (32, 4096, 32)}
SWITCHES = ("unit_start_token_id", "text_start_token_id", "unit_to_text_token_id", "text_to_unit_token_id")
SHARED = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")
TRAINED_ROWS = ("all", "units")


class SUTLMConfig(PreTrainedConfig):
    """Configuration of `SUTLMModel`, `SUTLMForCausalLM` and `SUTLMForSequenceClassification`.

    > The Transformer

    text_config (`dict` or `PreTrainedConfig`):
        Architecture of any causal LM that transformers knows. Its `vocab_size` is that of the joint vocabulary.
    head_bias (`bool`, defaults to `False`): whether the logits have a bias, as those of Phi.
    tie_word_embeddings (`bool`, *optional*): one table for input and output; as `text_config` says by default.

    > The joint vocabulary

    unit_token_start (`int`, *optional*), unit_token_count (`int`, defaults to 0):
        Tokens `unit_token_start` to `unit_token_start + unit_token_count - 1` are pieces of speech units.
    unit_start_token_id, text_start_token_id (`int`, *optional*):
        `<U_EN>` and `<T_EN>`, which open a stream of units and of text.
    unit_to_text_token_id, text_to_unit_token_id (`int`, *optional*):
        `<U2T>` and `<T2U>`, which switch the modality inside a sequence.
    bos_token_id, eos_token_id, pad_token_id (`int`, *optional*): as `text_config` says by default.

    > What is trained

    trained_rows (`"all"` or `"units"`, defaults to `"all"`):
        `"units"` trains the rows of the unit pieces and of the four tokens above, in the input and the output table,
        and of everything else only a classifier. What is saved are then the tables as they were and the changes of
        these rows; `fold_rows` makes an ordinary model of both.

    > Classification (attention pooling; the head is our reading of the SLUE baseline)

    num_labels (`int`, defaults to 2), classifier_dropout (`float`, defaults to 0.2).

    > What its answers mean

    answers (`dict[str, dict]`, *optional*): task -> the form of what a fine-tuned model says, see `answer_forms`.

    Raises `ValueError` for unknown keys and for tokens that lie outside the vocabulary or mean two things.
    """

    model_type = "sutlm"
    sub_configs = {"text_config": AutoConfig}
    keys_to_ignore_at_inference = [
        "past_key_values",
        *(f"{kind}_{what}" for kind in ("speech", "text", "control") for what in ("loss", "perplexity", "tokens")),
    ]

    text_config: Any = None
    head_bias: bool = False
    tie_word_embeddings: bool | None = None

    unit_token_start: int | None = None
    unit_token_count: int = 0
    unit_start_token_id: int | None = None
    text_start_token_id: int | None = None
    unit_to_text_token_id: int | None = None
    text_to_unit_token_id: int | None = None
    bos_token_id: int | list[int] | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    trained_rows: Literal["all", "units"] = "all"

    classifier_dropout: float = 0.2

    answers: dict[str, Any] | None = None

    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        refuse_unknown_keys(self, kwargs)
        self.text_config = backbone_architecture(self.text_config, "gpt2")
        super().__post_init__(**kwargs)
        self._agree_with_text_config()
        self._check_tokens()
        answer_forms(self.answers)

    @classmethod
    def preset(
        cls, size: str, *, vocab_size: int, context: int = 2048, dropout: float = 0.1, **fields: Any
    ) -> "SUTLMConfig":
        """A model of the paper's kind: pre-norm, GELU, learned positions, tied tables, to be trained from scratch.

        Args:
            size: "tiny", "350M" (the paper's), "1B" or "7B".
            vocab_size: of the joint vocabulary.
            context: most tokens of a sequence.
            **fields: of this configuration.

        Raises `ValueError` for another size.
        """
        if size not in SHAPES:
            raise ValueError(f"there is no preset '{size}'; choose one of {', '.join(SHAPES)}")
        layers, width, heads = SHAPES[size]
        special = {name: fields.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        text_config = GPT2Config(
            vocab_size=vocab_size,
            n_positions=context,
            n_layer=layers,
            n_embd=width,
            n_head=heads,
            activation_function="gelu",
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            **special,
        )
        return cls(text_config=text_config, **fields)

    @property
    def vocab_size(self) -> int:
        """Tokens of the joint vocabulary."""
        return self.text_config.vocab_size

    @vocab_size.setter
    def vocab_size(self, size: int) -> None:
        self.text_config.vocab_size = size

    @property
    def hidden_size(self) -> int:
        return self.text_config.hidden_size

    @property
    def unit_tokens(self) -> range:
        """The tokens that are pieces of units."""
        start = self.unit_token_start or 0
        return range(start, start + self.unit_token_count)

    @property
    def switch_tokens(self) -> list[int]:
        """Those of `<U_EN> <T_EN> <U2T> <T2U>` that the vocabulary has."""
        return [token for name in SWITCHES if (token := getattr(self, name)) is not None]

    @property
    def end_tokens(self) -> list[int]:
        """What ends a sequence."""
        end = self.eos_token_id
        return [] if end is None else [end] if isinstance(end, int) else list(end)

    @property
    def new_tokens(self) -> list[int]:
        """What a text LM does not know: unit pieces and switches."""
        return [*self.unit_tokens, *self.switch_tokens]

    def _agree_with_text_config(self) -> None:
        """What is given here holds there too, and the other way round."""
        given = {name: getattr(self, name) for name in SHARED if getattr(self, name) is not None}
        if any(getattr(self.text_config, name, None) != value for name, value in given.items()):
            self.text_config = copy.deepcopy(self.text_config)  # the caller may use it elsewhere
        for name in SHARED:
            if name in given:
                setattr(self.text_config, name, given[name])
            else:
                setattr(self, name, getattr(self.text_config, name, None))

    def _check_tokens(self) -> None:
        if self.trained_rows not in TRAINED_ROWS:
            raise ValueError(f"trained_rows is '{self.trained_rows}'; choose one of {', '.join(TRAINED_ROWS)}")
        if self.unit_token_count and self.unit_token_start is None:
            raise ValueError("unit_token_count came without unit_token_start; give the first token of the units")
        if len(set(self.new_tokens)) < len(self.new_tokens):
            raise ValueError(
                f"two of the unit tokens {self.unit_tokens} and the switches {self.switch_tokens} are the same token"
            )
        if set(self.end_tokens) & set(self.new_tokens):
            raise ValueError(
                f"eos_token_id {self.eos_token_id} is also a unit or a switch; give it a token of its own"
            )
        for token in self.new_tokens:
            if not 0 <= token < self.vocab_size:
                raise ValueError(
                    f"token {token} lies outside the vocabulary of {self.vocab_size}; vocab_size of text_config has "
                    f"to count units and switches too"
                )
        if self.trained_rows == "units" and not self.new_tokens:
            raise ValueError("trained_rows is 'units', but no token is a unit; give unit_token_start and _count")


__all__ = ["SUTLMConfig"]
