"""Killed with -9 in every window between a request and its answer: what was acknowledged is there, once."""

from __future__ import annotations

import threading
import urllib.error
from collections import Counter
from http.client import HTTPException
from pathlib import Path

import msgspec
import pytest

from builders import event, eventually
from collector.server import Server, collector

SENDERS, EACH = 4, 12


def send(server: Server) -> dict[str, str]:
    """Send all events from several clients, each until the collector is gone; returns what was acknowledged."""
    told: dict[str, str] = {}

    def one(sender: int) -> None:
        for n in range(EACH):
            name = f"s{sender}-{n}"
            # every third is one that the contract rejects, and every fourth comes with another in an array
            body = event(event_id=name, channel="fax" if n % 3 == 2 else "web")
            try:
                status, answer = server.post("/v1/analytics", b"[" + body + b"]" if n % 4 == 3 else body)
            except (urllib.error.URLError, HTTPException, OSError):
                return
            assert status == 202, answer
            told[name] = msgspec.json.decode(answer)["events"][0]["status"]

    threads = [threading.Thread(target=one, args=(n,)) for n in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def verdict(server: Server, acknowledged: dict[str, str]) -> list[str]:
    """What is wrong with a log after all was sent again: lost, doubled, or answered otherwise than before."""
    there = {str(one["event_id"]) for one in server.records()}
    found = [f"{name} was acknowledged and is lost" for name in sorted(acknowledged.keys() - there)]
    again = send(server)
    found += [f"{name} was not taken" for name in sorted(_all() - again.keys())]
    counts = Counter(str(one["event_id"]) for one in server.records())
    found += [f"{name} is there {n} times" for name, n in sorted(counts.items()) if n > 1]
    found += [f"{name} is not there" for name in sorted(_all() - counts.keys())]
    found += [
        f"{n} was {again[n]}" for n in sorted(acknowledged.keys() & again.keys()) if again[n] != "repeated"
    ]
    return found


def _all() -> set[str]:
    return {f"s{sender}-{n}" for sender in range(SENDERS) for n in range(EACH)}


def killed(home: Path, window: str, nth: int) -> dict[str, str]:
    """Run a collector until it dies; returns what it acknowledged."""
    with collector(home, window=window, nth=nth) as server:
        told = send(server)
        assert server.process.wait(60) == -9, server.said.read_text()
    return told


@pytest.mark.parametrize("window", ["before_append", "before_sync", "before_index", "before_answer"])
def test_nothing_is_lost_or_doubled(tmp_path: Path, window: str) -> None:
    home = tmp_path / "home"
    told = killed(home, window, 4)
    assert len(told) < len(_all())
    with collector(home) as server:
        assert verdict(server, told) == []


def test_an_answer_before_the_log_is_found(tmp_path: Path) -> None:
    """The control: a collector that acknowledges before it appends loses what it acknowledged."""
    home = tmp_path / "home"
    told = killed(home, "answers_first", 4)
    with collector(home) as server:
        assert any("is lost" in line for line in verdict(server, told))


def test_an_index_that_is_not_caught_up_is_found(tmp_path: Path) -> None:
    """The control: without what the log holds beyond the index, a repeat is taken again."""
    home = tmp_path / "home"
    told = killed(home, "before_index", 1)
    with collector(home, window="forgets") as server:
        assert any("times" in line for line in verdict(server, told))


def test_a_stop_answers_what_is_under_way(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with collector(home, HEADRACE_COLLECTOR_GROUP_MS="100") as server:
        told: dict[str, str] = {}
        thread = threading.Thread(target=lambda: told.update(send(server)))
        thread.start()
        eventually(server.records, 60, "the first event in the log")
        assert server.stop() == 0, server.said.read_text()
        thread.join()
    with collector(home) as server:
        assert verdict(server, told) == []
