"""How each kind of cell is played. Every function leaves the arena settled: all workers done, nothing sent."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from chaos import door_cells
from chaos.arena import Arena, Bench
from chaos.disk import Disk
from chaos.endpoint import Endpoint
from chaos.faults import Network, broker_behind, free_port
from chaos.judge import Judgement, Records, Verdict
from chaos.launcher import Launcher, Refused, Worker
from chaos.matrix import Cell
from chaos.reader import Lake
from chaos.rows import TABLES
from chaos.worker import EXIT_FATAL
from services.fetch import Missing

#: Bytes of the lake's disk, so that it is full about that far on the way.
_ROOM = {10: 250_000, 50: 700_000}
_AMPLE = 256_000_000
_AHEAD = timedelta(hours=1)


@dataclass(frozen=True)
class Outcome:
    """A cell, the windows that were really hit, and the judgement."""

    cell: Cell
    hits: tuple[str, ...]
    judgement: Judgement
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def as_expected(self) -> bool:
        return self.judgement.verdict in (self.cell.expect, Verdict.SKIPPED)


def run(bench: Bench, cell: Cell) -> Outcome:
    """Play one cell. An error of the suite itself makes it UNVERIFIED, never green."""
    began = time.monotonic()
    hits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    try:
        with bench.arena(cell) as arena:
            SCENARIOS[cell.scenario](arena)
            judgement = arena.judged()
            hits, notes = tuple(arena.hits), tuple(arena.notes)
            if notes or judgement.verdict != cell.expect:
                arena.keep_logs()
    except (Missing, Refused) as why:
        judgement = Judgement(Verdict.SKIPPED, reasons=[str(why)])
    except Exception as error:
        judgement = Judgement(Verdict.UNVERIFIED, reasons=[f"{type(error).__name__}: {error}"])
    return Outcome(cell, hits, judgement, time.monotonic() - began, notes)


def fault(arena: Arena) -> None:
    """The victim dies, fails or breaches in its window; where it died, another takes over."""
    arena.open()
    companions = [arena.start(op) for op in arena.cell.beside]
    victim = arena.strike()
    dead = victim is None or victim.state == "exit"
    successor = arena.start(arena.cell.op) if dead else victim
    arena.settle(*companions, successor)


def zombie(arena: Arena) -> None:
    """The victim freezes in its window; a worker on another machine finishes; then the victim goes on."""
    arena.open()
    companions = [arena.start(op) for op in arena.cell.beside]
    victim = arena.strike()
    assert arena.sender is not None
    arena.sender.pause()
    arena.stop("overtaken")
    other = arena.start("keep", home="elsewhere", stop="overtaken")
    arena.ended(other)
    arena.sender.resume()
    if victim is not None:
        arena.thaw(victim)
    arena.settle(*companions, victim)


def rolling(arena: Arena) -> None:
    """Processes of a new contract replace those of an old one.

    The victim is struck while one of the other contract lands beside it: the table grows meanwhile, or has just grown.
    A new process takes over from it, and the old one goes on until the end.
    """
    arena.open()
    of, other = ("new", "old") if arena.cell.contract == "new" else ("old", "new")
    arena.contract = "old"
    first = arena.start("keep", home="elsewhere")
    _landed(arena, 10)
    arena.contract = other
    beside = arena.start("keep", home="elsewhere") if other == "new" else first
    arena.contract = of
    victim = arena.strike()
    arena.contract = "new"
    successor = arena.start("keep", home="elsewhere")
    if victim is not None and victim.state != "exit":
        _landed(arena, 60)
        arena.thaw(victim)
    arena.settle(
        first, *([beside] if beside is not first else []), victim if _lives(victim) else None, successor
    )
    grown = DeltaTable(str(arena.lake / "events")).schema().to_json()
    if '"country"' not in grown or '"long"' not in grown:
        arena.objections.append("the table has not grown")


def restored(arena: Arena) -> None:
    """A restore dies or freezes between the two tables, another does it again, a third undoes it; then all goes on."""
    arena.open(watch_lake=False)  # where rows are to become fewer
    worker = arena.start("keep", home="elsewhere", stop="paused")
    arena.until(lambda: _messages_in(arena) >= arena.size.messages // 5, "landing of 20 %")
    moment = datetime.now(UTC)
    arena.until(lambda: _messages_in(arena) >= arena.size.messages // 2, "landing of 50 %")
    assert arena.sender is not None and arena.reader is not None
    arena.sender.pause()
    arena.stop("paused")
    arena.ended(worker)
    arena.job = {"to": moment.isoformat()}
    before = _messages_in(arena)
    victim = arena.strike()
    arena.ended(arena.start("restore", home="elsewhere"))
    if _messages_in(arena) >= before:
        arena.objections.append("the restore has taken nothing out")
    if victim is not None and victim.state != "exit":
        arena.thaw(victim)
        arena.ended(victim)
    arena.job = {}
    arena.ended(arena.start("restore", home="elsewhere"))
    arena.ended(arena.start("publish", stop="paused"))
    arena.reader.finish()
    arena.reader.objections.clear()  # that rows became fewer
    arena.watch()
    arena.sender.resume()
    arena.settle(arena.start("keep"))


def _lives(worker: Worker | None) -> bool:
    return worker is not None and worker.state != "exit"


def thaw(arena: Arena) -> None:
    """The victim freezes in its window while others go on landing, then it goes on too."""
    arena.open()
    companions = [arena.start(op) for op in arena.cell.beside]
    victim = arena.strike()
    assert arena.reader is not None
    reader = arena.reader
    before = reader.landed
    if reader.landed < arena.size.messages:
        arena.until(lambda: reader.landed > before, "landing beside a frozen process")
    if victim is not None:
        arena.thaw(victim)
    arena.settle(*companions, victim)


def service_kill(arena: Arena) -> None:
    """kill -9 of the warehouse when so much has landed; its supervisor starts it again."""
    arena.open()
    worker = arena.start("keep")
    _landed(arena, arena.cell.at)
    arena.bench.kill(arena.cell.window)
    arena.hits.append(f"{arena.cell.window} killed")
    arena.settle(worker)


def source_kill(arena: Arena) -> None:
    """kill -9 of a durable broker or queue when so much has landed, while the producer sends and goes on after it."""
    arena.open()
    worker = arena.start("keep")
    _landed(arena, arena.cell.at)
    sender, durable = arena.sender, arena.durable
    assert sender is not None and durable is not None
    back = durable.kill()
    before = len(sender.acknowledged)
    arena.hits.append(f"{arena.cell.source} {arena.cell.window} killed")
    if arena.until(back, f"{arena.cell.source} back"):
        arena.until(lambda: len(sender.acknowledged) > before, "sending to it again")
    arena.settle(worker)


def _landed(arena: Arena, per_cent: int) -> None:
    reader = arena.reader
    assert reader is not None
    arena.until(lambda: reader.landed >= arena.size.messages * per_cent // 100, f"landing of {per_cent} %")


def network(arena: Arena) -> None:
    """Answers of one service are swallowed and their connections reset, or all are late."""
    cell, settings = arena.cell, arena.settings
    reset = cell.action == "reset"
    delay = 0.0 if reset else 0.05
    with ExitStack() as open_here:

        def before(port: int) -> Network:
            return open_here.enter_context(Network(port, resets=6 if reset else 0, delay=delay))

        if cell.window == "clickhouse":
            between = before(int(settings["clickhouse_port"]))
            settings["clickhouse_port"] = str(between.port)
        elif cell.window == "sqs":
            between = before(int(settings["sqs_endpoint_url"].rsplit(":", 1)[-1]))
            settings["sqs_endpoint_url"] = f"http://127.0.0.1:{between.port}"
        else:
            port = free_port()
            between = before(port)
            open_here.enter_context(broker_behind(arena.bench.home, between, port))
            settings["kafka_bootstrap_servers"] = f"127.0.0.1:{between.port}"
        arena.open()
        worker = arena.start("keep")
        _landed(arena, cell.at)
        between.enabled.set()
        arena.until(lambda: between.hits >= 3, f"{cell.action} of {cell.window}")
        arena.settle(worker)
        arena.hits += [f"{cell.window} {cell.action}"] * min(1, between.hits)
        if arena.kafka:  # while its broker is there
            arena.ask_offsets()


def full_disk(arena: Arena) -> None:
    """The lake's disk runs full: a clear error, nothing lost, and the next run finishes once there is room."""
    arena.open(watch_lake=False)
    with Launcher(room=(arena.lake, _ROOM[arena.cell.at])) as inside:
        victim = arena.start("keep", strict=True, launcher=inside)
        victim.wait("exit", within=arena.size.patience)
        said = victim.result.get("error", "")
        if victim.code == EXIT_FATAL and "no space" in said.lower():
            arena.hits.append("disk full")
        else:
            arena.objections.append(f"a full disk ended as {victim.code}, not as a clear error: {said}")
        size = {"room": str(arena.lake), "bytes": _AMPLE}
        arena.ended(arena.start("enlarge", launcher=inside, **size))
        assert arena.sender is not None
        arena.sender.finish()
        arena.stop()
        arena.ended(arena.start("keep", launcher=inside))
        seen = Path(f"/proc/{inside.pid}/root") / arena.lake.relative_to("/")
        copy = arena.folder / "copy"
        shutil.copytree(seen, copy)
        arena.lake = copy
    assert arena.reader is not None
    arena.reader.finish()


