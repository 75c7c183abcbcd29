"""What a source must be able to do."""

from __future__ import annotations

from typing import Protocol

from headrace.core.batch import Backlog, MicroBatch, Position


class Source(Protocol):
    """Somewhere that messages wait.

    A source never decides what has landed: ``read`` takes the position from the lake's log. ``acknowledge``
    comes after the commit; if the process dies before it, the same messages are read again and the lake drops
    those that it has.
    """

    name: str

    def cursors(self) -> list[str]:
        """Names of everything that can be read now; partitions and files that were added since appear here.

        Raises:
            Fatal: The topic or queue does not exist.
            Retriable: The broker does not answer.
        """

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Up to ``max_messages`` from ``after`` on, an empty batch if none came within ``wait_seconds``.

        An empty batch after which ``cursors`` names more than before is not the end: read again.

        A cursor that is absent from ``after`` is read from its beginning.
        """

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Tell the source that a batch has landed."""

    def backlog(self, after: Position, /) -> Backlog:
        """What waits beyond ``after``, without consuming anything."""

    def close(self) -> None:
        """Release connections; messages that were read and not acknowledged are handed out again."""
