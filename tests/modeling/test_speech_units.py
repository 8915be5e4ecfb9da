"""Units: the same for a clip in any batch, from a cut encoder, with a codebook that knows which encoder it is of."""

import json
import shutil

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import load_file
from speech_text_cases import CLIPS, clip, pad_further
from transformers import AutoModel, AutoProcessor

from speechzoo import SpeechUnitConfig, SpeechUnitModel, SpeechUnitProcessor
from speechzoo.modeling import modeling_speech_units
from speechzoo.modeling.modeling_padding_safe_encoders import encode_speech

FAMILIES = ["hubert", "wav2vec2-layer", "whisper", "w2v-bert"]


def build(folder, layer=1, clusters=20, **fields):
    """A unit model whose centroids are frames of noise, and its processor."""
    model = SpeechUnitModel.from_encoder(str(folder), layer, clusters, **fields)
    processor = SpeechUnitProcessor.from_model_config(model.config)
    frames, lengths = model.encode(**features(processor, [clip(30000, seed=9)]))
    picked = np.random.default_rng(0).permutation(int(lengths[0]))[:clusters]
    model.set_codebook(frames[0, picked].float())
    return model, processor


def features(processor, clips):
    return dict(processor(clips))


@pytest.fixture(scope="module")
def cases(backbones):
    kept = {}

    def case(family, **fields):
        key = (family, *sorted(fields.items()))
        if key not in kept:
            kept[key] = build(backbones.encoder(family), **fields)
        return kept[key]

    return case


def alone(model, processor, clips):
    return [model.extract(**features(processor, [samples]))[0] for samples in clips]


# ---- a batch changes nothing ----


@pytest.mark.parametrize(
    ("family", "encoding", "averaging"),
    [*((family, "clip", 1) for family in FAMILIES), ("whisper", "window", 1), ("w2v-bert", "clip", 7)],
)
def test_a_clip_has_its_units_in_any_batch(cases, family, encoding, averaging):
    model, processor = cases(family, encoding=encoding, averaging=averaging)
    expected = alone(model, processor, CLIPS)
    assert all(len(set(units)) > 3 for units in expected), "a constant would pass too"
    batch = features(processor, CLIPS)
    assert model.extract(**batch) == expected
    pairs = [model.extract(**features(processor, CLIPS[start : start + 2])) for start in (0, 2)]
    assert pairs[0] + pairs[1] == expected
    if encoding == "clip":
        assert model.extract(**pad_further(batch, processor, 24, garbage=3.0)) == expected


@pytest.mark.parametrize(("family", "averaging"), [*((family, 1) for family in FAMILIES), ("w2v-bert", 7)])
def test_rounding_stays_far_inside_the_bound(cases, family, averaging):
    """The bound inside which a clip is encoded again is ten times what padding really does."""
    model, processor = cases(family, averaging=averaging)
    together, lengths = model.encode(**features(processor, CLIPS))
    for samples, padded, length in zip(CLIPS, together, lengths, strict=True):
        single = model.encode(**features(processor, [samples]))[0][0]
        moved = (padded[:length] - single).norm(dim=-1) / single.norm(dim=-1)
        assert moved.max() < modeling_speech_units.ROUNDING / 10
        assert not padded[length:].any()


def test_a_frame_on_a_border_is_decided_by_the_clip_alone(cases, monkeypatch):
    """Without a second look padding would decide; here what the batch says is moved to make it lie."""
    model, processor = cases("hubert")
    expected = alone(model, processor, CLIPS)
    real = SpeechUnitModel.encode

    def shaken(self, input_features, input_features_mask):
        frames, lengths = real(self, input_features, input_features_mask)
        if len(frames) > 1:
            frames = frames + 1e-6 * frames.norm(dim=-1, keepdim=True) * torch.randn_like(frames)
        return frames, lengths

    # Two centroids whose border runs through a frame: it is the mean of both.
    frames = real(model, **features(processor, CLIPS[:1]))[0][0]
    apart = torch.randn(frames.shape[1], generator=torch.Generator().manual_seed(0))
    borderline, borderline_processor = build(model.config.audio_model_id)
    borderline.set_codebook(torch.stack([frames[3] - apart, frames[3] + apart]))
    expected = alone(borderline, borderline_processor, CLIPS)
    monkeypatch.setattr(SpeechUnitModel, "encode", shaken)
    batch = features(borderline_processor, CLIPS)
    for seed in range(8):
        torch.manual_seed(seed)
        assert borderline.extract(**batch) == expected
    monkeypatch.setattr(modeling_speech_units, "ROUNDING", 0.0)
    answers = []
    for seed in range(8):
        torch.manual_seed(seed)
        answers.append(borderline.extract(**batch) == expected)
    assert not all(answers), "the test could not tell"


