"""Scores with shared demonstrations and queries are those of each prompt and label in a forward of its own."""

import numpy as np
import pytest
import tiny_models
import torch
from speech_text_cases import CLIPS
from sutlm_cases import joint_model, joint_processor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, Gemma3TextConfig

from speechzoo.evaluation.label_scoring import (
    CONTENT_FREE,
    calibrated,
    content_free_prompts,
    content_free_scores,
    label_scores,
    predictions,
    silence,
)
from speechzoo.evaluation.prompt_readers import (
    Clip,
    FewShotPrompt,
    SpeechPromptReader,
    TextPromptReader,
    UnitPromptReader,
)

LABELS = (" lights", " heat up", " bring me my shoes", " off", " heat")
SPOKEN = [
    Clip(f"clip {number}", text, CLIPS[number])
    for number, text in enumerate(("lights on", "heat down", "off", "bring shoes"))
]
SHOTS = ("turn ", SPOKEN[0], " please lights ", SPOKEN[1], " please heat up ")
# Three share their demonstrations, two of them of one length; one has none, one its own, and one comes twice.
PROMPTS = [
    FewShotPrompt(SHOTS, (SPOKEN[2], " please")),
    FewShotPrompt((), ("the ", SPOKEN[3], " please")),
    FewShotPrompt(SHOTS, (SPOKEN[3], " please")),
    FewShotPrompt(("down ", SPOKEN[3], " please off "), (SPOKEN[0], " please")),
    FewShotPrompt(SHOTS, (SPOKEN[1], " please")),
    FewShotPrompt(SHOTS, (SPOKEN[2], " please")),
]


def summed(logits: torch.Tensor, tokens: list[int]) -> float:
    """log P of tokens [C] by the logits [C, V] before each, in float64."""
    return logits.double().log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(tokens)].sum().item()


@torch.no_grad()
def alone(model, prompt: list[int], tokens: list[int]) -> float:
    """One prompt and one label, by their tokens."""
    if not model.config.is_encoder_decoder:
        return summed(model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1], tokens)
    start = model.config.decoder_start_token_id
    decoder = torch.tensor([[start, *tokens[:-1]]])
    return summed(model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits[0], tokens)


def spelled(prompt: FewShotPrompt) -> str:
    parts = (*prompt.demonstrations, *prompt.query)
    return "".join(one if isinstance(one, str) else one.text for one in parts)


def check(reader, expected: np.ndarray) -> None:
    """With and without shared caches, in batches of any size and in any order."""
    assert np.abs(np.diff(expected[:5], axis=0)).min() > 1e-4  # the prompt matters everywhere
    backward = PROMPTS[::-1]
    for prompts, options in ((PROMPTS, {"rows": 3}), (backward, {"rows": 64}), (PROMPTS, {"share_caches": False})):
        scores = label_scores(reader, prompts, LABELS, **options)
        wanted = expected[::-1] if prompts is backward else expected
        np.testing.assert_allclose(scores.sums, wanted, rtol=0, atol=1e-5)
        assert scores.lengths.tolist() == [1, 2, 4, 1, 1] and scores.sums.dtype == np.float64
        assert predictions(scores.means) == predictions(wanted / scores.lengths)


def load(backbones, family: str):
    folder = backbones.language_model(family)
    auto = AutoModelForSeq2SeqLM if family in tiny_models.SEQ2SEQ else AutoModelForCausalLM
    return auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bart"])
