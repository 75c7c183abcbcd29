"""Land what a source holds, and publish it meanwhile: one ingest run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headrace.core.errors import Busy
from headrace.flow.commit import Landed
from headrace.flow.ingest import ingest
from headrace.flow.publish import Published, Publishing
from headrace.flow.reads import Pace
from headrace.streams.stream import Stream


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of a drain: what has landed and what is published so far, since it began."""

    landed: Landed
    published: Published


def drain(
    stream: Stream,
    source: str,
    pace: Pace | None = None,
    *,
    share: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
    may_linger: Callable[[], bool] = lambda: True,
) -> Iterator[Step]:
    """Land what a source holds and publish it in the background; yields after every commit and at the end.

    A run that stays for what comes later yields once more when it has caught up. A warehouse that is away, or a
    publisher that hangs, does not stop landing: publishing catches up, at the latest in the next run.

    Args:
        stream: Whose source.
        source: Its name.
        pace: How the run proceeds; None: as the settings say.
        share: Only this run's share of the source's partitions; None for all.
        stopping: Asked before every read and after it; the run ends when it says so, and leaves what it has just read.
        may_linger: Asked before the run stays for what comes later.

    Raises:
        Retriable: The source or the lake is away, or at the end the warehouse still is.
        Busy: At the end, another process has been publishing for too long.
    """
    landed = Landed()
    publishing = Publishing(stream.publish)
    try:
        for step in ingest(
            stream.guarded(source, share),
            stream.contract,
            stream.lake,
            stream.limits,
            pace or stream.pace,
            stopping=lambda: stopping() or publishing.failed(),
            may_linger=may_linger,
        ):
            landed += step
            publishing.more()
            yield Step(landed, publishing.published)
    finally:
        publishing.close()
    if isinstance(held := publishing.put_off, Busy):
        raise held  # it has been waited for already
    yield Step(landed, publishing.published + stream.publish())
