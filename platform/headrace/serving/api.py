"""Answer the metrics API: the catalogue, a metric, the overview, the last half hour."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from headrace.metrics import Catalogue, Metric, QuestionError
from headrace.serving import description, parameters, stream, views
from headrace.serving.answers import FORMATS, TYPES, Answered, Answers, Entry, Format, given, marked
from headrace.serving.base import Services
from headrace.serving.fast import Ready

#: Longest answer in JSON, and longest in any form that is kept, rows; longer ones are streamed.
JSON_ROWS, KEPT_ROWS = 100_000, 50_000
_PACKED_BYTES = 1_024
_VARY = "accept, accept-encoding"
#: Seconds for which an answer about a range that moves with time is taken for the next, too.
_MOVES_SECONDS = 1.0


def routes(services: Services) -> list[BaseRoute]:
    """Return the routes below ``/v1``, and the description of them."""
    api = _Api(services)
    return [
        Route("/v1/metrics", api.catalogue),
        Route("/v1/metrics/{name}", api.metric),
        Route("/v1/overview", api.overview),
        Route("/v1/live", api.live),
        *stream.routes(services),
        *description.routes(services),
    ]


class _Api:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._listed: tuple[Catalogue, bytes] | None = None

    async def catalogue(self, request: Request) -> Response:
        """List every metric with its definition."""
        parameters.read(request.scope["query_string"], ())
        answers = self._services.answers
        if self._listed is None or self._listed[0] is not answers.catalogue:
            every = [described(answers, one) for one in answers.catalogue.metrics.values()]
            self._listed = answers.catalogue, msgspec.json.encode({"metrics": every})
        return await plain(request, self._listed[1])

    async def metric(self, request: Request) -> Response:
        """Answer a question about a metric."""
        answers = self._services.answers
        asked = parameters.read(request.scope["query_string"])
        format = asked.format or parameters.accepted(request.headers.get("accept", ""))
        name = request.path_params["name"]
        question = asked.question(answers.catalogue, name)
        if format == "json" and question.limit > JSON_ROWS:
            wrong = f"it is more than {JSON_ROWS}, the most of JSON; ask for format=csv or arrow"
            raise QuestionError("limit", question.limit, wrong, nearest=str(JSON_ROWS))
        if question.limit > KEPT_ROWS and format != "json":
            return await self._streamed(name, asked, format)
        answered = await answers.answer(question, format, f"{name} {asked.text}")
        recent = self._services.recent
        if asked.moves:
            recent.note(
                f"{name} {format} {asked.text}",
                lambda: answers.answer(
                    asked.question(answers.catalogue, name), format, f"{name} {asked.text}"
                ),
            )
        response = of(request, answered.entry, answered)
        if not answered.stale:
            until = time.time() + 86_400
            if asked.moves:
                until = min(time.time() + _MOVES_SECONDS, (time.time() // 60 + 1) * 60)
            self._services.fast.keep(request.scope, self._ready(request, answered, until))
        return response

    def _ready(self, request: Request, answered: Answered, until: float) -> Ready:
        packed = packs(request, answered.entry)
        body = answered.entry.packed if packed else answered.entry.body
        return Ready(answered.digest, until, *_heads(answered.entry, len(body), packed), body)

    async def _streamed(self, name: str, asked: parameters.Asked, format: Format) -> Response:
        answers = self._services.answers
        question = asked.question(answers.catalogue, name)
        statement = answers.statement(question)
        opened = self._services.warehouse.stream(statement.sql, given(statement), FORMATS[format])
        parts = await opened.__aenter__()

        async def body() -> AsyncIterator[bytes]:
            try:
                async for part in parts:
                    yield part
            finally:
                await opened.__aexit__(None, None, None)

        file = f'attachment; filename="{name}.{format}"'
        return StreamingResponse(
            body(),
            media_type=TYPES[format],
            headers={"cache-control": "no-store", "content-disposition": file},
        )

    async def overview(self, request: Request) -> Response:
        """Answer with all numbers beside the period before."""
        known = ("from", "to", "filter")
        asked = parameters.read(request.scope["query_string"], known)
        single = {
            "from": "now-7d",
            "to": "now",
            **asked.single,
            "window": "all",
            "compare": "previous_period",
        }
        asked = parameters.Asked(single, {}, asked.filters, None)
        return await self._view(
            request, f"overview {asked.text}", lambda: views.overview(self._services.answers, asked)
        )

    async def live(self, request: Request) -> Response:
        """Answer with the last half hour by the minute."""
        parameters.read(request.scope["query_string"], ())
        return await self._view(request, "live", lambda: views.live(self._services.answers))

    async def _view(self, request: Request, name: str, make: Callable[[], Awaitable[views.Seen]]) -> Response:
        seen = await make()
        self._services.recent.note(name, make)
        more = {"headrace-watermark": seen.watermark} if seen.watermark else {}
        if seen.stale:
            more["headrace-stale"] = "true"
        return await plain(request, seen.body, seen.key, more)


def described(answers: Answers, metric: Metric) -> dict[str, Any]:
    """Return the definition of a metric."""
    catalogue = answers.catalogue
    return {
        "name": metric.name,
        "family": metric.family,
        "stream": metric.stream,
        "label": metric.label,
        "description": metric.description,
        "unit": metric.unit,
        "format": metric.format,
        "show": metric.show,
        "owner": metric.owner,
        "windows": catalogue.windows_of(metric),
        "dimensions": [
            {"name": d.name, "kind": d.kind, "label": d.label, "description": d.description}
            for d in catalogue.dimensions_of(metric).values()
        ],
    }


async def plain(
    request: Request, body: bytes, key: str | None = None, more: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON that is made here."""
    from hashlib import sha256

    entry = Entry(
        key or sha256(body).hexdigest()[:40], time.time(), TYPES["json"], gzip.compress(body, 1, mtime=0)
    )
    return of(request, entry, Answered(entry), more)


