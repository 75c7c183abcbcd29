"""Commands ``headrace dbt`` for your own dbt models: sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headrace.cli.shared import Json, emit

app = typer.Typer(no_args_is_help=True, help="Keep your dbt project in step with your contracts.")


@app.callback()
def _group() -> None:
    """Keep `sources` a command of its own name, although there is only one."""


@app.command()
def sources(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit status 1 if a file is stale. For CI.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Generate dbt's sources from the contracts of your streams, into models/sources of your dbt project.

    Says which of your models list columns and lack some since a contract grew.
    """
    from headrace.config.settings import settings
    from headrace.models import sources as generated
    from headrace.models import staging
    from headrace.models.versions import dbt_folder
    from headrace.pipelines import discover_for

    config = settings()
    found = discover_for(config)
    folder = dbt_folder(config)
    stale = generated.compare(folder, found) if check else generated.write(folder, found)
    lines = [f"{name}: [red]{escape(why)}[/]" for name, why in found.broken.items()]
    for one in stale:
        file = escape(_shown(one.path))
        if check:
            lines.append(f"[yellow]{file} is {one.why}[/]")
        else:
            lines.append(f"{file} {'removed' if one.text is None else 'written'}")
    if check and stale:
        lines.append(f"bring them up to date with: {generated.COMMAND}")
    own = generated.own_streams(found)
    if not stale and not found.broken:
        lines.append(
            f"the sources of {', '.join(own)} are as their contracts"
            if own
            else "there is no stream of your own yet; make one with: headrace contracts infer FILE"
        )
    lacking = staging.edits(folder, found)
    lines += [f"[yellow]{escape(str(one))}[/]" for one in lacking]
    value = {
        "stale": [{"file": str(one.path), "why": one.why} for one in stale],
        "models": [{"file": str(one.path), "line": one.line, "said": one.said} for one in lacking],
        "broken": found.broken,
    }
    emit(value, as_json, lines)
    raise typer.Exit(1 if found.broken or (check and stale) else 0)


def _shown(path: Path) -> str:
    """Return a path as seen from here, where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
