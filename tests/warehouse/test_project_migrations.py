"""Migrations of a project: after Headrace's own, with numbers of their own, on tables that exist."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from headrace.config.settings import Settings
from headrace.contracts import EVENTS, METRICS
from headrace.core.errors import Fatal
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.migrations.files import PROJECT, ProjectMigrations, read_migrations
from headrace.warehouse.server import Server

SHOP = replace(METRICS.table, name="shop")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the project's migrations are, beside what is none."""
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "README.md").write_text("no migration\n")
    return tmp_path / "migrations"


def warehouse(raw: Settings, folder: Path | None) -> ClickHouse:
    return ClickHouse(raw, project=ProjectMigrations(folder, lambda: [SHOP]) if folder else None)


def columns(raw: Settings) -> set[str]:
    sql = "SELECT name FROM system.columns WHERE database = {database:String} AND table = 'shop'"
    return {name for (name,) in Server(raw).query(sql, database=raw.raw_database)}


def add(folder: Path, number: int, column: str) -> None:
    text = f"ALTER TABLE {{{{raw}}}}.shop ADD COLUMN IF NOT EXISTS {column} String;\n"
    (folder / f"{number:04}_{column}.sql").write_text(text)


def test_they_come_after_headraces_own_on_tables_that_are_there(raw: Settings, folder: Path) -> None:
    add(folder, 1, "coupon")
    made = warehouse(raw, folder)
    made.prepare(EVENTS.table)  # whatever is published first
    assert "coupon" in columns(raw)
    found = made.migrations.status()
    own = [one.version for one in read_migrations()]
    assert [one.version for one in found] == [*own, PROJECT + 1]
    assert (found[-1].name, found[-1].state) == ("migrations/0001_coupon.sql", "applied")
    add(folder, 2, "country")
    assert [one.name for one in warehouse(raw, folder).migrations.up()] == ["migrations/0002_country.sql"]
    assert {"coupon", "country"} <= columns(raw)
    assert warehouse(raw, folder).migrations.up() == []


def test_without_any_nothing_is_different(raw: Settings, folder: Path) -> None:
    warehouse(raw, folder).migrations.up()
    assert not columns(raw), "a table is made when its stream is published"
    warehouse(raw, folder / "nowhere").prepare(SHOP)
    assert columns(raw)


def test_an_applied_one_that_is_edited_or_gone_stops_all(raw: Settings, folder: Path) -> None:
    add(folder, 1, "coupon")
    warehouse(raw, folder).migrations.up()
    (folder / "0001_coupon.sql").write_text("SELECT 1;\n")
    with pytest.raises(Fatal, match=r"migrations/0001_coupon\.sql was applied as \w+ and is \w+ now"):
        warehouse(raw, folder).prepare(SHOP)
    (folder / "0001_coupon.sql").unlink()
    with pytest.raises(
        Fatal, match=r"migrations/0001_coupon\.sql was run \(applied\) and this project has no such"
    ):
        warehouse(raw, folder).prepare(SHOP)
    with pytest.raises(Fatal, match="run this in the project that has it"):
        warehouse(raw, None).migrations.up()


def test_one_that_fails_is_named_and_starts_over_once_it_is_mended(raw: Settings, folder: Path) -> None:
    add(folder, 1, "coupon")
    broken = folder / "0001_coupon.sql"
    good = broken.read_text()
    broken.write_text(good + "SELECT nonsense;\n")
    with pytest.raises(Fatal, match=r"migrations/0001_coupon\.sql failed at statement 2 of 2"):
        warehouse(raw, folder).migrations.up()
    broken.write_text(good)
    assert [one.state for one in warehouse(raw, folder).migrations.up()] == ["failed"]
    (folder / "1_bad.sql").write_text("SELECT 1")
    with pytest.raises(Fatal, match="the name must be four digits"):
        _ = warehouse(raw, folder).migrations
