"""What the ways of all streams have in common: a thread that sends until it is told to stop, also after errors."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from headrace.core.errors import Fatal, HeadraceError
from headrace.core.lanes import cursor_of, spread

if TYPE_CHECKING:
    from headrace.collector.log import DurableLog, Entry

log = logging.getLogger(__name__)

#: First and longest pause after an error.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


class Lane(Protocol):
    """One of the sequences into which a stream's entries are divided, since the last start."""

    def has(self, number: int, /) -> bool:
        """Tell whether its far end, or the lake, has an entry of it, as far as is known."""


class Sender(ABC):
    """Sends one stream's entries, in a thread of its own while it is started.

    Attributes:
        stream: Name of the stream.
        landed: All the stream's entries with lower numbers are in the lake.
        problem: Why nothing is sent at the moment; None while all is well.
        others: First number of entries of other streams that may not have landed.
        former: Number below which entries of streams have landed, also of those that are no more.
    """

    def __init__(self, durable: DurableLog, stream: str, moved: Callable[[], object]) -> None:
        """Start nothing yet.

        Args:
            durable: The log.
            stream: Name of the stream.
            moved: Called when ``landed`` has moved.
        """
        self.stream, self.landed = stream, 0
        self.problem: str | None = None
        self.others: dict[str, int] = {}
        self.former: Mapping[str, int] = {}
        self._log, self._moved = durable, moved
        self._cursors = [cursor_of(durable.id, lane) for lane in range(durable.lanes)]
        self._lanes: Sequence[Lane] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Send what the log holds, and what comes, until ``stop``."""
        self._thread = threading.Thread(target=self._run, name=f"dispatch-{self.stream}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending; what was not acknowledged is sent after the next start."""
        self._stopping.set()
        self._log.wake()
        if self._thread is not None:
            self._thread.join()

    def in_topic(self, number: int) -> bool:
        """Tell whether topic or queue, or the lake, have an entry, as far as is known."""
        lanes = self._lanes
        if number < self.landed or not lanes:
            return number < self.landed
        return lanes[spread(number, self._log.lanes)].has(number)

    @abstractmethod
    def _session(self) -> str | None:
        """Send from the lake's positions on; returns why that has to begin anew."""

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                why = self._session()
            except HeadraceError as error:
                self._say(str(error))
            except Exception:
                log.exception("the way of %s broke off", self.stream)
                self._say("a defect of Headrace, see the log")
            else:
                if why is not None:
                    log.warning(
                        "%s: %s; entries are sent again from the lake's position on", self.stream, why
                    )
                    pause = FIRST_PAUSE
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            log.error("%s: %s; its events wait in the log", self.stream, problem)
        self.problem = problem

    def _not_older(self, beyond: int) -> None:
        """Make sure that the log is no older than the lake.

        Args:
            beyond: Number behind the last entry of the log that the lake holds.

        Raises:
            Fatal: It is an older copy.
        """
        if beyond > self._log.next:
            raise Fatal(
                f"the lake holds entries up to {beyond - 1} of log {self._log.id}, but it ends at {self._log.next - 1}:"
                f" {self._log.folder} is an older copy. Move it away, so that a new log with another id is begun"
            )

    def _is_other(self, number: int, entry: Entry) -> bool:
        """Tell whether an entry is another stream's, and note that."""
        if entry.stream == self.stream:
            return False
        if number >= self.former.get(entry.stream, 0):
            self.others.setdefault(entry.stream, number)
        return True

    def _land(self, below: int) -> bool:
        """Note that all below a number has landed; returns whether that is more than before."""
        if below <= self.landed:
            return False
        self.landed = below
        self._moved()
        return True
