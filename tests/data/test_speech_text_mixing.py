"""Mixed sequences: what each kind carries, where AST switches, which frames it cuts, shares, and exact resume."""

import math
import random
from collections import Counter
from itertools import groupby, pairwise

import pytest
from torch.utils.data import DataLoader

from speechzoo.data.speech_text_mixing import (
    Alternation,
    Concatenation,
    MixedSequences,
    Mixture,
    Part,
    SwitchesByCoin,
    SwitchesByLength,
    SwitchesBySpan,
    UnpairedSpeech,
    UnpairedText,
    Utterance,
    encode_spans,
    spans_of,
)
from speechzoo.data.speech_text_mixing import _shuffled as shuffled
from speechzoo.modeling.modality_generation import KINDS
from speechzoo.processing.speech_units import deduplicate
from speechzoo.processing.word_alignment import WordSpan, word_groups

RATE = 50
SIGNS = ["</s>", "<U_EN>", "<T_EN>", "<U2T>", "<T2U>"]
SWITCHES = [SwitchesByLength(), SwitchesByLength(3), SwitchesBySpan(), SwitchesByCoin(0.4), SwitchesByCoin(0)]


class PairsOfUnits:
    """Two units make one token where they can, so that a token would reach over a switch if it could."""

    eos_token_id = 0

    def token(self, name):
        return SIGNS.index(name)

    def text_tokens(self, text):
        return [1000 + ord(letter) for letter in text]

    def unit_tokens(self, units):
        assert all(a != b for a, b in pairwise(units)), "units come deduplicated"
        numbers = [unit + 1 for unit in units] + [0] * (len(units) % 2)
        return [10_000 + 100 * first + second for first, second in zip(numbers[::2], numbers[1::2], strict=True)]


def read(ids):
    """The inverse of the processor above: [[sign, text or units], ...]."""
    *ids, last = ids
    assert SIGNS[last] == "</s>"
    spans = []
    for token in ids:
        if token < len(SIGNS):
            spans.append([SIGNS[token], "" if SIGNS[token] in ("<T_EN>", "<U2T>") else []])
        elif token < 10_000:
            spans[-1][1] += chr(token - 1000)
        else:
            spans[-1][1] += [number - 1 for number in divmod(token - 10_000, 100) if number]
    return spans


def utterance(seed, words=12, rate=RATE):
    """Random words with pauses, pairs that share an event, and words shorter than a frame."""
    rng, time, spans = random.Random(seed), 0.05, []
    for number in range(words):
        start = spans[-1].start if spans and rng.random() < 0.1 else time
        time = max(time, start + rng.choice([0.004, 0.1, 0.3]) * rng.random())
        spans.append(WordSpan(f"w{number}", start, time))
        time += rng.choice([0, 0, 0.2])
    frames = [rng.randrange(8) for _ in range(int(time * rate) + 2)]
    return Utterance(f"clip{seed}", deduplicate(frames), " ".join(span.word for span in spans), tuple(spans))


def frames_between(item, start, end, rate=RATE):
    """By looking at every frame, the units of those whose middle lies in [start, end), neighbors differing."""
    middles = [(number + 0.5) / rate for number in range(item.units.frames)]
    inside = [unit for unit, middle in zip(item.units.expanded(), middles, strict=True) if start <= middle < end]
    return [unit for unit, _ in groupby(inside)]


# --- kinds ---


