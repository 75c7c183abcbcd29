"""The measurements of a real installation, held against ``headrace status`` and against the input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import event, eventually
from commands import run_text
from conftest import Stack
from headrace.config.settings import Settings
from headrace.health.check_history import Evaluation
from headrace.health.run_states import RunStates
from headrace.pipelines import discover_for
from headrace.producers.kafka import KafkaProducer
from headrace.streams.drain import drain
from headrace.streams.stream import Stream
from headrace.telemetry import platform
from headrace.telemetry.background import Kept
from headrace.telemetry.exporter import Exporter, exporter

TOPIC, GROUP = "analytics_events", "headrace-events"
GOOD, BAD, LATER = 12, 3, 5
EVENTS = ("events", "events", "good")


@pytest.fixture(scope="module")
def config(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An installation with a lake of its own on the stack of this process."""
    home = tmp_path_factory.mktemp("telemetry home")
    own = {
        "home": home,
        "lake_uri": str(home / "lake"),
        "raw_database": "raw_telemetry",
        "dagster_home": home / "dagster",
    }
    return stack.settings.model_copy(update=own)


@dataclass(frozen=True)
class Input:
    """What landed, and by whom.

    Attributes:
        stream: The stream.
        good: Good rows, with those of other tests in the same topic.
        bad: Rejected rows likewise.
    """

    stream: Stream
    good: int
    bad: int


@pytest.fixture(scope="module")
def landed(config: Settings) -> Iterator[Input]:
    """Events that landed, some that were rejected, and some that still wait in the topic."""
    stream = Stream(discover_for(config).pipelines["events"], config)
    source, tables = f"kafka/{TOPIC}", (stream.lake.good, stream.lake.rejected)
    list(drain(stream, source))
    good, bad = (table.extent().rows for table in tables)
    producer = KafkaProducer(config.kafka_servers, TOPIC)
    producer.send([event(event_id=f"telemetry-{n}") for n in range(GOOD)] + [b"no event"] * BAD)
    producer.flush()
    list(drain(stream, source))
    producer.send([event(event_id=f"telemetry-later-{n}") for n in range(LATER)])
    producer.flush()
    producer.close()
    yield Input(stream, good + GOOD, bad + BAD)
    stream.close()


@pytest.fixture(scope="module")
def looked(config: Settings, landed: Input) -> Iterator[Exporter]:
    """An exporter of which every part was looked at once, by no thread of its own."""
    made = exporter(config)
    made.follow()
    for one in made.kept:
        if one.part.stream:  # those of streams have been started
            eventually(lambda kept=one: kept.last, 60, f"a look at {one.part.labels}")  # type: ignore[misc]
        else:
            one.look()
    yield made
    made.stop()


def values(made: Exporter) -> dict[tuple[str, ...], float]:
    return {(one.family.name, *one.labels): one.value for one in made.readings()}


def part(made: Exporter, *labels: str) -> Kept:
    [found] = [one for one in made.kept if one.part.labels == labels]
    return found


def test_every_number_is_that_of_headrace_status(
    stack: Stack, config: Settings, landed: Input, looked: Exporter
) -> None:
    own = {
        "HEADRACE_HOME": str(config.home),
        "HEADRACE_LAKE_URI": config.lake_uri,
        "HEADRACE_RAW_DATABASE": config.raw_database,
        "DAGSTER_HOME": str(config.dagster_home),
    }
    told = run_text("status", "events", "--json", env={**stack.environment, **own}, timeout=120)
    [said] = json.loads(told.stdout)["streams"]
    found = values(looked)
    assert said["sources"][f"kafka/{TOPIC}"] == LATER, "the test has something to compare"
    for source, waiting in said["sources"].items():
        kind = source.partition("/")[0]
        assert found["headrace_source_waiting_messages", "events", source, kind] == waiting, source
    for family, value in {
        ("headrace_lake_version", *EVENTS): said["lake_version"],
        ("headrace_lake_rows", *EVENTS): said["lake_rows"],
        ("headrace_lake_rows", "events", "events_rejected", "rejected"): said["rejected_rows"],
        ("headrace_warehouse_rows", "events", "events"): said["warehouse_rows"],
        ("headrace_unpublished_versions", "events"): said["unpublished_versions"],
        ("headrace_stale_days", "events"): said["touched_days"],
        ("headrace_last_landed_timestamp_seconds", "events"): datetime.fromisoformat(
            said["last_landed"]
        ).timestamp(),
        ("headrace_stale_since_timestamp_seconds", "events"): datetime.fromisoformat(
            said["touched_since"]
        ).timestamp(),
    }.items():
        assert found[family] == value, family


