"""Scores by shared caches are those of reading each prompt and continuation alone, and the prompt is read once."""

import numpy as np
import pytest
import tiny_models
import torch
import transformers

from speechzoo import SUTLMConfig, SUTLMForCausalLM
from speechzoo.evaluation.continuation_scores import continuation_scores

HYBRID = {
    **tiny_models.DECODER,
    "num_hidden_layers": 4,  # the last one is attention
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
FAMILIES = {
    **{name: tiny_models.CAUSAL[name] for name in ("llama", "gpt2", "opt")},
    "alibi": lambda: transformers.BloomConfig(vocab_size=tiny_models.VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    "sliding": lambda: transformers.MistralConfig(sliding_window=4, **tiny_models.DECODER),
    "sliding and full": lambda: transformers.Gemma3TextConfig(
        sliding_window=4, layer_types=["sliding_attention", "full_attention"], **tiny_models.DECODER
    ),
    "recurrent": lambda: transformers.Qwen3NextConfig(**HYBRID),
}
LENGTHS = (3, 1, 9, 2, 5, 3, 1)


def sutlm(family: str) -> SUTLMForCausalLM:
    """Weights are scaled up, so that what a token attends to shows."""
    torch.manual_seed(0)
    model = SUTLMForCausalLM(SUTLMConfig(text_config=FAMILIES[family]()))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model.eval()


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return sutlm(request.param)


def tokens(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(tiny_models.VOCABULARY, size=length).tolist() for length in lengths]


@torch.no_grad()
def alone(model, prompt: list[int], continuation: list[int]) -> float:
    """One sequence in a forward of its own, softmax and sum in float64."""
    logits = model(torch.tensor([prompt + continuation]), use_cache=False).logits[0].double()
    log_probabilities = logits.log_softmax(-1)
    return sum(
        log_probabilities[place - 1, token].item() for place, token in enumerate(continuation, start=len(prompt))
    )


@pytest.mark.parametrize("share_caches", [True, False])
def test_scores_are_those_of_each_sequence_alone(model, share_caches):
    prompts, continuations = tokens(11, 2, 1, seed=1), tokens(*LENGTHS, seed=2)
    scores = np.array(
        [continuation_scores(model, prompt, continuations, share_caches=share_caches, rows=3) for prompt in prompts]
    )
    expected = np.array([[alone(model, prompt, one) for one in continuations] for prompt in prompts])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
    assert np.abs(expected - expected[0])[1:].min() > 1e-3  # the prompt matters everywhere


def shapes_read(model, **options) -> list[tuple[int, ...]]:
    """The shapes of what the body reads."""
    read = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    continuation_scores(model, *tokens(11, seed=1), tokens(*LENGTHS, seed=2), **options)
    hook.remove()
    return read


def test_the_prompt_is_read_once(model):
    recurrent = model.config.text_config.model_type == "qwen3_next"
    shared, whole = [(1, 11), (3, 1), (3, 4), (1, 8)], [(3, 12), (3, 15), (1, 19)]
    assert shapes_read(model, rows=3) == (whole if recurrent else shared)
    assert shapes_read(model, rows=3, share_caches=False) == whole
    assert len(shapes_read(model)) == (1 if recurrent else 2)


def test_other_precisions_are_summed_in_float64():
    model = sutlm("llama").bfloat16()
    scores = continuation_scores(model, *tokens(5), tokens(4, 6))
    assert scores.dtype == np.float64 and (scores < 0).all()


def test_a_model_in_training_is_scored_without_dropout():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=tiny_models.VOCABULARY, n_embd=32, n_layer=2, n_head=4)
    model = SUTLMForCausalLM(SUTLMConfig(text_config=config)).train()
    first, second = (continuation_scores(model, *tokens(5), tokens(4, 6)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_nothing_to_score_and_no_number_are_errors():
    model = sutlm("llama")
    with pytest.raises(ValueError, match=r"a prompt or a continuation has no tokens"):
        continuation_scores(model, [], [[5]])
    with pytest.raises(ValueError, match=r"a prompt or a continuation has no tokens"):
        continuation_scores(model, [5], [[5], []])
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"a score that is no number"):
        continuation_scores(model, [5], [[5, 6]])
