"""How a script's run ends: its report beside what it made, pictures, a card, and bars that it has to reach."""

from dataclasses import replace
from pathlib import Path

from transformers.utils import CONFIG_NAME

from ..evaluation.adapter_report import missed_bars, side_by_side
from ..evaluation.learning_curve import plot_learning_curve
from ..evaluation.report import Report, write_report
from ..training.adapter_arguments import RunArguments
from .model_card import write_model_card
from .publishing import publish_folder
from .result_tables import measurement_table


def write_results(report: Report, folder: Path, results_file: Path | None = None) -> Report:
    """Writes the report, the learning curve where it names one, and the card of the model where one was saved.

    Args:
        report: of the run.
        folder: where the model is, and its other plots.
        results_file: where a second copy of the report goes.

    Returns the report with its date.
    """
    report = write_report(folder / "report.json", report)
    if report.learning_curve:
        plot_learning_curve(folder / report.learning_curve, report.history, report.title)
    if (folder / CONFIG_NAME).is_file():  # a run that only tests saves no model
        write_model_card(folder, str(folder), report)
    if results_file:
        write_report(results_file, report)
    return report


def publish_run(folder: Path, repository: str | None, private: bool, verify: bool) -> None:
    """Publishes what a run left in its folder, unless `repository` is `None`; see `publish_folder`.

    Raises `SystemExit`, which says how to do it later, where it fails.
    """
    if repository is None:
        return
    try:
        publication = publish_folder(folder, repository, private=private, verify=verify)
    except (OSError, ValueError) as error:
        later = f"what was trained is in {folder}; publish it later: speechzoo publish {folder} {repository}"
        raise SystemExit(f"{error}\n{later}") from error
    print("published:", publication.commit_url)


def finish_run(report: Report, output: RunArguments) -> None:
    """Writes what `write_results` writes, prints what was measured, and publishes where that was asked for.

    Raises `SystemExit` where a bar of `output.check` was missed, or publishing failed.
    """
    report = replace(report, license=output.card_license, language=output.card_language)
    report = write_results(report, output.output_dir, output.results_file)
    if report.examples:
        print(side_by_side(report.examples), "\n")
    print(measurement_table(report.measurements), "\n")
    print(f"all of it is in {output.output_dir}; seconds by phase: {report.wall_seconds}")
    publish_run(output.output_dir, output.push_to_hub, output.private, output.verify)
    if missed := missed_bars(report.measurements, output.check):
        raise SystemExit("\n".join(missed))
