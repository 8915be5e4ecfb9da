"""How near CTC forced alignment comes to the times at which a synthesizer says words.

    python benchmarks/word_alignment.py

Clips of unheard voices are aligned with their texts by a CTC model; the synthesizer knows when each word began. Words
that it says as one ("in the") count as one, by the first. Beside it stand words shared out over the clip by letters.
Intervals resample speakers.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from speechzoo.data.corpora import load_corpus
from speechzoo.data.timed_labels import timed_labels
from speechzoo.evaluation.intervals import mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.processing.word_alignment import CTCAligner, WordSpan, spans_of_timings
from speechzoo.training.command_line import as_command, parse_arguments

NEAR = (0.05, 0.1)  # seconds


@dataclass
class BenchmarkArguments:
    """What is aligned."""

    ctc_model: str = "examples/tiny_zoo/speech_encoder"
    corpus: str = "synthetic:whole-stories-test"
    clips: int = 300
    output: Path = Path("results/word_alignment.json")


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    rows = load_corpus(arguments.corpus)
    rows = rows.select(range(min(arguments.clips, len(rows))))
    truth = true_spans(arguments.corpus, rows)
    aligner = CTCAligner.from_pretrained(arguments.ctc_model)
    start = time.perf_counter()
    aligned = aligner.align(rows["audio"], rows["text"])
    seconds = time.perf_counter() - start
    report = Report(
        title="Alignment of words",
        system="sutlm",
        command=as_command(),
        environment=environment(),
        wall_seconds={"alignment": seconds},
        measurements=[
            *measurements("forced alignment by CTC", aligned, truth, rows),
            *measurements("shared out by letters", by_letters(rows), truth, rows),
        ],
        settings={"seconds of audio": sum(rows["duration"]), "CTC model": arguments.ctc_model},
    )
    write_report(arguments.output, report)
    for one in report.measurements:
        print(f"{one.name}: {one.metric} {one.value:.4f} ({one.low} to {one.high})")


def true_spans(corpus: str, rows: Dataset) -> list[list[WordSpan]]:
    words, phones = (timed_labels(corpus, column) for column in ("words", "phones"))
    return [spans_of_timings(words[name], phones[name]) for name in rows["id"]]


def by_letters(rows: Dataset) -> list[list[WordSpan]]:
    """Words that follow each other from end to end of the clip, as long as they have letters."""
    spans = []
    for text, duration in zip(rows["text"], rows["duration"], strict=True):
        words = text.split()
        edges = np.cumsum([0, *map(len, words)]) * duration / sum(map(len, words))
        spans.append([WordSpan(word, *times) for word, *times in zip(words, edges[:-1], edges[1:], strict=True)])
    return spans


def measurements(
    name: str, found: Sequence[Sequence[WordSpan]], truth: Sequence[Sequence[WordSpan]], rows: Dataset
) -> list[Measurement]:
    """How far beginnings of words are off, in milliseconds, and how many are near."""
    apart = [distances(*pair) for pair in zip(found, truth, strict=True)]
    speakers = [speaker for speaker, errors in zip(rows["speaker"], apart, strict=True) for _ in errors]
    values = np.concatenate(apart)

    def row(metric: str, of: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> Measurement:
        facts = {"items": len(apart), "speakers": len(set(speakers)), "resampled": "speakers"}
        note = f"{len(values)} words" if metric.startswith("mean") else ""
        return Measurement.of(name, metric, mean_interval(of(values), speakers), note=note, **facts)

    return [
        row("mean distance of a word's beginning, ms", lambda errors: 1000 * errors),
        *(
            row(f"share of words within {near * 1000:.0f} ms", lambda errors, near=near: errors <= near)
            for near in NEAR
        ),
    ]


def distances(found: Sequence[WordSpan], truth: Sequence[WordSpan]) -> npt.NDArray[np.float64]:
    """Between the beginnings of each true span and of its first word, in seconds."""
    places = np.cumsum([0, *(len(span.word.split()) for span in truth)])[:-1]
    return np.abs([found[place].start - span.start for place, span in zip(places, truth, strict=True)])


if __name__ == "__main__":
    main()
