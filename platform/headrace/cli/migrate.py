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
    from headrace.core.batch import Table
    from headrace.pipelines import Discovered
    from headrace.warehouse.clickhouse import ClickHouse
    from headrace.warehouse.migrations.runner import Migrations

app = typer.Typer(
    no_args_is_help=True,
    help="Show and apply the raw database's migrations, also those that contracts need.",
)
_COLOURS = {"applied": "green", "pending": "yellow", "interrupted": "yellow"}


@contextmanager
def _warehouse() -> Iterator[ClickHouse]:
    from headrace.config.settings import settings
    from headrace.streams.adapters import warehouse as adapter

    warehouse = adapter(settings())
    try:
        yield warehouse
    finally:
        warehouse.close()


@contextmanager
def _migrations() -> Iterator[Migrations]:
    with _warehouse() as warehouse:
        yield warehouse.migrations


def _tables(found: Discovered) -> list[Table]:
    return [table for one in found.pipelines.values() for table in one.tables]


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
def plan(as_json: Json = False) -> None:
    """Show what would be run for all streams, from files and from contracts; changes nothing.

    Exit status 1 if something needs a person.
    """
    from headrace.config.settings import settings
    from headrace.models.staging import edits
    from headrace.models.versions import dbt_folder
    from headrace.pipelines import discover_for

    config = settings()
    found = discover_for(config)
    with _warehouse() as warehouse:
        states, grown = warehouse.plan(_tables(found))
    files = [one for one in states if one.to_do]
    refused = [one for one in states if one.refused]
    lacking = edits(dbt_folder(config), found)
    lines = [f"{name}: [red]{escape(why)}[/]" for name, why in found.broken.items()]
    lines += [f"[red]{escape(one.said)}[/]" for one in refused]
    lines += [f"{escape(one.name)} would be run" for one in files]
    for one in grown:
        lines += [f"[red]{escape(line)}[/]" for line in one.refused]
        if one.statements and not one.refused:
            lines.append(f"{escape(one.table)}, from version {one.version} of its contract:")
            lines += [f"  {escape(' '.join(sql.split()))}" for sql in one.statements]
        lines += [f"[yellow]{escape(line)}[/]" for line in one.notes]
    lines += [f"[yellow]{escape(str(one))}[/]" for one in lacking]
    value = {
        "files": [asdict(one) for one in (*files, *refused)],
        "generated": [asdict(one) for one in grown],
        "models": [{"file": str(one.path), "line": one.line, "said": one.said} for one in lacking],
        "broken": found.broken,
    }
    emit(value, as_json, lines or ["nothing to do"])
    raise typer.Exit(1 if refused or found.broken or any(one.refused for one in grown) else 0)


@app.command()
def up(as_json: Json = False) -> None:
    """Apply pending migrations, and those that contracts need of tables that are there.

    Every publishing process does the same when it starts.
    """
    from headrace.config.settings import settings
    from headrace.pipelines import discover_for

    with _warehouse() as warehouse:
        done = warehouse.migrations.up()
        grown, failed = warehouse.grow(_tables(discover_for(settings())))
    done += grown
    lines = [f"applied {escape(one.name)}" for one in done] or ["nothing to do"]
    emit([one.name for one in done], as_json, lines)
    if failed:
        raise failed[0]


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
