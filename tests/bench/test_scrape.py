"""What the bench of scrapes counts."""

from __future__ import annotations

import threading

from headrace.bench.scrape import Scrapes, _broken, _parts
from headrace.telemetry.exporter import Exporter


def test_scrapes_are_timed_over_every_series_that_is_told() -> None:
    made = Exporter(list(_parts(3, 4)), seconds=600.0)
    for one in made.kept:
        one.look()
    found = Scrapes.of(made, 10)
    body = made.text()
    assert found.series == sum(not line.startswith("#") for line in body.decode().splitlines())
    assert body.count(b"kafka_consumergroup_lag{") == 3 * 4 + 3, "of each partition, and as any family"
    assert found.bytes > 1_000
    assert 0 < found.p50 <= found.p99
    assert found.p50 <= found.worst


def test_a_service_hangs_and_one_is_away_meanwhile() -> None:
    stuck = threading.Event()
    hangs, away = _broken(stuck)
    made = Exporter([away], seconds=600.0)
    assert made.kept[0].look().wrong
    stuck.set()
    assert list(hangs.measure()) == []