def test_each_kind_is_spelled_as_in_the_paper():
    words = (WordSpan("how", 0, 0.06), WordSpan("are", 0.06, 0.1), WordSpan("you", 0.12, 0.16))
    item = Utterance("clip", deduplicate([5, 5, 6, 6, 7, 8, 8, 9]), "how are you", words)
    rng = random.Random(0)
    assert spans_of(UnpairedText().draw("how are you", rng)) == "<T_EN> how are you"
    assert spans_of(UnpairedSpeech().draw(Utterance("clip", item.units), rng)) == "<U_EN> 5 6 7 8 9"
    first, second = (Concatenation(speech_first=share).draw(item, rng) for share in (1, 0))
    assert spans_of(first) == "<U_EN> 5 6 7 8 9 (how are you) <T_EN> how are you"
    assert spans_of(second) == "<T_EN> how are you <U_EN> 5 6 7 8 9 (how are you)"
    every = SwitchesByCoin(1)
    spoken, written = (Alternation(RATE, every, share).draw(item, rng) for share in (1, 0))
    assert spans_of(spoken) == "<U_EN> 5 6 (how) <U2T> are <T2U> 8 9 (you)"
    assert spans_of(written) == "<T_EN> how <T2U> 6 7 8 (are) <U2T> you", "the pause after a word is spoken with it"
    assert encode_spans(written, PairsOfUnits()) == {
        "input_ids": [2, 1104, 1111, 1119, 4, 10_708, 10_900, 3, 1121, 1111, 1117, 0],
        "modality": [2, 1, 1, 1, 2, 0, 0, 2, 1, 1, 1, 2],
    }


@pytest.mark.parametrize("switches", SWITCHES, ids=repr)
def test_alternation_carries_a_sentence_once_and_cuts_its_frames_exactly(switches):
    for seed in range(40):
        item = utterance(seed, words=2 + seed % 25)
        groups = word_groups(item.words, shortest=1 / RATE)
        spans = Alternation(RATE, switches).draw(item, random.Random(seed))
        assert " ".join(span.words for span in spans) == item.text
        assert len(spans) > 1 or len(groups) == 1
        for number, span in enumerate(spans):
            held = taken_from(groups, span.words)
            spoken = (spans[0].units is not None) == (number % 2 == 0)
            assert span.sign == (["<T_EN>", "<U_EN>"] if number == 0 else ["<U2T>", "<T2U>"])[spoken]
            start, end = held[0].start if number else 0, groups[0].start if groups else math.inf
            assert span.units == (frames_between(item, start, end) if spoken else None) != []
        assert groups == []


def taken_from(groups, words):
    """The groups that the words are, taken from the front; a switch inside of one makes it fail."""
    taken = [groups.pop(0)]
    while len(" ".join(group.word for group in taken)) < len(words):
        taken.append(groups.pop(0))
    assert " ".join(group.word for group in taken) == words
    return taken


def test_tokens_are_those_of_the_spans():
    for seed in range(20):
        item = utterance(seed)
        spans = Alternation(RATE, SwitchesBySpan(1, 3)).draw(item, random.Random(seed))
        tokens = encode_spans(spans, PairsOfUnits())
        expected = [[span.sign, span.words if span.units is None else span.units] for span in spans]
        assert read(tokens["input_ids"]) == expected
        kinds = ["control" if id < 5 else "text" if id < 10_000 else "speech" for id in tokens["input_ids"]]
        assert [KINDS[kind] for kind in tokens["modality"]] == kinds


def test_every_frame_is_spoken_once():
    """Spoken and written are exchanged and nothing else, so two sequences share the frames out between them."""
    edges = [0.013, 0.171, 0.33, 0.352, 0.61, 0.87]
    words = tuple(WordSpan(f"w{n}", a, b - 0.01 * (n % 3)) for n, (a, b) in enumerate(pairwise(edges)))
    item = Utterance("clip", deduplicate(range(44)), "", words)
    for seed in range(10):
        one, other = (Alternation(RATE, SwitchesByCoin(), share).draw(item, random.Random(seed)) for share in (0, 1))
        spoken = [unit for spans in zip(one, other, strict=True) for span in spans for unit in span.units or []]
        assert spoken == list(range(44)), "pauses, and silence at the ends, too"


def test_words_beyond_the_last_frame_stay_with_those_before():
    words = (WordSpan("a", 0, 0.1), WordSpan("b", 0.1, 0.2), WordSpan("c", 0.2, 0.3))
    item = Utterance("clip", deduplicate(range(10)), "a b c", words)
    spans = Alternation(RATE, SwitchesByCoin(1), 0).draw(item, random.Random(0))
    assert spans_of(spans) == "<T_EN> a <T2U> 5 6 7 8 9 (b c)"


