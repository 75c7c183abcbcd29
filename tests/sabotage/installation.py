"""A whole installation of its own that runs: a copied checkout, streams of somebody's own, live traffic, Dagster."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import psutil

from headrace.core.errors import HeadraceError
from headrace.local.dagster_api import DagsterApi, Run
from headrace.producers import Producer
from headrace.producers.kafka import KafkaProducer
from sabotage.mistakes import WELL, Place

T = TypeVar("T")
_COPIED = ("platform", "dbt_project", "dagster_home")
_SHOWN = """
query Shown {
  assetNodes { assetKey { path } description }
  workspaceOrError { ... on Workspace { locationEntries {
    locationOrLoadError { __typename ... on PythonError { message } } } } }
  sensorsOrError(repositorySelector: {repositoryLocationName: "headrace", repositoryName: "__repository__"}) {
    ... on Sensors { results { name sensorState { ticks(limit: 1) { status skipReason error { message } } } } }
  }
}"""
_FAILURES = """
query Failures($run: ID!) {
  logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
    __typename ... on MessageEvent { message }
    ... on ExecutionStepFailureEvent { error { message causes { message } } }
    ... on RunFailureEvent { error { message } } } } }
}"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a person reads of the installation, by where they look."""

    status: str
    doctor: str
    ui: str

    def named(self, pattern: str) -> dict[str, bool]:
        """Where a regular expression is found."""
        searched = re.compile(pattern, re.IGNORECASE | re.DOTALL)
        return {where: bool(searched.search(getattr(self, where))) for where in self.__slots__}


