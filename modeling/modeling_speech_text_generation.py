"""The headed class of models that lay speech embeddings among those of an LLM's prompt: loss, logits and `generate`.

Shapes: B prompts, C clips of the whole batch, n extracted features, A speech embeddings after reduction, T tokens,
V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_speech_text_composite import SpeechTextCompositeConfig
from .modeling_frozen_backbones import LANGUAGE_MODEL, SPEECH_ENCODER, Backbone, pinned_revision, quiet_loading
from .modeling_lora import initialize_lora
from .modeling_losses import IGNORED, Reduction, linear_cross_entropy, logits_cross_entropy, mean_over_items
from .modeling_padding_safe_encoders import frame_formula
from .modeling_speech_bridge import embedding_statistics
from .modeling_speech_text_composite import SpeechTextModel, SpeechTextPreTrainedModel, speech_inputs

SPEECH_INPUTS = ("input_features", "input_features_mask")


class SpeechTextForConditionalGeneration(SpeechTextPreTrainedModel, GenerationMixin):
    """The model with the LLM's own head, the loss and `generate`."""

    _backbones = (SPEECH_ENCODER, LANGUAGE_MODEL)
    _headless_prefix = "model."
    _model_class: type[SpeechTextModel]

    def __init__(self, config: SpeechTextCompositeConfig) -> None:
        super().__init__(config)
        self.model = self._model_class(config)
        self.post_init()
        initialize_lora(self, config)
        self.model.freeze_backbones()
        self.generation_config = self.model.language_model.generation_config

    def adopt(self, backbone: Backbone, pretrained: PreTrainedModel) -> None:
        super().adopt(backbone, pretrained)
        self.generation_config = self.model.language_model.generation_config

    @classmethod
    def from_backbones(
        cls,
        audio_model_id: str,
        text_model_id: str,
        *,
        audio_model_revision: str | None = None,
        text_model_revision: str | None = None,
        dtype: Any = "auto",
        hub: dict[str, Any] | None = None,
        **fields: Any,
    ) -> "SpeechTextForConditionalGeneration":
        """A model of two pretrained backbones and a bridge with random weights.

        Args:
            audio_model_id, text_model_id: Hub id or folder; revisions are resolved to commits and kept.
            dtype: of the backbones; "auto" takes that of the speech encoder's checkpoint. The bridge is float32.
                Give float32 where something is unfrozen: half precision swallows small updates.
            hub: arguments of every download, such as `token` or `cache_dir`.
            **fields: of the configuration; the encoder is asked for its frame formula unless it is given.
        """
        hub = hub or {}
        ids = {
            "audio_model_id": audio_model_id,
            "audio_model_revision": pinned_revision(audio_model_id, audio_model_revision, **hub),
            "text_model_id": text_model_id,
            "text_model_revision": pinned_revision(text_model_id, text_model_revision, **hub),
        }
        config = cls.config_class(
            audio_config=AutoConfig.from_pretrained(audio_model_id, revision=audio_model_revision, **hub),
            text_config=AutoConfig.from_pretrained(text_model_id, revision=text_model_revision, **hub),
            **ids,
            **fields,
        )
        with quiet_loading():  # the bridge is missing, as it should be
            model = cls._assemble(config, {}, dtype, hub)
        model.model.bridge.float()  # loading keeps it so, but new weights come in the dtype of the rest
        if not {"frame_kernel", "frame_stride"} <= fields.keys():
            model.config.frame_kernel, model.config.frame_stride = frame_formula(model.model.audio_tower)
        model._ask_language_model()
        return model

    def _ask_language_model(self) -> None:
        """Fills in what only its pretrained weights and its code can tell."""
        self.config.linear_head = self._head_is_linear()
        statistics = embedding_statistics(self.get_input_embeddings())
        self.model.bridge.match(statistics)
        if self.model.prompt_tokens is not None:
            self.model.prompt_tokens.float().match(statistics)

    @torch.no_grad()
    def _head_is_linear(self) -> bool:
        """Whether the LLM's logits are exactly its output embedding applied to its last hidden state."""
        head = self.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            return False
        tokens = torch.arange(1, 4, device=self.device)[None]
        given = {"inputs_embeds": self.get_input_embeddings()(tokens)}
        if self.config.is_encoder_decoder:
            given["decoder_input_ids"] = tokens
        logits = self.model.run_language_model(False, **given).logits
        hidden_states = self.model.run_language_model(True, **given).last_hidden_state
        return torch.allclose(logits, head(hidden_states), rtol=1e-4, atol=1e-4)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.model.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.model.language_model.set_output_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        return_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> ModelOutput:
        """Next-token cross-entropy of `labels`, or logits.

        Args:
            input_ids, input_features, input_features_mask, attention_mask: as in `SpeechTextModel`.
            labels: [B, T] aligned with `input_ids` for a causal LLM; [B, T of the answer] for an encoder-decoder.
                -100 where nothing is asked.
            return_logits: with labels, compute logits [B, T, V] too. Without labels they always come.
            num_items_in_batch: supervised tokens of the whole optimizer step; the loss is the sum divided by it.
        """
        speech = speech_inputs(input_features, input_features_mask, kwargs)
        inputs_embeds = self.model.merge(input_ids, inputs_embeds, **speech)
        given = self._given(inputs_embeds, attention_mask, position_ids, labels, kwargs)
        if labels is None:
            return self._logits(given, logits_to_keep)
        found = self._supervised(given, labels, bool(return_logits))
        return found.with_loss(mean_over_items(self._cross_entropy(found), found.targets, num_items_in_batch))

    def _given(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        labels: Tensor | None,
        more: Mapping[str, Any],
    ) -> dict[str, Any]:
        """What the LLM is run with."""
        given = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, **more}
        given |= self._positions(attention_mask, inputs_embeds, position_ids)
        if labels is not None:
            given.setdefault("use_cache", False)
            if self.config.is_encoder_decoder and given.get("decoder_input_ids") is None:
                given["decoder_input_ids"] = self._shifted(labels)
        return given

    def _shifted(self, labels: Tensor) -> Tensor:
        return self.model.language_model.prepare_decoder_input_ids_from_labels(labels=labels)

    def _aligned(self, labels: Tensor) -> Tensor:
        """[B, T] for each position the token that follows it."""
        if self.config.is_encoder_decoder:
            return labels
        return nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)

    def _logits(self, given: dict[str, Any], logits_to_keep: int | Tensor) -> ModelOutput:
        kept = {} if self.config.is_encoder_decoder else {"logits_to_keep": logits_to_keep}
        return self.model.run_language_model(False, **given, **kept)

    def _supervised(self, given: dict[str, Any], labels: Tensor, return_logits: bool) -> "SupervisedPositions":
        """Runs the LLM for what it says at positions with a label.

        Without `return_logits`, logits are left out, or where the head is more than a matrix are the LLM's own at
        positions that some row supervises.
        """
        targets = self._aligned(labels)
        if self.config.linear_head and not return_logits:
            output = self.model.run_language_model(True, **given)
            keep = targets != IGNORED
            return SupervisedPositions(targets[keep], states=output.last_hidden_state[keep])
        kept: int | Tensor = 0
        if not (return_logits or self.config.is_encoder_decoder):
            kept = (targets != IGNORED).any(0).nonzero()[:, 0]
            targets = targets[:, kept]
        output = self._logits(given, kept)
        keep = targets != IGNORED
        return SupervisedPositions(targets[keep], logits=output.logits[keep], output=output if return_logits else None)

    def _head(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the matrix that makes logits."""
        head = self.get_output_embeddings()
        return head.get_parameter("weight"), dict(head.named_parameters()).get("bias")

    def _cross_entropy(self, found: "SupervisedPositions", reduction: Reduction = "sum") -> Tensor:
        if found.states is None:
            return logits_cross_entropy(found.known_logits, found.targets, reduction)
        weight, bias = self._head()
        return linear_cross_entropy(found.states, weight, found.targets, bias, reduction)

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Tokens after the prompt for a causal LLM, prompt included; the answer for an encoder-decoder.

        Every option of transformers' `generate` is understood.
        """
        speech = {"input_features": input_features, "input_features_mask": input_features_mask}
        if not self.config.is_encoder_decoder:
            return super().generate(inputs, **speech, **kwargs)
        input_ids = kwargs.pop("input_ids", inputs)
        inputs_embeds = self.model.merge(input_ids, kwargs.pop("inputs_embeds", None), **speech)
        self.model.language_model.generation_config = self.generation_config
        return self.model.language_model.generate(inputs_embeds=inputs_embeds, **kwargs)

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Beams repeat a prompt; the clips of one prompt must then be repeated together."""
        speech = {name: kwargs.pop(name) for name in SPEECH_INPUTS if kwargs.get(name) is not None}
        if speech and expand_size > 1:
            order = self._clip_order(input_ids, speech["input_features_mask"], expand_size)
            speech = {name: tensor[order] for name, tensor in speech.items()}
        input_ids, kwargs = super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **kwargs)
        return input_ids, {**kwargs, **speech}

    def _clip_order(self, input_ids: Tensor | None, input_features_mask: Tensor, expand_size: int) -> Tensor:
        """Indices of clips such that each prompt's clips come together, `expand_size` times."""
        config = self.config
        frames = (input_features_mask.sum(-1) - config.frame_kernel) // config.frame_stride + 1
        if input_ids is None:
            raise ValueError("beams over several clips need input_ids, whose placeholders say whose clip is whose")
        clip_ends = self.model.bridge.reduced_lengths(frames).cumsum(0)
        prompt_ends = (input_ids == config.audio_token_id).sum(-1).cumsum(0)
        prompt_of_clip = torch.searchsorted(prompt_ends, clip_ends)
        clips = [torch.nonzero(prompt_of_clip == prompt)[:, 0] for prompt in range(len(input_ids))]
        return torch.cat([clip for clip in clips for _ in range(expand_size)])


@dataclass
class SpeechTextOutput(ModelOutput):
    """What training returns: the loss, and no logits, which were never computed."""

    loss: Tensor | None = None


@dataclass(frozen=True)
class SupervisedPositions:
    """What the LLM says at the N positions with a label, all rows in a line.

    Args:
        targets: [N] the tokens that follow.
        states: [N, D] its last hidden states, where logits are those times a matrix and nobody wants them.
        logits: [N, V] else.
        output: all that it returned, where logits are wanted.
    """

    targets: Tensor
    states: Tensor | None = None
    logits: Tensor | None = None
    output: ModelOutput | None = None

    @property
    def known_logits(self) -> Tensor:
        if self.logits is None:
            raise ValueError("logits were left out; ask for them by return_logits=True")
        return self.logits

    def with_loss(self, loss: Tensor) -> ModelOutput:
        """What `forward` returns."""
        if self.output is None:
            return SpeechTextOutput(loss=loss)
        self.output["loss"] = loss
        return self.output


__all__ = ["SpeechTextForConditionalGeneration", "SpeechTextOutput", "SupervisedPositions"]
