"""Attention landing: counts from attention made by hand, times of pieces, and the whole against plain Python."""

import random
from itertools import pairwise

import numpy as np
import pytest
import tiny_models
import torch
import transformers

from speechzoo import SUTLMConfig, SUTLMForCausalLM, SUTLMProcessor
from speechzoo.data.speech_text_mixing import Utterance
from speechzoo.evaluation.attention_landing import (
    AlignedSequence,
    Landings,
    aligned_sequence,
    attention_landing,
    landing_measurements,
    landings,
    piece_times,
    summarized,
)
from speechzoo.processing.speech_units import deduplicate
from speechzoo.processing.unit_text import UnitSegmenter
from speechzoo.processing.word_alignment import WordSpan

RATE, UNITS = 50, 12


@pytest.fixture(scope="module")
def processor():
    """Pieces of one and more units over a vocabulary of words."""
    return SUTLMProcessor(
        tiny_models.tokenizer(), UnitSegmenter.train([utterance(n).units.units for n in range(40)], UNITS, pieces=40)
    )


def utterance(seed: int, words: int = 6) -> Utterance:
    """Words of two to four units each, of one to three frames, with pauses and a pair that shares an event."""
    rng, frames, spans = random.Random(seed), [0] * 4, []
    for number in range(words):
        start, said = len(frames), rng.choice(tiny_models.WORDS)
        first = rng.randint(1, 8)
        for unit in range(first, first + rng.randint(2, 4)):
            frames += [unit] * rng.randint(1, 3)
        spans.append(WordSpan(f"{said} the" if number == 2 else said, start / RATE, len(frames) / RATE))
        frames += [0] * rng.choice((0, 0, 3))
    return Utterance(f"clip{seed}", deduplicate(frames), " ".join(span.word for span in spans), tuple(spans))


