"""What a log holds beyond the lake, told from its files while its collector runs, or after it died."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.collector import held as holding
from headrace.collector.held import Held, held
from headrace.collector.log import DurableLog, Entry
from headrace.core.batch import Position
from headrace.core.lanes import cursor_of, spread
from headrace.health.checks import acknowledged_events_land
from headrace.health.verdicts import Verdict

LATER = timedelta(minutes=20)


class Lake:
    """A stream whose lake's lanes are where the test says."""

    def __init__(self, home: Path, name: str = "events") -> None:
        self.settings = SimpleNamespace(collector_folder=home)
        self.name = name
        self.at: dict[str, int] = {}
        self.lake = self.good = self
        self.looks = 0

    def open(self) -> Lake:
        return self

    def position(self, cursors: list[str]) -> Position:
        return Position({c: self.at[c] for c in cursors if c in self.at})

    def land(self, log: DurableLog, numbers: range) -> None:
        for number in numbers:
            self.at[cursor_of(log.id, spread(number, log.lanes))] = number + 1


def look(lake: Lake) -> Held | None:
    return held(lake)  # type: ignore[arg-type]


def verdict(lake: Lake, now: datetime) -> Verdict:
    stream: Any = lake
    return acknowledged_events_land(stream, timedelta(minutes=15), now)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def opened(lake: Lake, **settings: Any) -> DurableLog:
    return DurableLog(lake.settings.collector_folder / "log", limit_bytes=1 << 20, **settings)


def test_without_a_log_there_is_nothing_to_say(lake: Lake) -> None:
    assert look(lake) is None
    assert verdict(lake, datetime.now(UTC)).passed


@pytest.mark.parametrize("runs", [True, False], ids=["running", "ended"])
def test_what_the_lake_lacks_is_counted_by_stream(lake: Lake, runs: bool) -> None:
    log = opened(lake, segment_bytes=400)
    began = datetime.now(UTC)
    for number in range(20):
        log.append([Entry("events" if number % 2 else "metrics", b"{}" * 20, bytes(24))])
    if not runs:
        log.close()
    found = look(lake)
    assert found is not None and found.since is not None
    assert (found.entries, found.bytes > 10 * 40) == (10, True)
    assert began - timedelta(seconds=1) <= found.since <= datetime.now(UTC)
    lake.land(log, range(15))
    assert [one and one.entries for one in (look(lake), look(Lake(lake.settings.collector_folder)))] == [
        3,
        10,
    ]
    lake.land(log, range(20))
    assert look(lake) == Held()
    log.close()


def test_the_check_fails_once_an_acknowledged_event_waits_too_long(lake: Lake) -> None:
    log = opened(lake)
    log.append([Entry("events", b"{}", bytes(24))])
    log.close()  # and no collector is started any more
    now = datetime.now(UTC)
    assert verdict(lake, now).passed
    late = verdict(lake, now + LATER)
    assert not late.passed and "events of 1 request are not in the lake" in late.description
    lake.land(log, range(1))
    assert verdict(lake, now + LATER).passed, "the control: what has landed is never late"


def test_other_streams_are_not_blamed(lake: Lake) -> None:
    log = opened(lake)
    log.append([Entry("metrics", b"{}", bytes(24))])
    log.close()
    assert verdict(lake, datetime.now(UTC) + LATER).passed


def test_a_damaged_middle_is_passed_over(lake: Lake) -> None:
    log = opened(lake)
    for _ in range(3):
        log.append([Entry("events", b"x" * 50, bytes(24))])
    log.close()
    [path] = (lake.settings.collector_folder / "log").glob("*.log")
    data = bytearray(path.read_bytes())
    at = data.index(b"HRLE", 1)
    data[at + 5] ^= 0xFF
    path.write_bytes(data)
    found = look(lake)
    assert found is not None and found.entries == 2


def test_counting_ends(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MOST", 2)
    log = opened(lake)
    log.append([Entry("events", b"{}", bytes(24))] * 5)
    log.close()
    found = look(lake)
    assert found is not None and found.entries == 2
