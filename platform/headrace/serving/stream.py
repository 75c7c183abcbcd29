"""Tell listeners of every new answer by server-sent events: one answer a publication, however many listen."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from headrace.core.errors import HeadraceError
from headrace.serving import parameters, views
from headrace.serving.base import Services
from headrace.serving.parameters import Asked
from headrace.serving.problem import Problem

log = logging.getLogger(__name__)

MOST_LISTENERS = 1_000
_HEARTBEAT_SECONDS = 15.0
#: Shortest time between two events of a topic, s.
_APART = 0.2
_AFTER_FAILURE = 1.0
_RETRY_MS = 2_000
VIEWS = ("live", "overview")


@dataclass(frozen=True, slots=True)
class Event:
    """An event.

    Attributes:
        id: The version: equal for equal data. Empty for what has none.
        data: What is sent.
        name: Its type; empty for ``message``.
    """

    id: str
    data: bytes
    name: str = ""

    @property
    def wire(self) -> bytes:
        """The event as it goes out."""
        head = b"event: %b\n" % self.name.encode() if self.name else b""
        if self.id:
            head += b"id: %b\n" % self.id.encode()
        return head + b"".join(b"data: %b\n" % line for line in self.data.splitlines()) + b"\n"


class Topic:
    """Makes the events of one question, while somebody listens.

    Args:
        make: Makes the present event.
        services: Knows what the warehouse holds.
    """

    def __init__(self, make: Callable[[], Awaitable[Event]], services: Services) -> None:
        self._make, self._services = make, services
        self._listeners: set[asyncio.Queue[Event]] = set()
        self._latest: Event | None = None
        self._task: asyncio.Task[None] | None = None
        self.made = 0

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def listen(self) -> asyncio.Queue[Event]:
        """Return a queue of one place: who is slow gets the newest event."""
        queue: asyncio.Queue[Event] = asyncio.Queue(1)
        self._listeners.add(queue)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        elif self._latest is not None:
            queue.put_nowait(self._latest)
        return queue

    def leave(self, queue: asyncio.Queue[Event]) -> None:
        """End listening; nothing is asked once nobody is left."""
        self._listeners.discard(queue)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task, self._latest = None, None

    async def _run(self) -> None:
        away = False
        while True:
            held = self._services.versions.last
            seen = held.digest if held else ""
            try:
                event = await self._make()
                self.made += 1
                away = False
            except (HeadraceError, TimeoutError) as error:
                if not away:
                    self._send(Event("", msgspec.json.encode({"detail": str(error)}), "away"))
                away = True
                await asyncio.sleep(_AFTER_FAILURE)
                continue
            except Exception:  # a defect must not leave listeners without a word for ever
                log.exception("an event was not made")
                await asyncio.sleep(_AFTER_FAILURE)
                continue
            if self._latest is None or event.id != self._latest.id:
                self._latest = event
                self._send(event)
            await asyncio.sleep(_APART)
            try:
                async with asyncio.timeout(
                    60 - time.time() % 60 + 0.05
                ):  # a range that moves does so each minute
                    await self._services.versions.change(seen)
            except TimeoutError:
                pass

    def _send(self, event: Event) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)


class Hub:
    """The topics that are listened to, by what was asked."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.topics: dict[str, Topic] = {}

    def topic(self, name: str, make: Callable[[], Awaitable[Event]]) -> Topic:
        """Return a topic.

        Raises:
            Problem: Too many listen.
        """
        if sum(one.listeners for one in self.topics.values()) >= MOST_LISTENERS:
            raise Problem(
                503, f"{MOST_LISTENERS} listen already; come again later", headers={"retry-after": "10"}
            )
        return self.topics.setdefault(name, Topic(make, self._services))

    async def events(self, name: str, topic: Topic, seen: str) -> AsyncIterator[bytes]:
        """Yield the events of a topic as they go out, without the first if the client has seen it."""
        queue = topic.listen()
        ending = asyncio.create_task(self._services.ending.wait())
        try:
            yield b"retry: %d\n\n" % _RETRY_MS
            while not ending.done():
                getting = asyncio.create_task(queue.get())
                try:
                    await asyncio.wait(
                        (getting, ending), timeout=_HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    if getting.done():
                        event = getting.result()
                        if not event.id or event.id != seen:
                            yield event.wire
                        seen = event.id or seen
                    elif not ending.done():
                        yield b": still here\n\n"
                finally:
                    getting.cancel()
        finally:
            ending.cancel()
            topic.leave(queue)
            if not topic.listeners:
                self.topics.pop(name, None)


def routes(services: Services) -> list[BaseRoute]:
    """Return ``/v1/stream``."""
    hub = Hub(services)

    async def stream(request: Request) -> Response:
        name, make = _asked(services, request.scope["query_string"])
        topic = hub.topic(name, make)
        seen = request.headers.get("last-event-id", "")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(hub.events(name, topic, seen), 200, headers, "text/event-stream")

    return [Route("/v1/stream", stream)]


def _asked(services: Services, query: bytes) -> tuple[str, Callable[[], Awaitable[Event]]]:
    known = ("metric", "view", *(one for one in parameters.KNOWN if one != "format"))
    asked = parameters.read(query, known)
    single = dict(asked.single)
    metric, view = single.pop("metric", None), single.pop("view", None)
    asked = Asked(single, asked.lists, asked.filters, None)
    answers = services.answers
    if metric is not None and view is None:
        asked.question(answers.catalogue, metric)  # what is not possible is said before the stream begins
        text = f"{metric} {asked.text}"

        async def of_metric() -> Event:
            found = await answers.answer(asked.question(answers.catalogue, metric), asked=text)
            return Event(found.entry.key, found.entry.body)

        return text, of_metric
    from headrace.metrics import QuestionError
    from headrace.metrics.errors import nearest

    view = view or "live"
    if metric is not None or view not in VIEWS:
        raise QuestionError(
            "view",
            view,
            "there is no such view, or a metric is given, too",
            nearest=nearest(view, VIEWS),
            choices=VIEWS,
        )
    whole = {"from": "now-7d", "to": "now", **single, "window": "all", "compare": "previous_period"}
    over = Asked(whole, {}, asked.filters, None)

    async def of_view() -> Event:
        seen = await (views.live(answers) if view == "live" else views.overview(answers, over))
        return Event(seen.key, seen.body)

    return f"{view} {over.text if view == 'overview' else ''}", of_view
