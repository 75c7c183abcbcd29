"""Commands ``headrace bench``: measure the speed and cost of Headrace on this machine."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.shared import Json, console, emit
from headrace.core import extras

if TYPE_CHECKING:
    from headrace.bench.idle import IdleResult
    from headrace.bench.throughput import ThroughputResult

app = typer.Typer(no_args_is_help=True, help="Measure Headrace on this machine.")


def _home() -> Path:
    """Return an empty folder for the benchmark alone."""
    from headrace.config.settings import settings

    home = settings().home / "bench"
    shutil.rmtree(home, ignore_errors=True)
    return home


@app.command()
def throughput(
    events: Annotated[int, typer.Option(min=1_000, help="Events of each topic.")] = 3_000_000,
    messages: Annotated[int, typer.Option(min=100, help="Messages through the queue, each time.")] = 20_000,
    repetitions: Annotated[
        int, typer.Option(min=1, help="Repetitions per measurement; medians are shown.")
    ] = 3,
    codec: Annotated[
        Literal["lz4", "zstd", "snappy", "gzip", "none"], typer.Option(help="Codec of the topics.")
    ] = "lz4",
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure other ways to Delta, too: 'make bench' installs them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure events per second, by step and as a whole, beside bare drivers; 1 if a run does not reconcile."""
    extras.require("local", "'headrace bench throughput'")
    from headrace.bench.throughput import throughput as run

    found = run(
        _home(),
        Console(stderr=True) if as_json else console,
        events=events,
        messages=messages,
        repetitions=repetitions,
        codec=None if codec == "none" else codec,
        peers=peers,
    )
    if not as_json:
        console.print(_table(found))
    marks = [f"[red]✗[/] {line}" for line in found.wrong[:20]]
    emit(found.as_dict(), as_json, [*_shares(found), *(marks or ["[green]✓[/] every run reconciles"])])
    raise typer.Exit(1 if found.wrong else 0)


def _table(found: ThroughputResult) -> Table:
    from headrace.bench.throughput import NAMES

    table = Table("", "events/s", "spread", "core s/M", "GB", box=None)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for name, said in NAMES.items():
        if name in found.series:
            one = found.series[name].as_dict()
            table.add_row(
                said,
                f"{one['events_per_second']:,}",
                f"{(one['highest'] - one['lowest']) / one['events_per_second']:.0%}",
                f"{one['cpu_seconds_per_million']:.2f}",
                f"{one['peak_bytes'] / 1e9:.2f}",
            )
    return table


def _shares(found: ThroughputResult) -> list[str]:
    from headrace.bench.peers import PEERS
    from headrace.bench.throughput import MALFORMED, NAMES

    lines = [
        f"{NAMES[whole]}: {share:.0%} of its slowest step alone ({NAMES[step]})"
        for whole, (step, share) in found.limits().items()
    ]
    lines += [
        f"{NAMES[whole]}: {share:.0%} of {bound:,.0f}/s, at which bare drivers would fill all cores"
        for whole, (bound, share) in found.bounds().items()
    ]
    for whole in ("delta", "delta_clickhouse"):
        lines.append(f"{NAMES[whole]}: {found.ratio(whole, 'poll'):.1f} times {NAMES['poll']}")
    lines += [f"{NAMES[name]}: {found.ratio(name, 'delta'):.0%} of clean" for name in MALFORMED]
    measured = [name for name in PEERS if name in found.series]
    return lines + [f"{found.ratio('delta', name):.1f} times {NAMES[name]}" for name in measured]


