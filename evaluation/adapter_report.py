"""The final test of a speech-text adapter and the report of its run."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import ModelCard, hf_hub_download, try_to_load_from_cache
from transformers.utils import CONFIG_NAME

from ..modeling.modeling_lora import is_lora
from ..modeling.modeling_quantization import parameter_count
from .adapter_evaluation import HUB_TASKS, Decoding, answer_gold_text, answer_speech, answer_texts, measure
from .cascade import transcribe_clips
from .report import Backbone, Corpus, Example, Measurement, Parameters


@dataclass
class Stopwatch:
    """Wall-clock seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.monotonic() - start, 1)


def check_plan(tests: Mapping[str, Dataset], metrics: Mapping[str, str], bars: Mapping[str, float]) -> None:
    """Raises `ValueError` for an unknown metric, and for a bar on a row that testing `tests` will not give."""
    for task, metric in metrics.items():
        if metric not in HUB_TASKS:
            raise ValueError(f"metrics gives task '{task}' the metric '{metric}'; choose {', '.join(HUB_TASKS)}")
    rows = [_row_name(name, task) for name, examples in tests.items() for task in sorted(set(examples["task"]))]
    for row in bars:
        if row not in rows:
            tested = ", ".join(f"'{name}'" for name in rows) or "none"
            raise ValueError(f"check names the row '{row}', which is not tested; the rows are {tested}")


def first_clips(examples: Dataset, limit: int) -> Dataset:
    """Every task of the first `limit` clips of `task_examples`."""
    kept = set(list(dict.fromkeys(examples["id"]))[:limit])
    return examples.select([index for index, clip in enumerate(examples["id"]) if clip in kept])


def _row_name(name: str, task: str) -> str:
    return f"{name}: {task}"


