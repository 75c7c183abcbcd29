"""Rejected records: list, show, redrive."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from headrace.cli.shared import Json, console, emit, opened
from headrace.errors import Fatal

app = typer.Typer(no_args_is_help=True, help="Rejected records: look at them, repair and redrive them.")

Which = Annotated[str, typer.Argument(metavar="STREAM")]
Check = Annotated[str | None, typer.Option(help="Only those refused by this check or for this column.")]
Since = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only those rejected on this UTC day or later.")
]


@app.command("list")
def rejects_list(
    stream: Which,
    check: Check = None,
    since: Since = None,
    every: Annotated[bool, typer.Option("--every", help="Also those that were redriven.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
    ndjson: Annotated[
        bool, typer.Option("--ndjson", help="All of them, to be edited for redrive --file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What the contract refused, and why."""
    from rich import box
    from rich.table import Table

    from headrace.rejects import exported, find

    with opened(stream) as found:
        rows = find(found[stream], reason=check, since=since and since.date(), every=every)
    if ndjson:
        for one in exported(rows):
            print(json.dumps(one, default=str, ensure_ascii=False))
        return
    shown = list(exported(rows.head(limit)))
    if as_json:
        print(json.dumps({"total": rows.height, "rejects": shown}, default=str))
        return
    table = Table("id", "rejected at", "from", "reasons", "payload", box=box.SIMPLE)
    for one, row in zip(shown, rows.head(limit).iter_rows(named=True), strict=True):
        reasons = [f"{r['column']}: {r['check']}" if r["column"] else r["check"] for r in one["reasons"]]
        place = row["_offset"] if row["_offset"] is not None else row["_message_id"]
        payload = (row["payload"] or b"").decode(errors="replace")
        said = (f"{row['_ingested_at']:%Y-%m-%d %H:%M:%S}", f"{row['_source']} {place}", "\n".join(reasons))
        table.add_row(
            one["id"], *map(escape, said), escape(payload[:60]) + ("…" if len(payload) > 60 else "")
        )
    console.print(table if shown else f"{stream}: nothing is rejected")
    if rows.height > limit:
        console.print(f"[dim]{rows.height - limit:,} more; see --limit, --check, --since[/]")


@app.command("show")
def rejects_show(
    stream: Which, id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False
) -> None:
    """One rejected record, whole."""
    from headrace.rejects import exported, find

    with opened(stream) as found:
        rows = find(found[stream], ids=[id])
    [one], [row] = exported(rows), rows.iter_rows(named=True)
    value = {
        **one,
        "redriven": row["redriven"],
        "rejected_at": row["_ingested_at"],
        "contract": f"{row['contract']} v{row['contract_version']}",
        "key": (row["_key"] or b"").decode(errors="replace") or None,
        "headers": {h["key"]: (h["value"] or b"").decode(errors="replace") for h in row["_headers"] or []},
    }
    reasons = [
        f"  [red]{escape(r['check'])}[/]" + escape(f"  {r['column']} = {r['value']}" if r["column"] else "")
        for r in one["reasons"]
    ]
    lines = [
        f"[bold]{one['id']}[/]  {escape(one['origin'])}"
        + ("  [green]redriven[/]" if row["redriven"] else ""),
        f"rejected at {row['_ingested_at']:%Y-%m-%d %H:%M:%S} by contract {value['contract']}",
        *reasons,
        escape((row["payload"] or b"").decode(errors="replace")),
    ]
    emit(value, as_json, lines)


@app.command("redrive")
def rejects_redrive(
    stream: Which,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Those to redrive.")] = None,
    check: Check = None,
    since: Since = None,
    jq: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Repair each payload, e.g. '.channel = \"web\"'.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Edited lines of 'rejects list --ndjson'."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the repaired records, land nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send rejected records through the contract again, repaired by --jq or --file; twice adds nothing."""
    from headrace import rejects

    if file is not None and (ids or check or since or jq):
        raise Fatal("--file names its records itself: give it alone")
    if file is None and not (ids or check or since):
        raise Fatal("say which: ids, --check, --since or --file")
    with opened(stream) as found:
        one = found[stream]
        if file is not None:
            payloads = rejects.edited(file)
            repair = rejects.replaced(rejects.find(one, ids=list(payloads)), payloads) if payloads else None
        else:
            rows = rejects.find(one, ids=ids or (), reason=check, since=since and since.date())
            repair = rejects.transformed(rows, jq) if jq else rejects.Repair(rows)
        if repair is None or not (repair.rows.height or repair.failed):
            raise Fatal(f"{stream}: no rejected record matches; see 'headrace rejects list {stream}'")
        if dry_run:
            for line in rejects.exported(repair.rows):
                print(json.dumps(line, default=str, ensure_ascii=False))
            return
        done = rejects.redrive(one, repair.rows)
        one.publish()
    value = {**asdict(done), "refused": dict(done.refused), "not_repaired": dict(repair.failed)}
    lines = [
        f"{stream}: {done.landed:,} rows of {done.messages:,} records landed, {done.repeated:,} had landed before,"
        f" {len(done.refused):,} refused again",
        *(f"  [yellow]{short} refused:[/] {escape(why)}" for short, why in done.refused[:10]),
        *(f"  [yellow]{short} not repaired:[/] {escape(why)}" for short, why in repair.failed[:10]),
    ]
    emit(value, as_json, lines)
    raise typer.Exit(1 if repair.failed or done.refused else 0)
