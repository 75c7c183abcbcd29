"""What processes beside do in tests, in place of measuring."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any


def answers(pipe: Connection, settings: Any) -> None:
    """Give a page that names this process."""
    with suppress(EOFError):
        while True:
            pipe.send((pipe.recv(), f"pid {os.getpid()}\n".encode()))


def slow(pipe: Connection, settings: Any) -> None:
    """Give the first page at once, and all others late."""
    with suppress(EOFError):
        for n in range(1_000):
            number = pipe.recv()
            if n:
                time.sleep(1.0)
            pipe.send((number, f"page {n}\n".encode()))


def hangs(pipe: Connection, settings: Any) -> None:
    """Never answer."""
    threading.Event().wait()
