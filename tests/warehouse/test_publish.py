"""Lake to warehouse, exactly once: on ClickHouse and on its twin in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from builders import NOW, event, metric
from conftest import Stack
from headrace.config.settings import Settings
from headrace.contracts import EVENTS, METRICS, Contract, Limits, check_batch
from headrace.core.batch import ORIGIN_KEY, Chunk, MicroBatch, ParquetFile
from headrace.core.errors import Fatal, HistoryGone, Retriable
from headrace.flow.commit import land as land_batch
from headrace.flow.publish import publish, replace_days
from headrace.health.parity import parity
from headrace.lake import LakeTable
from headrace.lake.arrow import to_arrow
from headrace.lake.delta import DeltaLakeTable, parquet
from headrace.streams.stream import streams
from headrace.warehouse import Builds
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.memory import MemoryWarehouse
from headrace.warehouse.server import Server

Batch = Callable[..., MicroBatch]
Fault = Callable[[Exception, bool], None]


class Crash(Exception):
    """The process dies here."""


@pytest.fixture(params=["clickhouse", "memory"])
def warehouse(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        yield MemoryWarehouse()
        return
    stack: Stack = request.getfixturevalue("stack")
    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    found = ClickHouse(config)
    yield found
    found.close()


@pytest.fixture
def fail_next_insert(warehouse: Any, monkeypatch: pytest.MonkeyPatch) -> Fault:
    """Make the next insert crash, before or after it took effect."""

    def arm(error: Exception, after: bool) -> None:
        insert, armed = warehouse.insert, [True]

        def failing(*args: Any) -> None:
            if not armed.pop() if armed else True:
                return insert(*args)
            if after:
                insert(*args)
            raise error

        monkeypatch.setattr(warehouse, "insert", failing)

    return arm


@pytest.fixture
def land(tmp_path: Path, batch_of: Batch) -> Callable[..., LakeTable]:
    """``land(payloads, ...)``: each list of payloads becomes one version of a lake table."""

    def build(*versions: list[bytes], contract: Contract = EVENTS, rejected: bool = False) -> LakeTable:
        table = DeltaLakeTable(
            str(tmp_path / "a lake"), contract.rejected_table if rejected else contract.table
        )
        at = 0
        for payloads in versions:
            batch = batch_of(payloads, start=at)
            checked = check_batch(contract, batch, batch_id="b", now=NOW, limits=Limits())
            at += len(payloads)
            table.open().append(checked.rejected if rejected else checked.good, {"test/0": at}, "b")
        return table

    return build


def days(*numbers: int) -> list[bytes]:
    return [event(event_id=str(n), occurred_at=f"2026-01-{n:02d}T00:00:00Z") for n in numbers]


def total(warehouse: Any, contract: Contract = EVENTS) -> int:
    return sum(warehouse.counts_by_day(contract.table).values())


def test_every_version_arrives_once(warehouse: Any, land: Callable[..., LakeTable]) -> None:
    table = land(days(1, 2), [], days(2, 3))
    done = publish(table, warehouse)
    assert (done.rows, done.days) == (4, frozenset(date(2026, 1, d) for d in (1, 2, 3)))
    assert warehouse.counts_by_day(EVENTS.table) == {
        date(2026, 1, 1): 1,
        date(2026, 1, 2): 2,
        date(2026, 1, 3): 1,
    }
    assert publish(table, warehouse).rows == 0
    assert total(warehouse) == 4


def test_fields_that_a_contract_keeps_arrive_too(warehouse: Any, land: Callable[..., LakeTable]) -> None:
    keeping = replace(EVENTS, name="keeping", unknown="keep")
    table = land([event(country="DE"), event(event_id="e-2")], contract=keeping)
    assert publish(table, warehouse).rows == 2
    if isinstance(warehouse, MemoryWarehouse):
        kept = warehouse.rows(keeping.table).select("event_id", "_extra").sort("event_id").rows()
    else:
        raw = warehouse.query(
            "SELECT database FROM system.tables WHERE name = 'keeping' ORDER BY metadata_modification_time DESC LIMIT 1"
        )
        kept = warehouse.query(f"SELECT event_id, _extra FROM {raw[0][0]}.keeping ORDER BY event_id")
    assert kept == [("e-1", '{"country":"DE"}'), ("e-2", None)]


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_between_insert_and_record_adds_nothing_twice(
    warehouse: Any, land: Callable[..., LakeTable], fail_next_insert: Fault, after: bool
) -> None:
    table = land(days(1, 2), days(3))
    fail_next_insert(Crash(), after)
    with pytest.raises(Crash):
        publish(table, warehouse)
    publish(table, warehouse)
    assert total(warehouse) == 3


def test_an_insert_without_its_token_would_double(warehouse: Any, land: Callable[..., LakeTable]) -> None:
    """Negative control: the token is what keeps a repeated insert out."""
    table = land(days(1))
    publish(table, warehouse)
    [chunk] = table.read(table.describe(1))
    warehouse.insert(EVENTS.table, chunk, f"{EVENTS.name}:{table.id}:1:0")
    assert total(warehouse) == 1
    warehouse.insert(EVENTS.table, chunk, "another token")
    assert total(warehouse) == 2


def test_a_replaced_day_equals_the_lake_however_often(
    warehouse: Any, land: Callable[..., LakeTable], fail_next_insert: Fault
) -> None:
    table = land(days(1, 2), days(2))
    publish(table, warehouse)
    day = date(2026, 1, 2)
    [stray] = table.read(table.describe(2))
    warehouse.insert(EVENTS.table, stray, "stray")
    assert warehouse.counts_by_day(EVENTS.table)[day] == 3
    for _ in range(2):
        assert replace_days(table, warehouse, [day]) == {day: 2}
    assert total(warehouse) == 3


def test_a_replace_after_a_half_published_version_loses_nothing(
    warehouse: Any, land: Callable[..., LakeTable], fail_next_insert: Fault
) -> None:
    table = land(days(1, 2), days(2, 4))
    fail_next_insert(Crash(), True)
    with pytest.raises(Crash):
        publish(table, warehouse)
    replace_days(table, warehouse, [date(2026, 1, 2)])
    publish(table, warehouse)
    assert total(warehouse) == 4
    assert warehouse.counts_by_day(EVENTS.table)[date(2026, 1, 2)] == 2


def test_a_day_that_the_lake_does_not_have_becomes_empty(
    warehouse: Any, land: Callable[..., LakeTable]
) -> None:
    table = land(days(1))
    publish(table, warehouse)
    assert replace_days(table, warehouse, [date(2026, 1, 9)]) == {date(2026, 1, 9): 0}
    assert total(warehouse) == 1


def test_builds_are_counted_with_their_days(warehouse: Any, land: Callable[..., LakeTable]) -> None:
    table = land(days(1, 2))
    publish(table, warehouse)
    assert warehouse.builds(EVENTS.table, table.id) == Builds()
    version, before = warehouse.published(EVENTS.table, table.id).version, datetime.now(UTC)
    for built in ([1], [1, 2]):
        some = [date(2026, 1, day) for day in built]
        warehouse.refreshed(EVENTS.table, table.id, version, some, datetime.now(UTC))
    found = warehouse.builds(EVENTS.table, table.id)
    assert (found.count, found.days) == (2, 2)
    assert before <= found.latest <= datetime.now(UTC)
    assert warehouse.builds(EVENTS.table, "another lake") == Builds()


def test_touched_days_are_those_newer_than_their_models(
    warehouse: Any, land: Callable[..., LakeTable]
) -> None:
    table = land(days(1, 2))
    publish(table, warehouse)
    touched = warehouse.stale_days(EVENTS.table, table.id)
    assert [t.day.day for t in touched] == [1, 2]
    assert touched[0].since.tzinfo is not None
    version = warehouse.published(EVENTS.table, table.id).version
    assert not warehouse.ever_refreshed(EVENTS.table, table.id)
    warehouse.refreshed(EVENTS.table, table.id, version, [date(2026, 1, 1)], datetime.now(UTC))
    assert warehouse.ever_refreshed(EVENTS.table, table.id)
    assert not warehouse.ever_refreshed(EVENTS.table, "another lake")
    assert [t.day.day for t in warehouse.stale_days(EVENTS.table, table.id)] == [2]
    land(days(1, 2), days(1))
    publish(table, warehouse)
    assert [t.day.day for t in warehouse.stale_days(EVENTS.table, table.id)] == [1, 2]


def test_for_processing_time_the_days_of_landing_are_touched(
    warehouse: Any, land: Callable[..., LakeTable]
) -> None:
    table = land(days(1, 2))
    publish(table, warehouse)
    landed = [t.day for t in warehouse.stale_days(EVENTS.table, table.id, by_landing=True)]
    assert landed == [NOW.date()]
    version = warehouse.published(EVENTS.table, table.id).version
    warehouse.refreshed(EVENTS.table, table.id, version, landed, datetime.now(UTC))
    assert warehouse.stale_days(EVENTS.table, table.id, by_landing=True) == []
    assert [t.day.day for t in warehouse.stale_days(EVENTS.table, table.id)] == [1, 2]


def bookkept(warehouse: Any, table: str, column: str) -> Any:
    """What the bookkeeping of either warehouse holds, in the order of versions."""
    if isinstance(warehouse, MemoryWarehouse):
        [kept] = (warehouse._publications if table == "_publications" else warehouse._refreshes).values()
        if table == "_publications":
            return [list(getattr(kept[version], column)) for version in sorted(kept)]
        return [began_at for _, _, began_at in kept]
    raw = warehouse._config.raw_database
    return [value for (value,) in warehouse.query(f"SELECT {column} FROM {raw}.{table} ORDER BY version")]


def test_a_publication_says_on_which_days_its_rows_landed(
    warehouse: Any, land: Callable[..., LakeTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = datetime(2026, 6, 1, 23, 59, 59, 999_999, UTC), datetime(2026, 6, 2, tzinfo=UTC)
    monkeypatch.setattr(f"{__name__}.NOW", first)
    land(days(1, 2), [])
    monkeypatch.setattr(f"{__name__}.NOW", last)
    table = land(days(1, 1))
    publish(table, warehouse)
    assert bookkept(warehouse, "_publications", "landed_days") == [[], [first.date()], [], [last.date()]]
    # a version that took rows away replaces their days: what it added are the rows that are left there
    table.erase(table.scan().filter(pl.col("_offset") == 0).select(ORIGIN_KEY).collect())
    publish(table, warehouse)
    assert warehouse.counts_by_day(EVENTS.table) == {date(2026, 1, 1): 1, date(2026, 1, 2): 1}
    assert bookkept(warehouse, "_publications", "landed_days")[4:] == [[last.date()]]


def test_a_refresh_says_when_the_build_began(warehouse: Any, land: Callable[..., LakeTable]) -> None:
    table = land(days(1))
    publish(table, warehouse)
    began_at = datetime(2026, 6, 1, 1, 2, 3, 456_789, UTC)
    warehouse.refreshed(EVENTS.table, table.id, 1, [date(2026, 1, 1)], began_at)
    [kept] = bookkept(warehouse, "_refreshes", "began_at")
    assert kept.replace(tzinfo=UTC) == began_at


def test_rejected_rows_and_maps_arrive_as_they_are(stack: Stack, land: Callable[..., LakeTable]) -> None:
    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    clickhouse = ClickHouse(config)
    publish(land([b"\xff\x00bad", metric(dimensions={"a": "1"})], contract=METRICS), clickhouse)
    publish(land([b"\xff\x00bad", metric()], contract=METRICS, rejected=True), clickhouse)
    found = clickhouse.query(f"SELECT hex(payload), reasons FROM {config.raw_database}.metrics_rejected")
    assert found[0][0] == "FF00626164"
    assert "utf8" in str(found[0][1])
    assert clickhouse.query(f"SELECT dimensions, value FROM {config.raw_database}.metrics") == [
        ({"a": "1"}, 1.5)
    ]


def test_more_partitions_than_one_insert_may_touch_by_default(
    stack: Stack, land: Callable[..., LakeTable]
) -> None:
    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    clickhouse = ClickHouse(config)
    many = [
        event(occurred_at=f"20{y:02d}-{m:02d}-{d:02d}T00:00:00Z")
        for y in (24, 25)
        for m in (1, 2, 3)
        for d in range(1, 29)
    ]
    assert publish(land(many), clickhouse).rows == 168
    assert len(clickhouse.counts_by_day(EVENTS.table)) == 168


def test_a_warehouse_that_is_away_or_refuses_is_one_clear_line(stack: Stack) -> None:
    away = ClickHouse(stack.settings.model_copy(update={"clickhouse_port": 1}))
    with pytest.raises(Retriable, match=r"127\.0\.0\.1:1"):
        away.query("SELECT 1")
    with pytest.raises(Fatal) as raised:
        ClickHouse(stack.settings).query("SELECT nonsense")
    assert "nonsense" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_values_of_a_query_are_parameters_and_not_text(stack: Stack) -> None:
    nasty = "'; DROP DATABASE raw --"
    assert ClickHouse(stack.settings).query("SELECT {x:String}", x=nasty) == [(nasty,)]
    with pytest.raises(Fatal):
        ClickHouse(stack.settings).read_only("CREATE DATABASE sneaky")


def test_rows_read_back_from_the_warehouse_equal_the_lake(
    stack: Stack, land: Callable[..., LakeTable]
) -> None:
    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    clickhouse = ClickHouse(config)
    table = land([event(duration_ms=1.25, user_id="ü", properties={"a": "\t"}), event(event_id="2")])
    publish(table, clickhouse)
    lake = pl.concat(pl.DataFrame(pl.from_arrow(part)) for c in table.read(table.describe(1)) for part in c)
    names, rows = clickhouse.read_only(f"SELECT * FROM {config.raw_database}.events ORDER BY _offset")
    mine = lake.sort("_offset").rows(named=True)
    for row, expected in zip(rows, mine, strict=True):
        for name, value in zip(names, row, strict=True):
            want = expected[name]
            want = want.decode() if isinstance(want, bytes) else want  # ClickHouse has one type for both
            assert (value.replace(tzinfo=want.tzinfo) if hasattr(want, "tzinfo") else value) == want, name


#: What a type or a codec might carry otherwise on one of two ways.
ODD_EVENTS = [
    event(
        event_id="numbers", duration_ms=1e308, schema_version=2**31 - 1, occurred_at="2026-01-02T00:00:00Z"
    ),
    event(event_id="small", duration_ms=5e-324, occurred_at="2026-01-02T23:59:59.999999+00:00"),
    event(
        event_id="text", user_id="ü€😀\x00\t\\'`", page_url="/" + "ä" * 500, properties={"a": [None, "\x00"]}
    ),
    event(event_id="nothing", user_id=None, page_url=None, duration_ms=None, received_at=None),
]
ODD_METRICS = [
    metric(metric_id="none", dimensions={}, unit=None),
    metric(metric_id="many", dimensions={f"k{n}": "ü" * n for n in range(9)}, value=-1e-300),
    metric(metric_id="default", dimensions={"": "", "'": "\x00"}, value=0),
]
ODD_MESSAGES = [b"\xff\x00bad", None, b"", event(channel="?"), metric(value="x", kind="y"), b"[1, 2]"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("contract", "payloads", "rejected"),
    [(EVENTS, ODD_EVENTS, False), (METRICS, ODD_METRICS, False), (EVENTS, ODD_MESSAGES, True)],
)
def test_a_file_as_it_is_gives_the_same_rows_as_arrow(
    stack: Stack,
    tmp_path: Path,
    batch_of: Batch,
    monkeypatch: pytest.MonkeyPatch,
    contract: Contract,
    payloads: list[bytes | None],
    rejected: bool,
) -> None:
    monkeypatch.setattr(parquet, "_ROW_GROUP", 2)
    batch = batch_of(payloads)
    headers = pl.Series(
        [[{"key": "n", "value": b"\xff\x00"}, {"key": "n", "value": None}], None] * len(payloads)
    )
    keys = pl.Series([b"\xff\x00", None] * len(payloads))
    records = batch.records.with_columns(headers=headers.head(len(payloads)), key=keys.head(len(payloads)))
    checked = check_batch(contract, replace(batch, records=records), batch_id="b", now=NOW, limits=Limits())
    table = DeltaLakeTable(str(tmp_path), contract.rejected_table if rejected else contract.table)
    good = checked.rejected if rejected else checked.good
    staged = table.stage()
    for part in (good, good, good):
        staged.add(part)
    version = table.open().append(staged, {"test/0": 1}, "b")
    found = []
    for as_arrow in (False, True):
        config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
        warehouse = ClickHouse(config)
        warehouse.prepare(table.table)
        where = f"{config.raw_database}.{table.table.name}"
        chunks = list(table.read(table.describe(version)))
        if not as_arrow:
            assert all(chunk.parquet for chunk in chunks)
        for n, chunk in enumerate(chunks):
            assert chunk.num_rows == sum(part.num_rows for part in chunk)
            way = replace(chunk, parquet=None) if as_arrow else chunk
            for _ in range(2):  # the second time the token keeps it out
                warehouse.insert(table.table, way, f"{table.table.name}:{n}")
        found.append(warehouse.query(f"SELECT * FROM {where} ORDER BY ALL"))
        parts = warehouse.query(
            "SELECT partition, countIf(level = 0), count() FROM system.parts"
            " WHERE active AND database = {database:String} AND table = {table:String} GROUP BY ALL",
            database=config.raw_database,
            table=table.table.name,
        )
        assert all(whole == every == 1 for _, whole, every in parts), "a day is one block, whatever its parts"
        warehouse.close()
    assert found[0] == found[1]
    assert len(found[0]) == 3 * good.height > 0


def test_files_of_others_and_of_two_days_of_landing_are_sent_as_arrow(
    tmp_path: Path, batch_of: Batch
) -> None:
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    for n, now in enumerate((NOW, NOW, NOW + timedelta(days=1))):
        checked = check_batch(EVENTS, batch_of([event()], start=n), batch_id="b", now=now, limits=Limits())
        table.open().append(checked.good, {"test/0": n + 1}, "b")
    [whole] = table.read(table.describe(1))
    assert whole.parquet is not None
    assert whole.parquet.ingested_on == NOW.date()
    assert b"".join(whole.parquet)[:4] == b"PAR1"
    day = date(2026, 1, 2)
    [three] = table.read_day(day, 3)
    assert three.parquet is None
    assert three.num_rows == 3
    DeltaTable(table.uri).optimize.compact()
    [compacted] = table.read_day(day, 4)
    assert compacted.parquet is None
    assert compacted.num_rows == 3


def test_a_file_that_goes_away_while_it_is_sent_adds_nothing(
    stack: Stack, tmp_path: Path, batch_of: Batch
) -> None:
    """Of a body that breaks off the server keeps nothing, and the error is the lake's."""
    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    warehouse, table = ClickHouse(config), EVENTS.table
    warehouse.prepare(table)
    good = check_batch(EVENTS, batch_of([event()]), batch_id="b", now=NOW, limits=Limits()).good

    def parts() -> Iterator[pa.Table]:
        yield to_arrow(good, table)
        raise HistoryGone("the file has been removed")

    with pytest.raises(HistoryGone):
        warehouse.insert(table, Chunk(2, parts), "events:1")
    assert warehouse.counts_by_day(table) == {}
    warehouse.insert(table, Chunk.of(to_arrow(good, table)), "events:1")
    assert warehouse.counts_by_day(table) == {date(2026, 1, 2): 1}


