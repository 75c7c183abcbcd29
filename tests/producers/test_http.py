"""The producer for a collector: once each, through refusals, full logs and lost answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zstandard
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from headrace.core.errors import BadData, Fatal, Retriable
from headrace.producers import http
from headrace.producers.http import HttpProducer


class Collector:
    """Takes each record once, by its id or that of its request; answers may be lost or refused on the way."""

    def __init__(self) -> None:
        self.taken: dict[str, Any] = {}
        self.requests: list[Request] = []
        self.script: list[Callable[[Response], Response]] = []
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Response:
        with self._lock:
            self.requests.append(request)
            records = json.loads(zstandard.decompress(request.get_data()))["streams"]["events"]
            counts = dict.fromkeys(("accepted", "repeated", "rejected", "conflicts"), 0)
            events = []
            act = self.script.pop(0) if self.script else lambda answer: answer
            if getattr(act, "before", False):
                return act(Response())
            for place, one in enumerate(records):
                name = one.get("id") or f"{request.headers['idempotency-key']}/{place}"
                status = "accepted"
                if name in self.taken:
                    status = "repeated" if self.taken[name] == one else "conflict"
                self.taken.setdefault(name, one)
                counts[status if status != "conflict" else "conflicts"] += 1
                events.append({"status": status, "id": name})
            body = {"receipt": "r", **counts, "events": events}
            return act(Response(json.dumps(body), 207 if counts["conflicts"] else 202))


def refusing(status: int, **headers: str) -> Callable[[Response], Response]:
    """Refuse before anything is taken."""

    def act(_: Response) -> Response:
        return Response(json.dumps({"message": "not now"}), status, headers)

    act.before = True  # type: ignore[attr-defined]
    return act


def losing(_: Response) -> Response:
    """Take everything and lose the answer."""
    return Response("", 502)


@pytest.fixture
def collector(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    httpserver.expect_request("/v1/batch").respond_with_handler(found)
    monkeypatch.setattr(http, "_PAUSE", 0.005)
    yield found


@pytest.fixture
def producer(collector: Collector, httpserver: HTTPServer) -> Iterator[HttpProducer]:
    found = HttpProducer(httpserver.url_for("/"), "events", "hr_key", patience=5)
    yield found
    found.close()


def records(count: int, first: int = 0) -> list[bytes]:
    return [json.dumps({"id": f"e{n}"}).encode() for n in range(first, first + count)]


def test_a_chunk_is_sent_in_requests_of_bounded_size(producer: HttpProducer, collector: Collector) -> None:
    producer.send(records(4_500))
    producer.flush()
    assert producer.acknowledged == len(collector.taken) == 4_500 and len(collector.requests) == 3
    assert collector.requests[0].headers["authorization"] == "Bearer hr_key"
    producer.send([b'{"id":"long","a":"%s"}' % (b"x" * 1_500_000)] * 2)
    assert len(collector.requests) == 5


@pytest.mark.parametrize("status", [429, 503])
def test_it_comes_again_when_it_is_told_to(producer: HttpProducer, collector: Collector, status: int) -> None:
    collector.script = [refusing(status, **{"retry-after": "0"}), refusing(status)]
    producer.send(records(3))
    assert producer.acknowledged == 3 and len(collector.requests) == 3


def test_a_lost_answer_costs_and_doubles_nothing(producer: HttpProducer, collector: Collector) -> None:
    collector.script = [losing, losing]
    producer.send([*records(3), b"{}"])
    assert producer.acknowledged == len(collector.taken) == 4
    assert len({r.headers["idempotency-key"] for r in collector.requests}) == 1


def test_what_another_sent_before_is_not_counted(producer: HttpProducer, collector: Collector) -> None:
    producer.send(records(3))
    producer.send(records(4))
    assert producer.acknowledged == len(collector.taken) == 4


def test_a_conflict_is_told(producer: HttpProducer, collector: Collector) -> None:
    producer.send(records(1))
    with pytest.raises(BadData, match="'e0'"):
        producer.send([b'{"id":"e0","other":1}', *records(1, 1)])
    assert producer.acknowledged == 2


@pytest.mark.parametrize("status, kind", [(401, Fatal), (403, Fatal), (400, Fatal), (413, BadData)])
def test_a_refusal_is_told_at_once(
    producer: HttpProducer, collector: Collector, status: int, kind: type[Exception]
) -> None:
    collector.script = [refusing(status)]
    with pytest.raises(kind, match=f"{status}: not now"):
        producer.send(records(1))
    assert len(collector.requests) == 1


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_PAUSE", 0.005)
    producer = HttpProducer("http://127.0.0.1:9", "events", "k", patience=0.02)
    with pytest.raises(Retriable, match="does not answer"):
        producer.send(records(1))
    producer.close()
    with pytest.raises(Fatal, match="closed"):
        producer.send(records(1))


def test_a_tombstone_is_nothing_for_a_collector(producer: HttpProducer, collector: Collector) -> None:
    with pytest.raises(BadData, match="without a body"):
        producer.send([None])
