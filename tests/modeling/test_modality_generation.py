"""Generation that keeps to a modality: alone, in batches, with beams, from embeddings and in the pipeline."""

import pytest
import tiny_models
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, pipeline

from speechzoo import SUTLMConfig, SUTLMForCausalLM
from speechzoo.modeling.modality_generation import (
    CONTROL,
    SPEECH,
    TEXT,
    StayInModality,
    SwitchOnToken,
    continuation,
    token_kinds,
)

START, COUNT, END, PADDING, BEGIN = 40, 20, 2, 0, 1
SIGNS = {
    "unit_start_token_id": 4,
    "text_start_token_id": 5,
    "unit_to_text_token_id": 6,
    "text_to_unit_token_id": 7,
}
UNITS = set(range(START, START + COUNT))
WORDS = set(range(tiny_models.VOCABULARY)) - UNITS - {END, PADDING, BEGIN, *SIGNS.values()}
PROMPTS = torch.tensor([[0, 0, 4, 41, 42], [4, 45, 50, 44, 59], [0, 0, 0, 4, 48]])
MASK = (PROMPTS != PADDING).long()
OPTIONS = [{"num_beams": 1}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 4}]


def config(**fields) -> SUTLMConfig:
    special = {"eos_token_id": END, "pad_token_id": PADDING, "bos_token_id": BEGIN}
    vocabulary = {"unit_token_start": START, "unit_token_count": COUNT, **special, **SIGNS, **fields}
    return SUTLMConfig(text_config=transformers.LlamaConfig(**tiny_models.DECODER), **vocabulary)


@pytest.fixture(scope="module")
def model() -> SUTLMForCausalLM:
    torch.manual_seed(0)
    model = SUTLMForCausalLM(config()).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # so that its choices are not all the same
    return model


def generated(model, options, processor=None, **inputs) -> list[list[int]]:
    torch.manual_seed(1)
    inputs = inputs or {"input_ids": PROMPTS, "attention_mask": MASK, "logits_processor": [processor]}
    given = {"max_new_tokens": 8, "do_sample": False, **options}
    prompt = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    return model.generate(**inputs, **given)[:, prompt:].tolist()


def before_the_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(END)] if END in tokens else tokens


def test_every_token_has_a_kind():
    kinds = token_kinds(config(), torch.arange(tiny_models.VOCABULARY)).tolist()
    assert {token for token, kind in enumerate(kinds) if kind == SPEECH} == UNITS
    assert {token for token, kind in enumerate(kinds) if kind == CONTROL} == {END, *SIGNS.values()}
    assert {token for token, kind in enumerate(kinds) if kind == TEXT} == WORDS | {PADDING, BEGIN}
    several = config(eos_token_id=[2, 9])
    assert token_kinds(several, torch.tensor([[9, 45], [8, 2]])).tolist() == [[CONTROL, SPEECH], [TEXT, CONTROL]]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("modality", "allowed"), [("speech", UNITS), ("text", WORDS)])
def test_generation_stays_in_a_modality(model, modality, allowed, options):
    free = generated(model, options, transformers.MinLengthLogitsProcessor(0, END))
    assert any(set(before_the_end(row)) - allowed for row in free)
    for row in generated(model, options, StayInModality(model.config, modality)):
        assert set(before_the_end(row)) <= allowed
    for row in generated(model, options, StayInModality(model.config, modality, may_end=False)):
        assert set(row) <= allowed and len(row) == 8


def test_what_is_allowed_keeps_its_scores():
    scores = torch.randn(3, tiny_models.VOCABULARY + 2)  # a table may have rows to spare
    kept = StayInModality(config(), "speech")(PROMPTS, scores)
    allowed = [*sorted(UNITS), END]
    assert torch.equal(kept[:, allowed], scores[:, allowed])
    assert kept.isfinite().sum() == 3 * len(allowed)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("modality", "token", "first", "then"),
    [("speech", None, UNITS, WORDS), ("text", None, WORDS, UNITS), ("speech", 5, UNITS, WORDS)],
)
def test_generation_switches_on_a_token_and_stays(model, modality, token, first, then, options):
    processor = SwitchOnToken(model.config, modality, prompt_length=5, token=token, latest=4)
    switch = token or (SIGNS["unit_to_text_token_id"] if modality == "speech" else SIGNS["text_to_unit_token_id"])
    places = set()
    for row in generated(model, options, processor):
        place = row.index(switch)
        places.add(place)
        assert place <= 4 and set(row[:place]) <= first
        assert set(before_the_end(row[place + 1 :])) <= then
        assert row.count(switch) == 1
    assert places  # every row has one, for it is forced


