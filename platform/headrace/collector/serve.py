"""Run a collector: open its log and index, put the door in front of them, and serve HTTP until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import uvloop

from headrace.collector.about import Client
from headrace.collector.access import Access, Policy
from headrace.collector.commit import Committer
from headrace.collector.dispatch import Dispatcher, far_of
from headrace.collector.door import Door
from headrace.collector.ids import Ids
from headrace.collector.keys import Keys, first_key
from headrace.collector.log import DurableLog
from headrace.collector.meters import Meters
from headrace.collector.prepare import Target
from headrace.collector.progress import LakeProgress
from headrace.collector.receipts import Progress
from headrace.collector.reload import Streams
from headrace.collector.routes.operation import Operation
from headrace.collector.service import Service, Sizes
from headrace.collector.topics import QUEUE_BYTES, topic_of
from headrace.collector.wire import Bounds, Wire
from headrace.core.lanes import cursor_of, spread
from headrace.pipelines import Pipeline
from headrace.streams.stream import Stream

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)

#: Bytes of an entry with several events: what a damaged place of the disk can take with it, at most.
_MESSAGE_BYTES = 131_072
#: Seconds for which a thread keeps Python's lock while others wait: the committer must not wait for the loop.
_SWITCH_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Collector:
    """A collector that is open and serves nothing yet.

    Attributes:
        service: Answers requests.
        bounds: What a connection may hold.
        door: Takes events.
        log: The log.
        ids: The index.
        dispatcher: Sends what the log holds to topics.
        meters: What is counted.
        targets: The streams by name.
    """

    service: Service
    bounds: Bounds
    door: Door
    log: DurableLog
    ids: Ids
    dispatcher: Dispatcher
    meters: Meters
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
        streams = Streams(settings)
        folder = settings.collector_folder
        durable = DurableLog(folder / "log", limit_bytes=settings.collector_log_bytes)
        held.callback(durable.close)
        ids = Ids(folder / "ids", timedelta(days=settings.collector_repeat_days))
        held.callback(ids.close)
        if added := ids.catch_up(durable):
            log.info("%s entries of the log were added to the index", f"{added:,}")
        dispatcher = Dispatcher(durable, ids, {})
        held.callback(dispatcher.stop)
        meters = Meters()
        committer = Committer(durable, ids, meters)
        door = Door(
            committer,
            streams.judged,
            meters,
            group_seconds=settings.collector_group_ms / 1_000,
            message_bytes=min(settings.max_message_bytes // 2, QUEUE_BYTES, _MESSAGE_BYTES),
        )
        held.callback(door.close)
        access = _access(settings)
        progress = LakeProgress(
            {},
            lambda number: spread(number, durable.lanes),
            [cursor_of(durable.id, lane) for lane in range(durable.lanes)],
            dispatcher.in_topic,
        )
        held.callback(progress.close)
        pages = _operation(streams, committer, durable, dispatcher, access, meters, progress).pages
        client = Client(settings.collector_address, settings.collector_user_agent)
        sizes = Sizes(
            settings.collector_body_bytes,
            min(settings.collector_event_bytes, settings.max_message_bytes),
            settings.collector_batch_events,
        )
        service = Service(door, streams.targets, access, client, meters, durable.id, sizes, pages)
        ways = _Ways(settings, dispatcher, progress)
        ways.follow(streams.pipelines)
        dispatcher.start()
        held.callback(streams.stop)
        streams.watch(ways.follow)
        bounds = Bounds(settings.collector_body_bytes, settings.collector_body_seconds)
        yield Collector(service, bounds, door, durable, ids, dispatcher, meters, streams.targets)


class _Ways:
    """Gives each stream its way to the lake, and a look at how far it is; another one where topic or table change."""

    def __init__(self, settings: Settings, dispatcher: Dispatcher, progress: LakeProgress) -> None:
        self._settings, self._dispatcher, self._progress = settings, dispatcher, progress
        self._ends: dict[str, tuple[object, ...]] = {}

    def follow(self, pipelines: Mapping[str, Pipeline]) -> None:
        for name, pipeline in pipelines.items():
            end = topic_of(pipeline), pipeline.contract.table.name, pipeline.contract.rejected_table.name
            if self._ends.get(name) == end:
                continue
            # each stream is for one thread
            self._dispatcher.follow(name, far_of(Stream(pipeline, self._settings, retry=False)))
            self._progress.follow(name, Stream(pipeline, self._settings, retry=False))
            self._ends[name] = end


def _access(settings: Settings) -> Access:
    keys = Keys(settings.collector_keys_file)
    if (
        not settings.collector_anonymous
        and (made := first_key(keys, settings.collector_first_key)) is not None
    ):
        log.warning("a first write key 'default' was made; %s has it", made)
    policy = Policy(
        settings.collector_anonymous,
        frozenset(settings.collector_origins),
        settings.collector_key_rate,
        settings.collector_address_rate,
        settings.collector_proxies,
    )
    return Access(keys, policy)


def _operation(
    streams: Streams,
    committer: Committer,
    durable: DurableLog,
    dispatcher: Dispatcher,
    access: Access,
    meters: Meters,
    progress: Progress,
) -> Operation:
    from headrace.collector import description

    @lru_cache(1)
    def as_of(loads: int) -> dict[str, Any]:
        return description.described(dict(streams.targets))

    def described() -> dict[str, Any]:
        return as_of(streams.loads)

    def gauges() -> dict[str, tuple[str, float]]:
        return {
            "headrace_collector_log_bytes": (
                "Bytes of the log that the lake does not have yet.",
                durable.bytes,
            ),
            "headrace_collector_waiting_entries": (
                "Entries that the lake does not have yet, as far as is known.",
                max(0, durable.next - max(dispatcher.landed, durable.oldest)),
            ),
            "headrace_collector_problems": (
                "Streams whose entries do not reach their topics.",
                len(dispatcher.problems),
            ),
        }

    return Operation(
        durable.id,
        progress,
        access,
        meters,
        gauges,
        lambda: committer.broken,
        described,
        lambda: description.page(described()),
    )


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
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what is there by now stays; the collector of garbage need not look at it again and again
    wire = Wire(collector.service, collector.bounds)
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, wire.stop)
    await wire.serve(host, port, ready)


def run(collector: Collector, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serve as ``serve`` does, in a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(collector, host, port, ready))


class JsonLines(logging.Formatter):
    """Formats each record of the log as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)
