"""Migrations: applied once, in order, by whoever comes first; what was applied stays as it was."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from conftest import Stack
from headrace.config.settings import Settings
from headrace.contracts import EVENTS, METRICS
from headrace.core.errors import Fatal
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.migrations import files as migration_files
from headrace.warehouse.migrations import runner as migrate
from headrace.warehouse.migrations.files import Migration, read_migrations
from headrace.warehouse.migrations.runner import Migrations, MigrationState
from headrace.warehouse.server import Refused, Server

TABLES = (EVENTS.table, EVENTS.rejected_table, METRICS.table, METRICS.rejected_table)
ONE = Migration(
    1, "0001_one.sql", "CREATE TABLE IF NOT EXISTS {{raw}}.one (a Int8) ENGINE = MergeTree ORDER BY a\n"
)
TWO = Migration(
    2, "0002_two.sql", "-- two;\nALTER TABLE {{raw}}.one ADD COLUMN IF NOT EXISTS b Int8;\nSELECT 1;\n"
)
BROKEN = Migration(
    2,
    "0002_two.sql",
    "ALTER TABLE {{raw}}.one ADD COLUMN IF NOT EXISTS b Int8;\nSELECT nonsense;\nSELECT 1;\n",
)
MENDED = Migration(2, "0002_two.sql", BROKEN.text.replace("nonsense", "1"))

Make = Callable[..., Migrations]


@pytest.fixture
def migrations(raw: Settings) -> Make:
    """``migrations(file, ...)``: these files on a database of its own, as another process would see it."""
    return lambda *known, **more: Migrations(Server(raw), raw.raw_database, known, **more)


def states(found: list[MigrationState]) -> list[tuple[str, str]]:
    return [(one.name, one.state) for one in found]


def history(raw: Settings, columns: str = "version, state, statement") -> list[tuple[Any, ...]]:
    return Server(raw).query(
        f"SELECT {columns} FROM {raw.raw_database}._migrations FINAL ORDER BY started_at"
    )


def test_what_is_pending_is_applied_once_and_in_order(migrations: Make, raw: Settings) -> None:
    assert states(migrations(ONE, TWO).status()) == [("0001_one.sql", "pending"), ("0002_two.sql", "pending")]
    assert [one.version for one in migrations(ONE, TWO).up()] == [1, 2]
    assert [one.state for one in migrations(ONE, TWO).status()] == ["applied", "applied"]
    assert migrations(ONE, TWO).up() == []
    assert history(raw) == [(1, "applied", 1), (2, "applied", 2)]
    [(host, pid, checksum)] = history(raw, "host, pid, checksum")[:1]
    assert host and pid and checksum == ONE.checksum
    assert all(one.finished_at and one.finished_at.tzinfo for one in migrations(ONE, TWO).status())
    assert migrations(ONE, TWO).lock.holder() is None


def test_looking_changes_nothing(migrations: Make, raw: Settings) -> None:
    assert [one.state for one in migrations(ONE).status()] == ["pending"]
    known = Server(raw).query(
        "SELECT count() FROM system.databases WHERE name = {n:String}", n=raw.raw_database
    )
    assert known == [(0,)]


def test_an_edited_one_that_was_applied_is_refused(migrations: Make, raw: Settings) -> None:
    migrations(ONE).up()
    edited = Migration(1, ONE.name, ONE.text.replace("Int8", "Int16"))
    [one] = migrations(edited, TWO).status()[:1]
    assert one.state == "edited"
    with pytest.raises(Fatal) as raised:
        migrations(edited, TWO).up()
    for part in (ONE.name, ONE.checksum[:12], edited.checksum[:12], "restore the file"):
        assert part in str(raised.value)
    assert history(raw) == [(1, "applied", 1)]


def test_a_failed_one_says_where_and_starts_over(migrations: Make, raw: Settings) -> None:
    with pytest.raises(
        Fatal, match=r"0002_two\.sql failed at statement 2 of 3: .*nonsense.*'headrace migrate up'"
    ):
        migrations(ONE, BROKEN).up()
    assert history(raw) == [(1, "applied", 1), (2, "failed", 2)]
    [_, failed] = migrations(ONE, BROKEN).status()
    assert (failed.state, failed.said.startswith("failed at statement 2: ")) == ("failed", True)
    assert "\n" not in failed.said
    with pytest.raises(Fatal):
        migrations(ONE, BROKEN).up()
    assert [one.version for one in migrations(ONE, MENDED).up()] == [2]
    assert history(raw) == [(1, "applied", 1), (2, "failed", 2), (2, "failed", 2), (2, "applied", 3)]


def test_one_whose_file_is_gone_is_refused(migrations: Make) -> None:
    migrations(ONE, TWO).up()
    three = Migration(3, "0003_three.sql", "SELECT 1;\n")
    assert states(migrations(ONE, three).status())[1] == ("0002_two.sql", "missing")
    with pytest.raises(Fatal, match=r"0002_two\.sql was run \(applied\) and its file is gone"):
        migrations(ONE, three).up()


def test_one_that_failed_at_once_may_be_taken_back_and_one_that_did_something_not(migrations: Make) -> None:
    wrong = Migration(2, TWO.name, "CREATE TABEL {{raw}}.nonsense (a Int8) ENGINE = Memory;\n")
    with pytest.raises(Fatal, match=r"0002_two\.sql failed at statement 1 of 1"):
        migrations(ONE, wrong).up()
    assert [one.state for one in migrations(ONE).status()] == ["applied"]
    assert migrations(ONE).up() == []
    with pytest.raises(Fatal, match=r"failed at statement 2 of 3"):
        migrations(ONE, BROKEN).up()
    with pytest.raises(Fatal, match=r"0002_two\.sql was run by Headrace"):
        migrations(ONE).up()


def test_a_database_of_a_newer_headrace_is_refused(migrations: Make) -> None:
    migrations(ONE, TWO).up()
    assert migrations(ONE).status()[-1].state == "newer"
    with pytest.raises(Fatal, match=r"0002_two\.sql was run by Headrace .* newer .*; update Headrace"):
        migrations(ONE).up()


def test_a_publisher_stays_out_of_a_half_migrated_database(
    clickhouse: Callable[..., ClickHouse], raw: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = read_migrations()
    broken = Migration(shipped[-1].version, shipped[-1].name, "SELECT nonsense;\n")
    monkeypatch.setattr(migrate, "read_migrations", lambda: [*shipped[:-1], broken])
    for _ in range(2):  # the second comes to a database that has failed already
        with pytest.raises(Fatal, match=f"{broken.name} failed"):
            clickhouse().prepare(EVENTS.table)
    monkeypatch.setattr(migrate, "read_migrations", lambda: shipped)
    clickhouse().prepare(EVENTS.table)
    assert {one.state for one in clickhouse().migrations.status()} == {"applied"}


def test_a_start_with_nothing_to_do_is_one_round_trip(
    clickhouse: Callable[..., ClickHouse], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    call = Server._call
    monkeypatch.setattr(Server, "_call", lambda self, what: asked.append(1) or call(self, what))
    for first in (True, False):
        asked.clear()
        warehouse = clickhouse()
        for table in TABLES:
            warehouse.prepare(table)
        assert (len(asked) == 1) is not first


class Both(threading.Thread):
    """One of two starters; keeps what it raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self.work, self.error = work, None

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.error = error