@app.command()
def freshness(
    rate: Annotated[float, typer.Option(min=1, help="Events per second.")] = 2_000.0,
    seconds: Annotated[float, typer.Option(min=10, help="How long to send.")] = 400.0,
    as_json: Json = False,
) -> None:
    """Measure how soon an event is visible in the speed layer of the whole platform; 1 if it does not reconcile."""
    extras.require("local", "'headrace bench freshness'")
    from headrace.bench.freshness import freshness as run

    found = run(_home(), Console(stderr=True) if as_json else console, rate=rate, seconds=seconds)
    mark = "[green]✓[/]" if found.reconciles else "[red]✗[/]"
    lines = [
        f"[bold]visible in the speed layer[/]  p50 {found.p50:.1f} s, p95 {found.p95:.1f} s, p99 {found.p99:.1f} s,"
        f" worst {found.worst:.1f} s",
        f"    {found.sent:,} events at {found.rate:,.0f}/s for {found.seconds:,.0f} s, {found.runs} ingest runs",
        f"{mark} sent {found.sent:,} = visible {found.visible:,} = lake {found.lake_rows:,}"
        f" = warehouse {found.warehouse_rows:,}",
    ]
    emit({**asdict(found), "reconciles": found.reconciles}, as_json, lines)
    raise typer.Exit(0 if found.reconciles else 1)


@app.command()
def scrape(
    streams: Annotated[int, typer.Option(min=1, help="Streams of the large installation.")] = 50,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of each of their topics.")] = 64,
    scrapes: Annotated[int, typer.Option(min=10, help="Scrapes of each installation.")] = 200,
    as_json: Json = False,
) -> None:
    """Measure how long a scrape of /metrics takes, and what measuring costs; 1 if one took 200 ms."""
    for extra in ("local", "serve"):
        extras.require(extra, "'headrace bench scrape'")  # type: ignore[arg-type]
    from headrace.bench.scrape import scrape as run

    screen = Console(stderr=True) if as_json else console
    found = run(_home(), screen.print, streams=streams, partitions=partitions, scrapes=scrapes)
    lines = [
        f"[bold]{name}[/]  p50 {one.p50:.1f} ms, p99 {one.p99:.1f} ms, worst {one.worst:.1f} ms"
        f", {one.core:.1f} core ms ({one.series:,} series, {one.bytes / 1_000:,.0f} kB)"
        for name, one in (("large", found.large), ("real", found.real))
    ]
    lines.append(
        f"measuring {found.parts} parts took {found.core_seconds:.2f} core s in {found.seconds:.0f} s"
        f" ({found.core_seconds / found.seconds:.1%} of a core), {found.bytes / 1e6:,.0f} MB"
    )
    emit(asdict(found), as_json, lines)
    raise typer.Exit(1 if max(found.large.p99, found.real.p99) >= 200 else 0)


@app.command()
def idle(
    minutes: Annotated[float, typer.Option(min=1, help="How long to measure.")] = 60.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Simulated events per second, on average.")] = 20.0,
    as_json: Json = False,
) -> None:
    """Measure runs, core seconds and storage growth under the traffic of 'headrace up'; 1 if a run failed."""
    extras.require("local", "'headrace bench idle'")
    from headrace.bench.idle import idle as run

    found = run(_home(), Console(stderr=True) if as_json else console, minutes=minutes, rate=rate)
    if not as_json:
        for table in _idle_tables(found):
            console.print(table)
    mark = f"[red]✗[/] failed runs: {found.failed}" if found.failed else "[green]✓[/] no run failed"
    lines = [
        f"    {one.messages:,} messages of {name} were in the warehouse after p50 {one.p50:.1f} s,"
        f" p95 {one.p95:.1f} s, at the latest {one.worst:.1f} s"
        for name, one in found.latency.items()
    ]
    emit(found.as_dict(), as_json, [*lines, mark])
    raise typer.Exit(1 if found.failed else 0)


