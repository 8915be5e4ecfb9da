"""Few-shot spoken language understanding: speech-text models beside a cascade and gold text, on the same prompts.

The tiny zoo, offline, after its projector was trained:
    python examples/train_seal.py
    python examples/evaluate_few_shot.py
Your own models and corpora:
    python examples/evaluate_few_shot.py --config FILE.yaml

Every cell (task, system, demonstrations, shots, seed) is a file of predictions below output_dir, so an interrupted run
goes on where it stopped; --report_only makes the report of what is there.
Without --config, examples/configs/few_shot_tiny_zoo.yaml lies underneath.
"""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import speechzoo  # noqa: F401  makes its models known to transformers
from speechzoo.evaluation.adapter_report import Stopwatch
from speechzoo.evaluation.few_shot_harness import FewShotGrid, FewShotRun
from speechzoo.evaluation.few_shot_page import few_shot_page
from speechzoo.evaluation.few_shot_plot import plot_few_shot
from speechzoo.evaluation.few_shot_report import Comparison, FewShotReport, describe_material, report_run
from speechzoo.evaluation.few_shot_rules import Rule
from speechzoo.evaluation.few_shot_systems import NeighborSettings, SystemSettings, make_neighbors, make_system
from speechzoo.evaluation.few_shot_tasks import FewShotTask, read_material
from speechzoo.evaluation.label_scoring import CONTENT_FREE, silence
from speechzoo.evaluation.report import environment, read_report, write_report
from speechzoo.training.adapter_arguments import option
from speechzoo.training.adapter_training import use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments

TINY_ZOO = Path(__file__).parent / "configs" / "few_shot_tiny_zoo.yaml"


@dataclass
class FewShotArguments:
    """Tasks, systems, and what of them is run."""

    tasks: dict[str, FewShotTask] = field(metadata={"help": "name -> corpora, label, words, template"})
    systems: dict[str, SystemSettings] = field(metadata={"help": "name -> kind and models"})
    neighbors: dict[str, NeighborSettings] = option({}, "name -> where nearest neighbors are looked for")
    shots: list[int] = option([0, 1, 3, 5], "demonstrations, by prompt or by class as each task says")
    seeds: list[int] = option([0, 1, 2], "of draws of clips, classes and words")
    fixed: bool = option(True, "whether fixed draws are run beside neighbors")
    rules: list[Rule] = option(["likelihood"], "how answers are predicted; tables are of the first")
    silence: bool = option(False, "whether calibration hears silence beside reading empty texts")
    stop: str = option("\n", "where a freely generated answer ends")
    rows: int = option(64, "labels scored in a forward")
    batch_size: int = option(16, "prompts answered together by generation")
    only_tasks: list[str] = option([], "run these of the tasks")
    only_systems: list[str] = option([], "run these of the systems")


@dataclass
class FewShotOutputArguments:
    """Comparisons and results."""

    topline: str | None = option(None, "system that reads what was said")
    cascade: str | None = option(None, "system that reads what a recognizer heard")
    baseline: str | None = option(None, "system that the others are compared with, query by query")
    resampled: Literal["queries", "speakers"] = option("queries", "what intervals resample beside seeds")
    output_dir: Path = option(Path("output/few_shot"), "folder of predictions and embeddings")
    results_file: Path = option(Path("results/few_shot.json"), "the report; a page and a plot lie beside it")
    report_only: bool = option(False, "run nothing, report what is finished")
    title: str = option("Few-shot spoken language understanding", "headline of the results")
    limits: list[str] = option([], "what readers should know, one sentence each")


def main() -> None:
    plan, output = parse_arguments(__doc__ or "", FewShotArguments, FewShotOutputArguments, underneath=TINY_ZOO)
    use_all_cores()
    watch = Stopwatch()

    with watch("corpora"):
        tasks = named(plan.tasks, plan.only_tasks)
        materials = {name: read_material(task) for name, task in tasks.items()}
    content_free = (*CONTENT_FREE, silence()) if plan.silence else CONTENT_FREE
    options = {"content_free": content_free, "stop": plan.stop, "rows": plan.rows, "batch_size": plan.batch_size}
    systems = named(plan.systems, plan.only_systems)
    frames = output.output_dir / "frames"
    run = FewShotRun(
        output.output_dir / "predictions",
        tasks,
        materials,
        {
            name: make_system(name, one, materials, tuple(plan.rules), plan.seeds, frames, **options)
            for name, one in systems.items()
        },
        FewShotGrid(
            tuple(plan.shots),
            tuple(plan.seeds),
            {name: make_neighbors(one, output.output_dir / "embeddings") for name, one in plan.neighbors.items()},
            plan.fixed,
        ),
    )
    if not output.report_only:
        with watch("answering"):
            run.run()

    compared = {
        name: system if (system := getattr(output, name)) in systems else None
        for name in ("topline", "cascade", "baseline")
    }
    report = report_run(
        run,
        Comparison(rule=plan.rules[0], resampled=output.resampled, **compared),
        title=output.title,
        system="few_shot_harness",
        command=as_command(),
        seeds={f"seed {number}": seed for number, seed in enumerate(plan.seeds)},
        environment=environment(),
        wall_seconds=watch.seconds,
        limits=output.limits,
        corpora=[corpus for name, task in tasks.items() for corpus in describe_material(task, materials[name])],
        settings={
            "systems": {name: asdict(one) for name, one in systems.items()},
            "neighbors": {name: asdict(one) for name, one in plan.neighbors.items()},
        },
        paper="2407.14875",
    )
    write_report(output.results_file, report)
    report = read_report(output.results_file, FewShotReport)
    page = few_shot_page(report)
    output.results_file.with_suffix(".md").write_text(page, encoding="utf-8")
    plot_few_shot(output.results_file.with_suffix(".png"), report)
    print(page)


def named(found: dict, names: list[str]) -> dict:
    """Those of the names, or all. Raises `SystemExit` for a name that is not there."""
    if unknown := [name for name in names if name not in found]:
        raise SystemExit(f"there is no '{unknown[0]}'; choose from {', '.join(found)}")
    return {name: found[name] for name in names or found}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
