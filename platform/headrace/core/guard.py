"""Retry calls to backing services, with a circuit breaker around each of them.

Only ``Retriable`` errors are retried, with exponential backoff and jitter. After some failures in a row the circuit of
the service opens: calls fail at once instead of hanging on timeouts, until one call is let through as a trial. The
state is in a file per service, which all processes of an installation share and ``headrace status`` shows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pybreaker
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from headrace.core.circuit import CircuitFile
from headrace.core.errors import Conflict, Retriable

log = logging.getLogger(__name__)
T = TypeVar("T")

SERVICES = ("kafka", "sqs", "files", "registry", "lake", "warehouse")


class CircuitOpen(Retriable):
    """The service failed too often of late; nobody calls it before the time in the message."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How to call services that may be away.

    Attributes:
        circuits: Folder of the circuits' files.
        attempts: Of one call.
        max_pause: Longest pause between two attempts, s.
        failures: In a row, until the circuit opens.
        open_seconds: For how long it stays open.
    """

    circuits: Path
    attempts: int = 4
    max_pause: float = 10.0
    failures: int = 5
    open_seconds: float = 30.0

    def without_retries(self) -> RetryPolicy:
        """Raise the first failure, for callers that only look."""
        return replace(self, attempts=1)

    def file(self, service: str) -> Path:
        """Name the file of a service's circuit."""
        return self.circuits / f"{service}.json"


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
    """Call one backing service by a retry policy."""

    def __init__(self, service: str, policy: RetryPolicy) -> None:
        """Read the circuit of a service.

        Args:
            service: One of ``SERVICES``.
            policy: How to call it.
        """
        self.service = service
        self._pause = timedelta(seconds=policy.open_seconds)
        self._state = CircuitFile(service, policy.file(service))
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=policy.failures,
            reset_timeout=policy.open_seconds,
            exclude=[lambda error: not _service_failed(error)],
            state_storage=self._state,
            name=service,
            throw_new_error_on_trip=False,
        )
        self._retrying = Retrying(
            retry=retry_if_exception(_worth_another_try),
            stop=stop_after_attempt(policy.attempts),
            wait=wait_random_exponential(multiplier=0.2, max=policy.max_pause),
            before_sleep=lambda state: log.warning(
                "%s: attempt %d failed, trying again: %s",
                service,
                state.attempt_number,
                state.outcome.exception() if state.outcome else "",
            ),
            reraise=True,
        )

    def __call__(self, call: Callable[[], T]) -> T:
        """Return the result of ``call``, which may be called several times.

        Raises:
            CircuitOpen: Nothing was called.
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
            raise CircuitOpen(
                f"{self.service} failed {self._breaker.fail_counter} times in a row and is left alone until {when}"
            ) from error

    @property
    def circuit(self) -> Circuit:
        """The present state."""
        opened = self._state.opened_at
        is_open = self._state.state == pybreaker.STATE_OPEN and opened is not None
        next_try = opened + self._pause if is_open and opened is not None else None
        return Circuit(self.service, self._state.state, self._state.counter, next_try)


def circuits(policy: RetryPolicy) -> list[Circuit]:
    """State of every service that was ever called."""
    return [Guard(one, policy).circuit for one in SERVICES if _exists(policy.file(one))]


def _service_failed(error: BaseException) -> bool:
    """Tell whether an exception is the service's fault: a refused commit or a missing topic is an answer of it."""
    return isinstance(error, Retriable) and not isinstance(error, Conflict)


def _worth_another_try(error: BaseException) -> bool:
    return _service_failed(error) and not isinstance(error, CircuitOpen)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that this user may not look into
        return False
