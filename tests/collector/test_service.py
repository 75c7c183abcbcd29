"""Requests and answers, without a network: routes, keys, limits, encodings and what is refused."""

from __future__ import annotations

import gzip
import json
import zlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from builders import EVENT, METRIC, event, metric
from collector.doubles import Room, room
from headrace.collector.about import Client
from headrace.collector.access import Policy, network
from headrace.collector.http import Response
from headrace.collector.log import LogFull
from headrace.collector.prepare import Target
from headrace.collector.receipts import Stage
from headrace.collector.service import TAKING, TAKING_BY_GET, Sizes
from headrace.contracts import EVENTS, METRICS, Limits
from headrace.core.errors import Retriable

#: A body that each route takes.
BODIES: dict[str, Any] = {
    "track": EVENT,
    "measurements": METRIC,
    "batch": {"events": [EVENT]},
    "posthog": {"event": "x", "distinct_id": "u"},
    "otlp_metrics": {},
    "cloudevents": {"specversion": "1.0", "id": "1", "source": "s", "type": "t"},
    **{
        f"segment_{kind}": {"userId": "u"}
        for kind in ("track", "page", "screen", "identify", "group", "alias")
    },
}


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def one(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Room]:
    with room(tmp_path, workers=request.param) as found:
        yield found


def basic(user: str, password: str = "") -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def test_one_event_or_an_array(one: Room) -> None:
    said = one.said("/v1/analytics/track", EVENT)
    assert said["accepted"] == 1 and said["events"] == [{"status": "accepted", "id": "e-1"}]
    said = one.said("/analytics", [EVENT, {**EVENT, "event_id": "e-2"}])
    assert (said["accepted"], said["repeated"]) == (1, 1)
    assert [r["event_id"] for r in one.records] == ["e-1", "e-2"]


def test_a_batch_has_records_of_any_streams(one: Room) -> None:
    body = {
        "events": [EVENT],
        "measurements": [METRIC],
        "streams": {"metrics": [{**METRIC, "metric_id": "m-2"}]},
    }
    assert one.said("/v1/batch", body)["accepted"] == 3
    assert [e.stream for e in one.log.entries] == ["events", "metrics"]


def test_lines_of_json(one: Room) -> None:
    lines = b"\n".join(msgspec.json.encode({**METRIC, "metric_id": f"m-{n}"}) for n in range(3)) + b"\r\n\n"
    headers = {"content-type": "application/x-ndjson; charset=utf-8"}
    assert one.said("/v1/batch", lines, headers=headers, query="stream=metrics")["accepted"] == 3
    broken = one.send("/v1/batch", lines + b"{", headers=headers, query="stream=metrics")
    assert broken.status == 400 and b"line 5" in broken.body and len(one.log.entries) == 1


def test_a_measurement_needs_neither_id_nor_time(one: Room) -> None:
    said = one.said("/v1/measurements", {"name": "cpu", "kind": "gauge", "value": 1, "source": "h"})
    assert said["accepted"] == 1 and said["events"][0]["id"]  # type: ignore[index]


def test_conflicts_are_told_apart(one: Room) -> None:
    one.said("/v1/analytics", EVENT)
    other = {**EVENT, "user_id": "u"}
    assert one.send("/v1/analytics", other).status == 422
    mixed = one.send("/v1/analytics", [other, {**EVENT, "event_id": "e-2"}])
    assert mixed.status == 207 and msgspec.json.decode(mixed.body)["conflicts"] == 1


def test_the_pixel(one: Room) -> None:
    query = f"event_type=seen&session_id=s&channel=web&duration_ms=5&foo=1&write_key={one.secret}"
    response = one.send("/v1/pixel.gif", method="GET", query=query, key=None)
    assert response.status == 200 and response.content_type == "image/gif" and response.body[:3] == b"GIF"
    packed = urlsafe_b64encode(event()).decode().rstrip("=")
    assert one.send("/v1/pixel.gif", method="GET", query=f"e={packed}").status == 200
    first, second = one.records
    assert first["properties"] == {"foo": "1"} and first["duration_ms"] == 5 and second["event_id"] == "e-1"


