"""Lock between the processes of one machine.

Nobody waits for ever, and a waiting process names the one it waits for. A holder writes its identity into the
lock file, and touches the file every second while it holds the lock. A stopped process touches nothing. So
others can tell it from a process that works for long.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from headrace.core.errors import Busy, Fatal

log = logging.getLogger(__name__)

_BEAT_SECONDS = 1.0
_TELL_AFTER_SECONDS, _TELL_AGAIN_SECONDS = 3.0, 60.0
#: First and longest pause between two attempts, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
#: How long a process that waits already goes first; it may be stopped.
_COURTESY_SECONDS = 1.0
_READ_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a lock.

    Attributes:
        silent_seconds: Longest wait while the holder shows no sign of life.
        max_seconds: Longest wait in all.
    """

    silent_seconds: float
    max_seconds: float


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock, as it wrote itself.

    Attributes:
        pid: Process id; 0 if unknown.
        command: What the process does.
        since: When it got the lock (UTC).
        host: Machine of the process.
        stopped: Whether the system has stopped the process.
    """

    pid: int = 0
    command: str = ""
    since: datetime | None = None
    host: str = ""
    stopped: bool = False

    def __str__(self) -> str:
        if not self.pid:
            return "a process that does not say who it is"
        where = f" on {self.host}" if self.host != socket.gethostname() else ""
        since = f", which began at {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        stopped = " and is stopped" if self.stopped else ""
        return f"'{self.command}' (pid {self.pid}{where}){since}{stopped}"


_introduced = ""


def introduce(command: str) -> None:
    """Name this process for those who will wait for it; default: the first words of its command line."""
    global _introduced
    _introduced = command


@contextmanager
def file_lock(path: Path, purpose: str, patience: Patience) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the system releases it when the process ends, however it ends.

    Args:
        path: The lock file; created if it is missing.
        purpose: What waits meanwhile, for people: ``publishing events``.
        patience: How long to wait.

    Raises:
        Busy: Another process held the lock for longer; the message names it.
        Fatal: The file cannot be created.
    """
    waiting = _Waiting(path, purpose, patience)
    with _opened(path) as descriptor:
        if not _acquired(path, descriptor, waiting.goes_on):
            raise waiting.in_vain()
        with _introducing(descriptor):
            yield


@contextmanager
def try_lock(path: Path, seconds: float) -> Iterator[bool]:
    """Wait for an exclusive lock on ``path`` at most ``seconds``; yields whether it is held.

    For callers that may go on without the lock, because its holder may be stopped.
    """
    deadline = time.monotonic() + seconds
    with _opened(path) as descriptor:
        alone = _acquired(path, descriptor, lambda: time.monotonic() < deadline)
        with _introducing(descriptor) if alone else contextlib.nullcontext():
            yield alone


@contextmanager
def brief_lock(path: Path, seconds: float) -> Iterator[bool]:
    """Lock like ``try_lock``, for work of microseconds: the holder does not introduce itself.

    Raises:
        OSError: The file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _polled(descriptor, lambda: time.monotonic() < deadline)
    finally:
        os.close(descriptor)


def holder(path: Path) -> Holder:
    """Return the holder of the lock on ``path``, as far as the file names it."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_READ_BYTES))
        pid, host = int(said["pid"]), str(said["host"])
        since = datetime.fromisoformat(said["since"]).astimezone(UTC)
        command = str(said["command"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Holder()
    return Holder(pid, command, since, host, _is_stopped(pid) if host == socket.gethostname() else False)


class _Waiting:
    """Decides how long to go on waiting, and reports the wait."""

    def __init__(self, path: Path, purpose: str, patience: Patience) -> None:
        self._path, self._purpose, self._patience = path, purpose, patience
        self._began = self._alive = time.monotonic()
        self._touched = self._mark()
        self._tell_at = self._began + _TELL_AFTER_SECONDS

    def _mark(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def goes_on(self) -> bool:
        now = time.monotonic()
        if (touched := self._mark()) != self._touched:
            self._touched, self._alive = touched, now
        if now >= self._tell_at:
            self._tell_at = now + _TELL_AGAIN_SECONDS
            log.warning("%s waits for %s", self._purpose, holder(self._path))
        silent, whole = now - self._alive, now - self._began
        return silent < self._patience.silent_seconds and whole < self._patience.max_seconds

    def in_vain(self) -> Busy:
        now, found = time.monotonic(), holder(self._path)
        pid = found.pid or "PID"
        if found.stopped:
            hint = f"'kill -CONT {pid}' lets it go on, 'kill -9 {pid}' ends it"
        elif now - self._alive >= self._patience.silent_seconds:
            hint = f"it shows no sign of life: look at it, or end it with 'kill -9 {pid}'"
        else:
            hint = "it still works: try again later, or raise HEADRACE_LOCK_MAX_SECONDS"
        return Busy(f"{self._purpose} waits for {found}; given up after {now - self._began:.0f} s: {hint}")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise Fatal(
            f"lock {path} cannot be made: {(error.strerror or str(error)).lower()}; make room or fix its"
            " permissions, or choose another HEADRACE_HOME"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _acquired(path: Path, descriptor: int, go_on: Callable[[], bool]) -> bool:
    """Poll for the lock after the processes that poll for it already.

    Without that order, a process that takes the lock again and again would leave the others no moment to get
    it.
    """
    until = time.monotonic() + _COURTESY_SECONDS
    with _opened(path.with_name(path.name + ".next")) as order:
        _polled(order, lambda: go_on() and time.monotonic() < until)
        return _polled(descriptor, go_on)


def _polled(descriptor: int, go_on: Callable[[], bool]) -> bool:
    pause = _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not go_on():
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return True


@contextmanager
def _introducing(descriptor: int) -> Iterator[None]:
    said = {
        "pid": os.getpid(),
        "command": _introduced or _own_command(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
    }
    with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(said).encode(), 0)
    released = threading.Event()
    beating = threading.Thread(target=_beat, args=(descriptor, released), name="lock-beat", daemon=True)
    beating.start()
    try:
        yield
    finally:
        released.set()
        beating.join()
        with contextlib.suppress(OSError):
            os.truncate(descriptor, 0)


def _beat(descriptor: int, released: threading.Event) -> None:
    while not released.wait(_BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _own_command() -> str:
    """Return the first words of the command line.

    Options and later words are left out: they may hold what nobody else is to read.
    """
    words = [Path(sys.argv[0]).name or "python"]
    for word in sys.argv[1:3]:
        if not word.replace("-", "").replace("_", "").isalnum() or word.startswith("-"):
            break
        words.append(word)
    return " ".join(words)[:80]


def _is_stopped(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    except (psutil.Error, ValueError, OverflowError):
        return False


class Slots:
    """A limited number of slots for the processes of one machine; the system frees those of processes that end.

    Args:
        folder: Folder with a file per slot.
        slots: Number of slots.
    """

    def __init__(self, folder: Path, slots: int) -> None:
        self._folder, self._slots = folder, slots
        self._held: IO[str] | None = None

    def acquire(self) -> bool:
        """Take a slot without waiting, if one is free; true also for a process that has one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(self._slots if self._held is None else 0):
            file = (self._folder / f"{number}.lock").open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
            else:
                self._held = file
                break
        return self._held is not None

    def release(self) -> None:
        """Give back the slot; a no-op without one."""
        if self._held is not None:
            self._held.close()
            self._held = None