def _idle_tables(found: IdleResult) -> list[Table]:
    total = {
        "runs": sum(found.runs_per_hour.values()),
        "cores": sum(found.cores.values()),
        "kept": sum(found.bytes_per_day.values()) / 1e6,
    }
    runs = Table("", "runs an hour", box=None)
    for job, number in found.runs_per_hour.items():
        runs.add_row(job, f"{number:,.0f}")
    runs.add_row("all", f"{total['runs']:,.0f}")
    cores = Table("", "core s an hour", box=None)
    for name, spent in found.cores.items():
        cores.add_row(name, f"{spent:,.0f}")
    cores.add_row("all", f"{total['cores']:,.0f}")
    kept = Table("", "MB", "MB a day", box=None)
    for name, grown in found.bytes_per_day.items():
        kept.add_row(name, f"{found.kept[name][1] / 1e6:,.1f}", f"{grown / 1e6:,.0f}")
    kept.add_row(
        "all", f"{sum(after for _, after in found.kept.values()) / 1e6:,.1f}", f"{total['kept']:,.0f}"
    )
    tables = [runs, cores, kept]
    for table in tables:
        for column in table.columns[1:]:
            column.justify = "right"
    return tables


@app.command()
def backfill(
    days: Annotated[int, typer.Option(min=1, max=300, help="Number of days.")] = 30,
    events: Annotated[int, typer.Option(min=10, help="Events of each day.")] = 1_000_000,
    rate: Annotated[float, typer.Option(min=1, help="Live events per second meanwhile.")] = 500.0,
    as_json: Json = False,
) -> None:
    """Measure a backfill of many days, launched as from the UI, beside live ingestion; 1 if a count is wrong."""
    extras.require("local", "'headrace bench backfill'")
    from headrace.bench.backfill import backfill as run

    found = run(_home(), Console(stderr=True) if as_json else console, days=days, events=events, rate=rate)
    agrees = not found.wrong and found.live_sent == found.live_landed == found.live_published
    lines = [
        f"[bold]backfill[/]  {found.days} days of {found.events:,} events in {found.seconds:,.0f} s,"
        f" ClickHouse took {found.memory_bytes / 2**30:.1f} GB at most",
        f"    live meanwhile: sent {found.live_sent:,} = lake {found.live_landed:,} = warehouse"
        f" {found.live_published:,}; {found.behind:,} waiting at most",
        *(f"[red]✗[/] {line}" for line in found.wrong[:20]),
        "[green]✓[/] every count of every day is right" if agrees else "[red]✗[/] counts are wrong",
    ]
    emit({**asdict(found), "agrees": agrees}, as_json, lines)
    raise typer.Exit(0 if agrees else 1)


@app.command()
def queries(
    events: Annotated[int, typer.Option(min=1_000, help="Events over 30 days.")] = 50_000_000,
    day_events: Annotated[
        int, typer.Option(min=100, help="Of these, events on the day that is rebuilt.")
    ] = 10_000_000,
    runs: Annotated[int, typer.Option(min=2, help="Repetitions of each query.")] = 60,
    as_json: Json = False,
) -> None:
    """Measure dashboard queries and the rebuild of a touched day; 1 if a mart does not hold every event."""
    extras.require("local", "'headrace bench queries'")
    from headrace.bench.queries import queries as run

    found = run(
        _home(),
        Console(stderr=True) if as_json else console,
        events=events,
        day_events=min(day_events, events),
        runs=runs,
    )
    lines = [
        f"[bold]{one.question}[/]  p50 {one.p50:.0f} ms, p95 {one.p95:.0f} ms, worst {one.worst:.0f} ms"
        f" ({one.rows:,} rows, {one.runs} times)"
        for one in found.answers
    ]
    lines += [
        f"    {found.events:,} events of {found.days} days; all marts built in {found.build_seconds:,.0f} s",
        f"    a touched day of {found.day_events:,} events refreshed in {found.refresh_seconds:,.0f} s,"
        f" with its neighbours {found.refresh_events:,} events",
        *(f"[red]✗[/] {line}" for line in found.wrong[:20]),
        "[red]✗[/] counts are wrong"
        if found.wrong
        else "[green]✓[/] every mart holds every event of every day",
    ]
    emit({**asdict(found), "agrees": not found.wrong}, as_json, lines)
    raise typer.Exit(1 if found.wrong else 0)


