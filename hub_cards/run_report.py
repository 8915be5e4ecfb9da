"""How a script's run ends: its report beside what it made, a picture of it, and bars that it has to reach."""

from ..evaluation.adapter_report import missed_bars, side_by_side
from ..evaluation.learning_curve import plot_learning_curve
from ..evaluation.report import Report, write_report
from ..training.adapter_arguments import RunArguments
from .result_tables import measurement_table


def finish_run(report: Report, output: RunArguments) -> None:
    """Writes the report, and the learning curve where it names one, and prints what was measured.

    Raises `SystemExit` where a bar of `output.check` was missed.
    """
    report = write_report(output.output_dir / "report.json", report)
    if report.learning_curve:
        plot_learning_curve(output.output_dir / report.learning_curve, report.history, report.title)
    if output.results_file:
        write_report(output.results_file, report)
    if report.examples:
        print(side_by_side(report.examples), "\n")
    print(measurement_table(report.measurements), "\n")
    print(f"all of it is in {output.output_dir}; seconds by phase: {report.wall_seconds}")
    if missed := missed_bars(report.measurements, output.check):
        raise SystemExit("\n".join(missed))
