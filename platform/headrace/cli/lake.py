"""Commands ``headrace lake``: versions, show, at, restore."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.shared import Json, console, emit, opened, say
from headrace.core.errors import Fatal, Retriable

if TYPE_CHECKING:
    import polars as pl

    from headrace.lake.delta import DeltaLakeTable
    from headrace.streams.stream import Stream

app = typer.Typer(no_args_is_help=True, help="Look at the lake as it was, and take it back.")

Which = Annotated[
    str, typer.Argument(metavar="STREAM|TABLE", help="A stream, or a table such as events_rejected.")
]
OneStream = Annotated[str, typer.Argument(metavar="STREAM")]
_MOMENT = "2026-11-29, 2026-11-29T12:00 (UTC) or 2026-11-29T12:00+01:00"


def moment_of(text: str) -> datetime:
    """Read a moment (ISO 8601); without a zone it is UTC, and a day is its beginning.

    Raises:
        Fatal: It is none.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Fatal(f"{text!r} is no moment that is understood; write it as {_MOMENT}") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


@app.command("versions")
def lake_versions(
    which: Annotated[
        str | None, typer.Argument(metavar="[STREAM|TABLE]", help="Default: all tables.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Newest versions to list, beside those kept by the day.")
    ] = 10,
    as_json: Json = False,
) -> None:
    """List the versions of lake tables that can be read; the last of each day is marked with *."""
    from rich.markup import escape

    with _tables(which) as tables:
        found = {name: table.versions(limit) for name, table in tables.items() if table.exists()}
    if as_json:
        print(json.dumps({name: asdict(one) for name, one in found.items()}, default=str))
        return
    for number, (name, one) in enumerate(found.items()):
        span = f"{one.first:,} to {one.newest:,} can be read, and those with * beside them"
        console.print(f"{chr(10) if number else ''}[bold]{escape(name)}[/]  [dim]{span}[/]", soft_wrap=True)
        rows = [
            (
                ("* " if v.daily else "  ") + str(v.version),
                f"{v.at:%Y-%m-%d %H:%M:%S}" if v.at else "",
                v.rows,
                v.changed,
            )
            for v in one.listed
        ]
        _table(["version", "committed at (UTC)", "rows", "what changed"], rows)
    if not found:
        say("nothing has landed yet")


