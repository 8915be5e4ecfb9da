"""Seal: projectors in batches, both losses against plain LLM forwards, kept teachers, checkpoints."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from speech_text_cases import ANSWERS, CLIPS, labeled
from torch import nn
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

from speechzoo import SealProjectorConfig, SealProjectorForConditionalGeneration
from speechzoo.data.seal_collator import SealCollator

TRANSCRIPTS = ["one red fox", "two", "three blue hens and a cow", "four"]
SEAL = {"system": SealProjectorForConditionalGeneration}
SIDES = ("teacher_input_ids", "teacher_attention_mask", "teacher_labels")


def examples(count=4):
    return [
        {"id": f"c{n}", "audio": CLIPS[n], "task": "asr", "target": ANSWERS[n], "transcript": TRANSCRIPTS[n]}
        for n in range(count)
    ]


def positions(model, batch, prefix=""):
    """The LLM's own logits [N, V] in float64 at what is supervised, each row alone and without padding."""
    embed, found, used = model.get_input_embeddings(), [], 0
    speech = {name: batch[name] for name in ("input_features", "input_features_mask")}
    heard = model.model.get_audio_features(**speech).pooler_output
    columns = (batch[f"{prefix}{name}"] for name in ("input_ids", "attention_mask", "labels"))
    for ids, mask, labels in zip(*columns, strict=True):
        ids = ids[mask.bool()]
        vectors = embed(ids.masked_fill(ids == model.config.audio_token_id, 0))
        audio = ids == model.config.audio_token_id
        vectors[audio] = heard[used : used + int(audio.sum())]
        used += int(audio.sum())
        if model.config.is_encoder_decoder:
            targets = labels[labels != -100]
            start = torch.tensor([model.model.language_model.config.decoder_start_token_id])
            given = {"inputs_embeds": vectors[None], "decoder_input_ids": torch.cat([start, targets[:-1]])[None]}
            found.append(model.model.language_model(**given).logits[0])
        else:
            logits = model.model.language_model(inputs_embeds=vectors[None]).logits[0]
            found.append(logits[:-1][labels[mask.bool()][1:] != -100])
    return torch.cat(found).double()


def brute_force(student, teacher, direction, temperature):
    p, q = (nn.functional.softmax(logits / temperature, -1) for logits in (teacher, student))
    if direction == "jensen_shannon":
        m = (p + q) / 2
        values = (p * (p / m).log() + q * (q / m).log()).sum(-1) / 2
    else:
        a, b = (p, q) if direction == "forward" else (q, p)
        values = (a * (a / b).log()).sum(-1)
    return temperature**2 * values


