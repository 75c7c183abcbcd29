"""The command ``headrace init``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headrace.cli.shared import Json, emit


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; `.` for this one.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the project; default: from the folder's name.")
    ] = None,
    empty: Annotated[bool, typer.Option("--empty", help="Without the example stream.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Add what is missing to a folder that is not empty.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a project of your own: pipelines, contracts, dbt models, tests, CI, in a git repository."""
    from headrace.scaffold.project import create

    made = create(folder, name, example=not empty, force=force)
    lines = [f"[bold]{escape(made.name)}[/]: {len(made.written)} files in {escape(str(made.root))}"]
    if made.repository.said:
        lines.append(escape(made.repository.said))
    if made.kept:
        lines.append(f"kept as they were: {escape(', '.join(made.kept))}")
    if "pyproject.toml" in made.kept:
        lines.append("add headrace\\[local] to the dependencies in pyproject.toml")
    lines += ["", "next:"]
    if made.root != Path.cwd():
        lines.append(f"  cd {escape(os.path.relpath(made.root))}")
    steps = (
        [("headrace contracts infer FILE", "a stream from a sample"), ("make test", "once there is one")]
        if empty
        else [("make test", "in seconds"), ("make demo", "the sample through the whole platform")]
    )
    lines += [f"  {command:<30} [dim]# {why}[/]" for command, why in steps]
    value = {
        "root": str(made.root),
        "name": made.name,
        "written": made.written,
        "kept": made.kept,
        "committed": made.repository.committed,
        "said": made.repository.said,
    }
    emit(value, as_json, lines)
