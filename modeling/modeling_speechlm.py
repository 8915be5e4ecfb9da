"""SpeechLM (arXiv 2209.15329): speech and text in one encoder, text as phones (-P) or as units (-H)."""

from ..configuration.configuration_speechlm import SpeechLMConfig
from .modeling_joint_encoders import (
    JointEncoderForCTC,
    JointEncoderForSequenceClassification,
    JointEncoderModel,
    JointEncoderPreTrainedModel,
)
from .modeling_joint_pretraining import JointEncoderForPreTraining


class SpeechLMPreTrainedModel(JointEncoderPreTrainedModel):
    config: SpeechLMConfig
    base_model_prefix = "speechlm"


class SpeechLMModel(SpeechLMPreTrainedModel, JointEncoderModel):
    """States of speech, from the waveform, or of text, from units."""


class SpeechLMForPreTraining(SpeechLMPreTrainedModel, JointEncoderForPreTraining):
    """Masked unit prediction in both encoders, swapping, and letters of text by CTC."""

    body_class = SpeechLMModel


class SpeechLMForCTC(SpeechLMPreTrainedModel, JointEncoderForCTC):
    """Letters, or letters and entity markers, of speech or units by CTC."""

    body_class = SpeechLMModel


class SpeechLMForSequenceClassification(SpeechLMPreTrainedModel, JointEncoderForSequenceClassification):
    """A label of speech or units: self-attention pooling and two layers."""

    body_class = SpeechLMModel


__all__ = [
    "SpeechLMForCTC",
    "SpeechLMForPreTraining",
    "SpeechLMForSequenceClassification",
    "SpeechLMModel",
    "SpeechLMPreTrainedModel",
]
