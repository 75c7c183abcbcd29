"""A platform of its own in a folder of its own, a load beside it, and what Dagster recorded of it."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from headrace.config.settings import Settings, exported, load_settings
from headrace.core.errors import HeadraceError
from headrace.core.packed import unpacked
from headrace.local.dagster_api import DagsterApi, Run

_LOCATIONS = (
    "query { repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
)
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
_EVALUATIONS = """
    SELECT id, asset_key, check_name, run_id, execution_status, evaluation_event FROM asset_check_executions
    WHERE id > ? AND execution_status IN ('SUCCEEDED', 'FAILED') ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of an asset check or dbt test."""

    id: int
    check: str
    run_id: str
    passed: bool
    inconclusive: bool
    said: str


@dataclass
class Platform:
    """``headrace up``.

    Attributes:
        home: Its state.
        ui: Address of the UI.
        api: What the UI answers.
        settings: Those that point at its services.
        runs: All runs that were ever seen, by id.
        evaluations: All that were recorded.
    """

    home: Path
    ui: str
    api: DagsterApi
    settings: Settings
    runs: dict[str, Run] = field(default_factory=dict)
    evaluations: dict[int, Evaluation] = field(default_factory=dict)

    def launch(self, job: str) -> str:
        """Launch a job as the UI does; gives the id of its run."""
        nodes = self._ask(_LOCATIONS)["repositoriesOrError"]["nodes"]
        selector = {
            "repositoryName": nodes[0]["name"],
            "repositoryLocationName": nodes[0]["location"]["name"],
            "jobName": job,
        }
        answer = self._ask(_LAUNCH, params={"selector": selector})["launchRun"]
        if "run" not in answer:
            raise RuntimeError(f"Dagster does not launch {job}: {answer}")
        return str(answer["run"]["runId"])

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = requests.post(
            f"{self.ui}/graphql", json={"query": query, "variables": variables}, timeout=120
        ).json()
        data: dict[str, Any] = answer["data"]
        return data

    def look(self) -> None:
        """Note what has been recorded since the last look."""
        with suppress(HeadraceError):  # the UI is slow beside a load: the next look has it
            self.runs |= {run.id: run for run in self.api.runs(500)}
        index = self.home / "dagster" / "history" / "runs" / "index.db"
        if not index.is_file():
            return
        # an evaluation takes the place of its plan: so one with a lower id may be new
        with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True, timeout=60)) as database:
            rows = database.execute(_EVALUATIONS, (max(self.evaluations, default=0) - 2_000,)).fetchall()
        for row in rows:
            if row[0] not in self.evaluations:
                self.evaluations[row[0]] = _evaluation(*row)

    def ended(self, run_id: str, within: float) -> Run:
        """Wait for the end of a run."""
        deadline = time.monotonic() + within
        while True:
            self.look()
            run = self.runs.get(run_id)
            if run is not None and not run.active:
                return run
            if time.monotonic() > deadline:
                raise RuntimeError(f"run {run_id} did not end within {within:.0f} s")
            time.sleep(1)


def _evaluation(number: int, asset: str, name: str, run_id: str, status: str, event: str) -> Evaluation:
    found = json.loads(unpacked(event))["dagster_event"]["event_specific_data"]
    metadata = found.get("metadata") or {}
    rows = metadata.get("dagster_dbt/failed_row_count", {}).get("value")
    return Evaluation(
        number,
        f"{name} of {'/'.join(json.loads(asset))}",
        run_id,
        status == "SUCCEEDED",
        metadata.get("inconclusive", {}).get("value") is True,
        found.get("description") or (f"{rows} rows fail this test of dbt" if rows else ""),
    )


@contextmanager
def platform(home: Path, words: list[str]) -> Iterator[Platform]:
    """``headrace up`` with these options, on ports that are free."""
    foreign = ("HEADRACE_", "DAGSTER_", "DBT_", "AWS_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env = {**clean, "HEADRACE_HOME": str(home), "COLUMNS": "200"}
    output = home.with_name(f"{home.name}-up.log")
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli", "up", *words], env=env, stdout=log, stderr=log
        )
    try:
        ui = waited(lambda: _address(output, process), 600, "the address of the UI")
        with exported({"HEADRACE_HOME": str(home)}):
            settings = load_settings()
        yield Platform(home, ui, DagsterApi(ui), settings)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()


def _address(output: Path, process: subprocess.Popen[bytes]) -> str | None:
    if process.poll() is not None:
        raise RuntimeError(f"headrace up ended: {output.read_text()}")
    said = re.search(r"Dagster UI\s+(http://\S+)", output.read_text())
    return said[1] if said else None


@contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that do nothing but take a core each."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in spinning:
            one.kill()
            one.wait()


def waited(look: Callable[[], Any], within: float, what: str) -> Any:
    """Poll until what ``look`` finds is true, and give it."""
    deadline = time.monotonic() + within
    while not (found := look()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come within {within:.0f} s")
        time.sleep(1)
    return found
