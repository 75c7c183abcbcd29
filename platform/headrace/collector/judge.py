"""Judge events by their stream's contract, as ingestion will: in one batch, with the same code."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from headrace.collector.base import Event, Reason
from headrace.collector.prepare import Target
from headrace.contracts import check_batch
from headrace.core.batch import MicroBatch

log = logging.getLogger(__name__)

#: Reasons that an answer names, of each event.
_MOST_REASONS = 20
_REASONS = list[Reason]


def judge(targets: Mapping[str, Target], events: Sequence[Event], now: datetime) -> None:
    """Judge events that are not plain, and note in each why its contract rejects it.

    Args:
        targets: The streams by name.
        events: Events of any streams; the plain ones are passed over.
        now: The moment that their times are compared with (UTC).
    """
    by_stream: dict[str, list[Event]] = {}
    for event in events:
        if not event.plain:
            by_stream.setdefault(event.stream, []).append(event)
    for stream, odd in by_stream.items():
        _judge(targets[stream], odd, now)


def warm(targets: Mapping[str, Target]) -> None:
    """Judge an event of each stream that nobody sent: the first batch of a process loads compiled code, for seconds."""
    moment = datetime.now(UTC)
    judge(targets, [Event(name, b"{}", "", b"", False) for name in targets], moment)


def _judge(target: Target, events: list[Event], now: datetime) -> None:
    # each an array of one: so a value that is no object, or is itself an array, is judged as the element that it is
    payloads = [b"[" + event.payload + b"]" for event in events]
    batch = MicroBatch.of("http", payloads, cursor="http", offset=range(len(payloads)))
    checked = check_batch(target.contract, batch, batch_id="door", now=now, limits=target.limits)
    for place, reasons in checked.rejected.select("_offset", "reasons").iter_rows():
        events[place].reasons = msgspec.convert(reasons[:_MOST_REASONS], _REASONS)
    if target.plain is not None:
        target.plain.learn(checked.good)
