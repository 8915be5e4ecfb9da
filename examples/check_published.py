"""Check that published checkpoints still compute what they did when their loss was recorded.

The tiny zoo, and a checkpoint of every system, from the repository's root:
    python examples/check_published.py
Your own, recorded once with versions you trust, then checked with others:
    python examples/check_published.py --folders output/adapter --record
    python examples/check_published.py --folders output/adapter

A new version of a library that leaves some weights random, or reads them wrongly, ends this with status 1.
"""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from speechzoo.hub_cards.recorded_loss import LOSS_FILE, check_loss, record_loss
from speechzoo.training.adapter_arguments import option
from speechzoo.training.command_line import parse_arguments

ROOT = Path(__file__).parents[1]
PLACES = ("examples/tiny_zoo", "tests/published")
SHIPPED = sorted(path.parent for place in PLACES for path in (ROOT / place).glob(f"*/{LOSS_FILE}"))


@dataclass
class CheckArguments:
    """What is checked."""

    folders: list[str] = option([], f"folders of checkpoints; where not given, those here that hold {LOSS_FILE}")
    record: bool = option(False, "record their losses instead")


def main() -> None:
    (asked,) = parse_arguments(__doc__ or "", CheckArguments)
    folders = [Path(folder) for folder in asked.folders] or SHIPPED
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    changed = [fault for folder in folders if (fault := told(folder, asked.record))]
    if changed:
        sys.exit("\n".join(changed))


def told(folder: Path, record: bool) -> str:
    """Says the loss of a checkpoint; returns what is wrong with it, if anything."""
    try:
        loss = record_loss(folder) if record else check_loss(folder)
    except (ValueError, OSError) as error:
        return str(error)
    print(f"{folder.parent.name}/{folder.name}: {'recorded' if record else 'as recorded'}, {loss:.6f}")
    return ""


if __name__ == "__main__":
    main()