# ---- the projector ----


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize("projector", ["convolution", "stack"])
@torch.no_grad()
def test_a_batch_changes_no_embedding(backbones, projector, ratio):
    model, _ = backbones.shared(projector=projector, reduction_ratio=ratio, projector_width=24, **SEAL)
    lengths = torch.tensor([23, 16, 9, 8, 3, 1])
    frames = torch.randn(6, 30, 32, generator=torch.Generator().manual_seed(0))  # noise beyond the clips, too
    together, counts = model.model.projector(frames, lengths)
    assert counts.tolist() == [-(-length // ratio) for length in lengths.tolist()]
    for clip, length, count, found in zip(frames, lengths, counts, together, strict=True):
        alone, _ = model.model.projector(clip[None, :length], lengths.new_tensor([length]))
        assert alone.shape[1] == count
        torch.testing.assert_close(found[:count], alone[0], rtol=0, atol=1e-5)


def test_twelve_and_a_half_embeddings_come_of_a_second(backbones):
    _, processor = backbones.shared("hubert", **SEAL)
    batch = processor([processor.prompt("asr")], [np.zeros(16_000, np.float32)], return_tensors="pt")
    assert int((batch["input_ids"] == processor.audio_token_id).sum()) == 13


# ---- losses ----


@pytest.mark.parametrize("direction", ["forward", "reverse", "jensen_shannon"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
def test_the_loss_is_the_divergence_between_two_plain_forwards(backbones, family, direction):
    fields = {"divergence": direction, "temperature": 2.0, **SEAL}
    model, processor = backbones.build("wav2vec2", family, **fields)
    batch = SealCollator(processor, weights={"asr": 0.5})(examples())
    weights = batch["loss_weights"] = torch.tensor([1.0, 0.25, 3.0, 0.5])
    loss = model(**batch).loss
    loss.backward()
    got = [parameter.grad.clone() for parameter in model.model.projector.parameters()]
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if ".projector." not in name)

    model.zero_grad()
    with torch.no_grad():
        teacher = positions(model, batch, "teacher_")
    values = brute_force(positions(model, batch), teacher, direction, 2.0)
    counts = (batch["labels"] != -100).sum(-1)
    expected = (values * weights.repeat_interleave(counts)).sum() / counts.sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4) and loss.item() > 1e-3
    expected.backward()
    for one, parameter in zip(got, model.model.projector.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_rows_are_told_in_nats_at_any_temperature(backbones):
    model, processor = backbones.shared(temperature=2.0, **SEAL)
    batch = SealCollator(processor)(examples())
    values = brute_force(positions(model, batch), positions(model, batch, "teacher_"), "forward", 2.0) / 2.0**2
    rows = values.split((batch["labels"] != -100).sum(-1).tolist())
    assert model.row_divergences(batch).tolist() == pytest.approx([row.sum().item() for row in rows], rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@torch.no_grad()
def test_logits_and_accumulation_do_not_change_the_loss(backbones, family):
    model, processor = backbones.shared("wav2vec2", family, **SEAL)
    batch = SealCollator(processor)(examples())
    loss = model(**batch).loss.item()
    with_logits = model(**batch, return_logits=True)
    assert with_logits.loss.item() == pytest.approx(loss, rel=1e-5) and with_logits.logits is not None
    items = int((batch["labels"] != -100).sum())
    assert model(**batch, num_items_in_batch=3 * items).loss.item() == pytest.approx(loss / 3, rel=1e-5)
    one_by_one = [SealCollator(processor)([example]) for example in examples()]
    parts = sum(model(**one, num_items_in_batch=items).loss.item() for one in one_by_one)
    assert parts == pytest.approx(loss, rel=1e-4)


@torch.no_grad()
def test_neither_side_makes_logits_of_positions_that_nobody_asked_about(backbones):
    """Of a head that is more than a matrix; the others have no logits in one piece."""
    model, processor = backbones.build("wav2vec2", "gemma2", **SEAL)
    batch, made = SealCollator(processor)(examples()), []
    model.model.language_model.register_forward_hook(lambda *given: made.append(given[-1].logits.shape[1]))
    model(**batch)
    asked = [int((batch[name] != -100).any(0).sum()) for name in ("labels", "teacher_labels")]
    assert made == asked and asked[1] < batch["teacher_labels"].shape[1] - 1


@torch.no_grad()
def test_without_a_teacher_it_is_cross_entropy(backbones):
    model, processor = backbones.shared(**SEAL)
    batch = SealCollator(processor, with_teacher=False)(examples())
    assert not any(name.startswith("teacher") for name in batch)
    logits, targets = positions(model, batch), batch["labels"][:, 1:][batch["labels"][:, 1:] != -100]
    expected = nn.functional.cross_entropy(logits, targets).item()
    assert model(**batch).loss.item() == pytest.approx(expected, rel=1e-5)
    assert model(**labeled(processor)).loss.item() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_the_first_token_alone_can_be_compared(backbones):
    model, processor = backbones.shared(**SEAL)
    whole, first = (SealCollator(processor, first_token=only)(examples()) for only in (False, True))
    assert (first["labels"] != -100).sum(-1).tolist() == [1, 1, 1, 1]
    starts = [0, *(whole["labels"] != -100).sum(-1).cumsum(0).tolist()[:-1]]
    student, teacher = positions(model, whole)[starts], positions(model, whole, "teacher_")[starts]
    expected = brute_force(student, teacher, "forward", 1.0).mean().item()
    assert model(**first).loss.item() == pytest.approx(expected, rel=1e-4)


def test_a_teacher_of_other_tokens_is_refused(backbones):
    model, processor = backbones.shared(**SEAL)
    batch = SealCollator(processor)(examples())
    other = SealCollator(processor)([example | {"target": "something else"} for example in examples()])
    with pytest.raises(ValueError, match="do not supervise the same tokens"):
        model(**{**batch, **{name: other[name] for name in SIDES}})
    whole = labeled(processor)
    kept = ("teacher_token_ids", "teacher_log_probabilities", "teacher_tail")
    for part in [{name: batch[name]} for name in SIDES] + [{name: torch.zeros(3)} for name in kept]:
        with pytest.raises(ValueError, match="teacher is not whole"):
            model(**whole, **part)
    with pytest.raises(ValueError, match="'c0' has no transcript"):
        SealCollator(processor)([examples()[0] | {"transcript": ""}])


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"asl": 2.0}, "weights name the prompt 'asl'; this processor has"), ({"asr": -1.0}, "'asr' is -1.0; give 0")],
)
def test_weights_that_would_do_nothing_or_harm_are_refused(backbones, weights, message):
    with pytest.raises(ValueError, match=message):
        SealCollator(backbones.shared(**SEAL)[1], weights)


