"""Write ``docs/performance.md`` and its plot from the figures, which are kept beside them as JSON.

A new measurement of a part replaces its figures and leaves the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console

from headrace.bench.peers import PEERS
from headrace.bench.throughput import MALFORMED, NAMES, UNAVOIDABLE
from headrace.core.errors import Fatal

Part = Literal["throughput", "profile", "queries", "scale", "collector"]
PARTS: tuple[Part, ...] = get_args(Part)
Figures = Mapping[str, Any]

DATA, PAGE, PLOT = "performance.json", "performance.md", "images/performance.svg"
_CORES = 2

_SHORT = {"fetch": "kafka-python", "parse": "Polars", "write": "delta-rs", "insert": "clickhouse-connect"}

#: Measurements of Headrace as a whole.
_WHOLES = ("delta", "delta_clickhouse", "sqs")


def select_parts(names: Sequence[str]) -> tuple[Part, ...]:
    """Return the named parts in their usual order, or all of them if none is named.

    Raises:
        Fatal: A part is unknown.
    """
    unknown = sorted({*names} - {*PARTS})
    if unknown:
        raise Fatal(f"the report has no part {unknown[0]!r}; it has {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in names or not names)


def measure_part(part: Part, home: Path, console: Console, share: float) -> dict[str, Any]:
    """Measure one part.

    Args:
        part: The part.
        home: Folder for state and logs, without those of an earlier run.
        console: Terminal that shows the progress.
        share: Share of the usual numbers of events; 1 for figures to keep.
    """

    def of(usual: int) -> int:
        return max(1_000, int(usual * share))

    match part:
        case "throughput":
            from headrace.bench.throughput import throughput

            return throughput(
                home,
                console,
                events=of(3_000_000),
                messages=of(20_000),
                repetitions=3,
                codec="lz4",
                peers=True,
            ).as_dict()
        case "profile":
            from headrace.bench.profile import profile
            from headrace.bench.throughput import seed_topic
            from headrace.local.platform import backing_services

            with backing_services(home) as (_, settings), console.status("looking at the hot path"):
                stages = profile(settings, seed_topic(settings, of(2_000_000), 0, "lz4"))
            return {"stages": [asdict(stage) for stage in stages], "reconciles": True}
        case "queries":
            from headrace.bench.queries import queries

            found = queries(home, console, events=of(50_000_000), day_events=of(10_000_000), runs=60)
            return {**asdict(found), "reconciles": not found.wrong}
        case "scale":
            from headrace.bench.scale import scale

            return scale(home, console, events=of(50_000_000), commits=of(10_000)).as_dict()
        case "collector":
            from headrace.bench.collector import collector

            return collector(
                home,
                console,
                requests=of(20_000),
                batches=of(800_000) // 1_000,
                connections=64,
                seconds=8.0,
                memory=of(400_000),
                undelivered=of(1_000_000),
                repetitions=3,
                peers=True,
                workers=2,
            ).as_dict()


def write(docs: Path, figures: Figures) -> None:
    """Write the page, the plot and the figures.

    Raises:
        Fatal: Matplotlib is not installed.
    """
    from headrace.bench.plot import plot

    (docs / DATA).write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    plot(figures, docs / PLOT)
    (docs / PAGE).write_text(page(figures))


def read(docs: Path) -> dict[str, Any]:
    """Read the existing figures; empty if there are none."""
    path = docs / DATA
    return json.loads(path.read_text()) if path.exists() else {}


def page(figures: Figures) -> str:
    """Make the page in Markdown."""
    sections: dict[Part, Callable[[Figures], Iterator[str]]] = {
        "throughput": _throughput,
        "profile": _profile,
        "scale": _scale,
        "queries": _queries,
        "collector": _collector,
    }
    lines = [
        "# Performance",
        "",
        f"Written by `make bench`; the figures are in [{DATA}]({DATA}). Broker, queue, ClickHouse and the measured"
        f" process shared one machine with {_CORES} cores. Each figure is the median of interleaved repetitions."
        " Absolute rates depend on the machine; compare the ratios.",
        "",
        f"![Events per second beside peers and bare drivers; cost per event as the backlog grows]({PLOT})",
    ]
    for part, section in sections.items():
        if part in figures:
            lines += ["", *section(figures[part])]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---|" + "---:|" * (len(head) - 1)
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def _throughput(found: Figures) -> Iterator[str]:
    yield "## From Kafka to Delta and ClickHouse"
    yield ""
    yield (
        f"{found['events']:,} JSON events of {found['message_bytes']} bytes and 12 fields, {found['codec']} record"
        " batches, four partitions; one process, an empty lake, a raw table without the speed layer's views. After each"
        f" run every offset was looked for in lake and warehouse, as the demo does.{_state(found)}"
    )
    yield ""
    rows = [
        [
            f"**{NAMES[name]}**" if name in _WHOLES else NAMES[name],
            f"{one['events_per_second']:,}",
            f"{(one['highest'] - one['lowest']) / one['events_per_second']:.0%}",
            f"{one['cpu_seconds_per_million']:.2f}",
            f"{one['busy_seconds_per_million']:.2f}",
            _gb(one["peak_bytes"]),
        ]
        for name in NAMES
        if name not in PEERS and (one := found["series"].get(name))
    ]
    head = ["", "events/s", "spread", "core s per million", "of all processes", "memory, GB"]
    yield from _table(head, rows)
    yield ""
    yield (
        "The spread is from the slowest to the fastest repetition. Core seconds and memory are those of the measuring"
        " process. The steps in memory share one process, which holds the messages and everything made from them. All"
        " processes are those of the whole machine, mainly broker, queue and ClickHouse."
    )
    yield ""
    for whole, limit in found["of_slowest_step"].items():
        step = NAMES[limit["step"]]
        yield f"- {NAMES[whole]}: **{limit['share']:.0%}** of its slowest unavoidable step alone ({step})."
    for whole, limit in found["of_all_cores"].items():
        yield (
            f"- {NAMES[whole]}: **{limit['share']:.0%}** of {limit['events_per_second']:,}/s, which bare drivers"
            f" ({', '.join(_SHORT[step] for step in UNAVOIDABLE[whole])}) would reach if they kept all {_CORES} cores"
            " busy."
        )
    for whole, ratio in found["to_poll"].items():
        yield f"- {NAMES[whole]}: **{ratio:.1f} times** the rate of {NAMES['poll']}, which writes nothing."
    for name, every in MALFORMED.items():
        yield f"- {NAMES[name]}: **{found['to_clean'][f'1 in {every}']:.0%}** of the rate without."
    if found["to_peers"]:
        yield from _peers(found)


def _peers(found: Figures) -> Iterator[str]:
    yield ""
    yield "### Beside others"
    yield ""
    yield (
        "Each reads the same events from the same broker into Delta, in the same run. Each follows its documentation"
        " and is tuned where that helps. None keeps offsets and rows in one commit, keeps rejected records, or"
        " publishes. Slow ones got a share of the events."
    )
    yield ""
    rows = [
        [
            PEERS[name].said,
            f"{found['series'][name]['events_per_second']:,}",
            f"{found['series'][name]['events']:,}",
            _gb(found["series"][name]["peak_bytes"]),
            f"{ratio:.1f} times",
        ]
        for name in PEERS
        if (ratio := found["to_peers"].get(name))
    ]
    yield from _table(["", "events/s", "events", "memory, GB", "Headrace reaches"], rows)


def _profile(found: Figures) -> Iterator[str]:
    yield "### Where the rest of the time goes"
    yield ""
    yield (
        "py-spy sampled a run to Delta and ClickHouse a hundred times a second; the figures are shares of the run's"
        " time. Work of Polars and delta-rs in their own threads counts for the stage that waits for it."
    )
    yield ""
    rows = [[one["name"], f"{one['leading']:.0%}", f"{one['others']:.0%}"] for one in found["stages"]]
    yield from _table(["", "in the leading thread", "in others, meanwhile"], rows)


def _scale(found: Figures) -> Iterator[str]:
    yield "## As the backlog and the table grow"
    yield ""
    yield (
        "One ingest run drains each backlog to Delta and ClickHouse. Its time includes the start and ends when the last"
        " row is published."
        f"{_state(found)}"
    )
    yield ""
    drained = [
        [
            f"{one['backlog']:,}",
            f"{one['events_per_second']:,}",
            f"{one['cpu_seconds_per_million']:.2f}",
            _gb(one["peak_bytes"]),
        ]
        for one in found["drained"]
    ]
    yield from _table(["events that wait", "events/s", "core s per million", "peak memory, GB"], drained)
    yield ""
    yield f"An event of the largest backlog costs **{found['cost_to_smallest']:.2f}** of one of the smallest."
    yield ""
    commits = [
        [f"{one['commits']:,}", f"{one['milliseconds']:.1f}", _known(one.get("cpu_milliseconds"))]
        for one in _thinned(found["commits"])
    ]
    yield from _table(
        ["commits in the table", "ms for 100 messages, both tables", "of processor time"], commits
    )
    yield ""
    yield (
        f"The last commits cost **{found['last_to_first_commit']:.2f}** of the processor time of the"
        " first. The tables are maintained every"
        f" 500 commits ({found['maintenance_seconds']:.1f} s), as upkeep does every hour. Their logs are shortened in"
        " between, as publishing does."
        + (f" {found['daily_versions']} daily versions are kept." if found.get("daily_versions") else "")
    )


def _known(milliseconds: float | None) -> str:
    """Show what older figures lack as not known."""
    return "not known" if milliseconds is None else f"{milliseconds:.1f}"


def _thinned(rows: Sequence[Figures]) -> list[Figures]:
    step = max(1, len(rows) // 6)
    return [*rows[:-2:step], *rows[-2:]] if step > 1 else list(rows)


def _queries(found: Figures) -> Iterator[str]:
    yield "## Dashboard queries"
    yield ""
    yield (
        f"{found['events']:,} events of {found['days']} days, queried through clickhouse-connect, one query after the"
        " other."
        f"{_state(found)}"
    )
    yield ""
    rows = [
        [one["question"], f"{one['rows']:,}", f"{one['p50']:.0f}", f"{one['p95']:.0f}", f"{one['worst']:.0f}"]
        for one in found["answers"]
    ]
    yield from _table(["", "rows", "p50, ms", "p95, ms", "worst, ms"], rows)
    yield ""
    yield (
        f"To rebuild and test a touched day of {found['day_events']:,} events takes {found['refresh_seconds']:,.0f} s,"
        f" including the days that change with it ({found['refresh_events']:,} events in all). All marts of all days"
        f" took {found['build_seconds']:,.0f} s."
    )


def _collector(found: Figures) -> Iterator[str]:
    from headrace.bench.collector import BATCH
    from headrace.bench.collector import NAMES as SERVERS

    yield "## Events over HTTP"
    yield ""
    yield (
        "Client and server share the cores, so what counts is core time of all processes of a server, until all that it"
        " acknowledged is in the topic, which is looked up. Headrace answers after its sync; the peer syncs nothing."
        f" The load of the machine was {found['load'][0]:.1f} before and {found['load'][1]:.1f} after.{_state(found)}"
    )
    yield ""
    rows = []
    for name, one in found["single"].items():
        half, many = found["half_load"][name], found["batch"][name]
        rows.append(
            [
                SERVERS[name],
                f"{one['core_microseconds_per_request']:.0f}",
                f"{one['events_per_core_second']:,}",
                f"{one['requests_per_second']:,}",
                f"{half['p50_ms']:.1f}",
                f"{half['p99_ms']:.1f}",
                f"{many['core_microseconds_per_event']:.1f}",
                f"{many['events_per_core_second']:,}",
                f"{one['pace_ns']:.0f}, {many['pace_ns']:.0f}",
            ]
        )
    head = [
        "",
        *("one event a request: core µs", "per core second", "per second"),
        *("at half of that: p50, ms", "p99, ms"),
        *(f"batches of {BATCH}: core µs an event", "events per core second", "a pass of an empty loop, ns"),
    ]
    yield from _table(head, rows)
    yield ""
    if ratio := found["to_fastapi"]:
        yield (
            f"- The peer takes **{ratio['single']:.1f} times** the core time for a single event, and"
            f" **{ratio['batch']:.1f} times** in batches."
        )
    if memory := found["memory"]:
        first, last = memory[0], memory[-1]
        yield (
            f"- Memory: {first['bytes'] / 1e6:.0f} MB after {first['events']:,} events,"
            f" {last['bytes'] / 1e6:.0f} MB after {last['events']:,}."
        )
    for how, one in (("is lost", found["recovery"]), ("is as kill -9 leaves it", found["restart"])):
        if one:
            yield (
                f"- A log of {one['events']:,} undelivered entries whose index {how} opens in {one['seconds']:.1f} s"
                f" ({one['cpu_seconds']:.1f} core s); {one['added']:,} are added to the index."
            )


def _state(found: Figures) -> str:
    return (
        f" The broker keeps everything in memory; other state was on {found['filesystem']}."
        if found.get("filesystem")
        else ""
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"


def require_plots() -> None:
    """Check that Matplotlib is installed.

    Raises:
        Fatal: It is not.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise Fatal("matplotlib is not installed; 'make bench' does that, in an environment of its own")
