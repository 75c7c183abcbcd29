"""Locks between the processes of one machine."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the system releases it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def turn(path: Path, seconds: float) -> Iterator[bool]:
    """Wait for an exclusive lock on ``path`` at most ``seconds``; gives whether it is held.

    For those who may go on without it: whoever holds it may be frozen.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = Retrying(
        retry=retry_if_exception_type(BlockingIOError), stop=stop_after_delay(seconds), wait=wait_fixed(0.05)
    )
    with path.open("a") as file:
        try:
            waiting(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except RetryError:
            yield False
        else:
            yield True
