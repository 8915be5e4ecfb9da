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


PROMPTS = (11, 2, 1, 11, 2, 11)


@pytest.mark.parametrize("share_caches", [True, False])
def test_scores_are_those_of_each_sequence_alone(model, share_caches):
    prompts, continuations = tokens(*PROMPTS, seed=1), tokens(*LENGTHS, seed=2)
    expected = np.array([[alone(model, prompt, one) for prompt in prompts] for one in continuations])
    assert np.abs(np.diff(expected, axis=1)).min() > 1e-3  # the prompt matters everywhere
    for rows in (3, 16):  # a prompt in several forwards, and several prompts in one
        scores = continuation_scores(model, prompts, continuations, share_caches=share_caches, rows=rows)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("share_caches", [True, False])
def test_only_what_is_needed_is_scored(share_caches):
    model, prompts, continuations = sutlm("llama"), tokens(*PROMPTS, seed=1), tokens(*LENGTHS, seed=2)
    needed = [[0, 3, 6], [5], [], [6, 1], [2, 4], [0, 1, 2, 3, 4, 5, 6]]
    every = continuation_scores(model, prompts, continuations)
    scores = continuation_scores(model, prompts, continuations, needed, share_caches=share_caches, rows=5)
    assert [np.flatnonzero(~np.isnan(column)).tolist() for column in scores.T] == [sorted(one) for one in needed]
    np.testing.assert_allclose(scores, np.where(np.isnan(scores), np.nan, every), rtol=0, atol=1e-5)


def shapes_read(model, prompts, **options) -> list[tuple[int, ...]]:
    """The shapes of what the body reads."""
    read = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    continuation_scores(model, prompts, tokens(*LENGTHS, seed=2), **options)
    hook.remove()
    return read


def test_a_prompt_is_read_once(model):
    recurrent = model.config.text_config.model_type == "qwen3_next"
    shared, whole = [(1, 11), (3, 1), (3, 4), (1, 8)], [(3, 12), (3, 15), (1, 19)]
    prompt = tokens(11, seed=1)
    assert shapes_read(model, prompt, rows=3) == (whole if recurrent else shared)
    assert shapes_read(model, prompt, rows=3, share_caches=False) == whole


def test_prompts_of_one_length_are_read_together():
    model, prompts = sutlm("llama"), tokens(11, 5, 11, 11, 5, seed=1)
    assert shapes_read(model, prompts, rows=14) == [(2, 5), (14, 8), (2, 11), (14, 8), (1, 11), (7, 8)]
    assert shapes_read(model, prompts, rows=21, share_caches=False) == [(14, 13), (21, 19)]
    assert shapes_read(model, tokens(600, 600, seed=1)) == [(1, 600), (7, 8), (1, 600), (7, 8)]


def test_other_precisions_are_summed_in_float64():
    model = sutlm("llama").bfloat16()
    scores = continuation_scores(model, tokens(5), tokens(4, 6))
    assert scores.dtype == np.float64 and (scores < 0).all()


def test_a_model_in_training_is_scored_without_dropout():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=tiny_models.VOCABULARY, n_embd=32, n_layer=2, n_head=4)
    model = SUTLMForCausalLM(SUTLMConfig(text_config=config)).train()
    first, second = (continuation_scores(model, tokens(5), tokens(4, 6)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_nothing_to_score_and_no_number_are_errors():
    model = sutlm("llama")
    with pytest.raises(ValueError, match=r"a prompt or a continuation has no tokens"):
        continuation_scores(model, [[]], [[5]])
    with pytest.raises(ValueError, match=r"a prompt or a continuation has no tokens"):
        continuation_scores(model, [[5]], [[5], []])
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"a score that is no number"):
        continuation_scores(model, [[5]], [[5, 6]])