def power_cut(arena: Arena) -> None:
    """The power of the machine that holds lake and warehouse is cut while a worker lands and publishes."""
    with ExitStack() as machine:
        disk = machine.enter_context(Disk(arena.folder / "disk.img", arena.folder / "disk"))
        endpoint = machine.enter_context(Endpoint(disk.folder / "stack"))
        arena.lake = disk.folder / "lake"
        arena.lake.mkdir()
        arena.warehouse = {**arena.warehouse, **endpoint.settings}
        arena.settings |= {**endpoint.settings, "lake_uri": str(arena.lake)}
        if arena.cell.action == "unsynced":
            arena.settings["lake_sync"] = "false"
        arena.open(watch_lake=False)  # what was seen before it was synced may be gone
        assert arena.sender is not None and arena.reader is not None
        worker = arena.start("keep")
        enough = arena.size.messages * arena.cell.at // 100
        arena.until(lambda: _messages_in(arena) >= enough, f"landing of {arena.cell.at} %")
        arena.reader.finish()
        disk.cut()
        arena.hits.append("power cut")
        arena.thaw(worker, kill=True)
        endpoint.kill()
        disk.again()
        endpoint.start()
        arena.watch()
        arena.settle(arena.start("keep"))
        arena.collect()


def _messages_in(arena: Arena) -> int:
    lake = Lake(arena.lake)
    return len({row[:2] for table in TABLES for row in lake.rows(table)})


