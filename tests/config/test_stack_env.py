"""The file by which a running stack is found: damaged it is named, by file and line, and nobody guesses."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import stack_env
from headrace.config.settings import load_settings
from headrace.config.stack_env import Damaged
from headrace.core.errors import Fatal
from headrace.health import doctor
from headrace.local import stack_files
from headrace.pipelines import Kafka
from headrace.streams.adapters import producer
from headrace.streams.stream import streams

GOOD = b"HEADRACE_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1\nHEADRACE_CLICKHOUSE_PORT=1\n"
#: What is wrong, and the line that is named; 0 for the whole file.
DAMAGED = {
    "binary": (GOOD + b"\x00\xff\xfe\x80garbage\n", 3),
    "zeros": (b"\0" * 512, 1),
    "a zero byte": (GOOD + b"HEADRACE_RAW_DATABASE=a\0b\n", 3),
    "half a name": (GOOD + b"HEADRACE_CLI\n", 3),
    "half a line": (GOOD + b"HEADRACE_CLICKHOUSE_PASSWORD=abc", 3),
    "half a value": (GOOD + b"HEADRACE_CLICKHOUSE_PASSWORD='abc\n", 3),
    "no setting": (GOOD + b"HEADRACE_CLICKHOSE_USER=x\n", 3),
    "another's variable": (b"PATH=/tmp\n" + GOOD, 1),
    "a wrong value": (b"HEADRACE_CLICKHOUSE_PORT=http\n" + GOOD[:45], 1),
    "empty": (b"", 1),
    "HTML": (b"<html>\n" + GOOD, 1),
}
HEADRACE = [sys.executable, "-m", "headrace.cli"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_named_with_its_line_and_the_next_step(home: Path, what: str) -> None:
    content, number = DAMAGED[what]
    (home / "stack.env").write_bytes(content)
    with pytest.raises(Damaged) as refused:
        load_settings()
    said = str(refused.value)
    assert said.startswith(f"{home / 'stack.env'}, line {number}: ")
    assert "'headrace stack up'" in said
    assert "\n" not in said
    assert load_settings(with_stack=False).home == home


def test_one_that_cannot_be_read_is_named(home: Path) -> None:
    (home / "stack.env").mkdir()
    with pytest.raises(Damaged, match=r"stack\.env: it cannot be read: is a directory; "):
        load_settings()


@pytest.mark.long
def test_the_doctor_names_it_and_looks_at_the_rest(home: Path) -> None:
    (home / "stack.env").write_bytes(DAMAGED["binary"][0])
    found = {finding.what: finding for finding in doctor.examine()}
    assert "stack.env, line 3" in found["stack.env"].said
    assert not found["stack.env"].ok
    assert found["disk"].ok
    assert found["pipelines"].ok
    assert "no stack runs in" in found["kafka/analytics_events"].said


def test_a_stack_can_be_looked_at_and_ended_in_spite_of_it(home: Path) -> None:
    (home / "stack.env").write_bytes(DAMAGED["binary"][0])
    with (home / "stack.lock").open(
        "w"
    ) as lock:  # as if one ran, by somebody who does not look after the file
        fcntl.flock(lock, fcntl.LOCK_EX)
        shown = subprocess.run([*HEADRACE, "stack", "env"], capture_output=True, text=True, check=False)
        assert shown.returncode == 1
        assert "stack.env, line 3" in shown.stderr
    for command, status in (("status", 1), ("down", 0)):
        done = subprocess.run([*HEADRACE, "stack", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (status, ""), command
    assert not (home / "stack.env").exists(), "it is of a stack that has ended"


def test_that_of_a_stack_that_has_ended_counts_for_nothing(home: Path) -> None:
    (home / "stack.env").write_bytes(GOOD)
    lock = stack_files.try_lock(home)
    assert lock is not None
    assert load_settings().kafka_bootstrap_servers == "127.0.0.1:1"
    os.close(lock)
    assert load_settings().kafka_bootstrap_servers == ""


@given(
    st.binary(max_size=300)
    | st.text(max_size=100).map(str.encode)
    | st.integers(0, len(GOOD)).map(lambda n: GOOD[:n])
)
def test_whatever_stands_in_it_is_variables_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "stack.env"
    path.write_bytes(content)
    try:
        found = stack_env.read(path)
    except Damaged as refused:
        assert str(path) in str(refused)
    else:
        lines = content.count(b"\n")
        assert all(1 <= line.number <= lines for line in found.values())


@given(st.dictionaries(st.from_regex(r"HEADRACE_[A-Z_]{1,9}", fullmatch=True), st.text(
    st.characters(exclude_categories=("Cs", "Cc")), max_size=30), min_size=1, max_size=4))  # fmt: skip
def test_what_a_stack_writes_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]
) -> None:
    home = tmp_path_factory.mktemp("written")
    stack_files.write_env(home, variables)
    found = stack_env.read(home / "stack.env")
    assert {name: line.value for name, line in found.items()} == variables
    assert [line.number for line in found.values()] == [*range(1, len(variables) + 1)]


def test_without_a_stack_nobody_s_broker_is_taken_for_ours(home: Path) -> None:
    said = f"no stack runs in {home} and no HEADRACE_KAFKA_BOOTSTRAP_SERVERS is set: start one with 'headrace stack up'"
    config = load_settings()
    with pytest.raises(Fatal, match=said):
        producer(config, Kafka("analytics_events"))
    stream = streams(config)["events"]
    with pytest.raises(Fatal, match=said):
        stream.backlog("kafka/analytics_events")
    with pytest.raises(Fatal, match="no HEADRACE_CLICKHOUSE_HOST is set"):
        stream.publish()
    stream.close()


@pytest.mark.parametrize(
    ("variable", "value"), [("HEADRACE_CLICKHOUSE_HOST", "127.0.0.1"), ("HEADRACE_CLICKHOUSE_PORT", "8123")]
)
def test_what_is_set_counts_even_where_it_is_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert load_settings().with_warehouse().clickhouse_port == 8123
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    assert load_settings().kafka_servers == "127.0.0.1:9092"


def test_what_is_exported_for_dbt_does_not_count_as_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DBT_TARGET_PATH", "DBT_ENV_SECRET_CLICKHOUSE_PASSWORD"):
        monkeypatch.setenv(name, "")
    with monkeypatch.context():
        before = dict(os.environ)
        load_settings().export()
        try:
            assert not load_settings().names_warehouse
        finally:
            os.environ.clear()
            os.environ.update(before)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"supervisor": {}}', '{"supervisor": 7, "services": []}', "[" * 9_999]
)
def test_a_damaged_stack_json_is_none(home: Path, content: str) -> None:
    stack_files.info_file(home).write_text(content)
    assert stack_files.read_info(home) is None
    shown = subprocess.run(
        [*HEADRACE, "stack", "status", "--json"], capture_output=True, text=True, check=False
    )
    assert {row["state"] for row in json.loads(shown.stdout)} == {"stopped"}
