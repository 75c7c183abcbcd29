"""Micro-batches from Kafka, SQS and files into Delta Lake and ClickHouse, every message exactly once."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from headrace.errors import Fatal, HeadraceError

if TYPE_CHECKING:
    from headrace.stream import Stream

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
stack_app = typer.Typer(no_args_is_help=True, help="Only the backing services: broker, queue, ClickHouse.")
app.add_typer(stack_app, name="stack")
rejects_app = typer.Typer(
    no_args_is_help=True, help="Rejected records: look at them, repair and redrive them."
)
app.add_typer(rejects_app, name="rejects")

console = Console(highlight=False)
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
StreamName = Annotated[str | None, typer.Argument(metavar="STREAM", help="Only this stream; default: all.")]
UiPort = Annotated[
    int | None, typer.Option(min=1, max=65_535, help="Port of the UI; default 3000 or a free one.")
]


def main() -> None:
    """Entry point: what Headrace raises on purpose becomes one line on standard error and exit status 1."""
    _quiet_drivers()
    try:
        app()
    except HeadraceError as error:
        Console(stderr=True, highlight=False).print(f"[red]headrace:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _quiet_drivers() -> None:
    """Drivers log what they also raise, and what they raise is said once, by us."""
    logging.getLogger().addHandler(logging.NullHandler())
    own = logging.StreamHandler()
    own.setFormatter(logging.Formatter("headrace: %(message)s"))
    logging.getLogger("headrace").addHandler(own)


def _emit(value: Any, as_json: bool, lines: list[str]) -> None:
    if as_json:
        print(json.dumps(value, default=str))
        return
    for line in lines:
        console.print(line, soft_wrap=True)


@contextmanager
def _opened(only: str | None = None, *, patient: bool = True) -> Iterator[dict[str, Stream]]:
    from headrace.settings import settings
    from headrace.stream import streams

    found = streams(settings(), only, patient=patient)
    try:
        yield found
    finally:
        for stream in found.values():
            stream.close()


# ------------------------------------------------------------------ the platform


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave platform and UI running until Ctrl-C.")] = False,
    ui_port: UiPort = None,
    as_json: Json = False,
) -> None:
    """The main job on real input, then a summary; exit status 0 only if every number reconciles."""
    from headrace.demo.run import demo as run
    from headrace.demo.view import as_dict
    from headrace.settings import settings

    result = run(
        settings().home / "demo", Console(stderr=True) if as_json else console, keep=keep, ui_port=ui_port
    )
    if as_json:
        print(json.dumps(as_dict(result), default=str))
    raise typer.Exit(0 if result.passed else 1)


@app.command()
def up(
    rate: Annotated[
        float, typer.Option(min=0, help="Simulated events per second, on average; 0 for none.")
    ] = 20.0,
    history: Annotated[float, typer.Option(min=0, max=168, help="Hours of traffic to begin with.")] = 6.0,
    ui_port: UiPort = None,
) -> None:
    """The whole platform with UI and live simulated traffic, in the foreground, until Ctrl-C."""
    from headrace.demo.up import up as run
    from headrace.settings import settings

    run(settings().home, console, rate=rate, history=timedelta(hours=history), ui_port=ui_port)


@stack_app.command("up")
def stack_up(
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until Ctrl-C.")] = False,
    broker_port: Annotated[int | None, typer.Option(help="Exactly this port.")] = None,
    queue_port: Annotated[int | None, typer.Option(help="Exactly this port.")] = None,
    clickhouse_port: Annotated[int | None, typer.Option(help="Exactly this port.")] = None,
) -> None:
    """Start the backing services; says so if they run already."""
    from headrace.local import stack
    from headrace.settings import settings

    ports = stack.Ports(broker=broker_port, queue=queue_port, clickhouse=clickhouse_port)
    stack.up(settings().home, foreground, ports=ports, report=_say)


@stack_app.command("down")
def stack_down() -> None:
    """Stop the backing services."""
    from headrace.local import stack
    from headrace.settings import settings

    stack.down(settings().home, report=_say)


@stack_app.command("status")
def stack_status(as_json: Json = False) -> None:
    """State of each service; exit status 0 only if all run."""
    from headrace.local import stack
    from headrace.settings import settings

    rows = stack.status(settings().home)
    lines = [
        f"{row.service:<12} {row.state:<11} {row.address or '':<22} {_size(row.memory_bytes)}" for row in rows
    ]
    _emit([asdict(row) for row in rows], as_json, lines)
    raise typer.Exit(0 if stack.healthy(rows) else 1)


@stack_app.command("env")
def stack_env(as_json: Json = False) -> None:
    """What a client needs, as shell exports: eval "$(headrace stack env)"."""
    import shlex

    from headrace.local import stack
    from headrace.settings import settings

    found = stack.env(settings().home)
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"export {name}={shlex.quote(value)}")


# ------------------------------------------------------------------ data in


@app.command()
def send(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    to: Annotated[Literal["kafka", "sqs"], typer.Option(help="Where the messages go.")] = "kafka",
    stream: Annotated[str, typer.Option(help="Whose records these are.")] = "events",
    topic: Annotated[str | None, typer.Option(help="Topic or queue; default: the stream's own.")] = None,
    format: Annotated[
        Literal["ndjson", "csv", "parquet", "access_log"] | None,
        typer.Option(help="Default: by name and content."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish NDJSON, CSV, Parquet or a web server's access log, plain or compressed."""
    from headrace.producers.send import SendReport, send_file
    from headrace.settings import settings

    with _opened(stream) as found:
        pipeline = found[stream].pipeline
    producer = _producer(pipeline, to, topic, settings())
    with console.status(f"sending to {producer.name}") as status:

        def progress(report: SendReport) -> None:
            status.update(f"sending to {producer.name}: {report.read:,} read, {report.malformed:,} malformed")

        try:
            report = send_file(file, pipeline.contract, producer, format, None if as_json else progress)
        finally:
            producer.close()
    shown = [f"  [yellow]{escape(str(example))}[/]" for example in report.examples]
    more = report.malformed - len(report.examples)
    _emit(
        {**asdict(report), "examples": [str(e) for e in report.examples]},
        as_json,
        [
            f"{report.sent:,} messages sent to {producer.name}; {report.read:,} read, {report.malformed:,} malformed",
            *shown,
            *([f"  … and {more:,} more"] if more > 0 else []),
        ],
    )


