"""A speech encoder, an LLM, and a bridge between them, which is what is trained: the skeleton of SLM and Seal.

Shapes: B prompts, C clips of the whole batch, n extracted features, F encoder frames, A speech embeddings after
reduction, T tokens, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling, Seq2SeqModelOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_speech_text_composite import SpeechTextCompositeConfig
from .modeling_frozen_backbones import (
    LANGUAGE_MODEL,
    SPEECH_ENCODER,
)
from .modeling_lora import OWN, LoraOnBackbones, initialize_lora, inject_lora
from .modeling_padding_safe_encoders import encode_speech, frame_mask, make_padding_safe
from .modeling_prompt_tokens import PromptTokens, known_ids
from .modeling_quantization import QuantizedLanguageModel
from .modeling_speech_bridge import SpeechBridge, embedding_width, table_size
from .token_positions import unpadded_positions


class SpeechTextPreTrainedModel(LoraOnBackbones, QuantizedLanguageModel):
    config: SpeechTextCompositeConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def _positions(
        self, attention_mask: Tensor | None, inputs_embeds: Tensor, given: Tensor | None
    ) -> dict[str, Tensor | None]:
        """What a causal LLM is told of positions; an encoder-decoder counts for itself."""
        if self.config.is_encoder_decoder:
            return {}
        counted = unpadded_positions(attention_mask, inputs_embeds.shape[1])
        return {"position_ids": counted if given is None else given}

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SpeechBridge):
            init.ones_(module.output_scale)
            init.zeros_(module.output_shift)
        if isinstance(module, PromptTokens):
            init.normal_(module.weight, std=self.config.initializer_range)


class SpeechTextModel(SpeechTextPreTrainedModel):
    """The speech encoder, the bridge and the LLM, without a loss.

    The LLM is kept whole, head included, so that whatever its family does between the last hidden state and the
    logits is done by its own code.
    """

    _backbones = (SPEECH_ENCODER, LANGUAGE_MODEL)
    _bridge_class: Callable[[Any, int], SpeechBridge]

    def __init__(self, config: SpeechTextCompositeConfig) -> None:
        super().__init__(config)
        self.audio_tower = SPEECH_ENCODER.build(config)
        make_padding_safe(self.audio_tower)
        self.language_model = LANGUAGE_MODEL.build(config)
        self.add_module(self._bridge_name, self._bridge_class(config, embedding_width(self.get_input_embeddings())))
        self.prompt_tokens: PromptTokens | None = None
        if config.new_tokens:
            self.prompt_tokens = PromptTokens(len(config.new_tokens), embedding_width(self.get_input_embeddings()))
            self._keep_in_fp32_modules_strict = [self._bridge_name, "prompt_tokens"]  # both are trained
        self._resting_bridges, self._lora_in_use = {}, OWN
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
    def bridge(self) -> SpeechBridge:
        """What makes speech embeddings of encoder frames."""
        return self.get_submodule(self._bridge_name)  # type: ignore[return-value]

    @property
    def _encoder_is_trained(self) -> bool:
        """Asked anew each time, for PEFT adds trained weights later."""
        return any(parameter.requires_grad for parameter in self.audio_tower.parameters())

    def train(self, mode: bool = True) -> "SpeechTextModel":
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
        embeddings, embedding_lengths = self.bridge(encoded.last_hidden_state, lengths)
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
        table = self.get_input_embeddings()
        embeddings = table(known_ids(input_ids, table, self.config))
        if self.prompt_tokens is None:
            return embeddings
        return self.prompt_tokens(input_ids, embeddings, self.config.new_token_ids)

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
        speech = speech_inputs(input_features, input_features_mask, kwargs)
        given = {"inputs_embeds": self.merge(input_ids, inputs_embeds, **speech), **kwargs}
        given |= self._positions(attention_mask, given["inputs_embeds"], position_ids)
        return self.run_language_model(True, attention_mask=attention_mask, **given)


def _recording(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What of `kwargs` asks for intermediate states."""
    return {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}


def speech_inputs(features: Tensor | None, mask: Tensor | None, kwargs: dict[str, Any]) -> dict[str, Tensor | None]:
    """Collects what the caller gave of speech, out of `kwargs` too."""
    kept = {name: kwargs.pop(name, None) for name in ("encoder_frames", "encoder_frames_mask")}
    return {"input_features": features, "input_features_mask": mask, **kept}


__all__ = ["SpeechTextModel", "SpeechTextPreTrainedModel", "speech_inputs"]
