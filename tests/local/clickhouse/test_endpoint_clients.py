"""The clients that must work unmodified: clickhouse-connect, its asynchronous twin, and dbt."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import polars as pl
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData

from headrace.config.settings import child_environment


def connect(endpoint: Any, **options: Any) -> Any:
    return clickhouse_connect.get_client(
        host="127.0.0.1",
        port=endpoint.port,
        username=endpoint.user,
        password=endpoint.password,
        **{"tz_mode": "aware", **options},
    )


@pytest.fixture
def client(endpoint: Any, database: str) -> Iterator[Any]:
    opened = connect(endpoint, database=database)
    yield opened
    opened.close()


ROWS = [
    (1, "one", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), 1.5, ["a", "b"], {"k": 1}, None),
    (2, "zwölf 'x'\t\\n", datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC), -0.25, [], {}, 7),
]
COLUMNS = (
    "id UInt64, name String, at DateTime64(6, 'UTC'), value Float64, tags Array(String), "
    "dims Map(String, UInt8), maybe Nullable(Int32)"
)


@pytest.mark.parametrize("compress", [True, False, "lz4", "zstd", "gzip", "br"])
def test_insert_and_query_round_trip(endpoint: Any, database: str, compress: Any) -> None:
    client = connect(endpoint, database=database, compress=compress)
    client.command(f"CREATE TABLE t ({COLUMNS}) ORDER BY id")
    written = client.insert("t", ROWS, column_names="*")
    assert written.written_rows == len(ROWS)
    found = client.query("SELECT * FROM t ORDER BY id").result_rows
    assert [list(row) for row in found] == [list(row) for row in ROWS]
    client.close()


def test_queries_of_every_kind(client: Any) -> None:
    assert client.ping() and client.server_version.count(".") == 3
    assert client.command("SELECT currentDatabase()") == client.database
    assert client.query("SELECT {a:UInt8} + 1", parameters={"a": 1}).first_row == (2,)
    assert client.query("SELECT %(a)s", parameters={"a": "it's"}).first_row == ("it's",)
    assert client.query("SELECT getSetting('max_block_size')", settings={"max_block_size": 77}).first_row == (
        77,
    )
    assert client.query("SHOW DATABASES").row_count >= 2
    assert client.query("DESCRIBE (SELECT 1 AS a)").first_row[0] == "a"
    assert client.query_df("SELECT number FROM numbers(3)").number.sum() == 3
    assert client.query_arrow("SELECT number FROM numbers(3)").num_rows == 3
    assert pl.from_arrow(client.query_arrow("SELECT 1 AS a")).item() == 1
    assert client.raw_query("SELECT 1", fmt="CSV") == b"1\n"
    with client.query_row_block_stream("SELECT number FROM numbers(200000)") as stream:
        assert sum(len(block) for block in stream) == 200_000


def test_errors_before_and_in_mid_stream_reach_the_caller(client: Any) -> None:
    with pytest.raises(DatabaseError, match=r"(?s)nothing_like_this.*UNKNOWN_TABLE"):
        client.query("SELECT * FROM nothing_like_this")
    late = "SELECT number, throwIf(number = 3000000, 'too late') FROM numbers(4000000)"
    late += " SETTINGS max_block_size = 65536"
    with pytest.raises(Exception, match="too late"):
        client.query(late)
    with pytest.raises(Exception, match="too late"), client.query_row_block_stream(late) as stream:
        for _ in stream:
            pass
    assert client.command("SELECT 1") == 1


def test_client_sessions_hold_temporary_tables(endpoint: Any, database: str) -> None:
    client = connect(endpoint, database=database, session_id=str(uuid.uuid4()))
    client.command("CREATE TEMPORARY TABLE mine (a UInt8)")
    client.insert("mine", [[1], [2]], column_names=["a"], column_type_names=["UInt8"], database="")
    assert client.command("SELECT sum(a) FROM mine") == 3
    client.close()


def test_external_data(client: Any) -> None:
    data = ExternalData(file_name="ext", fmt="CSV", structure="id UInt8, name String", data=b'1,"a"\n2,"b"\n')
    found = client.query("SELECT name FROM ext WHERE id = {i:UInt8}", parameters={"i": 2}, external_data=data)
    assert found.first_row == ("b",)


@pytest.mark.parametrize("way", ["insert_arrow", "raw_insert"])
def test_a_retried_insert_with_its_token_adds_nothing(client: Any, way: str) -> None:
    client.command(
        "CREATE TABLE t (day Date, n UInt32) ENGINE = MergeTree PARTITION BY day ORDER BY n "
        "SETTINGS non_replicated_deduplication_window = 1000"
    )
    client.command(
        "CREATE TABLE sums (day Date, n UInt64) ENGINE = SummingMergeTree ORDER BY day "
        "SETTINGS non_replicated_deduplication_window = 1000"
    )
    client.command("CREATE MATERIALIZED VIEW v TO sums AS SELECT day, sum(n) AS n FROM t GROUP BY day")
    table = pl.DataFrame(
        {"day": [f"2024-01-0{i % 2 + 1}" for i in range(100_000)], "n": range(100_000)}
    ).with_columns(pl.col("day").str.to_date(), pl.col("n").cast(pl.UInt32))

    def insert(token: str) -> None:
        settings = {
            "insert_deduplication_token": token,
            "deduplicate_blocks_in_dependent_materialized_views": 1,
        }
        if way == "insert_arrow":
            client.insert_arrow("t", table.to_arrow(), settings=settings)
        else:
            client.raw_insert(
                "t", insert_block=table.write_csv(include_header=False), fmt="CSV", settings=settings
            )

    insert("a")
    parts = (
        "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 't' AND level = 0"
    )
    assert client.command(parts) == 2  # one for each partition
    insert("a")
    assert client.query("SELECT count(), sum(n) FROM t").first_row == (100_000, sum(range(100_000)))
    assert client.command("SELECT sum(n) FROM sums") == sum(range(100_000))
    insert("b")  # another token is another insert, equal rows or not
    assert client.command("SELECT count() FROM t") == 200_000
    assert client.command("SELECT sum(n) FROM sums") == 2 * sum(range(100_000))


def test_an_insert_that_does_not_parse_adds_nothing(client: Any) -> None:
    client.command("CREATE TABLE t (n UInt32) ORDER BY n")
    lines = b"".join(b"%d\n" % n for n in range(300_000))
    with pytest.raises(DatabaseError):
        client.raw_insert("t", insert_block=lines + b"x\n", fmt="TSV")
    assert client.command("SELECT count() FROM t") == 0
    client.raw_insert("t", insert_block=lines, fmt="TSV")
    assert client.command("SELECT count() FROM t") == 300_000


def test_arrow_types_survive(client: Any) -> None:
    client.command("CREATE TABLE t (id UInt64, at DateTime64(6, 'UTC'), m Map(String, String)) ORDER BY id")
    at = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    table = pa.table(
        {
            "id": pa.array([1], pa.uint64()),
            "at": pa.array([at], pa.timestamp("us", "UTC")),
            "m": pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())),
        }
    )
    client.insert_arrow("t", table)
    assert client.query("SELECT * FROM t").first_row == (1, at, {"k": "v"})


def test_asynchronous_client(endpoint: Any, database: str) -> None:
    pytest.importorskip("aiohttp", reason="clickhouse-connect[async] is not installed")

    async def story() -> None:
        client = await clickhouse_connect.get_async_client(
            host="127.0.0.1",
            port=endpoint.port,
            username=endpoint.user,
            password=endpoint.password,
            database=database,
            autogenerate_session_id=False,
        )
        await client.command("CREATE TABLE t (n UInt32) ORDER BY n")
        await asyncio.gather(
            *(client.insert("t", [[i * 100 + n] for n in range(100)], column_names=["n"]) for i in range(8))
        )
        counts = await asyncio.gather(
            *(client.query("SELECT count(), uniqExact(n) FROM t") for _ in range(8))
        )
        assert {found.first_row for found in counts} == {(800, 800)}
        with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
            await client.query("SELECT * FROM nothing_like_this")
        await client.close()

    asyncio.run(story())


DBT_FILES = {
    "dbt_project.yml": """
