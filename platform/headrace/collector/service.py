"""Answer requests: from a path to a route, from its drafts through the door, to the answer of its protocol."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from headrace.collector.about import Client
from headrace.collector.access import Access, secret_of
from headrace.collector.base import Claim, Event, Refused, Seen, Taken, Takes
from headrace.collector.http import Request, Response, plain_body, refusal
from headrace.collector.keys import Key
from headrace.collector.meters import Meters
from headrace.collector.prepare import Target
from headrace.collector.receipts import receipt
from headrace.collector.routes import cloudevents, native, otlp, posthog, segment
from headrace.collector.routes.base import Parsed, Result, Route

log = logging.getLogger(__name__)

#: Seconds after which one may come again.
_AGAIN_SECONDS = 5
#: Longest id of a request that a client may choose.
_MOST_REQUEST_ID = 100
_METHODS = "GET, POST, OPTIONS"
_HEADERS = "authorization, content-type, content-encoding, idempotency-key, x-write-key, x-api-key, x-sent-at"

#: Routes that take events, by path without a slash at its end.
TAKING: dict[str, Route] = {
    "/v1/analytics/track": native.TRACK,
    "/v1/analytics": native.TRACK,
    "/analytics": native.TRACK,
    "/v1/measurements": native.MEASUREMENTS,
    "/v1/metrics/record": native.MEASUREMENTS,
    "/v1/batch": segment.BATCH,
    "/v1/import": segment.BATCH,
    "/beacon/v1/batch": segment.BATCH,
    **{f"/v1/{kind}": route for kind, route in segment.CALLS.items()},
    "/v1/t": segment.CALLS["track"],
    "/v1/p": segment.CALLS["page"],
    "/v1/i": segment.CALLS["identify"],
    "/v1/g": segment.CALLS["group"],
    "/v1/a": segment.CALLS["alias"],
    "/batch": posthog.CAPTURE,
    "/capture": posthog.CAPTURE,
    "/e": posthog.CAPTURE,
    "/i/v0/e": posthog.CAPTURE,
    "/v1/metrics": otlp.EXPORT,
    "/v1/cloudevents": cloudevents.EVENT,
    "/": cloudevents.EVENT,
}
#: The same for GET.
TAKING_BY_GET: dict[str, Route] = {"/v1/pixel.gif": native.PIXEL, "/v1/pixel": native.PIXEL}

Handler = Callable[[Request], Awaitable[Response]]
Reply = Callable[[Response], None]


class Streams(Protocol):
    """The streams that may be sent to."""

    @property
    def targets(self) -> Mapping[str, Target]:
        """The streams by name."""

    @property
    def missing(self) -> Collection[str]:
        """Streams that there are, but that cannot be sent to here at the moment."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a request may hold.

    Attributes:
        body: Most bytes of its body, decompressed.
        event: Most bytes of an event.
        events: Most events.
    """

    body: int = 4 << 20
    event: int = 131_072
    events: int = 10_000


class Service:
    """The collector behind any server. For one loop.

    Args:
        door: Takes the events.
        streams: The streams, which may change meanwhile.
        access: Lets requests in.
        client: Says what is known of clients.
        meters: Counts requests.
        log_id: Id of the log, for receipts.
        sizes: What a request may hold.
        pages: Answers to everything that takes no events, by method and path; a path that ends with ``/``, but for the
            root, is the beginning of longer ones.
    """

    def __init__(
        self,
        door: Takes,
        streams: Streams,
        access: Access,
        client: Client,
        meters: Meters,
        log_id: str,
        sizes: Sizes,
        pages: Mapping[tuple[str, str], Handler],
    ) -> None:
        self._door, self._streams, self._access = door, streams, access
        self._client, self._meters, self._log_id, self.sizes = client, meters, log_id, sizes
        self._pages = pages
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request) -> Response:
        """Answer a request; never raises but for a defect of the answer itself."""
        told: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.handle(request, told.set_result)
        return await told

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer a request by one call of ``reply``, now or, once its events are durable, later.

        No task is made for what takes events: most of what this process does is that.
        """
        began = time.perf_counter()
        path = request.path.rstrip("/") or "/"
        route = self._route(request, path)

        def say(response: Response) -> None:
            name = route.name if route else "page"
            self._meters.request(name, response.status, time.perf_counter() - began)
            if (origin := request.headers.get("origin")) is not None:
                self._cross_origin(request, origin, response)
            reply(response)

        if route is not None:
            self._take(request, route, say)
        elif request.method == "OPTIONS":
            say(Response(204, content_type=""))
        else:
            task = asyncio.get_running_loop().create_task(self._paged(request, path, say))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _paged(self, request: Request, path: str, say: Reply) -> None:
        try:
            response = await self._page(request, path)
        except Exception as error:
            response = _failed(request, None, error)
        say(response)

    @staticmethod
    def _route(request: Request, path: str) -> Route | None:
        if request.method == "GET":
            return TAKING_BY_GET.get(path)
        if request.method != "POST":
            return None
        found = TAKING.get(path)
        return cloudevents.EVENT if found is None and cloudevents.is_one(request) else found

    async def _page(self, request: Request, path: str) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        found = self._pages.get((method, path))
        if found is None:
            longer = [
                p
                for (m, p) in self._pages
                if m == method and len(p) > 1 and p.endswith("/") and path.startswith(p)
            ]
            found = self._pages[method, max(longer, key=len)] if longer else None
        if found is not None:
            return await found(request)
        known = {m for m, p in self._pages if p == path}
        known |= {"POST"} if path in TAKING else set()
        known |= {"GET"} if path in TAKING_BY_GET else set()
        if not known:
            raise Refused(404, f"there is no {path[:100]}; /docs lists what there is")
        response = refusal(
            Refused(405, f"{path} takes {', '.join(sorted(known))}, not {request.method[:20]}")
        )
        response.headers["allow"] = ", ".join(sorted(known))
        return response

    def _take(self, request: Request, route: Route, say: Reply) -> None:
        """Hand the events of a request to the door, which answers once they are durable."""

        def told(taken: Taken | Refused) -> None:
            if isinstance(taken, Refused):
                say(_failed(request, route, taken))
                return
            try:
                result = Result(taken.outcomes, receipt(self._log_id, taken.numbers), parsed)
                response = (parsed.answer or route.answer)(request, result)
            except Exception as error:
                response = _failed(request, route, error)
            say(response)

        try:
            parsed, events, claims = self._read(request, route)
            self._door.take(events, told, claims)
        except Exception as error:
            say(_failed(request, route, error))

    def _read(self, request: Request, route: Route) -> tuple[Parsed, list[Event], list[Claim]]:
        """Read a request up to its events, after everything that could refuse it.

        Raises:
            Refused: Nothing of it is taken.
        """
        key = None if route.keyed_in_body and not secret_of(request) else self._access.key(request)
        body = plain_body(request, self.sizes.body)
        if route.text and not body.isascii():
            _utf8(body)
        parsed = route.parse(request, body)
        if key is None:
            key = self._access.key(request, parsed.secret)
        return parsed, *self._events(request, parsed, key)

    def _events(self, request: Request, parsed: Parsed, key: Key) -> tuple[list[Event], list[Claim]]:
        """Make the events of a request, after everything that could refuse it, and say for whom they count.

        Raises:
            Refused: Nothing of it is taken.
        """
        drafts, sizes = parsed.drafts, self.sizes
        if not drafts:
            raise Refused(400, "there is no event in the body")
        if len(drafts) > sizes.events:
            raise Refused(413, f"{len(drafts):,} events are more than {sizes.events:,}; send fewer at a time")
        streams = {draft.stream for draft in drafts}
        targets = {stream: self._target(stream) for stream in streams}
        claims = self._access.admit(request, key, streams, len(drafts))
        headers = request.headers
        about = self._client.about(headers.get("user-agent", ""), self._access.address(request))
        request_id = headers.get("idempotency-key", "")
        if len(request_id) > _MOST_REQUEST_ID:
            raise Refused(400, f"the idempotency key is longer than {_MOST_REQUEST_ID} characters")
        seen = Seen(datetime.now(UTC), key.name, parsed.sent, about, request_id)
        most = min([sizes.event, *(one.longest for one in targets.values() if one.longest is not None)])
        if len(targets) == 1:
            events = targets[drafts[0].stream].events(drafts, seen)
        else:
            events = [targets[draft.stream].event(draft, seen, n) for n, draft in enumerate(drafts)]
        for place, event in enumerate(events):
            if len(event.payload) > most:
                raise Refused(
                    413,
                    f"event {place} has {len(event.payload):,} bytes, more than {most:,}; nothing was taken",
                )
        return events, claims

    def _target(self, stream: str) -> Target:
        target = self._streams.targets.get(stream)
        if target is None:
            if stream in self._streams.missing:
                raise Refused(503, f"stream {stream!r} does not load here at the moment", _AGAIN_SECONDS)
            known = ", ".join(sorted(self._streams.targets)) or "none that have a topic"
            raise Refused(400, f"there is no stream {stream[:80]!r}; there are {known}")
        return target

    def _cross_origin(self, request: Request, origin: str, response: Response) -> None:
        """Let a page of an allowed origin read the answer."""
        response.headers["vary"] = "origin"
        if not self._access.allowed(origin):
            return
        headers = {
            "access-control-allow-origin": origin,
            "access-control-allow-credentials": "true",  # beacons always ask for it
            "access-control-expose-headers": "retry-after, headrace-receipt",
        }
        if request.method == "OPTIONS":
            asked = request.headers.get("access-control-request-headers", _HEADERS)
            headers |= {
                "access-control-allow-methods": _METHODS,
                "access-control-allow-headers": asked,
                "access-control-max-age": "7200",
            }
        response.headers.update(headers)


def _failed(request: Request, route: Route | None, error: Exception) -> Response:
    """Return the answer to a request that was refused, or met a defect."""
    if isinstance(error, Refused):
        return (route.refuse if route and route.refuse else _refused)(request, error)
    log.error("%s %s could not be answered", request.method, request.path[:100], exc_info=error)
    return refusal(Refused(503, "the collector has a defect, which its log names", _AGAIN_SECONDS))


def _refused(request: Request, refused: Refused) -> Response:
    return refusal(refused)


def _utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 at byte {error.start}; nothing of it was taken") from None
