"""Context retrieval accuracy (CRA): does a joint language model find the context that a continuation belongs to?

    context retrieval       a continuation is given; of N prompts the true one should make it most likely
    continuation retrieval  a prompt is given; of N continuations the true one should be the most likely after it

in four conditions, u2u, u2t, t2u and t2t, the modalities of prompt and continuation (u: units, t: text). Which of the
two the paper (arXiv 2310.08715) reports is not known; its name speaks for the first. The second depends on how long
and how common continuations are, so it is also measured per token, and corrected: log P(c | p) - log P(c), with only
the start token of its modality before c. For the first that correction changes nothing.

Candidates are drawn by a seed, and no two of them read the same (`retrieval_candidates`). Where m of them share the
best score, the true one among them counts 1 / m, so that a model which ignores the context is at chance, 1 / N.

Tokens. Cross-modal continuations follow `<U2T>` or `<T2U>`, or `<T_EN>` or `<U_EN>`, as the model was trained on
alternating or concatenated speech and text; those of the same modality follow without a sign. There a text goes on
after a space, and the unit that lasts over the cut is left to the true prompt, whatever prompt comes before, for
deduplicated units never repeat. These are our readings, as is that the end token is not scored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..modeling.modality_generation import Glue, Modality
from ..modeling.modeling_sutlm import SUTLMForCausalLM
from ..processing.processing_sutlm import SUTLMProcessor
from .continuation_scores import Floats, continuation_scores
from .intervals import mean_interval
from .prompted_pairs import CONDITIONS, PromptedPair
from .report import Measurement
from .retrieval_candidates import Candidates, draw_candidates

CONTEXT = "context retrieval"
CONTINUATION = "continuation retrieval"
PER_TOKEN = "continuation retrieval per token"
CORRECTED = "continuation retrieval corrected"


@dataclass(frozen=True)
class RetrievalSettings:
    """How retrieval is measured.

    Args:
        candidates: N, the true one included; `None` for all.
        glue: what stands between two modalities: "switch" (`<U2T>`, `<T2U>`), for models trained on alternating
            speech and text, or "start" (`<T_EN>`, `<U_EN>`), for those trained on speech and text in a row.
        score_end: whether the end token is part of a continuation.
        seed: of the candidates.
        share_caches, rows: as in `continuation_scores`.

    Raises `ValueError` for fewer than two candidates and for another glue.
    """

    candidates: int | None = 10
    glue: Glue = "switch"
    score_end: bool = False
    seed: int = 0
    share_caches: bool = True
    rows: int = 64

    def __post_init__(self) -> None:
        if self.candidates is not None and self.candidates < 2:
            raise ValueError(f"{self.candidates} candidates leave nothing to choose; give 2 or more, or None for all")
        if self.glue not in ("switch", "start"):
            raise ValueError(f"there is no glue '{self.glue}'; choose switch or start")

    @property
    def note(self) -> str:
        """What a number has to be read with."""
        number = "all" if self.candidates is None else self.candidates
        end = "the end token is scored" if self.score_end else "the end token is not scored"
        return f"N = {number}; glue: {self.glue}; {end}; a tie of m counts 1 / m"


@dataclass(frozen=True)
class Retrieval:
    """One definition in one condition.

    Args:
        condition: u2u, u2t, t2u or t2t.
        metric: which definition.
        credits: of each pair 1 where the true one was found, 0 where not, a share where it tied.
        candidates: N of each pair.
        settings: how it was measured.
    """

    condition: str
    metric: str
    credits: list[float]
    candidates: list[int]
    settings: RetrievalSettings

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.credits))

    @property
    def chance(self) -> float:
        """Expected of a guess: 1 / N, where N differs its mean."""
        return float(np.mean([1 / number for number in self.candidates]))

    @property
    def ties(self) -> int:
        """Pairs whose best score several candidates share, the true one among them."""
        return sum(0 < credit < 1 for credit in self.credits)


def context_retrieval(
    model: SUTLMForCausalLM,
    processor: SUTLMProcessor,
    pairs: Sequence[PromptedPair],
    settings: RetrievalSettings | None = None,
    conditions: Iterable[str] = tuple(CONDITIONS),
) -> list[Retrieval]:
    """Both definitions in each condition, the second in three ways; the same candidates everywhere.

    Raises `ValueError` for an unknown condition, for a pair with too few others to draw from, and for one with nothing
    to continue.
    """
    settings = settings or RetrievalSettings()
    candidates = draw_candidates(pairs, settings.candidates, settings.seed)
    return [found for name in conditions for found in _retrieve(model, processor, pairs, candidates, settings, name)]


def retrieval_measurements(results: Iterable[Retrieval], **facts: Any) -> list[Measurement]:
    """A row for each, named by its condition, with its interval over pairs and its chance; `facts` go into all."""
    return [
        Measurement.of(
            result.condition,
            result.metric,
            mean_interval(result.credits),
            items=len(result.credits),
            chance=result.chance,
            resampled="items",
            note=result.settings.note + (f"; ties: {result.ties}" if result.ties else ""),
            **facts,
        )
        for result in results
    ]


# ---- scores --------------------------------------------------------------------------------------------------------


def _retrieve(
    model: SUTLMForCausalLM,
    processor: SUTLMProcessor,
    pairs: Sequence[PromptedPair],
    candidates: Candidates,
    settings: RetrievalSettings,
    condition: str,
) -> list[Retrieval]:
    """The definitions of one condition."""
    scores, lengths, alone = condition_scores(model, processor, pairs, candidates.of_prompts(), settings, condition)
    contexts, continuations = candidates.contexts, candidates.continuations
    found = [(CONTEXT, contexts, context_credits(scores, contexts))]
    for metric, values in continuation_values(scores, lengths, alone).items():
        found.append((metric, continuations, continuation_credits(values, continuations)))
    return [
        Retrieval(condition, metric, credits, [len(numbers) for numbers in compared], settings)
        for metric, compared, credits in found
    ]


def condition_scores(
    model: SUTLMForCausalLM,
    processor: SUTLMProcessor,
    pairs: Sequence[PromptedPair],
    needed: Sequence[Sequence[int]],
    settings: RetrievalSettings,
    condition: str,
) -> tuple[Floats, Floats, Floats]:
    """What retrieval is decided by.

    Args:
        needed: for each prompt the numbers of the continuations to score after it.

    Returns:
        log P [continuation, prompt], `nan` where it is not needed; tokens of each continuation; its log P after the
        start token of its modality alone.
    """
    source, into = _modalities(condition)
    spans = [[(source, pair.prompt[source])] for pair in pairs]
    prompts = [processor.sequence(one, alternating=settings.glue == "switch", continue_with=into) for one in spans]
    start = processor.sequence([], continue_with=into)
    continuations = [continuation_tokens(processor, pair, condition, settings.score_end) for pair in pairs]
    score = partial(continuation_scores, model, share_caches=settings.share_caches, rows=settings.rows)
    scores, alone = score(prompts, continuations, needed), score([start], continuations)[:, 0]
    return scores, np.array([len(tokens) for tokens in continuations], dtype=np.float64), alone


def continuation_tokens(processor: SUTLMProcessor, pair: PromptedPair, condition: str, end: bool) -> list[int]:
    """Tokens of a pair's continuation, the same after every prompt. Raises `ValueError` when nothing is left."""
    source, into = _modalities(condition)
    before, after = pair.prompt[source], pair.continuation[into]
    if condition == "u2u":
        tokens = processor.unit_tokens(after[1:] if before[-1:] == after[:1] else after)
    elif condition == "t2t":
        tokens = following_text_tokens(processor, before, after)
    else:
        tokens = processor.unit_tokens(after) if into == "speech" else processor.text_tokens(after)
    if not tokens:
        raise ValueError(
            f"the continuation of '{pair.id}' has nothing of its own in {condition}; leave the pair out, or take "
            "other units"
        )
    return [*tokens, processor.eos_token_id] if end else tokens


