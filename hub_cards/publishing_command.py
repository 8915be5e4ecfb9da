"""`speechzoo publish`: a trained folder to the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from .publishing import publish_folder

Folder = Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder that a training script wrote.")]
Repository = Annotated[str, typer.Argument(metavar="ORGANIZATION/NAME", help="Hub id.")]
Backbones = Annotated[bool, typer.Option("--save_backbones", help="Frozen backbones go along.")]
Public = Annotated[bool, typer.Option("--public", help="For everybody; a new repository is private otherwise.")]
DryRun = Annotated[bool, typer.Option("--dry_run", help="Only list what would go, without the network.")]
Tag = Annotated[str | None, typer.Option(help="Name for this commit, such as v1.")]
NoVerify = Annotated[bool, typer.Option("--no_verify", help="Do not first try the code without speechzoo.")]
EditedCard = Annotated[
    str | None,
    typer.Option(
        "--edited_card",
        metavar="keep|replace",
        help="What becomes of a card (README.md) there that a person wrote or edited; refused when left out. One that "
        "is kept says nothing of the new results. A card as speechzoo rendered it is always rendered anew.",
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        metavar="FIELD=ID",
        help="What the processor shall name: unit_model_id=org/units; by its newest commit.",
    ),
]


def publish(
    folder: Folder,
    repository: Repository,
    save_backbones: Backbones = False,
    public: Public = False,
    dry_run: DryRun = False,
    tag: Tag = None,
    no_verify: NoVerify = False,
    edited_card: EditedCard = None,
    name: Names = None,
) -> None:
    """Publish a trained model with its processor, code, card, report and plots, as one commit."""
    try:
        publication = publish_folder(
            folder,
            repository,
            save_backbones=save_backbones,
            verify=not no_verify,
            dry_run=dry_run,
            edited_card=edited_card,
            names=dict(_pair(text) for text in name or ()),
            private=not public,
            tag=tag,
        )
    except (ValueError, OSError) as error:
        typer.echo(f"speechzoo publish: {error}", err=True)  # of several lines where code fails elsewhere
        raise typer.Exit(2) from error
    typer.echo(publication.listing)
    audience = "in private" if publication.private else "for everybody"
    typer.echo(f"published {audience}: {publication.commit_url}" if publication.commit_url else "nothing was sent")


def _pair(text: str) -> tuple[str, str]:
    field, sign, value = text.partition("=")
    if not (field and sign and value):
        raise ValueError(f"--name is '{text}'; write it as FIELD=ID")
    return field, value
