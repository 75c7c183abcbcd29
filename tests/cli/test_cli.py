"""The commands, as a person types them."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from access_logs import SAMPLE
from builders import event
from commands import run_text
from conftest import Stack
from headrace.warehouse.lock import MigrationLock
from headrace.warehouse.server import Server


def headrace(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "AWS_"))}
    return run_text(*arguments, env={**clean, **(env or {})})


def answer(*arguments: str, env: dict[str, str]) -> Any:
    done = headrace(*arguments, "--json", env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
def test_a_file_goes_all_the_way_to_an_answer(stack: Stack, tmp_path: Path) -> None:
    env = {
        **stack.environment,
        "HEADRACE_LAKE_URI": str(tmp_path / "lake"),
        "HEADRACE_RAW_DATABASE": "raw_cli",
        "HEADRACE_DBT_SCHEMA": "marts_cli",
    }
    file = tmp_path / "events.ndjson.gz"
    lines = [event(event_id=f"cli-{n}") for n in range(5)] + [b"not json", event(channel="?")]
    file.write_bytes(gzip.compress(b"\n".join(lines)))
    before = answer("status", "events", env=env)["streams"][0]
    waiting = before["sources"]["kafka/analytics_events"]
    sent = answer("send", str(file), "--to", "kafka", "--stream", "events", env=env)
    assert (sent["read"], sent["sent"], sent["malformed"]) == (7, 6, 1)
    assert (
        answer("status", "events", env=env)["streams"][0]["sources"]["kafka/analytics_events"] == waiting + 6
    )
    landed = answer("ingest", "events", "--until-idle", env=env)["kafka/analytics_events"]
    assert landed["messages"] == waiting + 6
    assert landed["rejected"] >= 1
    assert landed["published"] == landed["landed"]
    rows = answer("query", "SELECT count() AS n FROM raw_cli.events WHERE event_id LIKE 'cli-%'", env=env)
    assert rows == [{"n": 5}]
    after = answer("status", "events", env=env)["streams"][0]
    assert (after["sources"]["kafka/analytics_events"], after["unpublished_versions"], after["problems"]) == (
        0,
        0,
        [],
    )
    days = ("--from", "2026-01-02", "--to", "2026-01-03")
    [of_the_day] = answer(
        "query", "SELECT count() AS n FROM raw_cli.events WHERE event_date = '2026-01-02'", env=env
    )
    assert of_the_day["n"] >= 5  # other tests may have sent some of that day, too
    for _ in range(2):
        rebuilt = answer("backfill", "events", *days, env=env)
        assert rebuilt["rows"] == {"2026-01-02": of_the_day["n"], "2026-01-03": 0}
        assert rebuilt["built"] == [["2026-01-01", "2026-01-05"]]
        counted = "SELECT sum(events) AS n FROM marts_cli.event_metrics WHERE event_date = '2026-01-02'"
        assert answer("query", counted, env=env) == [of_the_day]


FROZEN = """
import sys
from pathlib import Path
from headrace.core.locks import Patience, file_lock, introduce
introduce("headrace publish")
with file_lock(Path(sys.argv[1]), "publishing", Patience(9, 9)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.long
def test_a_frozen_publisher_keeps_nobody_from_landing_and_is_named(stack: Stack, tmp_path: Path) -> None:
    env = {
        **stack.environment,
        "HEADRACE_LAKE_URI": str(tmp_path / "lake"),
        "HEADRACE_HOME": str(tmp_path / "home"),
        "HEADRACE_RAW_DATABASE": "raw_cli_frozen",
        "HEADRACE_INGEST_MAX_SECONDS": "5",
        "HEADRACE_INGEST_IDLE_SECONDS": "0.5",
        "HEADRACE_LOCK_SECONDS": "1",
    }
    folder = tmp_path / "home" / "archive" / "events"
    folder.mkdir(parents=True)
    (folder / "a.ndjson").write_bytes(b"\n".join(event(event_id=f"frozen-{n}") for n in range(5)))
    os.utime(folder / "a.ndjson", (0, 0))
    lock = tmp_path / "home" / "locks" / "warehouse-events.lock"
    with subprocess.Popen(
        [sys.executable, "-c", FROZEN, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as frozen:
        assert frozen.stdout is not None
        assert frozen.stdout.readline() == b"held\n"
        frozen.send_signal(signal.SIGSTOP)
        try:
            ingested = headrace("ingest", "events", "--json", env=env)
            published = headrace("publish", env=env)
        finally:
            frozen.kill()
    waits = f"publishing events waits for 'headrace publish' (pid {frozen.pid}), which began at"
    for done in (ingested, published):
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"headrace: {waits}")
        assert "Traceback" not in done.stderr
    landed = json.loads(ingested.stdout)["files/events"]
    assert (landed["landed"], landed["published"]) == (5, 0)
    assert "metrics: 0 rows of" in published.stdout, "the other stream is published"
    assert "events" not in published.stdout
    assert answer("publish", "events", env=env)["events"]["rows"] >= 5
    rows = answer(
        "query", "SELECT count() AS n FROM raw_cli_frozen.events WHERE event_id LIKE 'frozen-%'", env=env
    )
    assert rows == [{"n": 5}]


@pytest.mark.long
def test_files_that_are_dropped_into_the_archive_land_and_a_broken_one_is_named(
    stack: Stack, tmp_path: Path
) -> None:
    env = {
        **stack.environment,
        "HEADRACE_LAKE_URI": str(tmp_path / "lake"),
        "HEADRACE_ARCHIVE": str(tmp_path / "archive"),
        "HEADRACE_ARCHIVE_QUIET_SECONDS": "0",
        "HEADRACE_RAW_DATABASE": "raw_cli_files",
    }
    folder = tmp_path / "archive" / "events" / "2026"
    folder.mkdir(parents=True)
    lines = [event(event_id=f"old-{n}") for n in range(5)] + [b"not json"]
    (folder / "a.ndjson.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    (folder / "b.ndjson.gz").write_bytes(gzip.compress(b"\n".join(lines))[:-10])
    assert answer("status", "events", env=env)["streams"][0]["sources"]["files/events"] == 2
    landed = answer("ingest", "events", env=env)["files/events"]
    assert (landed["messages"], landed["landed"], landed["rejected"]) == (6, 5, 1)
    [why] = landed["refused_files"]
    assert "b.ndjson.gz cannot be read beyond record" in why
    rows = answer(
        "query", "SELECT count() AS n FROM raw_cli_files.events WHERE event_id LIKE 'old-%'", env=env
    )
    assert rows == [{"n": 5}]
    for command in (("status", "events"), ("doctor",)):
        shown = headrace(*command, env={**env, "COLUMNS": "400"})
        assert shown.returncode == 1
        assert "b.ndjson.gz cannot be read" in shown.stdout
    (folder / "b.ndjson.gz").unlink()
    after = answer("status", "events", env=env)["streams"][0]
    assert (after["sources"]["files/events"], after["problems"]) == (0, [])


def test_a_real_access_log_is_sent_and_its_bad_line_is_shown(stack: Stack) -> None:
    done = headrace("send", str(SAMPLE), env=stack.environment)
    assert done.returncode == 0, done.stderr
    assert "516 messages sent" in done.stdout
    assert "1 malformed" in done.stdout
    assert "468" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["status", "event"], {}, "there is no stream 'event'; there are events, metrics"),
        (["query", "SELECT 1"], {"HEADRACE_CLICKHOUSE_PORT": "1"}, "127.0.0.1:1"),
        (
            ["ingest"],
            {"HEADRACE_INGEST_IDLE_SECONDS": "soon"},
            "HEADRACE_INGEST_IDLE_SECONDS='soon' is not valid",
        ),
        (["backfill", "events", "--from", "2026-01-02", "--to", "2026-01-01"], {}, "is before --from"),
        (["send", __file__, "--topic", "analytics_event"], {}, "did you mean 'analytics_events'"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(
    stack: Stack, arguments: list[str], env: dict[str, str], said: str
) -> None:
    done = headrace(*arguments, env={**stack.environment, **env})
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr + done.stdout


def test_a_query_cannot_change_anything(stack: Stack) -> None:
    done = headrace("query", "CREATE DATABASE sneaky", env=stack.environment)
    assert done.returncode == 1
    assert "readonly" in done.stderr.lower()


@pytest.mark.long
def test_the_doctor_finds_what_is_wrong(stack: Stack) -> None:
    well = headrace("doctor", "--json", env=stack.environment)
    assert well.returncode == 0, well.stdout
    ill = headrace("doctor", "--json", env={**stack.environment, "HEADRACE_CLICKHOUSE_PORT": "1"})
    assert ill.returncode == 1
    wrong = [finding["what"] for finding in json.loads(ill.stdout) if not finding["ok"]]
    assert wrong == ["migrations", "warehouse of events", "warehouse of metrics"]


def test_help_lists_the_commands() -> None:
    text = headrace("--help").stdout
    for command in (
        "demo",
        "up",
        "stack",
        "send",
        "ingest",
        "publish",
        "backfill",
        "query",
        "status",
        "doctor",
        "migrate",
    ):
        assert command in text


@pytest.mark.long
def test_a_rejected_record_is_listed_shown_repaired_and_redriven_once(stack: Stack, tmp_path: Path) -> None:
    env = {
        **stack.environment,
        "HEADRACE_LAKE_URI": str(tmp_path / "lake"),
        "HEADRACE_RAW_DATABASE": "raw_cli_rejects",
    }
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join([event(event_id="good"), event(event_id="mended", channel="pigeon")]))
    answer("send", str(file), "--to", "kafka", "--stream", "events", env=env)
    answer("ingest", "events", "--until-idle", env=env)
    listed = answer("rejects", "list", "events", "--check", "channel", env=env)
    [mine] = [one for one in listed["rejects"] if one.get("record", {}).get("event_id") == "mended"]
    shown = answer("rejects", "show", "events", mine["id"], env=env)
    assert (shown["record"]["channel"], shown["redriven"]) == ("pigeon", False)
    assert shown["reasons"][0]["column"] == "channel"
    repair = ("rejects", "redrive", "events", mine["id"], "--jq", '.channel = "web"')
    dry = headrace(*repair, "--dry-run", env=env)
    assert "1 rows of 1 records would land, 0 have been redriven already" in dry.stdout
    done = answer(*repair, env=env)
    assert (done["landed"], done["repeated"], done["refused"], done["not_repaired"]) == (1, 0, {}, {})
    again = answer(*repair, env=env)
    assert (again["landed"], again["repeated"]) == (0, 1)
    rows = answer("query", "SELECT channel FROM raw_cli_rejects.events WHERE event_id = 'mended'", env=env)
    assert rows == [{"channel": "web"}]
    assert answer("rejects", "show", "events", mine["id"], env=env)["redriven"]
    nothing = headrace("rejects", "redrive", "events", env=env)
    assert (nothing.returncode, nothing.stderr.count("\n")) == (1, 1)
    assert "say which" in nothing.stderr
    unknown = headrace("rejects", "show", "events", "zzz", env=env)
    assert "'zzz' names no rejected rows" in unknown.stderr


@pytest.mark.long
def test_migrations_are_shown_run_and_unlocked(stack: Stack) -> None:
    env = {**stack.environment, "HEADRACE_RAW_DATABASE": "raw_cli_migrate"}
    before = answer("migrate", "status", env=env)
    assert {one["state"] for one in before} == {"pending"}
    doctor = {one["what"]: one["said"] for one in answer("doctor", env=env)}
    assert "0001_bookkeeping.sql" in doctor["migrations"]
    assert "pending" in doctor["migrations"]
    env["HEADRACE_RAW_DATABASE"] = "raw_cli_migrate_2"
    assert answer("migrate", "up", env=env) == [one["name"] for one in before]
    assert answer("migrate", "up", env=env) == []
    assert {one["state"] for one in answer("migrate", "status", env=env)} == {"applied"}
    shown = headrace("migrate", "status", env=env)
    assert (shown.returncode, shown.stdout.count("applied")) == (0, len(before))
    assert answer("migrate", "unlock", env=env) == {"holder": None}


@pytest.mark.long
def test_what_contracts_need_is_planned_shown_and_run(stack: Stack) -> None:
    database = "raw_cli_plan"
    env = {**stack.environment, "HEADRACE_RAW_DATABASE": database}
    before = answer("migrate", "plan", env=env)
    assert [one["state"] for one in before["files"]] == ["pending"] * len(before["files"])
    assert before["generated"] == [], "the files make these tables"
    answer("migrate", "up", env=env)
    server = Server(stack.settings)
    server.command(f"ALTER TABLE {database}.events DROP COLUMN screen_name")
    for _ in range(2):  # a plan changes nothing
        plan = answer("migrate", "plan", env=env)
        [one] = plan["generated"]
        assert (one["table"], one["refused"], plan["files"]) == ("events", [], [])
        [statement] = one["statements"]
        assert "ADD COLUMN IF NOT EXISTS `screen_name`" in statement and statement.endswith(
            "AFTER `page_url`"
        )
    assert statement in headrace("migrate", "plan", env=env).stdout
    assert answer("migrate", "up", env=env) == ["generated/0001_events.v1.sql"]
    assert headrace("migrate", "plan", env=env).stdout == "nothing to do\n"
    assert answer("migrate", "status", env=env)[-1]["name"] == "generated/0001_events.v1.sql"
    server.command(f"ALTER TABLE {database}.events MODIFY COLUMN duration_ms Nullable(String)")
    refused = headrace("migrate", "plan", env=env)
    assert refused.returncode == 1
    assert "column 'duration_ms' of raw table events is Nullable(String)" in refused.stdout
    assert "'duration_ms'" in headrace("migrate", "up", env=env).stderr


@pytest.mark.long
def test_an_edited_migration_turns_status_and_doctor_red(stack: Stack) -> None:
    database = "raw_cli_edited"
    env = {**stack.environment, "HEADRACE_RAW_DATABASE": database}
    answer("migrate", "up", env=env)
    server = Server(stack.settings)
    server.command(
        f"INSERT INTO {database}._migrations (version, name, checksum, state, started_at)"
        f" SELECT version, name, 'another', state, started_at FROM {database}._migrations WHERE version = 2"
    )
    status = headrace("migrate", "status", "--json", env=env)
    assert status.returncode == 1
    states = [one["state"] for one in json.loads(status.stdout)]
    assert states.pop(1) == "edited"
    assert {*states} == {"applied"}
    for command in (["migrate", "up"], ["publish"]):
        done = headrace(*command, env=env)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "0002_events.sql was applied as another" in done.stderr
    doctor = headrace("doctor", "--json", env=env)
    assert doctor.returncode == 1
    assert "restore the file" in doctor.stdout


def test_a_lock_that_lives_is_removed_by_force_alone(stack: Stack) -> None:
    database = "raw_cli_locked"
    env = {**stack.environment, "HEADRACE_RAW_DATABASE": database}
    server = Server(stack.settings)
    server.command(f"CREATE DATABASE {database}")
    with MigrationLock(server, database, beat_seconds=0.2).held():
        kept = headrace("migrate", "unlock", env=env)
        assert (kept.returncode, kept.stderr.count("\n")) == (1, 1)
        assert f"pid {os.getpid()}" in kept.stderr
        assert answer("migrate", "unlock", "--force", env=env)["holder"]["pid"] == os.getpid()
    assert headrace("migrate", env=env).stdout.count("unlock")


@pytest.mark.long
def test_one_of_many_people_is_erased(stack: Stack, tmp_path: Path) -> None:
    env = {
        **stack.environment,
        "HEADRACE_LAKE_URI": str(tmp_path / "lake"),
        "HEADRACE_RAW_DATABASE": "raw_cli_erase",
        "HEADRACE_DBT_SCHEMA": "marts_cli_erase",
        "HEADRACE_HOME": str(stack.home),
    }
    file = tmp_path / "events.ndjson"
    lines = [event(event_id=f"p-{n}", user_id=f"person-{n % 50}") for n in range(2_000)]
    lines += [event(channel="?", user_id=f"person-{n}") for n in range(50)]
    file.write_bytes(b"\n".join(lines))
    assert answer("send", str(file), "--to", "kafka", "--stream", "events", env=env)["sent"] == 2_050
    assert answer("ingest", "events", "--until-idle", env=env)["kafka/analytics_events"]["landed"] >= 2_000
    done = headrace("erase", "--user-id", "person-7", "--yes", env=env)
    assert done.returncode == 0, done.stderr
    assert "events: 40 rows and 1 rejected records erased" in done.stdout
    assert "person-7 " not in done.stdout
    receipt = json.loads(Path(done.stdout.strip().rpartition("receipt: ")[2]).read_text())
    assert receipt["finished"]
    found = answer("rejects", "list", "events", "--source", "kafka", "--limit", "1000", env=env)
    people = {one.get("record", {}).get("user_id") for one in found["rejects"]}
    assert {"person-6", "person-8"} <= people
    assert "person-7" not in people
    assert answer("send", str(file), "--to", "kafka", "--stream", "events", env=env)["sent"] == 2_050
    again = headrace("ingest", "events", "--until-idle", env=env)
    assert "41 dropped of people who were erased" in again.stdout
    sql = "SELECT countIf(user_id = 'person-7') AS n, countIf(user_id = 'person-8') AS m FROM raw_cli_erase.events"
    [counted] = answer("query", sql, env=env)
    assert (counted["n"], counted["m"]) == (0, 80)
    lifted = headrace("erase", "--user-id", "person-7", "--unsuppress", env=env)
    assert "may land again" in lifted.stdout
    unknown = headrace("rejects", "list", "events", "--source", "kafka/nope", env=env)
    assert (unknown.returncode, "has no source 'kafka/nope'; it has" in unknown.stderr) == (1, True)
