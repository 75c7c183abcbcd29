"""Put together what speaks to clients: routes, keys and limits in front of a door, wherever its log is."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from headrace.collector.about import Client
from headrace.collector.access import Access, Policy
from headrace.collector.base import Admits, Takes
from headrace.collector.keys import Keys
from headrace.collector.meters import Meters
from headrace.collector.reload import Streams
from headrace.collector.routes.operation import Operation, State
from headrace.collector.service import Service, Sizes
from headrace.collector.topics import QUEUE_BYTES
from headrace.collector.wire import Bounds

if TYPE_CHECKING:
    from headrace.config.settings import Settings

#: Bytes of an entry with several events: what a damaged place of the disk can take with it, at most.
_MESSAGE_BYTES = 131_072


def message_bytes(settings: Settings) -> int:
    """Return the longest payload of an entry with several events."""
    return min(settings.max_message_bytes // 2, QUEUE_BYTES, _MESSAGE_BYTES)


def bounds(settings: Settings) -> Bounds:
    """Return what a connection may hold."""
    return Bounds(settings.collector_body_bytes, settings.collector_body_seconds)


def service(
    settings: Settings,
    streams: Streams,
    door: Takes,
    state: State,
    meters: Meters,
    log_id: str,
    rated: Admits | None = None,
) -> Service:
    """Make the service.

    Args:
        settings: What may be sent.
        streams: The streams.
        door: Takes the events.
        state: Says how the collector is.
        meters: Counts requests.
        log_id: Id of the log, for receipts.
        rated: Judges who sends too fast; None for who counts by itself.
    """
    from headrace.collector import description

    @lru_cache(1)
    def as_of(loads: int) -> dict[str, Any]:
        return description.described(dict(streams.targets))

    def described() -> dict[str, Any]:
        return as_of(streams.loads)

    policy = Policy(
        settings.collector_anonymous,
        frozenset(settings.collector_origins),
        settings.collector_key_rate,
        settings.collector_address_rate,
        settings.collector_proxies,
    )
    access = Access(Keys(settings.collector_keys_file), policy, rated)
    operation = Operation(log_id, state, access, described, lambda: description.page(described()))
    sizes = Sizes(
        settings.collector_body_bytes,
        min(settings.collector_event_bytes, settings.max_message_bytes),
        settings.collector_batch_events,
    )
    client = Client(settings.collector_address, settings.collector_user_agent)
    return Service(door, streams, access, client, meters, log_id, sizes, operation.pages)
