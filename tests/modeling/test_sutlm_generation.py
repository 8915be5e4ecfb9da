"""The contract of SUTLM's `generate`, on bodies with learned and with rotary positions: whichever way the tokens are
computed, in a padded batch, from embeddings, a cache or a fixed cache, they are the same, and beams find the best."""

import pytest
import torch
from sutlm_cases import joint_model, joint_processor
from torch import nn
from transformers import pipeline

from speechzoo.modeling.modality_generation import StayInModality, continuation

PROMPTS = [
    [("speech", [3, 1, 4, 1, 5])],
    [("text", "turn on the")],
    [("text", "lights"), ("speech", [2, 7])],
]
GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}


@pytest.fixture(scope="module")
def processor():
    return joint_processor()


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, processor):
    return joint_model(request.param, processor)


@pytest.fixture(scope="module")
def batch(processor):
    """Padded on the left, the longest one too."""
    return processor(spans=PROMPTS, alternating=True, padding="max_length", max_length=10, return_tensors="pt")


@pytest.fixture(scope="module")
def greedy(model, batch):
    """What the other ways have to give: ids, and the logits [B, new, V] that they were chosen by."""
    found = model.generate(**batch, **GREEDY, return_dict_in_generate=True, output_logits=True)
    assert len(set(map(tuple, found.sequences[:, 10:].tolist()))) == 3
    return found.sequences[:, 10:], torch.stack(found.logits, 1)


def test_padding_changes_no_logit(model, processor, greedy):
    for number, prompt in enumerate(PROMPTS):
        row = torch.tensor([processor.sequence(prompt, alternating=True)])
        for place in range(5):  # nothing is padded and nothing cached
            logits = model(row, use_cache=False).logits[0, -1]
            torch.testing.assert_close(greedy[1][number, place], logits, rtol=1e-4, atol=1e-4)
            assert logits.argmax() == greedy[0][number, place]
            row = torch.cat([row, logits.argmax()[None, None]], 1)


@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"cache_implementation": "static", "disable_compile": True},
        {"prefill_chunk_size": 3},
        {"do_sample": True, "top_k": 1},
    ],
    ids=str,
)
def test_every_way_of_computing_gives_the_same_tokens(model, batch, greedy, options):
    assert model.generate(**batch, **GREEDY | options)[:, 10:].tolist() == greedy[0].tolist()


def test_looking_up_drafts_in_the_prompt_changes_nothing(model, processor, greedy):
    for number, prompt in enumerate(PROMPTS):
        row = torch.tensor([processor.sequence(prompt, alternating=True)])
        found = model.generate(row, **GREEDY, prompt_lookup_num_tokens=2)
        assert found[0, row.shape[1] :].tolist() == greedy[0][number].tolist()


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=str)
def test_embedded_prompts_go_on_like_tokens(model, batch, options):
    options = {**GREEDY, "disable_compile": True, **options}
    embedded = model.get_input_embeddings()(batch["input_ids"])
    found = model.generate(inputs_embeds=embedded, attention_mask=batch["attention_mask"], **options)
    assert found.tolist() == model.generate(**batch, **options)[:, 10:].tolist()


def test_fixed_caches_serve_beams(model, batch):
    options = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
    fixed = {"cache_implementation": "static", "disable_compile": True}
    assert model.generate(**batch, **options, **fixed).tolist() == model.generate(**batch, **options).tolist()


def test_a_later_call_goes_on_from_the_cache_of_an_earlier_one(model, processor, batch):
    first = model.generate(**batch, **GREEDY, return_dict_in_generate=True)
    signs = torch.tensor([[processor.token("<U2T>")], [processor.token("<T2U>")], [processor.token("<U2T>")]])
    longer = torch.cat([first.sequences, signs, batch["input_ids"][:, -2:]], 1)
    mask = nn.functional.pad(batch["attention_mask"], (0, 8), value=1)
    cache = first.past_key_values
    assert cache.get_seq_length() == 14, "the last token has not been read"
    read = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, arguments, keywords: read.append(keywords["inputs_embeds"].shape[1]), with_kwargs=True
    )
    found = model.generate(input_ids=longer, attention_mask=mask, past_key_values=cache, **GREEDY)
    hook.remove()
    assert read == [4, 1, 1, 1, 1], "what the cache holds is not read again"
    assert found.tolist() == model.generate(input_ids=longer, attention_mask=mask, **GREEDY).tolist()


def test_enough_beams_find_the_best_continuations(model, processor, batch):
    """Twelve beams hold every first unit, so that all pairs are compared."""
    stay = StayInModality(model.config, "speech", may_end=False)
    options = {"num_beams": 12, "num_return_sequences": 4, "length_penalty": 0.0, "logits_processor": [stay]}
    found = model.generate(**batch, **GREEDY | options | {"max_new_tokens": 2})[:, 10:].reshape(3, 4, 2)
    units = torch.tensor(processor.unit_token_range)
    for prompt, best in zip(PROMPTS, found.tolist(), strict=True):
        row = torch.tensor(processor.sequence(prompt, alternating=True))
        rows = torch.cat([row.expand(len(units), -1), units[:, None]], 1)
        chances = model(rows).logits[:, -2:].log_softmax(-1)[..., units].double()  # [first unit, place, unit]
        pairs = chances[0, 0][:, None] + chances[:, 1]
        order = pairs.flatten().argsort(descending=True)[:4].tolist()
        assert best == [[units[place // 12].item(), units[place % 12].item()] for place in order]


def test_rows_trained_apart_generate_like_those_in_the_tables(processor, batch):
    model = joint_model("llama", processor, trained_rows="units")
    nn.init.normal_(model.model.row_changes.weight)
    before = model.generate(**batch, **GREEDY, num_beams=2)
    model.fold_rows()
    assert model.generate(**batch, **GREEDY, num_beams=2).tolist() == before.tolist()


@pytest.mark.parametrize("beams", [1, 3])
def test_the_pipeline_reads_a_saved_folder(tmp_path, model, processor, beams):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    generate = pipeline("text-generation", model=str(tmp_path))
    sequences = [processor.sequence(prompt, alternating=True, continue_with="text") for prompt in PROMPTS]
    written = [processor.tokenizer.decode(sequence) for sequence in sequences]
    options = {"max_new_tokens": 5, "do_sample": False, "num_beams": beams}
    stay = [StayInModality(model.config, "text")]
    answers = generate(written, batch_size=3, return_tensors=True, logits_processor=stay, **options)
    for number, (answer,) in enumerate(answers):
        prompt = generate.tokenizer(written[number])["input_ids"]
        alone = model.generate(torch.tensor([prompt]), logits_processor=stay, **options)[0].tolist()
        said = [token for token in answer["generated_token_ids"] if token != 0]
        assert said == alone and len(said) > len(prompt)
        assert prompt[-len(sequences[number]) :] == sequences[number]


def test_speech_and_text_answer_each_other(model, processor):
    """One call after the other, in the modality that is asked for, each in a batch as alone."""
    rows = processor(units=[[3, 1, 4], [1, 5]], return_tensors="pt")
    given = continuation(model.config, rows["input_ids"], "speech", "text", attention_mask=rows["attention_mask"])
    together = model.generate(**given, **GREEDY)
    for number, units in enumerate(([3, 1, 4], [1, 5])):
        row = processor(units=units, return_tensors="pt")["input_ids"]
        alone = model.generate(**continuation(model.config, row, "speech", "text"), **GREEDY)[0].tolist()
        assert together[number].tolist()[-len(alone) :] == alone
        (said, heard), (kind, _) = processor.spans(alone)
        assert (said, heard, kind) == ("speech", units, "text")
