"""OpenTelemetry's metrics over HTTP (OTLP), in protobuf or JSON.

A data point becomes measurements: a sum a counter, a gauge a gauge, a histogram what Prometheus makes of it:
``_count``, ``_sum``, ``_min``, ``_max`` and cumulative buckets ``_bucket`` with the dimension ``le``. An exponential
histogram becomes the same, with the bounds that its scale gives
(https://opentelemetry.io/docs/specs/otel/metrics/data-model/). OTLP has no ids: the id of a point is a digest of what
it is of and when, so that an export which is repeated lands once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToJson, ParseError
from google.protobuf.json_format import Parse as parse_json
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from headrace.collector.base import Draft, Refused
from headrace.collector.http import JSON, Request, Response
from headrace.collector.routes.base import FILL, METRICS, Parsed, Result, Route, event_type

PROTOBUF = "application/x-protobuf"
_MOST_NAME, _MOST_TEXT = 128, 128
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CUMULATIVE, _DELTA = 2, 1
#: Buckets of an exponential histogram that are told apart; finer ones are merged by halving their scale.
_MOST_BUCKETS = 160
#: Flag of a point that says that there was nothing to measure.
_NO_VALUE = 1
#: Codes of google.rpc by status.
_CODES = {400: 3, 401: 16, 403: 7, 413: 3, 415: 3, 422: 3, 429: 8, 503: 14}
_encode = msgspec.json.Encoder().encode
_Sample = tuple[str, str, float, dict[str, str]]


def _parse(request: Request, body: bytes) -> Parsed:
    whole = ExportMetricsServiceRequest()
    try:
        if request.content_type == PROTOBUF:
            whole.ParseFromString(body)
        elif request.content_type == JSON:
            parse_json(body, whole, ignore_unknown_fields=True)
        else:
            raise Refused(415, f"metrics are {PROTOBUF} or {JSON}, not {request.content_type[:60]!r}")
    except (DecodeError, ParseError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"the body is no ExportMetricsServiceRequest: {str(error)[:300]}") from None
    drafts: list[Draft] = []
    items: list[int] = []
    for point, made in enumerate(_points(whole)):
        drafts += made
        items += [point] * len(made)
    return Parsed(drafts, items=items)


def _points(whole: Any) -> Iterator[list[Draft]]:
    """Yield the records of each data point."""
    for resource in whole.resource_metrics:
        of = _attributes(resource.resource.attributes)
        source = of.get("service.name", "otlp")[:_MOST_TEXT] or "otlp"
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                if kind is None:
                    continue
                data = getattr(metric, kind)
                temporality = getattr(data, "aggregation_temporality", 0)
                for point in data.data_points:
                    if point.flags & _NO_VALUE:
                        continue
                    about = {**of, **_attributes(point.attributes)}
                    if scope.scope.name:
                        about["otel.scope.name"] = scope.scope.name
                    if temporality == _DELTA:
                        about["otel.temporality"] = "delta"
                    name = event_type(metric.name, "unnamed", _MOST_NAME)
                    if name != metric.name:
                        about["otel.name"] = metric.name
                    samples = _SAMPLES[kind](data, name, point)
                    yield [_draft(one, metric.unit, source, about, point) for one in samples]


def _draft(sample: _Sample, unit: str, source: str, about: dict[str, str], point: Any) -> Draft:
    name, kind, value, more = sample
    dimensions = {**about, **more}
    at = _EPOCH + timedelta(microseconds=point.time_unix_nano // 1_000)
    members = {
        "name": name,
        "kind": kind,
        "value": value if math.isfinite(value) else str(value),  # which the contract rejects
        "source": source,
        "dimensions": dimensions,
        "occurred_at": at,
    }
    if unit:
        members["unit"] = unit[:32]
    identity = [name, source, sorted(dimensions.items()), point.time_unix_nano, point.start_time_unix_nano]
    members["metric_id"] = blake2b(_encode(identity), digest_size=16).hexdigest()
    return Draft(METRICS, _encode(members), FILL)


def _attributes(attributes: Iterable[Any]) -> dict[str, str]:
    return {one.key: _text(one.value) for one in attributes}


def _text(value: Any) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    found = getattr(value, kind)
    match kind:
        case "bool_value":
            return "true" if found else "false"
        case "array_value" | "kvlist_value":
            return str(MessageToJson(found, indent=None))
        case "bytes_value":
            return str(found.hex())
    return str(found)


def _number(point: Any) -> float:
    return float(point.as_int) if point.WhichOneof("value") == "as_int" else float(point.as_double)


def _gauge(data: Any, name: str, point: Any) -> list[_Sample]:
    return [(name, "gauge", _number(point), {})]


def _sum(data: Any, name: str, point: Any) -> list[_Sample]:
    # what goes up and down is no counter
    return [(name, "counter" if data.is_monotonic else "gauge", _number(point), {})]


def _histogram(data: Any, name: str, point: Any) -> list[_Sample]:
    return _bucketed(name, point, zip(point.explicit_bounds, point.bucket_counts))


def _exponential(data: Any, name: str, point: Any) -> list[_Sample]:
    return _bucketed(name, point, _exponential_buckets(point))


def _exponential_buckets(point: Any) -> Iterator[tuple[float, int]]:
    """Yield upper bound and count of each bucket, ascending."""
    positive, scale = _merged(point.positive, point.scale)
    negative, below = _merged(point.negative, point.scale)
    for index in sorted(negative, reverse=True):
        yield -_bound(index, below), negative[index]
    yield point.zero_threshold, point.zero_count
    for index in sorted(positive):
        yield _bound(index + 1, scale), positive[index]


def _merged(buckets: Any, scale: int) -> tuple[dict[int, int], int]:
    """Return counts by index and their scale, with neighbours merged until there are few of them."""
    counts = {buckets.offset + n: count for n, count in enumerate(buckets.bucket_counts) if count}
    while len(counts) > _MOST_BUCKETS:
        halved: dict[int, int] = {}
        for index, count in counts.items():
            halved[index >> 1] = halved.get(index >> 1, 0) + count
        counts, scale = halved, scale - 1
    return counts, scale


def _bound(index: int, scale: int) -> float:
    """Return ``base ** index``, where the base is ``2 ** 2 ** -scale``."""
    try:
        return float(2.0 ** (index * 2.0**-scale))
    except OverflowError:
        return math.inf


def _bucketed(name: str, point: Any, buckets: Iterable[tuple[float, int]]) -> list[_Sample]:
    found: list[_Sample] = [(f"{name}_count", "counter", float(point.count), {})]
    for field in ("sum", "min", "max"):
        if point.HasField(field):
            kind = "counter" if field == "sum" else "gauge"
            found.append((f"{name}_{field}", kind, float(getattr(point, field)), {}))
    total = 0
    for bound, count in buckets:
        total += count
        if math.isfinite(bound):
            found.append((f"{name}_bucket", "counter", float(total), {"le": f"{bound:.12g}"}))
    found.append((f"{name}_bucket", "counter", float(point.count), {"le": "+Inf"}))
    return found


def _summary(data: Any, name: str, point: Any) -> list[_Sample]:
    found: list[_Sample] = [
        (f"{name}_count", "counter", float(point.count), {}),
        (f"{name}_sum", "counter", float(point.sum), {}),
    ]
    quantiles = [
        (name, "gauge", one.value, {"quantile": f"{one.quantile:g}"}) for one in point.quantile_values
    ]
    return found + quantiles


_SAMPLES = {
    "gauge": _gauge,
    "sum": _sum,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "summary": _summary,
}


def _told(request: Request, result: Result) -> Response:
    """Say how many points were not taken as they are: a point counts as rejected if one of its records does."""
    message = ExportMetricsServiceResponse()
    wrong: dict[int, str] = {}
    for item, one in zip(result.parsed.items, result.outcomes, strict=True):
        if one.status == "conflict":
            wrong.setdefault(item, "another point of the same series and time was taken before")
        for reason in one.reasons[:1]:
            wrong.setdefault(item, f"{reason.column or 'record'} {reason.value[:80]!r} fails {reason.check}")
    if wrong:
        message.partial_success.rejected_data_points = len(wrong)
        message.partial_success.error_message = "; ".join(dict.fromkeys(wrong.values()))[:1_000]
    headers = {"headrace-receipt": result.receipt}
    if request.content_type == PROTOBUF:
        return Response(200, message.SerializeToString(), PROTOBUF, headers)
    return Response(200, MessageToJson(message, indent=None).encode(), JSON, headers)


def _refused(request: Request, refused: Refused) -> Response:
    """Say why a request was refused, as the specification wants it: a ``google.rpc.Status``."""
    status = Status(code=_CODES.get(refused.status, 2), message=str(refused))
    headers = {} if refused.retry_after is None else {"retry-after": str(refused.retry_after)}
    if request.content_type == PROTOBUF:
        return Response(refused.status, status.SerializeToString(), PROTOBUF, headers)
    return Response(refused.status, MessageToJson(status, indent=None).encode(), JSON, headers)


EXPORT = Route("otlp_metrics", _parse, _told, _refused, text=False)