@pytest.mark.parametrize("family", ["hubert", "whisper"])
def test_half_precision_does_not_let_a_batch_in_either(cases, family):
    model, processor = cases(family, dtype=torch.bfloat16)
    assert model.audio_tower.dtype == torch.bfloat16 and model.codebook.centroids.dtype == torch.float32
    assert model.extract(**features(processor, CLIPS)) == alone(model, processor, CLIPS)


def test_autocast_changes_no_unit(cases):
    model, processor = cases("hubert")
    batch = features(processor, CLIPS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.extract(**batch) == alone(model, processor, CLIPS)


def test_forward_marks_what_lies_beyond_a_clip(cases):
    model, processor = cases("hubert")
    found = model(**features(processor, CLIPS))
    for units, length, samples in zip(found.units, found.lengths, CLIPS, strict=True):
        assert length == (len(samples) - model.config.frame_kernel) // model.config.frame_stride + 1
        assert (units[:length] >= 0).all() and (units[length:] == modeling_speech_units.NO_UNIT).all()


# ---- the layer and the nearest centroid ----


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [1, 2])
@torch.no_grad()
def test_units_are_the_nearest_centroids_of_that_layer(backbones, cases, family, layer):
    """Brute force in float64, on what the whole stock encoder records."""
    model, processor = cases(family, layer=layer)
    whole = AutoModel.from_pretrained(backbones.encoder(family)).eval()
    whole = whole.get_encoder() if whole.config.is_encoder_decoder else whole
    batch = features(processor, CLIPS[:1])
    said = []
    whole.get_submodule("layers" if family == "whisper" else "encoder.layers")[layer - 1].register_forward_hook(
        lambda module, given, output: said.append(output[0] if isinstance(output, tuple) else output)
    )
    config = model.config
    encode_speech(whole, *batch.values(), "clip", config.frame_kernel, config.frame_stride)
    frames = said[0][0].double().numpy()
    distances = ((frames[:, None] - model.codebook.centroids.double().numpy()) ** 2).sum(-1)
    assert model.extract(**batch)[0] == distances.argmin(-1).tolist()


def test_frames_are_averaged_with_those_of_their_clip_alone(cases):
    plain, processor = cases("w2v-bert")
    model, _ = cases("w2v-bert", averaging=5)
    batch = features(processor, CLIPS)
    frames, lengths = plain.encode(**batch)
    averaged, _ = model.encode(**batch)
    for clip_frames, found, length in zip(frames, averaged, lengths.tolist(), strict=True):
        for place in range(length):
            expected = clip_frames[max(0, place - 2) : min(length, place + 3)].double().mean(0)
            torch.testing.assert_close(found[place].double(), expected, rtol=1e-5, atol=1e-5)
        assert not found[length:].any()


def test_equal_distances_go_to_the_lower_index():
    codebook = modeling_speech_units.UnitCodebook(5, 3)
    codebook.centroids.data = torch.tensor([[9.0, 9, 9], [1, 0, 0], [0, 1, 0], [1, 0, 0], [-1, 0, 0]])
    units, margins = codebook(torch.tensor([[1.0, 0, 0], [0.5, 0.5, 3], [0, 0, 7], [-4, 0, 0]]))
    assert units.tolist() == [1, 1, 1, 4]
    torch.testing.assert_close(margins, torch.tensor([0.0, 0.0, 0.0, 8.0**0.5]).double())