def test_a_beacon_is_text_with_the_key_in_its_address(one: Room) -> None:
    headers = {"content-type": "text/plain;charset=UTF-8"}
    response = one.send("/v1/analytics", event(), headers, query=f"write_key={one.secret}", key=None)
    assert response.status == 202


def sent(one: Room, path: str, body: Any, headers: dict[str, str] | None = None, **named: Any) -> Response:
    """Send a body to a route with the content type of its protocol."""
    structured = TAKING[path].name == "cloudevents"
    content = "application/cloudevents+json" if structured else "application/json"
    return one.send(path, body, {"content-type": content, **(headers or {})}, **named)


@pytest.mark.parametrize("wrong", ["none", "empty", "unknown", "basic", "scheme", "damaged", "query"])
def test_no_route_takes_anything_without_a_key(one: Room, wrong: str) -> None:
    headers = {
        "empty": {"authorization": "Bearer "},
        "unknown": {"authorization": "Bearer hr_x"},
        "basic": basic("hr_x"),
        "scheme": {"authorization": f"Digest {one.secret}"},
        "damaged": {"authorization": "Basic !"},
    }.get(wrong, {})
    query = "write_key=hr_x" if wrong == "query" else ""
    for path, route in TAKING.items():
        response = sent(one, path, BODIES[route.name], headers, query=query, key=None)
        assert response.status == 401, (path, response.body)
        assert "www-authenticate" in response.headers or route.refuse is not None
    assert not one.log.entries


@pytest.mark.parametrize("path", sorted(TAKING_BY_GET))
def test_no_pixel_takes_anything_without_a_key(one: Room, path: str) -> None:
    assert one.send(path, method="GET", query="event_type=x", key=None).status == 401 and not one.log.entries


def test_every_route_takes_its_body_with_a_key(one: Room) -> None:
    """The control of those above: with a key, the same requests are taken."""
    for path, route in TAKING.items():
        response = sent(one, path, BODIES[route.name])
        assert response.status in ((400,) if route.name == "otlp_metrics" else (200, 202)), (
            path,
            response.body,
        )


def test_a_key_may_come_in_every_usual_way(one: Room) -> None:
    for n, headers in enumerate(
        [
            {"authorization": f"bearer {one.secret}"},
            basic(one.secret),
            basic("", one.secret),
            {"x-write-key": one.secret},
            {"x-api-key": one.secret},
        ]
    ):
        assert one.send("/v1/analytics", event(event_id=str(n)), headers, key=None).status == 202
    body = {"write_key": one.secret, "events": [{**EVENT, "event_id": "body"}]}
    assert one.send("/v1/batch", body, key=None).status == 202


def test_nobody_needs_a_key_if_a_setting_says_so(tmp_path: Path) -> None:
    with room(tmp_path, policy=Policy(anonymous=True)) as one:
        assert one.send("/v1/analytics", EVENT, key=None).status == 202
        assert one.send("/v1/analytics", EVENT, key="hr_wrong").status == 401


def test_a_key_is_for_its_streams(one: Room) -> None:
    key = one.keys.create("m", streams=["metrics"])
    assert one.send("/v1/measurements", METRIC, key=key).status == 202
    assert one.send("/v1/analytics", EVENT, key=key).status == 403
    assert one.send("/v1/batch", {"events": [EVENT], "measurements": [METRIC]}, key=key).status == 403
    assert len(one.log.entries) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_rates_of_keys_and_addresses(tmp_path: Path, workers: int) -> None:
    with room(tmp_path, policy=Policy(address_rate=1), workers=workers) as one:
        slow = one.keys.create("slow", rate=1)
        many = [{**EVENT, "event_id": str(n)} for n in range(100)]
        assert one.send("/v1/analytics", many, key=slow, address="192.0.2.1").status == 202
        refused = one.send("/v1/analytics", EVENT, key=slow, address="192.0.2.2")
        assert refused.status == 429 and 95 <= int(refused.headers["retry-after"]) <= 98
        for _ in range(workers):  # whichever of them is asked
            assert one.send("/v1/analytics", EVENT, key=slow, address="192.0.2.4").status == 429
            assert one.send("/v1/analytics", EVENT, address="192.0.2.1").status == 429
        assert one.send("/v1/analytics", EVENT, address="192.0.2.3").status == 202
        assert one.send("/v1/analytics", EVENT, address="192.0.2.4").status == 202


