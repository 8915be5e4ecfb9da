"""A judge's surprise against one forward for every token, and which tokens of several tokenizers it scores."""

import math
from types import SimpleNamespace

import pytest
import tiny_models
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from speechzoo.evaluation.text_judge import TextJudge
from speechzoo.training.training_tiny_language_model import train_tokenizer

PROMPTS = ["the red cat", "she went", "the cat of the old man"]
CONTINUATIONS = [" sat on the old mat near the door", " home", " and the dog"]


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2's: bytes with the space before them, two merges, no first token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("Ġt", "h"), ("a", "t")]
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, "Ġt", "Ġth", "at", "<end>"])}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<end>", eos_token="<end>")


def marked() -> transformers.T5Tokenizer:
    """SentencePiece-like: Unigram over words with a mark where a space was, and an end token that is added behind."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [("▁the", -2.0), ("▁cat", -3.0), ("▁", -3.5), *((letter, -5.0) for letter in letters)]
    return transformers.T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces], extra_ids=3)


TOKENIZERS = {
    "learned": train_tokenizer,
    "byte-level": byte_level,
    "marked": marked,
    "words": lambda: tiny_models.tokenizer(words=list(dict.fromkeys(" ".join(PROMPTS + CONTINUATIONS).split()))),
}


def random_model(family: str, vocabulary: int):
    torch.manual_seed(0)
    config = tiny_models.CAUSAL[family]()
    config.vocab_size = vocabulary
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


@pytest.fixture(scope="module", params=TOKENIZERS)
def judge(request):
    tokenizer = TOKENIZERS[request.param]()
    family = "gpt2" if request.param == "byte-level" else "llama"
    return TextJudge(random_model(family, len(tokenizer)), tokenizer, batch_size=2)


def one_by_one(judge: TextJudge, prompt: str, continuation: str) -> tuple[float, int]:
    """The tokens that follow those of the prompt, each from a forward of what comes before it, in float64."""
    before, whole = (
        judge.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + continuation)
    )
    assert whole[: len(before)] == before
    given = judge.tokenizer(prompt)["input_ids"]
    front = given[: given.index(before[0])]  # what the tokenizer puts before a text
    nats = 0.0
    with torch.no_grad():
        for place in range(len(before), len(whole)):
            logits = judge.model(torch.tensor([front + whole[:place]])).logits[0, -1].double()
            nats -= logits.log_softmax(-1)[whole[place]].item()
    return nats, len(whole) - len(before)


def test_what_is_scored_are_the_tokens_after_the_prompt(judge):
    for prompt, continuation, found in zip(PROMPTS, CONTINUATIONS, judge.score(PROMPTS, CONTINUATIONS), strict=True):
        nats, tokens = one_by_one(judge, prompt, continuation)
        assert found.tokens == tokens > 0
        assert found.nats == pytest.approx(nats, rel=1e-5)


def test_batches_change_nothing_and_empty_ones_have_no_tokens(judge):
    prompts, continuations = [*PROMPTS, "the cat", "man"], [*CONTINUATIONS, "", " the"]
    together = judge.score(prompts, continuations)
    for prompt, continuation, found in zip(prompts, continuations, together, strict=True):
        (alone,) = judge.score([prompt], [continuation])
        assert found.tokens == alone.tokens and found.nats == pytest.approx(alone.nats, rel=1e-5)
    assert (together[3].nats, together[3].tokens) == (0, 0)


def test_a_token_that_reaches_back_into_the_prompt_is_scored_whole():
    """`m` + `at` is one token `at` behind `m`; `a` + `t` is one token that neither holds alone."""
    judge = TextJudge(random_model("gpt2", 260), byte_level())
    assert judge.score(["a cat a"], ["t me"])[0].tokens == 4  # at, space, m, e
    (first,) = judge.score(["a"], ["t"])  # nothing is before it but the start
    start, both = judge.tokenizer.bos_token_id, judge.tokenizer("at")["input_ids"]
    chance = judge.model(torch.tensor([[start]])).logits[0, -1].log_softmax(-1)[both[0]]
    assert first.tokens == len(both) == 1 and first.nats == pytest.approx(-chance.item(), rel=1e-5)


def test_a_sign_between_the_two_is_read_and_not_scored():
    model, tokenizer = random_model("gpt2", 260), byte_level()
    (found,) = TextJudge(model, tokenizer, sign="<end>").score(["the"], [" cat"])
    prompt, said = (tokenizer(text)["input_ids"] for text in ("the<end>", " cat"))
    assert prompt[-1] == tokenizer.eos_token_id
    chances = model(torch.tensor([prompt + said])).logits[0].log_softmax(-1)
    expected = -sum(chances[len(prompt) + place - 1, token].item() for place, token in enumerate(said))
    assert found.tokens == len(said) and found.nats == pytest.approx(expected, rel=1e-5)


def test_a_uniform_judge_is_surprised_by_every_token_alike():
    model = random_model("gpt2", 260)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    (found,) = TextJudge(model, byte_level()).score(["the"], [" cat"])
    assert found.nats / found.tokens == pytest.approx(math.log(260), rel=1e-6)


def test_what_cannot_be_judged_is_refused():
    judge = TextJudge(random_model("gpt2", 260), byte_level())
    with pytest.raises(ValueError, match="a prompt is empty before 'cat'"):
        judge.score([" "], [" cat"])
    with pytest.raises(ValueError, match="304 tokens and the judge has 256 positions"):
        judge.score(["xyz "], ["x" * 300])
    with pytest.raises(ValueError, match="does not tell where its tokens lie"):
        TextJudge(judge.model, SimpleNamespace(is_fast=False))
