"""The text-to-unit model: a batch changes nothing, losses by hand, what it can learn, saving and loading."""

import pytest
import torch
from transformers import AutoModel

from speechzoo import TextToUnitConfig, TextToUnitModel
from speechzoo.modeling.modeling_text_to_unit import SpokenUnits

PHONES = ("SIL", "SPN", "A", "B", "C", "D", "E")
LENGTHS = (6, 2, 4)  # phones


def model(**fields) -> TextToUnitModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "convolution_kernel": 5, "initializer_range": 0.2}
    return TextToUnitModel(TextToUnitConfig.preset("tiny", phones=PHONES, clusters=11, **{**shape, **fields})).eval()


def batch(padding: int = 0) -> dict[str, torch.Tensor]:
    """Texts of different lengths; padding holds phones, durations and units that must not matter."""
    torch.manual_seed(1)
    width = max(LENGTHS) + padding
    mask = (torch.arange(width) < torch.tensor(LENGTHS)[:, None]).long()
    durations = torch.randint(1, 6, (len(LENGTHS), max(LENGTHS)))
    phones = torch.randint(0, len(PHONES), durations.shape)
    extra = (len(LENGTHS), padding)
    durations = torch.cat([durations, torch.full(extra, 7)], 1)
    phones = torch.cat([phones, torch.full(extra, 3)], 1)
    frames = (durations * mask).sum(1)
    labels = torch.randint(0, 11, (len(LENGTHS), int(frames.max())))
    labels[torch.arange(labels.shape[1]) >= frames[:, None]] = -100
    return {"phone_ids": phones, "phone_attention_mask": mask, "durations": durations, "labels": labels}


