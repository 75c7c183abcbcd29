"""Client libraries, unmodified, from their registry: what they sent is what the log holds, once."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from collector.server import Server, collector

COUNT = 60


class Sent:
    """A collector that runs for all tests of the file, and what came to it during one of them."""

    def __init__(self, server: Server) -> None:
        self.url, self.key, self._server = server.url, server.key, server
        self._before = len(server.records())

    def landed(self, stream: str = "events") -> list[dict[str, Any]]:
        """What has come since, of which nothing was rejected."""
        text = self._server.get("/metrics").decode()
        assert 'outcome="rejected"} 0' in text, text
        return [one for one in self._server.records(self._before) if one["stream"] == stream]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with collector(tmp_path_factory.mktemp("libraries")) as found:
        yield found


@pytest.fixture
def server(running: Server) -> Sent:
    return Sent(running)


def test_segment(server: Sent) -> None:
    import segment.analytics as analytics

    failed: list[Any] = []
    client = analytics.Client(
        server.key,
        host=server.url,
        on_error=lambda error, items: failed.append(error),
        gzip=True,
        upload_size=25,
    )
    for n in range(COUNT):
        client.track(f"u{n}", "Order Completed", {"revenue": n, "étoile": "★"})
    client.identify("u1", {"plan": "pro"})
    client.page("u1", "Docs", "Start", {"url": "https://example.com/"})
    client.screen("u1", "App", "Home")
    client.group("u1", "g1", {"size": 5})
    client.alias("u1", "u2")
    client.shutdown()
    assert not failed
    found = server.landed()
    assert len(found) == COUNT + 5 and len({one["event_id"] for one in found}) == COUNT + 5
    orders = [one for one in found if one["event_type"] == "order_completed"]
    assert sorted(one["properties"]["revenue"] for one in orders) == list(range(COUNT))
    assert {one["properties"]["event"] for one in orders} == {"Order Completed"}
    kinds = {one["event_type"] for one in found}
    assert kinds == {"order_completed", "identify", "page_view", "screen_view", "group", "alias"}
    assert (
        next(one for one in found if one["event_type"] == "page_view")["page_url"] == "https://example.com/"
    )
    assert timely(found)


def timely(found: list[dict[str, Any]]) -> bool:
    """Whether all happened about when they were received."""
    now = datetime.now(UTC)
    times = [datetime.fromisoformat(one[name]) for one in found for name in ("occurred_at", "received_at")]
    return all(abs(now - time) < timedelta(minutes=10) for time in times)


def test_rudderstack(server: Sent) -> None:
    import rudderstack.analytics as analytics

    client = analytics.Client(server.key, host=server.url, gzip=True)
    for n in range(COUNT):
        client.track(f"u{n}", "Order Completed", {"revenue": n})
    client.identify("u1", {"plan": "pro"})
    client.shutdown()
    found = server.landed()
    assert len(found) == COUNT + 1
    orders = [one for one in found if one["event_type"] == "order_completed"]
    assert sorted(one["properties"]["revenue"] for one in orders) == list(range(COUNT))
    assert timely(found)


def test_posthog(server: Sent) -> None:
    from posthog import Posthog

    client = Posthog(server.key, host=server.url, disable_geoip=True, gzip=True)
    for n in range(COUNT):
        client.capture("Order Completed", distinct_id=f"u{n}", properties={"revenue": n})
    client.capture("$pageview", distinct_id="u1", properties={"$current_url": "https://example.com/"})
    client.shutdown()
    found = server.landed()
    assert len(found) == COUNT + 1
    orders = [one for one in found if one["event_type"] == "order_completed"]
    assert sorted(one["properties"]["revenue"] for one in orders) == list(range(COUNT))
    assert (
        next(one for one in found if one["event_type"] == "page_view")["page_url"] == "https://example.com/"
    )
    assert timely(found)


def test_opentelemetry(server: Sent) -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
    from opentelemetry.sdk.resources import Resource

    results: list[MetricExportResult] = []

    class Exporter(OTLPMetricExporter):
        def export(self, *arguments: Any, **named: Any) -> MetricExportResult:
            results.append(super().export(*arguments, **named))
            return results[-1]

    exporter = Exporter(f"{server.url}/v1/metrics", headers={"authorization": f"Bearer {server.key}"})
    view = View(instrument_name="latency.fine", aggregation=ExponentialBucketHistogramAggregation())
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], Resource.create({"service.name": "shop"}), views=[view])
    meter = provider.get_meter("shop.meter")
    orders = meter.create_counter("orders", unit="1")
    queue = meter.create_up_down_counter("queue.depth")
    latency, fine = meter.create_histogram("latency", unit="ms"), meter.create_histogram("latency.fine")
    meter.create_observable_gauge("temperature", [lambda _: [_observed(21.5)]])
    for n in range(COUNT):
        orders.add(1, {"country": "DE" if n % 2 else "FR"})
        queue.add(1 if n % 3 else -1)
        latency.record(n)
        fine.record(n)
    assert provider.force_flush() is not False
    provider.shutdown()
    assert set(results) == {MetricExportResult.SUCCESS}
    found = server.landed("metrics")
    first: dict[tuple[str, str | None, str | None], dict[str, Any]] = {}
    for one in found:
        first.setdefault((one["name"], one["dimensions"].get("country"), one["dimensions"].get("le")), one)
    assert {one["source"] for one in found} == {"shop"} and all(one["metric_id"] for one in found)
    assert first["orders", "DE", None]["value"] == first["orders", "FR", None]["value"] == COUNT / 2
    assert (
        first["orders", "DE", None]["kind"] == "counter"
        and first["queue.depth", None, None]["kind"] == "gauge"
    )
    assert first["temperature", None, None]["value"] == 21.5
    for name in ("latency", "latency.fine"):
        assert first[f"{name}_count", None, None]["value"] == COUNT
        assert first[f"{name}_sum", None, None]["value"] == sum(range(COUNT))
        assert first[f"{name}_max", None, None]["value"] == COUNT - 1
        assert first[f"{name}_bucket", None, "+Inf"]["value"] == COUNT
    assert first["latency_bucket", None, "25"]["value"] == 26
    bounds = [
        (float(le), one["value"])
        for (name, _, le), one in first.items()
        if name == "latency.fine_bucket" and le
    ]
    assert len(bounds) > 20
    assert all(value == min(COUNT, int(bound) + 1) for bound, value in bounds if bound != float("inf"))


def _observed(value: float) -> Any:
    from opentelemetry.metrics import Observation

    return Observation(value)


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_cloudevents(server: Sent, mode: str) -> None:
    from cloudevents.core.bindings import http
    from cloudevents.core.v1.event import CloudEvent

    for n in range(10):
        event = CloudEvent(
            {"id": str(n), "source": f"/shop/{mode}", "type": "com.example.Order", "subject": f"order-{n}"}
            | {"specversion": "1.0", "datacontenttype": "application/json", "time": datetime.now(UTC)},
            {"user_id": f"u{n}", "revenue": n},
        )
        message = (http.to_structured_event if mode == "structured" else http.to_binary_event)(event)
        for _ in range(2):
            body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
            headers = {**message.headers, "authorization": f"Bearer {server.key}"}
            with urllib.request.urlopen(urllib.request.Request(server.url + "/", body, headers)) as answer:
                assert answer.status == 202
    found = server.landed()
    assert [one["event_id"] for one in found] == [f"/shop/{mode}#{n}" for n in range(10)]
    assert {one["event_type"] for one in found} == {"com.example.order"}
    assert [one["properties"]["revenue"] for one in found] == list(range(10))
    assert [one["user_id"] for one in found] == [f"u{n}" for n in range(10)]
