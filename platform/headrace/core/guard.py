"""Patience with services that are away: retries, and a circuit breaker around each of them.

Only ``Retriable`` errors are retried, with exponential backoff and jitter. A service that failed some times in a row
is left alone for a while: calls fail at once, so that nothing hangs on timeouts, until one call is let through as a
trial. The state is in a file below ``home``, so that all processes of an installation share it and ``headrace
status`` shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pybreaker
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from headrace.config.settings import Settings
from headrace.core.batch import Backlog, MicroBatch, Position
from headrace.core.circuit import CircuitFile
from headrace.core.errors import Conflict, Retriable
from headrace.sources import Source

log = logging.getLogger(__name__)
T = TypeVar("T")

SERVICES = ("kafka", "sqs", "files", "lake", "warehouse")


class LeftAlone(Retriable):
    """The service failed too often of late; nobody asks it before the time in the message."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """A breaker's state for people.

    Attributes:
        service: One of ``SERVICES``.
        state: ``closed`` (calls go through), ``open`` (none do) or ``half-open`` (one does, as a trial).
        failures: In a row.
        next_try: When a call is let through again; None unless open.
    """

    service: str
    state: str
    failures: int
    next_try: datetime | None


class Guard:
    """Calls to one backing service."""

    def __init__(self, service: str, settings: Settings, *, patient: bool = True) -> None:
        """Args:
        service: One of ``SERVICES``.
        settings: Limits, and where the state is.
        patient: Retry; otherwise the first failure is raised, for those who only look.
        """
        self.service = service
        self._pause = timedelta(seconds=settings.breaker_seconds)
        self._state = CircuitFile(service, _file(service, settings))
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=settings.breaker_failures,
            reset_timeout=settings.breaker_seconds,
            exclude=[lambda error: not _service_failed(error)],
            state_storage=self._state,
            name=service,
            throw_new_error_on_trip=False,
        )
        self._retrying = Retrying(
            retry=retry_if_exception(_worth_another_try),
            stop=stop_after_attempt(settings.retry_attempts if patient else 1),
            wait=wait_random_exponential(multiplier=0.2, max=settings.retry_max_seconds),
            before_sleep=lambda state: log.warning(
                "%s: attempt %d failed, trying again: %s",
                service,
                state.attempt_number,
                state.outcome.exception() if state.outcome else "",
            ),
            reraise=True,
        )

    def __call__(self, call: Callable[[], T]) -> T:
        """The result of ``call``, which may be called several times.

        Raises:
            LeftAlone: The circuit is open.
            Retriable: The last attempt failed.
        """
        result: T = self._retrying(self._once, call)
        return result

    def _once(self, call: Callable[[], T]) -> T:
        try:
            with self._breaker.calling():
                return call()
        except pybreaker.CircuitBreakerError as error:
            when = f"{self.circuit.next_try:%H:%M:%S} UTC" if self.circuit.next_try else "the next try"
            raise LeftAlone(
                f"{self.service} failed {self._breaker.fail_counter} times in a row and is left alone until {when}"
            ) from error

    @property
    def circuit(self) -> Circuit:
        """The present state."""
        opened = self._state.opened_at
        is_open = self._state.state == pybreaker.STATE_OPEN and opened is not None
        next_try = opened + self._pause if is_open and opened is not None else None
        return Circuit(self.service, self._state.state, self._state.counter, next_try)


def _service_failed(error: BaseException) -> bool:
    """Whether an exception tells of the service: a refused commit or a missing topic is an answer of it."""
    return isinstance(error, Retriable) and not isinstance(error, Conflict)


def _worth_another_try(error: BaseException) -> bool:
    return _service_failed(error) and not isinstance(error, LeftAlone)


class GuardedSource:
    """A source whose every call goes through a guard. See ``headrace.sources.base.Source``."""

    def __init__(self, inner: Source, guard: Guard) -> None:
        self._inner, self._guard = inner, guard
        self.name = inner.name

    def cursors(self) -> list[str]:
        """Guarded."""
        return self._guard(self._inner.cursors)

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Guarded: reading again from the same position gives the same or more."""
        return self._guard(lambda: self._inner.read(after, max_messages, wait_seconds))

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Guarded: acknowledging twice is acknowledging."""
        self._guard(lambda: self._inner.acknowledge(batch))

    def backlog(self, after: Position, /) -> Backlog:
        """Guarded."""
        return self._guard(lambda: self._inner.backlog(after))

    def close(self) -> None:
        """Not guarded: it must not wait."""
        self._inner.close()


def circuits(settings: Settings) -> list[Circuit]:
    """State of every service that was ever called."""
    return [Guard(one, settings).circuit for one in SERVICES if _exists(_file(one, settings))]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that this user may not look into
        return False


def _file(service: str, settings: Settings) -> Path:
    return settings.home / "breakers" / f"{service}.json"
