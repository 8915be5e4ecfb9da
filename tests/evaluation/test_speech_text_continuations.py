"""Draws of continuations: their distribution, that a batch changes none, and how they are read."""

import pytest
import tiny_models
import torch
from sutlm_cases import joint_model, joint_processor

from speechzoo.evaluation.speech_text_continuations import (
    Continuation,
    OwnNoise,
    Sampling,
    continue_sequences,
    sample_continuations,
)
from speechzoo.training.training_tiny_language_model import train_tokenizer

SPOKEN = [[3, 1, 4, 1, 5, 9], [2], [7, 1, 8]]
WRITTEN = ["turn on the lights", "heat", "bring me"]
NAMES = ["one", "two", "three"]


@pytest.fixture(scope="module")
def processor():
    return joint_processor()


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, processor):
    return joint_model(request.param, processor)


def drawn(model, processor, source, into, **settings):
    sampling = Sampling(**{"text_tokens": 6, "unit_tokens": 6, "samples": 2, **settings})
    return sample_continuations(
        model, processor, SPOKEN if source == "speech" else WRITTEN, source, into, sampling, NAMES
    )


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(0.7, 0, 1.0), (1.5, 3, 1.0), (1.0, 0, 0.6)])
def test_draws_have_the_distribution_that_was_asked_for(temperature, top_k, top_p):
    scores = torch.tensor([2.0, 1.5, 0.0, -torch.inf, 0.5, 0.7])
    rows, steps, found = 2_000, 10, torch.zeros(6)
    processors = Sampling(temperature, top_k, top_p).processors([str(row) for row in range(rows)])
    for _ in range(steps):
        noisy = scores.expand(rows, -1)
        for processor in processors:
            noisy = processor(None, noisy)
        found += torch.bincount(noisy.argmax(-1), minlength=6) / rows / steps
    expected = (scores / temperature).softmax(-1)
    order = expected.argsort(descending=True)
    kept = order[: top_k or 6] if top_p == 1 else order[: int((expected[order].cumsum(0) < top_p).sum()) + 1]
    expected = torch.zeros(6).index_put((kept,), expected[kept])
    torch.testing.assert_close(found, expected / expected.sum(), rtol=0, atol=0.015)


def test_noise_is_a_function_of_seed_name_and_step():
    scores = torch.zeros(2, 50)
    noise = OwnNoise(["a", "b"], 0)
    first, second = noise(None, scores), noise(None, scores)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    again = OwnNoise(["b", "a"], 0)
    assert torch.equal(again(None, scores).flip(0), first) and torch.equal(again(None, scores).flip(0), second)
    assert not torch.equal(OwnNoise(["a", "b"], 1)(None, scores), first)


@pytest.mark.parametrize("condition", ["speech speech", "speech text", "text speech", "text text"])
def test_a_batch_changes_no_draw(model, processor, condition):
    source, into = condition.split()
    together = drawn(model, processor, source, into)
    assert together == drawn(model, processor, source, into, batch_size=1)
    samples = [sample for row in together for sample in row]
    assert len(samples) == 6 and len(set(map(str, samples))) > 3
    for sample in samples:
        assert (sample.units is None) == (into == "text")
        assert into == "text" or (set(sample.units) <= set(range(12)) and not sample.text)
    assert together != drawn(model, processor, source, into, seed=1)


def test_cold_draws_are_the_likeliest_tokens(model, processor):
    found = drawn(model, processor, "speech", "text", top_k=1, samples=1, glue="start")
    for units, (sample,) in zip(SPOKEN, found, strict=True):
        sequence = [*processor.sequence([("speech", units)]), processor.token("<T_EN>")]
        words = [token for token in range(63) if token not in (0, 1)]  # neither padding nor the first token
        for _ in range(6):
            logits = model(torch.tensor([sequence])).logits[0, -1]
            sequence.append(words[int(logits[words].argmax())])
            if sequence[-1] == processor.eos_token_id:
                break
        said = [token for token in sequence[len(units) + 2 :] if token != processor.eos_token_id]
        expected = processor.tokenizer.decode(said)
        assert sample.text == f" {expected}" * bool(expected)
        assert sample.finished == (sequence[-1] == processor.eos_token_id)


@pytest.mark.parametrize(
    ("source", "prompt", "new", "text"),
    [
        ("text", "bring", ["Ġme"], " me"),
        ("text", "light", ["s", "Ġme"], "s me"),
        ("text", "bring", ["Ġme", "<con>", "Ġthe"], " me the"),  # a special token stands for no letter
        ("speech", [1, 2], ["Ġme"], " me"),
        ("speech", [1, 2], [], ""),
    ],
)
def test_text_goes_on_after_a_space_or_inside_a_word(monkeypatch, source, prompt, new, text):
    processor = joint_processor(train_tokenizer())
    answer = [(processor.tokenizer.convert_tokens_to_ids(new), True)]
    path = "speechzoo.evaluation.speech_text_continuations.continue_sequences"
    monkeypatch.setattr(path, lambda *_: answer)
    found = sample_continuations(None, processor, [prompt], source, "text", Sampling(samples=1), ["one"])
    assert found == [[Continuation(None, text, True)]]


def test_what_cannot_be_continued_is_refused(model, processor):
    with pytest.raises(ValueError, match="the prompt of 'b' has no speech"):
        sample_continuations(model, processor, [[1], []], "speech", "text", Sampling(), ["a", "b"])
    limit = tiny_models.CAUSAL["gpt2"]().n_positions
    if model.config.text_config.max_position_embeddings == limit:
        sequence = processor.sequence([("text", "turn on")])
        with pytest.raises(ValueError, match=r"4 tokens and 254 new ones are more than the 256 positions"):
            continue_sequences(model, processor, [sequence], "text", "speech", "switch", 254)
    with pytest.raises(ValueError, match="samples is 0"):
        Sampling(samples=0)
    with pytest.raises(ValueError, match="give a temperature above 0"):
        Sampling(temperature=0.0)
