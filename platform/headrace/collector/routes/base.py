"""Define a route that takes events, and what several protocols share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from headrace.collector.base import STATUSES, Draft, Outcome, Refused
from headrace.collector.http import Request, Response

#: Names of Headrace's own streams, which the compatible routes fill.
EVENTS, METRICS = "events", "metrics"
#: What a record of a compatible route gets if it lacks it.
FILL = frozenset({"id", "time"})
MOST_NAME = 64
_STRANGE = re.compile(r"[^a-z0-9_.:-]+")
_TIME = msgspec.json.Decoder(datetime).decode
_encode = msgspec.json.Encoder().encode


class Parsed(msgspec.Struct, frozen=True):
    """What a request holds.

    Attributes:
        drafts: Its records, in order.
        sent: When it was sent, by the client's clock; None if it does not say.
        secret: Write key in its body; None for none.
        items: To which item of the request each draft belongs, where one item becomes several records.
        answer: Makes the answer instead of the route: two protocols may share a path.
    """

    drafts: list[Draft]
    sent: datetime | None = None
    secret: str | None = None
    items: Sequence[int] = ()
    answer: Callable[[Request, Result], Response] | None = None


class Result(msgspec.Struct, frozen=True):
    """What became of a request, for its answer.

    Attributes:
        outcomes: One per draft.
        receipt: Where one may ask how far its events are.
        parsed: What the request held.
    """

    outcomes: Sequence[Outcome]
    receipt: str
    parsed: Parsed


@dataclass(frozen=True, slots=True)
class Route:
    """A way to send events.

    Attributes:
        name: Name of the route in measurements.
        parse: Reads a request and its decompressed body.
        answer: Makes the answer.
        refuse: Makes the answer to a request that is refused; None for the usual one.
        keyed_in_body: Whether the write key may be in the body.
        text: Whether every body is text in UTF-8; if not, ``parse`` decides.
    """

    name: str
    parse: Callable[[Request, bytes], Parsed]
    answer: Callable[[Request, Result], Response]
    refuse: Callable[[Request, Refused], Response] | None = None
    keyed_in_body: bool = False
    text: bool = True


def count(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Count outcomes by status."""
    statuses = [one.status for one in outcomes]
    return {status: statuses.count(status) for status in STATUSES}


def decoded(decoder: msgspec.json.Decoder[Any], body: bytes | msgspec.Raw, what: str) -> Any:
    """Decode JSON.

    Raises:
        Refused: It is none, or of another form.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refused(400, f"the body is not what {what} takes: {error}; nothing of it was taken") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}; nothing of it was taken") from None


@lru_cache(8_192)
def event_type(name: str, otherwise: str = "event", most: int = MOST_NAME) -> str:
    """Return a name as the contracts write names: lower case, digits and _ . : -, beginning with a letter.

    Examples:
        ``Order Completed`` becomes ``order_completed``, ``$pageview`` becomes ``pageview``.
    """
    found = _STRANGE.sub("_", name.strip().lower()).strip("_").lstrip("0123456789_.:-")
    return found[:most] or otherwise


def time_text(value: Any) -> str | None:
    """Return a time of a client as the contracts write it; None if there is none, the text itself if it is no time.

    A time without a zone is taken for UTC. A number is taken for milliseconds since 1970.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value / 1_000, UTC).isoformat()
        except (ValueError, OverflowError, OSError):
            return str(value)
    if not isinstance(value, str) or not value:
        return None
    found = moment(value)
    return value if found is None else found.isoformat()


def moment(value: Any) -> datetime | None:
    """Return the time that a text or a number of milliseconds is, in UTC without a zone; None if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value / 1_000, UTC)
        except (ValueError, OverflowError, OSError):
            return None
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def record(members: Mapping[str, Any]) -> bytes:
    """Return members that have a value as a JSON object."""
    return _encode({name: value for name, value in members.items() if value is not None})


def text(value: Any) -> str | None:
    """Return an id of a client as text: libraries send numbers too; None for nothing."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(value)


def session(given: Any, person: str | None, device: str | None, time: str | None) -> str | None:
    """Return the session of an event; of a protocol without sessions, all that somebody does on one UTC day.

    Args:
        given: What the client says.
        person: Who it is.
        device: On which device.
        time: When it happened.
    """
    if (found := text(given)) is not None:
        return found
    whose = device or person
    if whose is None:
        return None
    at = moment(time) if time else None
    day = (at or datetime.now(UTC)).astimezone(UTC).date()
    return f"{whose[:100]}/{day}"