def alone(inputs: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    length = LENGTHS[row]
    kept = {name: inputs[name][row : row + 1, :length] for name in ("phone_ids", "phone_attention_mask", "durations")}
    frames = int(kept["durations"].sum())
    return {**kept, "labels": inputs["labels"][row : row + 1, :frames]}


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_batch_changes_nothing(padding, attention):
    speaker, inputs = model(), batch(padding)
    speaker.set_attn_implementation(attention)
    together = speaker(**inputs, return_logits=True)
    for row, length in enumerate(LENGTHS):
        one = speaker(**alone(inputs, row), return_logits=True)
        frames = one.logits.shape[1]
        torch.testing.assert_close(together.logits[row, :frames], one.logits[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.log_durations[row, :length], one.log_durations[0], atol=1e-5, rtol=0)
        assert together.frame_mask[row].sum() == frames and together.frame_mask[row, :frames].all()


def test_generation_is_that_of_each_text_alone():
    speaker, inputs = model(), batch(3)
    said = speaker.generate(inputs["phone_ids"], inputs["phone_attention_mask"])
    for row, length in enumerate(LENGTHS):
        assert said[row] == speaker.generate(inputs["phone_ids"][row : row + 1, :length])[0]
        assert len(said[row].durations) == length and min(said[row].durations) >= 1
        assert len(said[row].units) == sum(said[row].durations)
        assert set(said[row].units) <= set(range(11))
    assert isinstance(said[0], SpokenUnits)


def test_no_phone_lasts_longer_than_allowed():
    speaker = model(longest_duration=4)
    torch.nn.init.constant_(speaker.duration_predictor.out_proj.bias, 9.0)
    [said] = speaker.generate(torch.tensor([[2, 3]]))
    assert said.durations == [4, 4]


def test_frames_come_from_their_phones():
    """With nothing but the spreading, a frame holds its phone's state and its place in the phone."""
    speaker = model()
    states = torch.tensor([[[1.0] * 32, [2.0] * 32, [3.0] * 32]])
    with torch.no_grad():
        speaker.place_in_phone.weight.zero_()
        speaker.place_in_phone.bias.zero_()
        spread, kept = speaker._spread(states, torch.tensor([[2, 1, 3]]))
    assert spread[0, :, 0].tolist() == [1, 1, 2, 3, 3, 3] and kept.all()
    with torch.no_grad():
        speaker.place_in_phone.weight[0, 0] = 1.0
        placed, _ = speaker._spread(torch.zeros_like(states), torch.tensor([[2, 1, 3]]))
    torch.testing.assert_close(placed[0, :, 0], torch.tensor([0.25, 0.75, 0.5, 1 / 6, 0.5, 5 / 6]))


def loss_by_hand(speaker: TextToUnitModel, inputs: dict[str, torch.Tensor]) -> tuple[float, int]:
    """The sum of all terms, clip by clip in float64, and the frames."""
    total, frames = 0.0, 0
    for row in range(len(LENGTHS)):
        one = alone(inputs, row)
        output = speaker(**{name: one[name] for name in ("phone_ids", "durations")})
        chosen = output.logits[0].double().log_softmax(-1).gather(1, one["labels"][0][:, None])
        errors = (output.log_durations[0].double() - one["durations"][0].double().log()) ** 2
        total += (-chosen.sum() + speaker.config.duration_weight * errors.sum()).item()
        frames += one["labels"].shape[1]
    return total, frames


def test_the_loss_is_the_sum_of_its_terms_a_frame():
    speaker, inputs = model(duration_weight=0.7), batch(2)
    total, frames = loss_by_hand(speaker, inputs)
    output = speaker(**inputs)
    assert output.logits is None
    assert float(output.loss) == pytest.approx(total / frames, rel=1e-5)
    assert float(speaker(**inputs, num_items_in_batch=100).loss) == pytest.approx(total / 100, rel=1e-5)


def test_parts_of_a_step_add_up_to_the_whole():
    speaker, inputs = model(), batch()
    frames = int((inputs["labels"] != -100).sum())
    parts = [speaker(**alone(inputs, row), num_items_in_batch=frames).loss for row in range(len(LENGTHS))]
    assert float(sum(parts)) == pytest.approx(float(speaker(**inputs).loss), rel=1e-5)


def test_labels_that_do_not_fit_are_refused():
    speaker, inputs = model(), batch()
    with pytest.raises(ValueError, match=r"a unit belongs to each frame"):
        speaker(**{**inputs, "labels": inputs["labels"][:, :-1]})
    with pytest.raises(ValueError, match=r"labels came without durations"):
        speaker(inputs["phone_ids"], labels=inputs["labels"])


def test_every_parameter_learns_and_the_loss_falls():
    speaker, inputs = model(hidden_dropout=0.0, attention_dropout=0.0).train(), batch(2)
    before = {name: parameter.clone() for name, parameter in speaker.named_parameters()}
    optimizer = torch.optim.Adam(speaker.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = speaker(**inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.2 * losses[0]
    # A bias of keys moves all logits of a query alike, which changes nothing.
    still = [name for name, parameter in speaker.named_parameters() if torch.equal(parameter, before[name])]
    assert not [name for name in still if not name.endswith("k_proj.bias")]
    said = speaker.eval().generate(inputs["phone_ids"], inputs["phone_attention_mask"])
    right = [
        spoken == told
        for row, one in enumerate(said)
        for spoken, told in zip(one.durations, inputs["durations"][row].tolist(), strict=False)
    ]
    assert sum(right) / len(right) > 0.8


def test_saved_and_loaded_it_says_the_same(tmp_path):
    speaker, inputs = model(), batch()
    speaker.save_pretrained(tmp_path)
    loaded, told = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    assert isinstance(loaded, TextToUnitModel) and loaded.config.phones == list(PHONES)
    assert loaded.weights_hash() == speaker.weights_hash() != model(hidden_size=16).weights_hash()
    assert loaded.generate(inputs["phone_ids"]) == speaker.generate(inputs["phone_ids"])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"phonse": []}, r"no field 'phonse'; did you mean 'phones'"),
        ({"phones": ["A", "A"]}, r"a phone is there twice"),
        ({"hidden_size": 30, "num_attention_heads": 4}, r"no even multiple"),
        ({"convolution_kernel": 4}, r"convolution_kernel is 4; give an odd number"),
    ],
)
def test_configurations_that_cannot_be_are_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        TextToUnitConfig(**fields)


def test_presets_are_named():
    assert TextToUnitConfig.preset("base", hidden_size=64).encoder_layers == 4
    with pytest.raises(ValueError, match=r"no preset 'huge'; choose one of tiny, base"):
        TextToUnitConfig.preset("huge")
