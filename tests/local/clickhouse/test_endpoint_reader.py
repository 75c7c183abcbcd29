"""The user of BI tools: reads what it was given, sees nothing else, changes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from . import conftest as server
from .conftest import Endpoint

READER_PASSWORD = "reads:only é"


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A server with a reader of ``marts``, from whom two tables there are hidden."""
    directory = tmp_path_factory.mktemp("reader") / "data folder"
    running = server.launch(
        directory,
        "--reads",
        "marts",
        "--hide",
        "history",
        "--hide",
        "later_hidden",
        "--show",
        "raw.shown",
        reader=READER_PASSWORD,
    )
    for sql in (
        "CREATE DATABASE marts",
        "CREATE DATABASE raw",
        "CREATE TABLE raw.events (id UInt64, day Date) ENGINE = MergeTree ORDER BY id",
        "INSERT INTO raw.events SELECT number, '2026-01-01' FROM numbers(10)",
        "CREATE TABLE marts.history AS raw.events",
        "CREATE TABLE marts.daily (day Date COMMENT 'UTC day', n UInt64) ENGINE = MergeTree ORDER BY day",
        "INSERT INTO marts.daily VALUES ('2026-01-01', 10)",
        "CREATE VIEW marts.live SQL SECURITY DEFINER AS SELECT count() AS n FROM raw.events",
        "CREATE VIEW marts.as_reader AS SELECT count() AS n FROM raw.events",
    ):
        running.run(sql)
    yield running
    running.kill()


@pytest.fixture
def reader(owner: Endpoint) -> Endpoint:
    return replace(owner, user="headrace_bi", password=READER_PASSWORD)


def test_it_reads_what_it_was_given(reader: Endpoint, owner: Endpoint) -> None:
    assert reader.run("SELECT n FROM marts.daily") == reader.run("SELECT n FROM marts.live") == "10"
    assert reader.run("SHOW TABLES FROM marts").split() == ["as_reader", "daily", "live"]
    assert reader.run("SELECT comment FROM system.columns WHERE table = 'daily'") == "UTC day"
    assert reader.run("SELECT name FROM system.databases").split() == [
        "marts",
        "raw",
    ]  # of which it may read one
    assert reader.run("SELECT count() FROM system.processes") == "0"
    assert owner.run("SELECT count() FROM system.processes") == "1"
    assert reader.run("SELECT DISTINCT database FROM system.tables") == "marts"
    assert set(owner.run("SELECT name FROM system.databases").split()) >= {"marts", "raw", "system"}
    owner.run("CREATE TABLE marts.later (x Int8) ENGINE = Memory")
    owner.run("CREATE TABLE marts.later_hidden (x Int8) ENGINE = Memory")
    assert reader.run("SELECT count() FROM marts.later") == "0"
    assert reader.request("SELECT count() FROM marts.later_hidden").code == 497


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM marts.history",
        "SELECT * FROM raw.events",
        "SELECT * FROM marts.as_reader",
        "SELECT * FROM file('/etc/passwd')",
        "SELECT * FROM url('http://127.0.0.1')",
        "SELECT * FROM remote('127.0.0.1', raw.events)",
        "DESCRIBE raw.events",
        "EXISTS raw.events",
        "SHOW CREATE TABLE marts.history",
    ],
)
def test_it_reads_nothing_else(sql: str, reader: Endpoint) -> None:
    assert reader.request(sql).code == 497, sql


def test_it_reads_single_tables_of_another_database(reader: Endpoint, owner: Endpoint) -> None:
    owner.run("CREATE TABLE raw.shown (x Int8) ENGINE = Memory")
    try:
        assert reader.run("SELECT count() FROM raw.shown") == "0"
        assert reader.run("SHOW TABLES FROM raw") == "shown"
        assert reader.request("SELECT * FROM raw.events").code == 497
    finally:
        owner.run("DROP TABLE raw.shown SYNC")


def test_what_looks_for_tables_finds_only_its_own(reader: Endpoint, owner: Endpoint) -> None:
    asked = "SELECT count() FROM merge('marts', '^(daily|history)$')"
    owner.run("INSERT INTO marts.history VALUES (1, '2026-01-01')")
    assert (reader.run(asked), owner.run(asked)) == ("1", "2")
    parts = "SELECT count() FROM system.parts WHERE database != 'system'"
    assert reader.run(parts) == "1" and int(owner.run(parts)) > 1