def _producer(pipeline: Any, to: str, name: str | None, config: Any) -> Any:
    from headrace.pipelines import Kafka, Sqs
    from headrace.stream import producer

    declared = {type(spec): spec for spec in pipeline.sources}
    kind, called = (Kafka, "topic") if to == "kafka" else (Sqs, "queue")
    if name:
        return producer(config, kind(name))
    if kind not in declared:
        raise Fatal(f"stream {pipeline.name!r} declares no {called}; name one with --topic")
    return producer(config, declared[kind])


@app.command()
def ingest(
    stream: StreamName = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="No time limit: end when nothing waits.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Drain the sources into lake and warehouse, as an ingest run does."""
    from dataclasses import replace

    totals: dict[str, Any] = {}
    with _opened(stream) as found:
        for one in found.values():
            pace = replace(one.pace, max_seconds=None) if until_idle else one.pace
            for spec in one.pipeline.sources:
                for step in one.drain(spec.name, pace):
                    totals[spec.name] = step
    value = {
        name: {
            "messages": step.landed.messages,
            "landed": step.landed.good,
            "rejected": step.landed.rejected,
            "repeated": step.landed.repeated,
            "published": step.published.rows,
            "lost_offsets": [str(gap) for gap in step.landed.gaps],
            "refused_files": list(step.landed.refused),
        }
        for name, step in totals.items()
    }
    lines = [
        f"{name}: {t['messages']:,} messages, {t['landed']:,} rows landed, {t['rejected']:,} rejected,"
        f" {t['published']:,} published"
        + "".join(f"\n  [red]lost offsets {gap}[/]" for gap in t["lost_offsets"])
        + "".join(f"\n  [red]{escape(why)}[/]" for why in t["refused_files"])
        for name, t in value.items()
    ]
    _emit(value, as_json, lines)


@app.command()
def publish(stream: StreamName = None, as_json: Json = False) -> None:
    """Bring the warehouse up to the lake."""
    with _opened(stream) as found:
        done = {name: one.publish() for name, one in found.items()}
    value = {name: {"versions": p.versions, "rows": p.rows, "days": len(p.days)} for name, p in done.items()}
    _emit(
        value,
        as_json,
        [f"{n}: {p['rows']:,} rows of {p['versions']} lake versions" for n, p in value.items()],
    )


@app.command()
def backfill(
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    start: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First UTC day.")],
    end: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day.")],
    as_json: Json = False,
) -> None:
    """Replace days of the raw warehouse table from the lake; rebuild their marts in the Dagster UI afterwards."""
    if end < start:
        raise Fatal(f"--to {end:%Y-%m-%d} is before --from {start:%Y-%m-%d}")
    days = [(start + timedelta(days=n)).date() for n in range((end - start).days + 1)]
    with _opened(stream) as found:
        rows: dict[date, int] = found[stream].replace_days(days)
    total = sum(rows.values())
    _emit(rows_by_day(rows), as_json, [f"{stream}: {len(rows):,} days replaced, {total:,} rows"])


def rows_by_day(rows: dict[date, int]) -> dict[str, int]:
    """Counts with JSON keys."""
    return {day.isoformat(): count for day, count in rows.items()}


# ------------------------------------------------------------------ rejects

Which = Annotated[str, typer.Argument(metavar="STREAM")]
Check = Annotated[str | None, typer.Option(help="Only those refused by this check or for this column.")]
Since = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only those rejected on this UTC day or later.")
]


