"""A real ClickHouse endpoint per test worker, and the dbt project running against it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import clickhouse_connect
import polars as pl
import pytest
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest
from pydantic import SecretStr

from headrace.contracts.base import Contract
from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS
from headrace.core.batch import Chunk, Table
from headrace.core.locks import Patience, file_lock
from headrace.lake.arrow import to_arrow
from headrace.warehouse.clickhouse import ClickHouse

PROJECT = Path(__file__).resolve().parents[2] / "dbt_project"
PASSWORD = "pass:word é"
#: The schemas that stand in the parsed project until it is one warehouse's.
ANY_SCHEMA, ANY_RAW = "schema_of_any", "raw_of_any"
#: ReplacingMergeTree tables.
MERGED = ("users_latest", "sessions_latest", "user_days")


@dataclass
class Outcome:
    """What one dbt command did."""

    success: bool
    statuses: dict[str, str]
    error: str

    def __bool__(self) -> bool:
        return self.success

    @property
    def failed(self) -> set[str]:
        """Names of the nodes that did not succeed."""
        return {name for name, status in self.statuses.items() if status in ("error", "fail", "skipped")}


@dataclass
class Warehouse:
    """One raw database and one target schema on the endpoint, and dbt on them.

    Attributes:
        port: Of the endpoint.
        folder: Where dbt writes.
        name: Of the schema.
        parsed: The project for any schema.
        arriving: Days of which rows are on their way, as ``DBT_ARRIVING_DAYS``.
    """

    port: int
    folder: Path
    name: str
    parsed: Manifest
    project: Path = PROJECT
    tokens: int = field(default=0)
    cluster: str = ""
    arriving: str = ""

    def __post_init__(self) -> None:
        self.raw = f"raw_{self.name}"
        self.manifest = _of(self.parsed, self.name, self.raw)
        config = SimpleNamespace(
            clickhouse_host="127.0.0.1",
            clickhouse_port=self.port,
            clickhouse_user="headrace",
            clickhouse_password=SecretStr(PASSWORD),
            clickhouse_secure=False,
            warehouse_cluster=self.cluster,
            raw_database=self.raw,
            raw_ttl_days=0,
            lock_max_seconds=60.0,
        )
        self.adapter = ClickHouse(config)
        self.client = clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.port,
            username="headrace",
            password=PASSWORD,
            autogenerate_session_id=False,
        )
        for contract in (EVENTS, METRICS):
            self.adapter.prepare(contract.table)
            self.adapter.prepare(contract.rejected_table)

    def load(self, table: Table, rows: pl.DataFrame) -> None:
        """Add rows to a raw table."""
        self.tokens += 1
        self.adapter.insert(table, Chunk.of(to_arrow(rows, table)), f"{self.name}:{self.tokens}")

    def forget(self, contract: Contract, day: str) -> None:
        """Drop a day from a raw table."""
        self.client.command(f"alter table {self.raw}.{contract.name} drop partition '{day}'")

    def command(self, sql: str) -> None:
        """Run a statement; ``{db}`` is the target schema."""
        self.client.command(sql.replace("{db}", self.name))

    def query(self, sql: str) -> pl.DataFrame:
        """A query's result; ``{db}`` is the target schema."""
        table = self.client.query_arrow(sql.replace("{db}", self.name), use_strings=True)
        return pl.DataFrame(pl.from_arrow(table))

    def mart(self, name: str, where: str = "true") -> pl.DataFrame:
        """A mart's rows in a fixed order; those that are merged by key as merged."""
        merged = "final" if name in MERGED else ""
        return self.query(f"select * from {{db}}.{name} {merged} where {where} order by all")

    def dbt(self, *arguments: str, **variables: Any) -> Outcome:
        """Run a dbt command with its own target and log folders, which have a space in their names."""
        flags = [*_flags(self.project, self.folder), "--vars", json.dumps(variables)]
        if arguments[0] != "docs":
            flags.append("--no-write-json")  # a megabyte that nobody reads
        with _environment(self.port, self.name, self.raw, self.cluster, self.arriving):
            answer = dbtRunner(manifest=self.manifest).invoke([*arguments, *flags])
        nodes = getattr(answer.result, "results", None) or []
        messages = [str(answer.exception or "")] + [
            str(r.message) for r in nodes if r.status in ("error", "fail")
        ]
        return Outcome(answer.success, {r.node.name: str(r.status) for r in nodes}, "\n".join(messages))


