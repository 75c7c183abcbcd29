"""Measure parts at intervals, each in a thread of its own, and keep what was measured last.

So a scrape waits for nothing. A service that hangs holds up the thread of its own part, which is down once it is past
its deadline, and no other. A part that failed tells nothing until it is well: an old number would look like a new one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from headrace.core.errors import HeadraceError
from headrace.telemetry import families as f
from headrace.telemetry.families import Lines, Reading, lines
from headrace.telemetry.parts import Part

log = logging.getLogger(__name__)

#: A look that takes long is followed by a pause of so many times its length: a tenth of a core at most.
_REST = 9
#: A measurement is told until it is older than so many usual intervals, and never less than the seconds.
_INTERVALS, _DEADLINE_SECONDS = 3, 30.0
_STOP_SECONDS = 2.0

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a part.

    Attributes:
        began: When it began, by the clock.
        seconds: How long it took.
        readings: What was measured; empty for one that failed.
        lines: The same as it is told.
        wrong: Why it failed; empty if it did not.
    """

    began: float
    seconds: float
    readings: tuple[Reading, ...] = ()
    lines: Lines = field(default_factory=dict)
    wrong: str = ""


@dataclass(slots=True)
class Kept:
    """A part with what was measured last. One thread looks, any thread may read.

    Attributes:
        part: The part.
        pause: Seconds between two looks.
        clock: Seconds that only grow.
        last: The last look that ended; None before the first.
        failures: Looks that failed.
    """

    part: Part
    pause: float
    clock: Clock = time.monotonic
    last: Look | None = None
    failures: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _began: float = 0.0

    @property
    def deadline(self) -> float:
        """Age in seconds from which on a measurement is no longer told."""
        return max(_DEADLINE_SECONDS, _INTERVALS * self.pause)

    def start(self) -> None:
        """Look from now on, in a thread."""
        name = "telemetry " + "/".join(label for label in self.part.labels if label)
        self._began = self.clock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Look no more; what hangs in a look is left to itself."""
        self._stopping.set()

    def wait_to_stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Wait until the thread has ended, for so long at most."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                took = self.look().seconds
                self._stopping.wait(max(self.pause, took * _REST))
        finally:
            self.part.close()

    def look(self) -> Look:
        """Look once, and keep what was measured."""
        began, wrong = self.clock(), ""
        readings: tuple[Reading, ...] = ()
        try:
            readings = tuple(self.part.measure())
        except HeadraceError as error:
            wrong = str(error)
        except Exception as error:  # a defect, or a driver's own: the other parts go on
            wrong = f"{type(error).__name__}: {error}"
            log.exception("telemetry: %s cannot be measured", self.part.name)
        if wrong:
            self.failures += 1
            self._say(wrong)
        found = Look(began, self.clock() - began, readings, lines(readings), wrong)
        self.last = found
        return found

    def _say(self, wrong: str) -> None:
        """Name a failure in the log once, not at every look."""
        if self.last is None or self.last.wrong != wrong:
            log.warning("telemetry: %s: %s", "/".join(label for label in self.part.labels if label), wrong)

    def told(self) -> Look | None:
        """Return the last look if it is to be told; None if it failed or is past its deadline. Never waits."""
        last = self.last
        if last is None or last.wrong or self.clock() - last.began > self.deadline:
            return None
        return last

    def state(self) -> Iterator[Reading]:
        """Yield how the part itself is. Never waits."""
        last, labels, now = self.last, self.part.labels, self.clock()
        yield f.PART_FAILURES(self.failures, *labels)
        if last is None:
            if now - self._began > self.deadline:  # hangs in its first look
                yield f.PART_UP(0, *labels)
            return
        yield f.PART_UP(self.told() is not None, *labels)
        yield f.PART_SECONDS(last.seconds, *labels)
        if not last.wrong:
            yield f.PART_AGE(now - last.began, *labels)
