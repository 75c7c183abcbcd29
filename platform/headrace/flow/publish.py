"""Publish lake versions to the warehouse, in order, each exactly once.

For each version after the last published one, its added rows go in with the token
``<table>:<lake id>:<version>:<n>``; then the version is recorded. A crash in between sends the same chunks with the
same tokens again, and the warehouse adds only what is missing. A warehouse that has begun anew since may have lost the
tokens in a power cut. If it holds rows of the next version then, the days of that version are replaced instead.
Commits that change no data add nothing. A version that took rows away (an erasure) replaces the days that it changed,
which can be done any number of times.

A lake that was restored from an older copy counts on from there: its numbers come again with other rows. It is
recognised if the last published version is beyond the newest, or is another commit than it was. The newest version is
then published whole, and a new epoch begins, whose number is in the tokens (docs/adr/0032).

The newest version is also published whole, every day replaced, if the log or the files of the next version are gone:
the warehouse was away for longer than the lake keeps its history, or it is new and somebody has been erased since.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.batch import Chunk
from headrace.core.errors import HeadraceError, HistoryGone
from headrace.flow.growth import as_recorded
from headrace.lake import LakeTable, LakeVersion
from headrace.warehouse import Publication, Warehouse

log = logging.getLogger(__name__)

#: So often a day is replaced at most while rows of it keep landing. Beside publishers of one machine once is enough.
_REPLACED_AGAIN = 3
#: Between two looks whether somebody else has recorded a version.
_LOOK_SECONDS = 0.2
#: Between two attempts while the warehouse is away.
_AGAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Published:
    """Count what a publish did.

    Attributes:
        versions: Lake versions that were passed on.
        rows: Rows that they added.
        days: Partitions that were touched.
        end: First lake version that is not in yet.
    """

    versions: int = 0
    rows: int = 0
    days: frozenset[date] = frozenset()
    end: int = 0

    def __add__(self, other: Published) -> Published:
        return Published(
            self.versions + other.versions,
            self.rows + other.rows,
            self.days | other.days,
            max(self.end, other.end),
        )


def publish(
    table: LakeTable,
    warehouse: Warehouse,
    *,
    alone: AbstractContextManager[object] | None = None,
    unsure: bool = True,
    settle_seconds: float = 0.0,
    surely_from: int = 0,
) -> Published:
    """Bring the warehouse up to the newest lake version.

    Two publishers of one table at once add nothing twice (same tokens). A publisher beside ``replace_partition`` could,
    so both hold the warehouse's lease.

    Args:
        table: The lake table.
        warehouse: Where its rows go.
        alone: Lock between the processes of one machine, which then queue for the lease one at a time.
        unsure: Whether the warehouse may have lost tokens of rows that it holds, since this process began or before.
        settle_seconds: A half published version is replaced once nobody has recorded it for so long, s: a publisher of
            another machine may be working on it, where the warehouse has no leases.
        surely_from: First version that the caller knows is not published, unless somebody else did; 0 if it does not
            know. It spares a look.

    Raises:
        Busy: Another process keeps the lease or ``alone``.
        Retriable: The warehouse or the lake is away, the lease was lost, or a newer contract has to change the
            warehouse first; the next call goes on from here.
    """
    with alone or nullcontext():
        warehouse.prepare(table.table)
        if not surely_from or table.open().version < surely_from:
            last = warehouse.published(table.table, table.id)
            if last is not None and (end := _all_published(table, warehouse, last)):
                return Published(end=end)
        with warehouse.lease(table.table, table.id) as last:
            return _publish(table, warehouse, last, unsure, settle_seconds)


def _looked(table: LakeTable, warehouse: Warehouse) -> int:
    """Return the newest version, once it may be published.

    To be called after the question what has been published: others may publish meanwhile, and never ahead of the lake.
    """
    snapshot = table.open()
    table.sync(
        snapshot.version
    )  # what is published must not be gone after a power cut, its number then another's
    warehouse.expect(as_recorded(table.table, snapshot))
    return snapshot.version


def _all_published(table: LakeTable, warehouse: Warehouse, last: Publication) -> int:
    """Return the first version that is not there yet if there is nothing to publish, 0 if there is."""
    newest = _looked(table, warehouse)
    return resume_at(newest) if last.version == newest and not another_history(table, newest, last) else 0


def _publish(
    table: LakeTable, warehouse: Warehouse, last: Publication | None, unsure: bool, settle_seconds: float
) -> Published:
    newest = _looked(table, warehouse)
    if last is not None and (why := another_history(table, newest, last)):
        log.warning("%s: publishing version %d of %s whole", why, newest, table.table.name)
        return _publish_whole(table, warehouse, newest, last.epoch + 1)
    done, epoch = Published(end=resume_at(version_of(last))), last.epoch if last else 0
    while (version := done.end) <= newest:
        try:
            added = table.describe(version)
            half_in = unsure and _half_in(table, warehouse, added)
            if half_in and (end := _recorded(table, warehouse, version, settle_seconds)):
                done += Published(end=end)
                continue
            # versions after the first that is not in are not in either
            unsure = half_in or (unsure and not added.rows)
            if half_in or added.rewritten:
                done += _replace(table, warehouse, added, added.days, epoch)
            else:
                done += _publish_version(table, warehouse, added, epoch)
        except HistoryGone as gone:
            log.warning("%s; publishing version %d of %s whole", gone, newest, table.table.name)
            return done + _publish_whole(table, warehouse, newest, epoch)
    return done


def another_history(table: LakeTable, newest: int, last: Publication) -> str:
    """Say why the lake cannot be the one that was published from; empty if it can.

    Args:
        table: The lake table.
        newest: Its newest version, asked for after ``last``.
        last: What the warehouse holds.
    """
    name = table.table.name
    if last.version > newest:
        return (
            f"the lake's {name} is at version {newest}, and version {last.version} of it was published: it has been"
            " restored from an older copy"
        )
    if last.fingerprint:
        with suppress(HistoryGone):  # too long ago to tell
            if table.describe(last.version).fingerprint != last.fingerprint:
                return (
                    f"version {last.version} of the lake's {name} is another one than was published: it has been"
                    " restored from an older copy"
                )
    return ""


def unpublished_range(table: LakeTable, warehouse: Warehouse) -> range:
    """List the versions that publishing resumes with, from the first unpublished one to the newest."""
    warehouse.prepare(table.table)
    last = warehouse.published(table.table, table.id)
    newest = table.open().version
    restored = last is not None and another_history(table, newest, last)
    return range(newest if restored else resume_at(version_of(last)), newest + 1)


def version_of(last: Publication | None) -> int:
    """Return the version that was published last, -1 for none."""
    return -1 if last is None else last.version


def resume_at(published: int) -> int:
    """Return the first version that is not published, after the one that was published last."""
    return published + 1


def _half_in(table: LakeTable, warehouse: Warehouse, added: LakeVersion) -> bool:
    """Tell whether rows of an unrecorded version are there that have lost their tokens.

    Their publisher was killed, or lost its power. ClickHouse syncs rows, if it is told to, and never the tokens that it
    has seen (docs/adr/0026). If it has been up since the version was committed it knows them all, and the publisher may
    wake up and go on.
    """
    if not (added.rows and added.batches and warehouse.holds(table.table, added.batches, added.days)):
        return False
    try:
        return warehouse.restarted_since(table.committed_at(added.version))
    except HistoryGone:  # it does not say when
        return True


def _recorded(table: LakeTable, warehouse: Warehouse, version: int, seconds: float) -> int:
    """Wait until another publisher has recorded a version; returns the first unpublished one, 0 for nobody."""
    until, pause = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < until:
        last = warehouse.published(table.table, table.id)
        if (end := resume_at(version_of(last))) > version:
            return end
        pause.wait(_LOOK_SECONDS)
    return 0


def _publish_version(table: LakeTable, warehouse: Warehouse, added: LakeVersion, epoch: int) -> Published:
    version = added.version
    landed: set[date] = set()
    lake = f"{table.id}~{epoch}" if epoch else table.id
    for n, chunk in enumerate(table.read(added)):
        warehouse.insert(table.table, _noting(landed, chunk), f"{table.table.name}:{lake}:{version}:{n}")
    noted = Publication(
        table.id, version, added.rows, added.days, tuple(sorted(landed)), added.fingerprint, epoch
    )
    warehouse.record(table.table, noted)
    log.debug("published %s version %d: %d rows", table.table.name, version, added.rows)
    return Published(1, added.rows, frozenset(added.days), resume_at(version))


def _noting(landed: set[date], chunk: Chunk) -> Chunk:
    """Return the chunk as it is; reading it adds the UTC days of its rows' ingestion to ``landed``."""
    if chunk.parquet is not None:
        landed.add(chunk.parquet.ingested_on)
        return chunk

    def parts() -> Iterator[pa.Table]:
        for part in chunk:
            landed.update(pc.unique(part["_ingested_at"].cast(pa.date32())).to_pylist())
            yield part

    return replace(chunk, parts=parts)


