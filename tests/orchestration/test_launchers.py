"""A run is believed to live while it says so, and nobody else is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterRun
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus

from builders import eventually
from headrace.config.settings import Settings, load_settings
from headrace.core.errors import Fatal
from headrace.orchestration.runtime import launchers
from serving.test_caches import Server

RUN = "6a1d"
#: Says that it runs the run for as long as it may, and how it was ended.
PROCESS = """
import signal, sys, threading
from headrace.config.settings import load_settings
from headrace.orchestration.runtime import launchers
launchers.BEAT_SECONDS, launchers.BELIEVED_SECONDS = 0.1, 1
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
config = load_settings(with_stack=False, celery_broker=sys.argv[1])
with launchers.beat(config, sys.argv[2]):
    print("runs", flush=True)
    while not ended.wait(0.05):
        pass
print("given up", flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.kill()


@pytest.fixture
def config(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(launchers, "BELIEVED_SECONDS", 1)
    return load_settings(with_stack=False, home=tmp_path, celery_broker=server.url)


@pytest.fixture
def process(config: Settings) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROCESS, config.celery_broker.get_secret_value(), RUN]
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as found:
        assert found.stdout is not None and found.stdout.readline() == "runs\n"
        yield found
        found.kill()


def is_lost(config: Settings) -> bool:
    return launchers.health(config, RUN).status == WorkerStatus.FAILED


def test_a_run_lives_until_its_process_is_killed(config: Settings, process: subprocess.Popen[str]) -> None:
    found = launchers.health(config, RUN)
    assert found.status == WorkerStatus.RUNNING and f"pid {process.pid}" in (found.msg or "")
    process.kill()
    eventually(lambda: is_lost(config), 30, "the end of the run")
    assert "silent" in (launchers.health(config, RUN).msg or "")


def test_a_run_that_was_frozen_gives_up_once_others_may_run_it(
    config: Settings, process: subprocess.Popen[str]
) -> None:
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: is_lost(config), 30, "the silence")
    process.send_signal(signal.SIGCONT)
    assert process.stdout is not None and process.stdout.readline() == "given up\n"
    assert process.wait(30) == 0


def test_a_run_that_has_ended_says_nothing_more(config: Settings, process: subprocess.Popen[str]) -> None:
    process.terminate()
    assert process.wait(30) == 0
    assert not launchers.connected(config).exists(f"headrace:run:{RUN}")


def test_a_redis_that_is_away_or_has_just_started_condemns_nobody(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = config.model_copy(update={"celery_broker": type(config.celery_broker)("redis://127.0.0.1:1/0")})
    assert launchers.health(away, RUN).status == WorkerStatus.RUNNING
    monkeypatch.setattr(launchers, "BELIEVED_SECONDS", 10**6)
    found = launchers.health(config, RUN)
    assert found.status == WorkerStatus.RUNNING and "just started" in (found.msg or "")


def test_runs_stay_beside_the_code_unless_told_otherwise(config: Settings) -> None:
    assert type(launchers.made_for(config, None)) is DefaultRunLauncher


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"celery_broker": "amqp://here"}, "HEADRACE_CELERY_BROKER is no address of Redis"),
        ({}, "HEADRACE_DAGSTER_POSTGRES is not set, and workers on other machines do not see a SQLite file"),
    ],
)
def test_what_workers_need_is_said(config: Settings, settings: dict[str, str], said: str) -> None:
    asked = load_settings(
        with_stack=False,
        home=config.home,
        run_launcher="celery",
        **{"celery_broker": config.celery_broker.get_secret_value(), **settings},
    )
    with pytest.raises(Fatal, match=said):
        launchers.made_for(asked, None)


def test_celerys_launcher_asks_who_runs_the_run(config: Settings, process: subprocess.Popen[str]) -> None:
    asked = load_settings(
        with_stack=False,
        home=config.home,
        run_launcher="celery",
        celery_broker=config.celery_broker.get_secret_value(),
        dagster_postgres="postgresql://headrace:x@127.0.0.1:1/dagster",
    )
    launcher = launchers.made_for(asked, None)

    run = DagsterRun("job", run_id=RUN, tags={"dagster-celery/task_id": "of nobody"})
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    process.kill()
    eventually(
        lambda: launcher.check_run_worker_health(run).status == WorkerStatus.FAILED,
        30,
        "the end of the run",
    )
