"""The marts against the same numbers computed in Polars, and rebuilding of days."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from polars.testing import assert_frame_equal

from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS

from . import rows
from .conftest import Warehouse
from .oracle import Oracle, assert_equal

#: Marts that are kept by day, each after those it is made of.
MARTS = {
    "events_history": "event_date",
    "event_metrics": "event_date",
    "event_metrics_rollups": "event_date",
    "performance_metrics": "event_date",
    "performance_metrics_rollups": "event_date",
    "session_metrics": "session_date",
    "metric_windows": "metric_date",
    "metric_windows_rollups": "metric_date",
}
#: Marts whose rows are merged by key.
LATEST = ("users_latest", "sessions_latest", "user_days")
#: Kept by day, but not made of the events of that day: a build replaces all later days as well.
COUNTED_FROM_OTHERS = {"cohort_days": "activity_date"}
VIEWS = ("daily_active_users", "user_retention", "conversion_funnel", "users_current", "sessions_current")
ALL = (*MARTS, *LATEST, *COUNTED_FROM_OTHERS, *VIEWS)
LANDED = {EVENTS: rows.events(), METRICS: rows.metrics()}


@dataclass
class Built:
    """A warehouse, and its marts as one build of everything left them. Tests that change it mend it."""

    warehouse: Warehouse
    marts: dict[str, pl.DataFrame]

    def assert_whole(self) -> None:
        """The marts are as at first, to the bit."""
        for name, rows_at_first in self.marts.items():
            assert_frame_equal(self.warehouse.mart(name), rows_at_first, check_exact=True)


@pytest.fixture(scope="session")
def built(new_warehouse: Callable[..., Warehouse]) -> Built:
    warehouse = new_warehouse("everything")
    for contract, landed in LANDED.items():
        warehouse.load(contract.table, landed)
    outcome = warehouse.dbt("build")
    assert outcome, outcome.error
    assert set(outcome.statuses.values()) == {"success", "pass", "no-op"}, (
        outcome.statuses
    )  # exposures do nothing
    return Built(warehouse, {name: warehouse.mart(name) for name in ALL})


@pytest.fixture(scope="session")
def small(new_warehouse: Callable[..., Warehouse]) -> Warehouse:
    """For tests that need but a few rows."""
    return new_warehouse("small")


def rebuild(warehouse: Warehouse, start: date, end: date, *selected: str) -> None:
    select = selected or ("--select", "tag:daily")
    outcome = warehouse.dbt("run", *select, start_date=str(start), end_date=str(end))
    assert outcome, outcome.error


@pytest.mark.parametrize("mart", ALL)
def test_a_mart_equals_polars(built: Built, mart: str) -> None:
    assert not built.marts[mart].is_empty()
    assert_equal(built.marts[mart], Oracle(LANDED[EVENTS], LANDED[METRICS]).mart(mart))


def test_repeats_count_once(built: Built) -> None:
    landed = LANDED[EVENTS]
    once = landed["event_id"].n_unique()
    assert landed.height > once
    for mart in ("event_metrics", "session_metrics"):
        assert built.marts[mart]["events"].sum() == once
    assert built.marts["events_history"].height == once


def test_a_session_across_midnight_is_one_row(built: Built) -> None:
    found = built.marts["session_metrics"].filter(pl.col("session_id").str.starts_with("night"))
    assert found["session_id"].is_unique().all()
    assert found["events"].to_list() == [2] * 40
    assert (found["ended_at"].dt.date() > found["session_date"]).any()


@pytest.mark.long
def test_days_in_any_order_any_number_of_times_equal_a_full_build(
    new_warehouse: Callable[..., Warehouse],
) -> None:
    """Without the days that hold a row each: rebuilding a hundred of them costs minutes and shows nothing more."""
    warehouse, before = new_warehouse("any_order"), rows.FIRST_DAY - timedelta(days=1)
    landed = {
        contract: all_of_it.filter(pl.col(contract.partition) >= before)
        for contract, all_of_it in LANDED.items()
    }
    for contract, some in landed.items():
        assert 0 < some.height < LANDED[contract].height
        warehouse.load(contract.table, some)
    assert warehouse.dbt("run", "--exclude", "tag:daily")
    rebuild(warehouse, before, before)  # creates the tables, without the days below
    for mart, column in MARTS.items():
        assert warehouse.mart(mart, f"{column} >= '{rows.FIRST_DAY}'").is_empty()
    order = [*rows.days(), rows.days()[1]]
    random.Random(3).shuffle(order)
    for day in order:
        rebuild(warehouse, day, day)
    oracle, built = Oracle(landed[EVENTS], landed[METRICS]), {name: warehouse.mart(name) for name in ALL}
    for name, found in built.items():
        assert_equal(found, oracle.mart(name))
    rebuild(warehouse, before, rows.days()[-1])
    for name, found in built.items():
        assert_frame_equal(warehouse.mart(name), found, check_exact=True)


@pytest.mark.long
def test_an_earlier_first_day_moves_users_to_its_cohort_on_all_later_days(
    new_warehouse: Callable[..., Warehouse],
) -> None:
    warehouse = new_warehouse("cohorts")
    days = [rows.FIRST_DAY + timedelta(days=n) for n in range(5)]
    landed: list[pl.DataFrame] = []

    def land(*seen: tuple[str, int]) -> None:
        events = [
            {"event_type": "click", "channel": "web", "session_id": "s", "event_id": f"{user}-{n}",
             "user_id": user, "occurred_at": rows.midnight(days[n])}
            for user, n in seen
        ]  # fmt: skip
        landed.append(rows.frame(EVENTS, events))
        warehouse.load(EVENTS.table, landed[-1])

    def assert_right() -> None:
        oracle = Oracle(pl.concat(landed), rows.frame(METRICS, []))
        for name in ("cohort_days", "daily_active_users", "user_retention"):
            assert_equal(warehouse.mart(name), oracle.mart(name))

    land(("ann", 1), ("ann", 2), ("ann", 4), ("bob", 2), ("bob", 4), ("cid", 4))
    built = warehouse.dbt("run", "--select", "+user_retention", "+daily_active_users")
    assert built, built.error
    assert_right()
    chosen = ("--select", "+user_retention,tag:daily", "daily_active_users")
    land(("bob", 0), ("dan", 4))
    rebuild(warehouse, days[4], days[4], *chosen)
    rebuild(warehouse, days[0], days[0], *chosen)
    assert_right()
    warehouse.command("drop table {db}.cohort_days")
    rebuild(warehouse, days[3], days[3], *chosen)
    assert_right()  # of days that nobody asked for, too
    for table in ("{db}.user_days", f"{warehouse.raw}.events"):  # ann is erased
        warehouse.command(f"alter table {table} delete where user_id = 'ann' settings mutations_sync = 2")
    landed[:] = [events.filter(pl.col("user_id") != "ann") for events in landed]
    rebuild(warehouse, days[1], days[4], *chosen)
    assert_right()
    assert days[1] not in warehouse.mart("cohort_days")["activity_date"], "nobody is left there"


@pytest.mark.long
def test_a_full_refresh_takes_all_days_whatever_the_vars_say(built: Built) -> None:
    day = rows.FIRST_DAY
    rebuild(built.warehouse, day, day, "--select", "tag:daily", "--full-refresh")
    built.assert_whole()


@pytest.mark.long
def test_a_late_day_reaches_as_far_as_the_models_declare(built: Built) -> None:
    warehouse, late = built.warehouse, rows.days()[2]
    for contract in LANDED:
        warehouse.forget(contract, str(late))
    rebuild(warehouse, rows.days()[0], rows.days()[-1])
    changed = {name: warehouse.mart(name) for name in MARTS}
    for contract, landed in LANDED.items():
        warehouse.load(contract.table, landed.filter(pl.col(contract.partition) == late))
    for mart, column in MARTS.items():
        meta = warehouse.manifest.nodes[f"model.headrace.{mart}"].config.meta
        start, end = (late + timedelta(days=n) for n in (-meta["days_back"], meta["days_ahead"]))
        rebuild(warehouse, start, end, "--select", mart)
        differs = built.marts[mart].join(
            changed[mart], on=changed[mart].columns, how="anti", nulls_equal=True
        )
        assert (differs[column].min(), differs[column].max()) == (start, end), "the test shows too little"
    built.assert_whole()


@pytest.mark.long
def test_an_emptied_day_is_cleared_and_no_other(
    built: Built, project_copy: Path, new_warehouse: Callable[..., Warehouse]
) -> None:
    warehouse = built.warehouse
    [day] = built.marts["performance_metrics"]["event_date"].unique().sort()[:1]
    for contract in LANDED:
        warehouse.forget(contract, str(day))

    (project_copy / "macros/replace_days.sql").unlink()  # dbt-clickhouse's own macro keeps the day
    rebuild(new_warehouse(warehouse.name, project_copy), day, day)
    for mart, column in MARTS.items():
        assert not warehouse.mart(mart, f"{column} = '{day}'").is_empty()

    rebuild(warehouse, day, day)
    for mart, column in MARTS.items():
        others = built.marts[mart].filter(pl.col(column) != day)
        assert_frame_equal(warehouse.mart(mart), others, check_exact=True)

    for contract, landed in LANDED.items():
        warehouse.load(contract.table, landed.filter(pl.col(contract.partition) == day))
    rebuild(warehouse, day, day)
    built.assert_whole()


COUNTED = {
    "event_metrics_count_every_event",
    "performance_metrics_count_every_timed_event",
    "metric_windows_count_every_measurement",
    "session_metrics_hold_every_event",
    "events_history_holds_every_event",
}
#: Marts that are damaged: the roll-ups and the history are held against the others, or the others against them.
DAMAGED = ("event_metrics", "performance_metrics", "session_metrics", "metric_windows")
#: Of the days that are damaged, the live views show what the marts do.
ROWS_HOLD = {f"{mart}{live}_rows_hold" for mart in DAMAGED for live in ("", "_live")}

ADDED_UP = {f"{mart}_rollups_add_up" for mart in ("event_metrics", "performance_metrics", "metric_windows")}


@pytest.mark.long
@pytest.mark.parametrize(
    ("rows_instead", "caught_by"),
    [
        (
            dict.fromkeys(DAMAGED, "select * from {mart} union all select * from {mart}"),
            ROWS_HOLD
            | COUNTED - {"events_history_holds_every_event", "session_metrics_hold_every_event"}
            | ADDED_UP,
        ),
        (
            {
                "event_metrics": "select * replace(events + 1 as unique_users) from {mart}",
                "performance_metrics": "select * replace(-1 as p50_ms) from {mart}",
                "session_metrics": "select * replace(events + 1 as events) from {mart}",
                "metric_windows": "select * replace(1e9 as last_value) from {mart}",
            },
            ROWS_HOLD | {"session_metrics_hold_every_event"},
        ),
        (
            dict.fromkeys(DAMAGED, "select * from {mart} where false"),
            COUNTED - {"events_history_holds_every_event"} | ADDED_UP,
        ),
        (
            {"events_history": "select * from {mart} limit 3"},
            {
                "events_history_holds_every_event",
                "event_metrics_count_every_event",
                "performance_metrics_count_every_timed_event",
            },
        ),
        (
            {"events_history": "select * replace('twice' as event_id) from {mart}"},
            {"events_history_rows_hold"},
        ),
        (
            {
                "event_metrics_rollups": "select * replace(events + 1 as unique_users) from {mart}",
                "performance_metrics_rollups": "select * from {mart} union all select * from {mart}",
            },
            {
                "event_metrics_rollups_rows_hold",
                "performance_metrics_rollups_rows_hold",
                "performance_metrics_rollups_add_up",
            },
        ),
    ],
    ids=["doubled", "changed", "missing", "history cut", "history doubled", "roll-ups"],
)
def test_tests_notice_wrong_rows(built: Built, rows_instead: dict[str, str], caught_by: set[str]) -> None:
    warehouse, day = built.warehouse, rows.days()[3]
    for mart, select in rows_instead.items():
        source = f"(select * from {{db}}.{mart} where {MARTS[mart]} = '{day}')"
        warehouse.command(f"create table {{db}}.wrong as {{db}}.{mart}")
        warehouse.command(f"insert into {{db}}.wrong {select.replace('{mart}', source)}")
        warehouse.command(f"alter table {{db}}.{mart} drop partition '{day}'")
        warehouse.command(f"alter table {{db}}.{mart} attach partition '{day}' from {{db}}.wrong")
        warehouse.command("drop table {db}.wrong")
    only = {"start_date": str(day), "end_date": str(day)}
    outcome = warehouse.dbt("test", "--select", "tag:daily", "--exclude-resource-type", "unit_test", **only)
    rebuild(warehouse, day, day)
    assert outcome.failed == caught_by
    built.assert_whole()


@pytest.mark.long
def test_what_arrives_while_models_are_built_fails_no_test_and_what_was_left_out_does(
    new_warehouse: Callable[..., Warehouse],
) -> None:
    small = new_warehouse("arriving")
    noon = rows.midnight(rows.FIRST_DAY) + timedelta(hours=12)

    def load(**changes: Any) -> None:
        event = {"event_type": "click", "session_id": "s", "channel": "web", "occurred_at": noon, **changes}
        small.load(EVENTS.table, rows.frame(EVENTS, [event]))

    def failed() -> set[str]:
        only = {"start_date": str(rows.FIRST_DAY), "end_date": str(rows.FIRST_DAY)}
        flags = ("--indirect-selection", "cautious", "--exclude-resource-type", "unit_test")
        return small.dbt("test", "--select", "+tag:events", *flags, **only).failed & COUNTED

    load(event_id="e-1", _offset=1)
    built = small.dbt("run", "--select", "+tag:events")
    assert built, built.error
    assert not failed()
    load(event_id="e-2", _offset=2, _ingested_at=datetime.now(UTC) + timedelta(minutes=5))
    assert not failed()
    load(event_id="e-3", _offset=3, session_id="t")
    assert failed() == {"session_metrics_hold_every_event"}, (
        "of a day that is still touched, settled sessions are tested"
    )
    small.command(f"alter table {small.raw}.events delete where event_id = 'e-2' settings mutations_sync = 2")
    assert failed() == {"events_history_holds_every_event", "session_metrics_hold_every_event"}


@pytest.mark.long
def test_what_arrives_between_two_models_of_a_build_fails_no_test_and_a_roll_up_that_is_wrong_does(
    new_warehouse: Callable[..., Warehouse],
) -> None:
    """Both are built of the raw table, the roll-ups after the windows."""
    small, noon = new_warehouse("between"), rows.midnight(rows.FIRST_DAY) + timedelta(hours=12)
    only = {"start_date": str(rows.FIRST_DAY), "end_date": str(rows.FIRST_DAY)}
    flags = ("--indirect-selection", "cautious", "--exclude-resource-type", "unit_test")

    def load(name: str, ingested_at: datetime = rows.LANDED_AT) -> None:
        made = {
            "metric_id": name,
            "name": "cpu",
            "kind": "gauge",
            "value": 1.0,
            "source": "host",
            "dimensions": [],
            "occurred_at": noon,
        }
        made |= {"_offset": int(name[2:]), "_ingested_at": ingested_at}
        small.load(METRICS.table, rows.frame(METRICS, [made]))

    def failed() -> set[str]:
        return small.dbt("test", "--select", "+tag:metrics", *flags, **only).failed

    load("m-1")
    built = small.dbt("run", "--select", "+tag:metrics")
    assert built, built.error
    assert failed() == set()
    load("m-2", datetime.now(UTC) + timedelta(minutes=5))
    between = small.dbt("run", "--select", "metric_windows_rollups", **only)
    assert between, between.error
    assert failed() == set()
    small.command(
        f"alter table {small.raw}.metrics delete where metric_id = 'm-2' settings mutations_sync = 2"
    )
    assert failed() == {"metric_windows_rollups_add_up"}, "nothing arrives any more"
    small.arriving = f"2024-01-01,{rows.FIRST_DAY}"
    assert failed() == set(), "rows of the day were not published yet when the build began"
    small.arriving = "2024-01-01"
    assert failed() == {"metric_windows_rollups_add_up"}


@pytest.mark.long
@pytest.mark.parametrize(("repeat_days", "events", "said"), [(0, 2, "warn"), (7, 1, "pass")])
def test_an_id_on_two_days_is_one_event_unless_days_are_told_to_stand_alone(
    small: Warehouse, repeat_days: int, events: int, said: str
) -> None:
    noon = rows.midnight(rows.FIRST_DAY) + timedelta(hours=12)
    event = {"event_id": "e", "event_type": "click", "session_id": "s", "channel": "web"}
    small.command(f"truncate table {small.raw}.events")
    small.load(
        EVENTS.table, rows.frame(EVENTS, [{**event, "occurred_at": noon + timedelta(days=n)} for n in (0, 1)])
    )
    outcome = small.dbt(
        "build",
        "--full-refresh",
        "--select",
        "+tag:events",
        "--indirect-selection",
        "cautious",
        "--exclude-resource-type",
        "unit_test",
        repeat_days=repeat_days,
    )
    assert outcome, outcome.error
    assert outcome.statuses["event_ids_stay_on_one_day"] == said
    assert small.mart("session_metrics")["events"].to_list() == [events]


def test_rejects_of_both_streams_are_united(small: Warehouse) -> None:
    reasons = [
        {"check": "isin", "column": "channel", "value": "mail"},
        {"check": "isin", "column": "kind", "value": "x"},
    ]
    for contract in (EVENTS, METRICS):
        table = contract.rejected_table
        rejected: dict[str, Any] = {
            **dict.fromkeys(table.schema),
            "payload": b"{",
            "reasons": reasons,
            "contract": contract.name,
            "contract_version": 1,
            "rejected_date": rows.LANDED_AT.date(),
            "_source": "kafka/analytics_events",
            "_cursor": "kafka/0",
            "_index": 0,
            "_ingested_at": rows.LANDED_AT,
            "_batch_id": "batch",
        }
        small.load(table, pl.DataFrame([rejected], schema=table.schema))
    assert small.dbt("run", "--select", "stg_rejected")
    found = small.query("select * from {db}_staging.stg_rejected order by stream")
    assert found["stream"].to_list() == ["events", "metrics"]
    assert found["failed_checks"].to_list() == [["isin"]] * 2
    assert [sorted(columns) for columns in found["failed_columns"]] == [["channel", "kind"]] * 2


@pytest.mark.parametrize(
    ("view", "column"),
    [("int_events_deduplicated", "event_date"), ("int_metrics_deduplicated", "metric_date")],
)
def test_one_day_is_read_where_one_day_is_asked_for(built: Built, view: str, column: str) -> None:
    everything = f"explain estimate select * from {{db}}_intermediate.{view}"
    # rows and hashes that came twice, of what was sent once and of what was sent again, and all hashes
    readings, beside = 5, 2 * 7
    assert built.warehouse.query(everything)["parts"].sum() > (readings + beside) * rows.TRICKLE_DAYS
    one_day = built.warehouse.query(f"{everything} where {column} = '{rows.FIRST_DAY - timedelta(days=20)}'")
    assert one_day["parts"].sum() == readings + beside


def test_without_our_setting_a_history_load_meets_the_limit_on_partitions(built: Built) -> None:
    built.warehouse.command("create table {db}.copy as {db}.event_metrics")
    try:
        with pytest.raises(DatabaseError, match="Too many partitions"):
            built.warehouse.command("insert into {db}.copy select * from {db}.event_metrics")
    finally:
        built.warehouse.command("drop table {db}.copy")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"start_date": "2024-01-01"}, "'end_date' is missing"),
        ({"end_date": "2024-01-01"}, "'start_date' is missing"),
        ({"start_date": "2024-01-02", "end_date": "2024-01-01"}, "is after end_date"),
        ({"start_date": "2024-01-01", "end_date": "x') or (1"}, "expected a UTC day"),
        ({"window_seconds": 0}, "expected 1 to 86400"),
    ],
)
def test_wrong_vars_are_refused(small: Warehouse, variables: dict[str, Any], message: str) -> None:
    outcome = small.dbt("compile", "--select", "event_metrics", **variables)
    assert not outcome
    assert message in outcome.error


def test_a_model_that_yields_other_days_is_refused(
    built: Built, project_copy: Path, new_warehouse: Callable[..., Warehouse]
) -> None:
    model = project_copy / "macros/event_windows.sql"
    correct = model.read_text()
    model.write_text(correct.replace("where {{ headrace.in_rebuilt_days('event_date') }}", ""))
    assert model.read_text() != correct
    day = str(rows.FIRST_DAY)
    outcome = new_warehouse(built.warehouse.name, project_copy).dbt(
        "run", "--select", "event_metrics", start_date=day, end_date=day
    )
    assert not outcome
    assert "rows outside the rebuilt days" in outcome.error
    built.assert_whole()
    left = built.warehouse.query(
        "select name from system.tables where database = '{db}' and name like '%new_data%'"
    )
    assert left.is_empty()
