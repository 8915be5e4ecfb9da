"""SLM (arXiv 2310.00230): speech encoder, trained adapter, LLM.

Shapes: B prompts, C clips of the whole batch, n extracted features, F encoder frames, A speech embeddings after
reduction, T tokens, D width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling, Seq2SeqModelOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_speech_text_adapter import SpeechTextAdapterConfig
from .modeling_frozen_backbones import (
    LANGUAGE_MODEL,
    SPEECH_ENCODER,
    Backbone,
    pinned_revision,
    quiet_loading,
)
from .modeling_lora import OWN, LoraOnBackbones, initialize_lora, inject_lora
from .modeling_losses import IGNORED, linear_cross_entropy, logits_cross_entropy, mean_over_items
from .modeling_padding_safe_encoders import encode_speech, frame_formula, frame_mask, make_padding_safe
from .modeling_quantization import QuantizedLanguageModel
from .modeling_speech_adapter import SpeechAdapter, embedding_statistics, embedding_width, table_size
from .token_positions import unpadded_positions

SPEECH_INPUTS = ("input_features", "input_features_mask")


class SpeechTextAdapterPreTrainedModel(LoraOnBackbones, QuantizedLanguageModel):
    config: SpeechTextAdapterConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["AdapterLayer"]
    _keep_in_fp32_modules_strict = ["adapter"]  # it is trained, also beside half-precision backbones
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SpeechAdapter):
            init.ones_(module.output_scale)
            init.zeros_(module.output_shift)


class SpeechTextAdapterModel(SpeechTextAdapterPreTrainedModel):
    """The speech encoder, the adapter and the LLM, without a loss.

    The LLM is kept whole, head included, so that whatever its family does between the last hidden state and the
    logits is done by its own code.
    """

    _backbones = (SPEECH_ENCODER, LANGUAGE_MODEL)

    def __init__(self, config: SpeechTextAdapterConfig) -> None:
        super().__init__(config)
        self.audio_tower = SPEECH_ENCODER.build(config)
        make_padding_safe(self.audio_tower)
        self.language_model = LANGUAGE_MODEL.build(config)
        self.adapter = SpeechAdapter(config, embedding_width(self.get_input_embeddings()))
        self._resting_adapters, self._lora_in_use = {}, OWN
        inject_lora(self, config)
        self.post_init()
        initialize_lora(self, config)
        self.freeze_backbones()
        self.train(self.training)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @property
    def _encoder_is_trained(self) -> bool:
        """Asked anew each time, for PEFT adds trained weights later."""
        return any(parameter.requires_grad for parameter in self.audio_tower.parameters())

    def train(self, mode: bool = True) -> "SpeechTextAdapterModel":
        """A frozen encoder stays in evaluation mode: no dropout, no SpecAugment."""
        super().train(mode)
        if not self._encoder_is_trained:
            self.audio_tower.eval()
        return self

    def encode_audio(self, input_features: Tensor, input_features_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the speech encoder: hidden states [C, F, D] and valid frames [C]."""
        encoded, lengths = self._run_encoder(input_features, input_features_mask)
        return encoded.last_hidden_state, lengths

    def _run_encoder(self, input_features: Tensor, input_features_mask: Tensor, **kwargs: Any) -> tuple[Any, Tensor]:
        config = self.config
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._encoder_is_trained):
            return encode_speech(
                self.audio_tower,
                input_features,
                input_features_mask,
                config.encoding,
                config.frame_kernel,
                config.frame_stride,
                **kwargs,
            )

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        encoder_frames: Tensor | None = None,
        encoder_frames_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """`last_hidden_state`: encoder frames [C, F, D]; `pooler_output`: valid speech embeddings [sum A, D].

        Frames that were encoded before, [C, F, D] with their mask [C, F], may be given in place of features.
        """
        if encoder_frames is not None and encoder_frames_mask is not None:
            encoded, lengths = BaseModelOutput(encoder_frames), encoder_frames_mask.sum(-1)
        elif input_features is not None and input_features_mask is not None:
            encoded, lengths = self._run_encoder(input_features, input_features_mask, **_recording(kwargs))
        else:
            raise ValueError("speech came without its mask; the processor returns both")
        embeddings, embedding_lengths = self.adapter(encoded.last_hidden_state, lengths)
        return BaseModelOutputWithPooling(
            encoded.last_hidden_state,
            pooler_output=embeddings[frame_mask(embedding_lengths, embeddings.shape[1])],
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def merge(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        **speech: Tensor | None,
    ) -> Tensor:
        """Prompt embeddings [B, T, D] with speech where the placeholders stand.

        Raises `ValueError` when the number of placeholders is not that of the speech embeddings.
        """
        if inputs_embeds is None:
            inputs_embeds = self._embed(input_ids)
        if all(tensor is None for tensor in speech.values()):
            return inputs_embeds
        placeholders = self._placeholders(input_ids, inputs_embeds)
        embeddings = self.get_audio_features(**speech, return_dict=True).pooler_output
        if int(placeholders.sum()) != len(embeddings):
            raise ValueError(
                f"the prompts hold {int(placeholders.sum())} audio placeholders for {len(embeddings)} speech "
                f"embeddings; make both with one processor, whose reduction is that of the model"
            )
        return inputs_embeds.masked_scatter(placeholders[..., None], embeddings.to(inputs_embeds.dtype))

    def _embed(self, input_ids: Tensor | None) -> Tensor:
        if input_ids is None:
            raise ValueError("the model got neither input_ids nor inputs_embeds; pass one of them")
        table, token = self.get_input_embeddings(), self.config.audio_token_id
        if token >= table_size(table):
            input_ids = input_ids.masked_fill(input_ids == token, 0)
        return table(input_ids)

    def _placeholders(self, input_ids: Tensor | None, inputs_embeds: Tensor) -> Tensor:
        """[B, T] where speech goes: at the placeholder's id, or where only embeddings came, at its embedding.

        Raises `ValueError` when neither can tell.
        """
        token, table = self.config.audio_token_id, self.get_input_embeddings()
        if input_ids is not None:
            return input_ids == token
        if token >= table_size(table):
            raise ValueError("pass input_ids: their placeholders say where speech goes")
        return (inputs_embeds == table(torch.tensor(token, device=inputs_embeds.device))).all(-1)

    def run_language_model(self, headless: bool, **kwargs: Any) -> ModelOutput:
        """Runs the LLM; `headless` leaves out what turns hidden states into logits.

        An encoder-decoder's hidden states are those of its decoder.
        """
        if not headless:
            return self.language_model(**kwargs)
        if not self.config.is_encoder_decoder:
            return self.language_model.base_model(**kwargs)
        return self._run_encoder_decoder(**kwargs)

    def _run_encoder_decoder(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        encoder = self.language_model.get_encoder()
        encoded = encoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **_recording(kwargs))
        decoded = self.language_model.get_decoder()(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=attention_mask,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """The LLM's last hidden states [B, T, D] (of its decoder, given `decoder_input_ids`, if it has one).

        Args:
            input_ids: [B, T], with one placeholder for each speech embedding.
            input_features: samples [C, n], or log-mel [C, n, M] ([C, M, n] for Whisper), clips in prompt order.
            input_features_mask: [C, n].
            encoder_frames, encoder_frames_mask: frames [C, F, D] and [C, F] kept from an earlier run of the encoder,
                in place of the two above.
            attention_mask: [B, T], padded on either side.
            position_ids: [B, T]; counted from the first token that is not padding where not given.
        """
        speech = _speech_inputs(input_features, input_features_mask, kwargs)
        given = {"inputs_embeds": self.merge(input_ids, inputs_embeds, **speech), **kwargs}
        if not self.config.is_encoder_decoder:
            counted = unpadded_positions(attention_mask, given["inputs_embeds"].shape[1])
            given["position_ids"] = counted if position_ids is None else position_ids
        return self.run_language_model(True, attention_mask=attention_mask, **given)


class SpeechTextAdapterForConditionalGeneration(SpeechTextAdapterPreTrainedModel, GenerationMixin):
    """The model with the LLM's own head, the loss and `generate`."""

    _backbones = (SPEECH_ENCODER, LANGUAGE_MODEL)
    _headless_prefix = "model."

    def __init__(self, config: SpeechTextAdapterConfig) -> None:
        super().__init__(config)
        self.model = SpeechTextAdapterModel(config)
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
    ) -> "SpeechTextAdapterForConditionalGeneration":
        """A model of two pretrained backbones and an adapter with random weights.

        Args:
            audio_model_id, text_model_id: Hub id or folder; revisions are resolved to commits and kept.
            dtype: of the backbones; "auto" takes that of the speech encoder's checkpoint. The adapter is float32.
                Give float32 where something is unfrozen: half precision swallows small updates.
            hub: arguments of every download, such as `token` or `cache_dir`.
            **fields: of `SpeechTextAdapterConfig`; the encoder is asked for its frame formula unless it is given.
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
        with quiet_loading():  # the adapter is missing, as it should be
            model = cls._assemble(config, {}, dtype, hub)
        model.model.adapter.float()  # loading keeps it so, but new weights come in the dtype of the rest
        if not {"frame_kernel", "frame_stride"} <= fields.keys():
            model.config.frame_kernel, model.config.frame_stride = frame_formula(model.model.audio_tower)
        model._ask_language_model()
        return model

    def _ask_language_model(self) -> None:
        """Fills in what only its pretrained weights and its code can tell."""
        self.config.linear_head = self._head_is_linear()
        self.model.adapter.match(embedding_statistics(self.get_input_embeddings()))

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
            input_ids, input_features, input_features_mask, attention_mask: as in `SpeechTextAdapterModel`.
            labels: [B, T] aligned with `input_ids` for a causal LLM; [B, T of the answer] for an encoder-decoder.
                -100 where nothing is asked.
            return_logits: with labels, compute logits [B, T, V] too. Without labels they always come.
            num_items_in_batch: supervised tokens of the whole optimizer step; the loss is the sum divided by it.
        """
        speech = _speech_inputs(input_features, input_features_mask, kwargs)
        inputs_embeds = self.model.merge(input_ids, inputs_embeds, **speech)
        given = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, **kwargs}
        if not self.config.is_encoder_decoder:
            counted = unpadded_positions(attention_mask, inputs_embeds.shape[1])
            given["position_ids"] = counted if position_ids is None else position_ids
        if labels is not None and self.config.is_encoder_decoder and kwargs.get("decoder_input_ids") is None:
            given["decoder_input_ids"] = self._shifted(labels)
        if labels is not None:
            given.setdefault("use_cache", False)
        if labels is None or return_logits:
            return self._with_logits(given, labels, num_items_in_batch, logits_to_keep)
        if self.config.linear_head:
            return self._without_logits(given, labels, num_items_in_batch)
        return self._with_supervised_logits(given, labels, num_items_in_batch)

    def _shifted(self, labels: Tensor) -> Tensor:
        return self.model.language_model.prepare_decoder_input_ids_from_labels(labels=labels)

    def _aligned(self, labels: Tensor) -> Tensor:
        """[B, T] for each position the token that follows it."""
        if self.config.is_encoder_decoder:
            return labels
        return nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)

    def _with_logits(
        self,
        given: dict[str, Any],
        labels: Tensor | None,
        num_items: Tensor | int | None,
        logits_to_keep: int | Tensor,
    ) -> ModelOutput:
        if not self.config.is_encoder_decoder:
            given["logits_to_keep"] = logits_to_keep
        output = self.model.run_language_model(False, **given)
        if labels is not None:
            targets = self._aligned(labels)
            keep = targets != IGNORED
            total = logits_cross_entropy(output.logits[keep], targets[keep])
            output["loss"] = mean_over_items(total, targets, num_items)
        return output

    def _without_logits(self, given: dict[str, Any], labels: Tensor, num_items: Tensor | int | None) -> ModelOutput:
        output = self.model.run_language_model(True, **given)
        targets, head = self._aligned(labels), self.get_output_embeddings()
        keep = targets != IGNORED
        weight, bias = head.get_parameter("weight"), dict(head.named_parameters()).get("bias")
        total = linear_cross_entropy(output.last_hidden_state[keep], weight, targets[keep], bias)
        return SpeechTextOutput(loss=mean_over_items(total, targets, num_items))

    def _with_supervised_logits(
        self, given: dict[str, Any], labels: Tensor, num_items: Tensor | int | None
    ) -> ModelOutput:
        """For heads that are more than a matrix: the LLM's own logits, at the positions some row supervises."""
        targets = self._aligned(labels)
        if not self.config.is_encoder_decoder:
            kept = (targets != IGNORED).any(0).nonzero()[:, 0]
            given["logits_to_keep"], targets = kept, targets[:, kept]
        logits = self.model.run_language_model(False, **given).logits
        keep = targets != IGNORED
        return SpeechTextOutput(
            loss=mean_over_items(logits_cross_entropy(logits[keep], targets[keep]), targets, num_items)
        )

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
        clip_ends = self.model.adapter.reduced_lengths(frames).cumsum(0)
        prompt_ends = (input_ids == config.audio_token_id).sum(-1).cumsum(0)
        prompt_of_clip = torch.searchsorted(prompt_ends, clip_ends)
        clips = [torch.nonzero(prompt_of_clip == prompt)[:, 0] for prompt in range(len(input_ids))]
        return torch.cat([clip for clip in clips for _ in range(expand_size)])


@dataclass
class SpeechTextOutput(ModelOutput):
    """What training returns: the loss, and no logits, which were never computed."""

    loss: Tensor | None = None


def _recording(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What of `kwargs` asks for intermediate states."""
    return {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}


def _speech_inputs(features: Tensor | None, mask: Tensor | None, kwargs: dict[str, Any]) -> dict[str, Tensor | None]:
    """Collects what the caller gave of speech, out of `kwargs` too."""
    kept = {name: kwargs.pop(name, None) for name in ("encoder_frames", "encoder_frames_mask")}
    return {"input_features": features, "input_features_mask": mask, **kept}


__all__ = ["SpeechTextAdapterForConditionalGeneration", "SpeechTextAdapterModel", "SpeechTextAdapterPreTrainedModel"]
