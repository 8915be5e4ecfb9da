"""Context retrieval: the definitions against brute force, candidates, tokens, and the whole against plain forwards."""

import math
import random

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from speechzoo import SUTLMConfig, SUTLMForCausalLM, SUTLMProcessor
from speechzoo.evaluation import context_retrieval as module
from speechzoo.evaluation.context_retrieval import (
    CONTEXT,
    CONTINUATION,
    CORRECTED,
    PER_TOKEN,
    RetrievalSettings,
    check_continuations,
    context_credits,
    context_retrieval,
    continuation_credits,
    continuation_tokens,
    continuation_values,
    following_text_tokens,
    retrieval_measurements,
)
from speechzoo.evaluation.prompted_pairs import CONDITIONS, PromptedPair
from speechzoo.evaluation.retrieval_candidates import draw_candidates
from speechzoo.processing.speech_units import deduplicate
from speechzoo.processing.unit_text import UnitSegmenter

UNITS = 12


@pytest.fixture(scope="module")
def processor():
    """Pieces of one and more units over a vocabulary of words."""
    rng = random.Random(0)
    corpus = [[rng.choice((1, 2, 3)) * 3 - rng.choice((0, 1, 2)) for _ in range(40)] for _ in range(50)]
    return SUTLMProcessor(tiny_models.tokenizer(), UnitSegmenter.train(corpus, UNITS, pieces=30))


