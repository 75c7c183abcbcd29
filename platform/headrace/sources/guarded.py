"""A source that is called through a guard, with retries and a circuit breaker."""

from __future__ import annotations

from headrace.core.batch import Backlog, MicroBatch, Position
from headrace.core.guard import Guard
from headrace.sources.base import Source


class GuardedSource:
    """Call another source through a guard. See ``headrace.sources.base.Source``."""

    def __init__(self, inner: Source, guard: Guard) -> None:
        """Wrap a source; what it guarantees stays as it is."""
        self._inner, self._guard = inner, guard
        self.name, self.replayable = inner.name, inner.replayable

    def cursors(self) -> list[str]:
        """List them, guarded."""
        return self._guard(self._inner.cursors)

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Read, guarded: reading again from the same position gives the same messages or more."""
        return self._guard(lambda: self._inner.read(after, max_messages, wait_seconds))

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Acknowledge, guarded: doing it twice changes nothing."""
        self._guard(lambda: self._inner.acknowledge(batch))

    def backlog(self, after: Position, /) -> Backlog:
        """Count what waits, guarded."""
        return self._guard(lambda: self._inner.backlog(after))

    def close(self) -> None:
        """Release connections, unguarded: this must not wait."""
        self._inner.close()