@app.command("serve")
def serve_(
    events: Annotated[int, typer.Option(min=10_000, help="Events over 30 days.")] = 50_000_000,
    seconds: Annotated[float, typer.Option(min=10, help="How long events are posted.")] = 120.0,
    as_json: Json = False,
) -> None:
    """Measure how soon 'headrace serve' answers: what is kept, new, published or acknowledged, and a million rows."""
    for extra in ("local", "collector"):
        extras.require(extra, "'headrace bench serve'")  # type: ignore[arg-type]
    extras.require("serve", "'headrace bench serve'")
    from headrace.bench.serving import serve as run

    found = run(_home(), Console(stderr=True) if as_json else console, events=events, seconds=seconds)
    lines = [
        f"{found.events:,} events; the server has {found.memory_mb:.0f} MB after its start",
        f"kept          p50 {found.kept_p50_ms:.2f} ms, p99 {found.kept_p99_ms:.2f} ms",
        f"              {found.kept_per_core_second:,.0f} a second and core,"
        f" {found.kept_per_second:,.0f} a second beside their client",
        f"not modified  p99 {found.not_modified_p99_ms:.2f} ms",
        f"new           p50 {found.new_p50_ms:.0f} ms, p95 {found.new_p95_ms:.0f} ms",
        f"published     heard of after p50 {found.published_to_listener_p50_ms:.0f} ms,"
        f" p95 {found.published_to_listener_p95_ms:.0f} ms",
        f"acknowledged  heard of after p50 {found.heard.p50:.2f} s, p95 {found.heard.p95:.2f} s,"
        f" worst {found.heard.worst:.2f} s ({found.heard.events:,} events)",
        f"streamed      {found.csv_rows:,} rows of CSV in {found.csv_seconds:.1f} s,"
        f" {found.csv_peak_mb:.0f} MB at most",
    ]
    emit(asdict(found), as_json, lines)


@app.command()
def shaping(
    records: Annotated[int, typer.Option(min=100, help="Messages of each kind.")] = 100_000,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions, interleaved; the quickest counts.")] = 3,
    as_json: Json = False,
) -> None:
    """Measure what each kind of shaping costs, beside the same field unshaped."""
    from headrace.bench.shaping import shaping_costs

    found = shaping_costs(records, runs)
    lines = [
        f"[bold]{one.name}[/]  {one.shaped - one.plain:+.2f} core s per million records"
        f" ({one.plain:.2f} unshaped, {one.shaped:.2f} shaped)"
        for one in found
    ]
    lines.append(f"    decode and check in memory, {records:,} records, the quickest of {runs}")
    emit({"records": records, "shaping": [asdict(one) for one in found]}, as_json, lines)


@app.command()
def versions(
    records: Annotated[int, typer.Option(min=100, help="Messages of each kind.")] = 200_000,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions, interleaved; the median counts.")] = 7,
    as_json: Json = False,
) -> None:
    """Measure what a contract's history costs the check: records of the newest version, of an older one, both."""
    from headrace.bench.versions import version_costs

    found = version_costs(records, runs)
    lines = [
        f"[bold]{one.name}[/]  {one.ratio:.3f} ({one.plain:.2f} core s per million records without a history,"
        f" {one.grown:.2f} with it)"
        for one in found
    ]
    lines.append(f"    decode and check in memory, {records:,} records, medians of {runs}")
    shown = [asdict(one) | {"ratio": one.ratio} for one in found]
    emit({"records": records, "versions": shown}, as_json, lines)


