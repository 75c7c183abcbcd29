"""``headrace collect`` that is killed in a window, or has a fault that a verdict must find.

Usage: dying.py WINDOW NTH arguments of headrace. A window of ``OF_WORKERS`` strikes the first worker that comes to it,
all others strike the process with the log.
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
from headrace.collector.parcels import Committed, packed
from headrace.collector.workers import gate, keeper, owner, processes, worker
from headrace.collector.workers.messages import Commit, Done

#: Between a request and its answer, in a worker.
OF_WORKERS = ("before_hand_over", "after_hand_over", "before_told", "hangs", "answers_itself")


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


def stopping_before(owner: Any, name: str, nth: int) -> None:
    """Be stopped, as by SIGSTOP, at the nth call of a method."""
    method: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def stopped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGSTOP)
        return method(*arguments, **named)

    setattr(owner, name, stopped)


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


def owner_answering_first(nth: int) -> None:
    """The same of an owner with several workers."""
    calls = 0

    def committed(self: Any, handed: list[Any]) -> list[Any]:
        nonlocal calls
        calls += 1
        done = [(one.channel, Done(Committed(0))) for one in handed]
        self._settle(done)
        if calls >= nth:
            time.sleep(0.5)  # the answers go out
            os.kill(os.getpid(), signal.SIGKILL)
        self._own.committer.commit([one.parcel for one in handed])
        return []

    owner.Hub._committed = committed  # type: ignore[method-assign, assignment]


def answering_itself(nth: int) -> None:
    """Answer in a worker what the owner has not got, and die before it gets it: the fault of which it must be free."""
    calls = 0

    def post(self: Any) -> None:
        nonlocal calls
        calls += 1
        tickets, self._ready, self._scheduled = self._ready, [], False
        parcel = packed(tickets, self._targets, self._message_bytes)
        self._sent = tickets, parcel
        self.done(Done(Committed(0)))
        if calls >= nth:
            self._loop.call_later(0.3, os.kill, os.getpid(), signal.SIGKILL)  # the answers go out
        else:
            self._sent = [], parcel
            self._send(Commit(parcel))

    gate.Gate._post = post  # type: ignore[method-assign]


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
            killing_before(owner.Hub, "_settle", nth)
        case "answers_first":
            answering_first(nth)
            owner_answering_first(nth)
        case _ if window in OF_WORKERS:
            # the first worker alone: the next one in its place is sound
            processes.COMMAND[:] = [sys.executable, __file__, window, str(nth), "worker"]
            start = processes.start

            def once(*arguments: Any) -> Any:
                started = start(*arguments)
                processes.COMMAND[:] = SOUND
                return started

            processes.start = once  # type: ignore[assignment]
        case "forgets":
            forgetting()
        case _:
            raise SystemExit(f"there is no window {window!r}")


def arm_worker(window: str, nth: int) -> None:
    """Prepare a window in a worker."""
    match window:
        case "before_hand_over":
            killing_before(gate.Gate, "_post", nth)
        case "after_hand_over":
            post = gate.Gate._post

            def dying(self: gate.Gate) -> None:
                post(self)
                if calls():
                    self._loop.call_later(0.2, os.kill, os.getpid(), signal.SIGKILL)  # the owner has got it
                    self.done = lambda answer: None  # type: ignore[method-assign]

            calls = counter(nth)
            gate.Gate._post = dying  # type: ignore[method-assign]
        case "before_told":
            killing_before(gate.Gate, "_tell", nth)
        case "hangs":
            stopping_before(gate.Gate, "_post", nth)
        case "answers_itself":
            answering_itself(nth)


def counter(nth: int) -> Callable[[], bool]:
    """Return what says at its nth call, and from then on, that it is time."""
    calls = 0

    def called() -> bool:
        nonlocal calls
        calls += 1
        return calls >= nth

    return called


SOUND = list(processes.COMMAND)


if __name__ == "__main__":
    if sys.argv[3] == "worker":
        arm_worker(sys.argv[1], int(sys.argv[2]))
        worker.main(sys.argv[4:])
    arm(sys.argv[1], int(sys.argv[2]))
    keeper.watched = lambda: lambda: True  # whoever dies here is not to be started again
    sys.argv = ["headrace", *sys.argv[3:]]
    from headrace.cli import main

    main()
