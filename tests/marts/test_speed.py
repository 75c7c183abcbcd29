"""The speed layer folds every insert once, and the live views answer from it until the batch layer has caught up."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from polars.testing import assert_frame_equal

from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS
from headrace.core.batch import Chunk
from headrace.lake.arrow import to_arrow

from . import rows
from .conftest import Warehouse
from .oracle import Oracle, assert_equal

FAMILIES = ("event_metrics", "performance_metrics", "metric_windows", "session_metrics")
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(autouse=True)
def by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that begins after midnight belongs to the new day, whenever the file was imported."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC).replace(microsecond=0))


def recent(seed: int, count: int = 400) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and measurements of the last two days, none of them twice."""
    chance = random.Random(seed)
    times = [NOW - timedelta(seconds=chance.randrange(60, 2 * 86_400)) for _ in range(count)]
    events = [
        {
            "event_id": f"{seed}-{n}",
            "event_type": chance.choice(["page_view", "click"]),
            "occurred_at": at,
            "session_id": f"s{chance.randrange(40)}",
            "user_id": chance.choice([None, "ann", "bob"]),
            "channel": chance.choice(["web", "mobile"]),
            "page_url": chance.choice([None, "https://x.example/a?q=1", "https://x.example/b"]),
            "duration_ms": chance.choice([None, 2_500.0, chance.uniform(0, 9_000)]),
        }
        for n, at in enumerate(times)
    ]
    metrics = [
        {
            "metric_id": f"{seed}-{n}",
            "name": chance.choice(["requests", "heat"]),
            "kind": "counter" if chance.random() < 0.5 else "histogram",
            "value": float(chance.randrange(100)),
            "source": "probe",
            "dimensions": [{"key": "host", "value": chance.choice("ab")}],
            "occurred_at": at,
        }
        for n, at in enumerate(times)
    ]
    return rows.frame(EVENTS, events), rows.frame(METRICS, metrics)


def events_at(*moments: tuple[str, str, datetime], **more: object) -> pl.DataFrame:
    """Events with these ids, sessions and times."""
    common = {"event_type": "page_view", "channel": "web", **more}
    return rows.frame(
        EVENTS, [{"event_id": i, "session_id": s, "occurred_at": at, **common} for i, s, at in moments]
    )


