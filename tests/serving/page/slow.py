"""Functions for a worker: some take their time, some fail, some have much to say."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from headrace.core.errors import BadData


def opened(state: Any) -> Any:
    return state


def pid(state: Any) -> int:
    return os.getpid()


def echo(state: Any, value: Any) -> Any:
    return state, value


def hang(state: Any) -> None:
    threading.Event().wait()


def wrong(state: Any) -> None:
    raise BadData("there is no such table")


def defect(state: Any) -> None:
    raise ZeroDivisionError("by zero")


def die(state: Any) -> None:
    os._exit(3)


def pieces(state: Any, many: int, size: int) -> Iterator[bytes]:
    for _ in range(many):
        yield bytes(size)


def breaks(state: Any) -> Iterator[bytes]:
    yield b"first"
    raise BadData("the second is missing")


def stops(state: Any) -> Iterator[bytes]:
    yield b"first"
    threading.Event().wait()
