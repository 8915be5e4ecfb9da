"""The presets are the released models by their parameter counts; contradictions are refused."""

import pytest
import torch

from speechzoo.configuration.configuration_speechlm import SpeechLMConfig
from speechzoo.configuration.configuration_speechut import SpeechUTConfig
from speechzoo.modeling.modeling_speechlm import SpeechLMForPreTraining
from speechzoo.modeling.modeling_speechut import SpeechUTForPreTraining

TRANSLATION = {"text_ctc_weight": 0.0, "tie_word_embeddings": True, "text_vocab_size": 10002}
# Parameters of the original, and those among them that post-norm layers do not use: two vectors a layer, as wide as
# a head, in 12 layers of the encoders and 6 of the decoder.
RELEASED = {
    "base-p": (SpeechLMForPreTraining, SpeechLMConfig.preset("base-p"), 98_815_137, 12 * 2 * 96),
    "base-h": (SpeechLMForPreTraining, SpeechLMConfig.preset("base-h"), 98_989_217, 12 * 2 * 96),
    "large-p": (SpeechLMForPreTraining, SpeechLMConfig.preset("large-p"), 321_781_921, 0),
    "base": (SpeechUTForPreTraining, SpeechUTConfig.preset("base"), 155_816_602, 12 * 2 * 96 + 6 * 2 * 64),
    "translation": (
        SpeechUTForPreTraining,
        SpeechUTConfig.preset("base", **TRANSLATION),
        162_240_889,
        12 * 2 * 96 + 6 * 2 * 64,
    ),
    "large": (SpeechUTForPreTraining, SpeechUTConfig.preset("large"), 378_948_506, 12 * 2 * 64 + 6 * 2 * 64),
}


@pytest.mark.parametrize("name", RELEASED)
def test_presets_have_the_parameters_of_the_originals(name):
    model_class, config, parameters, unused = RELEASED[name]
    with torch.device("meta"):
        model = model_class(config)
        model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters - unused


def test_a_configuration_comes_back(tmp_path):
    config = SpeechUTConfig.preset("tiny", freeze_layers=1, original_padding=True)
    config.save_pretrained(tmp_path)
    assert SpeechUTConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert config.vocab_size == config.text_vocab_size


def test_frames_follow_from_the_convolutions():
    config = SpeechLMConfig()
    assert (config.frame_kernel, config.inputs_to_logits_ratio, config.frame_rate) == (400, 320, 50.0)
    tiny = SpeechLMConfig(conv_dim=[4] * 3, conv_kernel=[10, 3, 3], conv_stride=[5, 8, 8])
    for samples in range(200, 900):
        frames = samples
        for kernel, stride in zip(tiny.conv_kernel, tiny.conv_stride, strict=True):
            frames = (frames - kernel) // stride + 1
        assert (samples - tiny.frame_kernel) // tiny.inputs_to_logits_ratio + 1 == frames


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unit_layers": 3}, r"no field 'unit_layers'"),
        ({"freeze_layers": 7}, r"freeze_layers is 7; choose -1 to 6"),
        ({"conv_dim": [4, 4]}, r"differ in length"),
        ({"unit_attention_heads": 7}, r"no multiple of unit_attention_heads 7"),
        ({"label_rate": 25.0}, r"label_rate is 25.0, less than the 50.0 frames"),
        ({"pad_token_id": None}, r"pad_token_id is None"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SpeechLMConfig(**fields)


def test_unknown_presets_are_refused():
    with pytest.raises(ValueError, match=r"no preset 'base'; choose one of tiny, base-p, base-h, large-p"):
        SpeechLMConfig.preset("base")
    with pytest.raises(ValueError, match=r"joint_ctc_weight is 1.5"):
        SpeechUTConfig.preset("base", joint_ctc_weight=1.5)