def test_each_row_switches_for_itself():
    """Also where a prompt holds the token: only what is new counts."""
    switch, scores = SIGNS["unit_to_text_token_id"], torch.zeros(3, tiny_models.VOCABULARY)
    rows = torch.tensor([[switch, 41, 42, 43], [4, 41, switch, 43], [4, 41, 42, switch]])
    processor = SwitchOnToken(config(), "speech", prompt_length=2)
    allowed = [set(row.nonzero()[:, 0].tolist()) for row in processor(rows, scores).isfinite()]
    assert allowed == [UNITS | {switch}, WORDS | {END}, WORDS | {END}]
    forced = SwitchOnToken(config(), "speech", prompt_length=2, latest=2)(rows, scores).isfinite()
    assert forced[0].nonzero()[:, 0].tolist() == [switch] and set(forced[1].nonzero()[:, 0].tolist()) == WORDS | {END}


def test_embedded_prompts_switch_too(model):
    embedded = model.get_input_embeddings()(PROMPTS)
    processor = SwitchOnToken(model.config, "speech", prompt_length=0, latest=4)
    (row, *_) = generated(model, {}, inputs_embeds=embedded, attention_mask=MASK, logits_processor=[processor])
    place = row.index(SIGNS["unit_to_text_token_id"])
    assert set(row[:place]) <= UNITS and set(before_the_end(row[place + 1 :])) <= WORDS


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
@pytest.mark.parametrize(
    ("into", "glue", "token", "allowed"),
    [
        ("text", "switch", SIGNS["unit_to_text_token_id"], WORDS),
        ("text", "start", SIGNS["text_start_token_id"], WORDS),
        ("speech", "switch", None, UNITS),
    ],
)
def test_speech_goes_on_in_either_modality(model, into, glue, token, allowed, options):
    given = continuation(model.config, PROMPTS, "speech", into, glue, MASK)
    assert given["input_ids"][:, :5].equal(PROMPTS) and given["attention_mask"][:, :5].equal(MASK)
    assert given["input_ids"][:, 5:].tolist() == ([[token]] * 3 if token else [[], [], []])
    together = generated(model, options, **given)
    for number, row in enumerate(together[:2]):
        assert set(before_the_end(row)) <= allowed
        prompt = PROMPTS[number][MASK[number].bool()][None]
        (alone,) = generated(model, options, **continuation(model.config, prompt, "speech", into, glue))
        assert before_the_end(row) == before_the_end(alone)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no modality 'units'"):
        StayInModality(config(), "units")
    with pytest.raises(ValueError, match="no tokens of speech"):
        StayInModality(config(unit_token_count=0), "speech")
    with pytest.raises(ValueError, match="has no unit_to_text_token_id"):
        SwitchOnToken(config(unit_to_text_token_id=None), "speech", prompt_length=0)
    with pytest.raises(ValueError, match="pad prompts on the left"):
        continuation(config(), PROMPTS, "speech", "text", attention_mask=MASK.flip(-1))
    with pytest.raises(ValueError, match="choose switch or start"):
        continuation(config(), PROMPTS, "speech", "text", glue="nothing")


def test_the_pipeline_generates_text(model):
    vocabulary = {f"w{number}": number for number in range(tiny_models.VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "w0", "bos_token": "w1", "eos_token": "w2", "unk_token": "w3"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special)
    generate = pipeline("text-generation", model=model, tokenizer=fast)
    options = {"logits_processor": [StayInModality(model.config, "text")], "return_full_text": False}
    prompts = ["w4 w41 w42 w6", "w4 w45 w50 w44 w59 w6"]
    answers = generate(prompts, batch_size=2, max_new_tokens=6, do_sample=False, **options)
    for prompt, (answer,) in zip(prompts, answers, strict=True):
        assert answer["generated_text"] and {int(word[1:]) for word in answer["generated_text"].split()} <= WORDS
        ids = torch.tensor([[int(word[1:]) for word in prompt.split()]])
        processor = StayInModality(model.config, "text")
        (alone,) = generated(model, {"max_new_tokens": 6}, input_ids=ids, logits_processor=[processor])
        assert answer["generated_text"].split() == [f"w{token}" for token in before_the_end(alone)]
