"""The command line `speechzoo`."""

from pathlib import Path
from typing import Annotated

import typer

from .evaluation.scoring_command import application as scoring
from .evaluation.scoring_output import one_line_errors
from .hub_cards.original_conversion import CONFIGURATIONS, REPORT
from .hub_cards.original_conversion import convert as convert_original
from .hub_cards.publishing_command import publish
from .pipelines.predict_command import predict


def _with_dashes(name: str) -> str:
    return name.replace("_", "-")


application = typer.Typer(
    help="Joint speech-text language models: run, measure, convert and publish them. Words of options are joined by "
    "- or _.",
    context_settings={"token_normalize_func": _with_dashes},
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
application.add_typer(scoring, name="score")
application.command()(predict)
application.command()(publish)

ModelType = Annotated[str, typer.Argument(metavar="MODEL", help=f"{' or '.join(CONFIGURATIONS)}.")]
Original = Annotated[Path, typer.Argument(help="The original's .pt, or .safetensors with the original's names.")]
Out = Annotated[Path, typer.Argument(help="Folder for the model.")]
Fields = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="JSON with the original's fields under `model`, if the checkpoint lacks them."),
]


@application.command()
def convert(model_type: ModelType, original: Original, out: Out, configuration: Fields = None) -> None:
    """Convert an original checkpoint of SpeechLM or SpeechUT. Nothing that it holds is run."""
    with one_line_errors("speechzoo convert"):
        done = convert_original(model_type, original, out, configuration)
    report = done.report()
    typer.echo(f"{report['class']} with {report['parameters']:,} parameters in {out}")
    typer.echo(f"{len(done.renamed)} tensors renamed, {len(done.dropped)} dropped; {out / REPORT} tells each")
    for missing in done.missing:
        typer.echo(f"It lacks {missing}.")
