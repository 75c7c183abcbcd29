"""Tell what a collector's log holds that the lake does not have, from outside: its collector may run, or be dead."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from headrace.collector.log.frames import heads
from headrace.collector.log.segments import Identity, identity_in, segments_in, within
from headrace.core.errors import Retriable
from headrace.core.lanes import cursor_of, spread
from headrace.streams.stream import Stream

#: Entries after which counting ends: who is so far behind needs no exact number.
MOST = 200_000


@dataclass(frozen=True, slots=True)
class Held:
    """What the lake lacks of a stream.

    Attributes:
        entries: How many acknowledged entries, which have some events each; ``MOST`` for that many or more.
        bytes: Bytes of them in the log.
        since: When the oldest of them was acknowledged (UTC); None if there are none.
    """

    entries: int = 0
    bytes: int = 0
    since: datetime | None = None


def held(stream: Stream) -> Held | None:
    """Tell what the lake lacks of a stream that the collector of this installation acknowledged.

    Returns:
        None if no collector has ever run with this home folder.

    Raises:
        Retriable: Log or lake cannot be read.
        Fatal: The log's identity is damaged.
    """
    folder = stream.settings.collector_folder / "log"
    if not folder.is_dir() or (identity := identity_in(folder)) is None:
        return None
    cursors = [cursor_of(identity.log, lane) for lane in range(identity.lanes)]
    position = stream.lake.good.open().position(cursors)
    landed = {lane: position[cursor] for lane, cursor in enumerate(cursors) if cursor in position}
    try:
        return beyond(folder, identity, stream.name, landed)
    except OSError as error:
        raise Retriable(f"the collector's log {folder} cannot be read: {error}; look at its disk") from error


def beyond(folder: Path, identity: Identity, stream: str, landed: Mapping[int, int]) -> Held:
    """Count a stream's entries in a log from the lanes' positions on.

    Args:
        folder: Folder of the log.
        identity: The log's.
        stream: Name of the stream.
        landed: Number behind the last entry that landed, by lane.

    Raises:
        OSError: The disk fails.
    """
    entries = size = 0
    since: int | None = None
    for _, path in segments_in(folder):
        for head in heads(_mapped(path)):
            lane = spread(head.number, identity.lanes)
            if head.stream != stream or head.number < landed.get(lane, 0):
                continue
            if within(head.number, identity.void):
                continue
            entries, size = entries + 1, size + head.bytes
            since = head.at if since is None else since
            if entries >= MOST:
                return Held(entries, size, _time(since))
    return Held(entries, size, _time(since))


def _time(since: int | None) -> datetime | None:
    return None if since is None else datetime.fromtimestamp(since, UTC)


def _mapped(path: Path) -> bytes:
    """Map a segment into memory; empty for one that was removed meanwhile."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # type: ignore[return-value]
    except (FileNotFoundError, ValueError):  # removed, or empty
        return b""
