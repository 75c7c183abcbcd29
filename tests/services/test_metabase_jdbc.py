"""What Metabase asks through ClickHouse's JDBC drivers, of the embedded endpoint, as the user that only reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS
from marts import rows
from marts.conftest import PASSWORD, Warehouse, new_warehouse

from .fetch import JDBC as VERSIONS
from .servers import JDBC, asked_for, fetched

asked_for(JDBC)

__all__ = ["new_warehouse"]

PROGRAM = Path(__file__).with_name("Metabase.java")
READER, READER_PASSWORD = "headrace_bi", "reads only"
#: Views of states, in which numbers are counted, beside the marts.
SHOWN = ("analytics_speed.event_states_live", "analytics_speed.performance_states_live")
#: Models of the marts' folder that BI tools do not see.
HIDDEN = {"sessions_latest", "user_days", "users_latest"}


@pytest.fixture(scope="session")
def clickhouse_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An endpoint with a reader."""
    folder = tmp_path_factory.mktemp("clickhouse") / "data folder"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    secrets = {"HEADRACE_CLICKHOUSE_PASSWORD": PASSWORD, "HEADRACE_BI_PASSWORD": READER_PASSWORD}
    options = ["--path", str(folder), "--host", "127.0.0.1", "--port", "0", "--reader", READER]
    options += [word for name in sorted(HIDDEN) for word in ("--hide", name)]
    options += [word for name in SHOWN for word in ("--show", name)]
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.local.clickhouse", *options, "--database", "analytics"],
        env={**clean, **secrets, "HEADRACE_HOME": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the endpoint did not start: exit status {process.wait()}"
        yield int(json.loads(line)["port"])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def marts(new_warehouse: Callable[..., Warehouse]) -> Warehouse:
    """Every mart and live view, with rows."""
    warehouse = new_warehouse("analytics")
    for contract, landed in ((EVENTS, rows.events()), (METRICS, rows.metrics())):
        warehouse.load(contract.table, landed)
    outcome = warehouse.dbt("run")
    assert outcome, outcome.error
    return warehouse


@dataclass
class Seen:
    """What a driver found.

    Attributes:
        schemas: Databases.
        tables: Comments by table.
        columns: Type and comment by table and column.
        keys: Columns of the keys by table and place.
        rows: Rows of the fingerprint by table.
    """

    schemas: set[str]
    tables: dict[str, str]
    columns: dict[str, dict[str, tuple[str, str]]]
    keys: dict[str, dict[int, str]]
    rows: dict[str, int]


def asked(version: str, port: int, user: str, password: str, schema: str = "analytics") -> Seen:
    folder = fetched(JDBC)
    jars = [folder / f"clickhouse-jdbc-{version}-all.jar", *sorted(folder.glob("slf4j-*.jar"))]
    url = f"jdbc:clickhouse://127.0.0.1:{port}/{schema}"
    done = subprocess.run(
        [
            "java",
            "-Xmx512m",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            os.pathsep.join(map(str, jars)),
            str(PROGRAM),
            url,
            user,
            password,
            schema,
        ],
        capture_output=True,
        text=True,
        timeout=1_800,  # value scans of every column; on a busy machine they take long
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-4000:]
    seen = Seen(set(), {}, {}, {}, {})
    for what, *words in (line.split("\t") for line in done.stdout.splitlines()):
        if what == "schema":
            seen.schemas.add(words[0])
        elif what == "table":
            seen.tables[words[0]] = words[2]
        elif what == "column":
            seen.columns.setdefault(words[0], {})[words[1]] = (words[2], words[3])
        elif what == "key":
            # a key of one column is in brackets
            own = seen.keys.setdefault(words[0], {})
            own[int(words[2])] = words[1].strip("()")
        elif what == "rows":
            seen.rows[words[0]] = int(words[1])
    assert done.stdout.splitlines()[-1] == f"done\t{len(seen.tables)}"
    return seen


def described(marts: Warehouse) -> Mapping[str, Any]:
    """Models of the marts by name."""
    return {
        node.name: node
        for node in marts.manifest.nodes.values()
        if node.resource_type.value == "model" and node.schema == "analytics"
    }


def one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@pytest.mark.parametrize("version", VERSIONS)
def test_metabase_reads_every_mart_as_it_is_described(version: str, marts: Warehouse) -> None:
    models = described(marts)
    seen = asked(version, marts.port, READER, READER_PASSWORD)
    assert seen.schemas == {"analytics", "analytics_speed"}
    assert set(seen.tables) == set(models) - HIDDEN
    aside = asked(version, marts.port, READER, READER_PASSWORD, "analytics_speed")
    assert set(aside.tables) == {one.partition(".")[2] for one in SHOWN}
    assert seen.rows["events_history"] > 0 and seen.rows["event_metrics_live"] > 0
    for name, comment in seen.tables.items():
        assert one_line(comment) == one_line(models[name].description), name
        said = {column: (c.data_type, one_line(c.description)) for column, c in models[name].columns.items()}
        found = {column: (kind, one_line(text)) for column, (kind, text) in seen.columns[name].items()}
        assert found == said, name
        keys = models[name].config.get("order_by") or []
        view = models[name].config.materialized == "view"
        own = [column for _, column in sorted(seen.keys.get(name, {}).items())]
        assert own == ([] if view else [keys] if isinstance(keys, str) else keys), name


def test_who_owns_the_server_sees_more(marts: Warehouse) -> None:
    """What the reader does not see is there."""
    seen = asked(VERSIONS[-1], marts.port, "headrace", PASSWORD)
    assert {"analytics", marts.raw, "analytics_speed"} <= seen.schemas
    assert set(seen.tables) >= HIDDEN


def test_a_wrong_password_is_an_error(marts: Warehouse) -> None:
    with pytest.raises(AssertionError, match=r"516|Authentication|isValid is false"):
        asked(VERSIONS[-1], marts.port, READER, "wrong")
