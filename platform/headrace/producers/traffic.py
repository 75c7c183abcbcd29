"""Simulate lifelike traffic for a live platform: people on web, apps and chat, and machines that measure.

The messages of a moment depend on seed, rate and that moment alone, never on how calls divide the time. So
history and the present come from the same stream, and a run can be repeated. People follow the time of day. A
few percent of events come late, one percent come twice, and a few are malformed.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from random import Random

import msgspec

from headrace.producers.base import Chunk, Producer

LATE, TWICE, MALFORMED = 0.03, 0.01, 0.002
MAX_SESSION = 1_800  # seconds
MAX_LATENESS = 3_600
MAX_STEPS = 40
#: Mean events of a session, measured; a test verifies it.
EVENTS_PER_SESSION = 10.1
SLOT = 10  # seconds; the sessions that begin within them are drawn together
METRICS_EVERY = 10  # seconds
RESTART_EVERY = 6 * 3_600  # seconds: machines restart, and their counters begin again
SLICE = timedelta(minutes=10)  # of history, sent at once

_Step = tuple[tuple[str, ...], tuple[int, ...]]
#: Events that may follow an event, with weights; "" is the beginning and the end of the session.
_WEB: dict[str, _Step] = {
    "": (("page_view",), (1,)),
    "page_view": (("page_load",), (1,)),
    "page_load": (("page_view", "click", "search", "add_to_cart", "signup", ""), (30, 30, 12, 9, 2, 17)),
    "click": (("page_view", "click", "add_to_cart", ""), (60, 15, 10, 15)),
    "search": (("page_view", "search", ""), (75, 15, 10)),
    "add_to_cart": (("page_view", "purchase", ""), (50, 35, 15)),
    "purchase": (("page_view", ""), (30, 70)),
    "signup": (("page_view",), (1,)),
}
_MOBILE: dict[str, _Step] = {
    "": (("app_open",), (1,)),
    "app_open": (("screen_view",), (1,)),
    "screen_view": (("api_call",), (1,)),
    "api_call": (("screen_view", "tap", "search", "add_to_cart", ""), (38, 30, 8, 8, 16)),
    "tap": (("screen_view", "tap", "api_call", ""), (50, 20, 20, 10)),
    "search": (("api_call",), (1,)),
    "add_to_cart": (("screen_view", "purchase", ""), (50, 35, 15)),
    "purchase": (("screen_view", ""), (30, 70)),
}
_CHAT: dict[str, _Step] = {
    "": (("conversation_started",), (1,)),
    "conversation_started": (("message_sent",), (1,)),
    "message_sent": (("message_received",), (1,)),
    "message_received": (("message_sent", "message_received", "conversation_ended"), (65, 15, 20)),
    "conversation_ended": (("",), (1,)),
}
_CHANNELS = {"web": _WEB, "mobile": _MOBILE, "chat": _CHAT}
_SHARES = (0.6, 0.3, 0.1)
_PAGES = ("/", "/products", "/products/17", "/products/42", "/cart", "/checkout", "/help", "/blog/headwaters")
_SCREENS = ("Home", "Search", "Product", "Cart", "Checkout", "Profile")
_QUERIES = ("pump", "water wheel", "sluice gate", "turbine", "pipe 40 mm")
#: Median in ms and spread of the log-normal durations; the usual shape of latencies.
_DURATIONS = {"page_load": (850.0, 0.55), "api_call": (120.0, 0.7), "message_received": (1_900.0, 0.8)}
#: Changes that broken clients make, besides truncated payloads; the contract refuses each.
_CHANGES: tuple[dict[str, object], ...] = (
    {"channel": "fax"},
    {"duration_ms": -1},
    {"occurred_at": "yesterday"},
    {"event_id": None},
    {"properties": "none"},
)
_SPOILED = len(_CHANGES) + 1
_SOURCES = ("web-1", "web-2", "api-1", "api-2", "chat-1")


@dataclass(slots=True)
class Traffic:
    """The simulator.

    Attributes:
        seed: The same seed makes the same traffic.
        rate_per_second: Mean events per second over a day.
        zone: Time zone of the people's day.
    """

    seed: int
    rate_per_second: float
    zone: tzinfo = UTC
    _waiting: list[tuple[float, int, bytes, bytes]] = field(default_factory=list)
    _slot: int = 0
    _done: float = float("-inf")
    _wanted: float = 0.0
    _order: int = 0

    def between(self, start: datetime, end: datetime) -> tuple[Chunk, Chunk]:
        """Make all messages that are sent from ``start`` until before ``end``.

        Args:
            start: With a zone. A call continues where the last one ended; any other time starts anew.
            end: With a zone.

        Returns:
            Messages of ``events`` (keyed by session) and of ``metrics`` (arrays, keyed by source), in the order
                of sending. Starting anew makes 1.5 hours of traffic first, for the sessions under way.
        """
        first, last = start.timestamp(), end.timestamp()
        if not self._done <= first <= self._done + MAX_SESSION:
            # go back far enough for sessions under way and for late events of earlier ones
            self._waiting.clear()
            self._slot = math.floor(first / SLOT) - (MAX_SESSION + MAX_LATENESS) // SLOT - 1
        self._wanted, self._done = first, max(first, last)
        while self._slot * SLOT < last:
            self._begin_sessions(self._slot * SLOT)
            self._slot += 1
        payloads: list[bytes] = []
        keys: list[bytes | None] = []
        while self._waiting and self._waiting[0][0] < last:
            at, _, payload, key = heapq.heappop(self._waiting)
            if at >= first:
                payloads.append(payload)
                keys.append(key)
        return Chunk(payloads, keys), self._metrics(first, last)

    def _begin_sessions(self, second: int) -> None:
        rng = Random(f"{self.seed}/{self.rate_per_second}/{second}")
        events = SLOT * self.rate_per_second * self._rhythm(second)
        for _ in range(_poisson(rng, events / EVENTS_PER_SESSION)):
            for at, event in _session(rng, second + SLOT * rng.random()):
                self._send(rng, at, event)

    def _rhythm(self, second: int) -> float:
        """Return the share of the mean rate at a time of day: 0.3 before dawn, 1.7 in the afternoon, 1 on average."""
        local = datetime.fromtimestamp(second, self.zone)
        hour = local.hour + local.minute / 60
        return 1 + 0.7 * math.sin(2 * math.pi * (hour - 9) / 24)

    def _send(self, rng: Random, at: float, event: dict[str, object]) -> None:
        spoiled = rng.randrange(_SPOILED) if rng.random() < MALFORMED else None
        if rng.random() < LATE:
            at += min(60 * rng.lognormvariate(1.5, 1.0), MAX_LATENESS)
        again = at + rng.uniform(1, 60) if rng.random() < TWICE else at
        if again < self._wanted:
            return
        payload = msgspec.json.encode(event) if spoiled is None else _spoiled(spoiled, event)
        key = str(event["session_id"]).encode()
        self._push(at, payload, key)
        if again > at:
            self._push(again, payload, key)

    def _push(self, at: float, payload: bytes, key: bytes) -> None:
        self._order += 1
        heapq.heappush(self._waiting, (at, self._order, payload, key))

    def _metrics(self, first: float, last: float) -> Chunk:
        payloads: list[bytes] = []
        keys: list[bytes | None] = []
        tick = math.ceil(first / METRICS_EVERY) * METRICS_EVERY
        while tick < last:
            for source in _SOURCES:
                payloads.append(_reading(self.seed, source, tick, self._rhythm(tick)))
                keys.append(source.encode())
            tick += METRICS_EVERY
        return Chunk(payloads, keys)


def run_traffic(
    events: Producer,
    metrics: Producer,
    rate: float,
    stop: threading.Event,
    history: timedelta = timedelta(0),
    *,
    live: Producer | None = None,
    seed: int = 1,
    zone: tzinfo = UTC,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Send the past ``history`` at once, then continue in real time until ``stop`` is set.

    Args:
        events: Takes what people do.
        metrics: Takes what machines measure.
        rate: Events per second, on average over a day.
        stop: Ends the traffic.
        history: The past to send.
        live: Takes what people do after the past was sent; None for ``events``.
        seed: See ``Traffic``.
        zone: See ``Traffic``.
        now: Tells the time.

    Raises:
        Retriable: A broker is away; call again with new producers.
        Fatal: A broker refuses the messages.
    """
    traffic = Traffic(seed, rate, zone)
    begun = now()
    at = begun - history
    while not stop.is_set():
        present = at >= begun
        end = min(now() if present else begun, at + SLICE)
        people = live if live is not None and present else events
        for producer, chunk in zip((people, metrics), traffic.between(at, end), strict=True):
            if len(chunk):
                producer.send(chunk.payloads, chunk.keys)
            producer.flush()
        behind = now() - end
        at = end
        if behind < timedelta(seconds=1):
            stop.wait(1.0)