@app.command()
def scale(
    events: Annotated[int, typer.Option(min=1_000, help="The largest backlog.")] = 50_000_000,
    commits: Annotated[int, typer.Option(min=500, help="Commits into one table.")] = 10_000,
    as_json: Json = False,
) -> None:
    """Measure cost per event at growing backlogs, and per commit in a large table; 1 if rows are wrong."""
    extras.require("local", "'headrace bench scale'")
    from headrace.bench.scale import scale as run

    found = run(_home(), Console(stderr=True) if as_json else console, events=events, commits=commits)
    shown = found.as_dict()
    lines = [
        f"[bold]{one['backlog']:,} events[/]  {one['events_per_second']:,} events/s,"
        f" {one['cpu_seconds_per_million']:.2f} core s per million, {one['peak_bytes'] / 1e9:.2f} GB"
        for one in shown["drained"]
    ]
    lines += [
        f"    an event of the largest backlog costs {shown['cost_to_smallest']:.2f} of one of the smallest",
        *(
            f"after {one.commits:,} commits  {one.milliseconds:.1f} ms each, {one.cpu_milliseconds:.1f} of processor"
            for one in found.commits[::4]
        ),
        f"    {shown['last_to_first_commit']:.2f} of the first ones' processor time; maintenance between takes"
        f" {found.maintenance_seconds:.1f} s; {found.daily_versions} daily versions are kept",
        *(f"[red]✗[/] {line}" for line in found.wrong[:20]),
        *([] if found.wrong else ["[green]✓[/] every offset is in lake and warehouse once"]),
    ]
    emit(shown, as_json, lines)
    raise typer.Exit(1 if found.wrong else 0)


@app.command()
def types(
    records: Annotated[int, typer.Option(min=100, help="Messages of each type.")] = 20_000,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions, interleaved.")] = 7,
    as_json: Json = False,
) -> None:
    """Measure what a value of each type costs in the hot path, beside one of text."""
    from headrace.bench.types import COLUMNS, type_costs

    found = type_costs(records, runs)
    text = found[0]
    lines = [
        f"[bold]{one.name}[/]  {one.check:.0f} ns to check ({one.check / text.check:.1f} of text),"
        f" {one.encode:.0f} ns to Parquet; {one.size:.0f} bytes"
        for one in found
    ]
    lines.append(
        f"    core time per value: medians of {runs}, {COLUMNS} values in each of {records:,} records"
    )
    emit({"records": records, "types": [asdict(one) for one in found]}, as_json, lines)


@app.command()
def registry(
    events: Annotated[int, typer.Option(min=100, help="Events of the topic.")] = 1_000_000,
    repetitions: Annotated[int, typer.Option(min=1, help="Repetitions, interleaved; medians are shown.")] = 3,
    as_json: Json = False,
) -> None:
    """Measure Avro by a registered schema, Kafka to Delta, beside fastavro message by message; 1 if rows are wrong."""
    extras.require("local", "'headrace bench registry'")
    extras.require("registry", "'headrace bench registry'")
    from headrace.bench.registry import NAMES
    from headrace.bench.registry import registry as run

    found = run(_home(), Console(stderr=True) if as_json else console, events=events, repetitions=repetitions)
    shown = found.as_dict()
    lines = [
        f"[bold]{said}[/]  {shown['series'][name]['events_per_second']:,} events/s"
        for name, said in NAMES.items()
    ]
    lines += [
        f"    {shown['to_fastavro']:.1f} times as many; messages of {shown['message_bytes']} bytes",
        *(f"[red]✗[/] {line}" for line in found.wrong),
    ]
    emit(shown, as_json, lines)
    raise typer.Exit(1 if found.wrong else 0)