def test_what_an_utterance_lacks_is_said():
    item = Utterance("clip7", deduplicate([1, 2]))
    with pytest.raises(ValueError, match=r"'clip7' has no text for CST"):
        Concatenation().draw(item, random.Random(0))
    with pytest.raises(ValueError, match=r"'clip7' has no times of words for AST"):
        Alternation().draw(item, random.Random(0))


# --- switch points ---


@pytest.mark.parametrize(("groups", "switches"), [(2, 1), (9, 1), (10, 1), (20, 2), (39, 3)])
def test_switches_grow_with_length_and_fall_anywhere(groups, switches):
    rng = random.Random(0)
    drawn = [SwitchesByLength().draw(groups, rng) for _ in range(4000)]
    assert all(points == sorted(set(points)) and len(points) == switches for points in drawn)
    counts = Counter(point for points in drawn for point in points)
    expected = 4000 * switches / (groups - 1)
    assert set(counts) == set(range(1, groups))
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_spans_have_every_length_of_their_range_alike():
    rng, lengths = random.Random(0), Counter()
    for _ in range(500):
        points = [0, *SwitchesBySpan(2, 8).draw(60, rng)]
        lengths.update(b - a for a, b in pairwise(points))
        assert 60 - points[-1] <= 8
    mean = sum(lengths.values()) / 7
    assert set(lengths) == set(range(2, 9)) and all(abs(count - mean) < 0.15 * mean for count in lengths.values())


def test_coins_are_as_fair_as_asked():
    items = [utterance(seed) for seed in range(200)]
    for share in (0.5, 0.2):
        for policy in (Concatenation(share), Alternation(RATE, speech_first=share)):
            first = sum(policy.draw(item, random.Random(i)).pop(0).sign == "<U_EN>" for i, item in enumerate(items))
            assert abs(first / 200 - share) < 0.1
    points = [len(SwitchesByCoin(0.3).draw(101, random.Random(seed))) for seed in range(100)]
    assert abs(sum(points) / 10_000 - 0.3) < 0.02


# --- the mixture ---


def mixed(mixture=None, seed=0, size=None, clips=7, texts=11):
    items = [utterance(seed) for seed in range(clips)]
    parts = (mixture or Mixture()).parts(items, items, [f"text {number}" for number in range(texts)], RATE)
    return MixedSequences(PairsOfUnits(), parts, seed, size)


def kind_of(spans):
    signs = [span.sign for span in spans]
    if len(signs) == 1:
        return {"<U_EN>": "speech", "<T_EN>": "text"}[signs[0]]
    return "ast" if signs[1] in ("<U2T>", "<T2U>") else "cst"


@pytest.mark.parametrize(
    ("mixture", "shares"),
    [
        (Mixture(), {"speech": 1 / 3, "text": 1 / 3, "cst": 1 / 6, "ast": 1 / 6}),
        (Mixture(paired=0), {"speech": 1 / 2, "text": 1 / 2}),
        (Mixture(alternating=1), {"speech": 1 / 3, "text": 1 / 3, "ast": 1 / 3}),
        (Mixture(0.1, 0.2, 0.7, alternating=0), {"speech": 0.1, "text": 0.7, "cst": 0.2}),
    ],
)
def test_weights_are_shares_of_sequences(mixture, shares):
    sequences = mixed(mixture, size=60)
    counts = Counter()
    for epoch in range(1, 4):
        sequences.set_epoch(epoch - 1)
        counts.update(kind_of(sequences.spans(index)) for index in range(60))
        assert counts.keys() == shares.keys()
        assert all(abs(counts[kind] - 60 * epoch * share) <= 1 for kind, share in shares.items())


