"""Crash windows by name, hit from outside: proxies around the seams of the system under test.

The product knows nothing of this. ``ChaosStream`` is a ``Stream`` whose source, lake tables and warehouse are
wrapped; each wrapper tells a ``Failpoint`` when a window is passed, and at the n-th passing of the chosen window
the failpoint writes one line to the hit file and then acts: SIGKILL or SIGSTOP to its own process, an error, or
(negative controls) a deliberate breach of the protocol.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from headrace.core.batch import Chunk, MicroBatch, Position, Table
from headrace.core.errors import Retriable
from headrace.flow.commit import StreamLake
from headrace.lake.base import Staged
from headrace.lake.delta import growth
from headrace.repair import restore as repair_restore
from headrace.streams.stream import Stream
from headrace.warehouse import Publication

#: What every window means; the names of the report.
WINDOWS = {
    "before_write": "read from the source, nothing written",
    "between_tables": "rejected table committed, good table not",
    "mid_write": "Parquet files of the good table written, their commit not",
    "written_not_acknowledged": "both tables committed, the source not told",
    "mid_publish": "some chunks of a lake version inserted, others not",
    "published_not_recorded": "a lake version inserted, its publication not recorded",
    "compaction": "compacted Parquet files written, their commit not",
    "growing": "columns of the good table changed, the contract not recorded",
    "between_restores": "rejected table restored, good table not",
    "swap_staged": "staging table filled, partition not swapped",
    "swapped": "partition swapped, staging table not dropped",
}
#: Windows inside delta-rs, seen only from the files that it leaves.
INSIDE = ("mid_write", "compaction")


@dataclass
class Failpoint:
    """Acts once, at the ``nth`` passing of ``window``.

    Attributes:
        window: A name of ``WINDOWS``; empty never acts.
        nth: 1 for the first passing.
        action: ``kill``, ``freeze``, ``error``, or a breach that the proxies below carry out
            (``double_lake``, ``drop_lake``, ``double_warehouse``, ``drop_warehouse``).
        hits: One JSON line is appended here just before the act.
    """

    window: str
    nth: int
    action: str
    hits: Path
    passed: int = 0
    acted: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, window: str) -> bool:
        """Count a passing; whether to act now."""
        with self._lock:
            if window != self.window or self.acted:
                return False
            self.passed += 1
            return self.passed >= self.nth

    def note(self, *, sync: bool = True, **details: object) -> None:
        """Say in the hit file what is about to happen."""
        self.acted = True
        line = {"window": self.window, "passing": self.passed, "action": self.action, "pid": os.getpid()}
        fd = os.open(self.hits, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, json.dumps({**line, **details}).encode() + b"\n")
        if sync:
            os.fsync(fd)
        os.close(fd)

    def passing(self, window: str) -> None:
        """A window is passed."""
        if self.due(window):
            self.note()
            self.act()

    def breach(self, window: str, action: str) -> bool:
        """Whether the caller is to breach the protocol now."""
        if self.action != action or not self.due(window):
            return False
        self.note()
        return True

    def act(self) -> None:
        """End, freeze, or fail."""
        if self.action == "error":
            raise Retriable("connection reset by a failpoint")
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)

    @contextmanager
    def inside(self, window: str, folder: Path) -> Iterator[None]:
        """Act as soon as a new Parquet file appears in ``folder``, from a thread beside the writer.

        If the body is done first, nothing happened and the next passing is tried. The hit file is not synced
        here: the window is shorter than a sync, and what a killed process wrote survives it. Whether the commit
        slipped in between is for the parent to find out, from the file that the hit names.
        """
        if self.action not in ("kill", "freeze") or not self.due(window):
            yield
            return
        before, ended, looking = set(_parquet(folder)), threading.Event(), threading.Event()

        def look() -> None:
            while not ended.is_set():
                looking.set()
                fresh = next((f for f in _parquet(folder) if f not in before), None)
                if fresh is not None:
                    self.note(sync=False, file=fresh)
                    self.act()
                    return

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        looking.wait()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _parquet(folder: Path) -> Iterator[str]:
    for entry in os.scandir(folder):
        if "=" in entry.name:
            yield from (f"{entry.name}/{n}" for n in os.listdir(entry.path) if n.endswith(".parquet"))  # noqa: PTH208


class _Proxy:
    """Everything that is not wrapped goes straight through."""

    def __init__(self, real: Any, points: Failpoint) -> None:
        self._real, self._points = real, points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._real)


class WatchedSource(_Proxy):
    """A source that passes ``before_write`` and ``written_not_acknowledged``."""

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        batch: MicroBatch = self._real.read(after, max_messages, wait_seconds)
        if len(batch):
            self._points.passing("before_write")
        return batch

    def acknowledge(self, batch: MicroBatch, /) -> None:
        self._points.passing("written_not_acknowledged")
        self._real.acknowledge(batch)


class WatchedTable(_Proxy):
    """A lake table whose snapshots are watched."""

    def __init__(self, real: Any, points: Failpoint, *, good: bool) -> None:
        super().__init__(real, points)
        self._good = good

    def open(self) -> WatchedSnapshot:
        return WatchedSnapshot(self._real, self._points, good=self._good)


class WatchedSnapshot(_Proxy):
    """A snapshot that passes ``between_tables`` and ``mid_write``."""

    def __init__(self, table: Any, points: Failpoint, *, good: bool) -> None:
        super().__init__(table.open(), points)
        self._table, self._good = table, good

    def append(
        self,
        rows: Staged,
        advance: Mapping[str, int],
        batch_id: str,
        notes: Mapping[str, str] | None = None,
        /,
    ) -> int:
        points = self._points
        if not self._good:
            version = int(self._real.append(rows, advance, batch_id, notes))
            points.passing("between_tables")
            return version
        if rows.height and points.breach("mid_write", "drop_lake"):
            return int(self._real.append(self._table.stage(), advance, batch_id, notes))
        if rows.height and points.breach("mid_write", "double_lake"):
            self._real.append(rows, advance, batch_id, notes)
            return int(self._table.open().append(rows, {}, batch_id))
        with points.inside("mid_write", Path(self._table.uri)):
            return int(self._real.append(rows, advance, batch_id, notes))


class WatchedWarehouse(_Proxy):
    """A warehouse that passes ``mid_publish`` and ``published_not_recorded``."""

    def insert(self, table: Table, rows: Chunk, token: str, /) -> None:
        if self._points.breach("published_not_recorded", "drop_warehouse"):
            return
        if token.rsplit(":", 1)[-1] != "0":
            self._points.passing("mid_publish")
        self._real.insert(table, rows, token)
        if self._points.breach("published_not_recorded", "double_warehouse"):
            self._real.insert(table, rows, f"{token}:again")

    def record(self, table: Table, publication: Publication, /) -> None:
        if publication.rows and "warehouse" not in self._points.action:
            self._points.passing("published_not_recorded")
        self._real.record(table, publication)


class ChaosStream(Stream):
    """A stream whose seams are watched by one failpoint."""

    points: Failpoint

    def source(self, *args: Any, **named: Any) -> Any:
        return WatchedSource(super().source(*args, **named), self.points)

    @cached_property
    def lake(self) -> Any:
        real = Stream.lake.func(self)  # type: ignore[attr-defined]
        good = WatchedTable(real.good, self.points, good=True)
        return StreamLake(good, WatchedTable(real.rejected, self.points, good=False))  # type: ignore[type-var]

    @cached_property
    def warehouse(self) -> Any:
        return WatchedWarehouse(Stream.warehouse.func(self), self.points)  # type: ignore[attr-defined]


def watch_growth(points: Failpoint) -> None:
    """Pass ``growing`` where a table that has its new columns is about to record the contract."""
    assert hasattr(growth, "_record"), "the product records contracts elsewhere: adapt the chaos suite"
    real = growth._record

    def record(*args: Any) -> None:
        points.passing("growing")
        real(*args)

    growth._record = record  # type: ignore[assignment]


def watch_restores(points: Failpoint) -> None:
    """Pass ``between_restores`` where one table of a stream has been restored."""
    assert hasattr(repair_restore, "restore"), "the product restores elsewhere: adapt the chaos suite"
    real = repair_restore.restore

    def restore(*args: Any, **named: Any) -> Any:
        done = real(*args, **named)
        points.passing("between_restores")
        return done

    repair_restore.restore = restore


def watch_swaps(points: Failpoint) -> None:
    """Pass ``swap_staged`` and ``swapped`` at the driver: the statement itself is the seam."""
    from clickhouse_connect.driver.httpclient import HttpClient

    real = HttpClient.command

    def command(self: Any, cmd: Any, *args: Any, **named: Any) -> Any:
        if "REPLACE PARTITION" not in str(cmd):
            return real(self, cmd, *args, **named)
        points.passing("swap_staged")
        answer = real(self, cmd, *args, **named)
        points.passing("swapped")
        return answer

    HttpClient.command = command  # type: ignore[method-assign]
