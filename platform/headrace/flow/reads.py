"""Group the micro-batches of a source for commits: when to read, how long to wait, when the run ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType

from headrace.contracts import Contract, Limits
from headrace.core.batch import CheckedBatch, MicroBatch
from headrace.flow.commit import Tables
from headrace.flow.read_ahead import Read, ReadAhead
from headrace.sources import Source

log = logging.getLogger(__name__)

#: A commit waits so long for more batches, s.
_COMMIT_SECONDS = 0.5
#: A run that stays asks its source so seldom, s; stopping it waits for the answer.
_LONG_POLL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How an ingest run proceeds.

    Attributes:
        batch_messages: Messages of one micro-batch.
        idle_seconds: The run ends when nothing came for this long, unless it stays.
        max_seconds: The run ends so long after its first batch, so that another can take over; None for no limit.
            (A source may take its time to get to where it left off; that must not eat up what a run may do.)
        batch_seconds: A read begins at least so long after the one before it, unless that filled its batch: commits
            cost as much for one message as for thousands.
        commit_batches: Micro-batches that one commit takes at most, catching up.
        linger_seconds: A run that may stay ends only when nothing came for this long; 0 for none that does. So a
            trickle keeps its run, instead of starting one for every few messages.
    """

    batch_messages: int = 48_000
    idle_seconds: float = 2.0
    max_seconds: float | None = None
    batch_seconds: float = 0.0
    commit_batches: int = 5
    linger_seconds: float = 0.0


@dataclass(slots=True)
class Group:
    """Micro-batches for one commit, iterated over once: each is dropped before the next is waited for.

    Attributes:
        reads: The batches, read as they are asked for.
        tables: Opened before the read; None for batches that were read ahead.
        batch_messages: Messages of a full batch; 0 if there is none.
        refused: Why something in the source could not be read, where there is no batch to say it.
        batch: All batches handed out so far as one, without their records; None for none.
        full: Whether the last of them was full.
    """

    reads: Iterator[Read] = field(default_factory=lambda: iter(()))
    tables: Tables | None = None
    batch_messages: int = 0
    refused: tuple[str, ...] = ()
    batch: MicroBatch | None = None
    full: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not self.batch_messages

    def __iter__(self) -> Iterator[tuple[MicroBatch, CheckedBatch]]:
        """Hand out each batch with its validated rows."""
        for read in self.reads:
            batch, checked = read.batch, read.checked
            assert checked is not None
            del read
            self.full = len(batch) >= self.batch_messages
            held = replace(self.batch or batch, records=batch.records.clear(), after=batch.after)
            self.batch = replace(held, lanes=None)
            yield batch, checked
            del batch, checked  # not to be held while more is waited for