@app.command("show")
def lake_show(
    which: Which,
    at: Annotated[
        str | None, typer.Option(metavar="MOMENT", help=f"Rows known at this moment: {_MOMENT}.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=0, help="Rows of this version; see versions.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows, those ingested last first.")] = 20,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="Only these: \"country = 'DE'\".")] = None,
    columns: Annotated[str | None, typer.Option(help="Only these columns, with commas between them.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Show rows as they were known at a moment, or as a version holds them."""
    if at is not None and version is not None:
        raise Fatal("--at and --version exclude each other: give one of them")
    with _tables(which, one=True) as tables:
        [(name, table)] = tables.items()
        moment = moment_of(at) if at is not None else None
        if version is not None:
            rows, when = table.at(version), f"version {version}"
        else:
            rows = table.as_of(moment) if moment else table.scan()
            when = f"as known at {_said(moment)}" if moment else "now"
        total, shown = _picked(rows, where, columns, limit)
    if as_json:
        print(json.dumps({"table": name, "total": total, "rows": [_plain(r) for r in shown]}, default=str))
        return
    names = list(shown[0]) if shown else []
    if as_csv:
        written = csv.writer(sys.stdout)
        written.writerow(names)
        written.writerows([_cell(value) for value in row.values()] for row in shown)
        return
    if shown:
        _table(names, [[_cell(value) for value in row.values()] for row in shown])
    more = f", the last {len(shown):,} are shown" if len(shown) < total else ""
    say(f"{name}, {when}: {total:,} {'row' if total == 1 else 'rows'}{more}")


@app.command("at")
def lake_at(
    stream: OneStream, moment: Annotated[str, typer.Argument(metavar="MOMENT")], as_json: Json = False
) -> None:
    """Count the rows by day as they were known at a moment, beside those of now."""
    import polars as pl

    when = moment_of(moment)
    counted: dict[str, dict[str, dict[str, int]]] = {}
    with opened(stream) as found:
        for table in (found[stream].lake.good, found[stream].lake.rejected):
            day = pl.col(table.table.partition).alias("day")
            then = table.as_of(when).select(day).group_by("day").len().collect()
            now = {str(d): n for d, n in table.counts_by_day().items()}
            before = {str(d): n for d, n in then.iter_rows()}
            counted[table.table.name] = {
                d: {"then": before.get(d, 0), "now": now.get(d, 0)} for d in sorted({*now, *before})
            }
    totals = {
        name: {which: sum(one[which] for one in days.values()) for which in ("then", "now")}
        for name, days in counted.items()
    }
    if as_json:
        print(json.dumps({"stream": stream, "at": when.isoformat(), "total": totals, "days": counted}))
        return
    say(f"{stream} as known at {_said(when)}")
    for name, days in counted.items():
        rows: list[list[Any]] = [[day, one["then"], one["now"]] for day, one in days.items()]
        _table([name, "rows then", "rows now"], [*rows, ["total", *totals[name].values()]])


@app.command("restore")
def lake_restore(
    stream: OneStream,
    to: Annotated[str | None, typer.Option(metavar="MOMENT", help=f"{_MOMENT}.")] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Put back what the last restore took out; what landed since stays.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Take a stream back to a moment: rows that came later are taken out, by new versions.

    Positions stay, so nothing lands again by itself. Restore to a later moment, or --undo, to go forward again.
    """
    from headrace.repair.restore import restore_stream

    if (to is None) is not undo:
        raise Fatal(f"say where to go: --to {_MOMENT}, or --undo")
    with opened(stream) as found:
        one = found[stream]
        done = restore_stream(one, moment_of(to) if to is not None else None, dry_run=dry_run)
        changed = any(table.out or table.back for table in done.tables)
        published = _published(one) if changed and not dry_run else ""
    would = "would be " if dry_run else ""
    goal = (
        f"the restore to {_said(done.to)} {would or 'is '}undone"
        if undo
        else f"{would}restored to {_said(done.to)}"
    )
    lines = [f"[bold]{stream}[/]: {goal}"]
    for table in done.tables:
        days = f", {_span(table.days)}" if table.days else ""
        lines.append(f"  {table.table}: {table.out:,} rows {would}taken out, {table.back:,} put back{days}")
    lines += [f"  {cursor}: {n:,} messages are out" for cursor, n in done.messages.items() if n]
    if not changed:
        lines = [f"[bold]{stream}[/]: nothing to do, it is as it was at {_said(done.to)}"]
    emit(
        {**asdict(done), "changed": changed, "published": published},
        as_json,
        [*lines, *([published] if published else [])],
    )


def _published(stream: Stream) -> str:
    """Publish what was restored, and say what became of it."""
    try:
        stream.publish()
    except (Retriable, Fatal) as error:
        return f"  the warehouse follows with the next publish: {error}"
    return "  the warehouse has it; models of these days are built again by the next refresh"


def _span(days: tuple[date, ...]) -> str:
    first, last = days[0], days[-1]
    return f"{first}" if first == last else f"{len(days):,} days from {first} to {last}"


@contextmanager
def _tables(which: str | None, *, one: bool = False) -> Iterator[dict[str, DeltaLakeTable]]:
    """Open the tables of all streams, of a stream (its good one, if it has to be one), or the table of a name."""
    with opened() as found:
        every = {t.table.name: t for s in found.values() for t in (s.lake.good, s.lake.rejected)}
        if which is None:
            yield every
        elif which in found and not one:
            lake = found[which].lake
            yield {t.table.name: t for t in (lake.good, lake.rejected)}
        elif which in found:
            good = found[which].lake.good
            yield {good.table.name: good}
        elif which in every:
            yield {which: every[which]}
        else:
            raise Fatal(
                f"there is no stream or table {which!r}; there are {', '.join(sorted({*found, *every}))}"
            )


def _picked(
    rows: pl.LazyFrame, where: str | None, columns: str | None, limit: int
) -> tuple[int, list[dict[str, Any]]]:
    """Count the rows, and read those that were ingested last."""
    import polars as pl
    from polars.exceptions import PolarsError

    try:
        if where is not None:
            rows = rows.filter(pl.sql_expr(where))
        last = rows.sort("_ingested_at", "_offset", descending=True).limit(limit)
        if columns is not None:
            last = last.select([name.strip() for name in columns.split(",")])
        total, shown = pl.collect_all([rows.select(pl.len()), last])
    except PolarsError as error:
        said = " ".join(str(error).split())[:200]
        raise Fatal(f"--where {where!r}, --columns {columns!r} cannot be asked for: {said}") from error
    return int(total.item()), shown.to_dicts()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    if isinstance(value, list | dict):
        return json.dumps(_plain(value), default=str, ensure_ascii=False)
    return _plain(value)


def _plain(value: Any) -> Any:
    """Make bytes text, inside of lists and objects, too."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _said(moment: datetime) -> str:
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    return f"{text} UTC"


def _table(names: list[str], rows: list[Any]) -> None:
    from headrace.cli.table import show

    show(console, names, rows, counted=False)