def stricter(arena: Arena) -> None:
    """The victim freezes between its commits, one that rejects all freezes between its own, and the victim goes on."""
    arena.open()
    sender = arena.sender
    assert sender is not None
    arena.until(lambda: sender.enough, "sending")
    sender.finish()
    point = {"window": arena.cell.window, "nth": 1, "action": "freeze"}
    job: dict[str, Any] = {"failpoint": point, "batch_messages": 10 * arena.size.messages}
    victim = arena.start("keep", **job)
    victim.wait("stopped", "exit")
    arena.settings["event_time_min"] = (datetime.now(UTC) + timedelta(minutes=50)).isoformat()
    strict = arena.start("keep", home="elsewhere", **job)
    strict.wait("stopped", "exit")
    del arena.settings["event_time_min"]
    if victim.state == strict.state == "stopped":
        arena.hits += ["between_tables #1"] * 2
    arena.stop()
    arena.thaw(victim)
    arena.until(lambda: victim.state == "exit" or _messages_in(arena), "the victim's second commit")
    arena.thaw(strict)
    arena.settle(victim, strict)
    # either may have judged a message; each record counts once
    lake = Lake(arena.lake)
    good, rejected = (Counter(row[:2] for row in set(lake.rows(table))) for table in TABLES)
    sender.acknowledged = {
        message: Records(good[message], rejected[message])
        if good[message] + rejected[message] == records.good + records.rejected
        else records
        for message, records in sender.acknowledged.items()
    }


def wrong_clock(arena: Arena) -> None:
    """Messages land while the clock is 20 days behind, their acknowledgement is lost, and they come again."""
    arena.settings |= {"event_time_ahead": "P999D"}  # nothing is rejected for the clock's sake
    arena.open()
    arena.settings |= {"chaos_clock_days": "-20"}
    victim = arena.start("keep", failpoint={"window": arena.cell.window, "nth": 5, "action": "kill"})
    del arena.settings["chaos_clock_days"]
    if victim.wait("exit") and victim.code == -9:
        arena.hits.append("written_not_acknowledged #5")
    arena.settle(arena.start("keep"))


