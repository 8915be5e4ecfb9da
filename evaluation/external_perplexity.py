"""PELM, perplexity under an external language model: are a joint model's continuations plausible text?

    PELM = exp(-(1 / |w|) sum_k log P(w_k | w_prompt, w_<k))

w are the judge's tokens of the continuation, which is text or units that a transcriber wrote down, and w_prompt the
text of the prompt, whatever its modality. The conditions are u2u, u2t, t2u and t2t, the modalities of prompt and
continuation (u: units, t: text). The paper (arXiv 2310.08715) names neither judge nor transcriber nor sampling; over
several continuations we sum the surprise of all and divide by all their tokens, so that long ones count more.

PELM has a known defect: it is low where a model says its prompt again. So beside each value stand measures of
repetition, and three systems that generate nothing: the true text, the true units as transcribed (what a speaking
model can reach with this transcriber), and the prompt's text copied as the continuation.

An empty continuation has no perplexity. It is counted in `empty_share`, and named in the note of all values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..modeling.modeling_sutlm import SUTLMForCausalLM
from ..processing.processing_sutlm import SUTLMProcessor
from .intervals import Floats, Interval, sums_intervals
from .prompted_pairs import CONDITIONS, PromptedPair
from .repetition import auto_bleu, copied_ngrams, longest_common_run, self_bleu
from .report import Measurement
from .speech_text_continuations import Continuation, Sampling, sample_continuations
from .text_judge import Surprise
from .unit_transcriber import UnitTranscriber

TRUE_TEXT, TRUE_UNITS, COPIED = "true text", "true units, transcribed", "prompt copied"
METRICS = (
    *("pelm", "prompt_overlap", "longest_common_run", "auto_bleu", "self_bleu", "vert"),
    *("empty_share", "unfinished_share"),
)


class Judge(Protocol):
    """What PELM asks of a language model; `TextJudge` makes one of any causal LM."""

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Surprise]:
        """Of each continuation after its prompt; one with no words has no tokens."""


@dataclass(frozen=True)
class JudgedText:
    """A continuation as text, and what the judge says.

    Args:
        text: it begins with a space unless it goes on inside the prompt's last word.
        finished: whether the model ended it, or was stopped at the most tokens.
    """

    text: str
    surprise: Surprise
    finished: bool = True


@dataclass(frozen=True)
class JudgedSystem:
    """Continuations of one system.

    Args:
        name: a condition, or what else continued.
        prompts: their texts [N].
        samples: the continuations of each prompt [N].
        note: how they came about.
    """

    name: str
    prompts: list[str]
    samples: list[list[JudgedText]]
    note: str = ""


def external_perplexity(
    model: SUTLMForCausalLM,
    processor: SUTLMProcessor,
    judge: Judge,
    pairs: Sequence[PromptedPair],
    transcriber: UnitTranscriber | None = None,
    sampling: Sampling | None = None,
    conditions: Iterable[str] = tuple(CONDITIONS),
) -> list[JudgedSystem]:
    """The model's continuations in each condition, and the systems to compare them with, all judged.

    Raises `ValueError` for an unknown condition, one that ends in units without a transcriber of the same units, and
    a prompt that is empty or too long.
    """
    conditions, sampling = list(conditions), sampling or Sampling()
    _check_conditions(conditions, processor, transcriber)
    model.eval()
    prompts = [pair.prompt["text"] for pair in pairs]
    systems = []
    for condition in conditions:
        source, into = CONDITIONS[condition]
        given, names = [pair.prompt[source] for pair in pairs], [pair.id for pair in pairs]
        drawn = sample_continuations(model, processor, given, source, into, sampling, names)
        texts = _texts(drawn, transcriber, sampling.batch_size)
        finished = [[sample.finished for sample in samples] for samples in drawn]
        systems.append(_judged(condition, judge, prompts, texts, finished, sampling.note))
    if transcriber is not None and any(CONDITIONS[condition][1] == "speech" for condition in conditions):
        written = transcriber.transcribe([pair.continuation["speech"] for pair in pairs], sampling.batch_size)
        systems.append(_judged(TRUE_UNITS, judge, prompts, [[_after_space(text)] for text in written]))
    true = [[_after_space(pair.continuation["text"])] for pair in pairs]
    systems.append(_judged(TRUE_TEXT, judge, prompts, true))
    systems.append(_judged(COPIED, judge, prompts, [[_after_space(prompt)] for prompt in prompts]))
    return systems


def _check_conditions(
    conditions: Sequence[str], processor: SUTLMProcessor, transcriber: UnitTranscriber | None
) -> None:
    for condition in conditions:
        if condition not in CONDITIONS:
            raise ValueError(f"there is no condition '{condition}'; choose {', '.join(CONDITIONS)}")
        if CONDITIONS[condition][1] == "speech" and transcriber is None:
            raise ValueError(f"condition '{condition}' ends in units; give a transcriber, or leave it out")
    if transcriber is not None:
        transcriber.check_units_of(processor)


def _texts(
    drawn: Sequence[Sequence[Continuation]], transcriber: UnitTranscriber | None, batch_size: int
) -> list[list[str]]:
    """What the continuations of each prompt say."""
    spoken = [sample.units for samples in drawn for sample in samples if sample.units is not None]
    written = iter(transcriber.transcribe(spoken, batch_size) if transcriber is not None and spoken else [])
    return [
        [sample.text if sample.units is None else _after_space(next(written)) for sample in samples]
        for samples in drawn
    ]


def _after_space(words: str) -> str:
    return f" {words}" if words else ""


def _judged(
    name: str,
    judge: Judge,
    prompts: list[str],
    texts: Sequence[Sequence[str]],
    finished: Sequence[Sequence[bool]] | None = None,
    note: str = "",
) -> JudgedSystem:
    repeated = [prompt for prompt, samples in zip(prompts, texts, strict=True) for _ in samples]
    surprises = iter(judge.score(repeated, [text for samples in texts for text in samples]))
    finished = finished or [[True] * len(samples) for samples in texts]
    judged = [
        [JudgedText(text, next(surprises), ended) for text, ended in zip(samples, ends, strict=True)]
        for samples, ends in zip(texts, finished, strict=True)
    ]
    return JudgedSystem(name, prompts, judged, note)


# --- measurements ---

# Columns of sums, one row a prompt.
_COLUMNS = (
    *("nats", "tokens", "copied", "ngrams", "run", "words", "auto", "self", "compared"),
    *("filled", "empty", "unfinished", "samples"),
)


def perplexity_measurements(systems: Sequence[JudgedSystem], order: int = 2, **facts: Any) -> list[Measurement]:
    """Rows of a report: of each system PELM and how much it repeats, with intervals over prompts.

    `pelm` has as its topline that of the true units as transcribed, for conditions that end in units, and of the true
    text for others. The measures of repetition are over words:

    - `prompt_overlap`: share of the continuations' n-grams that occur in their prompt;
    - `longest_common_run`: words of the longest run that a continuation shares with its prompt, as a share of it;
    - `auto_bleu`, `self_bleu`, `vert`: repetition inside a continuation, among those of one prompt, and the geometric
      mean of both; the last two only where there are several samples;
    - `empty_share`, `unfinished_share`: of all continuations.

    Args:
        order: n of the n-grams.
        **facts: fields of all rows, such as `dataset` and `split`.

    A measure that nothing defines, such as the PELM of continuations that are all empty, has no row.
    """
    intervals = {system.name: _intervals(system, order) for system in systems}
    rows = []
    for system in systems:
        found = intervals[system.name]
        facts_of_system = {"items": len(system.prompts), "resampled": "items", **facts}
        for metric, interval in found.items():
            topline = _topline(system.name, intervals) if metric == "pelm" else None
            fields = {**facts_of_system, "note": _note(system), "topline": topline}
            rows.append(Measurement.of(system.name, metric, interval, **fields))
    return rows


def _intervals(system: JudgedSystem, order: int) -> dict[str, Interval]:
    """Those of the metrics that are defined."""
    prompts = zip(system.prompts, system.samples, strict=True)
    table = np.array([_sums(prompt.split(), samples, order) for prompt, samples in prompts], dtype=np.float64)
    intervals = sums_intervals(table, _statistics)
    return {name: value for name, value in zip(METRICS, intervals, strict=True) if not np.isnan(value.value)}


def _sums(prompt: list[str], samples: Sequence[JudgedText], order: int) -> list[float]:
    """What a prompt adds to each column."""
    texts = [sample.text.split() for sample in samples if sample.surprise.tokens]
    copied = [copied_ngrams(words, prompt, order) for words in texts]
    compared = self_bleu(texts) if len(texts) > 1 else []
    return [
        sum(sample.surprise.nats for sample in samples),
        sum(sample.surprise.tokens for sample in samples),
        sum(found for found, _ in copied),
        sum(total for _, total in copied),
        sum(longest_common_run(words, prompt) for words in texts),
        sum(map(len, texts)),
        sum(map(auto_bleu, texts)),
        sum(compared),
        len(compared),
        len(texts),
        len(samples) - len(texts),
        sum(not sample.finished for sample in samples),
        len(samples),
    ]


def _statistics(sums: Floats) -> Floats:
    """Columns [..., columns] to the metrics [..., metrics]; NaN where one is undefined."""
    column = {name: sums[..., place] for place, name in enumerate(_COLUMNS)}

    def ratio(above: str, below: str) -> Floats:
        parts = column[below]
        return np.divide(column[above], parts, out=np.full(parts.shape, np.nan), where=parts != 0)

    auto, among = ratio("auto", "filled"), ratio("self", "compared")
    return np.stack(
        [
            np.exp(ratio("nats", "tokens")),
            ratio("copied", "ngrams"),
            ratio("run", "words"),
            auto,
            among,
            np.sqrt(auto * among),
            ratio("empty", "samples"),
            ratio("unfinished", "samples"),
        ],
        axis=-1,
    )


def _topline(name: str, intervals: dict[str, dict[str, Interval]]) -> float | None:
    """The value of what was truly said, where `name` is a condition and that was judged."""
    if name not in CONDITIONS:
        return None
    true = TRUE_UNITS if CONDITIONS[name][1] == "speech" else TRUE_TEXT
    interval = intervals.get(true, {}).get("pelm")
    return None if interval is None else interval.value


def _note(system: JudgedSystem) -> str:
    """What the values have to be read with."""
    texts = [sample for samples in system.samples for sample in samples]
    empty = sum(not sample.surprise.tokens for sample in texts)
    unfinished = sum(not sample.finished for sample in texts)
    parts = [system.note] if system.note else []
    if system.name in CONDITIONS:
        true = TRUE_UNITS if CONDITIONS[system.name][1] == "speech" else TRUE_TEXT
        parts.append(f"topline: {true}")
    if empty == len(texts):
        parts.append("all continuations are empty, so that there is no PELM")
    elif empty:
        parts.append(f"{empty} of {len(texts)} continuations are empty and in no other value")
    if unfinished:
        parts.append(f"{unfinished} were stopped at the most tokens")
    return "; ".join(parts)


__all__ = [
    *("COPIED", "METRICS", "TRUE_TEXT", "TRUE_UNITS"),
    *("Judge", "JudgedSystem", "JudgedText", "external_perplexity", "perplexity_measurements"),
]
