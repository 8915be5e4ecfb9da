"""Where a joint language model looks in speech while it writes the words: at the units of the word, or elsewhere.

    <U_EN> 12 66 | 17 18 11 | 59 <U2T> how are you      while it predicts `are`, does it look at 17 18 11?

A sequence is the units of an utterance and then its text, which is given to the model (teacher forcing). For each
token of the text, the attention of the position that predicts it is looked at among the unit pieces alone: it lands
where the piece with the most attention overlaps the word in time. Chance is the share of pieces that do.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.speech_text_mixing import Alternation, Utterance
from ..modeling.modality_generation import Glue
from ..modeling.modeling_sutlm import SUTLMForCausalLM
from ..processing.processing_sutlm import SUTLMProcessor
from ..processing.speech_units import Units
from .context_retrieval import following_text_tokens
from .intervals import Interval, ratio_interval
from .report import Measurement

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AlignedSequence:
    """An utterance as units and then text, and which unit pieces belong to which token of the text.

    Args:
        tokens: of the whole sequence, T.
        pieces: the positions of the unit pieces.
        predicting: the positions that predict the tokens of the text, Q.
        aligned: [Q, pieces] true where a piece overlaps the word of the token in time.
    """

    tokens: list[int]
    pieces: slice
    predicting: slice
    aligned: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class AttentionLanding:
    """How often attention lands on the units of the word that is predicted, over all tokens of all texts.

    Args:
        layers: of the attention averaged over the heads of each layer, from the first layer on.
        best_head: of the head that lands most often. It is chosen on every second utterance and counted on the
            others, then the other way round, so that no utterance is counted by a head that it chose.
        heads: these two choices, layer and head from 0.
        chance: the share of pieces that belong to a word.
        utterances, tokens: what was counted.
    """

    layers: list[Interval]
    best_head: Interval
    heads: tuple[tuple[int, int], tuple[int, int]]
    chance: Interval
    utterances: int
    tokens: int


def attention_landing(
    model: SUTLMForCausalLM,
    processor: SUTLMProcessor,
    utterances: Sequence[Utterance],
    frame_rate: float,
    glue: Glue = "switch",
) -> AttentionLanding:
    """Landing in every layer, with intervals over utterances, which are read one by one.

    Args:
        utterances: with the times of their words; at least two.
        frame_rate: frames a second of the units.
        glue: what stands between units and text, `<U2T>` ("switch") or `<T_EN>` ("start").

    Raises `ValueError` for less than two utterances, for one without times of words, and for a model that does not
    give its attention.
    """
    if len(utterances) < 2:
        raise ValueError(f"{len(utterances)} utterances leave none to choose a head on; give at least 2")
    with eager_attention(model):
        counts = [
            landings(_attention(model, sequence), sequence)
            for sequence in (aligned_sequence(item, processor, frame_rate, glue) for item in utterances)
        ]
    return summarized(counts)


def landing_measurements(landing: AttentionLanding, **facts: Any) -> list[Measurement]:
    """A row for each layer, from 1, and one for the best head; `facts` go into all."""
    rows = {f"layer {number}": interval for number, interval in enumerate(landing.layers, 1)}
    chosen = " and ".join(f"head {head + 1} of layer {layer + 1}" for layer, head in sorted(set(landing.heads)))
    rows["best head"] = landing.best_head
    return [
        Measurement.of(
            name,
            "attention landing",
            interval,
            items=landing.utterances,
            chance=landing.chance.value,
            resampled="items",
            note=f"{landing.tokens} tokens" + (f"; {chosen}" if name == "best head" else "; mean of the heads"),
            **facts,
        )
        for name, interval in rows.items()
    ]


# ---- sequences -----------------------------------------------------------------------------------------------------


def aligned_sequence(
    utterance: Utterance, processor: SUTLMProcessor, frame_rate: float, glue: Glue = "switch"
) -> AlignedSequence:
    """The units and the text of an utterance. Words that share an event count as one.

    Raises `ValueError` for an utterance without times of words.
    """
    words = Alternation(frame_rate).word_groups(utterance)
    spans = [("speech", utterance.units)]
    speech = processor.sequence(spans, alternating=glue == "switch", continue_with="text")  # start, pieces, glue
    text, owners = _text_tokens(processor, [word.word for word in words])
    times = piece_times(processor, utterance.units, frame_rate)
    overlaps = np.array([(times[:, 0] < word.end) & (times[:, 1] > word.start) for word in words])  # [words, pieces]
    return AlignedSequence(
        tokens=speech + text,
        pieces=slice(1, len(speech) - 1),
        predicting=slice(len(speech) - 1, len(speech) + len(text) - 1),
        aligned=overlaps[owners],
    )


def piece_times(processor: SUTLMProcessor, units: Units, frame_rate: float) -> Counts:
    """Start and end in seconds of each piece that the processor cuts units into: [pieces, 2]."""
    segmenter = processor.segmenter
    sizes = [len(segmenter.decode([piece])) for piece in segmenter.encode(units.units)]
    frames = [0, *accumulate(units.durations)]  # where each unit begins, and the end
    edges = [frames[unit] for unit in (0, *accumulate(sizes))]
    return np.array(list(pairwise(edges)), dtype=np.float64) / frame_rate


def _text_tokens(processor: SUTLMProcessor, words: Sequence[str]) -> tuple[list[int], list[int]]:
    """Tokens of words with spaces between, and the number of the word each is of."""
    tokens = processor.text_tokens(words[0])
    owners = [0] * len(tokens)
    for number in range(1, len(words)):
        following = following_text_tokens(processor, " ".join(words[:number]), words[number])
        tokens += following
        owners += [number] * len(following)
    return tokens, owners


# ---- attention -----------------------------------------------------------------------------------------------------


@contextmanager
def eager_attention(model: SUTLMForCausalLM) -> Iterator[None]:
    """Attention that can be looked at, which the faster kinds do not keep, while it lasts."""
    config = model.config
    before = {"": config._attn_implementation, "text_config": config.text_config._attn_implementation}
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.no_grad()
def _attention(model: SUTLMForCausalLM, sequence: AlignedSequence) -> Tensor:
    """[layers, heads, T, T] of one sequence."""
    model.eval()
    tokens = torch.tensor([sequence.tokens], device=model.device)
    found = model(tokens, output_attentions=True, use_cache=False, logits_to_keep=1).attentions
    if not found or any(layer is None for layer in found):
        raise ValueError("this model has layers that give no attention; measure one whose layers are all attention")
    return torch.cat([layer.float().cpu() for layer in found])


@dataclass(frozen=True)
class Landings:
    """What one utterance adds: of its `tokens`, how many land.

    Args:
        layers: [layers] by the mean over heads.
        heads: [layers, heads].
        chance: expected of a guess.
    """

    layers: Counts
    heads: Counts
    chance: float
    tokens: int


def landings(attention: Tensor, sequence: AlignedSequence) -> Landings:
    """Counts of one utterance from its attention [layers, heads, T, T], from row to column."""
    among = attention[:, :, sequence.predicting, sequence.pieces]  # [layers, heads, Q, pieces]
    return Landings(
        layers=_landed(among.mean(1), sequence.aligned),
        heads=_landed(among, sequence.aligned),
        chance=float(sequence.aligned.mean(1).sum()),
        tokens=len(sequence.aligned),
    )


def _landed(attention: Tensor, aligned: npt.NDArray[np.bool_]) -> Counts:
    """[..., Q, pieces] -> [...]: for how many tokens the piece with the most attention is aligned."""
    most = attention.argmax(-1).numpy()  # [..., Q]
    return aligned[np.arange(len(aligned)), most].sum(-1).astype(np.float64)


def summarized(counts: Iterable[Landings]) -> AttentionLanding:
    """Shares of tokens, with intervals over utterances."""
    counted = list(counts)
    tokens = [one.tokens for one in counted]
    by_layer = np.stack([one.layers for one in counted])  # [utterances, layers]
    by_head = np.stack([one.heads for one in counted])  # [utterances, layers, heads]
    chosen = (_best_head(by_head[1::2]), _best_head(by_head[::2]))  # each for the other half
    landed = [float(heads[chosen[number % 2]]) for number, heads in enumerate(by_head)]
    return AttentionLanding(
        layers=[ratio_interval(column, tokens) for column in by_layer.T],
        best_head=ratio_interval(landed, tokens),
        heads=chosen,
        chance=ratio_interval([one.chance for one in counted], tokens),
        utterances=len(counted),
        tokens=sum(tokens),
    )


def _best_head(by_head: Counts) -> tuple[int, int]:
    """Layer and head that land most often in [utterances, layers, heads]; of equals the first."""
    totals = by_head.sum(0)
    layer, head = np.unravel_index(totals.argmax(), totals.shape)
    return int(layer), int(head)