def test_every_number_is_that_of_the_input(config: Settings, landed: Input, looked: Exporter) -> None:
    found = values(looked)
    assert found["kafka_consumergroup_lag_sum", GROUP, TOPIC] == LATER
    lags = {key: value for key, value in found.items() if key[0] == "kafka_consumergroup_lag"}
    assert sum(value for key, value in lags.items() if key[2] == TOPIC) == LATER
    assert found["headrace_lake_rows", *EVENTS] == landed.good
    for window in ("recent", "day"):
        arrived = [found["headrace_arrived_rows", "events", window, kind] for kind in ("good", "rejected")]
        assert arrived == [landed.good, landed.bad], window
    assert found["headrace_warehouse_rows", "events", "events_rejected"] == landed.bad
    assert found["headrace_model_builds", "events"] == 0
    assert ("headrace_last_build_timestamp_seconds", "events") not in found
    files = list(Path(config.lake, "events").rglob("*.parquet"))
    assert found["headrace_lake_files", *EVENTS] == len(files)
    assert found["headrace_lake_bytes", *EVENTS] == sum(path.stat().st_size for path in files)
    age = datetime.now(UTC).timestamp() - found["headrace_lake_last_commit_timestamp_seconds", *EVENTS]
    assert 0 <= age < 600
    assert found["headrace_limit_behind_seconds", "events"] == config.max_behind_seconds
    assert found["headrace_limit_reject_ratio", "events", "error"] == config.error_reject_rate
    assert found["headrace_limit_lag_messages", "events"] == config.max_lag_messages


def test_clickhouse_is_told_by_its_own_tables(config: Settings, landed: Input, looked: Exporter) -> None:
    before = values(looked)
    rows = {key: value for key, value in before.items() if key[0] == "headrace_clickhouse_rows"}
    assert rows["headrace_clickhouse_rows", config.raw_database, "events"] == landed.good
    assert before["headrace_clickhouse_parts", config.raw_database, "events"] >= 1
    with pytest.raises(Exception, match="no_such_table"):
        landed.stream.warehouse.query("SELECT * FROM no_such_table")
    kept = part(looked, "clickhouse", "", "")
    kept.look()
    after = values(looked)
    assert (
        after["headrace_clickhouse_queries_total", "all"] > before["headrace_clickhouse_queries_total", "all"]
    )
    errors = "headrace_clickhouse_errors_total", "UNKNOWN_TABLE"
    assert after[errors] > before.get(errors, 0)


def test_what_is_away_is_down_and_the_others_go_on(config: Settings, landed: Input) -> None:
    away = config.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1", "home": config.home / "other"})
    made = exporter(away)
    made.follow()
    try:
        down = part(made, "source", "events", f"kafka/{TOPIC}")
        eventually(lambda: down.last, 60, "a look at the broker")
        eventually(lambda: part(made, "lake", "events", "").last, 60, "a look at the lake")
        found = values(made)
    finally:
        made.stop()
    assert down.last is not None
    assert "no Kafka broker answers" in down.last.wrong
    assert found["headrace_exporter_part_up", "source", "events", f"kafka/{TOPIC}"] == 0
    assert found["headrace_exporter_part_up", "lake", "events", ""] == 1
    assert found["headrace_lake_rows", *EVENTS] == landed.good
    assert not [key for key in found if key[0].startswith("kafka_consumergroup") and key[2] == TOPIC]


def test_runs_and_checks_are_told_as_health_reads_them(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    states = RunStates(
        {("ingest_events", "STARTED"): 1, ("ingest_events", "FAILURE"): 2},
        now - timedelta(minutes=3),
        {"SENSOR": now},
    )
    monkeypatch.setattr(platform, "run_states", lambda _: states)
    found = {(one.family.name, *one.labels): one.value for one in platform.runs(config)}
    assert found["headrace_runs", "ingest_events", "failure"] == 2
    assert found["headrace_runs_oldest_queued_timestamp_seconds",] == (now - timedelta(minutes=3)).timestamp()
    assert found["headrace_daemon_heartbeat_timestamp_seconds", "sensor"] == now.timestamp()
    checks = [
        Evaluation("lake/events", "lag", True, "warning", "", now),
        Evaluation("lake/events", "freshness", False, "error", "", now),
        *(Evaluation("lake/events", f"own_{n}", False, "warning", "", now) for n in range(150)),
    ]
    monkeypatch.setattr(platform, "present_checks", lambda *_: checks)
    told: list[Any] = list(platform.checks(config))
    found = {(one.family.name, *one.labels): one.value for one in told}
    assert found["headrace_checks", "passed", ""] == 1
    assert (found["headrace_checks", "failed", "error"], found["headrace_checks", "failed", "warning"]) == (
        1,
        150,
    )
    named = [one for one in told if one.family.name == "headrace_check_failed"]
    assert len(named) == platform.MOST_NAMED


def test_an_installation_that_knows_nothing_yet_is_told_without_an_error(
    tmp_path: Path, stack: Stack
) -> None:
    config = stack.settings.model_copy(update={"home": tmp_path, "dagster_home": tmp_path / "dagster"})
    assert list(platform.runs(config)) == []
    assert list(platform.collector(config)) == []
    assert platform.told_by_collector(config, 1.0) == b""
    assert {one.value for one in platform.checks(config)} == {0}
    assert [one.family.name for one in platform.services(config)] == ["headrace_info"]
