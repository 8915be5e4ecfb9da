"""Makes the result tables of pages anew from the reports in `results/` and `benchmarks/results/`.

python examples/update_readme.py          # rewrites README.md and results/README.md
python examples/update_readme.py --check  # only says, by its exit status, whether one of them is stale
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from speechzoo.hub_cards.result_tables import update_tables
from speechzoo.training.command_line import parse_arguments


@dataclass
class FileArguments:
    """Files."""

    pages: list[Path] = field(
        default_factory=lambda: [Path("README.md"), Path("results/README.md")],
        metadata={"help": "files with marked tables"},
    )
    results: Path = field(default=Path("results"), metadata={"help": "folder of reports"})
    sweeps: Path = field(default=Path("benchmarks/results"), metadata={"help": "folder of the reports of sweeps"})
    check: bool = field(default=False, metadata={"help": "change nothing; exit with 1 when the tables are stale"})


def main() -> int:
    (arguments,) = parse_arguments("Makes the result tables of pages anew from reports.", FileArguments)
    return max(update(page, arguments) for page in arguments.pages)


def update(page: Path, arguments: FileArguments) -> int:
    """The exit status: 0 when the page is, or is now, what the reports say; 1 when stale; 2 when it cannot be made."""
    old = page.read_text(encoding="utf-8")
    try:
        new = update_tables(old, arguments.results, arguments.sweeps)
    except (ValueError, OSError) as error:
        print(f"{page}: {error}", file=sys.stderr)
        return 2
    if arguments.check:
        if new != old:
            print(f"{page} is stale: run python examples/update_readme.py", file=sys.stderr)
        return int(new != old)
    page.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
