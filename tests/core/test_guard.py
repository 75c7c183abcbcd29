"""Retries for what may pass, a circuit breaker for what does not, and nothing for anything else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from builders import eventually
from headrace.config.settings import Settings, load_settings
from headrace.core.errors import Conflict, Fatal, Retriable
from headrace.core.guard import CircuitOpen, Guard, circuits


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    return load_settings(
        home=tmp_path, retry_attempts=3, retry_max_seconds=0.1, breaker_failures=4, breaker_seconds=0.5
    )


def failing(times: int, error: Exception) -> tuple[Callable[[], str], list[int]]:
    """A call that fails so often, and how often it was made."""
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return call, calls


def test_what_may_pass_is_tried_again(config: Settings) -> None:
    call, calls = failing(2, Retriable("away"))
    assert Guard("kafka", config.retry_policy)(call) == "done"
    assert len(calls) == 3
    call, calls = failing(3, Retriable("away"))
    with pytest.raises(Retriable, match="away"):
        Guard("sqs", config.retry_policy)(call)
    assert len(calls) == 3


@pytest.mark.parametrize(
    "error", [Fatal("no such topic"), Conflict("another writer"), ValueError("a defect")]
)
def test_nothing_else_is_tried_again_or_held_against_the_service(config: Settings, error: Exception) -> None:
    guard = Guard("lake", config.retry_policy)
    for _ in range(config.breaker_failures + 1):
        call, calls = failing(9, error)
        with pytest.raises(type(error)):
            guard(call)
        assert len(calls) == 1
    assert guard.circuit.state == "closed"


def test_those_who_look_do_not_wait(config: Settings) -> None:
    call, calls = failing(1, Retriable("away"))
    with pytest.raises(Retriable):
        Guard("kafka", config.retry_policy.without_retries())(call)
    assert len(calls) == 1


def test_a_service_that_keeps_failing_is_left_alone_and_then_tried(config: Settings) -> None:
    guard = Guard("warehouse", config.retry_policy.without_retries())
    down, calls = failing(99, Retriable("away"))
    for _ in range(config.breaker_failures):
        with pytest.raises(Retriable, match="away"):
            guard(down)
    with pytest.raises(CircuitOpen, match="warehouse failed 4 times in a row and is left alone until"):
        guard(down)
    assert len(calls) == config.breaker_failures, "an open circuit makes no call"
    [seen] = circuits(config.retry_policy)
    assert (seen.service, seen.state, seen.failures) == ("warehouse", "open", 4)
    assert seen.next_try is not None
    assert seen.next_try > datetime(2026, 1, 1, tzinfo=UTC)

    def trial() -> bool:
        try:
            return guard(lambda: "up") == "up"
        except CircuitOpen:
            return False

    eventually(trial, 10, "the trial")
    assert circuits(config.retry_policy)[0].state == "closed"
    assert guard(lambda: "up") == "up"


def test_processes_share_the_state(config: Settings) -> None:
    code = (
        "import sys; from headrace.core.errors import Retriable; from headrace.core.guard import Guard;"
        "from headrace.config.settings import load_settings; from pathlib import Path;"
        "g = Guard('kafka', load_settings(home=Path(sys.argv[1]), breaker_failures=2).retry_policy.without_retries())\n"
        "def down(): raise Retriable('away')\n"
        "for _ in range(2):\n"
        "    try: g(down)\n"
        "    except Retriable: pass\n"
    )
    subprocess.run([sys.executable, "-c", code, str(config.home)], check=True)
    with pytest.raises(CircuitOpen):
        # the machine may be slow to start a process: it is left alone for longer than that
        Guard("kafka", replace(config.retry_policy, open_seconds=3_600.0))(lambda: "never made")


def test_a_broken_state_file_is_a_closed_circuit(config: Settings) -> None:
    path = config.home / "breakers" / "kafka.json"
    path.parent.mkdir()
    path.write_text("{")
    guard = Guard("kafka", config.retry_policy.without_retries())
    assert guard(lambda: 1) == 1
    with pytest.raises(Retriable):
        guard(failing(1, Retriable("away"))[0])
    assert json.loads(path.read_text())["failures"] == 1
