"""How cells with a collector are played: it is struck, or its disk, or the broker behind it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from chaos.arena import Arena
from chaos.disk import Disk
from chaos.door import HttpPort
from chaos.launcher import Worker
from headrace.local import stack

#: At which passing each window strikes, about half way: groups, and messages.
_NTH = {
    "before_append": 25,
    "before_sync": 25,
    "before_index": 25,
    "before_answer": 25,
    "before_dispatch": 400,
    "after_dispatch": 400,
    "answers_first": 25,
    # of one of two workers
    "before_hand_over": 10,
    "after_hand_over": 10,
    "before_told": 10,
    "hangs": 10,
    "answers_itself": 10,
}
_FREEZE_SECONDS = 5.0
_LEFT_BYTES = 1 << 20


def door_fault(arena: Arena) -> None:
    """It dies in its window; another goes on with its log."""
    window, forgetful = arena.cell.window, arena.cell.action == "kill_and_forget"
    victim = _opened(arena, window, _NTH.get(window, 1))
    worker = arena.start("keep")
    arena.until(lambda: victim.state == "exit", f"the window {window}")
    if victim.code == -signal.SIGKILL:
        arena.hits.append(window)
    _settle(arena, _collector(arena, "forgets" if forgetful else ""), worker)


def door_kill(arena: Arena) -> None:
    """kill -9 when so much has landed; its workers end with it, or are killed just before."""
    victim = _opened(arena)
    worker = arena.start("keep")
    _landed(arena)
    workers = _workers(victim)
    assert len(workers) == arena.cell.workers
    if arena.cell.action == "kill_all":
        for one in workers:
            one.kill()
    arena.thaw(victim, kill=True)
    arena.until(lambda: not any(one.is_running() for one in workers), "the end of its workers")
    arena.hits.append("collector killed")
    _settle(arena, _collector(arena), worker)


def workers_fault(arena: Arena) -> None:
    """One of two workers dies in its window, or is stopped there; the other one goes on, and so does the log."""
    window = arena.cell.window
    door = _opened(arena, window, _NTH[window])
    first = set(_workers(door))
    worker = arena.start("keep")
    if arena.until(lambda: first - set(_workers(door)), "the end of a worker"):
        arena.hits.append(window)
    _settle(arena, door, worker)


def _workers(door: Worker) -> list[psutil.Process]:
    """The processes that speak HTTP in front of the one with the log."""
    found = psutil.Process(door.pid).children()
    return [one for one in found if one.status() != psutil.STATUS_ZOMBIE]


def door_freeze(arena: Arena) -> None:
    """It is stopped for a while, and goes on."""
    door = _opened(arena)
    worker = arena.start("keep")
    _landed(arena)
    door.send(signal.SIGSTOP)
    arena.until(lambda: door.state == "stopped", "the stop")
    threading.Event().wait(_FREEZE_SECONDS)
    arena.thaw(door)
    arena.hits.append("collector frozen")
    _settle(arena, door, worker)


def door_power_cut(arena: Arena) -> None:
    """The power of the machine with the log and with a broker in memory is cut before anything has landed."""
    assert arena.door is not None
    with Disk(arena.folder / "disk.img", arena.folder / "disk", megabytes=128) as disk:
        arena.door.home = disk.folder / "door"
        victim = _opened(arena, "unsynced" if arena.cell.action == "unsynced" else "")
        sender = arena.sender
        assert sender is not None
        enough = arena.size.messages * arena.cell.at // 100
        arena.until(lambda: len(sender.acknowledged) >= enough, "sending")
        disk.cut()
        arena.hits.append("power cut")
        arena.thaw(victim, kill=True)
        _forget(arena)
        disk.again()
        _settle(arena, _collector(arena), arena.start("keep"))


def door_forgetful(arena: Arena) -> None:
    """kill -9 of a broker that keeps its messages in memory: nothing is lost, because the log has them still."""
    cuts = arena.cell.action == "forgets_what_was_cut"
    door = _opened(arena, "cuts_at_the_broker" if cuts else "")
    worker = arena.start("keep")
    _landed(arena)
    sender = arena.sender
    assert sender is not None
    arena.thaw(worker, kill=True)  # what is in the topic only, and not in the lake, is what may be lost
    before = len(sender.acknowledged)
    arena.until(lambda: len(sender.acknowledged) >= before + 200, "sending")
    sender.pause()
    arena.until(lambda: _in_topic(arena), "that the topic has what was sent")
    if cuts:
        arena.until(lambda: arena.door is not None and arena.door.waiting() == 0, "the cut")
    _forget(arena)
    sender.resume()
    _settle(arena, door, arena.start("keep"))


def door_outage(arena: Arena) -> None:
    """The broker does not answer for so many seconds; the door stays open."""
    seconds = arena.cell.at
    door = _opened(arena)
    worker = arena.start("keep", stop="away")
    arena.until(lambda: arena.reader is not None and arena.reader.landed > 100, "landing")
    sender = arena.sender
    assert sender is not None
    sender.pause()  # it ends once nothing waits
    arena.stop("away")
    arena.ended(worker)
    sender.resume()
    broker = next(row.pid for row in stack.status(arena.bench.home) if row.service == "broker")
    assert broker is not None
    os.kill(broker, signal.SIGSTOP)
    try:
        before = len(sender.acknowledged)
        if arena.until(lambda: len(sender.acknowledged) > before + 100, "answers while the broker is away"):
            arena.hits.append(f"broker away for {seconds} s")
        sender.pause()
        threading.Event().wait(seconds)
    finally:
        os.kill(broker, signal.SIGCONT)
    sender.resume()
    _settle(arena, door, arena.start("keep"))


def door_broker_kill(arena: Arena) -> None:
    """kill -9 of a broker that keeps what it acknowledged."""
    door = _opened(arena)
    worker = arena.start("keep")
    _landed(arena)
    assert arena.durable is not None
    back = arena.durable.kill()
    arena.hits.append(f"{arena.cell.broker} killed")
    arena.until(back, f"{arena.cell.broker} back")
    _settle(arena, door, worker)


def door_full_disk(arena: Arena) -> None:
    """The log's disk runs full: the door says so, nothing is half taken, and it opens once there is room."""
    assert arena.door is not None
    with Disk(arena.folder / "disk.img", arena.folder / "disk", megabytes=128) as disk:
        arena.door.home = disk.folder / "door"
        door = _opened(arena)
        worker = arena.start("keep")
        _landed(arena)
        filler = disk.folder / "filler"
        _fill(filler)
        assert arena.sender is not None
        port = arena.sender.port
        assert isinstance(port, HttpPort)
        if arena.until(lambda: port.refused > 0, "a refusal because the disk is full"):
            arena.hits.append("disk full")
        filler.unlink()
        _settle(arena, door, worker)