def _publish_whole(table: LakeTable, warehouse: Warehouse, version: int, epoch: int) -> Published:
    days = {*table.counts_by_day(version), *warehouse.counts_by_day(table.table)}
    taken = LakeVersion(version, 0, (), ())
    with suppress(HistoryGone):
        taken = table.describe(version)
    return _replace(table, warehouse, taken, sorted(days), epoch)


def _replace(
    table: LakeTable, warehouse: Warehouse, taken: LakeVersion, days: Sequence[date], epoch: int
) -> Published:
    landed: set[date] = set()
    rows = sum(
        warehouse.replace_partition(
            table.table, day, (_noting(landed, chunk) for chunk in table.read_day(day, taken.version))
        )
        for day in days
    )
    noted = Publication(
        table.id, taken.version, rows, tuple(days), tuple(sorted(landed)), taken.fingerprint, epoch
    )
    warehouse.record(table.table, noted)
    return Published(1, rows, frozenset(days), resume_at(taken.version))


def replace_days(
    table: LakeTable,
    warehouse: Warehouse,
    days: Iterable[date],
    *,
    alone: AbstractContextManager[object] | None = None,
) -> dict[date, int]:
    """Rebuild whole days of the warehouse from the lake, however often; returns rows by day.

    The table is first published to its newest version, so that no version is half in, and the day is then read as of
    exactly that version: later versions are published on top as always. The warehouse's lease keeps publishers away,
    and ``alone`` those of this machine. Where the warehouse has no leases, a publisher of another machine may have put
    rows of a later version into the old day, which are gone with it. So the day is replaced again if a later version
    has rows of it.
    """
    with alone or nullcontext(), warehouse.lease(table.table, table.id):
        return {day: _replace_day(table, warehouse, day) for day in days}


