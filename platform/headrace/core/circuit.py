"""Keep the state of a circuit breaker in a small file that all processes of an installation share.

A faulty file is never an error: without it a process counts failures on its own, and warns once.
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
from headrace.core.locks import brief_lock

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LONGEST_FILE = 4_096
#: Longest wait for another writer, which may be stopped. If two write at once, one failure is miscounted at most.
_WAIT_SECONDS = 0.2
_said: set[Path] = set()

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class Saved(msgspec.Struct, frozen=True, omit_defaults=True):
    """Content of the file.

    Attributes:
        state: State as pybreaker names it.
        failures: Failures in a row.
        successes: Successful trials in a row.
        opened_at: When the circuit opened, by the wall clock.
        boot: Id of the boot during which it opened; empty on systems without one.
        opened_after: Seconds since that boot at which it opened.
    """

    state: Literal["closed", "open", "half-open"] = "closed"
    failures: Count = 0
    successes: Count = 0
    opened_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    boot: str = ""
    opened_after: float = 0.0

    def age(self) -> float | None:
        """Return the seconds since the circuit opened; None if no clock can tell.

        Wall clocks are adjusted. So within one boot the machine's own clock decides. An opening in the future
        was dated by a wrong clock.
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
    """Return the id of the machine's boot and the seconds since then; an empty id if the system has none."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    boot = _boot_id()
    return (boot, time.clock_gettime(clock)) if clock is not None and boot else ("", 0.0)


class CircuitFile(pybreaker.CircuitBreakerStorage):
    """A breaker's state in a file. No method raises, whatever is wrong with the file.

    Args:
        name: Name of the service.
        path: The file; created at the first failure.
    """

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        self._path = path
        self._own: Saved | None = None  # this process's own state, while the file cannot be written

    def _load(self) -> tuple[Saved, str]:
        """Return the content of the file, and what is wrong with it."""
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
            with brief_lock(self._path.with_suffix(".lock"), _WAIT_SECONDS):
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
        """The state: ``closed``, ``open`` or ``half-open``."""
        return self._read().state

    @state.setter
    def state(self, state: str) -> None:
        self._change(lambda before: msgspec.structs.replace(before, state=state))

    @property
    def counter(self) -> int:
        """Failures in a row."""
        return self._read().failures

    def increment_counter(self) -> None:
        """Count one more failure."""
        self._change(lambda before: msgspec.structs.replace(before, failures=before.failures + 1))

    def reset_counter(self) -> None:
        """Reset the failures to zero."""
        if self.counter:
            self._change(lambda before: msgspec.structs.replace(before, failures=0))

    @property
    def success_counter(self) -> int:
        """Successful trials in a row."""
        return self._read().successes

    def increment_success_counter(self) -> None:
        """Count one more successful trial."""
        self._change(lambda before: msgspec.structs.replace(before, successes=before.successes + 1))

    def reset_success_counter(self) -> None:
        """Reset the successful trials to zero."""
        if self.success_counter:
            self._change(lambda before: msgspec.structs.replace(before, successes=0))

    @property
    def opened_at(self) -> datetime | None:
        """When the circuit opened, by the present clock; None if no clock can tell, so that a trial is due."""
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
