"""Say how far entries of the log are, by the lake's positions of their lanes and by what was published."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headrace.collector.receipts import Stage
from headrace.core.errors import NotSet
from headrace.streams.stream import Stream

#: Seconds for which what the lake said is good enough: many may wait for receipts.
_FRESH_SECONDS = 0.25
#: Versions whose positions are remembered, by stream.
_REMEMBERED = 1_000


@dataclass(slots=True)
class _Seen:
    """What was seen of a stream: its lanes' positions as of versions, ascending, and the last version published."""

    at: float = 0.0
    versions: deque[tuple[int, Mapping[int, int]]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    published: int = -1


class LakeProgress:
    """Looks into lake and warehouse. For several threads, one at a time.

    Args:
        streams: The streams by name.
        lane_of: Lane of an entry by its number.
        cursors: Cursor of each lane in the lake.
        in_topic: Tells whether topic or queue have acknowledged an entry of a stream.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        lane_of: Callable[[int], int],
        cursors: Sequence[str],
        in_topic: Callable[[str, int], bool],
    ) -> None:
        self._streams, self._lane_of = dict(streams), lane_of
        self._cursors, self._in_topic = list(cursors), in_topic
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def follow(self, name: str, stream: Stream) -> None:
        """Look into lake and warehouse of a stream as it is now; it is closed in the end."""
        with self._lock:
            before, self._streams[name] = self._streams.get(name), stream
            self._seen.pop(name, None)
            if before is not None:
                before.close()

    def close(self) -> None:
        """Release every connection."""
        with self._lock:
            for stream in self._streams.values():
                stream.close()

    def stages(self, stream: str, numbers: Sequence[int], /) -> list[Stage]:
        """Return how far each entry of a stream is; one of a stream that is no more is as far as its topic.

        Raises:
            Retriable: Lake or warehouse do not answer.
        """
        if stream not in self._streams:
            return [Stage(stream, in_topic=self._in_topic(stream, number)) for number in numbers]
        with self._lock:
            seen = self._look(stream)
            return [self._stage(stream, number, seen) for number in numbers]

    def _stage(self, stream: str, number: int, seen: _Seen) -> Stage:
        lane = self._lane_of(number)
        version = next((v for v, positions in seen.versions if positions.get(lane, 0) > number), None)
        if version is None:
            return Stage(stream, in_topic=self._in_topic(stream, number))
        return Stage(stream, True, True, version, seen.published >= version)

    def _look(self, name: str) -> _Seen:
        """Look at a stream's lake and warehouse, unless that was done just now."""
        seen, stream = self._seen.setdefault(name, _Seen()), self._streams[name]
        if time.monotonic() - seen.at < _FRESH_SECONDS:
            return seen
        opened = stream.lake.good.open()
        if not seen.versions or seen.versions[-1][0] != opened.version:
            positions = opened.position(self._cursors)
            lanes = {n: positions[c] for n, c in enumerate(self._cursors) if c in positions}
            seen.versions.append((opened.version, lanes))
        try:
            seen.published = stream.published_version()
        except NotSet:
            seen.published = -1
        seen.at = time.monotonic()
        return seen
