"""The whole model with every LLM: losses against the LLM's own, batches against single prompts, generation."""

import pytest
import tiny_models
import torch
from speech_text_cases import ANSWERS, CLIPS, ENCODINGS, clip, labeled, pad_further
from torch import nn

ONLY_A_MATRIX = {"llama", "qwen3", "opt", "gpt2", "phi", "phi3", "gemma", "gemma3", "mt5", "bart"}
FAMILIES = list(tiny_models.LANGUAGE_MODELS)
EVERY_MODEL = [(encoder, encoding, "llama") for encoder, encoding in ENCODINGS] + [
    ("wav2vec2", "clip", family) for family in FAMILIES if family != "llama"
]


def independent_loss(model, batch):
    """The LLM's own forward on the merged embeddings, and a plain cross-entropy of its logits, row by row."""
    language_model = model.model.language_model
    speech = {name: batch[name] for name in ("input_features", "input_features_mask")}
    embeddings = model.model.get_audio_features(**speech).pooler_output
    total, count, used = 0.0, 0, 0
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        ids = ids[mask.bool()]
        audio = ids == model.config.audio_token_id
        vectors = model.get_input_embeddings()(ids)
        vectors[audio] = embeddings[used : used + int(audio.sum())]
        used += int(audio.sum())
        if model.config.is_encoder_decoder:
            targets = labels[labels != -100]
            start = torch.tensor([language_model.config.decoder_start_token_id])
            given = {"inputs_embeds": vectors[None], "decoder_input_ids": torch.cat([start, targets[:-1]])[None]}
            logits = language_model(**given).logits[0]
        else:
            logits = language_model(inputs_embeds=vectors[None]).logits[0, :-1]
            targets = labels[mask.bool()][1:]
        total += nn.functional.cross_entropy(logits, targets, reduction="sum", ignore_index=-100).item()
        count += int((targets != -100).sum())
    assert used == len(embeddings)
    return total / count


def skip_bart_on_the_left(family, side):
    if (family, side) == ("bart", "left"):
        pytest.skip("BART's encoder counts padding on the left as positions; processors pad its prompts on the right")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_loss_is_that_of_the_llm_itself(backbones, family, side):
    skip_bart_on_the_left(family, side)
    model, processor = backbones.shared("wav2vec2", family)
    batch = labeled(processor, side)
    output = model(**batch)
    assert output.get("logits") is None and output.loss.dtype == torch.float32
    expected = independent_loss(model, batch)
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
    with_logits = model(**batch, return_logits=True)
    assert with_logits.loss.item() == pytest.approx(expected, rel=1e-5)
    steps = batch["labels"].shape[1]
    assert with_logits.logits.shape == (4, steps, tiny_models.VOCABULARY)
    assert model(**batch, num_items_in_batch=40).loss.item() == pytest.approx(
        expected * int((batch["labels"] != -100).sum()) / 40, rel=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_whether_the_head_is_only_a_matrix_is_found_out(backbones, family):
    assert backbones.shared("wav2vec2", family)[0].config.linear_head == (family in ONLY_A_MATRIX)


@pytest.mark.parametrize("family", ["llama", "gemma2", "t5", "bart"])
def test_gradients_do_not_depend_on_whether_logits_come(backbones, family):
    model, processor = backbones.build("wav2vec2", family)
    gradients = []
    for return_logits in (False, True):
        model.zero_grad()
        model(**labeled(processor), return_logits=return_logits).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.model.adapter.parameters()])
    for without, with_logits in zip(*gradients, strict=True):
        torch.testing.assert_close(without, with_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "bart"])
@torch.no_grad()
def test_what_is_not_supervised_does_not_count(backbones, family):
    """Neither padding, whatever stands in it, nor the prompt itself as something to predict."""
    model, processor = backbones.shared("wav2vec2", family)
    batch = labeled(processor)
    loss = model(**batch).loss
    spoiled = {**batch, "input_ids": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 9)}
    assert model(**spoiled).loss.item() == pytest.approx(loss.item(), rel=1e-5)
    nothing = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    assert model(**nothing).loss.item() == 0


@torch.no_grad()
def test_the_mean_leaves_out_a_first_label_that_nothing_predicts(backbones):
    model, _ = backbones.shared()
    ids = torch.tensor([[1, 5, 9, 11]])
    own = model.model.language_model(input_ids=ids, labels=ids).loss
    for return_logits in (False, True):
        assert model(input_ids=ids, labels=ids, return_logits=return_logits).loss.item() == pytest.approx(own.item())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("encoder", "encoding", "family"), EVERY_MODEL)
