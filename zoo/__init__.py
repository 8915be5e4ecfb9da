"""speechzoo: a model zoo of joint speech-text language models, native to the Hugging Face Hub.

Importing it registers every model with transformers' Auto classes; nothing is downloaded.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
)

from .configuration.configuration_speech_text_adapter import SpeechTextAdapterConfig
from .modeling.modeling_speech_text_adapter import SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterModel
from .processing.processing_speech_text_adapter import SpeechTextAdapterProcessor

__version__ = "0.1.0"

AutoConfig.register(SpeechTextAdapterConfig.model_type, SpeechTextAdapterConfig, exist_ok=True)
AutoModel.register(SpeechTextAdapterConfig, SpeechTextAdapterModel, exist_ok=True)
AutoModelForMultimodalLM.register(SpeechTextAdapterConfig, SpeechTextAdapterForConditionalGeneration, exist_ok=True)
AutoModelForSpeechSeq2Seq.register(SpeechTextAdapterConfig, SpeechTextAdapterForConditionalGeneration, exist_ok=True)
AutoProcessor.register(SpeechTextAdapterConfig, SpeechTextAdapterProcessor, exist_ok=True)

__all__ = [
    "SpeechTextAdapterConfig",
    "SpeechTextAdapterForConditionalGeneration",
    "SpeechTextAdapterModel",
    "SpeechTextAdapterProcessor",
    "__version__",
]
