"""Makes the result tables of a README anew from the reports in `results/` and `benchmarks/results/`.

python examples/update_readme.py          # rewrites README.md
python examples/update_readme.py --check  # only says, by its exit status, whether README.md is stale
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from speechzoo.hub_cards.result_tables import update_tables
from speechzoo.training.command_line import parse_arguments


@dataclass
class FileArguments:
    """Files."""

    readme: Path = field(default=Path("README.md"), metadata={"help": "file with the marked tables"})
    results: Path = field(default=Path("results"), metadata={"help": "folder of reports"})
    sweeps: Path = field(default=Path("benchmarks/results"), metadata={"help": "folder of the reports of sweeps"})
    check: bool = field(default=False, metadata={"help": "change nothing; exit with 1 when the tables are stale"})


def main() -> int:
    (arguments,) = parse_arguments("Makes the result tables of a README anew from reports.", FileArguments)
    old = arguments.readme.read_text(encoding="utf-8")
    try:
        new = update_tables(old, arguments.results, arguments.sweeps)
    except (ValueError, OSError) as error:
        print(f"{arguments.readme}: {error}", file=sys.stderr)
        return 2
    if arguments.check:
        if new != old:
            print(f"{arguments.readme} is stale: run python examples/update_readme.py", file=sys.stderr)
        return int(new != old)
    arguments.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
