"""SpeechLM and SpeechUT say what the original classes said, tensor by tensor."""

import pytest
import torch
from joint_encoder_cases import MODELS, STYLES, Recorded, Watched, recorded

WATCHED = (
    "feature_extractor.conv_layers.0",
    "feature_projection",
    "feature_projection.layer_norm",
    "encoder.pos_conv_embed",
    "encoder.layers.0",
    "unit_encoder",
    "unit_encoder.layers.0",
)


@pytest.fixture(scope="module", params=[(model, style) for model in MODELS for style in STYLES], ids="-".join)
def reference(request, test_data) -> Recorded:
    return recorded(test_data, *request.param)


def same(got: torch.Tensor, reference: Recorded, name: str) -> None:
    torch.testing.assert_close(got, reference.outputs[name], rtol=0, atol=1e-4, msg=lambda text: f"{name}: {text}")


def compare_speech(model, body, output, watched: Watched, reference: Recorded, prefix: str) -> None:
    """Every recorded tensor of the speech path."""
    named = {
        "conv_layer.0": watched.outputs["feature_extractor.conv_layers.0"][..., :64],
        "conv_features": output.conv_features,
        "extract_features": watched.outputs["feature_projection.layer_norm"],
        "projected": watched.outputs["feature_projection"],
        "pos_conv_out": watched.outputs["encoder.pos_conv_embed"],
        "speech_encoder.last_hidden_state": output.speech_hidden_state,
        "unit_encoder.input_embeddings": watched.inputs["unit_encoder"],
        "unit_encoder.last_hidden_state": output.last_hidden_state,
        "unit_encoder.hidden.0": watched.inputs["unit_encoder.layers.0"],
    }
    layers = model.config.num_hidden_layers
    for number, state in enumerate(output.hidden_states):
        named[f"speech_encoder.hidden.{number}" if number <= layers else f"unit_encoder.hidden.{number - layers}"] = (
            state
        )
    for name, got in named.items():
        same(got, reference, f"{prefix}.{name}")


def test_a_padded_batch_with_the_original_padding(reference):
    model = reference.padded_as_the_original()
    watched = Watched(model.base_model, *WATCHED)
    with torch.no_grad():
        output = model.base_model(**reference.speech(), output_hidden_states=True)
        compare_speech(model, model.base_model, output, watched, reference, "speech")
        same(model.unit_predictor.speech_logits(output.speech_hidden_state), reference, "speech.unit_logits")
        same(model.unit_predictor.unit_logits(output.last_hidden_state), reference, "speech.unit_encoder_logits")
        logits = model.ctc_head(output.last_hidden_state, output.frame_attention_mask)
    same(logits, reference, "asr.ctc_logits")
    same(logits.log_softmax(-1), reference, "asr.ctc_log_probs")
    assert torch.equal(output.frame_attention_mask == 0, reference.outputs["speech.frame_padding_mask"])


@pytest.mark.parametrize("original_padding", [True, False])
def test_a_clip_alone_in_either_mode(reference, original_padding):
    model = reference.padded_as_the_original(original_padding)
    values = reference.inputs["speech_nopad.source"]
    for mask in (None, torch.ones(values.shape, dtype=torch.long)):
        watched = Watched(model.base_model, *WATCHED)
        with torch.no_grad():
            output = model.base_model(values, attention_mask=mask, output_hidden_states=True)
        compare_speech(model, model.base_model, output, watched, reference, "speech_nopad")


def test_units_of_text(reference):
    model, units = reference.model, reference.inputs["text.src_tokens"]
    watched = Watched(model.base_model, "unit_encoder.embed_tokens", "unit_encoder.layers.0")
    with torch.no_grad():
        output = model.base_model(input_ids=units, output_hidden_states=True)
        original = reference.padded_as_the_original()
        logits = original.ctc_head(output.last_hidden_state, output.frame_attention_mask)
    same(watched.outputs["unit_encoder.embed_tokens"], reference, "text.embeddings")
    for number, state in enumerate(output.hidden_states):
        same(state, reference, f"text.unit_encoder.hidden.{number}")
    assert len(output.hidden_states) == model.config.unit_encoder_layers + 1
    same(output.last_hidden_state, reference, "text.unit_encoder.last_hidden_state")
    same(logits, reference, "text.ctc_logits")
    assert torch.equal(output.frame_attention_mask == 0, reference.outputs["text.padding_mask"])


