"""A real server in its own process, started once per test worker and only when a test asks for it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

USER, PASSWORD = "headrace", "pass:word é"
START_SECONDS = 30.0


@dataclass
class Reply:
    """A response that was read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> int:
        """ClickHouse's error code, 0 without an error."""
        return int(self.headers.get("x-clickhouse-exception-code", "0"))

    @property
    def summary(self) -> dict[str, int]:
        return {name: int(n) for name, n in json.loads(self.headers["x-clickhouse-summary"]).items()}


@dataclass
class Endpoint:
    """A running server."""

    process: subprocess.Popen[str]
    directory: Path
    ready: dict[str, Any]
    user: str = USER
    password: str = PASSWORD
    extra: list[Any] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.ready["port"])

    def connection(self, timeout: float = 30) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def credentials(self) -> dict[str, str]:
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {token}"}

    def request(
        self,
        sql: str | bytes | None = None,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        body: Any = None,
        **parameters: Any,
    ) -> Reply:
        """One request: ``sql`` in the body, or in the URL if there is a ``body`` or the method is GET."""
        if sql is not None and (body is not None or method == "GET"):
            parameters["query"] = sql
        elif sql is not None:
            body = sql.encode() if isinstance(sql, str) else sql
        connection = self.connection()
        try:
            target = "/?" + urlencode(parameters)
            connection.request(method, target, body, {**self.credentials(), **(headers or {})})
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, received, response.read())
        finally:
            connection.close()

    def run(self, sql: str | bytes, **parameters: Any) -> str:
        """The text of a result; an error fails the test."""
        reply = self.request(sql, **parameters)
        assert reply.status == 200, reply.text
        return reply.text.strip()

    def stop(self) -> int:
        """SIGTERM and the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def command(directory: Path, *arguments: str) -> list[str]:
    own = ["--path", str(directory), "--host", "127.0.0.1"]
    return [sys.executable, "-m", "headrace.local.clickhouse", *own, *arguments]


def environment(directory: Path) -> dict[str, str]:
    """Without settings of the surrounding shell or of a stack that runs elsewhere."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**clean, "HEADRACE_HOME": str(directory), "HEADRACE_CLICKHOUSE_PASSWORD": PASSWORD}


def launch(directory: Path, *arguments: str, reader: str = "") -> Endpoint:
    """Start a server and wait until it says that it is ready; with a password for its reader, if it has one."""
    process = subprocess.Popen(
        command(directory, "--port", "0", *arguments),
        env={**environment(directory), "HEADRACE_BI_PASSWORD": reader},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"exit status {process.wait()}, no start: {process.stderr.read()}")
    return Endpoint(process, directory, json.loads(line))


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The server that most tests share; its folder has a space in its name."""
    running = launch(tmp_path_factory.mktemp("endpoint") / "data folder")
    yield running
    running.kill()


@pytest.fixture
def start() -> Iterator[Callable[..., Endpoint]]:
    """Start further servers, which are killed when the test is over."""
    running: list[Endpoint] = []

    def starter(directory: Path, *arguments: str) -> Endpoint:
        running.append(launch(directory, *arguments))
        return running[-1]

    yield starter
    for one in running:
        one.kill()


@pytest.fixture
def failing() -> Callable[..., tuple[int, str]]:
    """Run a server that must not start; its exit status and what it said."""

    def run(directory: Path, *arguments: str, **variables: str | None) -> tuple[int, str]:
        wanted = {**environment(directory), **variables}
        finished = subprocess.run(
            command(directory, *arguments),
            env={name: value for name, value in wanted.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        return finished.returncode, finished.stderr

    return run


@pytest.fixture
def database(endpoint: Endpoint, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the test's own."""
    name = f"t_{os.getpid()}_{abs(hash(request.node.nodeid)) % 10**9}"
    endpoint.run(f"CREATE DATABASE {name}")
    yield name
    endpoint.run(f"DROP DATABASE IF EXISTS {name} SYNC")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside the server's folder that no client may see."""
    path = tmp_path / "secret.csv"
    path.write_text("TOPSECRET\n")
    return path


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Poll until ``condition`` is true.

    Raises:
        AssertionError: It never was.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.02)
    return value


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """:func:`wait_until`, for tests that cannot import this file."""
    return wait_until
