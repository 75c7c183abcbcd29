"""The interface that every source implements."""

from __future__ import annotations

from typing import Protocol

from headrace.core.batch import Backlog, MicroBatch, Position


class Source(Protocol):
    """Deliver the messages that wait in a topic, a queue or a folder.

    A source never decides which messages have landed. ``read`` is given the position from the lake's log.
    ``acknowledge`` follows the commit. If the process dies between the two, the source delivers the same messages
    again, and the lake drops those that it holds.

    Attributes:
        name: Kind and name of the source, e.g. ``kafka/analytics_events``.
        replayable: Whether ``read`` returns the same messages again for the same position, acknowledged or not. This
            is the source's guarantee: true for a log or a file, false for a queue, whose messages ``acknowledge``
            deletes.
    """

    name: str
    replayable: bool

    def cursors(self) -> list[str]:
        """List the cursors that can be read now; new partitions and files appear here.

        Raises:
            Fatal: The topic or queue does not exist.
            Retriable: The broker does not answer.
        """

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Read the next messages behind a position.

        An empty batch does not mark the end if ``cursors`` names more cursors than before it: read again.

        Args:
            after: Next offset to read, by cursor. A cursor that it lacks is read from its beginning.
            max_messages: Messages to return at most.
            wait_seconds: How long to wait for the first message.

        Returns:
            The messages; an empty batch if none arrived in time.
        """

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Tell the source that the lake holds a batch."""

    def backlog(self, after: Position, /) -> Backlog:
        """Count the messages that wait beyond a position, without consuming any."""

    def close(self) -> None:
        """Release connections; the source delivers unacknowledged messages again."""
