"""What a joint language model of speech units and text is trained on: sequences that carry one, the other, or both.

    unpaired speech  <U_EN> 12 66 17 18 </s>
    unpaired text    <T_EN> how are you </s>
    CST              <U_EN> 12 66 17 18 <T_EN> how are you </s>     or the other way round
    AST              <T_EN> how <T2U> 66 17 <U2T> you </s>          one sentence, said once, in turn spoken and written

    parts = Mixture().parts(speech=clips, paired=clips, text=sentences, frame_rate=50)
    sequences = MixedSequences(processor, parts, seed=0)
    sequences[0]                        # {"input_ids": [...], "modality": [...]}
    print(spans_of(sequences.spans(0))) # <T_EN> how <T2U> 66 17 (are) <U2T> you

What a sequence holds is a function of (seed, epoch, index), so that training resumes at any index.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset

from ..modeling.modality_generation import CONTROL, SPEECH, TEXT
from ..processing.processing_sutlm import START, SWITCH_TO
from ..processing.speech_units import Units, deduplicate
from ..processing.word_alignment import WordSpan, word_groups


class SpeechTextProcessor(Protocol):
    """What mixing asks of a processor."""

    @property
    def eos_token_id(self) -> int: ...

    def token(self, name: str) -> int:
        """The id of one of the four signs."""

    def text_tokens(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""

    def unit_tokens(self, units: list[int]) -> list[int]:
        """The ids of one span of deduplicated units."""


@dataclass(frozen=True)
class Utterance:
    """A clip as units, with what it says as far as known.

    Args:
        id: what errors call it.
        units: of the whole clip.
        text: what is said; CST needs it.
        words: when each word is said; AST needs them.
    """

    id: str
    units: Units
    text: str = ""
    words: tuple[WordSpan, ...] = ()


@dataclass(frozen=True)
class Span:
    """A part of a sequence in one modality, begun by a sign.

    Args:
        sign: the token that begins it.
        words: what is said, "" where that is not known.
        units: deduplicated units of a spoken part, None of a written one.
    """

    sign: str
    words: str
    units: list[int] | None = None


def spans_of(sequence: Sequence[Span]) -> str:
    """A sequence as people read it: signs, units with their words behind them in parentheses, and texts."""
    return " ".join(f"{span.sign} {_content(span)}" for span in sequence)


def _content(span: Span) -> str:
    if span.units is None:
        return span.words
    units = " ".join(map(str, span.units))
    return f"{units} ({span.words})" if span.words else units


def encode_spans(sequence: Sequence[Span], processor: SpeechTextProcessor) -> dict[str, list[int]]:
    """`input_ids` of a sequence, the end of sequence behind, and `modality`, of each its kind.

    Every span is segmented for itself, so that no token reaches over a switch. Kinds are indices into `KINDS` of
    `speechzoo.modeling.modality_generation`.
    """
    ids: list[int] = []
    modality: list[int] = []
    for span in sequence:
        if span.units is None:
            tokens, kind = processor.text_tokens(span.words), TEXT
        else:
            tokens, kind = processor.unit_tokens(span.units), SPEECH
        ids += [processor.token(span.sign), *tokens]
        modality += [CONTROL, *[kind] * len(tokens)]
    return {"input_ids": [*ids, processor.eos_token_id], "modality": [*modality, CONTROL]}


# --- switch points ---


class SwitchPoints(Protocol):
    """Where AST switches between speech and text."""

    def draw(self, groups: int, rng: random.Random) -> list[int]:
        """How many of the word groups stand before each switch: rising, each above 0 and below `groups`."""


@dataclass(frozen=True)
class SwitchesByLength:
    """One switch for so many word groups, but at least one, at boundaries drawn without regard to each other.

    Our reading of the paper, which does not say how it draws them.
    """

    groups_per_switch: int = 10

    def draw(self, groups: int, rng: random.Random) -> list[int]:
        return sorted(rng.sample(range(1, groups), min(max(1, groups // self.groups_per_switch), groups - 1)))


@dataclass(frozen=True)
class SwitchesBySpan:
    """A switch after every `shortest` to `longest` word groups, each length as likely as the others."""

    shortest: int = 2
    longest: int = 8

    def draw(self, groups: int, rng: random.Random) -> list[int]:
        points: list[int] = []
        while (point := (points or [0])[-1] + rng.randint(self.shortest, self.longest)) < groups:
            points.append(point)
        return points


@dataclass(frozen=True)
class SwitchesByCoin:
    """A switch at each boundary with this probability."""

    probability: float = 0.5

    def draw(self, groups: int, rng: random.Random) -> list[int]:
        return [point for point in range(1, groups) if rng.random() < self.probability]


# --- kinds of sequences ---


class SequencePolicy(Protocol):
    """A kind of sequence: how it is made of an item, what is left open being drawn from `rng`."""

    def draw(self, item: Any, rng: random.Random) -> list[Span]: ...


@dataclass(frozen=True)
class UnpairedSpeech:
    """The units of an utterance."""

    def draw(self, item: Utterance, rng: random.Random) -> list[Span]:
        return [Span(START["speech"], item.text, item.units.units)]


@dataclass(frozen=True)
class UnpairedText:
    """A text."""

    def draw(self, item: str, rng: random.Random) -> list[Span]:
        return [Span(START["text"], item)]


@dataclass(frozen=True)
class Concatenation:
    """CST: an utterance's units and then its text, or its text first.

    Args:
        speech_first: how often the units come first.
    """

    speech_first: float = 0.5

    def draw(self, item: Utterance, rng: random.Random) -> list[Span]:
        """Raises `ValueError` for an utterance without text."""
        if not item.text:
            raise ValueError(f"utterance '{item.id}' has no text for CST; leave it out of the paired ones")
        spans = [Span(START["speech"], item.text, item.units.units), Span(START["text"], item.text)]
        return spans if rng.random() < self.speech_first else spans[::-1]


@dataclass(frozen=True)
class Alternation:
    """AST: an utterance said once, in turn as units and as text, changing where one word ends and the next begins.

    The units of a span are those of the frames whose middle lies between the start of its first word and the start of
    the next span's, cut before deduplication: a pause belongs to what comes before it, silence at the ends to the part
    it stands in. Words that share one event, or shorter than a frame, stay with their neighbor.

    Args:
        frame_rate: frames a second of the units.
        switches: where it changes; where the policy finds no place, one is drawn, if there are two word groups.
        speech_first: how often it begins as units.
    """

    frame_rate: float = 50.0
    switches: SwitchPoints = field(default_factory=SwitchesByLength)
    speech_first: float = 0.5

    def draw(self, item: Utterance, rng: random.Random) -> list[Span]:
        """Raises `ValueError` for an utterance without words."""
        groups = self.word_groups(item)
        spoken = rng.random() < self.speech_first
        points = self._switch_points(len(groups), rng)
        frames, spans = item.units.expanded(), []
        cuts = [0, *(self.frame(groups[point].start) for point in points), len(frames)]
        parts = zip(pairwise([0, *points, len(groups)]), pairwise(cuts), strict=True)
        for (first, last), (start, end) in parts:
            words = " ".join(group.word for group in groups[first:last])
            spans.append(_alternating_span(words, frames[start:end], spoken, first == 0))
            spoken = not spoken
        return spans

    def word_groups(self, item: Utterance) -> list[WordSpan]:
        """The words that a switch may part, none beyond the clip's frames."""
        end = item.units.frames / self.frame_rate
        words = [replace(word, start=min(word.start, end), end=min(word.end, end)) for word in item.words]
        groups = word_groups(words, shortest=1 / self.frame_rate)
        if not groups:
            raise ValueError(f"utterance '{item.id}' has no times of words for AST; align it, or leave it out")
        return groups

    def _switch_points(self, groups: int, rng: random.Random) -> list[int]:
        return (self.switches.draw(groups, rng) or [rng.randrange(1, groups)]) if groups > 1 else []

    def frame(self, seconds: float) -> int:
        """The first frame whose middle is not before; a millionth of a frame is rounding."""
        return max(0, math.ceil(round(seconds * self.frame_rate - 0.5, 6)))


