"""speechzoo: a model zoo of joint speech-text language models, native to the Hugging Face Hub.

Importing it registers every model with transformers' Auto classes and the pipelines for speech; nothing is downloaded.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCausalLM,
    AutoModelForCTC,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
)

from .configuration.configuration_seal_projector import SealProjectorConfig
from .configuration.configuration_speech_text_adapter import SpeechTextAdapterConfig
from .configuration.configuration_speech_units import SpeechUnitConfig
from .configuration.configuration_speechlm import SpeechLMConfig
from .configuration.configuration_speechut import SpeechUTConfig
from .configuration.configuration_sutlm import SUTLMConfig
from .configuration.configuration_text_to_unit import TextToUnitConfig
from .modeling.modeling_seal_projector import SealProjectorForConditionalGeneration, SealProjectorModel
from .modeling.modeling_speech_text_adapter import SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterModel
from .modeling.modeling_speech_units import SpeechUnitModel
from .modeling.modeling_speechlm import (
    SpeechLMForCTC,
    SpeechLMForPreTraining,
    SpeechLMForSequenceClassification,
    SpeechLMModel,
)
from .modeling.modeling_speechut import (
    SpeechUTForConditionalGeneration,
    SpeechUTForCTC,
    SpeechUTForPreTraining,
    SpeechUTForSequenceClassification,
    SpeechUTModel,
)
from .modeling.modeling_sutlm import SUTLMForCausalLM, SUTLMForSequenceClassification, SUTLMModel
from .modeling.modeling_text_to_unit import TextToUnitModel
from .pipelines.pipeline_tasks import register_pipelines
from .processing.feature_extraction_speechlm import SpeechLMFeatureExtractor
from .processing.processing_speech_text_adapter import SpeechTextAdapterProcessor
from .processing.processing_speech_units import SpeechUnitProcessor
from .processing.processing_speechlm import SpeechLMProcessor
from .processing.processing_sutlm import SUTLMProcessor

__version__ = "0.1.0"

AutoConfig.register(SpeechTextAdapterConfig.model_type, SpeechTextAdapterConfig, exist_ok=True)
AutoModel.register(SpeechTextAdapterConfig, SpeechTextAdapterModel, exist_ok=True)
AutoModelForMultimodalLM.register(SpeechTextAdapterConfig, SpeechTextAdapterForConditionalGeneration, exist_ok=True)
AutoModelForSpeechSeq2Seq.register(SpeechTextAdapterConfig, SpeechTextAdapterForConditionalGeneration, exist_ok=True)
AutoProcessor.register(SpeechTextAdapterConfig, SpeechTextAdapterProcessor, exist_ok=True)

AutoConfig.register(SealProjectorConfig.model_type, SealProjectorConfig, exist_ok=True)
AutoModel.register(SealProjectorConfig, SealProjectorModel, exist_ok=True)
AutoModelForMultimodalLM.register(SealProjectorConfig, SealProjectorForConditionalGeneration, exist_ok=True)
AutoModelForSpeechSeq2Seq.register(SealProjectorConfig, SealProjectorForConditionalGeneration, exist_ok=True)
AutoProcessor.register(SealProjectorConfig, SpeechTextAdapterProcessor, exist_ok=True)

AutoConfig.register(SpeechUnitConfig.model_type, SpeechUnitConfig, exist_ok=True)
AutoModel.register(SpeechUnitConfig, SpeechUnitModel, exist_ok=True)
AutoProcessor.register(SpeechUnitConfig, SpeechUnitProcessor, exist_ok=True)

AutoConfig.register(SUTLMConfig.model_type, SUTLMConfig, exist_ok=True)
AutoModel.register(SUTLMConfig, SUTLMModel, exist_ok=True)
AutoModelForCausalLM.register(SUTLMConfig, SUTLMForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(SUTLMConfig, SUTLMForSequenceClassification, exist_ok=True)
AutoProcessor.register(SUTLMConfig, SUTLMProcessor, exist_ok=True)

AutoConfig.register(TextToUnitConfig.model_type, TextToUnitConfig, exist_ok=True)
AutoModel.register(TextToUnitConfig, TextToUnitModel, exist_ok=True)

AutoConfig.register(SpeechLMConfig.model_type, SpeechLMConfig, exist_ok=True)
AutoModel.register(SpeechLMConfig, SpeechLMModel, exist_ok=True)
AutoModelForPreTraining.register(SpeechLMConfig, SpeechLMForPreTraining, exist_ok=True)
AutoModelForCTC.register(SpeechLMConfig, SpeechLMForCTC, exist_ok=True)
AutoModelForSequenceClassification.register(SpeechLMConfig, SpeechLMForSequenceClassification, exist_ok=True)
AutoModelForAudioClassification.register(SpeechLMConfig, SpeechLMForSequenceClassification, exist_ok=True)
AutoFeatureExtractor.register(SpeechLMConfig, SpeechLMFeatureExtractor, exist_ok=True)
AutoProcessor.register(SpeechLMConfig, SpeechLMProcessor, exist_ok=True)

AutoConfig.register(SpeechUTConfig.model_type, SpeechUTConfig, exist_ok=True)
AutoModel.register(SpeechUTConfig, SpeechUTModel, exist_ok=True)
AutoModelForPreTraining.register(SpeechUTConfig, SpeechUTForPreTraining, exist_ok=True)
AutoModelForCTC.register(SpeechUTConfig, SpeechUTForCTC, exist_ok=True)
AutoModelForSequenceClassification.register(SpeechUTConfig, SpeechUTForSequenceClassification, exist_ok=True)
AutoModelForAudioClassification.register(SpeechUTConfig, SpeechUTForSequenceClassification, exist_ok=True)
AutoModelForSpeechSeq2Seq.register(SpeechUTConfig, SpeechUTForConditionalGeneration, exist_ok=True)
AutoFeatureExtractor.register(SpeechUTConfig, SpeechLMFeatureExtractor, exist_ok=True)
AutoProcessor.register(SpeechUTConfig, SpeechLMProcessor, exist_ok=True)

register_pipelines()

__all__ = [
    "SUTLMConfig",
    "SUTLMForCausalLM",
    "SUTLMForSequenceClassification",
    "SUTLMModel",
    "SUTLMProcessor",
    "SealProjectorConfig",
    "SealProjectorForConditionalGeneration",
    "SealProjectorModel",
    "SpeechLMConfig",
    "SpeechLMForCTC",
    "SpeechLMForPreTraining",
    "SpeechLMForSequenceClassification",
    "SpeechLMModel",
    "SpeechLMProcessor",
    "SpeechTextAdapterConfig",
    "SpeechTextAdapterForConditionalGeneration",
    "SpeechTextAdapterModel",
    "SpeechTextAdapterProcessor",
    "SpeechUTConfig",
    "SpeechUTForCTC",
    "SpeechUTForConditionalGeneration",
    "SpeechUTForPreTraining",
    "SpeechUTForSequenceClassification",
    "SpeechUTModel",
    "SpeechUnitConfig",
    "SpeechUnitModel",
    "SpeechUnitProcessor",
    "TextToUnitConfig",
    "TextToUnitModel",
    "__version__",
]
