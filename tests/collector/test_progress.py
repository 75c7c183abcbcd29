"""How far entries are, by what lake and warehouse say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from headrace.collector import progress
from headrace.collector.progress import LakeProgress
from headrace.core.batch import Position
from headrace.core.errors import NotSet

LANES = 4


@dataclass
class Stream:
    """A stream whose lake and warehouse are what the test says.

    Attributes:
        version: Version of the lake.
        positions: Positions of the lanes.
        published: Last version in the warehouse; None if there is no warehouse.
    """

    version: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    published: int | None = -1
    looks: int = 0

    @property
    def lake(self) -> Any:
        return self

    good = lake

    def open(self) -> Any:
        self.looks += 1
        return self

    def position(self, cursors: list[str]) -> Position:
        return Position({c: self.positions[c] for c in cursors if c in self.positions})

    def published_version(self) -> int:
        if self.published is None:
            raise NotSet("no warehouse")
        return self.published


def looking(streams: Mapping[str, Any], sent: int = 0) -> LakeProgress:
    cursors = [f"lane{n}" for n in range(LANES)]
    return LakeProgress(streams, lambda n: n % LANES, cursors, lambda _, n: n < sent)


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_FRESH_SECONDS", 0.0)


def test_an_entry_goes_from_topic_to_lake_to_warehouse() -> None:
    stream = Stream()
    found = looking({"events": stream}, sent=6)

    def stages() -> list[tuple[bool, bool, int | None, bool]]:
        seen = found.stages("events", [5, 6])
        return [(s.in_topic, s.in_lake, s.lake_version, s.in_warehouse) for s in seen]

    assert stages() == [(True, False, None, False), (False, False, None, False)]
    stream.version, stream.positions = 3, {"lane1": 6}
    assert stages() == [(True, True, 3, False), (False, False, None, False)]
    stream.version, stream.positions = 4, {"lane1": 10, "lane2": 7}
    assert stages() == [(True, True, 3, False), (True, True, 4, False)]
    stream.published = 3
    assert stages() == [(True, True, 3, True), (True, True, 4, False)]
    stream.version, stream.published = 9, 8
    assert stages() == [(True, True, 3, True), (True, True, 4, True)]


def test_positions_of_other_lanes_say_nothing() -> None:
    stream = Stream(version=1, positions={"lane0": 100})
    assert not looking({"events": stream}).stages("events", [5])[0].in_lake


def test_without_a_warehouse_nothing_is_in_it() -> None:
    stream = Stream(version=1, positions={"lane1": 6}, published=None)
    assert looking({"events": stream}).stages("events", [5])[0].in_warehouse is False


def test_a_stream_that_is_no_more() -> None:
    assert looking({}, sent=6).stages("gone", [5])[0].in_topic is True


def test_many_who_wait_look_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_FRESH_SECONDS", 60.0)
    stream = Stream()
    found = looking({"events": stream})
    for _ in range(10):
        found.stages("events", [1, 2])
    assert stream.looks == 1
