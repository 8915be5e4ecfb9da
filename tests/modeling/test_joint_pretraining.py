"""Pre-training: spans, labels at the rate of frames, swapping, and a loss of what is given."""

import pytest
import torch
from joint_encoder_cases import clips, padded, random_model

from speechzoo.modeling.modeling_joint_pretraining import labels_of_frames
from speechzoo.modeling.modeling_span_masks import draw_spans
from speechzoo.modeling.modeling_speechlm import SpeechLMForPreTraining
from speechzoo.modeling.modeling_speechut import SpeechUTForPreTraining

ROWS = clips(3001, 1200, 2047)
FRAMES = 74
TEXT = {"input_ids": torch.randint(4, 30, (2, 30)), "text_labels": torch.tensor([[4, 5, 2], [6, 2, -100]])}


def test_spans_cover_their_share():
    torch.manual_seed(0)
    drawn = draw_spans([1000] * 40, 1000, 0.8, 10, 2, equal=False)
    # Spans overlap: each of 80 covers a position with probability 1 / 100.
    assert abs(drawn.float().mean() - (1 - 0.99**80)) < 0.02
    starts = drawn & ~torch.nn.functional.pad(drawn[:, :-1], (1, 0))
    assert (drawn.sum(-1) / starts.sum(-1)).min() >= 10


def test_spans_stay_inside_their_row_and_rows_are_equal():
    torch.manual_seed(0)
    for lengths in ([50, 31, 12], [50, 3, 1]):
        drawn = draw_spans(lengths, 50, 0.65, 10, 2)
        assert len(set(drawn.sum(-1).tolist())) == 1
        assert not any(row[length:].any() for row, length in zip(drawn, lengths, strict=True))
    free = draw_spans([50, 31, 12], 50, 0.65, 10, 2, equal=False)
    assert len(set(free.sum(-1).tolist())) > 1
    assert not draw_spans([50], 50, 0.0, 10, 0).any()


def test_labels_are_taken_at_the_rate_of_frames():
    labels = torch.arange(12)[None]
    assert labels_of_frames(labels, 6, 2.0, 1).tolist() == [[1, 3, 5, 7, 9, 11]]
    assert labels_of_frames(labels, 9, 2.0).tolist() == [[0, 2, 4, 6, 8, 10]]
    assert labels_of_frames(labels, 9, 1.5).tolist() == [[0, 1, 3, 4, 6, 7, 9, 10]]
    assert labels_of_frames(labels, 4, 1.0).tolist() == [[0, 1, 2, 3]]


def swapped_states(model, swap, masked, labels):
    entered = []
    hook = model.speechlm.unit_encoder.register_forward_pre_hook(lambda module, args: entered.append(args))
    with torch.no_grad():
        output = model(**padded(ROWS), labels=labels, mask_time_indices=masked, swap_indices=swap)
    hook.remove()
    return output, *entered[0]


def test_swapped_frames_are_embeddings_of_their_labels():
    model = random_model(SpeechLMForPreTraining)
    labels = torch.randint(4, 30, (3, FRAMES))
    masked, swap = torch.zeros(3, FRAMES, dtype=torch.bool), torch.zeros(3, FRAMES, dtype=torch.bool)
    masked[:, 5:15], swap[:, 10:20] = True, True
    output, entered, _ = swapped_states(model, swap, masked, labels)
    table = model.speechlm.unit_encoder.embed_tokens.weight
    torch.testing.assert_close(entered[0, 15:20], table[labels[0, 15:20]])
    torch.testing.assert_close(entered[0, :15], output.speech_hidden_state[0, :15])
    assert not entered[1, 29:].any(), "padding stays zero"


@pytest.mark.parametrize("original_padding", [True, False])
def test_labels_decide_what_is_padding_to_the_unit_encoder(original_padding):
    """The one rule that the recorded tensors cannot tell."""
    model = random_model(SpeechLMForPreTraining, original_padding=original_padding)
    labels = torch.randint(4, 30, (3, FRAMES))
    labels[0, 60:] = -100
    nothing = torch.zeros(3, FRAMES, dtype=torch.bool)
    masked = nothing.clone()
    masked[:, 50:70] = True
    output, _, mask = swapped_states(model, nothing, masked, labels)
    frames = output.frame_attention_mask.sum(-1)
    assert mask.sum(-1).tolist() == ([60, 74, 74] if original_padding else [60, *frames[1:].tolist()])
    assert output.masked_frames == sum(max(min(length, 70) - 50, 0) for length in (60, *frames[1:].tolist()))
    assert output.frame_labels[0, 60:].eq(-100).all() and output.frame_labels[1, frames[1] :].eq(-100).all()