def sutlm(processor, family: str = "llama") -> SUTLMForCausalLM:
    torch.manual_seed(0)
    size = {"vocab_size": processor.vocab_size}
    text_config = (
        transformers.LlamaConfig(**{**tiny_models.DECODER, **size})
        if family == "llama"
        else transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **size)
    )
    model = SUTLMForCausalLM(SUTLMConfig(text_config=text_config, **processor.config_fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


def test_attention_made_by_hand():
    """A start, three pieces, a switch and two tokens; the first belongs to the first two pieces."""
    aligned = np.array([[True, True, False], [False, False, True]])
    sequence = AlignedSequence([90, 1, 2, 3, 91, 10, 11], slice(1, 4), slice(4, 6), aligned)
    attention = torch.zeros(2, 2, 7, 7)
    attention[:, :, :, 0] = 0.9  # the start does not count, nor does text
    attention[:, :, 5, 5] = 0.9
    attention[0, 0, 4, 1:4] = torch.tensor([0.1, 0.4, 0.2])  # lands
    attention[0, 0, 5, 1:4] = torch.tensor([0.2, 0.5, 0.3])  # does not
    attention[0, 1, 4, 1:4] = torch.tensor([0.1, 0.1, 0.5])  # does not
    attention[0, 1, 5, 1:4] = torch.tensor([0.1, 0.1, 0.6])  # lands
    # Means of layer 1: 0.1 0.25 0.35, which does not land, and 0.15 0.3 0.45, which does.
    attention[1, 0, 4, 1:4] = torch.tensor([0.3, 0.2, 0.1])  # lands
    attention[1, 0, 5, 1:4] = torch.tensor([0.1, 0.2, 0.3])  # lands
    attention[1, 1, 4, 1:4] = torch.tensor([0.0, 0.0, 0.9])  # does not
    attention[1, 1, 5, 1:4] = torch.tensor([0.4, 0.2, 0.1])  # does not
    # Means of layer 2: 0.15 0.1 0.5, which does not land, and 0.25 0.2 0.2, which does not either.
    attention[:, :, 6, 1:4] = torch.tensor([0.0, 0.0, 0.7])  # predicts what comes after the text
    found = landings(attention, sequence)
    assert found.layers.tolist() == [1, 0]
    assert found.heads.tolist() == [[1, 1], [2, 0]]
    assert found.chance == pytest.approx(2 / 3 + 1 / 3) and found.tokens == 2


def test_times_of_pieces_are_those_of_their_frames(processor):
    several = 0
    for seed in range(20):
        item = utterance(seed)
        times, frame = piece_times(processor, item.units, RATE), 0
        pieces = processor.segmenter.encode(item.units.units)
        assert len(times) == len(pieces)
        for piece, (start, end) in zip(pieces, times, strict=True):
            assert start == frame / RATE
            frame = round(end * RATE)
            units = processor.segmenter.decode([piece])
            assert deduplicate(item.units.expanded()[round(start * RATE) : frame]).units == units
            several += len(units) > 1
        assert frame == item.units.frames
    assert several > 40


@pytest.mark.parametrize("glue", ["switch", "start"])
def test_each_token_is_aligned_with_the_pieces_of_its_word(processor, glue):
    for seed in range(20):
        item = utterance(seed)
        sequence = aligned_sequence(item, processor, RATE, glue)
        text = processor.text_tokens(item.text)
        sign = processor.token("<U2T>" if glue == "switch" else "<T_EN>")
        pieces = processor.unit_tokens(item.units)
        assert sequence.tokens == [processor.token("<U_EN>"), *pieces, sign, *text]
        assert sequence.tokens[sequence.pieces] == pieces
        assert [sequence.tokens[place + 1] for place in range(len(sequence.tokens))[sequence.predicting]] == text
        # By frames: which piece and which word each is of.
        times = piece_times(processor, item.units, RATE)
        expected = []
        for word in item.words:
            said = range(round(word.start * RATE), round(word.end * RATE))
            row = [any(start * RATE <= frame + 0.5 < end * RATE for frame in said) for start, end in times]
            expected += [row] * len(word.word.split())  # a token a word
        assert sequence.aligned.tolist() == expected


@torch.no_grad()
def by_hand(model, processor, items) -> tuple[list[float], list[list[float]], int]:
    """Landings in each layer, of each head, and tokens; one query at a time."""
    layers, heads, tokens = [0.0] * 2, [[0.0] * 4 for _ in range(2)], 0
    for item in items:
        sequence = aligned_sequence(item, processor, RATE)
        attentions = model(torch.tensor([sequence.tokens]), output_attentions=True).attentions
        pieces = len(processor.unit_tokens(item.units))
        for number, row in enumerate(sequence.aligned):
            query, tokens = 1 + pieces + number, tokens + 1
            for layer, weights in enumerate(attentions):
                among = weights[0, :, query, 1 : 1 + pieces]
                layers[layer] += row[int(among.sum(0).argmax())]
                for head in range(4):
                    heads[layer][head] += row[int(among[head].argmax())]
    return layers, heads, tokens


@pytest.mark.parametrize("family", ["llama", "alibi"])
def test_landing_of_a_model(processor, family):
    items = [utterance(seed) for seed in range(6)]
    model = sutlm(processor, family)
    before = model.model.language_model.config._attn_implementation
    found = attention_landing(model, processor, items, RATE)
    assert model.model.language_model.config._attn_implementation == before
    model.set_attn_implementation("eager")
    layers, _, tokens = by_hand(model, processor, items)
    assert [one.value for one in found.layers] == pytest.approx([hits / tokens for hits in layers])
    assert found.tokens == tokens and found.utterances == 6
    # Each half of the utterances has the head that is best on the other.
    landed = 0
    for half, other in ((items[::2], items[1::2]), (items[1::2], items[::2])):
        _, chosen_on, _ = by_hand(model, processor, other)
        layer, head = np.unravel_index(np.argmax(chosen_on), (2, 4))
        landed += by_hand(model, processor, half)[1][layer][head]
    assert found.best_head.value == pytest.approx(landed / tokens)


def test_attention_that_is_the_alignment_lands_always_and_uniform_attention_at_chance(processor):
    chance, always = [], []
    for seed in range(10):
        sequence = aligned_sequence(utterance(seed), processor, RATE)
        size, queries = len(sequence.tokens), len(sequence.aligned)
        attention = torch.rand(1, 200, size, size, generator=torch.Generator().manual_seed(seed))
        found = landings(attention, sequence)
        chance.append((found.heads.mean() / queries, found.chance / queries))
        attention[:, :, sequence.predicting, sequence.pieces] += torch.tensor(sequence.aligned, dtype=torch.float)
        always.append(landings(attention, sequence).heads.min() / queries)
    measured, stated = np.mean(chance, axis=0)
    assert measured == pytest.approx(stated, abs=0.01)
    assert always == [1] * 10


def test_a_head_is_not_counted_where_it_was_chosen():
    """Head 1 lands on even utterances alone, head 2 on odd ones: neither holds what it promised."""
    even, odd = np.array([[10.0, 0.0]]), np.array([[0.0, 10.0]])
    counts = [Landings(np.array([5.0]), odd if number % 2 else even, 2.5, 10) for number in range(8)]
    found = summarized(counts)
    assert found.heads == ((0, 1), (0, 0))
    assert found.best_head.value == 0
    assert found.layers[0].value == 0.5 and found.chance.value == 0.25


def test_a_measurement_for_each_layer_and_the_best_head():
    counts = [Landings(np.array([5.0, 8.0]), np.array([[3.0, 4.0], [9.0, 1.0]]), 2.5, 10) for _ in range(4)]
    rows = landing_measurements(summarized(counts), dataset="stories")
    assert [row.name for row in rows] == ["layer 1", "layer 2", "best head"]
    assert [row.value for row in rows] == [0.5, 0.8, 0.9]
    assert all(row.chance == 0.25 and row.metric == "attention landing" and row.items == 4 for row in rows)
    assert rows[2].note == "40 tokens; head 1 of layer 2"
    assert all(one < other for one, other in pairwise(row.value for row in rows))


def test_what_cannot_be_measured_is_an_error(processor):
    model = sutlm(processor)
    with pytest.raises(ValueError, match=r"1 utterances leave none to choose a head on"):
        attention_landing(model, processor, [utterance(0)], RATE)
    silent = Utterance("silent", utterance(0).units, "a b")
    with pytest.raises(ValueError, match=r"'silent' has no times of words"):
        attention_landing(model, processor, [silent, silent], RATE)
    assert model.config._attn_implementation == "sdpa"