def test_kinds_come_in_no_fixed_order():
    """A loader gives each of several machines every n-th sequence; none must get a single kind."""
    sequences = mixed(size=600)
    kinds = [kind_of(sequences.spans(index)) for index in range(600)]
    for every in (2, 3, 4, 6):
        for first in range(every):
            counts = Counter(kinds[first::every])
            assert abs(counts["speech"] * every / 600 - 1 / 3) < 0.16


def test_all_items_of_a_part_are_used_before_one_is_used_again():
    sequences = MixedSequences(PairsOfUnits(), [Part(UnpairedText(), [f"text {n}" for n in range(10)])], size=4)
    used = [sequences._drawn(*divmod(number, 4))[0].words for number in range(40)]
    orders = []
    for start in (0, 20):  # an epoch shuffles what it deals, so only its own ends are ends of a pass
        assert sorted(Counter(used[start : start + 20]).values()) == [2] * 10
        orders.append(used[start : start + 20])
    assert orders[0] != orders[1]


def test_a_shuffle_moves_every_place_anywhere():
    for size in (1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 300):
        assert sorted(shuffled(place, size, "a") for place in range(size)) == list(range(size))
    for place in range(5):
        counts = Counter(shuffled(place, 5, str(key)) for key in range(2000))
        assert all(abs(counts[value] - 400) < 100 for value in range(5))
    large = [shuffled(place, 10**9, "b") for place in range(200)]
    assert len({value // 10**8 for value in large}) == 10


def test_parts_that_cannot_be_mixed_are_refused():
    texts, clips = ["a"], [utterance(0)]
    with pytest.raises(ValueError, match=r"no items for Concatenation"):
        MixedSequences(PairsOfUnits(), Mixture().parts(clips, [], texts, RATE))
    with pytest.raises(ValueError, match=r"weight of UnpairedText is -1"):
        MixedSequences(PairsOfUnits(), Mixture(text=-1).parts(clips, clips, texts, RATE))
    with pytest.raises(ValueError, match=r"nothing to mix"):
        MixedSequences(PairsOfUnits(), Mixture(0, 0, 0).parts(clips, clips, texts, RATE))
    with pytest.raises(ValueError, match=r"alternating is 1.5"):
        Mixture(alternating=1.5)


# --- determinism and resume ---


def test_a_sequence_is_a_function_of_seed_epoch_and_index():
    first, again, other = mixed(seed=1), mixed(seed=1), mixed(seed=2)
    assert [again[index] for index in reversed(range(len(again)))][::-1] == list(first) != list(other)
    first.set_epoch(3)
    assert list(first) != list(again)
    again.set_epoch(3)
    assert again[5] == first[5]
    with pytest.raises(IndexError):
        first[len(first)]


def test_switch_points_are_new_each_epoch():
    sequences = mixed(Mixture(speech=0, text=0, alternating=1, alternation=Alternation(switches=SwitchesBySpan(1, 3))))
    seen: dict[str, set[str]] = {}
    for epoch in range(6):
        sequences.set_epoch(epoch)
        for spans in map(sequences.spans, range(len(sequences))):
            seen.setdefault(" ".join(span.words for span in spans), set()).add(spans_of(spans))
    assert len(seen) == 1, "these clips all say the same words"
    assert len(next(iter(seen.values()))) > 0.9 * 6 * len(sequences)


def test_the_stream_resumes_at_any_place():
    sequences = mixed()
    stream = sequences.stream()
    whole = [next(stream) for _ in range(3 * len(sequences))]
    for start in (1, len(sequences) - 1, 2 * len(sequences) + 3):
        resumed = sequences.stream(start)
        assert [next(resumed) for _ in range(5)] == whole[start : start + 5]
    sequences.set_epoch(1)
    assert list(sequences) == whole[len(sequences) : 2 * len(sequences)]


def test_workers_that_outlive_an_epoch_see_the_next():
    sequences = mixed()
    loader = DataLoader(sequences, batch_size=None, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        sequences.set_epoch(epoch)
        assert list(loader) == [sequences[index] for index in range(len(sequences))]
