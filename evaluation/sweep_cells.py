"""What a sweep is: one script, run with every combination of some settings and seeds at one compute budget.

A sweep is a YAML file, see `SweepArguments`. Its cells are told apart by a hash of everything that decides their
results, so that a cell which stands in several grids runs once, and runs anew when a setting or the script changes.
"""

# ruff: noqa: RUF009  `_option` returns dataclasses.field.

import hashlib
import itertools
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml


def _option(default: Any, text: str) -> Any:
    """A field with its help; a mutable default is copied for each instance."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Axis:
    """One thing that is varied.

    values: label -> value of `flag`, or label -> flags and their values; a list of plain values labels itself.
    flag: the flag that plain values go to; the axis's name where not given.
    title: for tables and plots; the axis's name where not given.
    scale: of a plot. On `linear` and `log` axes labels are numbers; on `category` axes they stand side by side.
    """

    values: dict[Any, Any] | list[Any]
    flag: str = ""
    title: str = ""
    scale: Literal["category", "linear", "log"] = "category"

    @property
    def labels(self) -> list[str]:
        return [str(label) for label in self.values]

    def settings(self, name: str, label: str) -> dict[str, Any]:
        """The flags of one label of this axis, which is called `name`."""
        values = self.values.values() if isinstance(self.values, dict) else self.values
        value = dict(zip(self.labels, values, strict=True))[label]
        return dict(value) if isinstance(value, Mapping) else {self.flag or name: value}


@dataclass(frozen=True)
class Grid:
    """Axes that are crossed. Every grid gives one report, one table and one plot.

    axes: by name; the first is the horizontal one of the plot.
    title: for people; the grid's name where not given.
    baselines: axis -> label. Every cell is compared, seed by seed, with the cell of these labels that equals it on all
        other axes.
    """

    axes: dict[str, Axis]
    title: str = ""
    baselines: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ShownMeasurement:
    """A measurement of the cells' reports, by its name and metric there, with its title and scale in tables and plots.

    Give `split` where the cells' reports hold it for several, and `mean: geometric` for what is compared by factors,
    such as perplexities.
    """

    name: str
    metric: str
    title: str = ""
    scale: Literal["linear", "log"] = "linear"
    split: str = ""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"

    @property
    def label(self) -> str:
        return self.title or f"{self.name}, {self.metric}"


@dataclass(frozen=True)
class Cell:
    """One run of the script: a combination of labels of one grid, and a seed.

    settings: every flag of the run but those of the runner (folder of outputs, file of results).
    key: SHA-256 of all that decides the results, equal for equal runs of different grids.
    """

    grid: str
    labels: dict[str, str]
    seed: int
    settings: dict[str, Any]
    key: str

    @property
    def name(self) -> str:
        return ", ".join([*(f"{axis} {label}" for axis, label in self.labels.items()), f"seed {self.seed}"])


@dataclass(frozen=True)
class SweepArguments:
    """The sweep."""

    script: Path = field(metadata={"help": "script that each cell runs; it takes --config and flags, writes a report"})
    grids: dict[str, Grid] = field(metadata={"help": "name of the result files -> axes that are crossed"})
    measurements: list[ShownMeasurement] = field(metadata={"help": "what of the cells' reports is shown"})
    title: str = _option("", "headline of the results, with the grid's")
    base_config: Path | None = _option(None, "YAML file that lies under the settings of every cell")
    settings: dict[str, Any] = _option(
        {}, "flags of every cell; an axis may change them, so name here what any axis changes"
    )
    budget: dict[str, Any] = _option({}, "flags that bound the computation, the same for every cell")
    seeds: list[int] = _option([0, 1, 2], "each combination runs with each of them")
    seed_flag: str = _option("seed", "flag that takes the seed")
    inputs: list[Path] = _option([], "files and folders whose content decides results too, such as local weights")
    output_flag: str | None = _option("output_dir", "flag that takes a cell's folder of outputs, or none")
    results_flag: str = _option("results_file", "flag that takes the file of a cell's report")
    folder: Path = _option(Path("output/sweep"), "where cells keep their reports and logs")
    results: Path = _option(Path("benchmarks/results"), "where reports, tables and plots of grids go")

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise ValueError(problem)

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell of every grid. Raises `OSError` when the script, its configuration or an input is not there."""
        given = {
            "script": _content_hash(self.script),
            "base_config": yaml.safe_load(self.base_config.read_text(encoding="utf-8")) if self.base_config else None,
            "inputs": {str(path): _content_hash(path) for path in self.inputs},
        }
        return [self._cell(name, labels, seed, given) for name, labels, seed in self._combinations()]

    def _combinations(self) -> list[tuple[str, dict[str, str], int]]:
        return [
            (name, dict(zip(grid.axes, labels, strict=True)), seed)
            for name, grid in self.grids.items()
            for labels in itertools.product(*(axis.labels for axis in grid.axes.values()))
            for seed in self.seeds
        ]

    def _cell(self, grid: str, labels: dict[str, str], seed: int, given: Mapping[str, Any]) -> Cell:
        settings = {**self.settings, **self.budget}
        for axis, label in labels.items():
            settings |= self.grids[grid].axes[axis].settings(axis, label)
        settings[self.seed_flag] = seed
        decisive = json.dumps({**given, "settings": settings}, sort_keys=True, default=str)
        return Cell(grid, labels, seed, settings, hashlib.sha256(decisive.encode()).hexdigest())

    def words(self, cell: Cell) -> list[str]:
        """The script and the words that give a cell its settings, without those of the runner."""
        config = [f"--config={self.base_config}"] if self.base_config else []
        return [str(self.script), *config, *(word for flag in cell.settings.items() for word in flag_words(*flag))]

    def command(self, cell: Cell) -> str:
        """`words` as one would type them."""
        return shlex.join(["python", *self.words(cell)])