@torch.no_grad()
def test_logits_of_a_batch_are_those_of_each_prompt_alone(backbones, encoder, encoding, family, side):
    skip_bart_on_the_left(family, side)
    model, processor = backbones.shared(encoder, family, encoding=encoding)
    prompts = ["turn on " * index + processor.prompt("asr") for index in range(4)]
    batch = processor(prompts, CLIPS, padding_side=side, return_tensors="pt")
    if encoding == "clip":
        batch |= pad_further(batch, processor, 20, garbage=2.0)
    extra = {"decoder_input_ids": torch.tensor([[0, 5, 6, 7]])} if model.config.is_encoder_decoder else {}
    many = {name: ids.repeat(4, 1) for name, ids in extra.items()}
    logits = model(**batch, **many).logits
    for row in range(4):
        alone = model(**processor(prompts[row], CLIPS[row], return_tensors="pt"), **extra).logits[0]
        got = logits[row] if extra else logits[row][batch["attention_mask"][row].bool()]
        assert (got - alone).abs().max() < 2e-5 * max(1, alone.abs().max())


@pytest.mark.parametrize(("encoder", "encoding", "family"), EVERY_MODEL)
def test_answers_of_a_batch_are_those_of_each_prompt_alone(backbones, encoder, encoding, family):
    model, processor = backbones.shared(encoder, family, encoding=encoding)
    prompts = ["turn on " * index + processor.prompt("asr") for index in range(4)]
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    answers = model.generate(**processor(prompts, CLIPS, return_tensors="pt"), **settings)[:, -6:]
    for prompt, samples, answer in zip(prompts, CLIPS, answers, strict=True):
        alone = model.generate(**processor(prompt, samples, return_tensors="pt"), **settings)[0, -6:]
        assert torch.equal(answer, alone)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "t5", "bart"])
def test_speech_decides_the_answer(backbones, family):
    """What the tests above compare depends on the clip at all."""
    model, processor = backbones.shared("wav2vec2", family, reduction_ratio=1)
    clips = [clip(20000, seed) * scale for seed, scale in ((5, 1), (6, 0.01), (7, 3), (8, 1))]
    batch = processor([processor.prompt("asr")] * 4, clips, return_tensors="pt")
    assert len({tuple(row) for row in model(**batch, **_start(model, 4)).logits[:, -1].topk(8).indices.tolist()}) > 1


def _start(model, rows):
    return {"decoder_input_ids": torch.zeros(rows, 1, dtype=torch.long)} if model.config.is_encoder_decoder else {}


