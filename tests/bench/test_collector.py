"""``headrace bench collector``, small, on the tests' own stack."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
from rich.console import Console

from conftest import Stack
from headrace.bench import collector
from headrace.bench.collector import CollectorResult, measure
from headrace.bench.http_load import Sent, request, send
from headrace.bench.recovery import recovered, written
from headrace.core.errors import Fatal

SMALL: dict[str, Any] = {
    "requests": 300,
    "batches": 5,
    "connections": 8,
    "seconds": 0.5,
    "memory": 1_000,
    "undelivered": 2_000,
    "repetitions": 1,
}


def here(task: Any, *arguments: Any) -> Any:
    return task(*arguments)


def measured(stack: Stack, **changes: Any) -> CollectorResult:
    return measure(stack.settings, Console(quiet=True), run=here, **{**SMALL, **changes})


@pytest.mark.long
def test_what_is_acknowledged_is_in_log_and_topic(stack: Stack) -> None:
    peers = find_spec("fastapi") is not None and find_spec("aiokafka") is not None
    found = measured(stack, peers=peers)
    assert found.wrong == []
    shown = found.as_dict()
    assert shown["reconciles"]
    assert shown["single"]["headrace"]["core_microseconds_per_request"] > 0
    assert found.batch["headrace"][0].events == 500
    assert found.memory[-1].events == 1_000
    assert found.recovery is not None and found.recovery.events == 2_000
    assert found.restart is not None and found.restart.events == 2_000
    assert set(shown["to_fastapi"]) == ({"single", "batch"} if peers else set())


@pytest.mark.long
def test_an_event_that_is_acknowledged_and_nowhere_is_told(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_more(*arguments: Any, **named: Any) -> Sent:
        sent = send(*arguments, **named)
        sent.accepted += sent.requests > 200
        return sent

    monkeypatch.setattr(collector, "send", one_more)
    monkeypatch.setattr("headrace.bench.servers._SETTLED_SECONDS", 3.0)
    found = measured(stack, memory=0, undelivered=0)
    lines = [line for line in found.wrong if line.startswith("single, headrace: ")]
    assert lines == [
        "single, headrace: 301 events acknowledged, 300 in the log",
        "single, headrace: 301 events acknowledged, 300 in the topic",
    ]


def test_a_log_is_opened_again_with_all_its_events(tmp_path: Any) -> None:
    written(tmp_path, 1_500)
    for index in ("lost", "killed"):
        found = recovered(tmp_path, 1_500, index)
        assert (found.wrong, found.added) == ((), 1_500), "so few are in the memory of the index alone"
        assert recovered(tmp_path, 1_501, index).wrong == ("1,500 of 1,501 events were found",)


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A server of one connection, which gives these answers one after the other, and then closes it."""

    def serve() -> None:
        with listening.accept()[0] as one:
            for answer in answers:
                one.recv(65_536)
                one.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_only_what_an_answer_says_counts() -> None:
    body = b'{"accepted": 3}'
    good = b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    bad = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
    with answering(good, bad) as port:
        sent = send("127.0.0.1", port, iter([request("/", {"host": "x"}, b"1")] * 2), connections=1)
    assert (sent.requests, sent.accepted, sent.other) == (1, 3, {503: 1})
    assert len(sent.waits) == 2


def test_a_connection_that_is_closed_early_is_told() -> None:
    with answering(b"HTTP/1.1 202 Acc") as port, pytest.raises(Fatal, match="closed a connection"):
        send("127.0.0.1", port, iter([request("/", {"host": "x"}, b"1")]), connections=1)
