"""Measure how soon a collector opens a log whose events were never delivered."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headrace.bench.load import live

_CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class Recovery:
    """Opening a log whose events were never delivered.

    Attributes:
        events: Events in the log, one per entry.
        added: Events that its index lacked.
        seconds: Elapsed time until the door could open.
        cpu_seconds: Core seconds.
        wrong: What does not reconcile.
    """

    events: int
    added: int
    seconds: float
    cpu_seconds: float
    wrong: tuple[str, ...] = ()


def written(folder: Path, events: int) -> None:
    """Write a log of so many events, each an entry of its own, and its index as kill -9 leaves it."""
    from headrace.collector.ids import Ids
    from headrace.collector.log import ID_BYTES, DurableLog, Entry

    log = DurableLog(folder / "log", limit_bytes=64 << 30)
    ids = Ids(folder / "whole", timedelta(days=7))
    try:
        for first in range(0, events, _CHUNK):
            made = live(first, min(events, first + _CHUNK), datetime.now(UTC))["payload"].to_list()
            entries = [Entry("events", payload, os.urandom(ID_BYTES)) for payload in made]
            ids.add(zip(log.append(entries), [entry.ids for entry in entries], strict=True))
        # without what is only in memory
        shutil.copytree(folder / "whole", folder / "killed", ignore=shutil.ignore_patterns("LOCK"))
    finally:
        ids.close()
        log.close()


def recovered(folder: Path, events: int, index: str) -> Recovery:
    """Open a log and bring its index up to date, as a collector does before it serves."""
    from headrace.collector.ids import Ids
    from headrace.collector.log import DurableLog

    began, spent = time.perf_counter(), time.process_time()
    log = DurableLog(folder / "log", limit_bytes=64 << 30)
    ids = Ids(folder / index, timedelta(days=7))
    through = ids.through
    added = ids.catch_up(log)
    took, cpu = time.perf_counter() - began, time.process_time() - spent
    known = [int((ids.look(entry.ids).number == number).all()) for number, entry in _every(log, 1_000)]
    ids.close()
    log.close()
    wrong = [] if through + added == events else [f"{through + added:,} of {events:,} events were found"]
    wrong += [] if all(known) else [f"{known.count(0)} of {len(known)} events are not in the index"]
    return Recovery(events, added, took, cpu, tuple(wrong))


def _every(log: Any, nth: int) -> Iterator[tuple[int, Any]]:
    return (one for one in log.read(log.oldest) if one[0] % nth == 0)
