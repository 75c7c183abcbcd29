"""A worker: speaks HTTP, reads, completes and judges events, and asks the owner of the log for everything else.

Started by the owner alone, with its end of a pair of sockets and the sockets to listen on as numbers of descriptors.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import uvloop

from headrace.collector import front, serve
from headrace.collector.base import Refused
from headrace.collector.json_lines import JsonLines
from headrace.collector.meters import Meters
from headrace.collector.receipts import Stage
from headrace.collector.reload import Streams
from headrace.collector.wire import Wire
from headrace.collector.workers.gate import Blocked, Gate
from headrace.collector.workers.messages import (
    Ask,
    Beat,
    Begin,
    Channel,
    Done,
    Load,
    NotDone,
    Ready,
    Said,
    Stop,
    ToWorker,
)
from headrace.core.orphans import die_with

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)

#: Seconds between two signs of life.
BEAT_SECONDS = 1.0
#: Seconds within which the owner answers a question.
_ANSWER_SECONDS = 10.0


class There:
    """The state of the collector, of which the owner knows. For one loop."""

    def __init__(self, channel: Channel[ToWorker], meters: Meters) -> None:
        self._channel, self._meters = channel, meters
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Said]] = {}

    async def metrics(self) -> str:
        """Return what all processes have counted."""
        self._channel.send(Beat(self._meters.counts))
        return (await self._ask("metrics")).text

    async def unready(self) -> str:
        """Return why the owner cannot commit."""
        try:
            return (await self._ask("unready")).text
        except Refused as error:
            return str(error)

    async def stages(self, stream: str, numbers: Sequence[int], /) -> list[Stage]:
        """Return how far each entry of a stream is."""
        return (await self._ask("stages", stream, list(numbers))).stages

    async def _ask(self, about: str, stream: str = "", entries: list[int] | None = None) -> Said:
        number = next(self._numbers)
        told: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self._asked[number] = told
        self._channel.send(Ask(number, about, stream, entries or []))
        try:
            said = await asyncio.wait_for(told, _ANSWER_SECONDS)
        except TimeoutError:
            raise Refused(
                503, f"the process with the log did not answer within {_ANSWER_SECONDS:g} s", 5
            ) from None
        finally:
            del self._asked[number]
        if said.failed:
            raise Refused(503, said.failed, 5)
        return said

    def heard(self, said: Said) -> None:
        """Take an answer; one that nobody waits for any more is dropped."""
        told = self._asked.get(said.question)
        if told is not None and not told.done():
            told.set_result(said)


class Worker:
    """One worker, in one loop.

    Args:
        listening: The sockets to listen on.
    """

    def __init__(self, listening: Sequence[socket.socket]) -> None:
        self._listening = listening
        self._began: asyncio.Future[Begin] = asyncio.get_running_loop().create_future()
        self._channel: Channel[ToWorker] = Channel(ToWorker, self._heard, _owner_is_gone)
        self._streams: Streams | None = None
        self._gate: Gate | None = None
        self._there: There | None = None
        self._wire: Wire | None = None
        self._meters = Meters()
        # one thread each: targets are for one that judges, and files are loaded one after the other
        self._judge = ThreadPoolExecutor(1, "collector-judge")
        self._loader = ThreadPoolExecutor(1, "collector-reload")

    async def run(self, connection: socket.socket) -> None:
        """Serve until the owner says that it is enough, or a signal."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._channel, sock=connection)
        begin = await self._began
        settings: Settings = pickle.loads(begin.settings)  # from the process that started this one
        _logged(begin.json_logs)
        self._streams = streams = Streams(settings, begin.streams)
        blocked = Blocked(time.monotonic)
        self._gate = Gate(
            self._channel.send,
            streams.judged,
            blocked,
            self._meters.refused,
            self._judge,
            front.message_bytes(settings),
        )
        self._there = There(self._channel, self._meters)
        service = front.service(
            settings, streams, self._gate, self._there, self._meters, begin.log_id, blocked
        )
        self._wire = wire = Wire(service, front.bounds(settings))
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, wire.stop)
        serve.settle()
        await wire.serve_on(self._listening, self._ready)
        self._channel.send(Beat(self._meters.counts))
        self._channel.close()

    def _ready(self) -> None:
        self._channel.send(Ready())
        self._beat()

    def _beat(self) -> None:
        self._channel.send(Beat(self._meters.counts))
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _heard(self, message: ToWorker) -> None:
        match message:
            case Done():
                assert self._gate is not None
                self._gate.done(message)
            case NotDone():
                assert self._gate is not None
                self._gate.not_done(message)
            case Said():
                assert self._there is not None
                self._there.heard(message)
            case Load():
                assert self._streams is not None
                loop = asyncio.get_running_loop()
                loop.run_in_executor(self._loader, _loaded, self._streams, message.streams)
            case Stop():
                if self._wire is not None:
                    self._wire.stop()
                else:
                    os._exit(0)
            case Begin():
                self._began.set_result(message)


def _loaded(streams: Streams, names: Sequence[str]) -> None:
    try:
        streams.load_these(names)
    except Exception:  # the next change is another chance
        log.exception("the pipeline files could not be followed")


def _owner_is_gone() -> None:
    """End at once: what is under way can no longer be answered truthfully, so its connections break."""
    os._exit(1)


def _logged(json_logs: bool) -> None:
    own = logging.getLogger("headrace")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if json_logs else logging.Formatter("headrace: %(message)s"))
    own.addHandler(handler)
    own.setLevel(logging.INFO)


def main(arguments: Sequence[str]) -> None:
    """Run a worker.

    Args:
        arguments: Process id of the owner, and descriptors of the connection and of the sockets to listen on.
    """
    owner, connection, *listening = map(int, arguments)
    die_with(owner)
    logging.getLogger().addHandler(logging.NullHandler())  # drivers log errors that they also raise

    async def served() -> None:
        worker = Worker([socket.socket(fileno=one) for one in listening])
        await worker.run(socket.socket(fileno=connection))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(served())
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