@pytest.mark.parametrize(
    "proxies, expected", [(0, "192.0.2.77"), (1, "203.0.113.9"), (2, "198.51.100.7"), (9, "10.0.0.1")]
)
def test_only_trusted_proxies_say_where_a_request_came_from(
    tmp_path: Path, proxies: int, expected: str
) -> None:
    with room(tmp_path, policy=Policy(proxies=proxies), client=Client("keep", False)) as one:
        headers = {"x-forwarded-for": "10.0.0.1, 198.51.100.7, 203.0.113.9"}
        one.said("/v1/analytics", EVENT, headers=headers)
        assert one.records[0]["properties"] == {"$collector": {"ip": expected}}


def test_browser_system_and_network_are_noted(tmp_path: Path) -> None:
    agent = (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0"
    )
    with room(tmp_path, client=Client("truncate", True)) as one:
        one.said("/v1/analytics", EVENT, headers={"user-agent": agent})
        about = one.records[0]["properties"]
    assert about == {"$collector": {"ip": "192.0.2.0", "browser": "Chrome 131", "os": "Windows 10"}}


@pytest.mark.parametrize(
    "address, expected",
    [
        ("192.0.2.77", "192.0.2.0"),
        ("2001:db8:1:2:3::4", "2001:db8:1::"),
        ("::ffff:192.0.2.77", "192.0.2.0"),
        ("unix", ""),
        ("", ""),
    ],
)
def test_the_network_of_an_address(address: str, expected: str) -> None:
    assert network(address) == expected


def compressed(name: str, body: bytes) -> bytes:
    bare = zlib.compressobj(wbits=-15)
    ways: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "bare": lambda b: bare.compress(b) + bare.flush(),
        "zstd": zstandard.compress,
        "identity": lambda b: b,
    }
    return ways[name](body)


@pytest.mark.parametrize("name", ["gzip", "deflate", "bare", "zstd", "identity"])
def test_bodies_in_every_encoding(one: Room, name: str) -> None:
    headers = {"content-encoding": "deflate" if name == "bare" else name}
    assert one.send("/v1/analytics", compressed(name, event()), headers).status == 202


def test_two_encodings_and_several_members(one: Room) -> None:
    twice = zstandard.compress(gzip.compress(event()[:10]) + gzip.compress(event()[10:]))
    assert one.send("/v1/analytics", twice, {"content-encoding": "gzip, zstd"}).status == 202


@pytest.mark.parametrize("name", ["gzip", "deflate", "bare", "zstd"])
def test_a_body_that_is_torn_or_grows_beyond_its_limit(tmp_path: Path, name: str) -> None:
    headers = {"content-encoding": "deflate" if name == "bare" else name}
    with room(tmp_path, sizes=Sizes(body=10_000)) as one:
        packed = compressed(name, event(properties={"a": "b" * 200}))
        for end in range(1, len(packed)):
            assert one.send("/v1/analytics", packed[:end], headers).status in (400, 202), end
        assert one.send("/v1/analytics", b"\x00" + packed, headers).status == 400
        bomb = compressed(name, b" " * 50_000_000)
        assert len(bomb) < 100_000
        assert one.send("/v1/analytics", bomb, headers).status == 413
        assert {r["event_id"] for r in one.records} <= {"e-1"}


def test_an_unknown_encoding(one: Room) -> None:
    assert one.send("/v1/analytics", event(), {"content-encoding": "br"}).status == 415


