"""Measure how long a scrape takes: of a large installation that is made up, and of a real one on the embedded stack."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from headrace.config.settings import load_settings
from headrace.core.errors import Retriable
from headrace.local.embedded import EmbeddedStack
from headrace.telemetry.beside import Beside
from headrace.telemetry.exporter import Exporter
from headrace.telemetry.families import FAMILIES, LAG, OFFSET, Reading
from headrace.telemetry.parts import Part

_READY_SECONDS = 120.0
#: Parts of an installation with Headrace's own streams, at least.
_PARTS = 15


class _Page(Protocol):
    def text(self) -> bytes:
        """Scrape."""


@dataclass(frozen=True, slots=True)
class Scrapes:
    """How long scrapes took.

    Attributes:
        series: Series of each.
        bytes: Bytes of each.
        p50, p99, worst: ms.
        core: Processor time of one in this process, ms.
    """

    series: int
    bytes: int
    p50: float
    p99: float
    worst: float
    core: float

    @classmethod
    def of(cls, made: _Page, scrapes: int) -> Scrapes:
        """Scrape so many times."""
        took, body, cpu = [], b"", time.process_time()
        for _ in range(scrapes):
            began = time.perf_counter()
            body = made.text()
            took.append((time.perf_counter() - began) * 1_000)
        core = (time.process_time() - cpu) * 1_000 / scrapes
        series = sum(1 for line in body.splitlines() if line and not line.startswith(b"#"))
        hundredth = statistics.quantiles(took, n=100)[98]
        return cls(series, len(body), statistics.median(took), hundredth, max(took), core)


@dataclass(frozen=True, slots=True)
class ScrapeResult:
    """What was measured.

    Attributes:
        large: A made-up installation, of which one service is away and one hangs.
        real: Headrace's own streams on the embedded stack, idle, by the process beside, as the server asks it.
        parts: Parts of the real one.
        seconds: For how long its measuring was watched.
        core_seconds: Processor time that measuring took meanwhile, s.
        bytes: Memory of the process beside.
    """

    large: Scrapes
    real: Scrapes
    parts: int
    seconds: float
    core_seconds: float
    bytes: int


def scrape(
    home: Path,
    say: Callable[[str], object],
    *,
    streams: int = 50,
    partitions: int = 64,
    scrapes: int = 200,
    seconds: float = 60.0,
) -> ScrapeResult:
    """Measure scrapes.

    Args:
        home: An empty folder.
        say: Told what is measured.
        streams: Streams of the large installation.
        partitions: Partitions of each of their topics.
        scrapes: How many of each.
        seconds: For how long the processor time of measuring is watched.
    """
    say(f"a made-up installation of {streams} streams with {partitions} partitions each")
    stuck = threading.Event()
    large = Exporter([*_parts(streams, partitions), *_broken(stuck)], seconds=600.0)
    try:
        large.start()
        _until(lambda: sum(one.last is not None for one in large.kept) >= streams + 1)
        first = Scrapes.of(large, scrapes)
    finally:
        stuck.set()
        large.stop()
    say("an installation on the embedded stack")
    with EmbeddedStack(home) as endpoints:
        own: dict[str, Any] = {k.removeprefix("HEADRACE_").lower(): v for k, v in endpoints.items()}
        page = Beside(load_settings(home=home, **own))
        try:
            _until(lambda: page.text().count(b"headrace_exporter_part_up{") >= _PARTS)
            second = Scrapes.of(page, scrapes)
            beside, began = psutil.Process(page.pid), time.perf_counter()
            before = beside.cpu_times()
            threading.Event().wait(seconds)
            after, watched = beside.cpu_times(), time.perf_counter() - began
            spent = after.user + after.system - before.user - before.system
            parts = page.text().count(b"headrace_exporter_part_up{")
            return ScrapeResult(first, second, parts, watched, spent, beside.memory_info().rss)
        finally:
            page.close()


def _parts(streams: int, partitions: int) -> Iterator[Part]:
    for n in range(streams):
        name = f"stream_{n}"
        readings = [Reading(one, n * 1.5, tuple(name for _ in one.labels)) for one in FAMILIES if one.labels]
        for place in range(partitions):
            readings += [
                LAG(n * place, "headrace", name, str(place)),
                OFFSET(n, "headrace", name, str(place)),
            ]
        yield Part("lake", lambda told=readings: told, name)  # type: ignore[misc]


def _broken(stuck: threading.Event) -> Iterator[Part]:
    def hang() -> Iterable[Reading]:
        stuck.wait()
        return ()

    def away() -> Iterable[Reading]:
        raise Retriable("the broker of this bench is away, as it should be")

    yield Part("source", hang, "stream_0")
    yield Part("source", away, "stream_1")


def _until(ready: Callable[[], object]) -> None:
    deadline, never = time.monotonic() + _READY_SECONDS, threading.Event()
    while not ready():
        if time.monotonic() > deadline:
            raise Retriable(
                f"not every part was measured within {_READY_SECONDS:.0f} s; is the machine busy?"
            )
        never.wait(0.1)