@pytest.mark.parametrize(
    ("sql", "codes"),
    [
        ("INSERT INTO marts.daily VALUES ('2026-01-02', 1)", {164}),
        ("INSERT INTO marts.daily SELECT * FROM marts.daily", {164}),
        ("WITH 1 AS x INSERT INTO marts.daily SELECT * FROM marts.daily", {62, 164, 497}),
        ("DROP TABLE marts.daily", {164}),
        ("CREATE TABLE marts.mine (x Int8) ENGINE = Memory", {164}),
        ("CREATE TEMPORARY TABLE mine (x Int8)", {164}),
        ("KILL QUERY WHERE 1", {164}),
        ("SYSTEM DROP MARK CACHE", {164}),
        ("SET ROLE owner", {164}),
        ("SET /* */ ROLE ALL", {164}),
        ("SET DEFAULT ROLE owner TO default", {164}),
        ("SET max_threads = 1 PARALLEL WITH SET ROLE owner", {164}),
        ("EXECUTE AS default SELECT 1", {164}),
        ("SET readonly = 0", {164}),
        ("SET allow_introspection_functions = 1", {452}),
    ],
)
def test_it_changes_nothing(sql: str, codes: set[int], reader: Endpoint) -> None:
    sessions: list[dict[str, Any]] = [{}, {"session_id": "bi"}]
    for session in sessions:
        assert reader.request(sql, **session).code in codes, sql
        assert reader.request("SELECT * FROM raw.events", **session).code == 497


def test_sessions_of_two_users_are_two(reader: Endpoint, owner: Endpoint) -> None:
    owner.run("SET max_threads = 3", session_id="one name")
    assert reader.run("SELECT getSetting('readonly')", session_id="one name") == "2"
    assert reader.request("SELECT * FROM raw.events", session_id="one name").code == 497
    assert owner.run("SELECT getSetting('max_threads')", session_id="one name") == "3"
    assert owner.run("SELECT count() FROM raw.events", session_id="one name") == "10"


def test_settings_that_read_only_drivers_send_are_taken(reader: Endpoint) -> None:
    sent: dict[str, Any] = {
        "session_timezone": "Europe/Paris",
        "select_sequential_consistency": 1,
        "final": 1,
        "async_insert": 0,
    }
    found = reader.request(
        "SELECT timezone(), n FROM marts.daily", **sent, wait_end_of_query=0, database="marts"
    )
    assert found.text == "Europe/Paris\t10\n"
    assert reader.request("SELECT n FROM daily", method="GET", database="marts").text == "10\n"


def test_a_wrong_password_is_refused(reader: Endpoint, owner: Endpoint, endpoint: Endpoint) -> None:
    assert replace(reader, password="wrong").request("SELECT 1").code == 516
    assert replace(reader, password=owner.password).request("SELECT 1").code == 516
    assert replace(owner, password=READER_PASSWORD).request("SELECT 1").code == 516
    without = replace(endpoint, user="headrace_bi", password="")
    assert without.request("SELECT 1").code == 516


def test_a_reader_needs_a_name_of_its_own(tmp_path: Path) -> None:
    for arguments, said in (
        (["--reader", server.USER], "choose another name"),
        (["--hide", "a.b"], "is no name of a table"),
    ):
        done = subprocess.run(
            [*server.command(tmp_path, *arguments)], capture_output=True, text=True, timeout=server.START_SECONDS,
            env={**server.environment(tmp_path), "HEADRACE_BI_PASSWORD": "x"}, check=False,
        )  # fmt: skip
        assert done.returncode == 1 and said in done.stderr, sys.version


@pytest.mark.parametrize(
    ("sql", "names", "row"),
    [
        ("SELECT currentUser()", ["currentUser()"], ["headrace_bi"]),
        (
            "SELECT currentUser() AS user, 'currentUser()' AS text LIMIT 1",
            ["user", "text"],
            ["headrace_bi", "currentUser()"],
        ),
        ("SELECT upper(user()), 1", ["upper(\\'headrace_bi\\')", "1"], ["HEADRACE_BI", "1"]),
        ("SELECT 1 WHERE currentUser() = 'headrace_bi'", ["1"], ["1"]),
        ("SELECT x.user FROM (SELECT current_user() AS user) AS x", ["user"], ["headrace_bi"]),
    ],
)
def test_who_asks_is_told_who_logged_in(
    sql: str, names: list[str], row: list[str], reader: Endpoint, owner: Endpoint
) -> None:
    """One of the JDBC drivers logs in by the answer from then on."""
    found = [line.split("\t") for line in reader.run(f"{sql} FORMAT TSVWithNames").split("\n")]
    assert found == [names, row]
    assert owner.run("SELECT currentUser()") == "headrace"