@rejects_app.command("list")
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

    with _opened(stream) as found:
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


@rejects_app.command("show")
def rejects_show(
    stream: Which, id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False
) -> None:
    """One rejected record, whole."""
    from headrace.rejects import exported, find

    with _opened(stream) as found:
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
    _emit(value, as_json, lines)


@rejects_app.command("redrive")
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
    with _opened(stream) as found:
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
    _emit(value, as_json, lines)
    raise typer.Exit(1 if repair.failed or done.refused else 0)


@app.command()
def erase(
    user_id: Annotated[str, typer.Option("--user-id", help="Whose rows, exactly as producers send it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a person from lake, rejected records and warehouse, for good, with a receipt."""
    from headrace.erase import erase as run
    from headrace.settings import settings

    if not yes:
        typer.confirm(f"Erase every row of user {user_id!r}? This cannot be undone", abort=True, err=True)
    with _opened() as found:
        receipt = run(found.values(), user_id)
    path = receipt.save(settings().home)
    lines = [
        f"[bold]{r.stream}[/]: {r.rows:,} rows and {r.rejected_rows:,} rejected records erased,"
        f" {len(r.days):,} days replaced, {r.files:,} old files removed"
        for r in receipt.streams
    ]
    lines += [f"{escape(name)}: {rows:,} rows deleted" for name, rows in receipt.models.items()]
    held = sorted({source for r in receipt.streams for source in r.still_in})
    kept = "brokers keep their messages until their retention ends, files until somebody removes them"
    lines += [f"[dim]{kept}: {', '.join(held)}[/]"]
    _emit({**asdict(receipt), "receipt": str(path)}, as_json, [*lines, f"receipt: {path}"])


# ------------------------------------------------------------------ looking


@app.command()
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


@app.command()
def status(stream: StreamName = None, as_json: Json = False) -> None:
    """Backlog, lake, warehouse and models of every stream; exit status 1 if something needs a person."""
    from headrace.resilience import circuits
    from headrace.settings import settings
    from headrace.status import inspect

    with _opened(stream, patient=False) as found:
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
    _emit(value, as_json, lines)
    raise typer.Exit(0 if all(state.healthy for state in states) else 1)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at settings, disk, pipelines, dbt project and services; says what to do about what is wrong."""
    from headrace.doctor import examine

    findings = examine()
    marks = {True: "[green]✓[/]", False: "[red]✗[/]"}
    lines = [f"{marks[f.ok]} [bold]{f.what}[/]  {escape(f.said)}" for f in findings]
    _emit([asdict(f) for f in findings], as_json, lines)
    raise typer.Exit(0 if all(f.ok for f in findings) else 1)


def _say(line: str) -> None:
    console.print(escape(line), soft_wrap=True)


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:,.0f} MB"


if __name__ == "__main__":
    main()