name: tiny
version: "1.0"
profile: tiny
model-paths: [models]
seed-paths: [seeds]
flags: {send_anonymous_usage_stats: false}
""",
    "seeds/colours.csv": "id,colour\n1,red\n2,it's blue\n",
    "models/numbers.sql": "{{ config(materialized='table', order_by='n') }} select number as n from numbers(10)",
    "models/doubled.sql": "{{ config(materialized='view') }} select n * 2 as n from {{ ref('numbers') }}",
    "models/history.sql": """
{{ config(materialized='incremental', incremental_strategy='delete_insert', unique_key='n', order_by='n') }}
select n, now64(6) as seen from {{ ref('doubled') }}
{% if is_incremental() %} where n >= (select max(n) from {{ this }}) {% endif %}
""",
    "models/schema.yml": """
models:
  - name: history
    columns:
      - name: n
        data_tests: [not_null, unique]
""",
}


DBT_TWICE = """
from dbt.cli.main import dbtRunner
for _ in range(2):
    if not dbtRunner().invoke(["build", "--no-use-colors"]).success:
        raise SystemExit(1)
"""


@pytest.mark.long
def test_dbt_build_twice(endpoint: Any, database: str, tmp_path: Path) -> None:
    profile = f"""
tiny:
  target: dev
  outputs:
    dev: {{type: clickhouse, driver: http, host: 127.0.0.1, port: {endpoint.port}, user: {endpoint.user},
          password: "{{{{ env_var('TINY_PASSWORD') }}}}", schema: {database}_dbt, database_engine: Atomic,
          threads: 2, use_lw_deletes: true, check_exchange: true}}
"""
    for name, text in {**DBT_FILES, "profiles.yml": profile}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    extra = {"TINY_PASSWORD": endpoint.password, "DBT_PROFILES_DIR": str(tmp_path)}
    try:
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DBT_TWICE],
            cwd=tmp_path,
            env=child_environment(extra),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-2000:]
        assert found.stdout.count("PASS=6 WARN=0 ERROR=0") == 2
        assert endpoint.run(f"SELECT count(), max(n) FROM {database}_dbt.history") == "10\t18"
        assert endpoint.run(f"SELECT colour FROM {database}_dbt.colours ORDER BY id") == "red\nit\\'s blue"
    finally:
        endpoint.run(f"DROP DATABASE IF EXISTS {database}_dbt SYNC")
    assert (tmp_path / "target" / "run_results.json").exists()
