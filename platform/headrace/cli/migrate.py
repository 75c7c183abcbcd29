"""Commands ``headrace migrate`` for the raw database: status, up, unlock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from headrace.cli.shared import Json, console, emit
from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from headrace.warehouse.migrations.runner import Migrations

app = typer.Typer(
    no_args_is_help=True,
    help="Show and apply the raw database's migrations.",
)
_COLOURS = {"applied": "green", "pending": "yellow", "interrupted": "yellow"}


@contextmanager
def _migrations() -> Iterator[Migrations]:
    from headrace.config.settings import settings
    from headrace.streams.adapters import warehouse as adapter

    warehouse = adapter(settings())
    try:
        yield warehouse.migrations
    finally:
        warehouse.close()


@app.command()
def status(as_json: Json = False) -> None:
    """Show applied and pending migrations; changes nothing. Exit status 1 if something needs a person."""
    from rich import box
    from rich.table import Table

    with _migrations() as migrations:
        found = migrations.status()
    if as_json:
        emit([asdict(one) for one in found], as_json, [])
    else:
        table = Table("migration", "state", "finished at (UTC)", "", box=box.SIMPLE)
        for one in found:
            colour = _COLOURS.get(one.state, "red")
            when = f"{one.finished_at:%Y-%m-%d %H:%M:%S}" if one.finished_at else ""
            table.add_row(escape(one.name), f"[{colour}]{one.state}[/]", when, escape(one.said))
        console.print(table)
    raise typer.Exit(1 if any(one.refused or one.state == "failed" for one in found) else 0)


@app.command()
def up(as_json: Json = False) -> None:
    """Apply pending migrations. Every publishing process does the same when it starts."""
    with _migrations() as migrations:
        done = migrations.up()
    lines = [f"applied {escape(one.name)}" for one in done] or ["nothing to do"]
    emit([one.name for one in done], as_json, lines)


@app.command()
def unlock(
    force: Annotated[
        bool, typer.Option("--force", help="Remove it even if its owner was alive a moment ago.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove the lock of a process that died while it migrated; after 20 seconds, the next one does so by itself."""
    with _migrations() as migrations:
        holder = migrations.lock.holder()
        if holder is not None and migrations.lock.beats(holder) and not force:
            raise Fatal(f"the migrations are locked by {holder}: it is alive; stop it, or give --force")
        if holder is not None:
            migrations.lock.clear()
    line = f"unlocked; it was held by {holder}" if holder else "nobody holds the lock"
    emit({"holder": asdict(holder) if holder else None}, as_json, [escape(line)])