def test_fewer_labels_cut_the_frames():
    model = random_model(SpeechLMForPreTraining)
    assert model(**padded(ROWS), labels=torch.randint(4, 30, (3, 60))).last_hidden_state.shape[1] == 60


@torch.no_grad()
def test_a_clip_with_few_labels_is_the_same_beside_one_with_more():
    model = random_model(SpeechLMForPreTraining)
    labels = torch.randint(4, 30, (3, FRAMES))
    labels[1, 20:] = -100
    masked = torch.zeros(3, FRAMES, dtype=torch.bool)
    masked[:, 3:12] = True
    draws = {"mask_time_indices": masked, "swap_indices": torch.zeros_like(masked)}
    together = model(**padded(ROWS), labels=labels, **draws)
    alone = model(**padded(ROWS[1:2]), labels=labels[1:2, :20], **{name: one[1:2, :20] for name, one in draws.items()})
    assert together.frame_attention_mask[1].sum() == 20
    torch.testing.assert_close(together.last_hidden_state[1, :20], alone.last_hidden_state[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        together.speech_hidden_state[1, :20], alone.speech_hidden_state[0], rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_the_loss_is_the_sum_of_what_is_given():
    model = random_model(SpeechUTForPreTraining)
    masked = torch.zeros(3, FRAMES, dtype=torch.bool)
    masked[:, 3:20] = True
    speech = {**padded(ROWS), "labels": torch.randint(4, 30, (3, FRAMES)), "mask_time_indices": masked}
    speech["swap_indices"] = ~masked
    unit_text = {"unit_text_ids": TEXT["input_ids"], "mask_unit_text_indices": torch.rand(2, 30) < 0.5}
    parts = [speech, TEXT, unit_text]
    losses = [model(**part).loss for part in parts]
    together = model(**speech, **TEXT, **unit_text)
    torch.testing.assert_close(together.loss, sum(losses))
    weighted = together.speech_unit_loss + together.unit_loss + 10 * together.feature_penalty
    weighted += 0.1 * together.text_ctc_loss + 0.1 * together.decoder_loss + 0.5 * together.masked_unit_loss
    torch.testing.assert_close(together.loss, weighted)
    assert model(**padded(ROWS)).loss is None and model(input_ids=TEXT["input_ids"]).loss is None
    with pytest.raises(ValueError, match=r"unit_text_ids, or several"):
        model()


@torch.no_grad()
def test_padding_changes_no_loss():
    model = random_model(SpeechLMForPreTraining)
    masked = torch.zeros(3, FRAMES, dtype=torch.bool)
    masked[:, 3:20] = True
    speech = {"labels": torch.randint(4, 30, (3, FRAMES)), "mask_time_indices": masked, "swap_indices": ~masked}
    loss = model(**padded(ROWS), **speech).loss
    more = {name: torch.nn.functional.pad(value, (0, 20)) for name, value in speech.items()}
    more["labels"][:, FRAMES:] = 9  # a label of what is no frame
    torch.testing.assert_close(model(**padded(ROWS, 777, 4.0), **more).loss, loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize("model_class", [SpeechLMForPreTraining, SpeechUTForPreTraining])
def test_everything_learns(model_class):
    """Drawn masks, every term: no parameter is without a gradient, and the same seed draws the same."""
    model = random_model(model_class, layerdrop=0.0, label_rate=800.0).train()
    batch = {**padded(ROWS), "labels": torch.randint(4, 30, (3, 2 * FRAMES)), **TEXT}
    if model_class is SpeechUTForPreTraining:
        model.config.decoder_layerdrop = 0.0
        batch["unit_text_ids"] = TEXT["input_ids"]
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.detach())
    assert torch.equal(*losses)
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