def check_continuations(processor: SUTLMProcessor, pairs: Iterable[PromptedPair]) -> None:
    """Raises `ValueError` for the first pair that some condition has nothing to score of."""
    for pair in pairs:
        for condition in CONDITIONS:
            continuation_tokens(processor, pair, condition, end=False)


def following_text_tokens(processor: SUTLMProcessor, before: str, after: str) -> list[int]:
    """Tokens of a text that follows another after a space.

    Where the tokenizer joins the two, so that the first keeps its tokens no more, those of the second for itself.
    """
    first, both = processor.text_tokens(before), processor.text_tokens(f"{before} {after}")
    return both[len(first) :] if both[: len(first)] == first else processor.text_tokens(after)


def _modalities(condition: str) -> tuple[Modality, Modality]:
    if condition not in CONDITIONS:
        raise ValueError(f"there is no condition '{condition}'; choose {', '.join(CONDITIONS)}")
    return CONDITIONS[condition]


# ---- definitions, of scores [continuation, prompt] -----------------------------------------------------------------


def continuation_values(scores: Floats, lengths: Floats, alone: Floats) -> Mapping[str, Floats]:
    """What continuations of one prompt are compared by.

    Args:
        scores: log P(continuation | prompt) [continuation, prompt].
        lengths, alone: tokens of each continuation, and its log P with nothing before it.
    """
    return {
        CONTINUATION: scores,
        PER_TOKEN: scores / lengths[:, None],
        CORRECTED: scores - alone[:, None],
    }


def context_credits(scores: Floats, contexts: Sequence[Sequence[int]]) -> list[float]:
    """For each continuation whether its own prompt, the first of its `contexts`, makes it most likely."""
    return [_credit(scores[continuation, prompts]) for continuation, prompts in enumerate(contexts)]


def continuation_credits(scores: Floats, continuations: Sequence[Sequence[int]]) -> list[float]:
    """For each prompt whether its own continuation, the first of its `continuations`, is the most likely after it."""
    return [_credit(scores[numbers, prompt]) for prompt, numbers in enumerate(continuations)]


def _credit(scores: Floats) -> float:
    """1 where the first is the highest, its share where others are as high, else 0."""
    best = scores.max()
    return 1 / float((scores == best).sum()) if scores[0] == best else 0.0
