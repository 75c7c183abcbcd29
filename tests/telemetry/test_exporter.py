"""What a scrape tells when parts are well, fail, hang or are too many, without any service."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from builders import eventually
from headrace.core.batch import Backlog, Position
from headrace.core.errors import Retriable
from headrace.pipelines import Pipeline, discover
from headrace.telemetry import families as f
from headrace.telemetry.background import Kept
from headrace.telemetry.exporter import CollectorsOwn, Exporter
from headrace.telemetry.families import FAMILIES, MOST_SERIES, Reading, lines, page
from headrace.telemetry.parts import MOST_PARTITIONS, Grown, Part, partitions

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def told(exporter: Exporter) -> Series:
    """Samples of a scrape, by name and labels."""
    body = exporter.text()
    return {
        (sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if v))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def measured(kept: Kept) -> dict[str, float]:
    look = kept.told()
    readings = [*kept.state(), *(look.readings if look else ())]
    return {one.family.name: one.value for one in readings}


def test_every_family_has_a_name_a_unit_and_a_line_about_it() -> None:
    names = [one.name for one in FAMILIES]
    assert len(names) == len(set(names))
    for one in FAMILIES:
        assert not {"job", "instance"} & set(one.labels), "Prometheus would rename them"
        assert re.fullmatch(r"(headrace|kafka_consumergroup)_[a-z_]+", one.name)
        assert one.said.endswith("."), one.name
        assert (one.kind == "counter") == one.name.endswith("_total"), one.name
        assert "timestamp" not in one.name or one.name.endswith("_timestamp_seconds")


def test_a_part_that_is_well_is_told_with_its_age() -> None:
    clock = Clock()
    kept = Kept(Part("lake", lambda: [f.LAKE_ROWS(7, "events", "events", "good")]), 10.0, clock)
    assert "headrace_lake_rows" not in measured(kept)
    kept.look()
    clock.now += 4
    found = measured(kept)
    assert found["headrace_lake_rows"] == 7
    assert found["headrace_exporter_part_up"] == 1
    assert found["headrace_exporter_part_age_seconds"] == 4


@pytest.mark.parametrize("error", [Retriable("the broker is away"), ZeroDivisionError("a defect")])
def test_a_part_that_fails_is_down_and_tells_no_old_number(error: Exception) -> None:
    looks: list[Callable[[], Iterable[Reading]]] = []

    def measure() -> Iterable[Reading]:
        if looks:
            raise error
        return [f.RUNNING(3)]

    kept = Kept(Part("clickhouse", measure), 10.0, Clock())
    kept.look()
    assert measured(kept)["headrace_clickhouse_running_queries"] == 3
    looks.append(lambda: ())
    kept.look()
    found = measured(kept)
    assert found["headrace_exporter_part_up"] == 0
    assert found["headrace_exporter_part_failures_total"] == 1
    assert "headrace_clickhouse_running_queries" not in found
    assert "headrace_exporter_part_age_seconds" not in found
    looks.clear()
    kept.look()
    assert measured(kept)["headrace_exporter_part_up"] == 1


def test_a_part_that_hangs_is_down_once_it_is_past_its_deadline() -> None:
    clock = Clock()
    kept = Kept(Part("lake", lambda: [f.UPTIME(1)]), 10.0, clock)
    kept.look()
    clock.now += kept.deadline - 1
    assert measured(kept)["headrace_exporter_part_up"] == 1
    clock.now += 2
    found = measured(kept)
    assert found["headrace_exporter_part_up"] == 0
    assert "headrace_clickhouse_uptime_seconds" not in found
    assert found["headrace_exporter_part_age_seconds"] == kept.deadline + 1, "its age is still told"


def test_a_scrape_waits_for_nothing_and_a_broken_part_leaves_the_others() -> None:
    hangs, asked = threading.Event(), threading.Event()

    def hang() -> Iterable[Reading]:
        asked.set()
        hangs.wait()
        return ()

    def away() -> Iterable[Reading]:
        raise Retriable("no Kafka broker answers")

    parts = [
        Part("source", hang, "events", "sqs/events"),
        Part("source", away, "events", "kafka/events"),
        Part("lake", lambda: [f.LAKE_ROWS(7, "events", "events", "good")], "events"),
    ]
    exporter = Exporter(parts, seconds=0.1)
    exporter.start()
    try:
        rows = ("headrace_lake_rows", (("kind", "good"), ("stream", "events"), ("table", "events")))
        down = (
            "headrace_exporter_part_up",
            (("part", "source"), ("source", "kafka/events"), ("stream", "events")),
        )
        eventually(lambda: rows in told(exporter) and down in told(exporter), 10, "a measurement")
        assert asked.wait(10)
        found = told(exporter)
        assert (found[rows], found[down]) == (7, 0)
        before = found["headrace_exporter_part_failures_total", down[1]]
        eventually(
            lambda: told(exporter)["headrace_exporter_part_failures_total", down[1]] > before,
            10,
            "another look",
        )
    finally:
        hangs.set()
        exporter.stop()
    assert not [one for one in threading.enumerate() if one.name.startswith("telemetry lake")]


def test_parts_of_one_family_are_one_family_and_repeats_are_one_series() -> None:
    one, other = [f.UNPUBLISHED(1, "a"), f.STALE_DAYS(2, "a"), f.UNPUBLISHED(4, "a")], [f.UNPUBLISHED(3, "b")]
    text = page([lines(one), lines(other), lines(other)])
    assert text.count("# TYPE headrace_unpublished_versions gauge") == 1
    found = [line for line in text.splitlines() if line.startswith("headrace_unpublished_versions")]
    assert found == [
        'headrace_unpublished_versions{stream="a"} 4.0',
        'headrace_unpublished_versions{stream="b"} 3.0',
    ]


def test_labels_are_escaped_and_a_counter_is_one() -> None:
    text = page([lines([f.WAITING(1, 'a "quoted" \\ \n name', "s", "k"), f.LANDED(2, "s", "t", "good")])])
    found = {family.name: family for family in text_string_to_metric_families(text)}
    [waiting] = found["headrace_source_waiting_messages"].samples
    assert waiting.labels["stream"] == 'a "quoted" \\ \n name'
    assert found["headrace_landed_rows"].type == "counter"


def test_more_series_than_the_bound_are_counted_and_left_out() -> None:
    many = [f.RUNS(1, f"job_{n}", "started") for n in range(MOST_SERIES + 5)]
    found = {one.name: one for one in text_string_to_metric_families(page([lines(many)]))}
    assert len(found["headrace_runs"].samples) == MOST_SERIES
    assert found["headrace_exporter_series_left_out"].samples[0].value == 5


def test_lag_is_told_by_partition_and_of_very_many_only_the_sum() -> None:
    def lag(count: int) -> list[Reading]:
        by_cursor = {f"kafka/orders/AbC/{n}": n for n in range(count)}
        position = Position({"kafka/orders/AbC/1": 40})
        return list(partitions("g", "orders", Backlog(sum(by_cursor.values()), 0, by_cursor), position))

    assert lag(3) == [
        f.LAG_SUM(3, "g", "orders"),
        f.LAG(0, "g", "orders", "0"),
        f.LAG(1, "g", "orders", "1"),
        f.OFFSET(40, "g", "orders", "1"),
        f.LAG(2, "g", "orders", "2"),
    ]
    assert len(lag(MOST_PARTITIONS)) == MOST_PARTITIONS + 2
    assert [one.family for one in lag(MOST_PARTITIONS + 1)] == [f.LAG_SUM]


def test_what_has_landed_only_grows_whatever_an_erasure_takes() -> None:
    grown = Grown()
    assert [grown.seen("good", rows) for rows in (1_000, 1_010, 400, 405)] == [0, 10, 10, 15]


def test_streams_that_come_and_go_are_followed() -> None:
    pipelines: dict[str, Pipeline] = dict(discover().pipelines)
    closed: list[str] = []

    def parts(pipeline: Pipeline) -> list[Part]:
        name = pipeline.name
        return [Part("lake", lambda: [f.UNPUBLISHED(0, name)], name, close=lambda: closed.append(name))]

    exporter = Exporter([], lambda: pipelines, parts, seconds=0.1)
    exporter.follow()
    first = exporter.kept
    assert {one.part.stream for one in first} == {"events", "metrics"}
    exporter.follow()
    assert exporter.kept == first, "nothing changed"
    pipelines["events"] = replace(pipelines["events"], owner="team:other")
    del pipelines["metrics"]
    exporter.follow()
    assert [one.part.stream for one in exporter.kept] == ["events"]
    assert exporter.kept[0] is not first[0]
    eventually(lambda: sorted(closed) == ["events", "metrics"], 10, "closing what was before")
    exporter.stop()


def test_what_the_collector_counts_is_passed_on_and_nothing_else_of_it() -> None:
    said = [
        b'# TYPE headrace_collector_events_total counter\nheadrace_collector_events_total{outcome="accepted"} 7\n'
        b"# TYPE headrace_lake_rows gauge\nheadrace_lake_rows 99\n"
        b"# TYPE headrace_collector_request_seconds histogram\n"
        b'headrace_collector_request_seconds_bucket{le="+Inf"} 3\n'
        b"headrace_collector_request_seconds_sum 0.5\nheadrace_collector_request_seconds_count 3\n"
    ]

    def fetch() -> bytes:
        if not said:
            raise Retriable("it is away")
        return said[0]

    own = CollectorsOwn(fetch)
    exporter = Exporter([])
    exporter.registry.register(own)
    assert list(own.measure()) == []
    found = told(exporter)
    assert found["headrace_collector_events_total", (("outcome", "accepted"),)] == 7
    assert found["headrace_collector_request_seconds_count", ()] == 3
    assert ("headrace_lake_rows", ()) not in found
    said.clear()
    with pytest.raises(Retriable):
        own.measure()
    assert ("headrace_collector_request_seconds_count", ()) not in told(exporter)


def test_the_process_itself_is_told() -> None:
    assert told(Exporter([]))["process_resident_memory_bytes", ()] > 0
