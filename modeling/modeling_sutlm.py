"""SUTLM (arXiv 2310.08715): a decoder-only LM over one vocabulary of speech units and text.

The body is that of any causal LM; the head is a matrix. Shapes: B rows, T tokens, D width, V vocabulary, N supervised
positions, R rows of units and switches.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_masks_for_generate
from transformers.modeling_outputs import CausalLMOutputWithPast, SequenceClassifierOutputWithPast
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_sutlm import SUTLMConfig
from ..configuration.hub_pushing import PushedWithCode
from .modality_generation import KINDS, token_kinds
from .modeling_attention_pooling import attention_pooled, two_layer_classifier
from .modeling_losses import IGNORED, linear_cross_entropy, logits_cross_entropy, mean_over_items
from .modeling_new_rows import NewRows, RowChanges, grown_config, initialize_rows, linear_head
from .token_positions import unpadded_positions


class SUTLMPreTrainedModel(PushedWithCode, PreTrainedModel):
    config: SUTLMConfig
    base_model_prefix = "model"
    input_modalities = ("text",)
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, RowChanges):
            init.zeros_(module.weight)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in transformers; what the configuration does not train is frozen anew, which loading forgets.

        Raises `ValueError` when the checkpoint holds changes of rows and `trained_rows="all"` would drop them.
        """
        model, report = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if model.config.trained_rows == "units":
            model.freeze_all_but_new_rows()
        elif any("_changes." in key for key in report["unexpected_keys"]):
            raise ValueError("the checkpoint holds trained rows apart; load it as it is and call fold_rows()")
        return (model, report) if output_loading_info else model

    def freeze_all_but_new_rows(self) -> None:
        """Leaves gradients to the rows of units, and to a classifier."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("_changes." in name or name.startswith(("pooling.", "classifier.")))

    @torch.no_grad()
    def fold_rows(self) -> None:
        """Writes the trained rows into the tables and frees everything else: an ordinary model from here on."""
        for owner, name, table in self._tables():
            changes = getattr(owner, name)
            if changes is not None:
                table.copy_(changes(table, self.config.new_tokens))
                setattr(owner, name, None)
        self.config.trained_rows = "all"
        self.requires_grad_(True)

    def _tables(self) -> list[tuple[nn.Module, str, Tensor]]:
        """Each table, after the module that holds the changes of its rows and their name there."""
        return [(self.base_model, "row_changes", self.get_input_embeddings().get_parameter("weight"))]


class SUTLMModel(SUTLMPreTrainedModel):
    """The Transformer without a head, over units and text.

    Sequences may share a row: where `position_ids` start again without a mask or cache, no sequence attends to
    another, in every family whose layers are attention. Recurrent layers would carry their state over.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head", r"^head_changes"]

    def __init__(self, config: SUTLMConfig) -> None:
        super().__init__(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.row_changes: RowChanges | None = None
        if config.trained_rows == "units":
            width = self.get_input_embeddings().get_parameter("weight").shape[1]
            self.row_changes = RowChanges(len(config.new_tokens), width)
            self._keep_in_fp32_modules_strict = ["row_changes"]
        self.post_init()
        if self.row_changes is not None:
            self.freeze_all_but_new_rows()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def embed(self, input_ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, D], by the family's own embedding layer."""
        layer = self.get_input_embeddings()
        if self.row_changes is None:
            return layer(input_ids)
        table = self.row_changes(layer.get_parameter("weight"), self.config.new_tokens)
        return torch.func.functional_call(layer, {"weight": table}, (input_ids,))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """The last hidden states [B, T, D].

        Args:
            input_ids: [B, T], or `inputs_embeds` [B, T, D] in their place.
            attention_mask: [B, T], padded on either side.
            position_ids: [B, T]; counted from the first token that is not padding where not given.

        Raises `ValueError` for neither or both inputs, and for packed rows with a mask [B, T] or a cache.
        """
        if inputs_embeds is None and input_ids is not None:
            inputs_embeds = self.embed(input_ids)
        elif inputs_embeds is None or input_ids is not None:
            raise ValueError("pass either input_ids or inputs_embeds")
        if past_key_values is None and restarts(position_ids, attention_mask):
            attention = self.language_model.config._attn_implementation
            _check_packed(attention_mask, use_cache, attention, len(inputs_embeds))
            use_cache = False
            attention_mask = create_masks_for_generate(
                self.language_model.config, inputs_embeds, None, None, position_ids=position_ids
            )
        elif position_ids is None:
            position_ids = unpadded_positions(attention_mask, inputs_embeds.shape[1])
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


class SUTLMForCausalLM(SUTLMPreTrainedModel, GenerationMixin):
    """The joint LM: next-token cross-entropy over units, text and switches, and `generate`."""

    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: SUTLMConfig) -> None:
        super().__init__(config)
        self.model = SUTLMModel(config)
        vocabulary, width = self.get_input_embeddings().get_parameter("weight").shape
        self.lm_head = nn.Linear(width, vocabulary, bias=config.head_bias)
        self._tied_weights_keys = {"lm_head.weight": self._table_name()}
        self.head_changes: RowChanges | None = None  # a tied head shares those of the input table
        if config.trained_rows == "units" and not config.tie_word_embeddings:
            self.head_changes = RowChanges(len(config.new_tokens), width)
            self._keep_in_fp32_modules_strict = ["head_changes"]
        self.post_init()
        if config.trained_rows == "units":
            self.freeze_all_but_new_rows()

    def _table_name(self) -> str:
        embeddings = self.get_input_embeddings()
        return next(f"{name}.weight" for name, module in self.named_modules() if module is embeddings)

    def _tables(self) -> list[tuple[nn.Module, str, Tensor]]:
        return [*super()._tables(), (self, "head_changes", self.lm_head.weight)]

    @classmethod
    def from_text_model(
        cls,
        text_model_id: str,
        *,
        new_rows: NewRows = "covariance",
        seed: int = 0,
        revision: str | None = None,
        dtype: Any = "auto",
        hub: dict[str, Any] | None = None,
        **fields: Any,
    ) -> "SUTLMForCausalLM":
        """A pretrained text LM with rows for units: every row of text, and the body, are as they were.

        Args:
            text_model_id: Hub id or folder of a causal LM; its tables grow as far as the tokens in `fields` ask.
            new_rows: the first values of rows of units and switches. "covariance" draws from the normal distribution
                that has the mean and covariance of the rows of text, "mean" takes that mean for all of them, "normal"
                draws around zero with deviation `initializer_range`. Our reading: the paper begins from scratch.
            seed: of those draws.
            hub: arguments of the download, such as `token` or `cache_dir`.
            **fields: of `SUTLMConfig`; the tokens of the joint vocabulary at least.

        Raises `ValueError` for a model whose logits are more than a matrix makes of its last hidden states.
        """
        text_model = AutoModelForCausalLM.from_pretrained(text_model_id, revision=revision, dtype=dtype, **hub or {})
        head = linear_head(text_model, text_model_id)
        config = cls.config_class(
            text_config=grown_config(text_model, fields),
            head_bias=head.bias is not None,
            tie_word_embeddings=text_model.config.tie_word_embeddings,
            **fields,
        )
        text_model.resize_token_embeddings(config.vocab_size, mean_resizing=False)
        initialize_rows(text_model, config, new_rows, seed)
        return cls._around(text_model, config)

    @classmethod
    def _around(cls, text_model: PreTrainedModel, config: SUTLMConfig) -> "SUTLMForCausalLM":
        with init.no_init_weights():
            model = cls(config).to(text_model.dtype)
        body, wanted = type(text_model.base_model).__name__, type(model.model.language_model).__name__
        if body != wanted:
            raise ValueError(f"the body of the text LM is a {body}, not a {wanted}; choose a decoder-only text LM")
        model.model.language_model = text_model.base_model
        model.lm_head = text_model.get_output_embeddings()
        model.generation_config = text_model.generation_config
        special = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config.update(**{name: getattr(config, name) for name in special})
        model.config.dtype = text_model.dtype
        if config.trained_rows == "units":
            model.freeze_all_but_new_rows()
            for changes in (module for module in model.modules() if isinstance(module, RowChanges)):
                changes.float()
        return model.eval()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> "SUTLMOutput":
        """Next-token cross-entropy of `labels`, or logits.

        Args:
            input_ids, attention_mask, position_ids, inputs_embeds: as in `SUTLMModel`.
            labels: [B, T] aligned with `input_ids`; -100 where nothing is asked.
            return_logits: with labels, compute logits [B, T, V] too. Without labels they always come.
            num_items_in_batch: supervised tokens of the whole optimizer step; the loss is the sum divided by it.
        """
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=False if use_cache is None and labels is not None else use_cache,
            **kwargs,
        )
        hidden_states, logits = output.last_hidden_state, None
        if labels is None or return_logits:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self._logits(hidden_states if labels is not None else hidden_states[:, kept])
        losses = {} if labels is None else self._losses(hidden_states, logits, labels, num_items_in_batch)
        return SUTLMOutput(
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            **losses,
        )

    def _head_weight(self) -> Tensor:
        """[V, D], with what training changed in the rows of units."""
        changes = self.model.row_changes if self.config.tie_word_embeddings else self.head_changes
        weight = self.lm_head.weight
        return weight if changes is None else changes(weight, self.config.new_tokens)

    def _logits(self, hidden_states: Tensor) -> Tensor:
        if self.config.trained_rows == "all":
            return self.lm_head(hidden_states)
        return nn.functional.linear(hidden_states, self._head_weight(), self.lm_head.bias)

    def _losses(
        self, hidden_states: Tensor, logits: Tensor | None, labels: Tensor, num_items: Tensor | int | None
    ) -> dict[str, Tensor]:
        """The loss, and for each kind of token its own mean and count; from logits where there are any."""
        targets = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        keep = targets != IGNORED
        supervised, kinds = targets[keep], token_kinds(self.config, targets[keep])
        if logits is None:
            states, weight = hidden_states[keep], self._head_weight()
            losses = linear_cross_entropy(states, weight, supervised, self.lm_head.bias, "none")
        else:
            losses = logits_cross_entropy(logits[keep], supervised, "none")
        fields: dict[str, Tensor] = {}
        for number, kind in enumerate(KINDS):
            mean = losses.detach()[kinds == number].mean()
            fields |= {f"{kind}_loss": mean, f"{kind}_perplexity": mean.exp()}
            fields[f"{kind}_tokens"] = (kinds == number).sum()
        return {"loss": mean_over_items(losses.sum(), targets, num_items), **fields}