# ---- teachers that were kept ----


@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
@torch.no_grad()
def test_a_kept_teacher_is_never_further_away_and_a_whole_one_is_as_far(backbones, family):
    model, processor = backbones.shared("wav2vec2", family, **SEAL)
    batch = SealCollator(processor)(examples())
    live = model(**batch).loss.item()
    taught = [batch.pop(name) for name in SIDES]
    losses = []
    for k in (4, 16, model.config.vocab_size):
        parts = model.teacher_distributions(*taught, k)
        assert [len(part) for part in parts] == (batch["labels"] != -100).sum(-1).tolist()
        names = ("token_ids", "log_probabilities", "tail")
        kept = {f"teacher_{name}": torch.cat([getattr(part, name) for part in parts]) for name in names}
        losses.append(model(**batch, **kept).loss.item())
    assert losses[0] <= losses[1] + 1e-6 <= losses[2] + 2e-6
    assert losses[2] == pytest.approx(live, rel=1e-4)


# ---- checkpoints ----


@torch.no_grad()
def test_a_checkpoint_is_the_projector_and_comes_back_whole(backbones, tmp_path):
    model, processor = backbones.shared(projector="stack", **SEAL)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert all(name.startswith("model.projector.") for name in load_file(tmp_path / "model.safetensors"))
    assert type(AutoConfig.from_pretrained(tmp_path)) is SealProjectorConfig
    loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    assert type(loaded) is SealProjectorForConditionalGeneration
    batch = SealCollator(AutoProcessor.from_pretrained(tmp_path))(examples())
    assert loaded(**batch).loss.item() == model(**batch).loss.item()
    trainable = {name for name, parameter in loaded.named_parameters() if parameter.requires_grad}
    assert trainable and all(".projector." in name for name in trainable)


@torch.no_grad()
def test_answers_of_a_batch_are_those_of_each_prompt_alone(backbones):
    model, processor = backbones.shared(**SEAL)
    prompts = [processor.prompt("asr")] * 4
    batch = processor(prompts, CLIPS, return_tensors="pt")
    together = processor.decode_answers(model.generate(**batch, max_new_tokens=6), batch["input_ids"])
    for prompt, clip, answer in zip(prompts, CLIPS, together, strict=True):
        one = processor([prompt], [clip], return_tensors="pt")
        assert processor.decode_answers(model.generate(**one, max_new_tokens=6), one["input_ids"]) == [answer]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projector": "pool"}, "choose one of convolution, stack"),
        ({"divergence": "both"}, "choose one of forward"),
        ({"temperature": 0.0}, "above 0"),
        ({"reduction_ratio": 3}, "1, 2, 4 or 8"),
        ({"unfrozen": ["language_model"]}, "its own teacher"),
        ({"adapter_layers": 2}, "no field 'adapter_layers'"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SealProjectorConfig(**fields)