def sutlm(processor, family: str) -> SUTLMForCausalLM:
    """Weights are scaled up, so that what a token attends to shows."""
    torch.manual_seed(0)
    size = {"vocab_size": processor.vocab_size}
    text_config = (
        transformers.LlamaConfig(**{**tiny_models.DECODER, **size})
        if family == "llama"
        else transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, **size)
    )
    model = SUTLMForCausalLM(SUTLMConfig(text_config=text_config, **processor.config_fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


def part(rng: random.Random) -> dict:
    frames = [rng.randrange(UNITS) for _ in range(rng.randint(3, 12))]
    return {
        "speech": deduplicate(frames).units,
        "text": " ".join(rng.choices(tiny_models.WORDS, k=rng.randint(2, 6))),
    }


def some_pairs(count: int, seed: int = 0) -> list[PromptedPair]:
    rng = random.Random(seed)
    return [PromptedPair(f"clip{number}", part(rng), part(rng)) for number in range(count)]


def texts(*parts: tuple[str, str]) -> list[PromptedPair]:
    """Pairs of which only the texts matter."""
    return [
        PromptedPair(f"clip{number}", {"speech": [1], "text": prompt}, {"speech": [2], "text": continuation})
        for number, (prompt, continuation) in enumerate(parts)
    ]


# ---- definitions ---------------------------------------------------------------------------------------------------

# log P of continuation (row) after prompt (column). The third continuation is the likeliest after any prompt.
SCORES = np.array([[-10.0, -12.0, -11.0], [-20.0, -18.0, -17.0], [-5.0, -6.0, -5.0]])
LENGTHS = np.array([5.0, 10.0, 1.0])
ALONE = np.array([-13.0, -21.0, -4.5])
EVERYONE = [[0, 1, 2], [1, 2, 0], [2, 0, 1]]


def test_both_definitions_on_scores_made_by_hand():
    values = continuation_values(SCORES, LENGTHS, ALONE)
    assert context_credits(SCORES, EVERYONE) == [1, 0, 0.5]  # of the last continuation two prompts are as good
    assert continuation_credits(values[CONTINUATION], EVERYONE) == [0, 0, 1]
    # Per token: columns -2, -2, -5; -2.4, -1.8, -6; -2.2, -1.7, -5
    assert continuation_credits(values[PER_TOKEN], EVERYONE) == [0.5, 1, 0]
    # Corrected: columns 3, 1, -0.5; 1, 3, -1.5; 2, 4, -0.5
    assert continuation_credits(values[CORRECTED], EVERYONE) == [1, 1, 0]


def test_only_candidates_are_compared():
    assert context_credits(SCORES, [[0, 1], [1, 0], [2, 1]]) == [1, 1, 1]
    assert continuation_credits(SCORES, [[0, 1], [1, 0], [2, 1]]) == [1, 0, 1]


def test_definitions_equal_brute_force():
    """argmax over prompts of S[i, j], and over continuations of R[i, j], one at a time in plain Python."""
    rng = np.random.default_rng(0)
    pairs, size = some_pairs(30), 30
    scores, lengths = rng.normal(-40, 8, (size, size)), rng.integers(2, 20, size).astype(float)
    alone = rng.normal(-45, 8, size)
    scores[np.diag_indices(size)] += 9
    candidates = draw_candidates(pairs, 6, seed=1)
    context, plain, per_token, corrected = [], [], [], []
    for i in range(size):
        context.append(float(max(candidates.contexts[i], key=lambda j: scores[i, j]) == i))
        chosen = candidates.continuations[i]
        plain.append(float(max(chosen, key=lambda j: scores[j, i]) == i))
        per_token.append(float(max(chosen, key=lambda j: scores[j, i] / lengths[j]) == i))
        corrected.append(float(max(chosen, key=lambda j: scores[j, i] - alone[j]) == i))
    values = continuation_values(scores, lengths, alone)
    assert context_credits(scores, candidates.contexts) == context
    assert continuation_credits(values[CONTINUATION], candidates.continuations) == plain
    assert continuation_credits(values[PER_TOKEN], candidates.continuations) == per_token
    assert continuation_credits(values[CORRECTED], candidates.continuations) == corrected
    assert len({sum(found) for found in (context, plain, per_token, corrected)}) > 2
    assert all(0 < sum(found) < size for found in (context, plain, per_token, corrected))


# ---- candidates ----------------------------------------------------------------------------------------------------


def test_every_prompt_and_continuation_is_a_candidate_equally_often():
    candidates = draw_candidates(some_pairs(25), 10, seed=3)
    for side in (candidates.contexts, candidates.continuations):
        assert [numbers[0] for numbers in side] == list(range(25))
        assert all(len(set(numbers)) == 10 for numbers in side)
        assert {sum(numbers.count(one) for numbers in side) for one in range(25)} == {10}
    needed = candidates.of_prompts()
    assert all(len(numbers) == 10 for numbers in needed)  # both definitions read the same scores
    cells = {(c, p) for c, prompts in enumerate(candidates.contexts) for p in prompts}
    cells |= {(c, p) for p, continuations in enumerate(candidates.continuations) for c in continuations}
    assert cells == {(c, p) for p, continuations in enumerate(needed) for c in continuations}


def test_candidates_depend_on_the_seed_alone():
    pairs = some_pairs(25)
    assert draw_candidates(pairs, 5, seed=1) == draw_candidates(pairs, 5, seed=1)
    assert draw_candidates(pairs, 5, seed=1) != draw_candidates(pairs, 5, seed=2)
    everyone = draw_candidates(pairs, None, seed=1)
    assert all(sorted(numbers) == list(range(25)) for numbers in everyone.contexts + everyone.continuations)


def test_no_two_candidates_read_the_same():
    rng = random.Random(0)
    pairs = texts(*((rng.choice("abcdef"), rng.choice("uvwxyz")) for _ in range(40)))
    candidates = draw_candidates(pairs, 3, seed=0)
    for numbers in candidates.contexts + candidates.continuations:
        assert len({pairs[number].prompt["text"] for number in numbers}) == 3
        assert len({pairs[number].continuation["text"] for number in numbers}) == 3
    needed = candidates.of_prompts()
    for own in range(40):
        assert set(candidates.continuations[own]) <= set(needed[own])
        assert all(own in needed[prompt] for prompt in candidates.contexts[own])


def test_too_few_candidates_are_an_error():
    pairs = texts(("a", "x"), ("a", "y"), ("b", "y"), ("c", "z"))
    with pytest.raises(ValueError, match=r"'clip\d' makes [23] candidates with the pairs that read otherwise, and 4"):
        draw_candidates(pairs, 4, seed=0)
    with pytest.raises(ValueError, match=r"'clip[01]' makes 1 candidates with the pairs .*, and 2 were asked for"):
        draw_candidates(pairs[:2], None, seed=0)
    with pytest.raises(ValueError, match=r"1 pairs leave nothing to choose from"):
        draw_candidates(pairs[:1], None, seed=0)
    with pytest.raises(ValueError, match=r"1 candidates leave nothing to choose"):
        RetrievalSettings(candidates=1)
    with pytest.raises(ValueError, match=r"there is no glue 'none'; choose switch or start"):
        RetrievalSettings(glue="none")


# ---- tokens --------------------------------------------------------------------------------------------------------


def test_a_unit_that_lasts_over_the_cut_is_said_once_in_speech_alone(processor):
    pair = PromptedPair("clip", {"speech": [4, 5], "text": "turn on"}, {"speech": [5, 6, 7], "text": "the lights"})
    assert continuation_tokens(processor, pair, "u2u", end=False) == processor.unit_tokens([6, 7])
    assert continuation_tokens(processor, pair, "t2u", end=False) == processor.unit_tokens([5, 6, 7])
    assert continuation_tokens(processor, pair, "u2t", end=True) == [*processor.text_tokens("the lights"), 2]
    short = PromptedPair("clip", {"speech": [4, 5], "text": "turn"}, {"speech": [5], "text": "on"})
    with pytest.raises(ValueError, match=r"'clip' has nothing of its own in u2u; leave the pair out"):
        continuation_tokens(processor, short, "u2u", end=False)
    with pytest.raises(ValueError, match=r"there is no condition 'u2v'; choose u2u, u2t, t2u, t2t"):
        continuation_tokens(processor, short, "u2v", end=False)


def test_what_nothing_can_be_scored_of_is_told_beforehand(processor):
    whole = PromptedPair("whole", {"speech": [4, 5], "text": "turn"}, {"speech": [5, 6], "text": "on"})
    still = PromptedPair("still", {"speech": [4, 5], "text": "turn"}, {"speech": [5], "text": "on"})
    check_continuations(processor, [whole])
    with pytest.raises(ValueError, match=r"'still' has nothing of its own in u2u"):
        check_continuations(processor, [whole, still])


def byte_level() -> transformers.PreTrainedTokenizerFast:
    """As GPT-2's: a space belongs to the word behind it, and none is added before the first."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "on", "Ġon"])}
    backend = Tokenizer(models.BPE(vocabulary, [("o", "n"), ("Ġ", "on")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def test_text_goes_on_as_if_it_had_been_written_in_one():
    joint = SUTLMProcessor(byte_level(), UnitSegmenter.raw(UNITS))
    [space_on] = joint.tokenizer.convert_tokens_to_ids(["Ġon"])
    pair = PromptedPair("clip", {"speech": [1], "text": "turn"}, {"speech": [2], "text": "on"})
    assert continuation_tokens(joint, pair, "t2t", end=False) == [space_on]
    assert [*joint.text_tokens("turn"), space_on] == joint.text_tokens("turn on")
    assert continuation_tokens(joint, pair, "u2t", end=False) == joint.text_tokens("on") != [space_on]


def test_text_that_a_tokenizer_joins_to_its_prompt_goes_on_for_itself(processor, monkeypatch):
    """Here "turn on" is one token, so that what follows "turn" cannot be cut out of it."""
    joined = {"turn": [10], "turn on": [12], "on": [11]}
    monkeypatch.setattr(processor, "text_tokens", joined.__getitem__)
    assert following_text_tokens(processor, "turn", "on") == [11]


@pytest.mark.parametrize("glue", ["switch", "start"])
@pytest.mark.parametrize("score_end", [False, True])
def test_what_a_model_reads(processor, monkeypatch, glue, score_end):
    """Written out for one pair; the unit pieces are those of the segmenter, the words those of the tokenizer."""
    pairs = some_pairs(3)
    asked = []

    def scores(model, prompts, continuations, needed=None, **options):
        asked.append((prompts, continuations))
        return np.arange(len(continuations))[:, None] - np.arange(len(prompts))

    monkeypatch.setattr(module, "continuation_scores", scores)
    context_retrieval(None, processor, pairs, RetrievalSettings(3, glue=glue, score_end=score_end), ["u2t", "t2u"])
    (speech, texts), (text_start, again), (text, units), (unit_start, _) = asked
    sign, end = processor.token, [processor.eos_token_id] if score_end else []
    into_text, into_units = ("<U2T>", "<T2U>") if glue == "switch" else ("<T_EN>", "<U_EN>")
    for number, pair in enumerate(pairs):
        before, after = pair.prompt, pair.continuation
        assert speech[number] == [sign("<U_EN>"), *processor.unit_tokens(before["speech"]), sign(into_text)]
        assert text[number] == [sign("<T_EN>"), *processor.text_tokens(before["text"]), sign(into_units)]
        assert texts[number] == again[number] == [*processor.text_tokens(after["text"]), *end]
        assert units[number] == [*processor.unit_tokens(after["speech"]), *end]
    assert text_start == [[sign("<T_EN>")]] and unit_start == [[sign("<U_EN>")]]


# ---- the whole -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def log_probability(model, before: list[int], after: list[int]) -> float:
    logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1].double()
    return logits.log_softmax(-1).gather(1, torch.tensor(after)[:, None]).sum().item()


def by_hand(model, processor, pairs, condition) -> dict[str, list[bool]]:
    """Each score by a forward of its own, all pairs as candidates."""
    source, into = CONDITIONS[condition]
    start = {"speech": processor.token("<U_EN>"), "text": processor.token("<T_EN>")}
    glue = {"u2t": [processor.token("<U2T>")], "t2u": [processor.token("<T2U>")]}.get(condition, [])
    content = {"speech": processor.unit_tokens, "text": processor.text_tokens}
    afters = [continuation_tokens(processor, pair, condition, end=False) for pair in pairs]
    found = {metric: [] for metric in (CONTEXT, CONTINUATION, PER_TOKEN, CORRECTED)}
    befores = [[start[source], *content[source](pair.prompt[source]), *glue] for pair in pairs]
    scores = [[log_probability(model, before, after) for before in befores] for after in afters]
    alone = [log_probability(model, [start[into]], after) for after in afters]
    everyone = range(len(pairs))
    for i in everyone:
        found[CONTEXT].append(max(everyone, key=lambda j: scores[i][j]) == i)
        found[CONTINUATION].append(max(everyone, key=lambda j: scores[j][i]) == i)
        found[PER_TOKEN].append(max(everyone, key=lambda j: scores[j][i] / len(afters[j])) == i)
        found[CORRECTED].append(max(everyone, key=lambda j: scores[j][i] - alone[j]) == i)
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_retrieval_equals_scores_one_by_one(processor, family):
    model, pairs = sutlm(processor, family), some_pairs(6, seed=4)
    shared = context_retrieval(model, processor, pairs, RetrievalSettings(6, rows=4))
    whole = context_retrieval(model, processor, pairs, RetrievalSettings(None, share_caches=False))
    assert [(one.condition, one.metric, one.credits) for one in shared] == [
        (condition, metric, credits)
        for condition in CONDITIONS
        for metric, credits in by_hand(model, processor, pairs, condition).items()
    ]
    assert [one.credits for one in whole] == [one.credits for one in shared]
    assert len({tuple(one.credits) for one in shared}) > 4  # the definitions and conditions differ


def test_a_model_that_ignores_everything_is_at_chance(processor):
    """Its scores tie exactly, which counts for it no more than a guess."""
    model, pairs = sutlm(processor, "llama"), some_pairs(8)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    results = context_retrieval(model, processor, pairs, RetrievalSettings(4))
    for one in results:
        if one.metric == CONTEXT:
            assert math.isclose(one.accuracy, 0.25) and one.chance == 0.25 and one.ties == 8


def test_a_measurement_says_n_chance_and_how_it_was_measured():
    settings = RetrievalSettings(4, glue="start")
    credits = [1.0] * 30 + [0.0] * 9 + [0.5]
    result = module.Retrieval("u2t", CONTEXT, credits, [4] * 40, settings)
    [row] = retrieval_measurements([result], dataset="stories", split="test")
    assert (row.name, row.metric, row.dataset, row.split) == ("u2t", "context retrieval", "stories", "test")
    assert row.value == 30.5 / 40 and row.low < row.value < row.high
    assert (row.chance, row.items, row.resampled) == (0.25, 40, "items")
    assert row.note == "N = 4; glue: start; the end token is not scored; a tie of m counts 1 / m; ties: 1"
    several = module.Retrieval("u2t", CONTEXT, [1.0, 0.0], [2, 4], RetrievalSettings(None))
    assert several.chance == 0.375 and retrieval_measurements([several])[0].note.startswith("N = all")
