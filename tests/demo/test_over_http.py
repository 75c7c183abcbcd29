"""What the demo sends over HTTP, and how it is found again."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import polars as pl
import pytest
from rich.console import Console

from builders import NOW, event
from headrace.config.settings import load_settings
from headrace.contracts import EVENTS, check_batch
from headrace.core.batch import MicroBatch
from headrace.core.lanes import headers
from headrace.demo import over_http, view
from headrace.demo.feed import Feed
from headrace.demo.over_http import Landed, OverHttp, split
from headrace.demo.progress import Result
from headrace.demo.reconcile import reconcile
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.producers.malformed import malformed_events
from headrace.sources.memory import MemoryLog
from headrace.streams.stream import Stream, streams

LOG = "0123456789abcdef"


def test_a_share_goes_over_http_and_nothing_twice() -> None:
    events = pl.DataFrame({"payload": [b"%d" % n for n in range(100)], "key": [b""] * 100})
    malformed = malformed_events()
    rest, others, over = split(events, malformed)
    assert rest.height == 75 and over.events.height == 25 + len(over.malformed)
    assert {*rest["payload"], *over.events["payload"]} >= {*events["payload"]}
    assert len(others) + len(over.malformed) == len(malformed) and len(over.malformed) >= 5
    ids = [msgspec.json.decode(one.payload or b"")["event_id"] for one in over.malformed]
    assert len({*ids}) == len(ids), "a collector takes an id once"


def test_the_malformed_ones_are_rejected_for_the_same_reasons() -> None:
    stream = streams(load_settings(with_stack=False), "events")["events"]
    for one in split(pl.DataFrame({"payload": [b"1"], "key": [b""]}), malformed_events())[2].malformed:
        batch = MicroBatch.of("test", [one.payload], cursor="test", offset=[0])
        rejected = check_batch(EVENTS, batch, batch_id="b", now=NOW, limits=stream.limits).rejected
        (reasons,) = rejected["reasons"].to_list()
        assert {(r["check"], r["column"]) for r in reasons} == one.reasons[0], one.name


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    """A lake with four events of a topic, and two messages of a collector with three events each."""
    found = streams(load_settings(with_stack=False, home=tmp_path), "events")["events"]
    topic = MemoryLog("events")
    topic.publish([event(event_id=str(n)) for n in range(3)] + [b"no event"])

    def message(*ids: str) -> bytes:
        return b"[" + b",".join(event(event_id=i, channel="fax" if "bad" in i else "web") for i in ids) + b"]"

    bodies: Sequence[bytes] = [message("a", "b", "bad c"), message("bad d", "bad e", "bad f")]
    topic.publish(bodies, headers=[headers(LOG, 0, 0, 5), headers(LOG, 1, 0, 6)])
    for _ in ingest(topic, EVENTS, found.lake, found.limits, Pace(idle_seconds=0.001)):
        pass
    yield found
    found.close()


def test_what_came_over_http_is_counted_by_event(stream: Stream) -> None:
    assert over_http.landed(stream) == Landed(good=2, rejected=4, messages=2, messages_rejected=1)


def reconciled(stream: Stream, monkeypatch: pytest.MonkeyPatch, acknowledged: int) -> tuple[list[str], str]:
    """Reconcile six events over HTTP; returns what differs, and the summary."""

    class Warehouse:
        def counts_by_day(self, table: object) -> dict[str, int]:
            return {"all": 5}  # both tables

    monkeypatch.setattr(type(stream), "warehouse", Warehouse())
    monkeypatch.setattr(stream, "backlog", lambda _: type("Backlog", (), {"waiting": 0}))
    monkeypatch.setattr(stream, "source", lambda _: None)
    one = malformed_events()[0]
    over = OverHttp(pl.DataFrame({"payload": [b""] * 6}), (one,) * 4, acknowledged, 6)
    feed = Feed("events", "memory/events", 10, 4, over, twin=(5, 5))
    found = reconcile(feed, stream, stream.settings)
    shown = io.StringIO()
    view.summary(Result([found], [], [], 1.0, ""), Console(file=shown, width=200))
    return [line.what for line in found.lines if not line.agrees], shown.getvalue()


def test_all_that_was_acknowledged_is_there(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, said = reconciled(stream, monkeypatch, 6)
    assert wrong == []
    assert "events over HTTP  6 acknowledged = 2 landed + 4 rejected; 6 repeats left out" in said
    assert "10 produced = 5 landed + 5 rejected" in said
    assert "Every number reconciles" in said


def test_what_was_acknowledged_and_is_not_there_is_red(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, said = reconciled(stream, monkeypatch, 7)
    assert "events acknowledged over HTTP, landed + rejected" in wrong
    assert "✗ events over HTTP" in said and "Numbers do not reconcile" in said