def packs(request: Request, entry: Entry) -> bool:
    """Tell whether an answer goes out compressed."""
    return len(entry.packed) >= _PACKED_BYTES and "gzip" in request.headers.get("accept-encoding", "")


def of(request: Request, entry: Entry, answered: Answered, more: Mapping[str, str] | None = None) -> Response:
    """Return the response of an answer: 304 if the client has it."""
    headers = dict(more or {}) | _named(entry)
    if answered.stale:
        headers |= {
            "headrace-stale": "true",
            "warning": '110 - "Response is Stale"',
            "age": str(answered.age),
        }
        body = entry.body
        if entry.kind == TYPES["json"]:
            body = marked(body, answered.age)
        return Response(body, 200, headers | {"etag": f'{etag(entry)[:-1]}-stale"'}, entry.kind)
    if fits(request.headers.get("if-none-match", ""), etag(entry)):
        return Response(None, 304, headers)
    if packs(request, entry):
        return Response(entry.packed, 200, headers | {"content-encoding": "gzip"}, entry.kind)
    return Response(entry.body, 200, headers, entry.kind)


def etag(entry: Entry) -> str:
    """Return the tag of an answer: what it is made of, and so weak."""
    return f'W/"{entry.key}"'


def fits(header: str, tag: str) -> bool:
    """Tell whether an ``If-None-Match`` names a tag."""
    return bool(header) and (header.strip() == "*" or tag in (one.strip() for one in header.split(",")))


def _named(entry: Entry) -> dict[str, str]:
    found = {"etag": etag(entry), "cache-control": "private, no-cache", "vary": _VARY}
    return found | ({"headrace-watermark": entry.watermark} if entry.watermark else {})


def _heads(
    entry: Entry, length: int, packed: bool
) -> tuple[str, list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Return tag, headers of an answer, and headers of a 304."""
    own = [(name.encode(), value.encode()) for name, value in _named(entry).items()]
    full = [(b"content-type", entry.kind.encode()), (b"content-length", b"%d" % length), *own]
    if packed:
        full.append((b"content-encoding", b"gzip"))
    return etag(entry), full, own
