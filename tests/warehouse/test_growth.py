"""A raw table follows its contract: what it lacks becomes a migration, whoever comes first and whoever comes late."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from headrace.config.settings import Settings
from headrace.core.batch import ORIGIN_SCHEMA, Chunk, Table
from headrace.core.errors import Fatal, Retriable
from headrace.lake.arrow import to_arrow
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.cluster import Placement
from headrace.warehouse.ddl import ColumnShape
from headrace.warehouse.growth import growth
from headrace.warehouse.migrations.files import GENERATED
from headrace.warehouse.migrations.runner import Migrations
from headrace.warehouse.server import Server
from headrace.warehouse.views import View, in_order
from headrace.warehouse.wider import narrows, wider

DAY = date(2026, 1, 2)
COLUMNS: dict[str, Any] = {
    "order_id": pl.String, "shop": pl.String, "quantity": pl.Int32, "price": pl.Decimal(9, 2),
    "tags": pl.List(pl.Int32), "order_date": pl.Date, **ORIGIN_SCHEMA,
}  # fmt: skip
FIRST = Table(
    name="orders",
    schema=pl.Schema(COLUMNS),
    partition="order_date",
    order_by=("order_id",),
    nullable=frozenset({"_offset", "_message_id", "_key"}),
)  # fmt: skip
Make = Callable[..., ClickHouse]


def schema_of(table: Table, **columns: Any) -> pl.Schema:
    schema: dict[str, Any] = {**table.schema, **columns}
    return pl.DataFrame(schema=schema).schema


def grown(table: Table = FIRST, version: int = 2, **columns: Any) -> Table:
    """The table at a later version, with columns of other or new dtypes; new ones come after ``price``."""
    schema: dict[str, Any] = {}
    for name, dtype in table.schema.items():
        schema[name] = columns.pop(name, dtype)
        if name == "price":
            schema |= {new: kind for new, kind in columns.items() if new not in table.schema}
    return replace(table, schema=pl.Schema(schema), version=version)


def renamed(table: Table = FIRST, version: int = 2, old: str = "shop", new: str = "store") -> Table:
    schema = {new if name == old else name: dtype for name, dtype in table.schema.items()}
    return replace(table, schema=pl.Schema(schema), version=version, renamed={new: (old,)})


COUNTRY = replace(grown(country=pl.String), nullable=FIRST.nullable | {"country"})
CHANNEL = replace(
    grown(channel=pl.String), fills={"channel": "web"}, comments={"channel": "it's where {{x}}"}
)
WIDE = grown(quantity=pl.Int64, price=pl.Decimal(18, 4), tags=pl.List(pl.Int64))
NULL = replace(grown(), nullable=FIRST.nullable | {"quantity", "shop"})
FEW = replace(grown(), low_cardinality=frozenset({"shop"}))
STORE = renamed()


def rows(table: Table, *keys: str, **values: Any) -> Chunk:
    """Rows of a table by their ids, with values; other columns are null or empty."""
    given = {"order_id": list(keys), "order_date": [DAY] * len(keys)}
    given |= {"_batch_id": ["b"] * len(keys), "_index": [0] * len(keys), "_source": ["s"] * len(keys)}
    given |= {"_cursor": ["c"] * len(keys), "_ingested_at": [datetime(2026, 1, 2, tzinfo=UTC)] * len(keys)}
    given |= {name: [value] * len(keys) for name, value in values.items()}
    frame = pl.DataFrame(given).with_columns(
        pl.lit(None).alias(name) for name in table.schema if name not in given
    )
    return Chunk.of(to_arrow(frame.cast(dict(table.schema)), table))  # type: ignore[arg-type]


def types(raw: Settings, table: str = "orders") -> dict[str, str]:
    found = Server(raw).query(
        "SELECT name, type, default_kind FROM system.columns WHERE database = {d:String} AND table = {t:String}"
        " ORDER BY position",
        d=raw.raw_database,
        t=table,
    )
    return {name: f"{kind} {default}".strip() for name, kind, default in found if name not in ORIGIN_SCHEMA}


def select(raw: Settings, columns: str) -> list[tuple[Any, ...]]:
    return Server(raw).query(f"SELECT {columns} FROM {raw.raw_database}.orders ORDER BY order_id")


def generated(raw: Settings) -> list[tuple[str, str]]:
    return Server(raw).query(
        f"SELECT name, state FROM {raw.raw_database}._migrations FINAL WHERE version > {GENERATED} ORDER BY started_at"
    )


@pytest.fixture
def first(clickhouse: Make) -> Make:
    """The table of version 1, with a row."""
    warehouse = clickhouse()
    warehouse.prepare(FIRST)
    warehouse.insert(FIRST, rows(FIRST, "1", shop="a", quantity=1, price="1.50", tags=[1]), "first")
    return clickhouse


@pytest.mark.parametrize(
    ("table", "expected", "read"),
    [
        (COUNTRY, {"country": "Nullable(String)"}, None),
        (CHANNEL, {"channel": "String DEFAULT"}, "web"),
        (WIDE, {"quantity": "Int64", "price": "Decimal(18, 4)", "tags": "Array(Int64)"}, 1),
        (NULL, {"quantity": "Nullable(Int32)", "shop": "Nullable(String)"}, 1),
        (FEW, {"shop": "LowCardinality(String)"}, "a"),
        (STORE, {"store": "String DEFAULT", "shop": "Nullable(String) EPHEMERAL"}, "a"),
    ],
    ids=["added", "with a default", "widened", "nullable", "low cardinality", "renamed"],
)
def test_every_kind_of_change_comes_by_itself_once(
    first: Make, raw: Settings, table: Table, expected: dict[str, str], read: Any
) -> None:
    before = types(raw)
    _, [ahead] = first().plan([table])
    assert types(raw) == before, "a plan changes nothing"
    first().prepare(table)
    after = types(raw)
    assert {name: after[name] for name in expected} == expected
    assert {name: kind for name, kind in after.items() if name not in expected} == {
        name: kind for name, kind in before.items() if name not in expected
    }
    assert select(raw, next(iter(expected))) == [(read,)]
    assert generated(raw) == [("generated/0001_orders.v2.sql", "applied")]
    [(text, checksum, statements)] = Server(raw).query(
        f"SELECT text, checksum, statement FROM {raw.raw_database}._migrations FINAL WHERE version > {GENERATED}"
    )
    assert statements == len(ahead.statements) > 0
    assert all(one.replace(f"`{raw.raw_database}`", "{{raw}}") in text for one in ahead.statements)
    assert len(checksum) == 64
    for late in (table, FIRST, table):
        first().prepare(late)
    assert (types(raw), len(generated(raw))) == (after, 1), (
        "nobody finds anything to do, nor takes anything back"
    )
    assert [one.state for one in first().migrations.status()][-1] == "applied"
    assert first().plan([table, FIRST])[1] == []


def test_a_start_with_nothing_to_do_is_one_round_trip(first: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first().prepare(STORE)
    asked: list[int] = []
    call = Server._call

    def counted(self: Server, what: Any) -> Any:
        asked.append(1)
        return call(self, what)

    monkeypatch.setattr(Server, "_call", counted)
    for table in (STORE, FIRST):
        asked.clear()
        first().prepare(table)
        assert len(asked) == 1


def test_a_new_table_is_as_one_that_has_grown(first: Make, clickhouse: Make, raw: Settings) -> None:
    both = replace(STORE, schema=schema_of(STORE, channel=pl.String), fills={"channel": "web"})
    first().prepare(both)
    fresh = raw.model_copy(update={"raw_database": f"{raw.raw_database}_fresh"})
    clickhouse(raw_database=fresh.raw_database).prepare(both)
    assert types(fresh) == types(raw)
    assert generated(fresh) == [("generated/0001_orders.v2.sql", "applied")], (
        "an older process is told by this"
    )
    clickhouse(raw_database=fresh.raw_database).prepare(FIRST)
    assert types(fresh) == types(raw)


@pytest.mark.parametrize("new_first", [True, False])
def test_both_deployments_fill_a_renamed_column(first: Make, raw: Settings, new_first: bool) -> None:
    old, new = first(), first()
    old.prepare(FIRST)
    if not new_first:
        old.insert(FIRST, rows(FIRST, "2", shop="b"), "old")
    new.prepare(STORE)
    new.insert(STORE, rows(STORE, "3", store="c"), "new")
    if new_first:
        old.insert(FIRST, rows(FIRST, "2", shop="b"), "old")
    for again in (old, first()):
        again.insert(FIRST, rows(FIRST, "2", shop="b"), "old")  # the same token
    assert select(raw, "order_id, store") == [("1", "a"), ("2", "b"), ("3", "c")]


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        (replace(FIRST, key="quantity"), replace(WIDE, key="quantity"), 1),
        (replace(FIRST, key="shop"), replace(STORE, key="store"), "a"),
        (replace(FIRST, key="order_id"), replace(renamed(old="order_id", new="id"), key="id"), "1"),
    ],
    ids=["widened", "renamed", "renamed beside the sorting key"],
)
def test_rows_of_before_and_after_have_one_hash_of_their_key(
    first: Make, raw: Settings, before: Table, after: Table, value: Any
) -> None:
    for table in (before, after):
        first().prepare(table)
        assert not first().plan([table])[1], "nothing is left to do"
    assert types(raw)["_key_hash"] == "UInt64 MATERIALIZED"
    sent = {after.key: value, "order_date": DAY}
    chunk = pl.DataFrame({**sent, **dict.fromkeys(("_cursor", "_batch_id", "_source"), "c")})
    missing = [pl.lit(None).alias(name) for name in after.schema if name not in chunk.columns]
    whole = chunk.with_columns(missing).select(after.schema.names()).cast(dict(after.schema))  # type: ignore[arg-type]
    first().insert(after, Chunk.of(to_arrow(whole, after)), "again")
    hashes = Server(raw).query(f"SELECT _key_hash FROM {raw.raw_database}.orders")
    assert len(hashes) == 2 and len({*hashes}) == 1
    assert Server(raw).query(f"SELECT cityHash64('{value}')") == hashes[:1]


def test_old_rows_take_the_default_of_a_column_that_they_lack(first: Make, raw: Settings) -> None:
    first().prepare(CHANNEL)
    old = first()
    old.prepare(FIRST)
    old.insert(FIRST, rows(FIRST, "2", shop="b"), "old")
    first().insert(CHANNEL, rows(CHANNEL, "3", shop="c", channel="app"), "new")
    assert select(raw, "order_id, channel") == [("1", "web"), ("2", "web"), ("3", "app")]


def test_an_old_process_keeps_the_values_of_columns_that_it_does_not_know(first: Make, raw: Settings) -> None:
    """And puts off what it would lose, until somebody who knows the column was there."""
    old = first()
    old.prepare(FIRST)
    sent = replace(rows(COUNTRY, "2", shop="b", country="DE"), columns=tuple(COUNTRY.schema))
    with pytest.raises(
        Retriable, match=r"column 'country', which neither the contract of this process \(version 1\)"
    ):
        old.insert(FIRST, sent, "t")
    first().prepare(COUNTRY)
    old.insert(FIRST, sent, "t")
    assert select(raw, "order_id, country") == [("1", None), ("2", "DE")]


def test_a_column_that_others_read_gets_one_beside_it(first: Make, raw: Settings) -> None:
    view = f"{raw.raw_database}.stg_orders"
    Server(raw).command(
        f"CREATE VIEW {view} AS WITH s AS (SELECT * FROM {raw.raw_database}.orders) SELECT shop FROM s"
    )
    _, [plan] = first().plan([STORE])
    assert plan.notes == (
        f"orders.store comes beside shop, and both have the same values from then on: {view} reads shop",
    )
    first().prepare(STORE)
    assert types(raw)["shop"] == "Nullable(String)"
    old = first()
    old.prepare(FIRST)
    old.insert(FIRST, rows(FIRST, "2", shop="b"), "old")
    first().insert(STORE, rows(STORE, "3", store="c"), "new")
    assert select(raw, "order_id, store, shop") == [("1", "a", "a"), ("2", "b", "b"), ("3", "c", "c")]
    assert Server(raw).query(f"SELECT shop FROM {view} ORDER BY shop") == [("a",), ("b",), ("c",)]
    assert first().plan([STORE, FIRST])[1] == []


def test_an_earlier_name_that_stays_widens_with_the_newest(first: Make, raw: Settings) -> None:
    """And has the values also after a day was replaced."""
    database, wide = raw.raw_database, grown(renamed(old="quantity", new="pieces"), pieces=pl.Int64)
    Server(raw).command(f"CREATE VIEW {database}.v AS SELECT quantity FROM {database}.orders")
    first().prepare(wide)
    assert types(raw)["quantity"] == "Nullable(Int64)"
    new = first()
    new.insert(wide, rows(wide, "2", pieces=2**40), "new")
    assert select(raw, "order_id, pieces, quantity") == [("1", 1, 1), ("2", 2**40, 2**40)]
    new.replace_partition(wide, DAY, [rows(wide, "3", pieces=2**41)])
    assert Server(raw).query(f"SELECT quantity FROM {database}.v") == [(2**41,)]
    assert first().plan([wide, FIRST])[1] == []


def test_views_have_the_wider_types_also_those_that_read_views(first: Make, raw: Settings) -> None:
    """A view of before would show 0 for a value beyond its type."""
    server, database = Server(raw), raw.raw_database
    server.command(f"CREATE VIEW {database}.z AS SELECT quantity FROM {database}.orders COMMENT 'it''s z'")
    server.command(f"CREATE VIEW {database}.a AS SELECT quantity + 0 AS q, quantity FROM {database}.z")
    new = first()
    new.prepare(WIDE)
    new.insert(WIDE, rows(WIDE, "2", quantity=2**40), "new")
    assert server.query(f"SELECT max(quantity) FROM {database}.z") == [(2**40,)]
    assert server.query(f"SELECT max(quantity) FROM {database}.a") == [(2**40,)]
    [(comment,)] = server.query(
        "SELECT comment FROM system.tables WHERE database = {d:String} AND name = 'z'", d=database
    )
    assert comment == "it's z"


def test_views_that_are_made_again_read_as_whom_they_did(first: Make, raw: Settings) -> None:
    server, database = Server(raw), raw.raw_database
    text = f"AS SELECT quantity FROM {database}.orders"
    server.command(f"CREATE VIEW {database}.a DEFINER = CURRENT_USER SQL SECURITY DEFINER {text}")
    server.command(f"CREATE VIEW {database}.b {text}")
    asked = "SELECT name, definer FROM system.tables WHERE database = {d:String} AND engine = 'View' ORDER BY name"
    before = server.query(asked, d=database)
    assert [bool(definer) for _, definer in before] == [True, False]
    first().prepare(WIDE)
    assert server.query(asked, d=database) == before


def test_views_come_after_those_that_they_read() -> None:
    def view(name: str, text: str) -> View:
        return View("b", name, "View", text)

    given = [
        view("v1", "select * from b.v3, raw.orders"),
        view("v2", "select * from raw.others"),
        view("v3", "select * from b.v4"),
        view("v4", "select * from raw.orders"),
    ]
    assert [one.name for one in in_order(given, ("raw", "orders"))] == ["v4", "v3", "v1"]


def test_a_view_that_cannot_be_made_again_is_named(
    first: Make, raw: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    server, database = Server(raw), raw.raw_database
    server.command(f"CREATE TABLE {database}.other (x Int8) ENGINE = MergeTree ORDER BY x")
    server.command(
        f"CREATE VIEW {database}.v AS SELECT o.quantity, x FROM {database}.orders AS o, {database}.other"
    )
    server.command(f"DROP TABLE {database}.other")
    first().prepare(WIDE)
    assert f"view {database}.v keeps the types of before, deploy it again: " in caplog.text
    assert generated(raw)[0][1] == "applied"


def test_a_view_that_reads_other_columns_is_no_hindrance(first: Make, raw: Settings) -> None:
    Server(raw).command(
        f"CREATE VIEW {raw.raw_database}.v AS"
        f" WITH s AS (SELECT * FROM {raw.raw_database}.orders) SELECT quantity FROM s"
    )
    first().prepare(STORE)
    assert "EPHEMERAL" in types(raw)["shop"]
    assert Server(raw).query(f"SELECT quantity FROM {raw.raw_database}.v") == [(1,)]


def test_a_key_and_a_cluster_get_one_beside_it_too() -> None:
    there = {name: ColumnShape("String") for name in FIRST.schema}
    for found in (
        growth(STORE, there | {"shop": ColumnShape("String", in_key=True)}),
        growth(STORE, there, together=False),
    ):
        assert not [one for one in found.statements if "RENAME" in one]
        assert [
            one
            for one in found.statements
            if "ADD COLUMN IF NOT EXISTS `store` String DEFAULT coalesce(`shop`" in one
        ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            grown(quantity=pl.String),
            "column 'quantity' of raw table orders is Int32, .* wants another type, String",
        ),
        (
            grown(quantity=pl.Int16),
            "column 'quantity' of raw table orders is Int32, .* wants a narrower type, Int16",
        ),
        (
            replace(grown(), nullable=FIRST.nullable | {"order_id"}),
            "'order_id' .* Nullable.* no type in a sorting key",
        ),
    ],
    ids=["another", "narrower", "key"],
)
def test_what_does_not_come_by_itself_is_one_line_and_stops_its_stream_alone(
    first: Make, raw: Settings, table: Table, said: str
) -> None:
    before, other = types(raw), replace(FIRST, name="others")
    warehouse = first()
    for _ in range(2):
        with pytest.raises(Fatal, match=said) as raised:
            warehouse.prepare(table)
    assert "\n" not in str(raised.value) and "{{" not in str(raised.value)
    _, [plan] = warehouse.plan([table])
    assert str(raised.value) in plan.refused
    warehouse.prepare(other)
    assert (types(raw), generated(raw)) == (before, [])
    first().prepare(FIRST)


def test_the_next_step_of_a_refused_type_is_one(first: Make, raw: Settings) -> None:
    table = grown(quantity=pl.String)
    with pytest.raises(Fatal) as raised:
        first().prepare(table)
    Server(raw).command(str(raised.value).partition("migration with ")[2])
    first().prepare(table)
    assert select(raw, "quantity") == [("1",)]


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("table", [STORE, replace(WIDE, fills={"x": 1})], ids=["renamed", "widened"])
def test_killed_between_statements(
    first: Make, raw: Settings, monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    """Whoever publishes next ends what was begun, under its number; an older one waits only if it must."""
    _, [plan] = first().plan([table])
    for step in range(len(plan.statements)):
        command, left = Server.command, [min(step, 1)]  # one statement further each time

        def dying(self: Server, sql: str, command: Any = command, left: list[int] = left) -> None:
            if sql.startswith("ALTER") and ".`orders`" in sql:
                if not left[0]:
                    raise Killed
                left[0] -= 1
            command(self, sql)

        monkeypatch.setattr(Server, "command", dying)
        with pytest.raises(Killed):
            first().prepare(table)
        monkeypatch.setattr(Server, "command", command)
        if step == 0:
            assert first().migrations.status()[-1].state == "interrupted"
            first().prepare(FIRST)
            assert first().migrations.status()[-1].state == "interrupted", (
                "it lacks nothing, and has no say in it"
            )
    first().prepare(table)
    assert first().migrations.status()[-1].state == "applied"
    assert {name for name, _ in generated(raw)} == {"generated/0001_orders.v2.sql"}
    assert first().plan([table, FIRST])[1] == []


def test_an_old_process_waits_while_a_rename_is_half_done(
    first: Make, raw: Settings, monkeypatch: Any
) -> None:
    command = Server.command

    def dying(self: Server, sql: str) -> None:
        if " ADD COLUMN IF NOT EXISTS `shop`" in sql:
            raise Killed
        command(self, sql)

    monkeypatch.setattr(Server, "command", dying)
    with pytest.raises(Killed):
        first().prepare(STORE)
    monkeypatch.setattr(Server, "command", command)
    with pytest.raises(
        Retriable, match=r"half way to a newer version of its contract \(generated/0001_orders\.v2\.sql"
    ):
        first().prepare(FIRST)
    first().prepare(STORE)
    first().prepare(FIRST)
    assert select(raw, "store") == [("a",)]


def test_the_text_is_in_a_history_from_before(first: Make, raw: Settings) -> None:
    Server(raw).command(f"ALTER TABLE {raw.raw_database}._migrations DROP COLUMN text")
    first().prepare(FIRST)
    first().prepare(COUNTRY)
    assert generated(raw) == [("generated/0001_orders.v2.sql", "applied")]


def test_two_versions_at_once_end_with_one_table(first: Make, raw: Settings) -> None:
    third = replace(
        STORE, schema=schema_of(STORE, quantity=pl.Int64, country=pl.String), version=3,
        nullable=FIRST.nullable | {"country"},
    )  # fmt: skip
    errors: list[BaseException] = []

    def start(table: Table) -> None:
        try:
            warehouse = ClickHouse(raw)
            warehouse.prepare(table)
            warehouse.insert(table, rows(table, f"n{table.version}", quantity=2), f"t{table.version}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(table,)) for table in (STORE, third, FIRST, third)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
        assert not one.is_alive()
    assert [one for one in errors if not isinstance(one, Retriable)] == []
    first().prepare(third)
    assert (types(raw)["quantity"], types(raw)["country"]) == ("Int64", "Nullable(String)")
    assert types(raw)["store"] == "String DEFAULT"
    assert first().plan([FIRST, STORE, third])[1] == []


def test_a_replaced_day_and_an_erasure_follow(first: Make, raw: Settings) -> None:
    first().prepare(STORE)
    for table, column in ((FIRST, "shop"), (STORE, "store")):
        warehouse = first()
        assert warehouse.replace_partition(table, DAY, [rows(table, "1", "2", **{column: "x"})]) == 2
        assert select(raw, "order_id, store") == [("1", "x"), ("2", "x")]
    database = raw.raw_database
    assert warehouse.erase(database, "shop", "x", only_count=True) == {}, "it stores nothing"
    assert warehouse.erase(database, "store", "x") == {f"{database}.orders": 2}
    assert select(raw, "order_id") == []


def test_a_failed_one_is_told_and_goes_on_where_it_can(first: Make, raw: Settings, monkeypatch: Any) -> None:
    broken = replace(CHANNEL, schema=schema_of(CHANNEL, n=pl.Int32), fills={"channel": "web", "n": "no"})
    with pytest.raises(
        Fatal, match=r"generated/0001_orders\.v2\.sql failed at statement 2 of 2.*starts it over"
    ):
        first().prepare(broken)
    status = first().migrations.status()[-1]
    assert (status.state, status.refused, status.to_do) == ("failed", False, False)
    first().prepare(replace(FIRST, name="others"))
    assert first().migrations.up() == []
    first().prepare(CHANNEL)
    assert first().migrations.status()[-1].state == "applied"


def test_a_column_is_one_of_both_tables_on_a_cluster() -> None:
    statement = "ALTER TABLE `raw`.`orders` ADD COLUMN IF NOT EXISTS `x` String"
    assert Placement("main").statements(statement) == [
        "ALTER TABLE `raw`.`orders_local` ON CLUSTER `main` ADD COLUMN IF NOT EXISTS `x` String",
        "ALTER TABLE `raw`.`orders` ON CLUSTER `main` ADD COLUMN IF NOT EXISTS `x` String",
    ]


@pytest.mark.parametrize(
    ("there", "wanted", "found"),
    [
        ("Int32", "Int64", "Int64"),
        ("Int64", "Int32", "Int64"),
        ("Nullable(Int32)", "Int64", "Nullable(Int64)"),
        ("Int64", "Float64", "Float64"),
        ("UInt32", "Int64", "Int64"),
        ("String", "Int64", None),
        ("Int64", "String", None),
        ("Decimal(9, 2)", "Decimal(18, 4)", "Decimal(18, 4)"),
        ("Decimal(9, 2)", "Decimal(9, 4)", None),
        ("LowCardinality(String)", "Nullable(String)", "LowCardinality(Nullable(String))"),
        ("UUID", "String", "String"),
        ("Enum8('a' = 1, 'b, c' = 2)", "LowCardinality(String)", "Enum8('a' = 1, 'b, c' = 2)"),
        ("DateTime64(3, 'UTC')", "DateTime64(6, 'UTC')", "DateTime64(3, 'UTC')"),
        ("DateTime64(6, 'UTC')", "DateTime64(6, 'UTC')", "DateTime64(6, 'UTC')"),
        ("Array(Nullable(Int8))", "Array(Int16)", "Array(Nullable(Int16))"),
        ("Map(String, Int8)", "Map(LowCardinality(String), Int64)", "Map(LowCardinality(String), Int64)"),
        ("Tuple(a Int8, `b c` String)", "Tuple(`b c` String, d Date32)", "Tuple(`a` Int8, `b c` String, `d` Date32)"),
        ("Tuple(a Int8)", "Tuple(a String)", None),
        ("Array(Int8)", "Int8", None),
    ],
)  # fmt: skip
def test_types_only_ever_widen(there: str, wanted: str, found: str | None) -> None:
    assert wider(there, wanted) == found
    if found is not None:
        assert wider(found, wanted) == wider(found, there) == found, "whoever comes next leaves it"


def test_a_narrower_type_is_told_from_null_and_dictionaries() -> None:
    assert (
        narrows("Int64", "Int32")
        and narrows("Nullable(Int64)", "Int32")
        and narrows("Array(Int64)", "Array(Int8)")
    )
    for there, wanted in (
        ("Int32", "Int64"),
        ("Nullable(Int64)", "Int64"),
        ("DateTime64(3)", "Date"),
        ("Int8", "Date"),
    ):
        assert not narrows(there, wanted)


def test_migrations_of_a_project_make_tables_of_later_versions_too(raw: Settings, tmp_path: Any) -> None:
    from headrace.warehouse.migrations.files import ProjectMigrations

    (tmp_path / "0001_index.sql").write_text(
        "ALTER TABLE {{raw}}.orders ADD INDEX IF NOT EXISTS s store TYPE minmax;\n"
    )
    project = ProjectMigrations(tmp_path, lambda: [STORE])
    Migrations(Server(raw), raw.raw_database, project=project).up()
    assert generated(raw) == [("generated/0001_orders.v2.sql", "applied")]
    assert types(raw)["shop"] == "Nullable(String) EPHEMERAL"
