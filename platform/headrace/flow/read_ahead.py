"""Read and validate micro-batches ahead of the writer.

Messages of a queue are taken out of it by reading, and only the tables tell whether another run has landed them: a run
that holds them must have opened the tables before. So a queue is never read ahead (docs/adr/0015).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, Queue

import polars as pl

from headrace.contracts import Contract, Limits
from headrace.core.batch import CheckedBatch, MicroBatch, Position
from headrace.flow.validate import validate
from headrace.sources import Source


@dataclass(frozen=True, slots=True)
class Read:
    """The result of one read.

    Attributes:
        batch: The messages.
        after: Where the next read begins, also in cursors that this one did not look at.
        checked: The validated messages; None if there is nothing to land.
    """

    batch: MicroBatch
    after: Position
    checked: CheckedBatch | None


class ReadAhead:
    """Read a source, which is for one thread at a time, directly or in a thread that reads ahead.

    Reading ahead takes two threads: while one batch is written, the next is validated and the one after it is read.
    That one waits there until the first has been written.
    """

    def __init__(self, source: Source, contract: Contract, limits: Limits, batch_messages: int) -> None:
        """Read nothing yet.

        Args:
            source: What to read.
            contract: What its records should be.
            limits: What is accepted.
            batch_messages: Messages of a full batch.
        """
        self._source, self._contract, self._limits = source, contract, limits
        self._batch_messages = batch_messages
        self._known: list[str] = []
        self._checks = ThreadPoolExecutor(1, "check")
        self._thread: threading.Thread | None = None
        self._enough = threading.Event()
        self._found: Queue[Future[Read | None]] = Queue(1)  # in the order they were read; None is the end
        self._taken: Future[Read | None] | None = None  # out of the queue, and not returned yet
        self._landed: deque[MicroBatch] = deque()  # to be acknowledged between two reads

    def cursors(self) -> list[str]:
        """List the source's cursors as they are now; while reading ahead, as they were before."""
        if self._thread is None:
            self._known = self._source.cursors()
        return self._known

    @property
    def running(self) -> bool:
        """Whether batches are read ahead, or were and have not all been taken."""
        return self._thread is not None

    def taken(self) -> Read | None:
        """Wait for the next batch that was read ahead; None if reading ahead ended, which stops it."""
        future, self._taken = self._taken or self._found.get(), None
        found = future.result()
        if found is None:
            self.stop()
        return found

    def read(self, after: Position, wait_seconds: float) -> Read:
        """Read behind a position in the caller's thread; waits for the first message at most so long."""
        batch = self._read(after, wait_seconds)
        if _nothing(batch):
            return Read(batch, after, None)
        return Read(batch, after.advanced(batch.after), validate(batch, self._contract, self._limits))

    def more(self, seconds: float) -> Read | None:
        """Return the next batch that was read ahead if it is there in time; its errors are for ``taken`` to raise."""
        if self._thread is None and self._taken is None:
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
        return self._source.read(after, self._batch_messages, wait_seconds)

    def start(self, after: Position, wait_seconds: float) -> None:
        """Read ahead from a position while batches are full, until ``stop``; does nothing if that is under way."""
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
                    break  # the caller reads on, sees whether anything is amiss, and waits
                after = after.advanced(batch.after)
                found: Future[Read | None] = Future()
                self._found.put(found)  # waits until the one before it has been taken, which is then written
                self._checks.submit(self._validate, batch, after, found)
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

    def _validate(self, batch: MicroBatch, after: Position, found: Future[Read | None]) -> None:
        try:
            checked = validate(batch, self._contract, self._limits)
            # good and rejected rows hold all that is needed of the payloads
            records = batch.records.with_columns(payload=pl.lit(None, pl.Binary))
            found.set_result(Read(replace(batch, records=records), after, checked))
        except BaseException as error:
            found.set_exception(error)

    def acknowledge(self, batch: MicroBatch) -> None:
        """Tell the source that a batch has landed: at once, or after the read that is under way."""
        self._landed.append(batch)
        if self._thread is None:
            self._tell()

    def _tell(self) -> None:
        while self._landed:
            self._source.acknowledge(self._landed.popleft())

    def stop(self) -> None:
        """Forget what was read ahead; the source is the caller's again, and knows of all that has landed."""
        if self._thread is not None:
            self._enough.set()
            while self._thread.is_alive():
                with suppress(Empty):
                    self._found.get(timeout=0.05)  # makes room for what it is about to put
            self._thread, self._found, self._taken = None, Queue(1), None
            self._enough.clear()
        self._tell()

    def close(self) -> None:
        """Stop for good."""
        try:
            self.stop()
        finally:
            self._checks.shutdown()


def _nothing(batch: MicroBatch) -> bool:
    return not len(batch) and batch.after == batch.before