def _flags(project: Path, folder: Path) -> list[str]:
    return ["--project-dir", str(project), "--profiles-dir", str(project), "--quiet", "--log-level-file", "none",
            "--target-path", str(folder / "the target"), "--log-path", str(folder / "the logs")]  # fmt: skip


@contextmanager
def _environment(port: int, schema: str, raw: str, cluster: str, arriving: str = "") -> Iterator[None]:
    """While entered, dbt in this process is told this and nothing else."""
    own = {
        "HEADRACE_CLICKHOUSE_HOST": "127.0.0.1",
        "HEADRACE_CLICKHOUSE_PORT": str(port),
        "HEADRACE_CLICKHOUSE_USER": "headrace",
        "HEADRACE_CLICKHOUSE_PASSWORD": PASSWORD,
        "HEADRACE_CLICKHOUSE_SECURE": "false",
        "HEADRACE_WAREHOUSE_CLUSTER": cluster,
        "HEADRACE_DBT_SCHEMA": schema,
        "HEADRACE_RAW_DATABASE": raw,
        "DBT_ARRIVING_DAYS": arriving,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HEADRACE_", "DBT_"))]:
            patch.delenv(name)
        for name, value in own.items():
            patch.setenv(name, value)
        yield


def _parse(project: Path, folder: Path, cluster: str, known: Path) -> Manifest:
    """The project for any schema; only what differs from the last time is parsed, whichever process that was in."""
    made = folder / "the target" / "partial_parse.msgpack"
    made.parent.mkdir(parents=True)
    with file_lock(known.with_suffix(".lock"), "parsing the dbt project", Patience(600, 600)):
        if known.exists():
            shutil.copy(known, made)
        with _environment(1, ANY_SCHEMA, ANY_RAW, cluster):  # parsing asks no server
            answer = dbtRunner().invoke(["parse", *_flags(project, folder), "--no-write-json"])
        assert answer.success, answer.exception
        if not known.exists():
            shutil.copy(made, known)
    assert isinstance(answer.result, Manifest)
    return answer.result


def _of(parsed: Manifest, schema: str, raw: str) -> Manifest:
    """A copy whose nodes and sources are in these schemas."""
    own: Manifest = parsed.deepcopy()  # type: ignore[no-untyped-call]
    node: Any
    for node in chain(own.nodes.values(), own.unit_tests.values(), own.sources.values()):
        any_name, name = (ANY_RAW, raw) if node.schema.startswith(ANY_RAW) else (ANY_SCHEMA, schema)
        node.schema = node.schema.replace(any_name, name)
        if relation := getattr(node, "relation_name", None):
            node.relation_name = relation.replace(any_name, name)
    return own


@pytest.fixture(scope="session")
def clickhouse_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of an endpoint of this worker's own; it ends with the tests."""
    folder = tmp_path_factory.mktemp("clickhouse") / "data folder"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    options = ["-m", "headrace.local.clickhouse", "--path", str(folder), "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, *options, "--user", "headrace", "--database", "analytics"],
        env={**clean, "HEADRACE_HOME": str(folder), "HEADRACE_CLICKHOUSE_PASSWORD": PASSWORD},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the endpoint did not start: exit status {process.wait()}"
        yield int(json.loads(line)["port"])
    finally:
        process.terminate()
        try:
            process.wait(15)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="session")
def new_warehouse(clickhouse_port: int, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Warehouse]:
    """``new_warehouse(name)``: an empty raw database and a schema of its own."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    as_it_is: dict[str, Manifest] = {}

    def make(name: str, project: Path = PROJECT, cluster: str = "") -> Warehouse:
        folder, known = tmp_path_factory.mktemp(name), shared / f"parsed{cluster}.msgpack"
        parsed = as_it_is.get(cluster) if project == PROJECT else None
        if parsed is None:
            parsed = _parse(project, tmp_path_factory.mktemp("parsed"), cluster, known)
        if project == PROJECT:
            as_it_is[cluster] = parsed
        return Warehouse(clickhouse_port, folder, name, parsed, project, cluster=cluster)

    return make


@pytest.fixture
def project_copy(tmp_path: Path) -> Path:
    """A copy of the project that a test may damage."""
    return Path(
        shutil.copytree(PROJECT, tmp_path / "a project", ignore=shutil.ignore_patterns("target", "logs"))
    )
