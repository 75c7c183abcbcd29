"""How fields of other protocols become ours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    ExponentialHistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from headrace.collector.base import Draft, Refused
from headrace.collector.http import Request
from headrace.collector.routes import cloudevents, otlp, posthog, segment
from headrace.collector.routes.base import event_type, time_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def record(draft: Draft) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(draft.raw)
    return found


def test_a_segment_track() -> None:
    message = {
        "type": "track", "event": "Order Completed", "messageId": "m", "userId": 5, "anonymousId": "a",
        "timestamp": "2026-11-30T10:00:00.000Z", "originalTimestamp": "2026-11-30T09:59:59+01:00",
        "sentAt": "2026-11-30T10:00:01Z", "properties": {"total": 1}, "integrations": {"All": True},
        "context": {"page": {"url": "https://x.example/"}, "library": {"name": "analytics.js"}, "sessionId": 17},
    }  # fmt: skip
    assert record(segment.draft(message)) == {
        "event_id": "m", "event_type": "order_completed", "occurred_at": "2026-11-30T09:59:59+01:00",
        "session_id": "17", "user_id": "5", "device_id": "a", "channel": "web", "page_url": "https://x.example/",
        "properties": {
            "total": 1, "event": "Order Completed", "integrations": {"All": True}, "context": message["context"],
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    "message, channel",
    [
        ({"context": {"library": {"name": "analytics-python"}}}, "server"),
        ({"channel": "mobile"}, "mobile"),
        ({"context": {"os": {"name": "iOS"}}}, "mobile"),
        ({"context": {"page": {}}}, "web"),
        ({"channel": "server", "context": {"page": {}}}, "server"),
        ({}, "server"),
    ],
)
def test_the_channel_of_a_segment_message(message: dict[str, Any], channel: str) -> None:
    assert record(segment.draft({"type": "track", **message}))["channel"] == channel


def test_without_a_session_a_day_is_one() -> None:
    at = "2026-11-30T23:30:00-01:00"
    assert (
        record(segment.draft({"type": "page", "anonymousId": "a", "timestamp": at}))["session_id"]
        == "a/2026-12-01"
    )
    assert (
        record(segment.draft({"type": "page", "userId": "u", "timestamp": at}))["session_id"]
        == "u/2026-12-01"
    )
    assert "session_id" not in record(segment.draft({"type": "page", "timestamp": at}))


@pytest.mark.parametrize("message", [5, None, [], {}, {"type": "what"}, {"type": 5}])
def test_what_is_no_segment_message(message: Any) -> None:
    with pytest.raises(Refused, match="nothing"):
        segment.draft(message)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "event",
                "messageId",
                "userId",
                "timestamp",
                "context",
                "properties",
                "traits",
                "channel",
                "name",
                "anonymousId",
            ]
        ),
        JSON,
    )
)
def test_any_members_of_a_segment_message_make_a_record(message: dict[str, Any]) -> None:
    assert record(segment.draft({**message, "type": "track"}))["channel"] in ("web", "mobile", "server")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["uuid", "distinct_id", "timestamp", "properties", "other"]), JSON))
def test_any_members_of_a_posthog_event_make_a_record(message: dict[str, Any]) -> None:
    assert record(posthog.draft({**message, "event": "$pageview"}))["event_type"] == "page_view"


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["data", "time", "subject", "dataschema", "data_base64", "extra"]), JSON)
)
def test_any_members_of_a_cloudevent_make_a_record(message: dict[str, Any]) -> None:
    whole = {**message, "specversion": "1.0", "id": "1", "source": "s", "type": "t"}
    assert record(cloudevents.draft(whole))["event_id"] == "s#1"


def test_a_cloudevent_of_a_stream_is_its_data() -> None:
    whole = {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "t",
        "stream": "orders",
        "data": {"a": 1},
    }
    draft = cloudevents.draft(whole)
    assert (draft.stream, record(draft)) == ("orders", {"a": 1})


def test_a_long_id_of_a_cloudevent_becomes_a_digest() -> None:
    assert len(cloudevents.identity("s" * 200, "1")) == 64
    assert cloudevents.identity("s" * 200, "1") != cloudevents.identity("s" * 200, "2")


@pytest.mark.parametrize("lacking", ["specversion", "id", "source", "type"])
def test_a_cloudevent_has_its_attributes(lacking: str) -> None:
    whole = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}
    del whole[lacking]
    with pytest.raises(Refused, match=lacking):
        cloudevents.draft(whole)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("Order Completed", "order_completed"),
        ("$pageview", "pageview"),
        ("a.b:c-d_e", "a.b:c-d_e"),
        ("  42 things!", "things"),
        ("Ünïcode", "n_code"),
        ("★", "event"),
        ("", "event"),
        ("x" * 100, "x" * 64),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert event_type(name) == expected


@pytest.mark.parametrize(
    "value, expected",
    [
        ("2026-11-30T10:00:00Z", "2026-11-30T10:00:00+00:00"),
        ("2026-11-30T10:00:00", "2026-11-30T10:00:00+00:00"),
        (1_764_496_800_000, "2025-11-30T10:00:00+00:00"),
        ("yesterday", "yesterday"),
        ("", None),
        (None, None),
        (True, None),
        (10**30, str(10**30)),
    ],
)
def test_times(value: Any, expected: str | None) -> None:
    assert time_text(value) == expected


def exported(*metrics: Metric) -> list[dict[str, Any]]:
    whole = ExportMetricsServiceRequest()
    resource = whole.resource_metrics.add()
    attribute = resource.resource.attributes.add(key="service.name")
    attribute.value.string_value = "shop"
    resource.scope_metrics.add().metrics.extend(metrics)
    request = Request("POST", "/v1/metrics", "", {"content-type": otlp.PROTOBUF}, b"", "")
    return [record(draft) for draft in otlp.EXPORT.parse(request, whole.SerializeToString()).drafts]


NANOS = int(datetime(2026, 11, 30, 10, tzinfo=UTC).timestamp()) * 10**9


def test_a_sum_is_a_counter_only_if_it_never_falls() -> None:
    rising, falling = Metric(name="HTTP Requests", unit="1"), Metric(name="depth")
    rising.sum.is_monotonic = True
    rising.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    for one in (rising, falling):
        one.sum.data_points.append(NumberDataPoint(time_unix_nano=NANOS, as_int=3))
    first, second = exported(rising, falling)
    assert (first["name"], first["kind"], first["value"], first["unit"]) == (
        "http_requests",
        "counter",
        3.0,
        "1",
    )
    assert first["dimensions"] == {
        "service.name": "shop",
        "otel.temporality": "delta",
        "otel.name": "HTTP Requests",
    }
    assert (second["kind"], second["occurred_at"]) == ("gauge", "2026-11-30T10:00:00Z")


def test_the_id_of_a_point_is_of_its_series_and_time() -> None:
    def one(value: int, at: int, name: str = "a") -> str:
        metric = Metric(name=name)
        metric.gauge.data_points.append(NumberDataPoint(time_unix_nano=at, as_int=value))
        return str(exported(metric)[0]["metric_id"])

    assert one(1, NANOS) == one(1, NANOS) == one(2, NANOS)
    assert len({one(1, NANOS), one(1, NANOS + 1), one(1, NANOS, "b")}) == 3


def test_a_point_without_a_value_is_none() -> None:
    metric = Metric(name="a")
    metric.gauge.data_points.append(NumberDataPoint(time_unix_nano=NANOS, flags=1))
    assert exported(metric) == []


@settings(deadline=None)
@given(
    st.lists(
        st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-6),
        min_size=1,
        max_size=300,
    ),
    st.integers(-2, 8),
)
def test_buckets_of_an_exponential_histogram_count_what_lies_below(values: list[float], scale: int) -> None:
    point = ExponentialHistogramDataPoint(scale=scale, count=len(values), time_unix_nano=NANOS)
    for buckets, sign in ((point.positive, 1), (point.negative, -1)):
        places = [_index(v * sign, scale) for v in values if v * sign > 0]
        if places:
            buckets.offset = min(places)
            counts = [0] * (max(places) - min(places) + 1)
            for place in places:
                counts[place - min(places)] += 1
            if len(counts) > 200_000:
                return
            buckets.bucket_counts.extend(counts)
    point.zero_count = sum(v == 0 for v in values)
    metric = Metric(name="h")
    metric.exponential_histogram.data_points.append(point)
    found = [one for one in exported(metric) if one["name"] == "h_bucket"]
    assert found[-1]["dimensions"]["le"] == "+Inf" and found[-1]["value"] == len(values)
    assert len(found) <= 2 * 160 + 2
    for one in found[:-1]:
        bound = float(one["dimensions"]["le"])
        below = sum(v <= bound * (1 + 1e-9 * (1 if bound > 0 else -1)) for v in values)
        edge = sum(abs(v - bound) <= 1e-9 * abs(bound) for v in values)
        assert below - edge <= one["value"] <= below


def _index(value: float, scale: int) -> int:
    """The bucket of a value by the definition, base**index < value <= base**(index + 1), found by trying."""
    import math

    index = math.ceil(math.log2(value) * 2.0**scale) - 1
    while 2.0 ** (index * 2.0**-scale) >= value:
        index -= 1
    while 2.0 ** ((index + 1) * 2.0**-scale) < value:
        index += 1
    return index


@pytest.mark.parametrize(
    "content, body",
    [
        (otlp.PROTOBUF, b"\xff\xff"),
        ("application/json", b"{"),
        ("application/json", b"5"),
        ("text/plain", b""),
    ],
)
def test_what_is_no_export(content: str, body: bytes) -> None:
    request = Request("POST", "/v1/metrics", "", {"content-type": content}, body, "")
    with pytest.raises(Refused) as refused:
        otlp.EXPORT.parse(request, body)
    assert refused.value.status in (400, 415)
    answer = otlp.EXPORT.refuse(request, refused.value) if otlp.EXPORT.refuse else None
    assert answer is not None and answer.status == refused.value.status
