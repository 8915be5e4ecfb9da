"""Utterances cut in two at a word boundary: a prompt and how it goes on, each as speech units and as text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ..data.speech_text_mixing import Alternation, Utterance
from ..modeling.modality_generation import Modality
from ..processing.speech_units import deduplicate
from ..processing.word_alignment import WordSpan

# prompt2continuation: the modality of the prompt and that of the continuation, by the keys of both.
CONDITIONS: dict[str, tuple[Modality, Modality]] = {
    "u2u": ("speech", "speech"),
    "u2t": ("speech", "text"),
    "t2u": ("text", "speech"),
    "t2t": ("text", "text"),
}


@dataclass(frozen=True)
class PromptedPair:
    """The two parts of an utterance.

    Args:
        id: of the utterance.
        prompt, continuation: `{"speech": units, "text": str}`; the units of each were cut before deduplication, so
            that one which lasts over the cut ends the prompt and begins the continuation.
    """

    id: str
    prompt: dict[str, Any]
    continuation: dict[str, Any]


def prompted_pairs(
    utterances: Iterable[Utterance], frame_rate: float, first_words: Mapping[str, int] | None = None
) -> list[PromptedPair]:
    """Cuts each utterance at the word boundary nearest to half of its duration, the same for both modalities.

    The paper (arXiv 2310.08715) does not say where it cuts; this is our reading. A pause at the cut belongs to the
    prompt, silence at the ends to the part it stands in. The texts are those of the words.

    Args:
        utterances: with the times of their words.
        frame_rate: frames a second of the units.
        first_words: id -> how many words the prompt has instead, such as those of a first sentence. Where these words
            share an event with the next, so that nothing can part them, the nearest boundary is taken.

    Raises `ValueError` for an utterance that has no boundary inside, or fewer words than the prompt shall have.
    """
    return [_pair(utterance, frame_rate, (first_words or {}).get(utterance.id)) for utterance in utterances]


def _pair(utterance: Utterance, frame_rate: float, words: int | None) -> PromptedPair:
    alternation = Alternation(frame_rate)
    groups = alternation.word_groups(utterance)
    if len(groups) < 2:
        raise ValueError(f"utterance '{utterance.id}' has no word boundary to be cut at; leave it out")
    if words is None:
        half = utterance.units.frames / frame_rate / 2
        cut = min(range(1, len(groups)), key=lambda place: abs(groups[place].start - half))
    else:
        cut = _after_words(groups, words, utterance.id)
    frames = utterance.units.expanded()
    first = alternation.frame(groups[cut].start)
    return PromptedPair(utterance.id, _part(frames[:first], groups[:cut]), _part(frames[first:], groups[cut:]))


def _after_words(groups: Sequence[WordSpan], words: int, name: str) -> int:
    """How many groups hold so many words, as nearly as possible."""
    counts = list(accumulate(len(group.word.split()) for group in groups))
    if not 0 < words < counts[-1]:
        raise ValueError(f"utterance '{name}' has {counts[-1]} words; a prompt of {words} leaves no two parts")
    return 1 + min(range(len(groups) - 1), key=lambda place: abs(counts[place] - words))


def _part(frames: Sequence[int], groups: Sequence[WordSpan]) -> dict[str, Any]:
    return {"speech": deduplicate(frames).units, "text": " ".join(group.word for group in groups)}
