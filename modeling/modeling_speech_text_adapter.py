"""SLM (arXiv 2310.00230): speech encoder, trained adapter, LLM."""

from ..configuration.configuration_speech_text_adapter import SpeechTextAdapterConfig
from .modeling_speech_adapter import SpeechAdapter
from .modeling_speech_text_composite import SpeechTextModel, SpeechTextPreTrainedModel
from .modeling_speech_text_generation import SpeechTextForConditionalGeneration


class SpeechTextAdapterPreTrainedModel(SpeechTextPreTrainedModel):
    config: SpeechTextAdapterConfig
    _no_split_modules = ["AdapterLayer"]
    _keep_in_fp32_modules_strict = ["adapter"]  # it is trained, also beside half-precision backbones
    _bridge_name = "adapter"


class SpeechTextAdapterModel(SpeechTextAdapterPreTrainedModel, SpeechTextModel):
    """The speech encoder, the adapter and the LLM, without a loss."""

    _bridge_class = SpeechAdapter


class SpeechTextAdapterForConditionalGeneration(SpeechTextAdapterPreTrainedModel, SpeechTextForConditionalGeneration):
    """The model with the LLM's own head, the loss and `generate`."""

    _model_class = SpeechTextAdapterModel


__all__ = ["SpeechTextAdapterForConditionalGeneration", "SpeechTextAdapterModel", "SpeechTextAdapterPreTrainedModel"]
