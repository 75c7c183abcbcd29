"""``make chaos``: the whole matrix."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from chaos import report
from chaos.arena import Bench
from chaos.matrix import matrix
from chaos.runner import Outcome, run


def main() -> int:
    """Exit status 0 only if nothing was lost, doubled or unverified, and every negative control was caught."""
    parser = argparse.ArgumentParser(prog="chaos", description="crashes, judged from the source's side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the matrix here as JSON too")
    parser.add_argument("--only", default="", metavar="REGEX", help="only cells whose name it matches")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep workers' logs of suspicious cells here"
    )
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N of the cells")
    parser.add_argument("--list", action="store_true", help="list the cells and end")
    given = parser.parse_args()
    cells = [cell for cell in matrix() if re.search(given.only, cell.name)][given.skip :]
    if given.list:
        print(*(cell.name for cell in cells), sep="\n")
        return 0
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # the reader's, while it is killed
    for name in [n for n in os.environ if n.startswith("HEADRACE_")]:
        del os.environ[name]  # a developer's own settings are no part of this
    console = Console(width=None if sys.stdout.isatty() else 160)
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory(prefix="headrace-chaos-") as root,
        Bench(Path(root), keep=given.keep) as bench,
    ):
        for n, cell in enumerate(cells, 1):
            outcomes.append(run(bench, cell))
            console.print(f"{n:3}/{len(cells)} {report.line(outcomes[-1])}", highlight=False, markup=False)
    report.show(outcomes, console)
    if given.json:
        given.json.write_text(json.dumps(report.as_json(outcomes), indent=1))
    return 0 if report.passed(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