def _alternating_span(words: str, frames: Sequence[int], spoken: bool, first: bool) -> Span:
    signs = START if first else SWITCH_TO
    return Span(signs["speech"], words, deduplicate(frames).units) if spoken else Span(signs["text"], words)


# --- the mixture ---


@dataclass(frozen=True)
class Part:
    """Sequences of one kind: what they are made of, and how many there are for those of other parts."""

    policy: SequencePolicy
    items: Sequence[Any]
    weight: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """How often each kind of sequence occurs; by default a third each of speech, pairs and text, as in the paper.

    Args:
        speech, paired, text: weights, in sequences; 0 leaves a kind out.
        alternating: how many of the paired sequences are AST, from 0 to 1; the others are CST.
        concatenation, alternation: how those are made.
    """

    speech: float = 1.0
    paired: float = 1.0
    text: float = 1.0
    alternating: float = 0.5
    concatenation: Concatenation = field(default_factory=Concatenation)
    alternation: Alternation = field(default_factory=Alternation)

    def __post_init__(self) -> None:
        if not 0 <= self.alternating <= 1:
            raise ValueError(f"alternating is {self.alternating}; give the share of AST among pairs, from 0 to 1")

    def parts(
        self, speech: Sequence[Utterance], paired: Sequence[Utterance], text: Sequence[str], frame_rate: float
    ) -> list[Part]:
        """The parts with a weight. The same utterances may serve as speech and as pairs.

        Args:
            frame_rate: of the units, as the unit model's configuration has it.
        """
        alternation = replace(self.alternation, frame_rate=frame_rate)
        parts = [
            Part(UnpairedSpeech(), speech, self.speech),
            Part(UnpairedText(), text, self.text),
            Part(self.concatenation, paired, self.paired * (1 - self.alternating)),
            Part(alternation, paired, self.paired * self.alternating),
        ]
        return [part for part in parts if part.weight]