MALFORMED = [
    b"",
    b" ",
    b"{",
    b"[",
    b"[]",
    b"5",
    b'"a"',
    b"null",
    b"[{}",
    b'{"a":1}}',
    b"\xff\xfe",
    b'{"a":"\xff"}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:12]))
def test_a_malformed_body_is_one_clear_400_and_nothing_is_taken(one: Room, body: bytes) -> None:
    for path in TAKING:
        response = sent(one, path, body)
        assert response.status == 400 and response.body, (path, response.status, response.body)
    assert not one.log.entries


def test_half_a_batch_is_not_taken(one: Room) -> None:
    for body in (b'{"events":[' + event() + b",{]}", b"[" + event() + b",{]", b"[" + event() + b"] x"):
        assert one.send("/v1/batch", body).status == 400
    assert one.send("/v1/batch", {"events": [EVENT], "streams": {"nope": [{}]}}).status == 400
    assert one.send("/v1/batch", {"events": [EVENT], "other": 1}).status == 400
    assert not one.log.entries


def test_an_event_is_as_long_as_its_streams_queue_takes(tmp_path: Path) -> None:
    events, metrics = Target(EVENTS, Limits(), 500), Target(METRICS, Limits())
    with room(tmp_path, streams={"events": events, "metrics": metrics}) as one:
        assert one.send("/v1/analytics", event(user_id="u" * 50)).status == 202
        refused = one.send("/v1/analytics", event(properties={"a": "b" * 500}))
        assert refused.status == 413 and b"more than 500" in refused.body
        assert one.send("/v1/measurements", metric(dimensions={"a": "b" * 500})).status == 202
        assert len(one.records) == 2


def test_limits_of_a_request(tmp_path: Path) -> None:
    with room(tmp_path, sizes=Sizes(body=20_000, event=1_000, events=10)) as one:
        many = [{**EVENT, "event_id": str(n)} for n in range(11)]
        assert one.send("/v1/analytics", many).status == 413
        assert one.send("/v1/analytics", [EVENT, {**EVENT, "user_id": "u" * 2_000}]).status == 413
        assert one.send("/v1/analytics", event(properties={"a": "b" * 30_000})).status == 413
        assert not one.log.entries
        assert one.send("/v1/analytics", many[:10]).status == 202


def test_a_full_log_says_when_to_come_again_and_a_broken_disk_makes_it_unready(one: Room) -> None:
    one.log.fails = LogFull("the log is full")
    full = one.send("/v1/analytics", EVENT)
    assert full.status == 503 and full.headers["retry-after"] == "30" and b"is full" in full.body
    assert one.send("/readyz", method="GET", key=None).status == 200
    one.log.fails = Retriable("the disk fails")
    assert one.send("/v1/analytics", EVENT).status == 503
    assert one.send("/readyz", method="GET", key=None).status == 503
    assert one.send("/healthz", method="GET", key=None).status == 200
    one.log.fails = None
    assert one.send("/v1/analytics", EVENT).status == 202
    assert one.send("/readyz", method="GET", key=None).status == 200


def test_pages_of_allowed_origins_may_send(one: Room) -> None:
    key = one.keys.create("web", origins=["https://shop.example"])
    allowed, other = {"origin": "https://shop.example"}, {"origin": "https://evil.example"}
    asked = {
        **allowed,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-write-key",
    }
    before = one.send("/v1/analytics", method="OPTIONS", headers=asked, key=None)
    assert before.status == 204 and before.headers["access-control-allow-origin"] == "https://shop.example"
    assert before.headers["access-control-allow-headers"] == "x-write-key"
    taken = one.send("/v1/analytics", EVENT, allowed, key=key)
    assert taken.status == 202 and taken.headers["access-control-allow-origin"] == "https://shop.example"
    for headers, used in ((other, key), (allowed, ""), (other, "")):
        refused = one.send("/v1/analytics", event(event_id="2"), headers, key=used)
        assert refused.status == 403
    assert (
        "access-control-allow-origin"
        not in one.send("/v1/analytics", method="OPTIONS", headers=other).headers
    )
    assert len(one.log.entries) == 1


def test_any_origin_if_a_setting_says_so(tmp_path: Path) -> None:
    with room(tmp_path, policy=Policy(origins=frozenset({"*"}))) as one:
        response = one.send("/v1/analytics", EVENT, {"origin": "https://a.example"})
        assert (
            response.status == 202 and response.headers["access-control-allow-origin"] == "https://a.example"
        )


def test_what_is_not_there(one: Room) -> None:
    assert one.send("/nope", EVENT).status == 404
    wrong = one.send("/v1/analytics", method="GET")
    assert wrong.status == 405 and wrong.headers["allow"] == "POST"
    assert one.send("/healthz", method="DELETE").status == 405
    assert one.send("/v1/projects/x/other", method="GET").status == 404


class Progress:
    """Says what it is told."""

    def __init__(self) -> None:
        self.stages_: list[Stage] = []
        self.fails: Exception | None = None

    def stages(self, stream: str, numbers: Any) -> list[Stage]:
        if self.fails:
            raise self.fails
        return [self.stages_.pop(0) if len(self.stages_) > 1 else self.stages_[0] for _ in numbers]


def test_a_receipt_says_how_far_events_are(tmp_path: Path) -> None:
    progress = Progress()
    with room(tmp_path, progress=progress) as one:
        receipt = one.said("/v1/analytics", EVENT)["receipt"]
        path = f"/v1/receipts/{receipt}"
        progress.stages_ = [Stage("events", in_topic=True)]
        said = msgspec.json.decode(one.send(path, method="GET").body)
        assert (said["durable"], said["topic"], said["lake"], said["warehouse"]) == (True, True, False, False)
        assert one.send(path, method="GET", query="wait=lake&seconds=0").status == 202
        progress.stages_ = [Stage("events", True), Stage("events", True), Stage("events", True, True, 7)]
        waited = one.send(path, method="GET", query="wait=lake&seconds=30")
        assert waited.status == 200 and msgspec.json.decode(waited.body)["entries"][0]["lake_version"] == 7
        for query in ("wait=moon", "wait=lake&seconds=x"):
            assert one.send(path, method="GET", query=query).status == 400
        for other in ("x", "r.", "rlog.events:!!", "rlog.events:gA", "rlog.AAA", "rother.events:AAA"):
            assert one.send(f"/v1/receipts/{other}", method="GET").status == 404
        assert one.send(path, method="GET", key=None).status == 401
        progress.fails = Retriable("the lake is away")
        assert one.send(path, method="GET").status == 503


def test_measurements_of_the_collector(one: Room) -> None:
    one.said("/v1/analytics", [EVENT, EVENT, 5])
    text = one.send("/metrics", method="GET", key=None).body.decode()
    assert 'headrace_collector_events_total{outcome="accepted"} 1\n' in text
    assert 'headrace_collector_events_total{outcome="repeated"} 1\n' in text
    assert 'headrace_collector_events_total{outcome="rejected"} 1\n' in text
    assert 'headrace_collector_requests_total{route="track",status="202"} 1\n' in text


def test_its_description(one: Room) -> None:
    document = json.loads(one.send("/openapi.json", method="GET", key=None).body)
    assert document["openapi"] == "3.1.0"
    assert {p.rstrip("/") or "/" for p in document["paths"]} >= {*TAKING, *TAKING_BY_GET}
    page = one.send("/docs", method="GET", key=None)
    assert page.content_type.startswith("text/html") and b"/v1/receipts/{id}" in page.body


def test_analytics_js_gets_its_settings(one: Room) -> None:
    response = one.send("/v1/projects/hr_k/settings", method="GET", key=None, headers={"host": "c.example"})
    assert msgspec.json.decode(response.body)["integrations"]["Segment.io"]["apiHost"] == "c.example/v1"
