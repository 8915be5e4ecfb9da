"""The decoder of SpeechUT equals the recorded original, step by step too; losses, generation, and what is saved."""

import pytest
import torch
from joint_encoder_cases import STYLES, Recorded, clips, padded, random_model, recorded
from torch import nn

from speechzoo.modeling.modeling_speechut import (
    SpeechUTForConditionalGeneration,
    SpeechUTForPreTraining,
    SpeechUTModel,
    smoothed_sum,
)

ROWS = clips(3001, 1200, 2047)
LABELS = torch.tensor([[4, 5, 5, 2, -100], [6, 7, 2, -100, -100], [8, 9, 10, 11, 2]])


@pytest.fixture(scope="module", params=STYLES)
def reference(request, test_data) -> Recorded:
    return recorded(test_data, "speechut", request.param)


def writer(reference: Recorded, original_padding: bool = True) -> SpeechUTForConditionalGeneration:
    """The recorded weights in the class that writes text."""
    config = type(reference.model.config).from_dict(
        {**reference.model.config.to_dict(), "original_padding": original_padding}
    )
    model = SpeechUTForConditionalGeneration(config)
    state = {name: value for name, value in reference.model.state_dict().items() if "unit_predictor" not in name}
    model.load_state_dict(state)
    model.set_attn_implementation("eager")
    return model.eval()


@pytest.mark.parametrize("modality", ["speech", "text"])
@torch.no_grad()
def test_every_recorded_tensor_of_the_decoder(reference, modality):
    model, outputs = writer(reference), reference.outputs
    tokens = reference.inputs["decoder.prev_output_tokens"]
    inputs = reference.speech() if modality == "speech" else {"input_ids": reference.inputs["text.src_tokens"]}
    output = model(
        **inputs,
        decoder_input_ids=tokens,
        decoder_attention_mask=(tokens != 1).long(),
        output_hidden_states=True,
        output_attentions=True,
    )
    got = {f"hidden.{number}": state for number, state in enumerate(output.decoder_hidden_states)}
    got["logits"] = output.logits
    got["last_hidden_state"] = output.decoder_hidden_states[-1]
    got["cross_attention_last_layer_mean"] = output.cross_attentions[-1].mean(1)
    names = {name.removeprefix(f"{modality}.decoder.") for name in outputs if name.startswith(f"{modality}.decoder.")}
    assert names == got.keys()
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, outputs[f"{modality}.decoder.{name}"], rtol=0, atol=1e-4)
    if modality == "speech":
        torch.testing.assert_close(output.logits, outputs["asr.decoder_logits"], rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_decoder_of_pre_training(reference):
    model = writer(reference)
    output = model(
        input_ids=reference.inputs["text.src_tokens"], labels=reference.inputs["text.target"], return_logits=True
    )
    expected = reference.outputs["pretrain.text_decoder_logits"]
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_step_by_step_is_the_full_pass(reference):
    """With the cache, in one step and in several, beyond the farthest relative distance."""
    model, tokens = writer(reference), reference.inputs["decoder.prev_output_tokens"][:1]
    encoded = model.speechut(reference.inputs["speech_nopad.source"])
    full = model(encoder_outputs=encoded, decoder_input_ids=tokens).logits
    cache, steps = None, []
    for start, end in ((0, 1), (1, 2), (2, 20), (20, 21), (21, 32)):
        output = model(
            encoder_outputs=encoded,
            decoder_input_ids=tokens[:, start:end],
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), full, rtol=0, atol=1e-4)


def test_checkpointing_turns_the_cache_off():
    """Without labels the cache is on, and the second pass of a checkpoint would meet it full."""
    gradients = []
    for checkpoints in (False, True):
        model = random_model(SpeechUTForConditionalGeneration).train()
        for module in model.modules():
            for name in ("p", "dropout", "layerdrop", "decoder_layerdrop"):
                if isinstance(vars(module).get(name), float):
                    setattr(module, name, 0.0)
        model.config.layerdrop = model.config.decoder_layerdrop = 0.0
        if checkpoints:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        output = model(input_ids=torch.tensor([[4, 5, 6, 7]]), decoder_input_ids=LABELS[2:])
        output.logits.square().mean().backward()
        assert (output.past_key_values is None) == checkpoints
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name], rtol=1e-4, atol=1e-6)


# ---- losses --------------------------------------------------------------------------------------------------------