@dataclass
class FinalTest:
    """Tests a model on named corpora, task by task.

    metrics: of the tasks whose metric is not accuracy. recognizer: a CTC model and its processor; the cascade of its
    transcripts and the model's own LLM then stands beside every task.
    """

    model: Any
    processor: Any
    decoding: Decoding
    metrics: Mapping[str, str]
    train_examples: Dataset
    examples_shown: int = 12
    recognizer: tuple[Any, Any] | None = None
    measurements: list[Measurement] = field(default_factory=list)
    shown: list[Example] = field(default_factory=list)

    def run(self, name: str, examples: Dataset, source: str = "") -> None:
        """Tests on a corpus, which reports call by its source; by its name where that is left out."""
        for task in sorted(set(examples["task"])):
            self._run_task(name, task, examples.filter(lambda row, task=task: row["task"] == task), source or name)

    def _run_task(self, name: str, task: str, examples: Dataset, source: str) -> None:
        answers = answer_speech(self.model, self.processor, examples, self.decoding)
        gold = None
        if all(examples["transcript"]):
            gold = answer_gold_text(self.model, self.processor, examples, self.decoding)
        trained = [
            target
            for known, target in zip(self.train_examples["task"], self.train_examples["target"], strict=True)
            if known == task
        ]
        metric = self.metrics.get(task, "accuracy")
        row = measure(
            _row_name(name, task),
            metric,
            examples,
            answers,
            gold,
            training_targets=trained,
            split="final test",
            dataset=source,
        )
        self.measurements.append(row)
        if self.recognizer is not None:
            self._run_cascade(row, examples, trained)
        pairs = zip(examples["target"], answers, examples["speaker"], strict=True)
        fair = [Example(target, answer, _row_name(name, task), speaker) for target, answer, speaker in pairs]
        step = max(1, len(fair) // max(1, self.examples_shown))
        self.shown += fair[::step][: self.examples_shown]

    def _run_cascade(self, row: Measurement, examples: Dataset, trained: list[str]) -> None:
        transcripts = transcribe_clips(*self.recognizer, examples["audio"]) if self.recognizer else []
        answers = answer_texts(self.model, self.processor, examples, transcripts, self.decoding)
        cascade = measure(
            f"{row.name}, cascade",
            row.metric,
            examples,
            answers,
            None,
            training_targets=trained,
            split=row.split,
            dataset=row.dataset,
            note="transcript of the recognizer, read by the same LLM",
        )
        self.measurements.append(replace(cascade, topline=row.topline))


def describe_corpus(name: str, role: str, examples: Dataset, license: str = "") -> Corpus:
    """Clips, hours and speakers of `task_examples`, each clip counted once."""
    seconds = dict(zip(examples["id"], examples["length"], strict=True))
    speakers = {speaker for speaker in examples["speaker"] if speaker}
    hours = round(sum(seconds.values()) / 3600, 3) or None
    return Corpus(name, role, len(seconds), hours, len(speakers) or None, license)


def describe_backbones(model: Any) -> list[Backbone]:
    """The speech encoder and the LLM with their revisions, sizes and what was done to them."""
    config, parts = model.config, model.model
    held = {"8bit": " in 8 bits", "4bit": " in 4 bits"}.get(config.quantization, "")
    roles = (("speech encoder", "audio", parts.audio_tower), (f"language model{held}", "text", parts.language_model))
    described = []
    for role, name, part in roles:
        source = str(getattr(config, f"{name}_model_id"))
        lora = f" with LoRA of rank {config.lora_rank}" if any(map(is_lora, part.state_dict())) else ""
        described.append(
            describe_backbone(
                role + lora,
                source,
                getattr(config, f"{name}_model_revision"),
                parameters=parameter_count(part),
                frozen=not any(parameter.requires_grad for parameter in part.parameters()),
            )
        )
    return described


def describe_backbone(
    role: str, source: str, revision: str | None = None, *, parameters: int | None = None, frozen: bool = True
) -> Backbone:
    """A pretrained model that was loaded: of a folder its name, of a Hub id the commit; and the license its card has.

    Args:
        role: what it is in the system.
        source: folder or Hub id.
        revision: as the user or the configuration has it; where not given, the commit in the cache.
        parameters: how many numbers it has.
        frozen: whether it stayed as it was.
    """
    folder = Path(source)
    if folder.is_dir():
        return Backbone(role, folder.name, revision, _license(folder / "README.md"), parameters, frozen, on_hub=False)
    cached = try_to_load_from_cache(source, CONFIG_NAME, revision=revision)
    commit = Path(cached).parent.name if isinstance(cached, str) else revision
    return Backbone(role, source, commit, _hub_license(source, commit), parameters, frozen)


def _license(card: Path) -> str:
    return str(ModelCard.load(card).data.license or "") if card.is_file() else ""


def _hub_license(repository: str, revision: str | None) -> str:
    """Empty where the Hub is out of reach, or has no card."""
    try:
        return _license(Path(hf_hub_download(repository, "README.md", revision=revision)))
    except OSError:
        return ""


def count_parameters(model: Any) -> Parameters:
    """What is trained and all there is."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Parameters(trainable, parameter_count(model))


def tuning_settings(config: Any) -> dict[str, Any]:
    """What of a model's configuration says how its backbones were tuned and held; nothing where they were not."""
    names = ["unfrozen", "quantization"]
    if config.lora_modules:
        names += ["lora_modules", "lora_rank", "lora_alpha", "lora_dropout", "lora_seed"]
    return {name: value for name in names if (value := getattr(config, name))}


def side_by_side(examples: list[Example]) -> str:
    """Targets over answers, for the terminal."""
    lines = []
    for example in examples:
        lines += [f"[{example.task}, {example.speaker}]", f"  wanted  {example.reference}"]
        lines += [f"  given   {example.hypothesis}"]
    return "\n".join(lines)


def missed_bars(measurements: list[Measurement], bars: Mapping[str, float]) -> list[str]:
    """What falls short of `bars` (row name -> least accuracy or greatest WER), whose rows `check_plan` has seen."""
    rows = {row.name: row for row in measurements}
    missed = []
    for name, bar in bars.items():
        row = rows[name]
        if row.value > bar if row.metric == "wer" else row.value < bar:
            missed.append(f"{name}: {row.metric} {row.value:.3f} misses the bar of {bar}")
    return missed
