"""Run a collector: open its log and index, put the door in front of them, and serve HTTP until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvloop

from headrace.collector import front
from headrace.collector.door import Door
from headrace.collector.owned import Owned, owned
from headrace.collector.prepare import Target
from headrace.collector.routes.operation import Here
from headrace.collector.service import Service
from headrace.collector.wire import Bounds, Wire

if TYPE_CHECKING:
    from headrace.config.settings import Settings

#: Seconds for which a thread keeps Python's lock while others wait: the committer must not wait for the loop.
_SWITCH_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Collector:
    """A collector that is open and serves nothing yet.

    Attributes:
        service: Answers requests.
        bounds: What a connection may hold.
        door: Takes events.
        own: Log, index, and what sends from there.
        targets: The streams by name.
    """

    service: Service
    bounds: Bounds
    door: Door
    own: Owned
    targets: Mapping[str, Target]


@contextmanager
def opened(settings: Settings) -> Iterator[Collector]:
    """Open a collector; when it is left, what waits is committed and everything closed.

    Args:
        settings: Where everything is.

    Raises:
        Busy: Another process has its log.
        Fatal: Log, index or keys cannot be opened.
    """
    with ExitStack() as held:
        own = held.enter_context(owned(settings))
        streams = own.streams
        door = Door(
            own.committer,
            streams.judged,
            own.meters,
            group_seconds=settings.collector_group_ms / 1_000,
            message_bytes=front.message_bytes(settings),
        )
        held.callback(door.close)
        state = Here(lambda: own.meters.counts, own.gauges, lambda: own.committer.broken, own.progress)
        service = front.service(settings, streams, door, state, own.meters, own.log.id)
        held.callback(streams.stop)
        streams.watch(own.ways.follow)
        yield Collector(service, front.bounds(settings), door, own, streams.targets)


def settle() -> None:
    """Prepare a process that has loaded everything for serving."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what is there by now stays; the collector of garbage need not look at it again and again


async def serve(collector: Collector, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT; requests that are under way are answered first.

    Args:
        collector: The collector.
        host: Address to listen on.
        port: Port to listen on.
        ready: Called once it listens.

    Raises:
        Fatal: The address cannot be had.
    """
    settle()
    wire = Wire(collector.service, collector.bounds)
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, wire.stop)
    await wire.serve(host, port, ready)


def run(collector: Collector, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serve as ``serve`` does, in a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(collector, host, port, ready))
