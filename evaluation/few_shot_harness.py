"""Few-shot spoken language understanding: every system on every task, with so many shots, cell by cell.

    run = FewShotRun(folder, tasks, materials, systems, grid)
    run.run()
    answers = run.answers()

The predictions of a cell are a JSON-lines file, a line a query, that appears when the cell is complete, so that an
interrupted run goes on where it stopped. Its name ends in a hash of everything that decides the predictions: task,
clips, templates, system, choice of demonstrations, shots and seed. Changed settings are other files.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tqdm.auto import tqdm

from .few_shot_demonstrations import Neighbors, QueryGroup, fixed_demonstrations, query_groups
from .few_shot_tasks import FewShotMaterial, FewShotTask, LabeledClip, PromptTemplate, as_text
from .prompt_readers import Clip, FewShotPrompt

VERSION = 2  # of what a file of predictions means
FIXED, NOTHING = "fixed", "none"
_TOGETHER = 64  # prompts that a scorer gets at once, which is how often the progress bar moves

# Prompts, what may be answered, and what ends an answer in demonstrations -> by the name of a rule the number of each
# prompt's answer, None for another one.
Scorer: TypeAlias = Callable[[Sequence[FewShotPrompt], Sequence[str], str], Mapping[str, Sequence[int | None]]]


@dataclass(frozen=True)
class FewShotSystem:
    """Something that answers prompts.

    facts: plain values that decide its answers, such as the hash of its weights and how it predicts.
    load: makes the scorer; called once, and only where a cell of the system is missing.
    template: its way to write prompts, in place of that of the tasks.
    demonstrations: as what it is shown clips; one that reads text alone has no use for both.
    hears: whether it needs the sound of queries, and of clips that are shown as speech.
    of_seeds: what takes its place under each seed, such as models that were trained with them.
    """

    facts: Mapping[str, Any]
    load: Callable[[], Scorer]
    template: PromptTemplate | None = None
    demonstrations: tuple[Literal["speech", "text"], ...] = ("speech", "text")
    hears: bool = True
    of_seeds: Mapping[int, "FewShotSystem"] = field(default_factory=dict)

    def under(self, seed: int) -> "FewShotSystem":
        """The system that answers under a seed."""
        return self.of_seeds.get(seed, self)


@dataclass(frozen=True)
class NeighborSource:
    """Where nearest neighbors are looked for.

    facts: plain values that decide the embeddings.
    embed: id -> embedding of each clip of a task's material; called only where it is needed.
    other_texts: see `Neighbors`.
    """

    facts: Mapping[str, Any]
    embed: Callable[[FewShotMaterial], Mapping[str, Any]]
    other_texts: bool = False


@dataclass(frozen=True)
class FewShotGrid:
    """What is run: all combinations. `neighbors` are chosen beside fixed draws (`fixed`, unless left out)."""

    shots: tuple[int, ...] = (0, 1, 3, 5)
    seeds: tuple[int, ...] = (0, 1, 2)
    neighbors: Mapping[str, NeighborSource] = field(default_factory=dict)
    fixed: bool = True

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 0 or not self.seeds:
            raise ValueError(f"shots are {self.shots} and seeds {self.seeds}; give at least one of each")
        if any(self.shots) and not self.fixed and not self.neighbors:
            raise ValueError("nothing says which clips are shown; ask for fixed draws or for neighbors")

    @property
    def selections(self) -> list[str]:
        return [FIXED] * self.fixed + list(self.neighbors)


@dataclass(frozen=True)
class Cell:
    """One system on one task. With 0 shots demonstrations and selection are "none".

    demonstrations: as what clips are shown, "speech" or "text". selection: "fixed", or where neighbors are looked for.
    """

    task: str
    system: str
    demonstrations: str
    selection: str
    shots: int
    seed: int

    @property
    def name(self) -> str:
        parts = (
            self.task,
            self.system,
            self.demonstrations,
            self.selection,
            f"{self.shots} shots",
            f"seed {self.seed}",
        )
        return "--".join(re.sub(r"\W+", "_", part.lower()).strip("_") for part in parts)


@dataclass(frozen=True)
class FewShotAnswer:
    """What a system answered to a query.

    id, speaker, label: of the query, whose class is `label`.
    candidates, majority: size of the closed set, and which of it is the most frequent among the clips to show.
    shown: ids of the demonstrations in their order. same_text: whether one of them says what the query says.
    predicted: rule -> class, None where the answer is no label.
    """

    id: str
    speaker: str
    label: str
    candidates: int
    majority: str
    shown: list[str]
    same_text: bool
    predicted: dict[str, str | None]


@dataclass(frozen=True)
class FewShotRun:
    """All cells of a grid, and the folder of their predictions."""

    folder: Path
    tasks: Mapping[str, FewShotTask]
    materials: Mapping[str, FewShotMaterial]
    systems: Mapping[str, FewShotSystem]
    grid: FewShotGrid

    def cells(self) -> list[Cell]:
        """Every cell; a seed that decides nothing (no draw of clips, classes or words, no model) is run once."""
        return [
            Cell(task, system, demonstrations, selection, shots, seed)
            for system, settings in self.systems.items()
            for task in self.tasks
            for shots in self.grid.shots
            for demonstrations in (settings.demonstrations if shots else (NOTHING,))
            for selection in (self.grid.selections if shots else (NOTHING,))
            for seed in self._seeds(settings, self.tasks[task], selection)
        ]

    def _seeds(self, system: FewShotSystem, task: FewShotTask, selection: str) -> tuple[int, ...]:
        is_drawn = selection == FIXED or task.ways is not None or bool(task.symbols)
        return self.grid.seeds if is_drawn or system.of_seeds else self.grid.seeds[:1]

    def _system(self, cell: Cell) -> FewShotSystem:
        return self.systems[cell.system].under(cell.seed)

    def path(self, cell: Cell) -> Path:
        """Where the predictions of a cell are, or will be."""
        system, source = self._system(cell), self.grid.neighbors.get(cell.selection)
        facts = {
            "version": VERSION,
            "task": asdict(self.tasks[cell.task]),
            "material": self.materials[cell.task].fingerprint,
            "system": dict(system.facts),
            "template": asdict(self._template(cell)),
            "neighbors": None if source is None else [dict(source.facts), source.other_texts],
            "cell": [cell.demonstrations, FIXED if source is None else "neighbors", cell.shots, cell.seed],
        }
        text = json.dumps(facts, sort_keys=True)
        return self.folder / f"{cell.name}--{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"

    def missing(self) -> list[Cell]:
        return [cell for cell in self.cells() if not self.path(cell).is_file()]

    def run(self) -> None:
        """Runs what is missing, behind a progress bar that counts queries and tells the time left.

        Raises `ValueError` where a clip that is to be shown or heard has no text or audio, or a class too few clips.
        """
        missing = self.missing()
        sizes = {task: sum(len(part.queries) for part in one.parts) for task, one in self.materials.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        embeddings: dict[tuple[str, str], Mapping[str, Any]] = {}
        with tqdm(total=sum(sizes[cell.task] for cell in missing), desc="few-shot", unit="query") as progress:
            for cells in self._by_system(missing):
                scorer = self._system(cells[0]).load()
                for cell in cells:
                    progress.set_postfix_str(cell.name)
                    answers = list(self._answers(cell, scorer, embeddings, progress.update))
                    write_answers(self.path(cell), answers)

    def _by_system(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """The cells that each system answers, so that one is loaded at a time."""
        found: dict[tuple[str, int | None], list[Cell]] = {}
        for cell in cells:
            seed = cell.seed if cell.seed in self.systems[cell.system].of_seeds else None
            found.setdefault((cell.system, seed), []).append(cell)
        return list(found.values())

    def _answers(
        self,
        cell: Cell,
        scorer: Scorer,
        embeddings: dict[tuple[str, str], Mapping[str, Any]],
        update: Callable[[int], Any],
    ) -> Iterator[FewShotAnswer]:
        template = self._template(cell)
        for group in query_groups(self.tasks[cell.task], self.materials[cell.task], cell.seed):
            shown = self._shown(cell, group, embeddings)
            if self._system(cell).hears:
                _check_spoken(group.queries)
                _check_spoken(one for clips in shown for one in clips if cell.demonstrations != "text")
            as_shown = as_text if cell.demonstrations == "text" else _as_it_is
            prompts = [
                template.prompt(
                    [(as_shown(one.clip), group.words_of(one.label)) for one in clips], query.clip, group.words
                )
                for clips, query in zip(shown, group.queries, strict=True)
            ]
            labels = [template.answer(words) for words in group.words]
            for start in range(0, len(prompts), _TOGETHER):
                rows = slice(start, start + _TOGETHER)
                found = scorer(prompts[rows], labels, template.ending)
                yield from _judged(group, group.queries[rows], shown[rows], found)
                update(len(prompts[rows]))

    def _shown(
        self, cell: Cell, group: QueryGroup, embeddings: dict[tuple[str, str], Mapping[str, Any]]
    ) -> list[list[LabeledClip]]:
        """The demonstrations of each query of a group."""
        task = self.tasks[cell.task]
        classes = group.classes if task.shots_of == "class" else ()
        if cell.selection in (FIXED, NOTHING):
            return [fixed_demonstrations(group.pool, cell.shots, cell.seed, classes)] * len(group.queries)
        source, key = self.grid.neighbors[cell.selection], (cell.selection, cell.task)
        if key not in embeddings:
            embeddings[key] = source.embed(self.materials[cell.task])
        return Neighbors(embeddings[key], source.other_texts).of(group.queries, group.pool, cell.shots, classes)

    def _template(self, cell: Cell) -> PromptTemplate:
        return self._system(cell).template or self.tasks[cell.task].template

    def answers(self) -> dict[Cell, list[FewShotAnswer]]:
        """The answers of every finished cell, queries in the order of their ids."""
        paths = {cell: self.path(cell) for cell in self.cells()}
        return {cell: read_answers(path) for cell, path in paths.items() if path.is_file()}


def _as_it_is(clip: Clip) -> Clip:
    return clip


def _check_spoken(clips: Iterable[LabeledClip]) -> None:
    if silent := [one.clip.id for one in clips if not one.clip.is_spoken]:
        raise ValueError(f"clip '{silent[0]}' has no audio to be heard; read the corpus with its recordings")


def _judged(
    group: QueryGroup,
    queries: Sequence[LabeledClip],
    shown: Sequence[Sequence[LabeledClip]],
    found: Mapping[str, Sequence[int | None]],
) -> Iterator[FewShotAnswer]:
    majority = max(sorted(group.classes), key=Counter(one.label for one in group.pool).__getitem__)
    for number, (query, clips) in enumerate(zip(queries, shown, strict=True)):
        chosen = {rule: numbers[number] for rule, numbers in found.items()}
        yield FewShotAnswer(
            query.clip.id,
            query.speaker,
            query.label,
            len(group.classes),
            majority,
            [one.clip.id for one in clips],
            any(one.clip.text == query.clip.text != "" for one in clips),
            {rule: None if place is None else group.classes[place] for rule, place in chosen.items()},
        )


def write_answers(path: Path, answers: Sequence[FewShotAnswer]) -> None:
    """Writes them in the order of their ids; the file is there in whole or not at all."""
    lines = [json.dumps(asdict(one), ensure_ascii=False) for one in sorted(answers, key=lambda one: one.id)]
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def read_answers(path: Path) -> list[FewShotAnswer]:
    """What `write_answers` wrote."""
    return [FewShotAnswer(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
