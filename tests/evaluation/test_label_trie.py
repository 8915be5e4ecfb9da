"""Generated answers are those of greedy steps over plain forwards of one prompt alone."""

from collections.abc import Callable
from functools import partial

import pytest
import tiny_models
import torch
from speech_text_cases import CLIPS
from sutlm_cases import joint_model, joint_processor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from speechzoo.evaluation.label_trie import LabelTrie, constrained_answers, exact_matches, greedy_answers
from speechzoo.evaluation.prompt_readers import (
    Clip,
    FewShotPrompt,
    SpeechPromptReader,
    TextPromptReader,
    UnitPromptReader,
    read_whole,
)

LABELS = (" turn on", " turn off", " lights", " turn on the lights", " heat up")
TEXTS = ("lights on", "heat up the kitchen", "off", "bring me my shoes please", "down", "word40 word41")
CLIP = [Clip(f"clip {number}", text, CLIPS[number % 4]) for number, text in enumerate(TEXTS)]
SHOTS = ("turn ", CLIP[0], " please lights ")
PROMPTS = [FewShotPrompt(SHOTS if number % 2 else (), (clip, " please")) for number, clip in enumerate(CLIP)]


@pytest.fixture(params=["llama", "gpt2", "t5", "speech", "units"])
def reader(request, backbones):
    if request.param == "speech":
        return SpeechPromptReader(*backbones.shared())
    if request.param == "units":
        processor = joint_processor()
        units = {clip.id: [number, number + 1, 0][: 1 + number % 3] for number, clip in enumerate(CLIP)}
        return UnitPromptReader(joint_model("llama", processor), processor, units)
    folder = backbones.language_model(request.param)
    auto = AutoModelForSeq2SeqLM if request.param in tiny_models.SEQ2SEQ else AutoModelForCausalLM
    return TextPromptReader(auto.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


@torch.no_grad()
def steps(
    reader, prompt: FewShotPrompt, count: int, allowed: Callable[[list[int]], set[int]] | None = None
) -> list[int]:
    """Tokens by greedy steps, each a plain forward; nothing follows the end token."""
    model, end = reader.language_model, reader.tokenizer.eos_token_id
    embeddings = read_whole(reader, [prompt])[0][None]
    written: list[int] = []
    while len(written) < count and end not in written:
        if model.config.is_encoder_decoder:
            decoder = torch.tensor([[model.config.decoder_start_token_id, *written]])
            logits = model(inputs_embeds=embeddings, decoder_input_ids=decoder).logits[0, -1]
        else:
            read = reader.embed_tokens(torch.tensor([written], dtype=torch.long))
            logits = model(inputs_embeds=torch.cat([embeddings, read], 1)).logits[0, -1]
        choices = sorted(allowed(written)) if allowed else range(len(logits))
        written.append(max(choices, key=lambda token: logits[token].item()))
    return written


def test_labels_are_spelled_as_by_greedy_steps(reader):
    end = reader.tokenizer.eos_token_id
    spelled = [(*reader.answer_tokens(label, " please"), end) for label in LABELS]

    def allowed(written: list[int]) -> set[int]:
        size = len(written)
        return {label[size] for label in spelled if label[:size] == tuple(written) and len(label) > size}

    wanted = [spelled.index(tuple(steps(reader, prompt, 9, allowed))) for prompt in PROMPTS]
    assert len(set(wanted)) > 1 or reader.name == "speech"  # random weights that like one label best
    for batch_size in (1, 4):
        assert constrained_answers(reader, PROMPTS, LABELS, batch_size=batch_size) == wanted


def test_free_answers_are_greedy(reader):
    decode = reader.tokenizer.decode
    wanted = [decode(steps(reader, prompt, 5), skip_special_tokens=True).strip() for prompt in PROMPTS]
    for batch_size in (1, 4):
        assert greedy_answers(reader, PROMPTS, max_new_tokens=5, batch_size=batch_size) == wanted


def test_settings_of_the_model_are_not_heeded(backbones):
    folder = backbones.language_model("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain, other = (TextPromptReader(AutoModelForCausalLM.from_pretrained(folder), tokenizer) for _ in range(2))
    settings = other.language_model.generation_config
    settings.do_sample, settings.temperature, settings.repetition_penalty = True, 5.0, 8.0
    settings.forced_eos_token_id, settings.suppress_tokens = 40, list(range(3, 30))
    for answer in (partial(greedy_answers, max_new_tokens=5), partial(constrained_answers, labels=LABELS)):
        assert answer(plain, PROMPTS) == answer(other, PROMPTS)


def test_exact_matches_are_whole_answers(backbones, monkeypatch):
    folder = backbones.language_model("llama")
    reader = TextPromptReader(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    monkeypatch.setattr(reader.tokenizer, "decode", lambda tokens, skip_special_tokens: answers.pop(0))
    budgets = []
    generate = reader.language_model.generate
    monkeypatch.setattr(
        reader.language_model,
        "generate",
        lambda **options: budgets.append(options["max_new_tokens"]) or generate(**options),
    )
    answers = [" Turn on\nLights", "turn on the", " lights .", "\nlights", "heat", ""]
    assert exact_matches(reader, PROMPTS, LABELS) == [0, None, 2, None, None, None]
    assert budgets == [5], "one more than the longest label"
    answers = ["turn on; lights", *[""] * 5]
    assert exact_matches(reader, PROMPTS, LABELS, stop=";")[0] == 0


def test_a_trie_knows_what_follows():
    trie = LabelTrie([(5, 6), (5, 6, 7), (5, 8, 2), (9,)], end=2)
    assert trie.depth == 4
    assert trie.following([]) == [5, 9] and trie.following([5]) == [6, 8]
    assert trie.following([5, 6]) == [2, 7] and trie.following([9]) == trie.following([5, 8]) == [2]
    assert trie.following([9, 2]) == [2], "a row that has ended"
    written = [[5, 6, 2, 2], [5, 6, 7, 2], [5, 8, 2, 2], [9, 2, 2]]
    assert [trie.number(tokens) for tokens in written] == [0, 1, 2, 3]
