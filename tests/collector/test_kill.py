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
#: In this order: the call of a sync is counted from the opening of a new log on.
WINDOWS = ("before_sync", "before_append", "before_index", "before_answer")


def send(server: Server, *rounds: str) -> dict[str, str]:
    """Send rounds of events from several clients, each until the collector is gone; returns what was acknowledged."""
    told: dict[str, str] = {}

    def one(sender: int) -> None:
        for n, name in enumerate(name for about in rounds for name in names(about, sender)):
            # every third is one that the contract rejects, and every fourth comes in an array
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


def names(about: str, sender: int) -> list[str]:
    return [f"{about}-s{sender}-{n}" for n in range(EACH)]


def lost(server: Server, acknowledged: dict[str, str]) -> list[str]:
    """What was acknowledged and is not in the log; the collector may be dead."""
    there = {str(one["event_id"]) for one in server.records()}
    return [f"{name} was acknowledged and is lost" for name in sorted(acknowledged.keys() - there)]


def verdict(server: Server, acknowledged: dict[str, str], *rounds: str) -> list[str]:
    """What is wrong with a log after all was sent again: lost, doubled, or answered otherwise than before."""
    found = lost(server, acknowledged)
    again = send(server, *rounds)
    every = {name for about in rounds for sender in range(SENDERS) for name in names(about, sender)}
    found += [f"{name} was not taken" for name in sorted(every - again.keys())]
    counts = Counter(str(one["event_id"]) for one in server.records())
    found += [f"{name} is there {n} times" for name, n in sorted(counts.items()) if n > 1]
    found += [f"{name} is not there" for name in sorted(every - counts.keys())]
    found += [
        f"{n} was {again[n]}" for n in sorted(acknowledged.keys() & again.keys()) if again[n] != "repeated"
    ]
    return found


def killed(home: Path, window: str, nth: int, workers: int = 1) -> tuple[Server, dict[str, str]]:
    """Run a collector until it dies; returns what it acknowledged of the round that is named after the window."""
    with collector(home, window=window, nth=nth, workers=workers) as server:
        told = send(server, window)
        assert server.process.wait(60) == -9, server.said.read_text()
    assert len(told) < SENDERS * EACH
    return server, told


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_nothing_is_lost_or_doubled(tmp_path: Path, workers: int) -> None:
    """Each start is the recovery from the window before; with workers, the process with the log is killed."""
    home = tmp_path / "home"
    told: dict[str, str] = {}
    for window in WINDOWS:
        dead, acknowledged = killed(home, window, 4, workers)
        told |= acknowledged
        assert lost(dead, told) == []
    with collector(home, workers=workers) as server:
        assert verdict(server, told, *WINDOWS) == []


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_an_answer_before_the_log_is_found(tmp_path: Path, workers: int) -> None:
    """The control: a collector that acknowledges before it appends loses what it acknowledged."""
    assert lost(*killed(tmp_path / "home", "answers_first", 4, workers))


def test_an_index_that_is_not_caught_up_is_found(tmp_path: Path) -> None:
    """The control: without what the log holds beyond the index, a repeat is taken again."""
    home = tmp_path / "home"
    _, told = killed(home, "before_index", 1)
    with collector(home, window="forgets") as server:
        assert any("times" in line for line in verdict(server, told, "before_index"))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_stop_answers_what_is_under_way(tmp_path: Path, workers: int) -> None:
    with collector(tmp_path / "home", workers=workers, HEADRACE_COLLECTOR_GROUP_MS="100") as server:
        told: dict[str, str] = {}
        thread = threading.Thread(target=lambda: told.update(send(server, "stopped")))
        thread.start()
        eventually(server.records, 60, "the first event in the log")
        assert server.stop() == 0, server.said.read_text()
        thread.join()
        assert told and lost(server, told) == []
