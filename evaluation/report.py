"""The report of a run: every number that a card or a table shows, as one JSON file that the run wrote."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar, Union, overload

import torch

from .intervals import Interval

SCHEMA_VERSION = 1

_PACKAGES = (
    *("speechzoo", "torch", "transformers", "datasets", "accelerate", "peft", "huggingface-hub", "tokenizers"),
    *("safetensors", "numpy", "scikit-learn", "soundfile", "soxr", "jiwer", "bitsandbytes", "espeakng-loader"),
)


@dataclass(frozen=True)
class Measurement:
    """One number with its 95 % interval and what it is to be compared with.

    What was measured:
        name: What the row of a table is called, `commands, unseen phrases`.
        metric: `wer`, `accuracy`, ... in the Hub's spelling.
        split: Which data, `final test`.
        dataset: The corpus, by Hub id or name.
        task: The Hub's task, `automatic-speech-recognition`.
        items, speakers: How many clips of how many speakers.
    The number:
        value, low, high: The number and its interval; the bounds are `None` where there is none.
        resampled: What the interval resamples, `items`, `speakers` or `items within speakers`.
    What it is compared with, in the same metric:
        chance: Expected of a guess.
        majority: Of always giving the most frequent answer.
        topline: Of the frozen language model on gold text, or another upper bound that `note` names.
    """

    name: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    items: int = 0
    speakers: int | None = None
    split: str = ""
    dataset: str = ""
    task: str = ""
    resampled: str = ""
    chance: float | None = None
    majority: float | None = None
    topline: float | None = None
    note: str = ""

    @classmethod
    def of(cls, name: str, metric: str, interval: Interval, **facts: Any) -> "Measurement":
        """A measurement with the value and the bounds of an interval."""
        return cls(name, metric, interval.value, interval.low, interval.high, **facts)


@dataclass(frozen=True)
class HistoryPoint:
    """A logged step: `loss` in nats, `seconds` since training began, `evaluation` by metric name."""

    step: int
    loss: float | None = None
    learning_rate: float | None = None
    seconds: float | None = None
    evaluation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameters:
    """How many numbers a model has, and how many of them were trained and saved."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        return self.trainable / self.total


@dataclass(frozen=True)
class Corpus:
    """Data that a run used, and for what (`role`: training, choosing settings, final test)."""

    name: str
    role: str
    clips: int
    hours: float | None = None
    speakers: int | None = None
    license: str = ""
    note: str = ""


@dataclass(frozen=True)
class Backbone:
    """A pretrained model inside the system: `role` is speech encoder or language model.

    `on_hub` says whether `id` is a Hub id, which cards link; False for a folder.
    """

    role: str
    id: str
    revision: str | None = None
    license: str = ""
    parameters: int | None = None
    frozen: bool = True
    on_hub: bool = True


@dataclass(frozen=True)
class Example:
    """What was said and what the model gave."""

    reference: str
    hypothesis: str
    task: str = ""
    speaker: str = ""


@dataclass(frozen=True)
class Environment:
    """Where a run took place, without names of hosts or folders."""

    python: str
    platform: str
    cpu: str
    cores: int
    avx512_bf16: bool
    torch_threads: int
    gpu: str | None = None
    gpus: int = 0
    packages: dict[str, str] = field(default_factory=dict)

    @property
    def hardware(self) -> str:
        """`AMD EPYC, 2 cores, AVX512-bf16` or `4 x NVIDIA H200`."""
        if self.gpu:
            return f"{self.gpus} x {self.gpu}" if self.gpus > 1 else self.gpu
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return ", ".join([self.cpu, cores] + (["AVX512-bf16"] if self.avx512_bf16 else []))


@dataclass(frozen=True)
class Report:
    """Everything a run has to tell.

    What was run:
        title, description: Of the model, for people.
        system: The `model_type`, `speech_text_adapter`.
        command: As typed, see `speechzoo.training.command_line.as_command`.
        seeds: By purpose, `{"training": 0}`.
        date: UTC, ISO 8601; `write_report` fills it in when empty.
        environment: See `environment()`.
    What came out:
        measurements, examples, history, wall_seconds (by phase), parameters, limits (sentences).
    What it is made of:
        corpora, backbones, settings (any plain values worth showing).
    For the card:
        paper (arXiv id), license, language, tags, pipeline_tag, learning_curve (file name beside the card), plots (of
        other files beside the card what they show), prompts (task -> what the model reads), self_contained (whether
        the frozen weights are in the checkpoint too).
    """

    title: str
    system: str
    command: str
    description: str = ""
    seeds: dict[str, int] = field(default_factory=dict)
    date: str = ""
    environment: Environment | None = None
    measurements: list[Measurement] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    history: list[HistoryPoint] = field(default_factory=list)
    wall_seconds: dict[str, float] = field(default_factory=dict)
    parameters: Parameters | None = None
    limits: list[str] = field(default_factory=list)
    corpora: list[Corpus] = field(default_factory=list)
    backbones: list[Backbone] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    paper: str = ""
    license: str = "apache-2.0"
    language: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    pipeline_tag: str = "any-to-any"
    learning_curve: str = ""
    plots: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    self_contained: bool = False

    @property
    def pictures(self) -> dict[str, str]:
        """Every picture beside the card -> what it shows."""
        curve = {self.learning_curve: "Training loss and evaluation over the steps of training"}
        return {**(curve if self.learning_curve else {}), **self.plots}