@app.command()
def collector(
    requests: Annotated[int, typer.Option(min=100, help="Requests with one event, each time.")] = 40_000,
    batches: Annotated[int, typer.Option(min=10, help="Requests with 100 events, each time.")] = 2_000,
    connections: Annotated[int, typer.Option(min=4, help="Connections at a time.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long the half load lasts.")] = 15.0,
    memory: Annotated[
        int, typer.Option(min=0, help="Events of one long run, 10 million for the whole; 0 for none.")
    ] = 500_000,
    undelivered: Annotated[
        int, typer.Option(min=0, help="Undelivered events of a log that is opened again; 0 for none.")
    ] = 1_000_000,
    repetitions: Annotated[int, typer.Option(min=1, help="Repetitions, interleaved; medians are shown.")] = 3,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure FastAPI with aiokafka, too: 'make bench' installs them.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, help="Measure so many worker processes, too, if more than one.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Measure the collector: core seconds, acknowledgements, memory, recovery; 1 if a run does not reconcile."""
    extras.require("local", "'headrace bench collector'")
    extras.require("collector", "'headrace bench collector'")
    from headrace.bench.collector import NAMES
    from headrace.bench.collector import collector as run

    found = run(
        _home(),
        Console(stderr=True) if as_json else console,
        requests=requests,
        batches=batches,
        connections=connections,
        seconds=seconds,
        memory=memory,
        undelivered=undelivered,
        repetitions=repetitions,
        peers=peers,
        workers=workers,
    )
    shown = found.as_dict()
    lines = []
    for name, said in NAMES.items():
        if name not in shown["single"]:
            continue
        one, half, many = (shown[kind][name] for kind in ("single", "half_load", "batch"))
        lines += [
            f"[bold]{said}[/]",
            f"    one event a request  {one['core_microseconds_per_request']:.0f} core µs each,"
            f" {one['events_per_core_second']:,} per core second; {one['requests_per_second']:,}/s",
            f"    at half of that      p50 {half['p50_ms']:.1f} ms, p99 {half['p99_ms']:.1f} ms",
            f"    batches of 100       {many['core_microseconds_per_event']:.1f} core µs per event,"
            f" {many['events_per_core_second']:,} per core second",
            f"    a pass of an empty loop cost {one['pace_ns']:.0f} and {many['pace_ns']:.0f} ns meanwhile",
        ]
    lines += [f"    {ratio:.1f} times FastAPI ({kind})" for kind, ratio in shown["to_fastapi"].items()]
    if found.memory:
        lines.append(
            "    memory  " + ", ".join(f"{m.events:,}: {m.bytes / 1e6:.0f} MB" for m in found.memory[::3])
        )
    if found.recovery:
        one = found.recovery
        lines.append(
            f"    a log of {one.events:,} undelivered events, its index lost: open after {one.seconds:.1f} s"
            f" ({one.cpu_seconds:.1f} core s)"
        )
    lines += [f"[red]✗[/] {line}" for line in found.wrong] or [
        "[green]✓[/] acknowledged = in the log = in the topic"
    ]
    emit(shown, as_json, lines)
    raise typer.Exit(1 if found.wrong else 0)


@app.command()
def report(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Parts to measure: throughput, profile, queries, scale, collector; default: all."
        ),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of the page; default: docs/ of the checkout.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the usual numbers of events.")
    ] = 1.0,
    draw_only: Annotated[
        bool, typer.Option("--draw-only", help="Write the page from the existing figures.")
    ] = False,
) -> None:
    """Measure, and write docs/performance.md with its plot and figures; 1 if a part does not reconcile."""
    extras.require("local", "'headrace bench report'")
    from headrace.bench import report as making
    from headrace.bench.measure import filesystem
    from headrace.config.settings import settings
    from headrace.config.shipped import checkout

    asked = making.select_parts(parts or [])
    docs = into or (checkout() or Path()) / "docs"
    making.require_plots()
    figures = making.read(docs)
    for part in [] if draw_only else asked:
        figures[part] = making.measure_part(part, _home(), console, share)
        figures[part]["filesystem"] = filesystem(settings().home)
        docs.mkdir(parents=True, exist_ok=True)
        making.write(docs, figures)  # after each, because the next may fail
    if draw_only:
        making.write(docs, figures)
    wrong = [part for part in asked if not figures.get(part, {}).get("reconciles", draw_only)]
    console.print(f"[green]✓[/] {docs / making.PAGE}", soft_wrap=True)
    for part in wrong:
        console.print(f"[red]✗[/] {part} does not reconcile: see {docs / making.DATA}", soft_wrap=True)
    raise typer.Exit(1 if wrong else 0)