class MixedSequences(Dataset):
    """Training sequences of several parts, in the order of a shuffle.

    Parts are dealt out by their weights, so that an epoch's shares are exact to one sequence; each part's items are
    all used once before any is used again, over the ends of epochs. Orders, coins and switch points are drawn anew for
    every sequence. The shuffles are computed place by place: nothing is stored, however many items there are.

    Read it in order (`train_sampling_strategy="sequential"` in the Trainer's arguments): it is shuffled, and with a
    shuffling sampler on several processes accelerate tells the sampler alone, not the dataset, which epoch it is.

    Args:
        processor: turns spans into ids.
        parts: what is mixed.
        seed: of all that is drawn.
        size: sequences in an epoch; as many as the parts have items where left out.

    Raises:
        ValueError: there is no part, one has no items, or a weight is not above 0.
    """

    def __init__(
        self, processor: SpeechTextProcessor, parts: Sequence[Part], seed: int = 0, size: int | None = None
    ) -> None:
        for part in parts:
            name = type(part.policy).__name__
            if not len(part.items):
                raise ValueError(f"there are no items for {name}; give some, or give it no weight")
            if not 0 < part.weight < math.inf:
                raise ValueError(f"the weight of {name} is {part.weight}; give one above 0, or leave the part out")
        if not parts:
            raise ValueError("there is nothing to mix; give at least one part a weight")
        self.processor = processor
        self.parts = list(parts)
        self.seed = seed
        self.size = size or sum(len(part.items) for part in parts)
        # Shared, because the workers of a loader may outlive an epoch.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def __len__(self) -> int:
        return self.size

    @property
    def epoch(self) -> int:
        """The epoch that indices belong to."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Indices belong to this epoch from now on, also in the workers of a loader."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        """The epoch that is set, in order."""
        return map(self.__getitem__, range(self.size))

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        """`input_ids` and `modality` of a sequence of the epoch that is set. Raises `IndexError` beyond its end."""
        return encode_spans(self.spans(index), self.processor)

    def spans(self, index: int) -> list[Span]:
        """What the sequence holds, before it is ids; `spans_of` makes it readable."""
        if not 0 <= index < self.size:  # what ends an iteration over the dataset
            raise IndexError(f"there is no sequence {index}; an epoch has {self.size}")
        return self._drawn(self.epoch, index)

    def stream(self, start: int = 0) -> Iterator[dict[str, list[int]]]:
        """One epoch after the other without end, from sequence `start`, counted from the first epoch's first."""
        while True:
            yield encode_spans(self._drawn(*divmod(start, self.size)), self.processor)
            start += 1

    def _drawn(self, epoch: int, index: int) -> list[Span]:
        number = epoch * self.size + _shuffled(index, self.size, f"{self.seed} epoch {epoch}")
        place, turn = _dealt(number, [part.weight for part in self.parts])
        part = self.parts[place]
        again, position = divmod(turn, len(part.items))
        item = part.items[_shuffled(position, len(part.items), f"{self.seed} part {place} {again}")]
        return part.policy.draw(item, random.Random(f"{self.seed} sequence {number}"))


def _dealt(number: int, weights: Sequence[float]) -> tuple[int, int]:
    """Whose turn a number is when all are dealt out by weights, and how many turns that one had before.

    Each in turn takes its share of what those before it left, as evenly spaced as whole numbers allow.
    """
    for place, weight in enumerate(weights):
        share = weight / math.fsum(weights[place:])
        before = math.floor(number * share)
        if math.floor((number + 1) * share) > before:
            return place, before
        number -= before
    raise AssertionError("the last takes all that is left")


def _shuffled(position: int, size: int, key: str) -> int:
    """What stands at a position of `range(size)` when it is shuffled by a key.

    A Feistel network permutes the numbers below a power of four; those from `size` up are sent through again.
    """
    bits = ((size - 1).bit_length() + 1) // 2
    while True:
        left, right = divmod(position, 1 << bits)
        for turn in range(6):
            digest = hashlib.blake2b(f"{key} {turn} {right}".encode(), digest_size=8).digest()
            left, right = right, left ^ int.from_bytes(digest, "little") % (1 << bits)
        position = left << bits | right
        if position < size:
            return position