AnyReport = TypeVar("AnyReport", bound=Report)


def environment() -> Environment:
    """The facts of this process: versions, processor, threads, graphics processor."""
    gpus = torch.cuda.device_count()
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=_processor_field("model name") or platform.processor() or platform.machine(),
        cores=_available_cores(),
        avx512_bf16="avx512_bf16" in _processor_field("flags").split(),
        torch_threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name(0) if gpus else None,
        gpus=gpus,
        packages=dict(filter(None, map(_version, _PACKAGES))),
    )


def training_history(log_history: Sequence[Mapping[str, Any]]) -> list[HistoryPoint]:
    """The points of a `Trainer`'s `state.log_history`, one per step, in order.

    `seconds` is there when training ran under `speechzoo.training.progress.LiveProgress`.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for entry in log_history:
        point = by_step.setdefault(entry["step"], {"evaluation": {}})
        for name in ("loss", "learning_rate"):
            if name in entry:
                point[name] = float(entry[name])
        point.setdefault("seconds", entry.get("seconds"))
        point["evaluation"] |= {
            name.removeprefix("eval_"): float(value)
            for name, value in entry.items()
            if name.startswith("eval_") and not name.endswith(("_runtime", "_per_second"))
        }
    points = [HistoryPoint(step=step, **point) for step, point in sorted(by_step.items())]
    return [point for point in points if point.loss is not None or point.evaluation]


def write_report(path: str | Path, report: AnyReport) -> AnyReport:
    """Writes `report` as JSON with sorted keys and returns it with its date filled in.

    Fields that are `None` or an empty list or mapping are left out. Raises `ValueError` for NaN and infinity, which
    JSON does not have, and `TypeError` for values that are not plain.
    """
    if not report.date:
        now = datetime.now(timezone.utc).replace(microsecond=0)
        report = dataclasses.replace(report, date=now.isoformat().replace("+00:00", "Z"))
    content = {**_without_empty(dataclasses.asdict(report)), "schema_version": SCHEMA_VERSION}
    if report.parameters is not None:
        content["parameters"]["share"] = report.parameters.share
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text + "\n", encoding="utf-8")
    return report


@overload
def read_report(path: str | Path) -> Report: ...
@overload
def read_report(path: str | Path, kind: type[AnyReport]) -> AnyReport: ...
def read_report(path: str | Path, kind: type[Report] = Report) -> Report:
    """Reads what `write_report` wrote; `kind` is the class of a report that holds more than others.

    Raises `ValueError` naming an unknown or missing key, or another schema.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    version = content.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path} has schema_version {version}, this version reads {SCHEMA_VERSION}: write it anew")
    # Derived, kept in the file for readers of the JSON alone.
    content.get("parameters", {}).pop("share", None)
    return _build(kind, content, f"{path}: ")


def _build(kind: Any, value: Any, where: str) -> Any:
    """A value of JSON as the annotated type, dataclasses and lists of them included."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _build(next(member for member in arguments if member is not type(None)), value, where)
    if origin is list:
        return [_build(arguments[0], item, f"{where}[{position}]") for position, item in enumerate(value)]
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return value
    annotations = typing.get_type_hints(kind)
    names = {item.name for item in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - names):
        raise ValueError(f"{where}unknown key {unknown[0]!r}; the keys are {', '.join(sorted(names))}")
    try:
        return kind(**{name: _build(annotations[name], item, f"{where}{name} ") for name, item in value.items()})
    except TypeError as error:
        raise ValueError(f"{where}{error}") from error


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item is not None and item not in ([], {})}
    if isinstance(value, (list, tuple)):
        return [_without_empty(item) for item in value]
    return value


def _version(package: str) -> tuple[str, str] | None:
    try:
        return package, importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _available_cores() -> int:
    """Those this process may run on, where the system tells."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _processor_field(name: str) -> str:
    """A line of Linux's table of processors; empty on other systems."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    values = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name)
    return next(values, "")