@pytest.mark.parametrize("locked", [True, False])
def test_two_starters_at_once(
    migrations: Make, raw: Settings, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """And the negative control: without the lock both run what both have seen to be pending."""
    starters = [migrations(ONE, TWO) for _ in range(2)]
    if not locked:
        migrations().up()  # the history is there
        both_looked = threading.Barrier(2)
        monkeypatch.setattr(migrate, "refuse", lambda _: both_looked.wait(30))
        for one in starters:
            monkeypatch.setattr(one.lock, "held", lambda: nullcontext(lambda: None))
    threads = [Both(one.up) for one in starters]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
        assert not one.is_alive()
        assert one.error is None
    applied = history(raw, "version")
    assert applied == [(1,), (2,)] if locked else sorted(applied) == [(1,), (1,), (2,), (2,)]


def _catalogue(warehouse: ClickHouse, database: str) -> dict[str, list[tuple[Any, ...]]]:
    """All that a table can differ in, without the name of its database."""
    asked = {
        "columns": "table, name, type, default_expression, comment, compression_codec FROM system.columns",
        "tables": (
            "name, partition_key, sorting_key, comment, splitByString(' SETTINGS ', engine_full)[1],"
            # settings come in the order in which they were set
            " arraySort(splitByString(', ', splitByString(' SETTINGS ', engine_full)[2])) FROM system.tables"
        ),
        "indexes": "table, name, type_full, expr, granularity FROM system.data_skipping_indices",
    }
    return {
        what: sorted(warehouse.query(f"SELECT {sql} WHERE database = {{database:String}}", database=database))
        for what, sql in asked.items()
    }


def _of_streams(found: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    return {what: [row for row in rows if not row[0].startswith("_")] for what, rows in found.items()}


def test_migrated_tables_are_what_the_contracts_derive(
    clickhouse: Callable[..., ClickHouse], raw: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated, derived = clickhouse(), clickhouse(raw_database=f"{raw.raw_database}_derived")
    migrated.migrations.up()
    of_migrations = _of_streams(_catalogue(migrated, raw.raw_database))
    monkeypatch.setattr(migrate, "read_migrations", list)
    for table in TABLES:
        derived.prepare(table)
    of_contracts = _of_streams(_catalogue(derived, f"{raw.raw_database}_derived"))
    assert of_migrations == of_contracts
    assert {row[0] for row in of_migrations["tables"]} == {table.name for table in TABLES}
    # negative control: what drifts is seen, be it ever so small
    for change in (
        "MODIFY COLUMN user_id CODEC(LZ4)",
        "COMMENT COLUMN user_id 'somebody'",
        "MODIFY SETTING ttl_only_drop_parts = 0",
        "DROP INDEX _ingested_at_range",
    ):
        Server(raw).command(f"ALTER TABLE {raw.raw_database}.events {change}")
        drifted = _of_streams(_catalogue(migrated, raw.raw_database))
        assert drifted != of_migrations, change
        of_migrations = drifted


def test_a_table_that_lacks_a_column_of_its_contract_gets_it(
    clickhouse: Callable[..., ClickHouse], raw: Settings
) -> None:
    clickhouse().prepare(EVENTS.table)
    before = _of_streams(_catalogue(clickhouse(), raw.raw_database))
    Server(raw).command(f"ALTER TABLE {raw.raw_database}.events DROP COLUMN user_id")
    assert _of_streams(_catalogue(clickhouse(), raw.raw_database)) != before
    clickhouse().prepare(EVENTS.table)
    assert _of_streams(_catalogue(clickhouse(), raw.raw_database)) == before
    assert clickhouse().migrations.status()[-1].name == "generated/0001_events.v1.sql"


def test_the_time_to_live_follows_the_setting(clickhouse: Callable[..., ClickHouse], raw: Settings) -> None:
    def ttl() -> str:
        [(engine,)] = Server(raw).query(
            "SELECT engine_full FROM system.tables WHERE database = {d:String} AND name = 'events'",
            d=raw.raw_database,
        )
        return str(engine.partition(" TTL ")[2].partition(" SETTINGS")[0])

    asked: list[str] = []
    for days, expected in (
        (0, ""),
        (30, "event_date + toIntervalDay(30)"),
        (7, "event_date + toIntervalDay(7)"),
    ):
        clickhouse(raw_ttl_days=days).prepare(EVENTS.table)
        assert ttl() == expected
        again = clickhouse(raw_ttl_days=days)
        again._server.command = asked.append  # type: ignore[method-assign]
        again.prepare(EVENTS.table)
        assert asked == [], "what is as it should be is left alone"
    clickhouse(raw_ttl_days=0).prepare(EVENTS.table)
    assert ttl() == ""
    # a table that no migration made has it from the beginning
    clickhouse(raw_database=f"{raw.raw_database}_b", raw_ttl_days=3).prepare(EVENTS.table)
    assert "toIntervalDay(3)" in str(_catalogue(clickhouse(), f"{raw.raw_database}_b")["tables"])


def test_files_are_read_in_order_and_odd_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0002_b.sql").write_bytes(b"SELECT 2;\r\n")
    (tmp_path / "0001_a.sql").write_text("SELECT {{raw}};\n")
    found = read_migrations(tmp_path)
    assert [one.version for one in found] == [1, 2]
    assert found[1].checksum == Migration(2, "0002_b.sql", "SELECT 2;\n").checksum, "line ends do not count"
    assert found[0].statements("a`b") == ["SELECT `a\\`b`"]
    (tmp_path / "0002_c.sql").write_text("SELECT 3;")
    with pytest.raises(Fatal, match=r"0002_b\.sql and 0002_c\.sql have the same number"):
        read_migrations(tmp_path)
    (tmp_path / "2-b.sql").write_text("")
    with pytest.raises(Fatal, match="the name must be"):
        read_migrations(tmp_path)
    with pytest.raises(Fatal, match=r"lake.. is unknown"):
        Migration(1, "0001_a.sql", "SELECT {{lake}}").statements("raw")


#: How a statement begins that may be run again.
REPEATABLE = re.compile(
    r"(CREATE (TABLE|VIEW|MATERIALIZED VIEW|DATABASE|DICTIONARY) IF NOT EXISTS|DROP \w+ IF EXISTS"
    r"|ALTER TABLE \S+ (ADD|DROP) (COLUMN|INDEX|PROJECTION) IF (NOT )?EXISTS"
    r"|ALTER TABLE \S+ MODIFY (COLUMN IF EXISTS|SETTING|COMMENT|QUERY)) "
)


@pytest.mark.parametrize("migration", read_migrations(), ids=lambda one: one.name)
def test_a_shipped_migration_says_why_and_may_be_run_again(migration: Migration) -> None:
    assert migration.text.startswith("-- ")
    for statement in migration.statements("raw"):
        assert REPEATABLE.match(" ".join(statement.split())), statement
        assert "`raw`." in statement


def test_the_lint_of_migrations_finds_what_may_not_be_run_again() -> None:
    for statement in (
        "CREATE TABLE `raw`.a (b Int8)",
        "ALTER TABLE `raw`.a ADD COLUMN b Int8",
        "INSERT INTO a",
    ):
        assert not REPEATABLE.match(statement)


def test_the_shipped_numbers_have_no_gaps_and_are_in_the_package() -> None:
    assert [one.version for one in read_migrations()] == list(range(1, len(read_migrations()) + 1))
    assert migration_files.FOLDER.is_relative_to(Path(migration_files.__file__).parent)


def test_a_refusal_keeps_the_code_of_the_server(stack: Stack) -> None:
    with pytest.raises(Refused) as raised:
        Server(stack.settings).query("SELECT * FROM nowhere.nothing")
    assert raised.value.code in (60, 81)
