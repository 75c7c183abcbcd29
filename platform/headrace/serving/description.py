"""Describe the API as OpenAPI 3.1, and as a page to be read."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.metrics import WINDOWS, Catalogue
from headrace.serving.answers import TYPES
from headrace.serving.base import Services
from headrace.serving.headers import policy

_PROBLEMS = {
    "400": "The question is not possible; says which part, and the nearest right one",
    "401": "There is no valid read key",
    "403": "The key may not read",
    "421": "The server is called by a name that it does not know",
    "429": "Too many requests; come again after Retry-After",
    "503": "The warehouse is away, and there is no older answer; come again after Retry-After",
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color-scheme:light dark}"
    "td{padding:.2rem .8rem .2rem 0;vertical-align:top}"
)
_TEXT: dict[str, Any] = {"type": "string"}


def routes(services: Services) -> list[BaseRoute]:
    """Return ``/openapi.json`` and ``/docs``."""
    headers = {"content-security-policy": policy(_STYLE)}

    async def openapi(_request: Request) -> Response:
        return JSONResponse(described(services.answers.catalogue))

    async def docs(_request: Request) -> Response:
        return HTMLResponse(page(described(services.answers.catalogue)), headers=headers)

    return [Route("/openapi.json", openapi), Route("/docs", docs)]


def described(catalogue: Catalogue) -> dict[str, Any]:
    """Return the description of the API with these metrics."""
    names = list(catalogue.metrics)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace: numbers",
            "version": _version(),
            "description": "Every number of the warehouse, defined once. Times are UTC. Each answer says what it is"
            " made of; its ETag changes only if that does.",
        },
        "security": [{"bearer": []}, {"header": []}, {}],
        "paths": {
            "/v1/metrics": {"get": _operation("List every metric with its definition.", "Catalogue")},
            "/v1/metrics/{name}": {"get": _metric(names)},
            "/v1/overview": {
                "get": _operation(
                    "All numbers over a range, beside the period before.", "Overview", _range(), stale=True
                )
            },
            "/v1/live": {"get": _operation("The last 30 minutes, by the minute.", "Live", stale=True)},
            "/v1/stream": {"get": _stream(names)},
            "/healthz": {"get": _open("Whether the process lives.", "200")},
            "/readyz": {"get": _open("Whether the warehouse answers.", "200", "503")},
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": _schemas(),
        },
    }


def _parameter(name: str, said: str, schema: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": said, "schema": dict(schema), **more}


def _range() -> list[dict[str, Any]]:
    several = {"type": "array", "items": _TEXT}
    return [
        _parameter("from", "First moment: 2026-05-01, 2026-05-01T10:00, now-24h", _TEXT),
        _parameter("to", "End, which is not in it; a date is the end of that day", _TEXT),
        _parameter("filter", "dimension:value, again for each value", several, style="form", explode=True),
    ]


def _question() -> list[dict[str, Any]]:
    several = {"type": "array", "items": _TEXT}
    apart = {"style": "form", "explode": False}
    return [
        *_range(),
        _parameter("window", "Width of the rows", {"enum": list(WINDOWS)}),
        _parameter("dimensions", "Break down by these", several, **apart),
        _parameter("order", "Columns, with - in front for descending", several, **apart),
        _parameter("limit", "Most rows", {"type": "integer", "minimum": 1}),
        _parameter("compare", "Values of the period before, beside", {"enum": ["previous_period"]}),
    ]


def _metric(names: list[str]) -> dict[str, Any]:
    name = {"name": "name", "in": "path", "required": True, "schema": {"enum": names}}
    format_ = _parameter("format", "Form of the answer; else by Accept", {"enum": list(TYPES)})
    found = _operation("A metric over a range.", "Answer", [name, *_question(), format_], stale=True)
    content = found["responses"]["200"]["content"]
    content |= {kind.partition(";")[0]: {"schema": {}} for kind in list(TYPES.values())[1:]}
    return found


def _stream(names: list[str]) -> dict[str, Any]:
    asked = [
        _parameter("view", "What to listen to, without a metric", {"enum": ["live", "overview"]}),
        _parameter("metric", "A metric, with the parameters of its question", {"enum": names}),
        *_question(),
    ]
    found = _operation("New answers as server-sent events; an event's id is its version.", "Answer", asked)
    found["responses"]["200"]["content"] = {"text/event-stream": {"schema": _TEXT}}
    found["responses"].pop("304")
    return found


def _operation(
    said: str, schema: str, asked: list[dict[str, Any]] | None = None, *, stale: bool = False
) -> dict[str, Any]:
    headers = {name: {"schema": _TEXT} for name in ("ETag", "Headrace-Watermark")}
    if stale:
        headers |= {name: {"schema": _TEXT} for name in ("Headrace-Stale", "Age", "Warning")}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        "summary": said,
        "parameters": asked or [],
        "responses": {
            "200": {"description": "The answer", "headers": headers, "content": content},
            "304": {"description": "The client has it"},
            **{status: {"description": text, "content": problem} for status, text in _PROBLEMS.items()},
        },
    }


def _open(said: str, *statuses: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    answers = {status: {"description": said, "content": content} for status in statuses}
    return {"summary": said, "security": [], "responses": answers}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _schemas() -> dict[str, Any]:
    maybe = {"type": ["string", "null"]}
    stale = {"stale": {"type": "boolean"}, "age_seconds": {"type": "integer"}}
    rows = {"type": "array", "items": {"type": "object"}}
    made_of = _object(
        {
            "live": {"type": "boolean"},
            "published": {"type": "object"},
            "builds": {"type": "object"},
            "stale_days": {"type": "array", "items": _TEXT},
        }
    )
    answer = {
        "metric": _TEXT,
        "question": {"type": "object"},
        "columns": rows,
        "watermark": maybe,
        "fresh": {"type": "boolean"},
        "made_of": made_of,
        "rows": rows,
    }
    return {
        "Answer": _object(answer, stale),
        "Catalogue": _object({"metrics": rows}),
        "Overview": _object({"watermark": maybe, "metrics": rows}, stale),
        "Live": _object({"watermark": maybe, "from": _TEXT, "metrics": rows}, stale),
        "Problem": _object(
            {"title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT},
            {"field": _TEXT, "nearest": maybe, "choices": {"type": "array", "items": _TEXT}},
        ),
    }


def page(document: Mapping[str, Any]) -> str:
    """Return the description as a page."""
    rows = [
        f"<tr><td><code>GET</code></td><td><code>{escape(path)}</code></td><td>{escape(one['get']['summary'])}"
        f"<br><small>{escape(', '.join(p['name'] for p in one['get'].get('parameters', [])))}</small></td></tr>"
        for path, one in document["paths"].items()
    ]
    problems = "".join(
        f"<li><code>{status}</code>: {escape(said)}</li>" for status, said in _PROBLEMS.items()
    )
    info = document["info"]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        f"<p><a href=/openapi.json>OpenAPI 3.1</a>, <a href=/v1/metrics>the metrics</a></p>"
        f"<table>{''.join(rows)}</table><h2>Problems</h2><ul>{problems}</ul></html>"
    )


def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "0"
