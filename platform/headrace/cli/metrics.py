"""Commands ``headrace metrics``: list the numbers that are defined, check their definitions, make dbt's exposures."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from headrace.cli.shared import Json, emit

app = typer.Typer(no_args_is_help=True, help="List and check the numbers that are defined.")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List every metric with its windows and dimensions."""
    from headrace.config.settings import settings
    from headrace.metrics import load

    catalogue = load(settings())
    lines, found = [], []
    for family in catalogue.families.values():
        lines.append(f"[bold]{escape(family.label)}[/]  {escape(family.file or 'made of the stream')}")
        for metric in family.metrics.values():
            windows = catalogue.windows_of(metric)
            asked = ", ".join(metric.dimensions) or "no dimensions"
            lines.append(f"  {metric.name}  {escape(metric.label)}; {windows[0]} to {windows[-1]}; {asked}")
            found.append(_described(metric, windows))
    emit(found, as_json, lines)


def _described(metric: Any, windows: tuple[str, ...]) -> dict[str, Any]:
    names = ("name", "family", "stream", "label", "description", "unit", "format", "show", "owner")
    own = {name: getattr(metric, name) for name in names}
    return {
        **own,
        "windows": list(windows),
        "dimensions": list(metric.dimensions),
        "models": list(metric.models),
    }


@app.command()
def check(as_json: Json = False) -> None:
    """Check every definition, and that dbt has the models and columns that it names; exit status 1 if not."""
    from headrace.config.settings import settings
    from headrace.metrics import load, manifest
    from headrace.models import project

    config = settings()
    catalogue = load(config)
    found = manifest.faults(catalogue, project.read(project.manifest(config)))
    lines = [f"[red]✗[/] {escape(str(one))}" for one in found]
    if not found:
        many = sum(len(family.metrics) for family in catalogue.families.values())
        lines = [f"{many} metrics are defined, and dbt has what they name"]
    value = [{"file": str(one.file), "key": one.key, "said": str(one)} for one in found]
    emit(value, as_json, lines)
    raise typer.Exit(1 if found else 0)


@app.command()
def exposures(
    write: Annotated[bool, typer.Option("--write", help="Make the file as the definitions are.")] = False,
    as_json: Json = False,
) -> None:
    """Compare dbt's exposures with the definitions; exit status 1 if the file is stale and is not written."""
    from headrace.config.settings import settings
    from headrace.metrics import exposures as made

    config = settings()
    path = made.file_of(config)
    stale = made.write(config) if write else made.is_stale(config)
    said = "written" if stale and write else f"out of date; run '{made.COMMAND}'" if stale else "up to date"
    emit(
        {"file": str(path), "stale": stale, "written": stale and write},
        as_json,
        [f"{escape(str(path))}: {said}"],
    )
    raise typer.Exit(1 if stale and not write else 0)