@dataclass
class SUTLMOutput(CausalLMOutputWithPast):
    """With labels: the loss, and of every kind of target its mean loss, perplexity (both `nan` for none) and count.

    "control" are the switches and the end of a sequence. These fields carry no gradient.
    """

    speech_loss: Tensor | None = None
    speech_perplexity: Tensor | None = None
    speech_tokens: Tensor | None = None
    text_loss: Tensor | None = None
    text_perplexity: Tensor | None = None
    text_tokens: Tensor | None = None
    control_loss: Tensor | None = None
    control_perplexity: Tensor | None = None
    control_tokens: Tensor | None = None


class SUTLMForSequenceClassification(SUTLMPreTrainedModel):
    """The Transformer, attention pooling over what is not padding, and a classifier."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head", r"^head_changes"]

    def __init__(self, config: SUTLMConfig) -> None:
        super().__init__(config)
        self.model = SUTLMModel(config)
        width = self.get_input_embeddings().get_parameter("weight").shape[1]
        self.pooling = nn.Linear(width, 1)
        self.classifier = two_layer_classifier(width, config.num_labels, config.classifier_dropout)
        self.post_init()
        if config.trained_rows == "units":
            self.freeze_all_but_new_rows()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast:
        """Logits [B, labels], and with labels [B] the cross-entropy.

        Without `attention_mask` every token counts, save `pad_token_id`.
        """
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.classifier(self._pooled(output.last_hidden_state, attention_mask))
        loss = None
        if labels is not None:
            loss = mean_over_items(logits_cross_entropy(logits, labels), labels, num_items_in_batch)
        return SequenceClassifierOutputWithPast(
            loss, logits, output.past_key_values, output.hidden_states, output.attentions
        )

    def _pooled(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:  # [B, T, D] -> [B, D]
        if attention_mask is not None:
            attention_mask = attention_mask[:, -hidden_states.shape[1] :]
        return attention_pooled(hidden_states, self.pooling(hidden_states)[..., 0], attention_mask)


def restarts(position_ids: Tensor | None, attention_mask: Any = None) -> bool:
    """Whether positions [B, T] begin anew between two tokens, neither of which a mask [B, T] calls padding."""
    if position_ids is None or isinstance(attention_mask, dict):
        return False
    steps = position_ids.diff(dim=-1) != 1
    if attention_mask is not None:
        if attention_mask.ndim != 2:
            return False
        attended = attention_mask[:, -position_ids.shape[1] :].bool()
        steps = steps & attended[:, 1:] & attended[:, :-1]
    return bool(steps.any())


def _check_packed(attention_mask: Any, use_cache: bool | None, attention: str | None, rows: int) -> None:
    if attention_mask is not None:
        raise ValueError("position_ids start again in a row, so several sequences share it; leave out attention_mask")
    if use_cache:
        raise ValueError("sequences that share a row have no common cache; pass use_cache=False or leave it out")
    if rows > 1 and "flash" in (attention or ""):  # transformers tells sequences apart in a single row alone
        raise ValueError(f"{attention} keeps sequences of one shared row apart, not of {rows}; pass one, or use sdpa")


__all__ = ["SUTLMForCausalLM", "SUTLMForSequenceClassification", "SUTLMModel", "SUTLMPreTrainedModel"]