def test_a_call_that_is_made_again_sends_all_rows_again(stack: Stack, batch_of: Batch) -> None:
    """And not what a body has left that was gone through before, which would be nothing."""

    def twice(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Retriable:
            return call()

    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    warehouse, table = ClickHouse(config, twice), EVENTS.table
    warehouse.prepare(table)
    rows = to_arrow(
        check_batch(EVENTS, batch_of([event()]), batch_id="b", now=NOW, limits=Limits()).good, table
    )
    failures = [Retriable("the lake is away")]

    def parts() -> Iterator[pa.Table]:
        yield rows
        if failures:
            raise failures.pop()
        yield rows

    warehouse.insert(table, Chunk(2, parts), "events:1")
    assert not failures
    assert warehouse.counts_by_day(table) == {date(2026, 1, 2): 2}


def test_a_file_that_lacks_a_column_is_refused(stack: Stack, batch_of: Batch) -> None:
    """ClickHouse would fill it with its default: every row in 1970."""
    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    warehouse, table = ClickHouse(config), EVENTS.table
    warehouse.prepare(table)
    good = check_batch(EVENTS, batch_of([event()]), batch_id="b", now=NOW, limits=Limits()).good
    rows = to_arrow(good, table)
    for columns, kept in ((rows.drop_columns([table.partition]), {}), (rows, {date(2026, 1, 2): 1})):
        sink = pa.BufferOutputStream()
        pq.write_table(columns, sink)
        content = sink.getvalue().to_pybytes()
        file = ParquetFile(lambda content=content: iter([content]), NOW.date())  # type: ignore[misc]
        chunk = Chunk(1, lambda: iter([rows]), file)
        if kept:
            warehouse.insert(table, chunk, "events:1")
        else:
            with pytest.raises(Fatal, match=table.partition):
                warehouse.insert(table, chunk, "events:1")
        assert warehouse.counts_by_day(table) == kept


def test_days_that_have_expired_are_no_difference(raw: Settings, tmp_path: Path, batch_of: Batch) -> None:
    """And the negative control: without the setting they are."""
    today = datetime.now(UTC)
    old, new = (today - timedelta(days=40)).isoformat(), today.isoformat()
    config = raw.model_copy(update={"lake_uri": str(tmp_path / "lake")})
    keeps = streams(config)["events"]
    batch = batch_of([event(event_id="old", occurred_at=old), event(event_id="new", occurred_at=new)])
    land_batch(batch, keeps.contract, keeps.lake, Limits())
    expires = streams(config.model_copy(update={"raw_ttl_days": 30}))["events"]
    expires.publish()
    Server(raw).command(f"OPTIMIZE TABLE {raw.raw_database}.events FINAL")
    assert list(expires.warehouse_counts()) == [today.date()]
    assert parity(expires).different == {}
    assert list(parity(keeps).different.values()) == [(1, 0)]