def test_every_recorded_tensor_is_compared(reference):
    """The names above, those of pre-training below and those of the decoder are all there are, save pseudo tokens."""
    here = ("speech.", "speech_nopad.", "text.", "asr.", "pretrain.")
    assert all(name.startswith(here) for name in reference.outputs)
    known = {"unit_encoder.src_tokens", "frame_padding_mask", "padding_mask", "ctc_padding_mask"}
    left = {name.split(".", 1)[1] for name in reference.outputs if not name.startswith("pretrain.")} - known
    layers = {f"{stack}.hidden.{number}" for stack in ("speech_encoder", "unit_encoder") for number in range(3)}
    named = {"conv_layer.0", "conv_features", "extract_features", "projected", "pos_conv_out", "embeddings"}
    named |= {"speech_encoder.last_hidden_state", "unit_encoder.input_embeddings", "unit_encoder.last_hidden_state"}
    named |= {"unit_logits", "unit_encoder_logits", "ctc_logits", "ctc_log_probs"}
    assert not {name for name in left - layers - named if "decoder" not in name}
    of_pre_training = {name.split(".", 1)[1] for name in reference.outputs if name.startswith("pretrain.")}
    predicted = {f"{what}_{which}.{number}" for what in ("logit", "target") for which in "mu" for number in range(2)}
    terms = {"loss", "features_pen", "sample_size", "text_ctc_logits", "mum_logit_m", "mum_target_m"}
    states = {"speech_unit_encoder_out", "speech_unit_encoder_padding_mask"}
    assert not {name for name in of_pre_training - predicted - terms - states if "decoder" not in name}


def test_the_loss_of_pre_training(reference):
    """With the recorded draws; the original sums over masked frames, here they are averaged."""
    model, inputs, outputs = reference.padded_as_the_original(), reference.inputs, reference.outputs
    draws = {"mask_time_indices": inputs["pretrain.speech_mask_indices"]}
    draws["swap_indices"] = inputs["pretrain.mix_selected_indices"]
    if "pretrain.text_mask_indices" in inputs:
        draws["mask_unit_indices"] = inputs["pretrain.text_mask_indices"]
    else:
        draws |= {"unit_text_ids": inputs["text.src_tokens"]}
        draws |= {"mask_unit_text_indices": inputs["pretrain.mum_mask_indices"]}
    per_frame = int(model.config.label_rate / model.config.frame_rate)
    offsets = [inputs["pretrain.labels"][:, start::per_frame] for start in range(per_frame)]
    targets = inputs["pretrain.targets_at_frame_rate"]
    (offset,) = [start for start, labels in enumerate(offsets) if torch.equal(labels[:, : targets.shape[1]], targets)]
    with torch.no_grad():
        output = model(
            **reference.speech(),
            labels=inputs["pretrain.labels"],
            label_offset=offset,
            input_ids=inputs["text.src_tokens"],
            text_labels=inputs["text.target"],
            **draws,
        )
        text_logits = model.ctc_head(output.text_hidden_state)
        speech_logits = model.unit_predictor.speech_logits(output.speech_hidden_state)
        unit_logits = model.unit_predictor.unit_logits(output.last_hidden_state)
    assert output.masked_frames == outputs["pretrain.sample_size"].item()
    loss = output.loss * output.masked_frames
    torch.testing.assert_close(loss, outputs["pretrain.loss"][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(output.feature_penalty, outputs["pretrain.features_pen"][0], rtol=1e-5, atol=0)
    same(output.last_hidden_state, reference, "pretrain.speech_unit_encoder_out")
    same(text_logits, reference, "pretrain.text_ctc_logits")
    valid = output.frame_attention_mask.bool()
    for suffix, chosen in (("m", draws["mask_time_indices"] & valid), ("u", ~draws["mask_time_indices"] & valid)):
        same(speech_logits[chosen], reference, f"pretrain.logit_{suffix}.0")
        same(unit_logits[chosen], reference, f"pretrain.logit_{suffix}.1")
        for encoder in range(2):
            assert torch.equal(output.frame_labels[chosen], outputs[f"pretrain.target_{suffix}.{encoder}"])
    assert torch.equal(output.frame_attention_mask == 0, outputs["pretrain.speech_unit_encoder_padding_mask"])


def test_masked_units_of_text(reference):
    """SpeechUT predicts them, from the states of a pass of their own."""
    inputs, outputs = reference.inputs, reference.outputs
    recorded = {name for name in outputs if name.startswith("pretrain.mum_")}
    if reference.model.config.model_type == "speechlm":
        assert not recorded
        return
    assert recorded == {"pretrain.mum_logit_m", "pretrain.mum_target_m"}
    model = reference.padded_as_the_original()
    units, masked = inputs["text.src_tokens"], inputs["pretrain.mum_mask_indices"].bool()
    with torch.no_grad():
        output = model.base_model(input_ids=units, mask_time_indices=masked)
        chosen = masked & output.frame_attention_mask.bool()
        logits = model.unit_predictor.unit_logits(output.last_hidden_state[chosen])
        loss = model(unit_text_ids=units, mask_unit_text_indices=masked).masked_unit_loss
    same(logits, reference, "pretrain.mum_logit_m")
    targets = outputs["pretrain.mum_target_m"]
    assert torch.equal(units[chosen], targets)
    expected = torch.nn.functional.cross_entropy(outputs["pretrain.mum_logit_m"].double(), targets)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
