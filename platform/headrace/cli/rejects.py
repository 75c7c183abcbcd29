"""Commands ``headrace rejects``: list, show, redrive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from headrace.cli.shared import Json, console, emit, opened
from headrace.core.errors import Fatal

#: Most reasons and records to print.
_TOLD = 10

app = typer.Typer(no_args_is_help=True, help="List, repair and redrive rejected records.")

Which = Annotated[str, typer.Argument(metavar="STREAM")]
Check = Annotated[str | None, typer.Option(help="Only records refused by this check or for this column.")]
Since = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="Only records rejected on this UTC day or later."),
]


Source = Annotated[
    str | None,
    typer.Option(help="Only records of this source, e.g. kafka/analytics_events, or of this kind, e.g. sqs."),
]


@app.command("list")
def rejects_list(
    stream: Which,
    check: Check = None,
    since: Since = None,
    source: Source = None,
    every: Annotated[bool, typer.Option("--every", help="Include records that were redriven.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most records to list, the newest first.")] = 20,
    ndjson: Annotated[
        bool, typer.Option("--ndjson", help="Print all of them, to edit for redrive --file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List rejected records with their reasons."""
    from rich import box
    from rich.table import Table

    from headrace.repair import rejects
    from headrace.repair.edits import exported
    from headrace.repair.selection import Selection

    selection = Selection(check, since and since.date(), source, every)
    with opened(stream) as found:
        rejects.known_source(found[stream], source)
        if ndjson:
            for page in rejects.pages(found[stream], selection):
                for one in exported(page):
                    print(json.dumps(one, default=str, ensure_ascii=False))
            return
        total, rows = rejects.newest(found[stream], selection, limit)
    shown = list(exported(rows))
    if as_json:
        print(json.dumps({"total": total, "rejects": shown}, default=str))
        return
    table = Table("id", "rejected at", "from", "reasons", "payload", box=box.SIMPLE)
    for one, row in zip(shown, rows.iter_rows(named=True), strict=True):
        reasons = [f"{r['column']}: {r['check']}" if r["column"] else r["check"] for r in one["reasons"]]
        place = row["_offset"] if row["_offset"] is not None else row["_message_id"]
        payload = (row["payload"] or b"").decode(errors="replace")
        said = (f"{row['_ingested_at']:%Y-%m-%d %H:%M:%S}", f"{row['_source']} {place}", "\n".join(reasons))
        table.add_row(
            one["id"], *map(escape, said), escape(payload[:60]) + ("…" if len(payload) > 60 else "")
        )
    console.print(table if shown else f"{stream}: nothing is rejected")
    if total > limit:
        console.print(f"[dim]{total - limit:,} more; see --limit, --check, --since, --source[/]")


@app.command("show")
def rejects_show(
    stream: Which, id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False
) -> None:
    """Show one rejected record in full."""
    from headrace.repair.edits import exported
    from headrace.repair.rejects import find

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
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Records to redrive.")] = None,
    check: Check = None,
    since: Since = None,
    source: Source = None,
    jq: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Repair each payload, e.g. '.channel = \"web\"'.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Edited lines of 'rejects list --ndjson'."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Report what would land and what would be refused; land nothing."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Send rejected records through the contract again, repaired by --jq or --file; twice adds nothing."""
    from headrace.repair import edits, rejects
    from headrace.repair.index import RejectIndex
    from headrace.repair.redrive import Redriven, redrive
    from headrace.repair.selection import Selection

    if file is not None and (ids or check or since or jq or source):
        raise Fatal("--file names its records itself: give it alone")
    if file is None and not (ids or check or since or source):
        raise Fatal("say which: ids, --check, --since, --source or --file")
    failed: list[tuple[str, str]] = []
    asked, before = 0, 0

    def repaired(pages: Iterable[Any]) -> Iterator[Any]:
        nonlocal asked
        for page in pages:
            asked += page.height
            by_schemas = one.framing.or_plain if one.framing else None
            repair = edits.transformed(page, jq, by_schemas) if jq else edits.Repair(page)
            failed.extend(repair.failed)
            yield repair.rows

    with opened(stream) as found:
        one = found[stream]
        rejects.known_source(one, source)
        if file is not None:
            index = RejectIndex(one)
            asked, before = index.counts(edits.edited(file))  # refuses a malformed file before anything lands
            lines_of_file = edits.edited(file) if before < asked else iter(())
            done = redrive(one, edits.replaced(index, lines_of_file, skip_redriven=True), dry_run=dry_run)
        else:
            selection = Selection(check, since and since.date(), source, every=bool(ids))
            chosen = (
                RejectIndex(one).rows(RejectIndex.named(ids), selection)
                if ids
                else rejects.pages(one, selection)
            )
            done = redrive(one, repaired(chosen), dry_run=dry_run)
        if not asked:
            raise Fatal(f"{stream}: no rejected record matches; see 'headrace rejects list {stream}'")
        done += Redriven(repeated=before)
        if not dry_run:
            one.publish()
    value = {
        **asdict(done),
        "dry_run": dry_run,
        "refused": dict(done.refused),
        "reasons": dict(done.reasons.most_common()),
        "not_repaired": dict(failed),
    }
    would = "would land" if dry_run else "landed"
    had = "have been redriven already" if dry_run else "had landed before"
    lines = [
        f"{stream}: {done.landed:,} rows of {done.messages:,} records {would}, {done.repeated:,} {had},"
        f" {done.refused_records:,} {'would be refused' if dry_run else 'refused'} again"
        + (f", {len(failed):,} not repaired" if failed else "")
        + (f", {done.erased:,} of people who were erased" if done.erased else ""),
        *(f"  [yellow]{n:,} refused:[/] {escape(why)}" for why, n in done.reasons.most_common(_TOLD)),
        *(
            f"  [yellow]{name} refused:[/] {escape(why)}"
            for name, why in done.refused[: 0 if dry_run else _TOLD]
        ),
        *(f"  [yellow]{name} not repaired:[/] {escape(why)}" for name, why in failed[:_TOLD]),
    ]
    emit(value, as_json, lines)
    raise typer.Exit(1 if failed or done.refused_records else 0)