class Installation:
    """The platform in the foreground of a process of its own, with a feeder for the stream ``well``."""

    def __init__(self, root: Path, environment: Mapping[str, str], rate: float = 20.0) -> None:
        """Args:
        root: A new folder for everything.
        environment: More settings.
        rate: Simulated events per second.
        """
        self.root = root
        self.project, self.home, self.pipelines = root / "checkout", root / "home", root / "my pipelines"
        unwanted = shutil.ignore_patterns("__pycache__", "target", "logs")
        for folder in _COPIED:
            shutil.copytree(Path(__file__).parents[2] / folder, self.project / folder, ignore=unwanted)
        self.pipelines.mkdir()
        (self.pipelines / "well_pipeline.py").write_bytes(WELL.source)
        clean = {
            n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "DAGSTER_", "DBT_", "AWS_"))
        }
        self.env = {
            **clean,
            "PYTHONPATH": str(self.project / "platform"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HEADRACE_HOME": str(self.home),
            "HEADRACE_PIPELINES": str(self.pipelines),
            "COLUMNS": "400",
            **environment,
        }
        self.lake = Path(self.env.get("HEADRACE_LAKE_URI", self.home / "lake"))
        self._log = root / "up.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command(), "up", "--rate", str(rate), "--history", "0.2", "--ui-port", str(_free_port())],
                env=self.env, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.api: DagsterApi | None = None
        self._stop = threading.Event()
        self.sent = 0

    @staticmethod
    def _command() -> list[str]:
        return [sys.executable, "-m", "headrace.cli"]

    def headrace(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(
            [*self._command(), *arguments], env={**self.env, **(env or {})}, cwd=self.root,
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip

    def place(self, place: Place) -> Path:
        """The folder in which mistakes of a kind are planted."""
        return {
            "pipelines": self.pipelines,
            "models": self.project / "dbt_project",
            "migrations": self.project / "platform/headrace/warehouse/migrations",
            "home": self.home,
        }[place]

    def start(self) -> None:
        """Wait until it is up, and feed the stream of one's own."""
        url = until(self._address, 300, "the UI's address")
        self.api = DagsterApi(url)
        self._url = url
        threading.Thread(target=self._feed, daemon=True).start()

    def _address(self) -> str | None:
        if self._process.poll() is not None:
            raise RuntimeError(f"'headrace up' ended:\n{self._log.read_text()}")
        found = re.search(r"Dagster UI\s+(http://\S+)", self._log.read_text())
        return found[1] if found else None

    def _feed(self) -> None:
        producer: Producer | None = None
        while not self._stop.wait(1.0):
            try:
                producer = producer or self.producer("well")
                now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
                rows = [{"id": f"w-{self.sent + n}", "at": now, "kind": "fed", "size": 1.0} for n in range(5)]
                producer.send([json.dumps(row).encode() for row in rows])
                producer.flush()
                self.sent += len(rows)
            except (HeadraceError, OSError):
                producer = None
        if producer is not None:
            producer.close()

    def producer(self, topic: str) -> KafkaProducer:
        """For one of its topics."""
        return KafkaProducer(self.stack_env()["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"], topic)

    def stack_env(self) -> dict[str, str]:
        """What points at its services."""
        lines = (self.home / "stack.env").read_text().splitlines()
        pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
        return {name: value.strip("'\"") for name, _, value in pairs}

    def said(self) -> Said:
        """What status, doctor and the UI say now."""
        commands: dict[str, str] = {}

        def ask(command: str) -> None:
            done = self.headrace(command)
            commands[command] = done.stdout + done.stderr

        asking = [threading.Thread(target=ask, args=(command,)) for command in ("status", "doctor")]
        for one in asking:
            one.start()
        ui = self._shown()
        for one in asking:
            one.join()
        return Said(commands["status"], commands["doctor"], ui)

    def _shown(self) -> str:
        assert self.api is not None
        try:
            data = self.api._ask(_SHOWN)
        except HeadraceError as error:
            return str(error)
        said = [
            f"{n['assetKey']['path']} {n['description']}"
            for n in data["assetNodes"]
            if n["assetKey"]["path"][0] == "broken"
        ]
        for entry in (data["workspaceOrError"] or {}).get("locationEntries", []):
            said.append((entry["locationOrLoadError"] or {}).get("message", ""))
        for sensor in (data["sensorsOrError"] or {}).get("results", []):
            for tick in sensor["sensorState"]["ticks"]:
                said += [f"{sensor['name']}: {tick['skipReason']}", (tick["error"] or {}).get("message", "")]
        return "\n".join(filter(None, said)) + "\n" + "\n".join(self._reasons())

    def _reasons(self) -> Iterator[str]:
        assert self.api is not None
        well: set[str] = set()
        failed: list[Run] = []
        for run in self.api.runs(50):  # the newest first; a failure before a success is history
            if run.status == "SUCCESS":
                well.add(run.job)
            elif run.status == "FAILURE" and run.job not in well:
                failed.append(run)
        for run in failed[:5]:
            events = self.api._ask(_FAILURES, run=run.id)["logsForRun"]["events"]
            for event in events:
                error = event.get("error")
                if error:
                    causes = error.get("causes") or []
                    yield f"{run.job}: " + " ".join([error["message"], *(c["message"] for c in causes)])

    def failures(self, since: float) -> list[Run]:
        """Runs that began after a moment (s since 1970) and failed."""
        assert self.api is not None
        return [r for r in self.api.runs(200) if r.status == "FAILURE" and (r.start or time.time()) >= since]

    def rows(self, stream: str) -> int:
        """Rows of a stream's raw table in the warehouse."""
        done = self.headrace("query", f"SELECT count() AS n FROM raw.{stream}", "--json")
        try:
            return int(json.loads(done.stdout)[0]["n"])
        except (ValueError, LookupError):
            return -1

    def landed(self, stream: str) -> int:
        """Rows of a stream in the lake; read beside Headrace, with delta-rs alone."""
        from deltalake import DeltaTable

        folder = self.lake / stream
        if not (folder / "_delta_log").is_dir():
            return 0
        return int(sum(DeltaTable(str(folder)).get_add_actions(flatten=True)["num_records"].to_pylist()))

    def service(self, words: str) -> psutil.Process:
        """The process of a backing service whose command line holds these words."""
        below = psutil.Process(self._process.pid).children(recursive=True)
        for process in below:
            with suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    return process
        raise LookupError(f"no process of the installation has {words!r} in its command line")

    def stop(self) -> None:
        """End it, and everything below it."""
        self._stop.set()
        below = (
            psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        )
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        for process in below:
            with suppress(psutil.Error):
                process.kill()
        self._process.kill()


@contextmanager
def planted(folder: Path, files: Mapping[str, bytes | None]) -> Iterator[None]:
    """Files with these contents are there meanwhile; what was in their places is back afterwards.

    Args:
        folder: Where to.
        files: Path within the folder to content; None makes a folder.
    """
    before = {
        folder / name: (folder / name).read_bytes() if (folder / name).is_file() else None for name in files
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
    try:
        yield
    finally:
        for path, content in before.items():
            if content is not None:
                path.write_bytes(content)
            elif path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)


def until(look: Callable[[], T], within: float, what: str) -> T:
    """Poll until what ``look`` finds is true, and give it.

    Raises:
        TimeoutError: It was not within that many seconds.
    """
    deadline, never = time.monotonic() + within, threading.Event()
    while not (found := look()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {within:.0f} s")
        never.wait(0.5)
    return found


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
