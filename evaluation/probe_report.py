"""The report of zero-shot probes: what several trainings of one model answered, in the mean over their seeds.

It is a report as sweeps make them, with the probes on its only axis and without costs, for nothing was trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from .report import Example, Measurement, Report, read_report
from .sweep_cells import Grid, ShownMeasurement
from .sweep_report import (
    PairedDifference,
    ShownColumn,
    SweepAxis,
    SweepCell,
    SweepReport,
    SweepValue,
    paired_differences,
    value_of,
)
from .sweep_tables import difference_table, value_table
from .zero_shot_probes import SCORES, Probe, ProbedClips, reference_value

AXIS = "probe"

# What one model was measured to do, by probe and score; `None` for a score that its answers leave undefined.
SeedMeasurements = dict[tuple[str, str], Measurement | None]


def report_probes(
    probes: Mapping[str, Probe],
    measured: Mapping[int, SeedMeasurements],
    trained_prompts: Mapping[str, str],
    **facts: Any,
) -> SweepReport:
    """Values over seeds, and differences from each probe's baseline.

    trained_prompts: task -> prompt, what the models were trained on. facts: further fields of the report.
    """
    values = [
        _over_seeds(name, score, measured)
        for score in SCORES
        for name in probes
        if any(rows.get((name, score)) for rows in measured.values())
    ]
    return SweepReport(
        seeds={f"seed {number}": seed for number, seed in enumerate(measured)},
        axes=[SweepAxis(AXIS, AXIS, list(probes))],
        shown=[
            ShownColumn(one.title, name) for name, one in SCORES.items() if one.title in {v.measured for v in values}
        ],
        cells=[SweepCell({AXIS: name}, _settings(probe, trained_prompts)) for name, probe in probes.items()],
        values=values,
        differences=_differences(probes, values),
        limits=[*facts.pop("limits", []), *_undefined(probes, measured)],
        prompts={name: probe.prompt for name, probe in probes.items()},
        **facts,
    )


def _over_seeds(name: str, score: str, measured: Mapping[int, SeedMeasurements]) -> SweepValue:
    by_seed = {seed: row for seed, rows in measured.items() if (row := rows.get((name, score))) is not None}
    return value_of({AXIS: name}, ShownMeasurement(name, score, SCORES[score].title), by_seed)


def _undefined(probes: Mapping[str, Probe], measured: Mapping[int, SeedMeasurements]) -> list[str]:
    """One sentence for each score that some answers leave undefined: its mean is over the other seeds."""
    sentences = []
    for name, probe in probes.items():
        for score in probe.scores:
            if seeds := [str(seed) for seed, rows in measured.items() if rows[name, score] is None]:
                which = f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
                sentences.append(f"The answers to '{name}' with {which} hold nothing to count: {SCORES[score].title}.")
    return sentences


def _settings(probe: Probe, trained_prompts: Mapping[str, str]) -> dict[str, Any]:
    trained = [task for task, prompt in trained_prompts.items() if prompt == probe.prompt]
    return {
        "prompt": probe.prompt,
        "context": probe.context,
        "reference": probe.reference,
        "trained_as": ", ".join(trained),
    }


def _differences(probes: Mapping[str, Probe], values: list[SweepValue]) -> list[PairedDifference]:
    found = []
    for baseline in dict.fromkeys(probe.baseline for probe in probes.values() if probe.baseline):
        compared = {baseline, *(name for name, probe in probes.items() if probe.baseline == baseline)}
        chosen = [value for value in values if value.labels[AXIS] in compared]
        found += paired_differences(Grid({}, baselines=[{AXIS: baseline}]), chosen)
    return found


def probe_page(report: SweepReport) -> str:
    """The Markdown page: prompts, a table for each score, differences, answers beside what was wanted, the command."""
    parts = [f"# {report.title}", _how_made(report), _prompt_table(report)]
    for column in report.shown:
        parts += [f"## {column.title}", value_table(report, column.title)]
        if differences := [one for one in report.differences if one.measured == column.title]:
            parts.append(difference_table(report, differences))
    if report.limits:
        parts += ["## To know", "\n".join(f"- {limit}" for limit in report.limits)]
    if report.examples:
        parts += ["## Answers", _answer_table(report)]
    parts += ["## Command", f"```\n{report.command}\n```"]
    return "\n\n".join(parts) + "\n"


def _how_made(report: SweepReport) -> str:
    items = max((value.items for value in report.values), default=0)
    speakers = max((value.speakers or 0 for value in report.values), default=0)
    hardware = f"{report.environment.hardware}; " if report.environment else ""
    adapters = f"{len(report.seeds)} trained adapter{'' if len(report.seeds) == 1 else 's'}"
    return (
        f"{items} clips{f' of {speakers} speakers' if speakers else ''} a probe, means over {adapters}. "
        f"Intervals are Student's, with these as the units: what another training would give on the "
        f"same clips; they may reach beyond what a score can be and have no width where all agree. Those of each "
        f"training over speakers are in the report. Chance: the answers given to other clips. Topline: the language "
        f"model's answers to the true text. {hardware}{_minutes(report.wall_seconds)}; {report.date[:10]}."
    )


def _minutes(seconds: Mapping[str, float]) -> str:
    return f"{math.ceil(sum(seconds.values()) / 60)} min in all"


def _prompt_table(report: SweepReport) -> str:
    lines = [
        "| probe | prompt | read as context | wanted | trained on this prompt |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cell in report.cells:
        settings = cell.settings
        cells = [cell.labels[AXIS], f"`{settings['prompt']}`", settings["context"] or "nothing", settings["reference"]]
        lines.append(_row([*cells, f"yes, as {settings['trained_as']}" if settings["trained_as"] else "no"]))
    return "\n".join(lines)


def _answer_table(report: SweepReport) -> str:
    lines = ["| probe | wanted | given |", "| --- | --- | --- |"]
    return "\n".join(lines + [_row([one.task, one.reference, one.hypothesis]) for one in report.examples])


def _row(cells: list[str]) -> str:
    escaped = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
    return "| " + " | ".join(escaped) + " |"


# ---- what the report is told ----------------------------------------------------------------------------------------


def sources_by_seed(sources: Sequence[str], train_data: Sequence[str]) -> dict[int, str]:
    """Models by the seed in the report beside them, or by their number where there is none; in the order of seeds.

    Raises `ValueError` for two models of one seed, and when a report names a training corpus that `train_data`, which
    probes are checked against, does not name.
    """
    found: dict[int, str] = {}
    for number, source in enumerate(sources):
        path = Path(source) / "report.json"
        report = read_report(path) if path.is_file() else Report("", "", "")
        named = {name for corpus in report.corpora if corpus.role == "training" for name in corpus.name.split(", ")}
        if unnamed := sorted(named - set(train_data)):
            raise ValueError(f"'{source}' was trained on '{unnamed[0]}', which train_data does not name; add it")
        seed = report.seeds.get("training", number)
        if seed in found:
            raise ValueError(f"'{found[seed]}' and '{source}' both have the seed {seed}; give one model for each")
        found[seed] = source
    return dict(sorted(found.items()))


def some_answers(name: str, probe: Probe, corpus: Dataset, answers: Sequence[str], count: int) -> list[Example]:
    """Every so many clips: what was wanted and given, with what was said and read."""
    examples = []
    for index in list(range(0, len(corpus), max(1, len(corpus) // max(1, count))))[:count]:
        row = corpus[index]
        read_too = f", read: {row[probe.context]}" if probe.context else ""
        task = f"{name} (said: {row['text']}{read_too})"
        examples.append(Example(row[probe.reference], answers[index], task, str(row.get("speaker", ""))))
    return examples


def made_up_by_references(clips: Mapping[str, ProbedClips], probes: Mapping[str, Probe]) -> list[str]:
    """One sentence for each probe whose references hold content words that were never said."""
    values = {
        name: reference_value("hallucination", clips[name])
        for name, probe in probes.items()
        if "hallucination" in probe.scores
    }
    return [
        f"Of the content words in the references of '{name}', {value:.3f} were never said."
        for name, value in values.items()
        if value
    ]
