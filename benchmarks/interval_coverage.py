"""How often the 95 % intervals of this project hold the true value, in simulations where it is known.

    python benchmarks/interval_coverage.py

An accuracy over clips of few speakers, who differ in how well they are understood, beside plain percentiles of the
same bootstrap; and an accuracy over few seeds and many queries, for several amounts by which seeds shift it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speechzoo.evaluation.few_shot_report import seeds_and_queries_interval
from speechzoo.evaluation.intervals import Interval, mean_interval
from speechzoo.evaluation.report import Measurement, Report, environment, write_report
from speechzoo.training.command_line import as_command, parse_arguments

TRUE_ACCURACY = 0.5


@dataclass
class CoverageArguments:
    """What is simulated. Deviations are of the probability that a clip is right, around a half."""

    simulations: int = 1000
    resamples: int = 1000
    speakers: int = 12
    clips: int = 20
    speaker_deviation: float = 0.2
    seeds: int = 3
    queries: int = 150
    query_deviation: float = 0.2
    seed_deviations: list[float] = field(default_factory=lambda: [0.0, 0.03, 0.1])
    output: Path = Path("results/interval_coverage.json")


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", CoverageArguments)
    measurements = [*of_speakers(arguments), *of_seeds(arguments)]
    write_report(
        arguments.output,
        Report(
            title="Coverage of intervals",
            system="speechzoo",
            command=as_command(),
            environment=environment(),
            measurements=measurements,
            seeds={"simulations": 0},
        ),
    )
    for measurement in measurements:
        print(f"{measurement.name}: {measurement.value:.3f} ({measurement.low:.3f} to {measurement.high:.3f})")


def of_speakers(arguments: CoverageArguments) -> list[Measurement]:
    """Speakers with all of their clips are resampled."""
    speakers = np.repeat(np.arange(arguments.speakers), arguments.clips)

    def draw(lots: np.random.Generator) -> npt.NDArray[np.float64]:
        shifts = arguments.speaker_deviation * lots.standard_normal(arguments.speakers)
        return right(lots, shifts[speakers])

    def ours(values: npt.NDArray[np.float64], seed: int) -> Interval:
        return mean_interval(values, speakers, resamples=arguments.resamples, seed=seed)

    def plain(values: npt.NDArray[np.float64], seed: int) -> Interval:
        means = values.reshape(arguments.speakers, arguments.clips).mean(1)
        drawn = np.random.default_rng(seed).choice(means, (arguments.resamples, len(means))).mean(1)
        return Interval(float(means.mean()), *map(float, np.quantile(drawn, [0.025, 0.975])), len(means))

    told = f"{arguments.speakers} speakers of {arguments.clips} clips"
    return [
        coverage(f"{told}: {name}", draw, interval, arguments)
        for name, interval in (("expanded percentiles", ours), ("plain percentiles", plain))
    ]


def of_seeds(arguments: CoverageArguments) -> list[Measurement]:
    """Queries are resampled, and seeds drawn."""

    def draw(deviation: float) -> Callable[[np.random.Generator], npt.NDArray[np.float64]]:
        def table(lots: np.random.Generator) -> npt.NDArray[np.float64]:
            seeds = deviation * lots.standard_normal((arguments.seeds, 1))
            queries = arguments.query_deviation * lots.standard_normal((1, arguments.queries))
            return right(lots, seeds + queries)

        return table

    def ours(values: npt.NDArray[np.float64], seed: int) -> Interval:
        return seeds_and_queries_interval(values, resamples=arguments.resamples, seed=seed)

    told = f"{arguments.seeds} seeds, {arguments.queries} queries"
    return [
        coverage(f"{told}: seeds deviate by {deviation}", draw(deviation), ours, arguments)
        for deviation in arguments.seed_deviations
    ]


def right(lots: np.random.Generator, shifts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ones where a clip came out right, by its own probability."""
    return (lots.random(shifts.shape) < TRUE_ACCURACY + shifts).astype(np.float64)


def coverage(
    name: str,
    draw: Callable[[np.random.Generator], npt.NDArray[np.float64]],
    interval: Callable[[npt.NDArray[np.float64], int], Interval],
    arguments: CoverageArguments,
) -> Measurement:
    """The share of simulations whose interval holds the true accuracy."""
    intervals = [interval(draw(np.random.default_rng(seed)), seed) for seed in range(arguments.simulations)]
    held = mean_interval([holds(one) for one in intervals])
    note = f"{arguments.simulations} simulations, mean width {mean_width(intervals):.3f}"
    return Measurement.of(name, "coverage", held, note=note)


def holds(interval: Interval) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= TRUE_ACCURACY <= interval.high


def mean_width(intervals: Sequence[Interval]) -> float:
    return float(np.mean([(one.high or 0.0) - (one.low or 0.0) for one in intervals]))


if __name__ == "__main__":
    main()