def _session(rng: Random, at: float) -> Iterator[tuple[float, dict[str, object]]]:
    """Make the events of one session with their times, in seconds since 1970."""
    channel = rng.choices(tuple(_CHANNELS), _SHARES)[0]
    session = f"{rng.getrandbits(64):016x}"
    person = rng.paretovariate(1.2)  # few come often, many come rarely
    user = f"user-{int(person * 7_919) % 5_000:04d}" if rng.random() < 0.6 else None
    base: dict[str, object] = {
        "session_id": session,
        "channel": channel,
        "device_id": f"device-{rng.getrandbits(32):08x}" if user is None else f"device-of-{user}",
    }
    if user is not None:
        base["user_id"] = user
    if channel == "chat":
        base["conversation_id"] = f"conversation-{session}"
    end = at + MAX_SESSION
    page, screen, kind = rng.choice(_PAGES), rng.choice(_SCREENS), ""
    for step in range(MAX_STEPS):
        kind = rng.choices(*_CHANNELS[channel][kind])[0]
        if not kind or at > end:
            return
        if kind == "page_view":
            page = rng.choice(_PAGES)
        elif kind == "screen_view":
            screen = rng.choice(_SCREENS)
        event = {
            "event_id": f"{session}-{step}",
            "event_type": kind,
            "occurred_at": _rfc3339(at),
            **base,
            "properties": _properties(rng, kind),
        }
        if channel == "web":
            event["page_url"] = page
        elif channel == "mobile":
            event["screen_name"] = screen
        if kind in _DURATIONS:
            median, spread = _DURATIONS[kind]
            event["duration_ms"] = round(median * rng.lognormvariate(0, spread), 1)
        yield at, event
        opens = kind in ("page_view", "screen_view")  # its loading events follow at once
        at += rng.uniform(0.1, 2) if opens else min(rng.expovariate(1 / 15), 240)


