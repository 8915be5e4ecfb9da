"""Run a script with every combination of some settings and seeds; make a table and a plot of it.

    python examples/sweep.py examples/configs/sweeps/adapter_ablations.yaml --processes 2
    python examples/sweep.py FILE.yaml --only grid=adapter_depth depth=8 --dry_run

What is finished never runs again: the same command continues an interrupted sweep. Results are
made of all cells that are finished, whatever --only selects.
"""

import sys
from dataclasses import dataclass, field

from speechzoo.evaluation.report import read_report, write_report
from speechzoo.evaluation.sweep_cells import Cell, SweepArguments, select_cells
from speechzoo.evaluation.sweep_plot import plot_sweep
from speechzoo.evaluation.sweep_records import CellFolder
from speechzoo.evaluation.sweep_report import SweepReport, report_grid, result_path
from speechzoo.evaluation.sweep_runner import SweepError, SweepRunner
from speechzoo.evaluation.sweep_tables import sweep_page
from speechzoo.training.command_line import parse_arguments


@dataclass
class RunnerArguments:
    """How it is run."""

    processes: int = field(default=1, metadata={"help": "cells that run at once"})
    threads_per_process: int = field(default=1, metadata={"help": "cores that each cell has for itself"})
    only: list[str] = field(
        default_factory=list, metadata={"help": "run some cells alone: AXIS=LABEL, grid=NAME, seed=NUMBER"}
    )
    dry_run: bool = field(default=False, metadata={"help": "only list the cells and what is done"})
    retry_failed: bool = field(default=False, metadata={"help": "run cells again that failed"})
    keep_output: bool = field(default=False, metadata={"help": "keep what cells write beside reports, checkpoints"})


def main() -> int:
    words = sys.argv[1:]
    # The file may be named without its flag.
    chosen = ["--config", *words] if words and not words[0].startswith("-") else words
    sweep, runner = parse_arguments(__doc__ or "", SweepArguments, RunnerArguments, argv=chosen)
    named = [word for word in chosen if word.endswith((".yaml", ".yml"))][:1]
    try:
        cells = select_cells(sweep.cells, runner.only)
        if runner.dry_run:
            list_cells(sweep, cells)
            return 0
        failed = SweepRunner(
            sweep, runner.processes, runner.threads_per_process, runner.retry_failed, runner.keep_output
        ).run(cells)
        for name in sweep.grids:
            kept = ["--keep_output"] if runner.keep_output else []
            write_results(sweep, name, " ".join(["python examples/sweep.py", *named, *kept]))
    except (SweepError, ValueError, OSError) as error:
        print(f"sweep.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130
    if failed:
        print(f"{len(failed)} cells failed: {'; '.join(cell.name for cell in failed)}", file=sys.stderr)
    return int(bool(failed))


def list_cells(sweep: SweepArguments, cells: list[Cell]) -> None:
    for cell in cells:
        folder = CellFolder.of(sweep.folder, cell)
        print(f"{folder.state():8} {cell.grid}: {cell.name}\n         {folder.path}\n         {sweep.command(cell)}")
    runs = {cell.key: CellFolder.of(sweep.folder, cell).state() for cell in cells}
    print(f"{len(cells)} cells, {len(runs)} different runs, {list(runs.values()).count('done')} of them done")


def write_results(sweep: SweepArguments, grid: str, command: str) -> None:
    """The report of a grid, and its table and plot, which are made of the report as it was written."""
    report = report_grid(sweep, grid, command)
    if report is None:
        return
    path = result_path(sweep, grid, ".json")
    write_report(path, report)
    written = read_report(path, SweepReport)
    plot = result_path(sweep, grid, ".png")
    several = len(written.cells) > 1  # there is nothing to see in a plot of one cell
    if several:
        plot_sweep(plot, written)
    page = result_path(sweep, grid, ".md")
    page.write_text(sweep_page(written, plot.name if several else ""), encoding="utf-8")
    print(f"{page}: {len(written.cells)} cells" + (f", {len(written.missing)} runs not in" * bool(written.missing)))


if __name__ == "__main__":
    sys.exit(main())