def load(warehouse: Warehouse, landed: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    warehouse.load(EVENTS.table, landed[0])
    warehouse.load(METRICS.table, landed[1])


def build(warehouse: Warehouse, **variables: object) -> None:
    """Rebuild all days, and note it as an ingest platform does."""
    days = [(NOW - timedelta(days=n)).date() for n in (3, 2, 1, 0)]
    began = datetime.now(UTC)
    span = {"start_date": str(days[0]), "end_date": str(days[-1]), "lateness_seconds": 0}
    assert warehouse.dbt("run", "--select", "tag:daily", **span, **variables)
    for contract in (EVENTS, METRICS):
        warehouse.adapter.refreshed(contract.table, "lake", 1, days, began)


@pytest.fixture(scope="module")
def warehouse(new_warehouse: Callable[..., Warehouse]) -> Warehouse:
    made = new_warehouse("speedy")
    assert made.dbt("run", lateness_seconds=0)
    return made


def test_live_is_exact_before_and_after_the_batch_layer_has_caught_up(warehouse: Warehouse) -> None:
    first, second = recent(1), recent(2)
    load(warehouse, first)
    for name in FAMILIES:
        assert warehouse.mart(name).is_empty(), "the batch layer has built nothing yet"
        assert_equal(warehouse.mart(f"{name}_live"), Oracle(*first).mart(name))
        speed = warehouse.query(f"select * from {{db}}_speed.{name}_speed order by all")
        assert_frame_equal(speed, warehouse.mart(f"{name}_live"))
    build(warehouse)
    for name in FAMILIES:
        assert_equal(warehouse.mart(f"{name}_live"), Oracle(*first).mart(name))
        assert_frame_equal(warehouse.mart(f"{name}_live"), warehouse.mart(name))
    load(warehouse, second)
    both = tuple(pl.concat(pair) for pair in zip(first, second, strict=True))
    # what came since, of windows and sessions that were complete, waits for the next build
    for name in FAMILIES:
        assert_frame_equal(warehouse.mart(f"{name}_live"), warehouse.mart(name))
    build(warehouse)
    for name in FAMILIES:
        assert_equal(warehouse.mart(f"{name}_live"), Oracle(both[0], both[1]).mart(name))


def test_sessions_are_put_together_without_a_sort_of_all_of_them(warehouse: Warehouse) -> None:
    """A sort, and a window function with it, holds the events of every session that the speed layer reaches."""
    load(warehouse, recent(5))
    of_all = "select max(events) as events, max(pages) as pages from {db}_speed.session_metrics_speed"
    assert warehouse.query(f"{of_all} settings max_rows_to_sort = 1")["events"].to_list() > [1]
    with pytest.raises(DatabaseError, match="TOO_MANY_ROWS"):
        warehouse.query(f"{of_all} group by session_id order by session_id settings max_rows_to_sort = 1")
    of_one = "explain estimate select * from {db}_speed.session_metrics_speed where session_id = 'nobody'"
    assert warehouse.query(of_one)["rows"].sum() == 0


@pytest.mark.long
def test_a_repeated_insert_is_folded_once_and_a_repeated_event_until_the_batch_layer_corrects_it(
    new_warehouse: Callable[..., Warehouse],
) -> None:
    warehouse = new_warehouse("repeated")
    assert warehouse.dbt("run", lateness_seconds=0)
    events, metrics = recent(3)
    for _ in range(2):  # the publisher died before it had noted the version
        warehouse.adapter.insert(EVENTS.table, Chunk.of(to_arrow(events, EVENTS.table)), "the same token")
    assert_equal(warehouse.mart("event_metrics_live"), Oracle(events, metrics).mart("event_metrics"))
    warehouse.load(EVENTS.table, events.head(10))  # the producer sent ten events twice
    counted = "select sum(events) as n from {db}.event_metrics_live"
    assert warehouse.query(counted)["n"].to_list() == [events.height + 10]
    build(warehouse)
    assert warehouse.query(counted)["n"].to_list() == [events.height]
    assert_equal(warehouse.mart("event_metrics_live"), Oracle(events, metrics).mart("event_metrics"))


def again(landed: pl.DataFrame, day: str, days: int, seconds: int) -> pl.DataFrame:
    """What landed, sent once more: for another day, with other content, landing later."""
    moved = timedelta(days=days)
    other: dict[str, object] = {"channel": "chat"} if "channel" in landed.columns else {"value": -1.0}
    return landed.with_columns(
        pl.col("occurred_at") + moved,
        pl.col(day) + moved,
        pl.col("_ingested_at") + timedelta(seconds=seconds),
        **{name: pl.lit(value).cast(landed.schema[name]) for name, value in other.items()},
    )


def sent_again(seed: int) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
    """Events and measurements as they are published, with repeats within a day of each and beyond."""
    published = []
    for contract, landed in zip((EVENTS, METRICS), recent(seed, 300), strict=True):
        day, newest = contract.partition, landed["_ingested_at"].max()
        early = landed.filter(pl.col("occurred_at") < NOW - timedelta(days=1, minutes=5)).head(20)
        late = landed.filter(pl.col("occurred_at") > NOW - timedelta(hours=20)).head(60)
        blocks = [
            landed,
            pl.concat([again(late.head(20), day, -1, 60), again(late.head(10), day, 0, 61)]),
            again(late.tail(20), day, -2, 62),  # too far apart: they count
            again(early, day, 1, 63),
            # a block of its own repeats, of which the second row landed first
            pl.concat([again(one.tail(30), day, 0, second) for one, second in ((landed, 99), (landed, 98))])
            .with_columns(pl.col(contract.key) + "-new"),
        ]  # fmt: skip
        assert newest is not None and sum(map(len, blocks)) > landed.height
        published.append(blocks)
    return published[0], published[1]


def publish(warehouse: Warehouse, blocks: tuple[list[pl.DataFrame], list[pl.DataFrame]]) -> None:
    for contract, parts in zip((EVENTS, METRICS), blocks, strict=True):
        for n, part in enumerate(parts):
            for _ in range(2):  # the publisher repeats what it is not sure of
                chunk = Chunk.of(to_arrow(part, contract.table))
                warehouse.adapter.insert(contract.table, chunk, f"{contract.name}:{n}")


@pytest.mark.long
def test_a_repeat_on_another_day_counts_once_before_the_batch_layer_has_caught_up(
    new_warehouse: Callable[..., Warehouse],
) -> None:
    once = {"lateness_seconds": 0, "repeat_days": 1}
    warehouse = new_warehouse("other_days")
    assert warehouse.dbt("run", **once)
    blocks = sent_again(6)
    publish(warehouse, blocks)
    landed = pl.concat(blocks[0]), pl.concat(blocks[1])
    oracle = Oracle(*landed, repeat_days=1)
    by_reach = [Oracle(*landed, repeat_days=days).events.height for days in (0, 1, 7)]
    assert landed[0].height > by_reach[0] > by_reach[1] > by_reach[2], "not every kind of repeat is there"
    for name in FAMILIES:
        assert warehouse.mart(name).is_empty(), "the batch layer has built nothing yet"
        assert_equal(warehouse.mart(f"{name}_live"), oracle.mart(name))
    build(warehouse, repeat_days=1)
    for name in FAMILIES:
        assert_equal(warehouse.mart(f"{name}_live"), oracle.mart(name))
    everything = warehouse.query("select count() as n from {db}_speed.speed_event_keys")
    assert everything["n"].to_list() == [landed[0].height]


@pytest.mark.long
def test_views_that_are_made_anew_leave_the_same_out(new_warehouse: Callable[..., Warehouse]) -> None:
    once = {"lateness_seconds": 0, "repeat_days": 1}
    warehouse = new_warehouse("made_anew")
    blocks = sent_again(8)
    publish(warehouse, blocks)
    assert warehouse.dbt("run", **once)
    oracle = Oracle(pl.concat(blocks[0]), pl.concat(blocks[1]), repeat_days=1)
    for name in FAMILIES:
        assert_equal(
            warehouse.query(f"select * from {{db}}_speed.{name}_speed order by all"), oracle.mart(name)
        )


def test_a_speed_layer_that_looks_for_no_repeats_is_seen(
    project_copy: Path, new_warehouse: Callable[..., Warehouse]
) -> None:
    macro = project_copy / "macros/speed.sql"
    correct = macro.read_text()
    macro.write_text(correct.replace("and one.2 < {{", "and one.2 > {{"))
    assert macro.read_text() != correct
    warehouse = new_warehouse("careless", project_copy)
    assert warehouse.dbt("run", "--select", "+event_metrics_live", lateness_seconds=0, repeat_days=1)
    blocks = sent_again(6)
    publish(warehouse, blocks)
    oracle = Oracle(pl.concat(blocks[0]), pl.concat(blocks[1]), repeat_days=1)
    with pytest.raises(AssertionError):
        assert_equal(warehouse.mart("event_metrics_live"), oracle.mart("event_metrics"))


def test_history_is_left_to_the_batch_layer(warehouse: Warehouse) -> None:
    old = rows.frame(
        EVENTS,
        [
            {
                "event_id": "old",
                "event_type": "click",
                "session_id": "s",
                "channel": "web",
                "occurred_at": datetime(2024, 5, 1, tzinfo=UTC),
            }
        ],
    )
    warehouse.load(EVENTS.table, old)
    speed = "select count() as n from {db}_speed.event_metrics_speed where event_date = '2024-05-01'"
    live = "select sum(events) as n from {db}.event_metrics_live where event_date = '2024-05-01'"
    assert warehouse.query(speed)["n"].to_list() == [0]
    assert warehouse.query(live)["n"].to_list() == [0]
    assert warehouse.dbt(
        "run",
        "--select",
        "events_history",
        "event_metrics",
        start_date="2024-05-01",
        end_date="2024-05-01",
        lateness_seconds=0,
    )
    assert warehouse.query(live)["n"].to_list() == [1]


@pytest.mark.long
def test_a_session_that_goes_on_past_the_watermark_is_one_row_with_all_its_events(
    new_warehouse: Callable[..., Warehouse],
) -> None:
    warehouse = new_warehouse("spanning")
    assert warehouse.dbt("run", lateness_seconds=0)
    yesterday = NOW.replace(hour=0, minute=0, second=0) - timedelta(seconds=5)
    before = events_at(
        ("a", "spans", yesterday),
        ("b", "spans", NOW - timedelta(seconds=2)),
        ("c", "ended", NOW - timedelta(seconds=3)),
        ("d", "moved", yesterday + timedelta(seconds=6)),
        user_id="ann",
    )
    warehouse.load(EVENTS.table, before)
    build(warehouse)
    nothing = rows.frame(METRICS, [])
    assert_equal(warehouse.mart("session_metrics_live"), Oracle(before, nothing).mart("session_metrics"))
    late = datetime.now(UTC) + timedelta(seconds=5)
    after = events_at(
        ("e", "spans", late),
        ("f", "new", late),
        # its first event lands after a build that filed it under its second day
        ("g", "moved", yesterday),
        ("h", "moved", late),
        event_type="purchase",
    )
    warehouse.load(EVENTS.table, after)
    both = pl.concat([before, after])
    live, batch = warehouse.mart("session_metrics_live"), warehouse.mart("session_metrics")
    assert_equal(live, Oracle(both, nothing).mart("session_metrics"))
    assert live["session_id"].is_unique().all()
    assert batch["events"].sum() == before.height, "the batch layer knows no more"
    build(warehouse)
    assert_frame_equal(warehouse.mart("session_metrics_live"), warehouse.mart("session_metrics"))
    assert_equal(warehouse.mart("session_metrics"), Oracle(both, nothing).mart("session_metrics"))


@pytest.mark.long
@pytest.mark.parametrize(("repeat_days", "speed_repeat_days"), [(1, 30), (0, 30), (7, 0)])
def test_an_event_sent_again_with_another_time_counts_once_in_its_session(
    new_warehouse: Callable[..., Warehouse], repeat_days: int, speed_repeat_days: int
) -> None:
    """With 0 days of either, nothing is looked up, and it counts until the batch layer has caught up."""
    warehouse = new_warehouse(f"sent_again_{repeat_days}_{speed_repeat_days}")
    variables = {"repeat_days": repeat_days, "speed_repeat_days": speed_repeat_days}
    assert warehouse.dbt("run", "--select", "+session_metrics_live", lateness_seconds=0, **variables)
    events, metrics = recent(4, 100)
    for _ in range(2):
        warehouse.adapter.insert(EVENTS.table, Chunk.of(to_arrow(events, EVENTS.table)), "the same token")
    warehouse.load(EVENTS.table, events.head(20))
    exact = Oracle(events, metrics).mart("session_metrics")
    assert_equal(warehouse.mart("session_metrics_live"), exact)
    moved = events.head(10).with_columns(
        pl.col("occurred_at") + timedelta(microseconds=1), pl.col("_ingested_at") + timedelta(seconds=1)
    )
    warehouse.load(EVENTS.table, moved)
    live = warehouse.mart("session_metrics_live")
    keys = warehouse.query("select count() as n from {db}_speed.speed_event_keys")["n"].item()
    if repeat_days and speed_repeat_days:
        assert_equal(live, exact)
        assert keys == events.height + 20 + moved.height
        return
    pairs = live.join(exact, on=["session_date", "session_id"], suffix="_exact", validate="1:1")
    assert pairs.height == live.height == exact.height
    more = pairs["events"].cast(pl.Int64) - pairs["events_exact"]
    assert more.min() == 0 and more.sum() == moved.height, "off by the repeats, and in no other session"
    assert keys == 0


def test_sessions_are_filed_right_as_far_back_as_the_speed_layer_answers(
    new_warehouse: Callable[..., Warehouse],
) -> None:
    """A session id in use every day is a row of two days and then a row for each day."""
    warehouse = new_warehouse("never_ends")
    assert warehouse.dbt("run", lateness_seconds=0)
    noon = NOW.replace(hour=0, minute=0, second=1)
    beats = [(f"{s}{n}", s, noon - timedelta(days=n)) for s in "ab" for n in range(9) if s == "a" or n != 4]
    landed = events_at(*beats)
    warehouse.load(EVENTS.table, landed)
    reach = NOW.date() - timedelta(days=3)
    wanted = Oracle(landed, rows.frame(METRICS, [])).mart("session_metrics")
    wanted = wanted.filter(pl.col("session_date") >= reach)
    found = warehouse.query("select * from {db}_speed.session_metrics_speed order by all")
    assert_equal(found, wanted)
    assert_equal(warehouse.mart("session_metrics_live"), wanted)
    kept = warehouse.query("select min(event_date) as day from {db}_speed.speed_sessions")
    assert kept["day"].to_list() == [reach - timedelta(days=2)]
