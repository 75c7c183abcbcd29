"""Dagster's daemon, of which an installation has one: two would tick each sensor twice (dagster#16230).

It runs as a child of this process, which holds a lock that all machines see: an advisory lock of Postgres, which goes
when its connection does, or a file where Dagster's records are in SQLite. Who finds the lock held is refused. If the
connection breaks, the child is ended before the lock is asked for again, because another daemon may have it by then.

Takes the arguments of ``dagster-daemon``.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from headrace.clients.postgres import advisory_lock
from headrace.config.settings import Settings, load_settings
from headrace.core.errors import Busy
from headrace.core.locks import Patience, file_lock
from headrace.core.orphans import die_with

log = logging.getLogger(__name__)

#: The lock's number in Postgres: "headrace" as bytes, without the top bit.
_NUMBER = int.from_bytes(b"headrace", "big") & 0x7FFF_FFFF_FFFF_FFFF
#: A daemon that is just ending still holds the lock for a moment.
_WAIT_SECONDS, _LOOK_SECONDS, _STOP_SECONDS = 20.0, 2.0, 20.0


def run(config: Settings, command: list[str]) -> int:
    """Run a daemon while this process holds the lock; returns the daemon's exit status.

    Raises:
        Busy: Another daemon holds the lock; the message names it.
        Fatal: Postgres lets nobody in.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    while True:
        with _alone(config) as held:
            child = subprocess.Popen(command, preexec_fn=partial(die_with, os.getpid()))
            try:
                lost = _watch(child, held, stopping)
            finally:
                _end(child)
        if not lost:
            return 0 if stopping.is_set() else child.returncode
        log.warning("the lock of the daemon is lost, so it was ended; asking for it again")


def _watch(child: subprocess.Popen[bytes], held: Callable[[], bool], stopping: threading.Event) -> bool:
    """Wait until the child ends or this process is to stop; tells whether the lock was lost before."""
    while child.poll() is None and not stopping.wait(_LOOK_SECONDS):
        if not held():
            return True
    return False


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def _alone(config: Settings) -> Iterator[Callable[[], bool]]:
    """Hold the lock; yields what tells whether it is still held."""
    if config.dagster_postgres is None:
        path = config.home / "locks" / "daemon.lock"
        with file_lock(path, "a second daemon", Patience(_WAIT_SECONDS, _WAIT_SECONDS)):
            yield lambda: True
        return
    me = f"headrace daemon on {socket.gethostname()}"
    with advisory_lock(config.dagster_postgres.get_secret_value(), _NUMBER, me, _WAIT_SECONDS) as lock:
        if lock.holder:
            raise Busy(
                f"this installation has a daemon already: {lock.holder}. An installation has one; stop that one first,"
                " or leave this one to start again when that one is gone"
            )
        yield lock.is_held


if __name__ == "__main__":
    from headrace.orchestration.runtime.one_line import said_in_one_line

    with said_in_one_line():
        daemon = str(Path(sys.executable).with_name("dagster-daemon"))
        sys.exit(run(load_settings(), [daemon, *sys.argv[1:]]))