def test_the_number_of_frames_at_once_changes_nothing(monkeypatch):
    codebook = modeling_speech_units.UnitCodebook(50, 16)
    codebook.centroids.data = torch.randn(50, 16)
    frames = torch.randn(101, 16)
    expected = codebook(frames)[0]
    monkeypatch.setattr(modeling_speech_units, "_FRAMES_AT_ONCE", 7)
    assert torch.equal(codebook(frames)[0], expected)
    assert torch.equal(torch.cat([codebook(frame[None])[0] for frame in frames]), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_above_are_neither_built_nor_read(backbones, tmp_path, family):
    folder = shutil.copytree(backbones.encoder(family), tmp_path / "encoder")
    model, _ = build(folder)
    names = [name for name, _ in model.audio_tower.named_parameters()]
    assert any("layers.0." in name for name in names)
    assert not any(".layers.1." in f".{name}" for name in names if "conv_layers" not in name)
    assert model.config.audio_config.num_hidden_layers == 2, "the configuration keeps the whole architecture"


# ---- saving and loading ----


def test_the_checkpoint_holds_the_codebook_alone(cases, tmp_path):
    model, processor = cases("hubert", smoothing=3)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert list(load_file(tmp_path / "model.safetensors")) == ["codebook.centroids"]
    loaded, reader = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, SpeechUnitModel) and isinstance(reader, SpeechUnitProcessor)
    assert loaded.extract(**features(reader, CLIPS)) == model.extract(**features(processor, CLIPS))
    assert loaded.config.codebook_hash == model.codebook_hash() and reader.smoothing == 3
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_checkpoint_needs_no_other(backbones, tmp_path, dtype):
    encoder = shutil.copytree(backbones.encoder("hubert"), tmp_path / "encoder")
    model, processor = build(encoder, dtype=dtype)
    model.save_pretrained(tmp_path / "units", save_backbones=True)
    expected = model.extract(**features(processor, CLIPS))
    shutil.rmtree(encoder)
    loaded = AutoModel.from_pretrained(tmp_path / "units")
    assert loaded.config.audio_model_id is None
    assert loaded.extract(**features(processor, CLIPS)) == expected


@pytest.mark.parametrize("dtype", [None, "auto"])
def test_the_precision_is_remembered(backbones, tmp_path, dtype):
    model, _ = build(backbones.encoder("hubert"), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    given = {} if dtype is None else {"dtype": dtype}
    assert AutoModel.from_pretrained(tmp_path, **given).audio_tower.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"encoder in bfloat16, not in float32"):
        AutoModel.from_pretrained(tmp_path, dtype=torch.float32)


def test_another_encoder_is_refused(backbones, cases, tmp_path):
    model, _ = cases("hubert")
    model.save_pretrained(tmp_path / "units")
    other = shutil.copytree(backbones.encoder("hubert"), tmp_path / "other")
    stranger = AutoModel.from_pretrained(other)
    with torch.no_grad():
        next(stranger.encoder.layers[0].parameters()).add_(1e-3)
    stranger.save_pretrained(other)
    with pytest.raises(ValueError, match=r"not the one this codebook was trained on"):
        AutoModel.from_pretrained(tmp_path / "units", audio_model_id=str(other), audio_model_revision=None)
    with pytest.raises(ValueError, match=r"not those this checkpoint was trained on"):
        AutoModel.from_pretrained(tmp_path / "units", audio_model_id=str(other))
    for family in ("w2v-bert", "wavlm", "whisper"):
        with pytest.raises(ValueError, match=r"trained (on|beside)|lacks \d+ weights"):
            AutoModel.from_pretrained(
                tmp_path / "units", audio_model_id=str(backbones.encoder(family)), audio_model_revision=None
            )
    # Where it lies does not matter.
    moved = shutil.copytree(backbones.encoder("hubert"), tmp_path / "moved")
    AutoModel.from_pretrained(tmp_path / "units", audio_model_id=str(moved))


def test_a_codebook_that_does_not_belong_is_refused(cases, tmp_path):
    model, _ = cases("hubert")
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(written | {"codebook_hash": "0" * 64}))
    with pytest.raises(ValueError, match=r"codebook is not the one"):
        AutoModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another encoder"):
        model.set_codebook(torch.zeros(4, 31))
    with pytest.raises(ValueError, match=r"NaN"):
        model.set_codebook(torch.full((4, 32), torch.nan))


def test_a_random_codebook_is_not_saved(backbones, tmp_path):
    model = SpeechUnitModel.from_encoder(str(backbones.encoder("hubert")), 1, 20)
    with pytest.raises(ValueError, match=r"train one"):
        model.save_pretrained(tmp_path)


# ---- configuration ----


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": 3}, "no field 'layers'; did you mean 'layer'"),
        ({"layer": 13}, "layers 1 to 12"),
        ({"layer": 0}, "layers 1 to 12"),
        ({"smoothing": 4}, "odd"),
        ({"averaging": 4}, "odd"),
        ({"clusters": 1}, "at least 2"),
        ({"encoding": "clips"}, "choose one of clip, window"),
        ({"frame_rate": 0.0}, "frames of a second"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SpeechUnitConfig(**fields)


@pytest.mark.parametrize("family", tiny_models.ENCODERS)
def test_the_frame_rate_is_asked_of_the_encoder(backbones, family):
    model = SpeechUnitModel.from_encoder(str(backbones.encoder(family)), 2, 4)
    assert SpeechUnitProcessor.from_model_config(model.config).frame_rate == model.config.frame_rate == 50.0