@pytest.mark.parametrize("family", ["llama", "opt", "gemma3", "t5", "bart"])
@pytest.mark.parametrize("encoder", ["wav2vec2", "whisper"])
def test_beams_with_several_clips_are_those_of_the_llm_on_each_prompt(backbones, encoder, family):
    model, processor = backbones.shared(encoder, family)
    prompts = ["turn {} on {}", "{} off", "the lights", "{} {} {}"]
    prompts = [prompt.replace("{}", processor.audio_token) for prompt in prompts]
    groups = [[clip(9000, 1), clip(48000, 2)], [CLIPS[2]], [], [clip(2000, 3), clip(7000, 4), clip(35000, 5)]]
    settings = {"max_new_tokens": 5, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    settings |= {"eos_token_id": None, "return_dict_in_generate": True, "output_scores": True}
    batch = processor(prompts, [samples for group in groups for samples in group], return_tensors="pt")
    assert encoder != "whisper" or len(batch["input_features"]) > 6  # some clips are several chunks
    together = model.generate(**batch, **settings)
    for row, (prompt, group) in enumerate(zip(prompts, groups, strict=True)):
        single = processor(prompt, group or None, return_tensors="pt")
        speech = {name: single[name] for name in ("input_features", "input_features_mask") if name in single}
        merged = model.model.merge(single["input_ids"], None, **speech)
        given = {"inputs_embeds": merged, "attention_mask": single["attention_mask"]}
        alone = model.model.language_model.generate(**given, **settings)  # knows nothing of clips
        both = slice(2 * row, 2 * row + 2)
        assert torch.equal(together.sequences[both, -5:], alone.sequences[:, -5:])
        # The scores tell whose speech was heard where the words do not.
        torch.testing.assert_close(together.sequences_scores[both], alone.sequences_scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", list(tiny_models.SEQ2SEQ))
@torch.no_grad()
def test_an_encoder_decoder_generates_as_its_llm_does(backbones, family):
    model, processor = backbones.shared("wav2vec2", family)
    batch = processor([processor.prompt("asr")] * 4, CLIPS, return_tensors="pt")
    speech = {name: batch[name] for name in ("input_features", "input_features_mask")}
    merged = model.model.merge(batch["input_ids"], None, **speech)
    settings = {"max_new_tokens": 6, "num_beams": 2}
    expected = model.model.language_model.generate(
        inputs_embeds=merged, attention_mask=batch["attention_mask"], **settings
    )
    assert torch.equal(model.generate(**batch, **settings), expected)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
@torch.no_grad()
def test_generation_is_the_argmax_of_whole_forwards(backbones, family):
    """Neither the cache nor the positions after left padding change what is generated."""
    model, processor = backbones.shared("wav2vec2", family)
    batch = processor(["the " * 3 + processor.prompt("asr"), processor.prompt("asr")], CLIPS[:2], return_tensors="pt")
    generated = model.generate(**batch, max_new_tokens=5, do_sample=False, eos_token_id=None)
    for row in range(2):
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        single = processor("the " * 3 * (1 - row) + processor.prompt("asr"), CLIPS[row], return_tensors="pt")
        for token in generated[row, batch["input_ids"].shape[1] :]:
            logits = model(**{**single, "input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}).logits
            assert logits[0, -1].argmax() == token
            ids = torch.cat([ids, token[None]])


@torch.no_grad()
def test_a_placeholder_outside_the_vocabulary(backbones, tmp_path):
    """The LLM's table has no row for it and is not enlarged."""
    from speechzoo import SpeechTextAdapterForConditionalGeneration, SpeechTextAdapterProcessor

    folder = tiny_models.save_language_model("gpt2", tmp_path / "llm")
    tiny_models.tokenizer(size=tiny_models.VOCABULARY).save_pretrained(folder)
    inside, inside_processor = backbones.build("wav2vec2", "gpt2")
    outside = SpeechTextAdapterForConditionalGeneration.from_backbones(str(backbones.encoder("wav2vec2")), str(folder))
    processor = SpeechTextAdapterProcessor.from_model_config(outside.config)
    assert outside.config.audio_token_id == tiny_models.VOCABULARY == len(outside.get_input_embeddings().weight)
    outside.model.adapter.load_state_dict(inside.model.adapter.state_dict())
    outside.eval()
    assert outside(**labeled(processor)).loss.item() == inside(**labeled(inside_processor)).loss.item()
    batch = processor([processor.prompt("asr")] * 4, CLIPS, return_tensors="pt")
    same = inside_processor([inside_processor.prompt("asr")] * 4, CLIPS, return_tensors="pt")
    settings = {"max_new_tokens": 4, "num_beams": 2, "do_sample": False}
    prompt = batch["input_ids"].shape[1]
    assert torch.equal(
        outside.generate(**batch, **settings)[:, prompt:], inside.generate(**same, **settings)[:, prompt:]
    )


def test_placeholders_that_do_not_match_the_speech_are_an_error(backbones):
    model, processor = backbones.shared()
    batch = labeled(processor)
    batch["input_ids"][0, 4] = 7
    with pytest.raises(ValueError, match=r"placeholders for .* speech embeddings"):
        model(**batch)


def test_speech_without_its_mask_is_an_error(backbones):
    model, processor = backbones.shared()
    batch = labeled(processor)
    del batch["input_features_mask"]
    with pytest.raises(ValueError, match="mask"):
        model(**batch)


@torch.no_grad()
def test_text_alone_is_what_the_llm_says(backbones):
    model, processor = backbones.shared()
    batch = processor(["turn on the lights"], return_tensors="pt")
    torch.testing.assert_close(model(**batch).logits, model.model.language_model(**batch).logits)


@torch.no_grad()
def test_the_headless_model_gives_the_hidden_states_under_the_logits(backbones):
    for family in ("llama", "mt5"):
        model, processor = backbones.shared("wav2vec2", family)
        batch = processor([processor.prompt("asr")] * 4, CLIPS, return_tensors="pt")
        hidden = model.model(**batch, **_start(model, 4)).last_hidden_state
        logits = model(**batch, **_start(model, 4)).logits
        torch.testing.assert_close(model.get_output_embeddings()(hidden), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bart", "t5"])
def test_training_mode_has_no_dropout_outside_the_adapter(backbones, family):
    """Frozen parts must say the same in every pass, while they stay in train() for checkpointing."""
    model, processor = backbones.build("wav2vec2", family)
    calm = model(**labeled(processor)).loss.item()
    model.train()
    assert not model.model.audio_tower.training and model.model.language_model.training
    assert [model(**labeled(processor)).loss.item() for _ in range(2)] == pytest.approx([calm, calm], rel=1e-6)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_gradient_checkpointing_of_the_whole_model(backbones, family):
    gradients = []
    for checkpointing in (False, True):
        model, processor = backbones.build("wav2vec2", family)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        model(**labeled(processor)).loss.backward()
        gradients.append([parameter.grad for parameter in model.model.adapter.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_autocast_keeps_the_loss_in_float32(backbones):
    model, processor = backbones.shared()
    exact = model(**labeled(processor)).loss
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(**labeled(processor)).loss
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.mark.slow
@torch.no_grad()
def test_the_graph_compiles(backbones):
    model, processor = backbones.build()
    batch = labeled(processor)
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(**batch).loss, model(**batch).loss, rtol=1e-5, atol=1e-5)


def test_answers_are_words(backbones):
    """The tiny tokenizers can write whatever the tiny LLMs say."""
    _, processor = backbones.shared()
    assert processor.decode_answers(torch.tensor([[4, 5, 62, 2, 0]])) == ["turn on word62"]
    assert ANSWERS[0].split()[0] == "turn"
