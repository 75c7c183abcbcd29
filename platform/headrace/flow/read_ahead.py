"""Reads a source and checks what it gives, ahead of who lands it.

Messages of a queue are taken out of it by reading, and nothing but the tables tells whether somebody else has landed
them: who holds them must have opened the tables before. So a queue is never read ahead (docs/adr/0015).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from queue import Empty, Queue

import polars as pl

from headrace.contracts import Contract, Limits, check
from headrace.core.batch import Checked, MicroBatch, Position, new_batch_id
from headrace.lake import Snapshot
from headrace.sources import Source

#: Of the rejected table and of the good one.
Tables = tuple[Snapshot, Snapshot]


@dataclass(frozen=True, slots=True)
class Read:
    """What a read gave.

    Attributes:
        batch: The messages.
        after: Where the next read begins, also in what this one did not look at.
        checked: The same after the contract; None if there is nothing to land.
        tables: As they were before the read, so that a commit of anyone else who got the same messages meanwhile is a
            conflict; None for what was read ahead: offsets tell what has landed.
    """

    batch: MicroBatch
    after: Position
    checked: Checked | None
    tables: Tables | None


class Reader:
    """Reads and checks a source, which is for one thread at a time.

    Reading ahead, that is a thread of its own, and checking another: while one batch is written, the next is checked
    and the one after it is read, which waits there until the first has been written.
    """

    def __init__(self, source: Source, contract: Contract, limits: Limits, batch_messages: int) -> None:
        """Args:
        source: What to read.
        contract: What its records should be.
        limits: What is accepted.
        batch_messages: Messages of a full batch.
        """
        self.source, self.contract, self.limits = source, contract, limits
        self._batch_messages = batch_messages
        self._known: list[str] = []
        self._checks = ThreadPoolExecutor(1, "check")
        self._thread: threading.Thread | None = None
        self._enough = threading.Event()
        self._found: Queue[Future[Read | None]] = Queue(1)  # in the order they were read; None is the end
        self._taken: Future[Read | None] | None = None  # out of the queue, and nobody has had it yet
        self._landed: deque[MicroBatch] = deque()  # to be acknowledged between two reads

    def cursors(self) -> list[str]:
        """As the source has them now; as it had them while reading ahead."""
        if self._thread is None:
            self._known = self.source.cursors()
        return self._known

    def next(self, present: Callable[[], Tables], cursors: list[str], wait_seconds: float) -> Read:
        """What was read ahead; or what is there now, behind the position in the ``present`` tables.

        A read waits ``wait_seconds`` for the first message.
        """
        if self._thread is not None:
            future, self._taken = self._taken or self._found.get(), None
            found = future.result()
            if found is not None:
                return found
            self.stop()
            cursors = self.cursors()
        tables = present()
        after = tables[1].position(cursors)
        batch = self._read(after, wait_seconds)
        if _nothing(batch):
            return Read(batch, after, None, tables)
        return Read(batch, after.advanced(batch.after), judged(batch, self.contract, self.limits), tables)

    def more(self, seconds: float) -> Read | None:
        """What else was read ahead, if it is there in time; what went wrong is for ``next`` to raise."""
        if self._thread is None and self._taken is None:  # nobody reads ahead
            return None
        until = time.monotonic() + seconds
        try:
            if self._taken is None:
                self._taken = self._found.get(timeout=max(0.0, seconds))
            if self._taken.exception(timeout=max(0.0, until - time.monotonic())) is not None:
                return None
        except (Empty, TimeoutError):
            return None
        found = self._taken.result()
        if found is not None:
            self._taken = None
        return found

    def _read(self, after: Position, wait_seconds: float) -> MicroBatch:
        return self.source.read(after, self._batch_messages, wait_seconds)

    def read_ahead(self, after: Position, wait_seconds: float) -> None:
        """Go on from there, for as long as batches are full, until ``stop``; does nothing if that is under way."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._go_on, args=(after, wait_seconds), name="read", daemon=True
            )
            self._thread.start()

    def _go_on(self, after: Position, wait_seconds: float) -> None:
        try:
            full = True
            while full and not self._enough.is_set():
                self._tell()
                batch = self._read(after, wait_seconds)
                if _nothing(batch):
                    break  # who reads on sees whether anything is amiss, and waits
                after = after.advanced(batch.after)
                found: Future[Read | None] = Future()
                self._found.put(found)  # waits until the one before it has been taken, which is then written
                self._checks.submit(self._judge, batch, after, found)
                full = len(batch) >= self._batch_messages
                del batch  # not to be held while the next one is read
        except BaseException as error:
            failed: Future[Read | None] = Future()
            failed.set_exception(error)
            self._found.put(failed)
        finally:
            end: Future[Read | None] = Future()
            end.set_result(None)
            self._found.put(end)

    def _judge(self, batch: MicroBatch, after: Position, found: Future[Read | None]) -> None:
        try:
            checked = judged(batch, self.contract, self.limits)
            # what is good and what is rejected hold all that is needed of the payloads
            records = batch.records.with_columns(payload=pl.lit(None, pl.Binary))
            found.set_result(Read(replace(batch, records=records), after, checked, None))
        except BaseException as error:
            found.set_exception(error)

    def acknowledge(self, batch: MicroBatch) -> None:
        """At once, or after the read that is under way."""
        self._landed.append(batch)
        if self._thread is None:
            self._tell()

    def _tell(self) -> None:
        while self._landed:
            self.source.acknowledge(self._landed.popleft())

    def stop(self) -> None:
        """Forget what was read ahead; the source is this thread's again, and knows of all that has landed."""
        if self._thread is not None:
            self._enough.set()
            while self._thread.is_alive():
                with suppress(Empty):
                    self._found.get(timeout=0.05)  # makes room for what it is about to put
            self._thread, self._found, self._taken = None, Queue(1), None
            self._enough.clear()
        self._tell()

    def close(self) -> None:
        """``stop`` for good."""
        try:
            self.stop()
        finally:
            self._checks.shutdown()


def _nothing(batch: MicroBatch) -> bool:
    return not len(batch) and batch.after == batch.before


def judged(batch: MicroBatch, contract: Contract, limits: Limits) -> Checked:
    """A micro-batch after its contract, as of now."""
    return check(contract, batch, batch_id=new_batch_id(batch), now=datetime.now(UTC), limits=limits)
