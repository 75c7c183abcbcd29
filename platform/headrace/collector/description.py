"""Describe the routes: OpenAPI 3.1, and a page of the same."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from typing import Any

import msgspec

from headrace.collector.base import Outcome
from headrace.collector.prepare import Target
from headrace.collector.service import TAKING, TAKING_BY_GET
from headrace.contracts.schema import json_schema

_JSON = "application/json"
_SAID = {
    "track": "One event, or an array of events, of the stream `events`.",
    "measurements": "One measurement, or an array, of the stream `metrics`: counter, gauge or histogram.",
    "batch": "Records of any streams: `events`, `measurements`, `streams`; JSON lines with `?stream=NAME`. Also the"
    " batches of Segment's libraries.",
    "posthog": "PostHog's events.",
    "otlp_metrics": "OpenTelemetry's metrics (OTLP/HTTP), in protobuf or JSON.",
    "cloudevents": "CloudEvents 1.0: structured, batched or binary.",
    "pixel": "One event from the query, for pages without scripts: columns by name, others become properties.",
}
_REFUSALS = {
    "400": "malformed; nothing of it was taken",
    "401": "no valid write key",
    "403": "the key is not for this stream, or not for pages of this origin",
    "408": "the body did not come in time",
    "413": "too many bytes or events",
    "415": "unknown content type or encoding",
    "422": "another body has the same id; nothing was taken",
    "429": "too many events; see Retry-After",
    "503": "no room or no disk; see Retry-After",
}


def described(targets: Mapping[str, Target]) -> dict[str, Any]:
    """Return the OpenAPI description of a collector with some streams."""
    _, components = msgspec.json.schema_components([Outcome], ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = {
        **components,
        **{f"record.{name}": json_schema(target.contract) for name, target in targets.items()},
        "Answer": _answer(),
        "Status": {
            "type": "object",
            "description": "google.rpc.Status, as OpenTelemetry wants it",
            "required": ["message"],
            "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
        },
        "Error": {
            "type": "object",
            "required": ["status", "error", "message"],
            "properties": {
                "status": {"type": "integer"},
                "error": {"type": "string"},
                "message": {"type": "string"},
            },
        },
    }
    paths: dict[str, Any] = {}
    for path, route in TAKING.items():
        paths.setdefault(path, {})["post"] = _taking(path, route.name, targets)
    for path in TAKING_BY_GET:
        paths.setdefault(path, {})["get"] = _pixel(path)
    paths |= _pages()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace collector",
            "version": version("headrace"),
            "description": "A 2xx means: durable on this machine's disk, and it will be in lake and warehouse once.",
        },
        "security": [{"bearer": []}, {"basic": []}, {"header": []}, {"parameter": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "the write key as user"},
                "header": {"type": "apiKey", "in": "header", "name": "x-write-key"},
                "parameter": {"type": "apiKey", "in": "query", "name": "write_key"},
            },
        },
    }


def _answer() -> dict[str, Any]:
    counts = ("accepted", "repeated", "rejected", "conflicts")
    return {
        "type": "object",
        "required": ["receipt", *counts],
        "properties": {
            "receipt": {"type": "string", "description": "ask /v1/receipts/{id} how far the events are"},
            **{name: {"type": "integer", "minimum": 0} for name in counts},
            "events": {"type": "array", "items": {"$ref": "#/components/schemas/Outcome"}},
        },
    }


def _taking(path: str, name: str, targets: Mapping[str, Target]) -> dict[str, Any]:
    said = _SAID.get(name, f"A call of Segment's libraries: {name.removeprefix('segment_')}.")
    native = name in ("track", "measurements", "batch")
    success = "200" if name in ("posthog", "otlp_metrics") or name.startswith("segment_") else "202"
    answers: dict[str, Any] = {success: _content("all is durable", "Answer")}
    if name == "otlp_metrics":
        answers = {"200": {"description": "an ExportMetricsServiceResponse, with partial_success"}}
    if native:
        answers["207"] = _content("taken, but for the events in conflict", "Answer")
    if name == "batch":
        answers["200"] = _content("a batch of a compatible library is durable", "Answer")
    return {
        "operationId": f"post_{path.strip('/').replace('/', '_') or 'root'}",
        "summary": said,
        "requestBody": {"required": True, "content": _bodies(name, targets)},
        "responses": answers | _refusals(name),
    }


def _refusals(name: str) -> dict[str, Any]:
    found = {status: _content(text, "Error") for status, text in _REFUSALS.items()}
    if name == "otlp_metrics":  # what is refused before its body was read, is so in the usual way
        either = {"anyOf": [{"$ref": f"#/components/schemas/{one}"} for one in ("Status", "Error")]}
        for one in found.values():
            one["content"] = {_JSON: {"schema": either}, "application/x-protobuf": {}}
    return found


def _bodies(name: str, targets: Mapping[str, Target]) -> dict[str, Any]:
    anything = {"schema": {"type": "object"}}
    stream = {"track": "events", "measurements": "metrics"}.get(name)
    if stream is not None and stream in targets:
        of = {"$ref": f"#/components/schemas/record.{stream}"}
        schema: dict[str, Any] = {"anyOf": [of, {"type": "array", "items": of, "minItems": 1}]}
        return {_JSON: {"schema": schema}, "text/plain": {"schema": {"type": "string"}}}
    if name == "batch":
        lists = {
            stream: {"type": "array", "items": {"$ref": f"#/components/schemas/record.{stream}"}}
            for stream in targets
        }
        members: dict[str, Any] = {
            "events": lists.get("events", {"type": "array"}),
            "measurements": lists.get("metrics", {"type": "array"}),
            "streams": {"type": "object", "properties": lists, "additionalProperties": False},
            "sent_at": {"type": "string", "format": "date-time"},
            "write_key": {"type": "string"},
        }
        schema = {"type": "object", "properties": members, "additionalProperties": False}
        return {_JSON: {"schema": schema}, "application/x-ndjson": {"schema": {"type": "string"}}}
    if name == "otlp_metrics":
        return {"application/x-protobuf": {"schema": {"type": "string", "format": "binary"}}, _JSON: anything}
    if name == "cloudevents":
        many = {"schema": {"type": "array", "items": {"type": "object"}}}
        return {"application/cloudevents+json": anything, "application/cloudevents-batch+json": many}
    return {_JSON: anything}


def _pixel(path: str) -> dict[str, Any]:
    names = ("event_type", "session_id", "channel", "user_id", "device_id", "page_url", "e")
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]
    return {
        "operationId": f"get_{path.rsplit('/', 1)[1].replace('.', '_')}",
        "summary": _SAID["pixel"],
        "parameters": parameters,
        "responses": {
            "200": {"description": "a transparent picture; the event is durable"},
            **{status: _content(text, "Error") for status, text in _REFUSALS.items()},
        },
    }


def _content(said: str, schema: str) -> dict[str, Any]:
    found = {"description": said, "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}
    if said.endswith("Retry-After"):
        found["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return found


def _pages() -> dict[str, Any]:
    def page(said: str, *statuses: str, of: str = _JSON) -> dict[str, Any]:
        content = {of: {"schema": {} if of == _JSON else {"type": "string"}}}
        answers = {status: {"description": said, "content": content} for status in statuses}
        return {"get": {"summary": said, "security": [], "responses": answers}}

    receipt = page("How far the events of an answer are.", "200", "202", "400", "401", "404", "503")
    receipt["get"] |= {
        "security": [{"bearer": []}, {"basic": []}, {"header": []}, {"parameter": []}],
        "parameters": [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "wait", "in": "query", "schema": {"enum": ["topic", "lake", "warehouse"]}},
            {"name": "seconds", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 60}},
        ],
    }
    alive = page("Whether the process lives.", "200")
    return {
        "/v1/receipts/{id}": receipt,
        "/healthz": alive,
        "/v1/healthz": alive,
        "/health": alive,
        "/readyz": page("Whether it takes events.", "200", "503"),
        "/metrics": page("Measurements for Prometheus.", "200", of="text/plain"),
        "/openapi.json": page("This description.", "200"),
        "/docs": page("This description, to be read.", "200", of="text/html"),
    }


def page(document: Mapping[str, Any]) -> str:
    """Return the description as a page."""
    rows = [
        f"<tr><td><code>{method.upper()}</code></td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(one['summary'])}</td></tr>"
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    ]
    refusals = "".join(
        f"<li><code>{status}</code>: {escape(said)}</li>" for status, said in _REFUSALS.items()
    )
    info = document["info"]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
        "<meta name=viewport content='width=device-width'><style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem "
        "auto;max-width:60rem;padding:0 1rem}td{padding:.2rem .8rem .2rem 0;vertical-align:top}</style>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        f"<p><a href=/openapi.json>OpenAPI 3.1</a></p><table>{''.join(rows)}</table>"
        f"<h2>When nothing is taken</h2><ul>{refusals}</ul></html>"
    )