def _replace_day(table: LakeTable, warehouse: Warehouse, day: date) -> int:
    for _ in range(_REPLACED_AGAIN):
        publish(table, warehouse)
        last = warehouse.published(table.table, table.id)
        assert last is not None  # publish records at least version 0
        rows = warehouse.replace_partition(table.table, day, table.read_day(day, last.version))
        later = range(resume_at(last.version), table.open().version + 1)
        if not any(_touches(table, one, day) for one in later):
            break
    return rows


def _touches(table: LakeTable, version: int, day: date) -> bool:
    try:
        return day in table.describe(version).days
    except HistoryGone:
        return True


class Publishing:
    """Publish in the background whenever there is more, and again after a pause if the warehouse is away.

    A warehouse that needs a person (a broken migration) does not end it either: the caller publishes once more after
    ``close``, and is told.
    """

    def __init__(self, publish: Callable[[], Published], again_seconds: float = _AGAIN_SECONDS) -> None:
        """Start no thread yet.

        Args:
            publish: Brings the warehouse up to the lake; called by this object's thread alone until ``close``.
            again_seconds: Between two attempts while the warehouse is away.
        """
        self._publish, self._again_seconds = publish, again_seconds
        self._wake, self._ended = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.published = Published()
        #: Why the last attempt was put off; None after one that went well.
        self.put_off: HeadraceError | None = None

    def more(self) -> None:
        """Note that something has landed.

        Raises:
            Exception: The error that publishing ended with; an absent warehouse does not end it.
        """
        if self._failure is not None:
            raise self._failure
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="publish", daemon=True)
            self._thread.start()

    def failed(self) -> bool:
        """Tell whether publishing ended."""
        return self._failure is not None

    def _run(self) -> None:
        again: float | None = None
        while not self._ended.is_set():
            self._wake.wait(again)
            self._wake.clear()
            if self._ended.is_set():
                return
            try:
                self.published += self._publish()
                again, self.put_off = None, None
            except HeadraceError as error:  # landing goes on, and the rest is published later
                log.warning("publishing waits: %s", error)
                again, self.put_off = self._again_seconds, error
            except BaseException as error:
                self._failure = error
                return

    def close(self) -> None:
        """Wait for the publication that is under way; the caller publishes what landed since.

        Raises:
            Exception: The error that publishing ended with.
        """
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
