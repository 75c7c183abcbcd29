"""Questions and health: query, status, doctor."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from headrace.cli.shared import Json, StreamName, console, emit, opened


def query(
    sql: Annotated[str, typer.Argument(help="ClickHouse SQL; read only.")],
    as_json: Json = False,
) -> None:
    """Ask the warehouse."""
    from rich import box
    from rich.table import Table

    from headrace.settings import settings
    from headrace.warehouse.clickhouse import ClickHouse

    warehouse = ClickHouse(settings())
    names, rows = warehouse.read_only(sql)
    warehouse.close()
    if as_json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=str))
        return
    table = Table(*names, box=box.SIMPLE)
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row))
    console.print(table)


def status(stream: StreamName = None, as_json: Json = False) -> None:
    """Backlog, lake, warehouse and models of every stream; exit status 1 if something needs a person."""
    from headrace.resilience import circuits
    from headrace.settings import settings
    from headrace.status import inspect

    with opened(stream, patient=False) as found:
        states = [inspect(one) for one in found.values()]
    services = circuits(settings())
    lines = [line for state in states for line in state.lines()]
    for one in services:
        if one.state != "closed":
            when = f", tried again at {one.next_try:%H:%M:%S} UTC" if one.next_try else ""
            lines.append(
                f"[red]✗[/] [bold]{one.service}[/]  circuit {one.state}: {one.failures} failures in a row{when}"
            )
        elif one.failures:
            lines.append(f"[yellow]•[/] [bold]{one.service}[/]  {one.failures} failures in a row")
    value = {"streams": [asdict(state) for state in states], "services": [asdict(one) for one in services]}
    emit(value, as_json, lines)
    raise typer.Exit(0 if all(state.healthy for state in states) else 1)


def doctor(as_json: Json = False) -> None:
    """Look at settings, disk, pipelines, dbt project and services; says what to do about what is wrong."""
    from headrace.doctor import examine

    findings = examine()
    marks = {True: "[green]✓[/]", False: "[red]✗[/]"}
    lines = [f"{marks[f.ok]} [bold]{f.what}[/]  {escape(f.said)}" for f in findings]
    emit([asdict(f) for f in findings], as_json, lines)
    raise typer.Exit(0 if all(f.ok for f in findings) else 1)