def forgetful(arena: Arena) -> None:
    """kill -9 of an in-memory broker: what it lost is its own loss, and Headrace must name it."""
    arena.open()
    worker = arena.start("keep")
    _landed(arena, 20)
    sender, reader = arena.sender, arena.reader
    assert sender is not None and reader is not None
    arena.thaw(worker, kill=True)
    arena.until(lambda: len(sender.acknowledged) > arena.size.messages // 2, "sending")
    sender.finish(now=True)
    first = dict(sender.acknowledged)
    old = arena.topic_id() if arena.kafka else ""
    service = "broker" if arena.kafka else "queue"
    arena.bench.kill(service)
    arena.hits.append(f"{service} killed")
    said = []
    gone = arena.start("keep", strict=False, patience=3.0)  # while it is away and when it is back, empty
    gone.wait("exit")
    said.append(gone.said)
    if gone.code == 0:
        arena.objections.append("a broker that forgot the topic passed for an idle one")
    arena.until(lambda: _created(arena), f"{service} back")
    again = arena.produce(arena.size.messages // 3)
    again.finish()
    arena.sender = again
    after = arena.start("keep")
    arena.stop()
    arena.ended(after)
    said.append(after.said)
    reader.finish()
    arena.whole = arena.kafka
    new = arena.topic_id() if arena.kafka else ""
    known = {m if not arena.kafka else (f"{old}/{m[0]}", m[1]): r for m, r in first.items()}
    known |= {m if not arena.kafka else (f"{new}/{m[0]}", m[1]): r for m, r in again.acknowledged.items()}
    again.acknowledged = known
    whole = arena.landed_whole(known)
    lost = frozenset(m for m in known if m not in whole and (not arena.kafka or str(m[0]).startswith(old)))
    text = "\n".join(said)
    named = _names_ranges(text, arena.name, old, known, lost) if arena.kafka else "does not exist" in text
    if named:
        arena.forgotten = lost
    elif lost:
        arena.objections.append(f"Headrace does not name the {len(lost)} messages that the {service} forgot")


def _names_ranges(text: str, topic: str, old: str, known: dict, lost: frozenset) -> bool:  # type: ignore[type-arg]
    """Whether a line names the topic, says that it was recreated, and where each partition's loss begins."""
    lines = [
        line for line in text.splitlines() if topic in line and re.search(r"recreat|lost|lose", line, re.I)
    ]
    begins = {
        p: min((o for q, o in lost if q == p), default=max(o for q, o in known if q == p) + 1)
        for p in {m[0] for m in known}
        if old in p
    }
    return bool(lines) and all(
        any(p in line and re.search(rf"\b{at}\b", line) for line in lines) for p, at in begins.items()
    )


def _created(arena: Arena) -> bool:
    try:
        arena.create()
    except Exception:  # not back yet
        return False
    return True


def clock(arena: Arena) -> None:
    """A message too far in the future when it is rejected is not too far when a crash makes it come again."""
    arena.open()
    sender = arena.sender
    assert sender is not None
    arena.until(lambda: sender.enough, "sending")
    sender.pause()
    due = datetime.now(UTC) + timedelta(seconds=4)
    event = {
        "event_id": "early",
        "event_type": "page_view",
        "occurred_at": (due + _AHEAD).isoformat().replace("+00:00", "Z"),
        "session_id": "s",
        "channel": "web",
    }
    sender.extra = [(json.dumps(event).encode(), Records(0, 1))]
    sender.resume()
    sender.finish()
    point = {"window": "between_tables", "nth": 1, "action": "kill"}
    victim = arena.start("keep", failpoint=point, batch_messages=10 * arena.size.messages)
    if victim.wait("exit") and victim.code == -9 and datetime.now(UTC) < due:
        arena.hits.append("between_tables #1")
    arena.until(lambda: datetime.now(UTC) > due, "four seconds")
    arena.settle(arena.start("keep"))


SCENARIOS: dict[str, Callable[[Arena], None]] = {
    f.__name__: f
    for f in (
        fault,
        zombie,
        rolling,
        restored,
        thaw,
        service_kill,
        source_kill,
        network,
        full_disk,
        forgetful,
        clock,
        power_cut,
        stricter,
        wrong_clock,
    )
} | door_cells.SCENARIOS