def _properties(rng: Random, kind: str) -> dict[str, object]:
    match kind:
        case "search":
            return {"query": rng.choice(_QUERIES), "results": rng.randrange(40)}
        case "add_to_cart":
            return {"product": rng.randrange(1, 100), "quantity": rng.choice((1, 1, 1, 2, 3))}
        case "purchase":
            return {"amount": round(rng.lognormvariate(3.6, 0.7), 2), "currency": "EUR"}
        case "api_call":
            return {"endpoint": rng.choice(("/v1/products", "/v1/cart", "/v1/search")), "status": 200}
        case "message_sent" | "message_received":
            return {"characters": 1 + int(rng.lognormvariate(4, 0.8))}
        case _:
            return {}


def _spoiled(choice: int, event: dict[str, object]) -> bytes:
    if choice == len(_CHANGES):
        return msgspec.json.encode(event)[:-20]
    return msgspec.json.encode({**event, **_CHANGES[choice]})


def _reading(seed: int, source: str, tick: int, rhythm: float) -> bytes:
    """Make one message: the measures of one machine at one moment. One in 500 has an invalid value."""
    rng = Random(f"{seed}/{source}/{tick}")
    up = (tick + 1_861 * _SOURCES.index(source)) % RESTART_EVERY
    busy = rhythm * rng.uniform(0.8, 1.2)
    measures: list[tuple[str, str, object, str]] = [
        ("http.requests", "counter", 12 * up + rng.randrange(100), "requests"),
        ("uptime", "counter", up, "s"),
        ("cpu.utilisation", "gauge", round(min(100.0, 35 * busy), 1), "percent"),
        ("memory.used", "gauge", 400_000_000 + 9_000 * up + rng.randrange(20_000_000), "bytes"),
        *(("http.latency", "histogram", round(45 * rng.lognormvariate(0, 0.6), 2), "ms") for _ in range(5)),
    ]
    if rng.random() < 1 / 500:
        measures[2] = ("cpu.utilisation", "gauge", "n/a", "percent")
    service, _, instance = source.partition("-")
    readings = [
        {
            "metric_id": f"{source}-{tick}-{place}",
            "name": name,
            "kind": kind,
            "value": value,
            "unit": unit,
            "source": source,
            "dimensions": {"service": service, "instance": instance},
            "occurred_at": _rfc3339(tick),
        }
        for place, (name, kind, value, unit) in enumerate(measures)
    ]
    return msgspec.json.encode(readings)


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _poisson(rng: Random, mean: float) -> int:
    """Draw from a Poisson distribution.

    Knuth's method (The Art of Computer Programming 2, 3.4.1), in steps small enough for ``exp``.
    """
    count = 0
    while mean > 0:
        part = min(mean, 500.0)
        mean -= part
        product = rng.random()
        limit = math.exp(-part)
        while product > limit:
            count += 1
            product *= rng.random()
    return count