class Reads:
    """Read a source in groups for commits, ahead of the writer where the source can be read again."""

    def __init__(
        self,
        source: Source,
        contract: Contract,
        limits: Limits,
        pace: Pace,
        *,
        stopping: Callable[[], bool],
        may_linger: Callable[[], bool],
    ) -> None:
        """Read nothing yet; arguments as of ``ingest``."""
        self._source, self._pace, self._stopping = source, pace, stopping
        self._ahead = ReadAhead(source, contract, limits, pace.batch_messages)
        self._clock = _Clock(pace, may_linger)
        self._next_read, self._pause = 0.0, threading.Event()
        self._rewound = False

    def __enter__(self) -> Reads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.close()

    def groups(self, tables: Callable[[], Tables]) -> Iterator[Group]:
        """Yield groups until the run is over. One without batches says that the run has caught up and stays.

        Args:
            tables: Opens the rejected and the good table; the good one's position says where to read.
        """
        known: list[str] = []
        while not self._stopping():
            cursors = self._ahead.cursors()
            if cursors != known:  # there is more to read than before
                known = cursors
                self._clock.something_came()
            if self._clock.caught_up():
                yield Group()
            if self._clock.over():
                return
            self._pause.wait(max(0.0, self._next_read - time.monotonic()))
            asked = time.monotonic()
            opened, most = None, self._pace.commit_batches
            if not self._ahead.running:
                opened, most = tables(), 1
                read = self._ahead.read(opened[1].position(cursors), self._clock.wait_seconds())
            elif (taken := self._ahead.taken()) is not None:
                read = taken
                del taken
            else:
                continue  # all was taken: the source may have other cursors by now
            self._report(read.batch)
            if read.checked is not None and self._stopping():  # said while the source was waited for
                return self.hand_back()
            if read.checked is None:
                self._clock.nothing_came(asked)
                if read.batch.refused:
                    yield Group(refused=read.batch.refused)
                    self._clock.something_came()
                continue
            if self._source.replayable and len(read.batch) >= self._pace.batch_messages:
                self._ahead.start(read.after, self._clock.quick_seconds)
            group = Group(self._together(read, most), opened, self._pace.batch_messages)
            del read, opened  # not to be held while more is waited for
            yield group
            if self._rewound:
                self._rewound = False
                continue
            self._next_read = 0.0 if group.full else asked + self._pace.batch_seconds
            self._clock.landed()

    def _together(self, first: Read, most: int) -> Iterator[Read]:
        """Yield a read, and those that were read ahead and are there in time."""
        until = time.monotonic() + _COMMIT_SECONDS
        read: Read | None = first
        del first
        for _ in range(most - 1):
            assert read is not None
            yield read
            del read  # not to be held while more is waited for
            if self._stopping() or (read := self._ahead.more(until - time.monotonic())) is None:
                return
            self._report(read.batch)
        assert read is not None
        yield read

    def acknowledge(self, group: Group) -> None:
        """Tell the source that a group has landed: at once, or after the read that is under way."""
        assert group.batch is not None
        self._ahead.acknowledge(group.batch)

    def rewind(self) -> None:
        """Forget what was read ahead: another writer was first, and its positions say where to read."""
        self._ahead.stop()
        self._rewound = True

    def hand_back(self) -> None:
        """Give back messages that were read and have not landed, so that others may land them now."""
        self._ahead.stop()
        self._source.close()

    def _report(self, batch: MicroBatch) -> None:
        for gap in batch.gaps:
            log.error("%s lost messages before they were read: offsets %s", self._source.name, gap)
        for problem in batch.refused:
            log.error("%s", problem)


class _Clock:
    """Tell when a run ends, and how long its reads wait."""

    def __init__(self, pace: Pace, may_linger: Callable[[], bool]) -> None:
        self.pace, self._may_linger = pace, may_linger
        self._started: float | None = None
        self._idle_since: float | None = None
        self._lingers = False
        #: A read waits so long for the first message where more may well come, s.
        self.quick_seconds = min(1.0, pace.idle_seconds)

    def nothing_came(self, since: float) -> None:
        """Note that a read that began then gave no messages."""
        self._idle_since = self._idle_since or since

    def something_came(self) -> None:
        """Note messages, or more to read than before."""
        self._idle_since = None

    def landed(self) -> None:
        """Note that a batch has landed."""
        self._idle_since, self._started = None, self._started or time.monotonic()

    def over(self) -> bool:
        """Tell whether the run ends now."""
        return self._left() <= 0

    def caught_up(self) -> bool:
        """Tell whether the run stays from now on: true once."""
        pace, quiet = self.pace, self._quiet()
        if self._lingers or quiet < pace.idle_seconds or pace.linger_seconds <= pace.idle_seconds:
            return False
        self._lingers = self._may_linger()
        return self._lingers

    def wait_seconds(self) -> float:
        """Say how long a read waits for the first message, with which it returns: long where few come."""
        if self._lingers:
            return min(_LONG_POLL_SECONDS, max(1.0, self._left()))
        return self.quick_seconds

    def _quiet(self) -> float:
        return 0.0 if self._idle_since is None else time.monotonic() - self._idle_since

    def _left(self) -> float:
        pace, left = self.pace, float("inf")
        if self._idle_since is not None:
            left = (pace.linger_seconds if self._lingers else pace.idle_seconds) - self._quiet()
        if self._started is not None and pace.max_seconds:
            left = min(left, self._started + pace.max_seconds - time.monotonic())
        return left
