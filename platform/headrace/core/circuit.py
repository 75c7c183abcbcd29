"""The state of a circuit breaker in a small file that all processes of an installation share.

Nothing that is wrong with the file is an error: without it a process counts failures for itself, and says so once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pybreaker

from headrace.core.atomic import write_atomically
from headrace.core.locks import brief

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LONGEST_FILE = 4_096
#: A writer may be stopped; then two may write at once, which costs one failure more or less.
_WAIT_SECONDS = 0.2
_said: set[Path] = set()

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class Saved(msgspec.Struct, frozen=True, omit_defaults=True):
    """Content of the file.

    Attributes:
        state: As pybreaker names it.
        failures: In a row.
        successes: In a row, of trials.
        opened_at: When the circuit opened, by the clock on the wall.
        boot: Id of the machine's start during which it opened; empty where the system has none.
        opened_after: When it opened, s since that start.
    """

    state: Literal["closed", "open", "half-open"] = "closed"
    failures: Count = 0
    successes: Count = 0
    opened_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    boot: str = ""
    opened_after: float = 0.0

    def age(self) -> float | None:
        """Seconds since the circuit opened; None where no clock can tell.

        Wall clocks are set: within one start of the machine its own clock decides. An opening that lies in the
        future was dated by a clock that was wrong.
        """
        boot, after = since_boot()
        if self.boot and self.boot == boot:
            age = after - self.opened_after
        elif self.opened_at is not None:
            age = (datetime.now(UTC) - self.opened_at).total_seconds()
        else:
            return None
        return age if age >= 0 else None


@cache
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def since_boot() -> tuple[str, float]:
    """Id of the machine's start, and seconds since then; an empty id where the system does not tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    boot = _boot_id()
    return (boot, time.clock_gettime(clock)) if clock is not None and boot else ("", 0.0)


class CircuitFile(pybreaker.CircuitBreakerStorage):
    """A breaker's state in a file; none of its methods raises, whatever is wrong with the file."""

    def __init__(self, name: str, path: Path) -> None:
        """Args:
        name: Of the service.
        path: The file; made when something fails for the first time.
        """
        super().__init__(name)
        self._path = path
        self._own: Saved | None = None  # this process's, while the file cannot be written

    def _load(self) -> tuple[Saved, str]:
        """What the file says, and what is wrong with it."""
        try:
            with self._path.open("rb") as file:
                content = file.read(_LONGEST_FILE + 1)
            return msgspec.json.decode(content, type=Saved), ""
        except FileNotFoundError:
            return Saved(), ""
        except OSError as error:
            return Saved(), (error.strerror or str(error)).lower()
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return Saved(), str(error)

    def _read(self) -> Saved:
        if self._own is not None:
            return self._own
        saved, wrong = self._load()
        if wrong:
            self._say(f"{self._path} is no circuit of {self.name} and begins anew: {wrong}")
            self._change(lambda before: before)
        return self._own or saved

    def _change(self, change: Callable[[Saved], Saved]) -> None:
        own = self._own
        try:
            with brief(self._path.with_suffix(".lock"), _WAIT_SECONDS):
                before, wrong = (own, "") if own is not None else self._load()
                after = change(before)
                if own is not None or wrong or after != before:
                    write_atomically(self._path, msgspec.json.encode(after))
        except OSError as error:
            self._own = change(own if own is not None else self._load()[0])
            why = (error.strerror or str(error)).lower()
            self._say(f"{self._path} cannot be written, this process counts failures for itself: {why}")
        else:
            self._own = None
            if own is not None:
                _said.discard(self._path)

    def _say(self, what: str) -> None:
        if self._path not in _said:
            _said.add(self._path)
            log.warning("%s", what)

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        return self._read().state

    @state.setter
    def state(self, state: str) -> None:
        self._change(lambda before: msgspec.structs.replace(before, state=state))

    @property
    def counter(self) -> int:
        """Failures in a row."""
        return self._read().failures

    def increment_counter(self) -> None:
        """One failure more."""
        self._change(lambda before: msgspec.structs.replace(before, failures=before.failures + 1))

    def reset_counter(self) -> None:
        """No failure of late."""
        if self.counter:
            self._change(lambda before: msgspec.structs.replace(before, failures=0))

    @property
    def success_counter(self) -> int:
        """Trials in a row that succeeded."""
        return self._read().successes

    def increment_success_counter(self) -> None:
        """One trial more that succeeded."""
        self._change(lambda before: msgspec.structs.replace(before, successes=before.successes + 1))

    def reset_success_counter(self) -> None:
        """No trial of late."""
        if self.success_counter:
            self._change(lambda before: msgspec.structs.replace(before, successes=0))

    @property
    def opened_at(self) -> datetime | None:
        """When the circuit opened, by the present clock; None where no clock can tell, so that a trial is due."""
        age = self._read().age()
        return None if age is None else datetime.now(UTC) - timedelta(seconds=min(age, 1e8))

    @opened_at.setter
    def opened_at(self, at: datetime) -> None:
        boot, after = since_boot()
        self._change(
            lambda before: msgspec.structs.replace(
                before, opened_at=at.astimezone(UTC), boot=boot, opened_after=after
            )
        )
