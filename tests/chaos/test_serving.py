"""Readers ask ``headrace serve`` while rows arrive and its services are killed: no answer may be wrong.

A writer counts what the warehouse has acknowledged, and what it has tried. An answer without a mark must lie between
what was acknowledged before its question and what was tried by its end; a marked one must not be ahead. A 503 is no
answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from builders import eventually
from chaos.faults import kill_service
from headrace.config.settings import Settings
from headrace.local.embedded import EmbeddedStack
from headrace.local.service import State
from headrace.local.stack import status
from headrace.serving.held import Held, MadeOf
from serving.conftest import Served, serving
from serving.small import Small

READERS, ANSWERS, WITHIN = 3, 30, 120


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    home = tmp_path_factory.mktemp("serving chaos")
    with EmbeddedStack(home, topics={}, queues=()) as endpoints:
        yield home, endpoints


@dataclass
class Run:
    """What readers and the writer saw.

    Attributes:
        acknowledged, tried: Events that the warehouse has certainly, and at most.
        answers, marked, refused: Answers by kind.
        wrong: Answers that cannot be right.
    """

    small: Small
    day: date
    acknowledged: int = 0
    tried: int = 0
    answers: int = 0
    marked: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def answered(self, number: int) -> bool:
        return self.answers >= number

    def write(self) -> None:
        while not self.ended.wait(0.1):
            self.tried += 1
            try:
                self.small.add(self.day)
            except (httpx.HTTPError, RuntimeError):
                continue  # it may be there
            self.acknowledged += 1

    def read(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while not self.ended.is_set():
                before = self.acknowledged
                found = client.get(f"/v1/metrics/events?from={self.day}&to={self.day}&window=all")
                if found.status_code == 503:
                    self.refused += 1
                    continue
                if found.status_code != 200:
                    self.wrong.append(f"{found.status_code} {found.text[:300]}")
                    continue
                value = found.json()["rows"][0]["value"]
                stale = "headrace-stale" in found.headers
                self.marked, self.answers = self.marked + stale, self.answers + (not stale)
                if value > self.tried or (not stale and value < before):
                    self.wrong.append(f"{value} events, of {before} to {self.tried}, marked: {stale}")


def played(stack: tuple[Path, dict[str, str]], small: Small, served: Served, kill: str) -> Run:
    """Let readers ask while rows arrive; meanwhile kill a service twice, and wait until it is back each time."""
    home, _ = stack
    run = Run(small, datetime.now(UTC).date())
    threads = [threading.Thread(target=run.write)]
    threads += [threading.Thread(target=run.read, args=(served.url,)) for _ in range(READERS)]
    for one in threads:
        one.start()
    try:
        eventually(lambda: run.answers >= ANSWERS or run.wrong, WITHIN, "answers")
        for _ in range(2 if kill else 0):
            kill_service(home, kill)
            seen = run.answers
            eventually(lambda: _runs(home, kill), WITHIN, f"{kill} again")
            eventually(partial(run.answered, seen + ANSWERS), WITHIN, "answers again")
    finally:
        run.ended.set()
        for one in threads:
            one.join(WITHIN)
    return run


def _runs(home: Path, service: str) -> bool:
    return next(row.state for row in status(home) if row.service == service) is State.RUNNING


def before(stack: tuple[Path, dict[str, str]], name: str, home: Path) -> tuple[Small, Settings]:
    _, endpoints = stack
    port = int(endpoints["HEADRACE_CLICKHOUSE_PORT"])
    small = Small(port, endpoints["HEADRACE_CLICKHOUSE_PASSWORD"], name).create()
    small.record(datetime.now(UTC).date())
    url = endpoints["HEADRACE_CACHE_URL"]
    assert urlsplit(url).port
    return small, small.settings(home, cache_url=url)


@pytest.mark.long
@pytest.mark.parametrize("kill", ["cache", "clickhouse"])
def test_no_answer_is_wrong_while_a_service_is_killed(
    stack: tuple[Path, dict[str, str]], kill: str, tmp_path: Path
) -> None:
    small, settings = before(stack, f"killed_{kill}", tmp_path)
    with serving(settings) as served:
        run = played(stack, small, served, kill)
        assert run.wrong == []
        asked = f"/v1/metrics/events?from={run.day}&to={run.day}&window=all"
        assert served.get(asked).json()["rows"][0]["value"] == small.events_of(run.day)
    assert run.acknowledged <= small.events_of(run.day) <= run.tried


@pytest.mark.long
def test_a_cache_that_ignores_what_the_warehouse_holds_is_caught(
    stack: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the same readers, before a server whose keys leave the version out."""
    monkeypatch.setattr(MadeOf, "version", ())
    monkeypatch.setattr(Held, "_marks", lambda *_: iter(()))
    small, settings = before(stack, "ignored", tmp_path)
    with serving(settings) as served:
        run = played(stack, small, served, "")
    assert run.wrong
