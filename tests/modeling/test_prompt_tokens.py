"""New words of prompts: what is trained of them, what is saved, and that the rest of the LLM stays."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from speech_text_cases import ANSWERS, CLIPS
from transformers import AutoModelForMultimodalLM, AutoProcessor

from speechzoo import SealProjectorForConditionalGeneration, SpeechTextAdapterForConditionalGeneration

WORDS = ["<intent>", "<slots>", "<noise>"]
PROMPTS = {"intent": "<intent> {audio}", "slots": "{audio} <slots>"}
LORA = [r"language_model\..*\.(q_proj|v_proj)"]


def built(backbones, family="llama", system=SpeechTextAdapterForConditionalGeneration, **fields):
    return backbones.build("wav2vec2", family, PROMPTS, system, new_tokens=WORDS, **fields)


def batch(processor):
    prompts = [processor.prompt(task) for task in ("intent", "slots", "intent")]
    return processor(prompts, CLIPS[:3], targets=ANSWERS[:3], return_tensors="pt")


@torch.no_grad()
def logits(model, processor):
    return model.eval()(**batch(processor), return_logits=True).logits


def test_each_new_word_is_one_token_outside_the_table_or_in_it(backbones):
    model, processor = built(backbones)
    ids, size = model.config.new_token_ids, len(model.get_input_embeddings().weight)
    assert ids == processor.tokenizer.convert_tokens_to_ids(WORDS) and len({*ids, processor.audio_token_id}) == 4
    assert ids[0] < size <= ids[1], "the table of the tests leaves room for one"
    assert processor.tokenizer("<intent> <slots>", add_special_tokens=False)["input_ids"] == ids[:2]


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma3", "t5"])
def test_rows_stand_where_the_words_do(backbones, family):
    model, processor = built(backbones, family)
    given = batch(processor)
    input_ids = given["input_ids"]
    merged = model.model.merge(input_ids, None, **{name: given[name] for name in given if name.startswith("input_f")})
    table, rows = model.get_input_embeddings(), model.model.prompt_tokens.weight
    seen = 0
    for row in range(len(input_ids)):
        for place, token in enumerate(input_ids[row].tolist()):
            if token in model.config.new_token_ids:
                expected, seen = rows[model.config.new_token_ids.index(token)], seen + 1
            elif token == processor.audio_token_id:
                continue
            else:
                expected = table(torch.tensor([token]))[0]
            assert torch.equal(merged[row, place], expected)
    assert seen == 3


def test_adapter_lora_and_new_rows_are_one_checkpoint(backbones, tmp_path):
    model, processor = built(backbones, lora_modules=LORA)
    torch.nn.init.normal_(next(m for m in model.modules() if isinstance(m, LoraLayer)).lora_B["default"].weight)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["model.prompt_tokens.weight"].shape == (3, 32)
    rest = tensors.keys() - {"model.prompt_tokens.weight"}
    assert all(".adapter." in name or "lora_" in name for name in rest)
    loaded, info = AutoModelForMultimodalLM.from_pretrained(tmp_path, output_loading_info=True)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert not any(info.values()), info
    assert torch.equal(logits(loaded, again), logits(model, processor))
    assert len(loaded.get_input_embeddings().weight) == model.config.text_config.vocab_size
    trained = {name for name, weight in loaded.named_parameters() if weight.requires_grad}
    assert trained == tensors.keys()
    prompt = again([again.prompt("slots")], CLIPS[:1], return_tensors="pt")
    assert torch.equal(loaded.generate(**prompt, max_new_tokens=4), model.generate(**prompt, max_new_tokens=4))


def test_only_the_rows_that_are_read_learn(backbones):
    model, processor = built(backbones)
    model.train()(**batch(processor)).loss.backward()
    moved = model.model.prompt_tokens.weight.grad.abs().sum(-1)
    assert (moved[:2] > 0).all() and moved[2] == 0
    assert model.get_input_embeddings().weight.grad is None


def test_rows_stay_float32_beside_a_half_precision_llm(backbones, tmp_path):
    model, processor = built(backbones, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {one.model.prompt_tokens.weight.dtype for one in (model, loaded)} == {torch.float32}
    assert torch.equal(logits(loaded, processor), logits(model, processor))


def test_seal_reads_them_in_its_prompts_too(backbones, tmp_path):
    model, processor = built(backbones, system=SealProjectorForConditionalGeneration)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, processor), logits(model, processor))


def test_what_cannot_be_is_refused(backbones, tmp_path):
    with pytest.raises(ValueError, match="'lights' is a token of the LLM already"):
        backbones.build("wav2vec2", "llama", new_tokens=["lights"])
    folders = (str(backbones.encoder("wav2vec2")), str(backbones.language_model("llama")))
    model = SpeechTextAdapterForConditionalGeneration.from_backbones(*folders, new_tokens=WORDS)
    with pytest.raises(ValueError, match="new_tokens have no ids yet; make the processor first"):
        model(torch.ones(1, 3, dtype=torch.long))
    built(backbones)[0].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="new tokens were trained here or in"):
        backbones.build("wav2vec2", "llama")[0].load_lora(tmp_path, "other")