def test_text_is_scored_as_alone(backbones, family):
    model, tokenizer = load(backbones, family)

    def tokens(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    expected = [[alone(model, tokens(spelled(one)), tokens(label)) for label in LABELS] for one in PROMPTS]
    check(TextPromptReader(model, tokenizer), np.array(expected))


def test_sliding_windows_see_what_they_see_alone():
    """The demonstrations are longer than the window."""
    torch.manual_seed(0)
    layers = ["sliding_attention", "full_attention"]
    config = Gemma3TextConfig(sliding_window=4, layer_types=layers, **tiny_models.DECODER)
    model, tokenizer = AutoModelForCausalLM.from_config(config).eval(), tiny_models.tokenizer()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim == 2 else 1)

    def tokens(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    expected = [[alone(model, tokens(spelled(one)), tokens(label)) for label in LABELS] for one in PROMPTS]
    check(TextPromptReader(model, tokenizer), np.array(expected))


@torch.no_grad()
def heard_alone(model, processor, prompt: FewShotPrompt, label: str) -> float:
    """One prompt and one label, by the processor and the whole model."""
    parts = (*prompt.demonstrations, *prompt.query)
    clips = [one.audio for one in parts if isinstance(one, Clip)]
    text = "".join(one if isinstance(one, str) else processor.audio_token for one in parts)
    tokens = processor.tokenizer(label, add_special_tokens=False)["input_ids"]
    if processor.is_encoder_decoder:
        start = model.config.text_config.decoder_start_token_id
        inputs = processor(text, clips, return_tensors="pt")
        return summed(model(**inputs, decoder_input_ids=torch.tensor([[start, *tokens[:-1]]])).logits[0], tokens)
    logits = model(**processor(text + label, clips, return_tensors="pt")).logits[0]
    return summed(logits[-len(tokens) - 1 : -1], tokens)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_speech_is_scored_as_alone(backbones, family):
    model, processor = backbones.build("w2v-bert", family)
    expected = [[heard_alone(model, processor, prompt, label) for label in LABELS] for prompt in PROMPTS]
    check(SpeechPromptReader(model, processor), np.array(expected))


def test_units_are_scored_as_alone():
    processor = joint_processor()
    model = joint_model("llama", processor)
    utterances = {"clip 0": [3, 1, 4], "clip 1": [5, 9, 2, 6, 5], "clip 2": [8], "clip 3": [1, 2, 3, 4]}

    def sequence(part):
        spans = [("text", one) if isinstance(one, str) else ("speech", utterances[one.id]) for one in part]
        return processor.sequence(spans)

    def tokens(prompt):
        return sequence(prompt.demonstrations) + sequence(prompt.query)

    expected = [[alone(model, tokens(one), processor.text_tokens(label)) for label in LABELS] for one in PROMPTS]
    check(UnitPromptReader(model, processor, utterances), np.array(expected))


def test_demonstrations_and_queries_are_read_once(backbones):
    model, tokenizer = load(backbones, "llama")
    reader, read = TextPromptReader(model, tokenizer), []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    label_scores(reader, PROMPTS, LABELS, rows=5)
    label_scores(reader, PROMPTS[:1] * 2, LABELS, rows=5)
    hook.remove()
    five = (5, 3)  # all labels, the longest of which has three tokens before its last
    shared = [(1, 10), (1, 2), five, (1, 3), five, (1, 3), five]
    assert read == [*shared, (1, 4), five, (1, 8), five, (1, 12), five]


def test_calibration_divides_by_what_is_likely_anyway():
    means = np.log([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]) - 3  # not normalized, as scores of labels are
    content_free = np.log([[[0.8, 0.1, 0.1], [0.6, 0.2, 0.2]], [[0.1, 0.1, 0.8], [0.1, 0.3, 0.6]]]) + 5
    found = calibrated(means, content_free)
    wanted = [[0.6 / 0.7, 0.3 / 0.15, 0.1 / 0.15], [0.2 / 0.1, 0.2 / 0.2, 0.6 / 0.7]]
    np.testing.assert_allclose(np.exp(found), wanted)
    assert predictions(means) == [0, 2] and predictions(found) == [1, 0]


def test_content_free_clips_stand_in_the_query_alone(backbones):
    empty = Clip("empty", "")
    assert content_free_prompts(PROMPTS[0], [empty]) == [FewShotPrompt(SHOTS, (empty, " please"))]
    model, processor = backbones.shared()
    reader = SpeechPromptReader(model, processor)
    clips = [*CONTENT_FREE, silence(0.5)]
    found = content_free_scores(reader, PROMPTS[:3], LABELS, clips)
    assert found.shape == (3, 4, 5)
    np.testing.assert_array_equal(found[0], found[2])  # the same demonstrations, and what was asked is gone
    replaced = [FewShotPrompt((), ("the ", clip, " please")) for clip in clips]
    np.testing.assert_allclose(found[1], label_scores(reader, replaced, LABELS).means, rtol=0, atol=1e-5)
    assert (
        np.abs(np.diff(found[1], axis=0)).max(1).min() > 1e-3
    )  # "N/A" and "[MASK]" are unknown words, one and the same


def test_nothing_to_score_is_no_error_and_an_empty_prompt_is(backbones):
    model, tokenizer = load(backbones, "llama")
    reader = TextPromptReader(model, tokenizer)
    assert label_scores(reader, [], LABELS).sums.shape == (0, 5)
    with pytest.raises(ValueError, match=r"a prompt or a continuation has no tokens"):
        label_scores(reader, [FewShotPrompt((), (Clip("empty", ""),))], LABELS)
