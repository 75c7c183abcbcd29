"""Commands that move or remove data: send, ingest, publish, backfill, erase."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from headrace.cli.shared import Json, StreamName, console, emit, opened, say
from headrace.core.errors import Fatal, HeadraceError, Retriable


def send(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    to: Annotated[
        Literal["kafka", "sqs", "http"],
        typer.Option(help="Service that receives the messages; http: a collector."),
    ] = "kafka",
    stream: Annotated[str, typer.Option(help="Stream of the records.")] = "events",
    topic: Annotated[str | None, typer.Option(help="Topic or queue; default: the stream's own.")] = None,
    format: Annotated[
        Literal["ndjson", "csv", "parquet", "access_log"] | None,
        typer.Option(help="Format of the file; default: by name and content."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish NDJSON, CSV, Parquet or a web server's access log, plain or compressed."""
    from headrace.config.settings import settings
    from headrace.producers.send import SendReport, send_file

    with opened(stream) as found:
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
    emit(
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
    from headrace.streams.adapters import http_producer, producer

    if to == "http":
        if name:
            raise Fatal("a collector has streams, not topics; leave --topic away")
        return http_producer(config, pipeline.name)
    declared = {type(spec): spec for spec in pipeline.sources}
    kind, called = (Kafka, "topic") if to == "kafka" else (Sqs, "queue")
    framed = [s.topic for s in pipeline.sources if isinstance(s, Kafka) and s.format == "confluent"]
    if to == "kafka" and framed and name in (None, *framed):
        raise Fatal(
            f"topic {name or framed[0]!r} takes messages in Confluent's wire format, which 'headrace send' does not"
            " write: send with the serializer of your registry's client; or to a queue or a topic of plain JSON, with"
            " --to or --topic"
        )
    if name:
        return producer(config, kind(name))
    if kind not in declared:
        raise Fatal(f"stream {pipeline.name!r} declares no {called}; name one with --topic")
    return producer(config, declared[kind])


def ingest(
    stream: StreamName = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when nothing waits, without a time limit.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Drain the sources into lake and warehouse, as an ingest run does.

    A source that cannot be drained, or whose rows cannot be published, does not stop the others; exit status 1 then.
    """
    from dataclasses import replace

    from headrace.streams.drain import drain

    totals: dict[str, Any] = {}
    waiting: list[Retriable] = []
    with opened(stream) as found:
        for one in found.values():
            pace = replace(one.pace, max_seconds=None) if until_idle else one.pace
            for spec in one.pipeline.sources:
                try:
                    for step in drain(one, spec.name, pace):
                        totals[spec.name] = step
                except Retriable as error:
                    waiting.append(error)
    value = {
        name: {
            "messages": step.landed.messages,
            "landed": step.landed.good,
            "rejected": step.landed.rejected,
            "repeated": step.landed.repeated,
            "erased": step.landed.erased,
            "published": step.published.rows,
            "lost_offsets": [str(gap) for gap in step.landed.gaps],
            "refused_files": list(step.landed.refused),
            "unknown_fields": dict(step.landed.unknown),
        }
        for name, step in totals.items()
    }
    lines = [
        f"{name}: {t['messages']:,} messages, {t['landed']:,} rows landed, {t['rejected']:,} rejected,"
        f" {t['published']:,} published"
        + (f", {t['erased']:,} dropped of people who were erased" if t["erased"] else "")
        + "".join(f"\n  [red]lost offsets {gap}[/]" for gap in t["lost_offsets"])
        + "".join(f"\n  [red]{escape(why)}[/]" for why in t["refused_files"])
        + "".join(
            f"\n  [yellow]field {escape(repr(field))} of {n:,} records is not in the contract[/]"
            for field, n in t["unknown_fields"].items()
        )
        for name, t in value.items()
    ]
    emit(value, as_json, lines)
    _raise(waiting)


def _raise(errors: list[Retriable]) -> None:
    """Raise one error with each message once; do nothing without errors."""
    if errors:
        raise Retriable("; ".join(dict.fromkeys(str(error) for error in errors))) from errors[0]


def publish(stream: StreamName = None, as_json: Json = False) -> None:
    """Publish the lake's unpublished versions to the warehouse."""
    done, waiting = {}, []
    with opened(stream) as found:
        for name, one in found.items():
            try:
                done[name] = one.publish()
            except Retriable as error:
                waiting.append(error)
    value = {name: {"versions": p.versions, "rows": p.rows, "days": len(p.days)} for name, p in done.items()}
    emit(
        value,
        as_json,
        [f"{n}: {p['rows']:,} rows of {p['versions']} lake versions" for n, p in value.items()],
    )
    _raise(waiting)


def backfill(
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    start: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First UTC day.")],
    end: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day.")],
    as_json: Json = False,
) -> None:
    """Rebuild days: the raw warehouse table from the lake, then its marts. May be repeated."""
    from headrace.core.days import days_between
    from headrace.repair.backfill import backfill as rebuild

    if end < start:
        raise Fatal(f"--to {end:%Y-%m-%d} is before --from {start:%Y-%m-%d}")
    with opened(stream) as found:
        done = rebuild(
            found[stream],
            days_between(start.date(), end.date()),
            tell=lambda line: None if as_json else say(line),
        )
    built = [[first.isoformat(), last.isoformat()] for first, last in done.built]
    emit({"rows": rows_by_day(done.rows), "built": built}, as_json, [])


def rows_by_day(rows: dict[date, int]) -> dict[str, int]:
    """Return counts by day with JSON keys."""
    return {day.isoformat(): count for day, count in rows.items()}


def erase(
    user_id: Annotated[
        str, typer.Option("--user-id", help="Id of the person, exactly as producers send it.")
    ],
    unsuppress: Annotated[
        bool, typer.Option("--unsuppress", help="Let rows of this erased person land again; removes nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a person from lake, rejected records and warehouse, for good, with a receipt."""
    from headrace.config.settings import settings
    from headrace.repair.erase import Receipt, lift
    from headrace.repair.erase import erase as run

    if unsuppress:
        with opened() as found:
            was = lift(found.values(), user_id)
        said = "may land again" if was else "were not suppressed; nothing has changed"
        emit({"unsuppressed": was}, as_json, [f"rows of user {escape(repr(user_id))} {said}"])
        return
    if not yes:
        typer.confirm(f"Erase every row of user {user_id!r}? This cannot be undone", abort=True, err=True)
    home, kept = settings().home, list[Receipt]()

    def keep(receipt: Receipt) -> None:
        kept[:] = [receipt]
        with suppress(OSError):  # a full disk; the last receipt reports it
            receipt.save(home)

    with opened() as found:
        try:
            receipt = run(found.values(), user_id, tell=keep)
        except HeadraceError as error:
            kind = Retriable if isinstance(error, Retriable) else Fatal
            raise kind(_unfinished(str(error), kept, home)) from error
    try:
        path: Path | None = receipt.save(home)
    except OSError as error:
        path = None
        say(f"the receipt cannot be written below {home}: {error}; this is it: {json.dumps(asdict(receipt))}")
    lines = [
        f"[bold]{r.stream}[/]: {r.rows:,} rows and {r.rejected_rows:,} rejected records erased,"
        f" {len(r.days):,} days replaced, {r.files:,} old files removed"
        for r in receipt.streams
    ]
    lines += [f"{escape(name)}: {rows:,} rows deleted" for name, rows in receipt.models.items()]
    days = settings().erased_keep_days
    lines += [
        f"what comes of this person is dropped and counted {f'for {days:,} days' if days else 'from now on'};"
        " --unsuppress ends that"
    ]
    held = sorted({source for r in receipt.streams for source in r.still_in})
    still = "brokers keep their messages until their retention ends, files until somebody removes them"
    lines += [f"[dim]{still}: {', '.join(held)}[/]"]
    emit({**asdict(receipt), "receipt": path and str(path)}, as_json, [*lines, f"receipt: {path}"])


def _unfinished(why: str, kept: list[Any], home: Path) -> str:
    """Describe an unfinished erasure: the error, its progress, and where its receipt is."""
    if not kept:
        return why
    rows = sum(r.rows + r.rejected_rows for r in kept[0].streams)
    path = kept[0].path(home)
    where = f"what was done is in {path}" if path.exists() else f"the receipt {path} could not be written"
    return f"{why}; the erasure is not finished, {rows:,} rows are gone so far, {where}: run it again"