def test_smoothing_is_shared_among_the_other_tokens():
    torch.manual_seed(0)
    head, states = nn.Linear(6, 9, bias=False), torch.randn(2, 3, 6)
    labels = torch.tensor([[3, 8, -100], [0, -100, -100]])
    total = 0.0
    for row, column in ((0, 0), (0, 1), (1, 0)):
        surprise = -head(states[row, column]).log_softmax(-1)
        share = 0.1 / 8
        total += (1 - 0.1 - share) * surprise[labels[row, column]] + share * surprise.sum()
    torch.testing.assert_close(smoothed_sum(head, states, labels, 0.1), total)


@pytest.mark.parametrize("share", [0.0, 0.3])
@torch.no_grad()
def test_the_loss_is_that_of_each_row(share):
    model = random_model(SpeechUTForConditionalGeneration, joint_ctc_weight=share)
    together = model(**padded(ROWS, 500, 3.0), labels=LABELS)
    alone = [
        model(ROWS[row][None], labels=labels[labels != -100][None], num_items_in_batch=1).loss
        for row, labels in enumerate(LABELS)
    ]
    torch.testing.assert_close(together.loss, sum(alone) / 12, rtol=1e-5, atol=0)
    assert together.logits is None
    hidden = torch.ones_like(LABELS)
    hidden[:, 1] = 0
    assert model(**padded(ROWS), labels=LABELS, decoder_attention_mask=hidden).loss != together.loss
    assert (model.ctc_head is None) == (share == 0)
    assert model(**padded(ROWS), labels=LABELS, return_logits=True).logits.shape == (3, 5, 16)


# ---- generation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_generation_with_a_cache_is_generation_without(beams):
    model = random_model(SpeechUTForConditionalGeneration)
    options = {"max_new_tokens": 12, "num_beams": beams, "do_sample": False}
    batch = padded(ROWS, 300, 2.0)
    cached = model.generate(**batch, **options)
    assert torch.equal(cached, model.generate(**batch, **options, use_cache=False))
    static = {"cache_implementation": "static", "disable_compile": True}
    assert torch.equal(cached, model.generate(**batch, **options, **static))
    assert cached[:, 0].eq(2).all() and not cached[:, 1:].eq(0).any(), "it begins with </s>, and <s> is CTC's"
    for row, clip in enumerate(ROWS):
        alone = model.generate(input_values=clip[None], **options)[0].tolist()
        text = cached[row].tolist()
        assert text[: len(alone)] == alone and set(text[len(alone) :]) <= {1}


@torch.no_grad()
def test_greedy_generation_takes_the_best_token_each_time():
    model = random_model(SpeechUTForConditionalGeneration)
    written = model.generate(input_values=ROWS[0][None], max_new_tokens=10, do_sample=False)
    text = torch.tensor([[2]])
    while text.shape[1] < 11 and (text.shape[1] == 1 or text[0, -1] != 2):
        logits = model(ROWS[0][None], decoder_input_ids=text).logits[0, -1]
        logits[0] = -torch.inf
        text = torch.cat([text, logits.argmax()[None, None]], 1)
    assert torch.equal(written, text)


@torch.no_grad()
def test_units_are_written_too():
    model = random_model(SpeechUTForConditionalGeneration)
    units = torch.randint(4, 30, (2, 25))
    units[1, 14:] = 1
    written = model.generate(input_ids=units, max_new_tokens=8, num_beams=2)
    alone = model.generate(input_ids=units[1:, :14], max_new_tokens=8, num_beams=2)
    assert written[1, : alone.shape[1]].tolist() == alone[0].tolist()
    with pytest.raises(ValueError, match=r"decoder_input_ids, or labels"):
        model(input_ids=units)


# ---- saving and loading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_pre_trained_checkpoint_writes_text(tmp_path, tied):
    model = random_model(SpeechUTForPreTraining, tie_word_embeddings=tied)
    assert (model.lm_head.weight is model.decoder.embed_tokens.weight) == tied
    model.save_pretrained(tmp_path)
    loaded, report = SpeechUTForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.config.is_encoder_decoder and not model.config.is_encoder_decoder
    assert (loaded.lm_head.weight is loaded.decoder.embed_tokens.weight) == tied
    loaded.save_pretrained(tmp_path / "again")
    again = SpeechUTForConditionalGeneration.from_pretrained(tmp_path / "again")
    body = SpeechUTModel.from_pretrained(tmp_path / "again")
    with torch.no_grad():
        expected = loaded(**padded(ROWS), labels=LABELS).loss
        torch.testing.assert_close(again(**padded(ROWS), labels=LABELS).loss, expected, rtol=0, atol=0)
        states = model.speechut(**padded(ROWS)).last_hidden_state
        torch.testing.assert_close(body(**padded(ROWS)).last_hidden_state, states, rtol=0, atol=1e-5)
