"""The circuit's file: shared by processes, and never in the way of a call."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config.settings import Settings, load_settings
from headrace.core import circuit
from headrace.core.circuit import CircuitFile
from headrace.core.errors import Fatal, Retriable
from headrace.core.guard import CircuitOpen, Guard, circuits

FAILING = """
import sys
from pathlib import Path
from headrace.core.circuit import CircuitFile
kept = CircuitFile("kafka", Path(sys.argv[1]))
for _ in range(1_500):
    kept.increment_counter()
"""
#: A call that fails with an error of its own and one that succeeds, where no file may grow.
NO_ROOM = """
import resource, sys
from pathlib import Path
from headrace.core.errors import Retriable
from headrace.core.guard import Guard, circuits
from headrace.config.settings import load_settings
settings = load_settings(home=Path(sys.argv[1]), breaker_failures=2)
guard = Guard("warehouse", settings.retry_policy.without_retries())
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
def down():
    raise Retriable("the warehouse is away")
for _ in range(4):
    try:
        guard(down)
    except Retriable as error:
        print(error)
print(circuits(settings.retry_policy))
"""
HOUR = timedelta(hours=1)


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path, breaker_failures=2, breaker_seconds=30)


@pytest.fixture
def path(config: Settings) -> Path:
    path = config.home / "breakers" / "kafka.json"
    path.parent.mkdir()
    return path


def trouble() -> None:
    raise Retriable("the broker is away")


def test_three_processes_count_every_failure(path: Path) -> None:
    command = [sys.executable, "-c", FAILING, str(path)]
    failing = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    said = [process.communicate()[1].decode() for process in failing]
    assert said == ["", "", ""]
    # whoever waits too long for a writer goes on beside it, on a machine that is busy; that loses a few at most
    assert 4_400 <= CircuitFile("kafka", path).counter <= 4_500


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\x00\xff\xfe", b"[]", b'"open"', b"null", b"NaN", b"[" * 4_000,
        b'{"state": "ajar"}', b'{"state": 7}', b'{"failures": "many"}', b'{"failures": -1}',
        b'{"failures": NaN}', b'{"failures": 1e400}', b'{"failures": 99999999999999999999999999}',
        b'{"failures": null}', b'{"state": "open", "opened_at": "yesterday"}',
        b'{"state": "open", "opened_at": 12}', b'{"state": "open", "opened_at": "2026-01-01T00:00:00"}',
        b'{"state": "open", "opened_at": "99999-01-01T00:00:00Z"}', b'{"opened_after": NaN}',
        b'{"state": "closed"' + b" " * 5_000 + b"}",
    ],
)  # fmt: skip
def test_a_file_that_is_no_circuit_is_none_and_said_once(
    config: Settings, path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    guard = Guard("kafka", config.retry_policy.without_retries())
    with caplog.at_level(logging.WARNING):
        assert guard(lambda: "done") == "done"
        assert [one.state for one in circuits(config.retry_policy)] == ["closed"]
        with pytest.raises(Retriable, match="the broker is away"):
            guard(trouble)
    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    assert json.loads(path.read_bytes())["failures"] == 1, "it is a circuit again"


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["state", "failures", "successes", "opened_at", "boot", "opened_after"]), inner),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_is_in_the_file_calls_keep_their_result(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    home = tmp_path_factory.mktemp("any")
    settings = load_settings(home=home, breaker_failures=2)
    (home / "breakers").mkdir()
    (home / "breakers" / "lake.json").write_bytes(content)
    guard = Guard("lake", settings.retry_policy.without_retries())
    assert circuits(settings.retry_policy)[0].failures >= 0
    try:
        assert guard(lambda: "done") == "done"
    except CircuitOpen:  # it says that the circuit is open, and when it opened
        assert json.loads(content)["state"] == "open"


def test_a_full_disk_neither_hides_an_error_nor_the_circuit_of_this_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(tmp_path)], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[:2] == ["the warehouse is away"] * 2
    assert all("warehouse failed 2 times in a row and is left alone" in line for line in lines[2:4])
    assert not [one for one in (tmp_path / "breakers").iterdir() if one.suffix == ".tmp"]


@pytest.mark.parametrize("in_the_way", ["breakers", "breakers/kafka.json", "breakers/kafka.lock"])
def test_what_cannot_be_written_is_no_circuit_but_this_process_s_own(
    config: Settings, in_the_way: str, caplog: pytest.LogCaptureFixture
) -> None:
    if in_the_way == "breakers":
        (config.home / in_the_way).write_text("a file where the folder is to be")
    else:
        (config.home / in_the_way).mkdir(parents=True)
    guard = Guard("kafka", config.retry_policy.without_retries())
    with caplog.at_level(logging.WARNING):
        assert guard(lambda: 1) == 1
        with pytest.raises(Fatal, match="no such topic"):
            guard(lambda: (_ for _ in ()).throw(Fatal("no such topic")).__next__())
        for _ in range(2):
            with pytest.raises(Retriable, match="the broker is away"):
                guard(trouble)
        with pytest.raises(CircuitOpen):
            guard(lambda: 1)
    assert len({one.getMessage() for one in caplog.records}) == len(caplog.records) <= 2
    circuits(config.retry_policy)


@pytest.mark.parametrize(
    "ahead", [timedelta(seconds=5), HOUR, timedelta(days=700), timedelta(days=2_000_000)]
)
def test_an_opening_in_the_future_is_tried_at_once(config: Settings, path: Path, ahead: timedelta) -> None:
    path.write_text(json.dumps({"state": "open", "failures": 2, "opened_at": str(datetime.now(UTC) + ahead)}))
    guard = Guard("kafka", config.retry_policy.without_retries())
    assert guard(lambda: "done") == "done"
    assert guard.circuit.state == "closed"


@pytest.mark.parametrize("jump", [timedelta(0), -HOUR, timedelta(days=700), -timedelta(days=700)])
def test_the_clock_on_the_wall_may_be_set_while_a_circuit_is_open(
    config: Settings, path: Path, jump: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [1_000.0]
    monkeypatch.setattr(circuit, "since_boot", lambda: ("this start", seconds[0]))
    guard = Guard("kafka", config.retry_policy.without_retries())
    for _ in range(2):
        with pytest.raises(Retriable):
            guard(trouble)
    saved = json.loads(path.read_bytes())
    path.write_text(json.dumps({**saved, "opened_at": str(datetime.now(UTC) + jump)}))
    seconds[0] += 29
    with pytest.raises(CircuitOpen):
        guard(lambda: 1)
    found = circuits(config.retry_policy)[0].next_try
    assert found is not None
    assert found <= datetime.now(UTC) + timedelta(seconds=1)
    seconds[0] += 2
    assert guard(lambda: 1) == 1


def test_after_a_start_of_the_machine_the_clock_on_the_wall_decides(
    config: Settings, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit, "since_boot", lambda: ("the next start", 3.0))
    kept = {"state": "open", "failures": 2, "boot": "the one before", "opened_after": 99_999.0}
    path.write_text(json.dumps({**kept, "opened_at": str(datetime.now(UTC) - timedelta(seconds=5))}))
    with pytest.raises(CircuitOpen):
        Guard("kafka", config.retry_policy)(lambda: 1)
    path.write_text(json.dumps({**kept, "opened_at": str(datetime.now(UTC) - timedelta(seconds=31))}))
    assert Guard("kafka", config.retry_policy)(lambda: 1) == 1
