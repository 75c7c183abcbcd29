"""What others have filled is shown as filled, and partitions begin where the data do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    Definitions,
    SensorResult,
    SkipReason,
    build_schedule_context,
    build_sensor_context,
    job,
    op,
)

from builders import event
from headrace.config.settings import Settings, load_settings
from headrace.core.days import ranges
from headrace.orchestration import first_day, partitions, schedules
from headrace.orchestration.catalogue import Filled, catalogue_sensor, unreported
from headrace.orchestration.resources import streams_resource
from headrace.pipelines import Pipeline, discover
from headrace.producers.kafka import KafkaProducer
from headrace.streams.drain import drain
from headrace.streams.stream import Stream, streams

FIRST, SECOND = date(2015, 5, 17), date(2015, 5, 18)
MARTS = [AssetKey(["marts", "event_metrics"]), AssetKey(["marts", "events_by_page"])]
WAREHOUSE, LAKE, REJECTED = (
    AssetKey(["warehouse", "events"]),
    AssetKey(["lake", "events"]),
    AssetKey(["warehouse", "events_rejected"]),
)
FILLED = Filled({FIRST: 3, SECOND: 4}, frozenset({FIRST}), 7, 7, 2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path)


@pytest.fixture
def pipeline() -> Pipeline:
    return discover().pipelines["events"]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_day, "watched", True)


def shown(found: Iterator[AssetMaterialization]) -> set[tuple[str, str | None]]:
    return {(one.asset_key.to_user_string(), one.partition) for one in found}


def test_what_nobody_has_reported_is_reported_once(pipeline: Pipeline) -> None:
    with DagsterInstance.ephemeral() as instance:
        found = [*unreported(instance, pipeline, MARTS, FILLED)]
        assert shown(iter(found)) == {
            ("lake/events", None),
            ("warehouse/events_rejected", None),
            ("warehouse/events", "2015-05-17"),
            ("warehouse/events", "2015-05-18"),
            ("marts/event_metrics", "2015-05-17"),
            ("marts/events_by_page", "2015-05-17"),
        }
        rows = {
            one.asset_key: one.metadata["dagster/row_count"].value
            for one in found
            if "dagster/row_count" in one.metadata
        }
        assert rows == {LAKE: 7, REJECTED: 2, WAREHOUSE: 7}, "of the table, whatever a day holds"
        for one in found:
            instance.report_runless_asset_event(one)
        assert not [*unreported(instance, pipeline, MARTS, FILLED)]
        more = replace(FILLED, built=frozenset({FIRST, SECOND}), lake_rows=9)
        during = shown(unreported(instance, pipeline, MARTS, more, landing=True))
        assert ("lake/events", None) not in during, "the run will tell"
        assert shown(unreported(instance, pipeline, MARTS, more)) == {
            ("lake/events", None),
            ("marts/event_metrics", "2015-05-18"),
            ("marts/events_by_page", "2015-05-18"),
        }


def test_an_empty_stream_stays_never_materialized(pipeline: Pipeline) -> None:
    with DagsterInstance.ephemeral() as instance:
        assert not [*unreported(instance, pipeline, MARTS, Filled({}, frozenset(), -1, 0, 0))]


def test_all_rejected_shows_the_rejected_rows(pipeline: Pipeline) -> None:
    with DagsterInstance.ephemeral() as instance:
        found = [*unreported(instance, pipeline, MARTS, Filled({}, frozenset(), 3, 0, 31_106))]
        assert {one.asset_key: one.metadata["dagster/row_count"].value for one in found} == {
            LAKE: 0,
            REJECTED: 31_106,
        }


def test_what_a_command_has_landed_is_shown(adopted: Settings, defs: Definitions) -> None:
    producer = KafkaProducer(adopted.kafka_bootstrap_servers, "analytics_events")
    producer.send([event(event_id=f"shown-{n}", occurred_at="2026-02-05T10:00:00Z") for n in range(3)])
    producer.flush()
    producer.close()
    found = streams(adopted)["events"]
    for _ in drain(found, "kafka/analytics_events"):
        pass
    found.close()
    catalogue: Any = defs.get_repository_def().get_sensor_def("events_catalogue")
    with DagsterInstance.ephemeral() as instance:
        for _ in range(20):
            ticked = catalogue.evaluate_tick(build_sensor_context(instance=instance))
            for one in ticked.asset_events:
                instance.report_runless_asset_event(one)
            if not ticked.asset_events:
                break
        assert "2026-02-05" in instance.get_materialized_partitions(WAREHOUSE)
        last = instance.get_latest_materialization_event(LAKE)
        assert last is not None and last.asset_materialization is not None
        rows = last.asset_materialization.metadata["dagster/row_count"].value
        assert isinstance(rows, int) and rows >= 3


def test_partitions_begin_with_what_was_seen_where_they_can_be_loaded_again(
    settings: Settings, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = settings.event_time_min.date()
    assert first_day.first_day(pipeline, settings) == least
    first_day.note(settings, "events", FIRST)
    assert first_day.first_day(pipeline, settings) == least, "an earlier day would have no partition"
    monkeypatch.setattr(first_day, "watched", True)
    assert first_day.first_day(pipeline, settings) == FIRST
    assert first_day.first_day(discover().pipelines["metrics"], settings) == least
    first_day.note(settings, "metrics", SECOND)
    first_day.note(settings, "events", date(1999, 1, 1))
    assert first_day.seen(settings) == {"events": date(1999, 1, 1), "metrics": SECOND}
    assert first_day.first_day(pipeline, settings) == least


@pytest.mark.parametrize("text", ["", "[]", "{", '{"events": 5}', '{"events": "soon"}', "null"])
def test_a_note_that_is_garbage_is_none(
    settings: Settings, pipeline: Pipeline, watched: None, text: str
) -> None:
    (settings.home / "first_days.json").write_text(text)
    assert first_day.first_day(pipeline, settings) == settings.event_time_min.date()
    first_day.note(settings, "events", FIRST)
    assert first_day.first_day(pipeline, settings) == FIRST


def test_a_declared_start_is_kept_and_what_was_before_is_rejected(
    settings: Settings, pipeline: Pipeline, watched: None
) -> None:
    declared = replace(pipeline, start=SECOND)
    first_day.note(settings, "events", FIRST)
    assert first_day.first_day(declared, settings) == SECOND
    assert Stream(declared, settings).limits.event_time_min == datetime(2015, 5, 18, tzinfo=UTC)
    long_ago = replace(pipeline, start=date(1980, 1, 1))
    assert first_day.first_day(long_ago, settings) == settings.event_time_min.date()
    assert Stream(long_ago, settings).limits.event_time_min == settings.event_time_min


@pytest.mark.parametrize("start", ["2015-05-17", datetime(2015, 5, 17), 20150517])
def test_a_start_that_is_no_day_is_refused(pipeline: Pipeline, start: Any) -> None:
    with pytest.raises(ValueError, match=r"write it like date\(2024, 3, 1\)"):
        replace(pipeline, start=start)


def test_there_is_a_partition_for_each_day_from_the_first_to_tomorrow() -> None:
    today = datetime.now(UTC).date()
    keys = partitions.daily(today - timedelta(days=2)).get_partition_keys()
    assert keys == [str(today + timedelta(days=n)) for n in (-2, -1, 0, 1)]


def looks(
    pipeline: Pipeline,
    settings: Settings,
    begin: date,
    monkeypatch: pytest.MonkeyPatch,
    filled: Filled,
    times: int,
) -> list[SensorResult | SkipReason]:
    monkeypatch.setattr(Filled, "of", classmethod(lambda cls, stream: filled))
    made: Any = catalogue_sensor(pipeline, streams_resource(settings), MARTS, begin, settings)
    with DagsterInstance.ephemeral() as instance:
        return [made(build_sensor_context(instance=instance)) for _ in range(times)]


def test_an_earlier_day_has_the_definitions_loaded_again(
    adopted: Settings, pipeline: Pipeline, watched: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = adopted.model_copy(update={"home": tmp_path})
    looks(pipeline, own, SECOND, monkeypatch, FILLED, 1)
    assert not first_day.asked_to_load_again(own), "more may be on its way"
    looks(pipeline, own, SECOND, monkeypatch, FILLED, 2)
    assert first_day.asked_to_load_again(own)
    assert not first_day.asked_to_load_again(own), "once"
    assert first_day.first_day(pipeline, own) == FIRST
    looks(pipeline, own, FIRST, monkeypatch, FILLED, 3)
    assert not first_day.asked_to_load_again(own), "it begins there already"


def test_nobody_is_asked_where_nobody_watches(
    adopted: Settings, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = adopted.model_copy(update={"home": tmp_path})
    looks(pipeline, own, SECOND, monkeypatch, FILLED, 3)
    assert not first_day.asked_to_load_again(own)


def test_a_day_before_the_first_is_not_closed(pipeline: Pipeline) -> None:
    @op
    def nothing() -> None: ...

    @job
    def rebuild() -> None:
        nothing()

    now = datetime(2026, 3, 10, 1, 20, tzinfo=UTC)

    def ticked(begin: date) -> Any:
        context = build_schedule_context(instance=DagsterInstance.ephemeral(), scheduled_execution_time=now)
        return schedules.daily_close(pipeline, rebuild, begin).evaluate_tick(context)

    assert "begins on 2026-03-10" in (ticked(date(2026, 3, 10)).skip_message or "")
    assert len(ticked(date(2026, 3, 9)).run_requests) == 1


def test_a_range_does_not_reach_before_the_calendar(settings: Settings) -> None:
    assert [*ranges([FIRST], FIRST, 3, 1)] == [(FIRST, SECOND)]
