"""``headrace collect`` that is killed in a window, or has a fault that a verdict must find.

Usage: dying.py WINDOW NTH arguments of headrace.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from headrace.collector import door, ids
from headrace.collector.base import Outcome, Taken
from headrace.collector.log import DurableLog, Entry, segments


def killing_before(owner: Any, name: str, nth: int) -> None:
    """Die at the nth call of a method, before it does anything."""
    method: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments, **named)

    setattr(owner, name, dying)


def answering_first(nth: int) -> None:
    """Answer each group before it is appended: the fault of which this collector must be free."""
    calls = 0
    settle = door.Door._settle

    def commit(self: Any, tickets: list[Any]) -> list[Any]:
        nonlocal calls
        calls += 1
        told = [Taken({"events": [0]}, [Outcome("accepted", e.id) for e in t.events]) for t in tickets]
        settle(self, tickets, told)
        if calls >= nth:
            time.sleep(0.5)  # the answers go out
            os.kill(os.getpid(), signal.SIGKILL)
        self._committer._log.append([Entry(e.stream, e.payload, e.digest) for t in tickets for e in t.events])
        return told

    door.Door._commit = commit  # type: ignore[method-assign, assignment]
    door.Door._settle = lambda *_: None  # type: ignore[method-assign]


def forgetting() -> None:
    """Do not add to the index what the log holds beyond it."""
    ids.Ids.catch_up = lambda self, durable: 0  # type: ignore[method-assign]


def arm(window: str, nth: int) -> None:
    """Prepare a window or a fault by its name."""
    match window:
        case "before_append":
            killing_before(DurableLog, "append", nth)
        case "before_sync":
            killing_before(segments.Disk, "sync", nth + 4)  # those of the opening come first
        case "before_index":
            killing_before(ids.Ids, "add", nth)
        case "before_answer":
            killing_before(door.Door, "_settle", nth)
        case "answers_first":
            answering_first(nth)
        case "forgets":
            forgetting()
        case _:
            raise SystemExit(f"there is no window {window!r}")


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]))
    sys.argv = ["headrace", *sys.argv[3:]]
    from headrace.cli import main

    main()
