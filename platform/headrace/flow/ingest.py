"""Read, validate, commit, acknowledge: how messages reach the lake, exactly once.

A source is told only after both commits. Catching up, the next batches are read and validated in threads while one is
written, and several go into one commit (``reads``). ``commit`` says what makes it exactly once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from headrace.contracts import Contract, Limits
from headrace.core.batch import Gap, Position
from headrace.flow.commit import Landed, StreamLake, Writer
from headrace.flow.reads import Pace, Reads
from headrace.lake import LakeTable
from headrace.sources import Source

log = logging.getLogger(__name__)


def ingest(
    source: Source,
    contract: Contract,
    lake: StreamLake[LakeTable],
    limits: Limits,
    pace: Pace,
    *,
    stopping: Callable[[], bool] = lambda: False,
    may_linger: Callable[[], bool] = lambda: True,
) -> Iterator[Landed]:
    """Drain a source into the lake, one commit at a time.

    Yields after each commit, and once without a message when it has caught up and stays: the caller may publish,
    report or stop there. The source has been told by then, or is told once the read that is under way is done. Three
    batches are in memory at most; what a commit gathers is Parquet by then. The source may fetch more ahead.

    Args:
        source: Where messages wait.
        contract: What their records should be.
        lake: Where they go.
        limits: What is accepted.
        pace: How the run proceeds.
        stopping: Asked before every read and after it; the run ends when it says so, and leaves what it has just read.
        may_linger: Asked before the run stays for what comes later.

    Raises:
        Retriable: A service is away; everything that was yielded is safe.
        Fatal: The topic, the queue or the storage needs a person.
    """
    if lost := lost_topics(source, lake):
        yield Landed(gaps=lost)
    writer = Writer(contract, lake, limits, replayable=source.replayable)
    with Reads(source, contract, limits, pace, stopping=stopping, may_linger=may_linger) as reads:
        for group in reads.groups(writer.tables):
            if group.empty:  # caught up, or nothing that can be read
                yield Landed(refused=group.refused)
                continue
            try:
                landed = writer.commit(group, group.tables)
            except BaseException:
                reads.hand_back()
                raise
            if landed is None:  # another writer was first
                reads.rewind()
                continue
            reads.acknowledge(group)
            yield landed


def lost_topics(source: Source, lake: StreamLake[LakeTable]) -> tuple[Gap, ...]:
    """Say what was lost with a topic that was deleted and created again, until the new one has landed rows."""
    cursors, table = source.cursors(), lake.good.open()
    if not cursors or table.position(cursors):
        return ()
    present = {cursor.rpartition("/")[0] for cursor in cursors}
    landed = table.below(f"{source.name}/")
    if any(cursor.rpartition("/")[0] in present for cursor in landed):
        return ()  # other partitions of the same topic
    lost = tuple(Gap(cursor, offset, None) for cursor, offset in landed.items())
    for gap in lost:
        log.error(
            "%s was deleted and created again since offset %d of %s landed: what it held beyond is lost, what the new"
            " one holds is read from its beginning",
            source.name,
            gap.first,
            gap.cursor,
        )
    return lost


def position_of(source: Source, lake: StreamLake[LakeTable]) -> Position:
    """Return how far a source has landed, by the lake's log."""
    cursors = source.cursors()
    return lake.good.open().position(cursors) if cursors else Position()