def flag_words(name: str, value: Any) -> list[str]:
    """A value as `speechzoo.training.command_line` reads it from flags."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    if isinstance(value, (list, tuple)):
        return [f"--{name}", *map(_word, value)]
    return [f"--{name}={_word(value)}"]


def _word(value: Any) -> str:
    return "none" if value is None else json.dumps(value) if isinstance(value, Mapping) else str(value)


def _content_hash(path: Path) -> str:
    """Of a file's bytes, or of the names and bytes of all files of a folder."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    names = [f"{file.relative_to(path).as_posix()} {_content_hash(file)}" for file in files]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def select_cells(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that `AXIS=LABEL` conditions leave: any of the labels given for an axis, every axis given.

    `grid=NAME` and `seed=NUMBER` select, too. Raises `ValueError` for a condition that no cell meets.
    """
    wanted: dict[str, set[str]] = {}
    for condition in only:
        axis, separator, label = condition.partition("=")
        if not separator or not any(_facts(cell).get(axis) == label for cell in cells):
            known = sorted({f"{axis}={label}" for cell in cells for axis, label in _facts(cell).items()})
            raise ValueError(f"no cell has {condition!r}; choose of {', '.join(known)}")
        wanted.setdefault(axis, set()).add(label)
    return [cell for cell in cells if all(_facts(cell).get(axis) in labels for axis, labels in wanted.items())]


def _facts(cell: Cell) -> dict[str, str]:
    return {**cell.labels, "grid": cell.grid, "seed": str(cell.seed)}


# Contradictions


def _problems(sweep: SweepArguments) -> list[str]:
    problems = []
    for what, values in (("grids", sweep.grids), ("measurements", sweep.measurements), ("seeds", sweep.seeds)):
        if not values:
            problems.append(f"{what} is empty; name at least one")
    if len(set(sweep.seeds)) < len(sweep.seeds):
        problems.append("seeds names one twice; each is run once")
    titles = [shown.label for shown in sweep.measurements]
    if len(set(titles)) < len(titles):
        problems.append("two measurements have the same title; give each its own")
    reserved = {sweep.seed_flag, sweep.results_flag, sweep.output_flag, "config"}
    for flag in [*sweep.settings, *sweep.budget]:
        if flag in reserved:
            problems.append(f"flag '{flag}' is set by the runner; leave it out of settings and budget")
    if twice := set(sweep.settings) & set(sweep.budget):
        problems.append(f"flag '{min(twice)}' stands in settings and in budget; keep one")
    for name, grid in sweep.grids.items():
        problems += [f"grid '{name}': {problem}" for problem in _grid_problems(name, grid, sweep, reserved)]
    return problems


def _grid_problems(name: str, grid: Grid, sweep: SweepArguments, reserved: set[str | None]) -> list[str]:
    problems = []
    if not re.fullmatch(r"[\w.-]+", name):
        problems.append("its name is that of files; use letters, digits, '_', '-' and '.'")
    if not grid.axes:
        problems.append("it has no axes; name at least one")
    owner: dict[str, str] = {}
    for axis_name, axis in grid.axes.items():
        problems += _axis_problems(axis_name, axis)
        for flag in {flag for label in set(axis.labels) for flag in axis.settings(axis_name, label)}:
            if owner.setdefault(flag, axis_name) != axis_name:
                problems.append(f"axes '{owner[flag]}' and '{axis_name}' both set flag '{flag}'; let one set it")
            if flag in sweep.budget:
                problems.append(f"axis '{axis_name}' sets '{flag}', which is of the budget that all cells share")
            if flag in reserved:
                problems.append(f"axis '{axis_name}' sets '{flag}', which the runner sets")
    for baseline in grid.baselines:
        for axis_name, label in baseline.items():
            if axis_name not in grid.axes or label not in grid.axes[axis_name].labels:
                problems.append(f"baseline '{axis_name}: {label}' is no label of an axis")
    return problems


def _axis_problems(name: str, axis: Axis) -> list[str]:
    if name in ("grid", "seed"):
        return [f"axis '{name}' has a name that selects cells; rename it"]
    if len(set(axis.labels)) < len(axis.labels) or not axis.labels:
        return [f"axis '{name}' needs labels that differ; it has {', '.join(axis.labels) or 'none'}"]
    if isinstance(axis.values, list) and any(isinstance(value, (dict, list)) for value in axis.values):
        return [f"axis '{name}' needs labels for values that are not plain; write 'label: value'"]
    if axis.scale == "category":
        return []
    for label in axis.labels:
        try:
            number = float(label)
        except ValueError:
            return [f"axis '{name}' is {axis.scale}, but its label '{label}' is no number"]
        if axis.scale == "log" and number <= 0:
            return [f"axis '{name}' is log, which has no place for {label}; use category"]
    return []
