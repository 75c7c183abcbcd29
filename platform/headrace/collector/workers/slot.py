"""A worker's place: start a process, hear whether it lives, and start another one when it has died."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from headrace.collector.meters import Counts
from headrace.collector.workers import processes
from headrace.collector.workers.messages import Begin, Channel, Stop, ToOwner, ToWorker

log = logging.getLogger(__name__)

#: Looks in a row at which a worker gave no sign of life, after which it is killed; of one that starts, more.
SILENT_LOOKS, STARTING_LOOKS = 30, 180
#: First and longest pause before a worker is started again, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0
#: Seconds that a worker has to live so that the next pause is short again.
_WELL_SECONDS = 30.0


class Hearing(Protocol):
    """Hears the workers; see ``Hub``."""

    def begin(self) -> Begin:
        """Return what a worker is told first."""

    def heard(self, slot: Slot, channel: Channel[ToOwner], message: ToOwner, /) -> None:
        """Hear a worker."""

    def failed_to_start(self, worker: int, code: int, /) -> None:
        """Note that a worker ended before it was ready."""


class Slot:
    """A worker's place: the process that has it now, and what all that had it have counted.

    Attributes:
        ready: Whether its process takes requests.
        silent: Looks at which it gave no sign of life.
        counts: What it has counted, with those before it.
    """

    def __init__(self, number: int, hub: Hearing, sockets: Sequence[socket.socket]) -> None:
        self._number, self._hub, self._sockets = number, hub, sockets
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel[ToOwner] | None = None
        self._before, self._now = Counts(), Counts()
        self.ready, self.silent = False, 0
        self._pause, self._due, self._began = _FIRST_PAUSE, 0.0, 0.0

    @property
    def counts(self) -> Counts:
        """What was counted here."""
        return self._before + self._now

    async def start(self) -> None:
        """Start a process."""
        self.ready, self.silent, self._began = False, 0, time.monotonic()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = processes.start(theirs, self._sockets)
        channel: Channel[ToOwner] = Channel(
            ToOwner, lambda m: self._hub.heard(self, channel, m), lambda: None
        )
        self._channel = channel
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
        channel.send(self._hub.begin())

    def send(self, message: ToWorker) -> None:
        """Send a message; one to a worker that is gone is lost."""
        if self._channel is not None:
            self._channel.send(message)

    def is_of(self, channel: Channel[ToOwner]) -> bool:
        """Tell whether a connection is that of the present process."""
        return channel is self._channel

    def note(self, counts: Counts) -> None:
        """Note a sign of life and what the process has counted."""
        self.silent, self._now = 0, counts

    async def look(self) -> None:
        """Start the process again if it has died, and kill it if it gives no sign of life."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._due:
                await self.start()
            return
        code = self._process.poll()
        if code is None:
            self.silent += 1
            if self.silent > (SILENT_LOOKS if self.ready else STARTING_LOOKS):
                log.error("worker %d gives no sign of life, and is killed", self._number)
                self._process.kill()
                self.silent = 0
            return
        self._over(code, now)

    def _over(self, code: int, now: float) -> None:
        if now - self._began > _WELL_SECONDS:
            self._pause = _FIRST_PAUSE
        if not self.ready:
            self._hub.failed_to_start(self._number, code)
        log.error("worker %d ended with %d; another one is started", self._number, code)
        self._end()
        self._due, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_PAUSE)

    def _end(self) -> None:
        self._before, self._now = self.counts, Counts()
        if self._channel is not None:
            self._channel.close()
        self._process = self._channel = None
        self.ready = False

    async def stop(self, until: float) -> None:
        """Let the process answer what is under way, and end; killed if it takes too long."""
        self.send(Stop())
        process = self._process
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                wait = max(0.0, until - time.monotonic())
                await asyncio.get_running_loop().run_in_executor(None, process.wait, wait)
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            if self._process.poll() is None:
                log.warning("worker %d did not end, and is killed", self._number)
                self._process.kill()
            self._process.wait()
            self._end()
