"""Commands that report health: status, doctor."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from headrace.cli.shared import Json, StreamName, console, emit, opened

if TYPE_CHECKING:
    from headrace.health.status import Health


def status(stream: StreamName = None, as_json: Json = False) -> None:
    """Show streams, checks, alerts and services on one screen.

    Exit status 0: nothing needs a person (warnings do not); 1: something does; 2: wrong usage.
    """
    from headrace.config.settings import settings
    from headrace.health.status import examine

    with opened(stream, retry=False) as found:
        health = examine(found.values(), settings(), only=stream)
    if as_json:
        print(json.dumps({**asdict(health), "healthy": health.healthy}, default=str))
    else:
        show(health)
    raise typer.Exit(0 if health.healthy else 1)


def show(health: Health, now: datetime | None = None, *, to: Console = console) -> None:
    """Print the report of ``status``.

    Args:
        health: The report.
        now: The time (UTC).
        to: The terminal.
    """
    from rich.table import Table
    from rich.text import Text

    from headrace.health.status import WARNING, WELL, WRONG, lines

    styles = {WELL: "green", WRONG: "red", WARNING: "yellow", "": ""}
    table = Table.grid(padding=(0, 1))
    for mark, what, said in lines(health, now):
        style = styles[mark] if mark != WELL and not what else ""
        table.add_row(Text(mark, styles[mark]), Text(what, "bold"), Text(said, style, overflow="fold"))
    to.print(table)


def doctor(as_json: Json = False) -> None:
    """Check settings, disk, pipelines, dbt project and services, and name the next step for each problem."""
    from headrace.health.doctor import examine

    findings = examine()
    marks = {True: "[green]✓[/]", False: "[red]✗[/]"}
    lines = [f"{marks[f.ok]} [bold]{f.what}[/]  {escape(f.said)}" for f in findings]
    emit([asdict(f) for f in findings], as_json, lines)
    raise typer.Exit(0 if all(f.ok for f in findings) else 1)
