"""A clip in a padded batch is the clip alone, for every encoder; Whisper at its own length and in its window."""

import numpy as np
import pytest
import torch
from speech_text_cases import CLIPS, ENCODINGS, clip, features, pad_further
from torch import nn
from transformers import AutoModel, Wav2Vec2BertConfig, Wav2Vec2BertModel

from speechzoo.modeling.modeling_padding_safe_encoders import MaskedGroupNorm, make_padding_safe

GROUP_NORM = ["hubert", "wav2vec2", "wavlm"]


def alone(model, processor, samples):
    frames, lengths = model.model.encode_audio(**features(processor, [samples]))
    assert frames.shape[:2] == (1, lengths[0])
    return frames[0]


def stock(backbones, family):
    encoder = AutoModel.from_pretrained(backbones.encoder(family)).eval()
    return encoder.get_encoder() if encoder.config.is_encoder_decoder else encoder


@pytest.mark.parametrize(("more", "garbage"), [(0, 0.0), (0, 3.0), (1, 3.0), (777, 3.0), (4801, 0.0)])
@pytest.mark.parametrize(("family", "encoding"), ENCODINGS)
@torch.no_grad()
def test_a_padded_batch_is_each_clip_alone(backbones, family, encoding, more, garbage):
    model, processor = backbones.shared(family, encoding=encoding)
    batch = features(processor, CLIPS)
    if encoding == "clip":  # a window has one size, and what follows the clip in it is part of the method
        most = {"whisper": 24, "w2v-bert": 100}.get(family, more)  # frames, not samples; 24 fill the window
        batch = pad_further(batch, processor, min(more, most), garbage)
    frames, lengths = model.model.encode_audio(**batch)
    for samples, padded, length in zip(CLIPS, frames, lengths, strict=True):
        torch.testing.assert_close(padded[:length], alone(model, processor, samples), rtol=0, atol=1e-5)
        assert not padded[length:].any()


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "wav2vec2-layer", "wavlm", "w2v-bert"])
@torch.no_grad()
def test_a_clip_alone_is_what_the_stock_encoder_says(backbones, family):
    model, processor = backbones.shared(family)
    values = features(processor, [CLIPS[0]])["input_features"]
    expected = stock(backbones, family)(values).last_hidden_state[0]
    torch.testing.assert_close(alone(model, processor, CLIPS[0]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", GROUP_NORM)
@torch.no_grad()
def test_the_stock_group_norm_would_fail(backbones, family):
    """The test above can tell: without masked statistics, padding changes a clip."""
    _, processor = backbones.shared(family)
    batch = features(processor, CLIPS)
    hidden = stock(backbones, family)(batch["input_features"], attention_mask=batch["input_features_mask"])
    expected = stock(backbones, family)(features(processor, [CLIPS[1]])["input_features"]).last_hidden_state[0]
    assert (hidden.last_hidden_state[1, : len(expected)] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("encoding", ["clip", "window"])
@torch.no_grad()
def test_a_whole_whisper_window_is_what_the_stock_encoder_says(backbones, encoding):
    model, processor = backbones.shared("whisper", encoding=encoding)
    samples = clip(processor.window_samples)
    values = processor.feature_extractor(samples, sampling_rate=16000, return_tensors="pt")["input_features"]
    expected = stock(backbones, "whisper")(values).last_hidden_state[0]
    torch.testing.assert_close(alone(model, processor, samples), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [201, 5123, 16000, 31999])
@torch.no_grad()
def test_the_whisper_window_is_the_stock_encoder_cropped(backbones, samples):
    model, processor = backbones.shared("whisper", encoding="window")
    values = processor.feature_extractor(clip(samples), sampling_rate=16000, return_tensors="pt")["input_features"]
    expected = stock(backbones, "whisper")(values).last_hidden_state[0]
    got = alone(model, processor, clip(samples))
    assert len(got) == -(-(samples // 160) // 2)
    torch.testing.assert_close(got, expected[: len(got)], rtol=0, atol=1e-5)


@torch.no_grad()
def test_clip_and_window_differ(backbones):
    """They are two methods: the window lets a clip see the silence that follows it."""
    by_clip, by_window = (
        alone(*backbones.shared("whisper", encoding=encoding), CLIPS[1]) for encoding in ("clip", "window")
    )
    assert by_clip.shape == by_window.shape
    assert (by_clip - by_window).abs().max() > 1e-3


@pytest.mark.parametrize("encoding", ["clip", "window"])
@torch.no_grad()
def test_audio_beyond_the_window_is_laid_end_to_end_in_chunks(backbones, encoding):
    model, processor = backbones.shared("whisper", encoding=encoding, reduction_ratio=2)
    window = processor.window_samples
    samples = clip(2 * window + 7000)
    batch = processor(processor.prompt("asr"), samples, return_tensors="pt")
    assert len(batch["input_features"]) == 3
    speech = {name: batch[name] for name in ("input_features", "input_features_mask")}
    embeddings = model.model.get_audio_features(**speech).pooler_output
    parts = [samples[:window], samples[window : 2 * window], samples[2 * window :]]
    pieces = [model.model.get_audio_features(**features(processor, [part])).pooler_output for part in parts]
    torch.testing.assert_close(embeddings, torch.cat(pieces), rtol=0, atol=1e-5)
    assert (batch["input_ids"] == processor.audio_token_id).sum() == len(embeddings)


@pytest.mark.parametrize("family", GROUP_NORM)
def test_checkpointing_gives_the_same_gradients_as_none(backbones, family):
    """Masked statistics must be there when layers run again in the backward pass."""
    gradients = []
    for checkpointing in (False, True):
        model, processor = backbones.build(family, unfrozen=["audio_tower"])
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        encoder = model.model.audio_tower
        encoder.config.mask_time_prob = encoder.config.layerdrop = 0.0
        model.train()
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
        frames, _ = model.model.encode_audio(**features(processor, CLIPS[:3]))
        frames.square().sum().backward()
        gradients.append({name: tensor.grad for name, tensor in encoder.named_parameters() if tensor.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys() and any("conv_layers.0.layer_norm" in name for name in plain)
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name], rtol=1e-4, atol=1e-4)


def test_masked_group_norm_is_group_norm_of_what_is_valid():
    torch.manual_seed(0)
    norm = nn.Sequential(nn.GroupNorm(6, 6))
    nn.init.normal_(norm[0].weight), nn.init.normal_(norm[0].bias)
    masked = MaskedGroupNorm(6, 6)
    masked.load_state_dict(norm[0].state_dict())
    masked.valid = torch.tensor([9, 4, 2])
    values = torch.randn(3, 6, 9)
    result = masked(values)
    for row, length in enumerate((9, 4, 2)):
        expected = norm(values[row : row + 1, :, :length])[0]
        torch.testing.assert_close(result[row, :, :length], expected, rtol=0, atol=1e-5)
        assert not result[row, :, length:].any()


def test_masked_group_norm_has_the_gradients_of_what_is_valid_and_takes_clips_of_a_frame_or_none():
    torch.manual_seed(0)
    norm, masked = nn.GroupNorm(6, 6), MaskedGroupNorm(6, 6)
    masked.valid = torch.tensor([9, 4, 1, 0])
    values, weights = torch.randn(4, 6, 9), torch.randn(4, 6, 9)
    first, second = values.clone().requires_grad_(), values.clone().requires_grad_()
    (masked(first) * weights).sum().backward()
    (norm(second[:1]) * weights[:1]).sum().backward()
    (norm(second[1:2, :, :4]) * weights[1:2, :, :4]).sum().backward()
    torch.testing.assert_close(first.grad[:2], second.grad[:2], rtol=1e-5, atol=1e-6)
    assert not first.grad[1, :, 4:].any() and torch.isfinite(masked(values)).all()


@pytest.mark.parametrize(("dtype", "parameters"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_masked_group_norm_takes_parameters_of_another_precision(dtype, parameters):
    masked = MaskedGroupNorm(6, 6).to(getattr(torch, parameters))
    masked.valid = torch.tensor([9, 4])
    values = torch.randn(2, 6, 9)
    result = masked(values.to(getattr(torch, dtype)))
    assert result.dtype == getattr(torch, dtype)
    expected = nn.functional.group_norm(values[1:, :, :4], 6)[0]
    torch.testing.assert_close(result[1, :, :4].float(), expected, rtol=0, atol=0.05 if dtype == "bfloat16" else 1e-5)


def test_state_dict_names_do_not_change(backbones):
    encoder = stock(backbones, "hubert")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    make_padding_safe(encoder)
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_half_precision_statistics_are_summed_in_float32():
    """2,000 equal frames: a bfloat16 sum would stop growing at 256."""
    masked = MaskedGroupNorm(1, 1)
    masked.valid = torch.tensor([2000])
    values = torch.cat([torch.full((1, 1, 2000), 3.0), torch.full((1, 1, 50), -90.0)], -1).to(torch.bfloat16)
    assert np.allclose(masked(values).float().detach(), 0, atol=1e-2)


@torch.no_grad()
def test_positions_do_not_keep_the_precision_of_the_batch_before():
    """The stock rotary embedding computes them once for a length: in bfloat16, if autocast was on by then."""
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        feature_projection_input_dim=20,
        position_embeddings_type="rotary",
    )
    encoder = Wav2Vec2BertModel(config).eval()
    values = torch.randn(1, 40, 20)

    def after_autocast():
        with torch.autocast("cpu", torch.bfloat16):
            encoder(values)
        return encoder(values).last_hidden_state

    expected = encoder(values).last_hidden_state
    encoder(values[:, :30])
    assert not torch.equal(after_autocast(), expected), "the stock encoder is mended: the hook can go"
    make_padding_safe(encoder)
    assert torch.equal(after_autocast(), expected)
