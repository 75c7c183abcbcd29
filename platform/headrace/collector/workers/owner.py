"""The process that owns log and index: commits what its workers send, answers what they ask, and keeps them alive."""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import uvloop

from headrace.collector.line import Line
from headrace.collector.meters import Counts
from headrace.collector.owned import Owned, owned
from headrace.collector.parcels import Parcel
from headrace.collector.routes.operation import Here
from headrace.collector.serve import settle
from headrace.collector.workers import processes
from headrace.collector.workers.keeper import Alive
from headrace.collector.workers.messages import (
    Ask,
    Beat,
    Begin,
    Channel,
    Commit,
    Done,
    Load,
    NotDone,
    Ready,
    Said,
    ToOwner,
    ToWorker,
)
from headrace.collector.workers.slot import Slot
from headrace.core.errors import Fatal, HeadraceError
from headrace.pipelines import Pipeline

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)

#: Seconds between two looks at the workers.
_LOOK_SECONDS = 1.0
#: Starts that may fail before any worker was ever ready.
_MOST_FAILURES = 3
#: Seconds that workers have to answer what is under way.
_STOP_SECONDS = 40.0


#: A message and where it goes.
_Answer = tuple[Channel[ToOwner], ToWorker]


class _Handed:
    """A parcel on its way, and who waits for its answer."""

    __slots__ = ("bytes", "channel", "number", "parcel")

    def __init__(self, channel: Channel[ToOwner], parcel: Parcel) -> None:
        self.channel, self.parcel = channel, parcel
        self.number, self.bytes = parcel.number, parcel.size