def _fill(file: Path) -> None:
    """Fill the file system that a file is on."""
    with file.open("wb", buffering=0) as filler:
        size = _LEFT_BYTES
        while size:
            try:
                filler.write(b"\0" * size)
            except OSError:
                size //= 2
        os.fsync(filler.fileno())


def _opened(arena: Arena, window: str = "", nth: int = 1) -> Worker:
    """The topic, a collector in front of it, producers who send to it, and a reader."""
    arena.create()
    door = _collector(arena, window, nth)
    arena.open()
    return door


def _collector(arena: Arena, window: str = "", nth: int = 1) -> Worker:
    """Start it, and wait until it answers or ends."""
    door = arena.door
    assert door is not None
    assert door.key
    worker = arena.start(
        "collect", home=str(door.home), window=window, nth=nth, port=door.port, workers=arena.cell.workers
    )
    arena.until(lambda: worker.state == "exit" or door.waiting() >= 0, "an answer of the collector")
    return worker


def _landed(arena: Arena) -> None:
    reader = arena.reader
    assert reader is not None
    enough = arena.size.messages * arena.cell.at // 100
    arena.until(lambda: reader.landed >= enough, f"landing of {arena.cell.at} %")


def _in_topic(arena: Arena) -> bool:
    """Whether the broker has acknowledged what the producer was told last."""
    assert arena.door is not None and arena.sender is not None and isinstance(arena.sender.port, HttpPort)
    return arena.door.in_topic(arena.sender.port.receipt)


def _forget(arena: Arena) -> None:
    """The broker dies with all that it had, and comes back."""
    arena.bench.kill("broker")
    arena.hits.append("broker killed")

    def created() -> bool:
        try:
            arena.create()
        except Exception:  # not back yet
            return False
        return True

    arena.until(created, "the broker back")


def _settle(arena: Arena, door: Worker, worker: Worker) -> None:
    """End the producers, wait until the log has nothing that the lake has not, and end everything."""
    at = arena.door
    assert at is not None and arena.sender is not None
    arena.sender.finish()
    arena.until(lambda: door.state == "exit" or at.waiting() == 0, "that the lake holds what the log holds")
    door.send(signal.SIGTERM)
    if not door.wait("exit") or door.code:
        arena.objections.append(f"the collector ended with {door.code}: {door.said[-300:]}")
        arena.thaw(door, kill=True)
    arena.settle(worker)


SCENARIOS: dict[str, Callable[[Arena], None]] = {
    f.__name__: f
    for f in (
        door_fault,
        door_kill,
        workers_fault,
        door_freeze,
        door_power_cut,
        door_forgetful,
        door_outage,
        door_broker_kill,
        door_full_disk,
    )
}
