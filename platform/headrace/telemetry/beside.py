"""Measure in a process beside the one that serves, which stays small and quick.

Measuring needs every driver, some 300 MB, and as many threads as there are parts. The process is started by the first
scrape and ends five minutes after the last one, so that an installation without a Prometheus pays nothing. A scrape
waits for it a moment at most; then it gets the page of the scrape before, with its age.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
AGE = "headrace_exporter_page_age_seconds"
#: A scrape waits so long for the page of now; one that is older than the second is told no longer, s.
WAIT_SECONDS, OLDEST_SECONDS = 0.12, 60.0
#: After so long without a scrape the process ends; one that died is started again at the earliest after the second, s.
IDLE_SECONDS, _AGAIN_SECONDS = 300.0, 10.0
_BEGUN = b"# measuring has begun; ask again in some seconds\n"

#: What the process does with its end of the pipe: gives the page whenever it is asked.
Work = Callable[[Connection, "Settings"], None]


def work(pipe: Connection, settings: Settings) -> None:
    """Measure, and give the page whenever it is asked for, until nobody has asked for long or the server is gone."""
    from headrace.telemetry.exporter import exporter

    measured = exporter(settings)
    measured.start()
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while pipe.poll(IDLE_SECONDS):
            pipe.send((pipe.recv(), measured.text()))
    measured.stop()


class Beside:
    """The page of an installation, from a process beside. For several threads.

    Args:
        settings: Settings of the installation.
        work: What the process does.
    """

    def __init__(self, settings: Settings, work: Work = work) -> None:
        self._settings, self._work = settings, work
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._started = -_AGAIN_SECONDS
        self._number, self._open = 0, False
        self._last: tuple[float, bytes] | None = None

    def text(self, wait: float = WAIT_SECONDS) -> bytes:
        """Return the page in Prometheus' text format.

        Args:
            wait: Seconds to wait for that of now.
        """
        deadline = time.monotonic() + wait
        if self._lock.acquire(timeout=wait):
            try:
                self._ask(deadline)
            finally:
                self._lock.release()
        last, now = self._last, time.monotonic()
        if last is None or now - last[0] > OLDEST_SECONDS:
            return _BEGUN if last is None else b"# nothing was measured of late; the log says why\n"
        age = f"# HELP {AGE} Age of this page.\n# TYPE {AGE} gauge\n{AGE} {max(0.0, now - last[0]):.3f}\n"
        return last[1] + age.encode()

    def _ask(self, deadline: float) -> None:
        """Ask for the page of now, and take what has come by the deadline."""
        try:
            if not self._alive() or self._pipe is None:
                return
            if not self._open:
                self._number += 1
                self._pipe.send(self._number)
                self._open = True
            asked = time.monotonic()
            while self._open and self._pipe.poll(max(0.0, deadline - time.monotonic())):
                number, page = self._pipe.recv()
                self._last, self._open = (asked, page), number != self._number
        except (EOFError, OSError) as error:
            log.warning("the process that measures ended (%r); the next scrape starts another", error)
            self._end()

    def _alive(self) -> bool:
        """Tell whether the process runs; starts one that does not, unless the last one was started just now."""
        if self._process is not None and self._process.is_alive():
            return True
        if time.monotonic() - self._started < _AGAIN_SECONDS:
            return False
        self._end()
        self._started = time.monotonic()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=self._work, args=(theirs, self._settings), name="headrace telemetry", daemon=True
        )
        self._process.start()
        theirs.close()
        self._pipe, self._open = ours, False
        return True

    @property
    def pid(self) -> int | None:
        """Id of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End the process, whatever it does."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process, pipe, self._pipe = self._process, None, self._pipe, None
        self._open = False
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.kill()
            process.join()
            process.close()