class Hub:
    """Commits parcels, and answers questions. For one loop; a thread of its own commits.

    Args:
        own: Log, index, and what sends from there.
        settings: The settings, which workers have, too.
        json_logs: Whether lines of the workers' logs are JSON.
    """

    def __init__(self, own: Owned, settings: Settings, json_logs: bool) -> None:
        self._own, self._settings, self._json_logs = own, settings, json_logs
        self.slots: list[Slot] = []
        self._names = sorted(own.streams.pipelines)
        self._here = Here(self._counts, own.gauges, lambda: own.committer.broken, own.progress)
        self._line: Line[_Handed] = Line()
        self._group_seconds = settings.collector_group_ms / 1_000
        self._loop = asyncio.get_running_loop()
        self._asked: set[asyncio.Task[None]] = set()
        self._failures = 0
        self.ever_ready = asyncio.Event()
        self.failed: Fatal | None = None
        self._thread = threading.Thread(target=self._committing, name="collector-commit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Commit what waits, and end."""
        self._line.end()
        self._thread.join()

    def begin(self) -> Begin:
        """Return what a worker is told first."""
        return Begin(pickle.dumps(self._settings), self._names, self._own.log.id, self._json_logs)

    def follow(self, pipelines: Mapping[str, Pipeline]) -> None:
        """Give streams their ways, and only then let workers load them; called in another thread."""
        self._own.ways.follow(pipelines)
        self._loop.call_soon_threadsafe(self._load, sorted(pipelines))

    def _load(self, names: list[str]) -> None:
        self._names = names
        for slot in self.slots:
            slot.send(Load(names))

    def heard(self, slot: Slot, channel: Channel[ToOwner], message: ToOwner) -> None:
        """Hear a worker."""
        if isinstance(message, Commit):  # also of one that is gone meanwhile
            self._line.put(_Handed(channel, message.parcel))
            return
        if not slot.is_of(channel):
            return
        match message:
            case Beat():
                slot.note(message.counts)
            case Ready():
                slot.ready = True
                if all(one.ready for one in self.slots):
                    self.ever_ready.set()
            case Ask():
                task = self._loop.create_task(self._answer(channel, message))
                self._asked.add(task)
                task.add_done_callback(self._asked.discard)

    def failed_to_start(self, worker: int, code: int) -> None:
        """Note that a worker ended before it was ready; the collector ends if none ever is."""
        self._failures += 1
        if not self.ever_ready.is_set() and self._failures >= _MOST_FAILURES:
            self.failed = Fatal(
                f"the collector's worker {worker} does not start: it ended with {code}; see its log"
            )
            self.ever_ready.set()

    async def _answer(self, channel: Channel[ToOwner], asked: Ask) -> None:
        try:
            match asked.about:
                case "metrics":
                    said = Said(asked.number, await self._here.metrics())
                case "unready":
                    said = Said(asked.number, await self._here.unready())
                case _:
                    said = Said(asked.number, stages=await self._here.stages(asked.stream, asked.entries))
        except HeadraceError as error:
            said = Said(asked.number, failed=str(error))
        except Exception:
            log.exception("a worker's question about %s could not be answered", asked.about)
            said = Said(asked.number, failed="the collector has a defect, which its log names")
        channel.send(said)

    def _counts(self) -> Counts:
        total = self._own.meters.counts
        for slot in self.slots:
            total += slot.counts
        return total

    def _committing(self) -> None:
        began = 0.0
        while (handed := self._line.take(began + self._group_seconds)) is not None:
            began = time.perf_counter()
            self._settle(self._committed(handed))
            self._own.meters.group(time.perf_counter() - began)

    def _committed(self, handed: Sequence[_Handed]) -> list[_Answer]:
        committer = self._own.committer
        try:
            done = committer.commit([one.parcel for one in handed])
        except Exception as error:
            if not isinstance(error, HeadraceError):
                log.exception("events could not be committed")
            refused = committer.refusal(error, sum(one.bytes for one in handed))
            answer = NotDone(refused.status, str(refused), refused.retry_after)
            return [(one.channel, answer) for one in handed]
        return [(one.channel, Done(each)) for one, each in zip(handed, done, strict=True)]

    def _settle(self, answers: list[_Answer]) -> None:
        self._loop.call_soon_threadsafe(_send, answers)


def _send(answers: Sequence[_Answer]) -> None:
    for channel, answer in answers:
        channel.send(answer)


@contextmanager
def opened(settings: Settings) -> Iterator[Owned]:
    """Open what the owner has; when it is left, everything is closed.

    Args:
        settings: Where everything is.

    Raises:
        Busy: Another process has its log.
        Fatal: Log, index or keys cannot be opened.
    """
    with ExitStack() as held:
        own = held.enter_context(owned(settings))
        held.callback(own.streams.stop)
        yield own


def run(
    own: Owned,
    settings: Settings,
    host: str,
    port: int,
    workers: int,
    ready: Callable[[], None] = lambda: None,
    alive: Alive = lambda: True,
    *,
    json_logs: bool = False,
) -> None:
    """Serve by so many workers until SIGTERM or SIGINT; requests that are under way are answered first.

    Args:
        own: Log, index, and what sends from there.
        settings: The settings.
        host: Address to listen on.
        port: Port to listen on.
        workers: How many.
        ready: Called once all of them take requests.
        alive: Called each second, as a sign of life; false ends this process as a signal does.
        json_logs: Whether lines of the workers' logs are JSON.

    Raises:
        Fatal: The address cannot be had, or no worker starts.
    """
    sockets = processes.listening(host, port, workers)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_served(own, settings, sockets, ready, alive, json_logs))
    finally:
        processes.close(sockets)


async def _served(
    own: Owned,
    settings: Settings,
    sockets: Sequence[Sequence[socket.socket]],
    ready: Callable[[], None],
    alive: Alive,
    json_logs: bool,
) -> None:
    stopped = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stopped.set)
    hub = Hub(own, settings, json_logs)
    hub.slots += [Slot(number, hub, some) for number, some in enumerate(sockets, 1)]
    own.streams.watch(hub.follow)
    settle()
    told = False
    try:
        while not stopped.is_set() and hub.failed is None:
            for slot in hub.slots:
                await slot.look()
            if not alive():
                stopped.set()
            if not told and hub.ever_ready.is_set() and hub.failed is None:
                told = True
                ready()
            await _first_of(stopped, hub.ever_ready if not told else None)
        processes.close(sockets)  # who comes now is refused, as soon as the workers have closed theirs
        until = time.monotonic() + (_STOP_SECONDS if hub.failed is None else 0.0)
        await asyncio.gather(*(slot.stop(until) for slot in hub.slots))
    finally:
        for slot in hub.slots:
            slot.kill()
        own.streams.stop()
        hub.close()
    if hub.failed is not None:
        raise hub.failed


async def _first_of(*events: asyncio.Event | None) -> None:
    """Wait for one of several events, or until it is time for another look."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events if event is not None]
    try:
        await asyncio.wait(waiting, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
