"""A client stays inside the server: it neither reads nor writes the host's files, nor runs its programs.

Every probe runs twice: as SQL against the endpoint, and, where the engine would have obeyed it, against a
bare engine as the positive control, which shows that the probe works.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

READS = {
    "table function": "SELECT * FROM file('{f}', 'LineAsString')",
    "scalar function": "SELECT file('{f}')",
    "quoted scalar function": "SELECT `fi\\x6ce`('{f}')",
    "scalar function after a comment": "SELECT file /* x */ ('{f}')",
    "handed to arrayMap": "SELECT arrayMap(file, ['{f}'])",
    "applied to columns": "SELECT * APPLY file FROM (SELECT '{f}')",
    "inside a structure": "SELECT * FROM "
    "format(JSONEachRow, 'a String, b String DEFAULT file(\\'{f}\\')', '{{\"a\":1}}')",
    "inside a built structure": "SELECT * FROM format(JSONEachRow, concat('a String, b String DEFAULT fi', "
    "'le(\\'{f}\\')'), '{{\"a\":1}}')",
    "template": "SELECT 1 FORMAT Template SETTINGS format_template_resultset = '{f}'",
    "overlay database": "SELECT * FROM `default`.`{f}`",
    "url function": "SELECT * FROM url('file://{f}', 'LineAsString', 'a String')",
    "sqlite": "SELECT * FROM sqlite('{f}', 't')",
    "merge over the overlay": "SELECT * FROM merge('default', '.*')",
    "describe": "DESCRIBE file('{f}')",
    "explain": "EXPLAIN ESTIMATE SELECT * FROM file('{f}', 'LineAsString')",
    "lake": "SELECT * FROM deltaLakeLocal('{d}')",
    "iceberg": "SELECT * FROM icebergLocal('{d}')",
    "listing": "SELECT * FROM filesystem('{d}')",
    "environment": "SELECT file('/proc/self/environ')",
    "result filter": "SELECT 1 SETTINGS additional_result_filter = 'throwIf(1, file(\\'{f}\\')) = 0'",
}
_BUILT_AT_RUN_TIME = ("inside a built structure",)
_CONTROLS = (
    "inside a built structure",
    "table function",
    "scalar function",
    "quoted scalar function",
    "handed to arrayMap",
)


@pytest.mark.parametrize("name", READS)
def test_no_host_file_is_read(endpoint: Any, secret: Path, name: str) -> None:
    if name in _BUILT_AT_RUN_TIME and endpoint.ready["sandbox"] == "none":
        pytest.skip("only the sandbox can refuse what no reading of the text can see")
    sql = READS[name].format(f=secret, d=secret.parent)
    for method in ("POST", "GET"):
        reply = endpoint.request(sql, method=method)
        assert reply.status != 200, reply.text
        assert "TOPSECRET" not in reply.text and "HEADRACE_CLICKHOUSE_PASSWORD" not in reply.text


@pytest.mark.parametrize("name", _CONTROLS)
def test_the_probes_would_read_on_a_bare_engine(secret: Path, name: str) -> None:
    sql = READS[name].format(f=secret, d=secret.parent)
    program = "import sys, chdb; print(chdb.query(sys.argv[1], 'TSV'))"
    found = subprocess.run([sys.executable, "-c", program, sql], capture_output=True, text=True, timeout=60)
    assert "TOPSECRET" in found.stdout


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 INTO OUTFILE '{f}'",
        "SELECT 1 INTO/**/OUTFILE '{f}' FORMAT CSV",
        "SELECT 1 INTO -- x\n OUTFILE '{f}' TRUNCATE FORMAT CSV",
        "(SELECT 1) INTO OUTFILE '{f}'",
        "SHOW TABLES INTO OUTFILE '{f}'",
        "DESCRIBE (SELECT 1) INTO OUTFILE '{f}'",
        "EXPLAIN SELECT 1 INTO OUTFILE '{f}'",
        "CREATE TABLE o (a UInt8) ENGINE = Memory INTO OUTFILE '{f}'",
        "SELECT 1 INTO OUTFILE '{f}' PARALLEL WITH SELECT 1",
        "INSERT INTO FUNCTION file('{f}', 'CSV', 'a UInt8') VALUES (1)",
        "INSERT INTO TABLE FUNCTION file('{f}', 'CSV', 'a UInt8') SELECT 1",
        "SELECT 1 FORMAT Protobuf SETTINGS output_format_schema = '{f}'",
    ],
)
def test_no_host_file_is_written(endpoint: Any, tmp_path: Path, sql: str) -> None:
    target = tmp_path / "out.csv"
    reply = endpoint.request(sql.format(f=target))
    assert reply.status != 200, reply.text
    assert not target.exists()
    assert "into outfile" not in endpoint.run("SELECT 'into outfile' = 'x'")  # the words themselves are fine


@pytest.mark.parametrize(
    "definition",
    [
        "TABLE x (a String) ENGINE = File(CSV, '{f}')",
        "TABLE x (a String) ENGINE File(CSV)",
        "TABLE x (a String) ENGINE = `File`(CSV)",
        "TABLE x (a String) ENGINE = EmbeddedRocksDB(0, '{d}/rocks') PRIMARY KEY a",
        "TABLE x (a String) ENGINE = Executable('x.sh', CSV)",
        "TABLE x (a String) ENGINE = ExecutablePool('x.sh', CSV)",
        "TABLE x (a String) ENGINE = SQLite('{f}', 't')",
        "TABLE x (a String) ENGINE = FileLog('{d}', 'CSV')",
        "TABLE x ENGINE = DeltaLakeLocal('{d}')",
        "TABLE x (a String) ENGINE = URL('file://{f}', CSV)",
        "TABLE x (a String) ENGINE = S3('http://127.0.0.1:1/bucket/key', CSV)",
        "TABLE x (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{d}/disk/')",
        "TABLE x (a String DEFAULT file('{f}')) ORDER BY a",
        "VIEW x AS SELECT file('{f}')",
        "FUNCTION x AS (p) -> file(p)",
        "DATABASE x ENGINE = Filesystem('{d}')",
        "DATABASE x ENGINE = SQLite('{f}')",
        "DATABASE x ENGINE = Overlay('default')",
        "DICTIONARY x (a UInt64, b String) PRIMARY KEY a SOURCE(FILE(PATH '{f}' FORMAT CSV)) LAYOUT(FLAT())",
        "DICTIONARY x (a String, b String) PRIMARY KEY a SOURCE(EXECUTABLE(COMMAND 'cat {f}' FORMAT CSV)) "
        "LAYOUT(COMPLEX_KEY_DIRECT())",
        "DICTIONARY x (a UInt64, b String) PRIMARY KEY a SOURCE(CLICKHOUSE(QUERY 'SELECT 1, file(\\'{f}\\')')) "
        "LAYOUT(FLAT())",
    ],
)
def test_nothing_can_be_created_over_the_host(
    endpoint: Any, database: str, secret: Path, definition: str
) -> None:
    text = definition.format(f=secret, d=secret.parent)
    reply = endpoint.request(f"CREATE {text}", database=database)
    assert reply.status != 200, reply.text
    assert "TOPSECRET" not in reply.text
    assert sorted(secret.parent.iterdir()) == [secret]
    endpoint.run(
        "CREATE TABLE good (a UInt8 DEFAULT 1) ENGINE = ReplacingMergeTree ORDER BY a", database=database
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM executable('x.sh', TSV, 'a String')",
        "SELECT * FROM python('os')",
        "SELECT * FROM eval('SELECT 1')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString', 'a String')",
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/key', 'LineAsString', 'a String')",
        "SELECT * FROM remote('127.0.0.1:1', system.one)",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "BACKUP DATABASE headrace TO File('{d}/backup')",
        "RESTORE DATABASE headrace FROM File('{d}/backup')",
        "ATTACH TABLE x FROM '{d}' (a UInt8) ENGINE = MergeTree ORDER BY a",
        "SYSTEM SHUTDOWN",
        "SYSTEM KILL",
        "SYSTEM START LISTEN HTTP",
        "CREATE USER x",
        "GRANT READ ON FILE TO default",
        "CREATE NAMED COLLECTION x AS a = 1",
    ],
)
def test_other_doors_are_closed(endpoint: Any, tmp_path: Path, sql: str) -> None:
    reply = endpoint.request(sql.format(d=tmp_path))
    assert reply.status != 200, reply.text
    assert not list(tmp_path.iterdir())
    assert endpoint.run("SELECT 1") == "1"


@pytest.mark.parametrize(
    "setting",
    [
        "allow_introspection_functions = 1",
        "allow_experimental_eval_table_function = 1",
        "format_template_resultset = '/etc/hosts'",
        "format_template_row = '/etc/hosts'",
        "format_schema = '/etc/hosts:M'",
        "output_format_schema = '/tmp/x'",
        "additional_result_filter = '1'",
        "max_memory_usage = 0",
    ],
)
def test_no_setting_opens_a_door(endpoint: Any, setting: str) -> None:
    name, _, value = setting.partition(" = ")
    session = str(uuid.uuid4())
    assert endpoint.request(f"SET {setting}", session_id=session).code == 452
    assert endpoint.request(f"SELECT 1 SETTINGS {setting}").code == 452
    assert endpoint.request("SELECT 1", **{name: value.strip("'")}).code == 452
    assert endpoint.run("SET max_block_size = 5", session_id=session) == ""


def test_values_of_an_insert_do_not_read_files(endpoint: Any, database: str, secret: Path) -> None:
    endpoint.run("CREATE TABLE t (a String) ORDER BY a", database=database)
    for sql in (
        f"INSERT INTO t VALUES (file('{secret}'))",
        f"INSERT INTO t SETTINGS input_format_values_interpret_expressions = 1 VALUES (file('{secret}'))",
        f"INSERT INTO t VALUES ('{' ' * (2 << 20)}'), (file('{secret}'))",
    ):
        assert endpoint.request(sql, database=database).status != 200
        assert (
            endpoint.request(sql, database=database, input_format_values_interpret_expressions="1").status
            != 200
        )
    assert endpoint.run("SELECT count() FROM t", database=database) == "0"
    endpoint.run("INSERT INTO t VALUES (upper('x'))", database=database)
    # a mention of the word alone costs the expressions, not the literals
    endpoint.run("INSERT INTO t VALUES ('file(x)')", database=database)
    assert endpoint.run("SELECT a FROM t ORDER BY a", database=database) == "X\nfile(x)"


def test_infile_is_refused(endpoint: Any, database: str, secret: Path) -> None:
    endpoint.run("CREATE TABLE t (a String) ORDER BY a", database=database)
    for sql in (
        f"INSERT INTO t FROM INFILE '{secret}' FORMAT CSV",
        f"INSERT INTO t (a) FROM/**/INFILE '{secret}' COMPRESSION 'none' FORMAT CSV",
        f"INSERT INTO t FROM INFILE '{secret}'",
    ):
        assert endpoint.request(sql, database=database).code == 497
        assert endpoint.request(sql, body=b"", database=database).code == 497
    assert endpoint.run("SELECT count() FROM t", database=database) == "0"


def test_external_tables_do_not_read_files(endpoint: Any, secret: Path) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="x"; filename="x"\r\n\r\n1\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for structure in (f"a UInt8, b String DEFAULT file('{secret}')", f"a UInt8) AS SELECT file('{secret}'"):
        reply = endpoint.request("SELECT * FROM x", body=body, headers=headers, x_structure=structure)
        assert reply.status != 200 and "TOPSECRET" not in reply.text
    assert (
        endpoint.request("SELECT * FROM x", body=body, headers=headers, x_structure="a UInt8").text == "1\n"
    )


def test_columns_and_tables_named_like_the_words_still_work(endpoint: Any, database: str) -> None:
    endpoint.run(
        "CREATE TABLE file (file String, outfile String, engine String) ORDER BY file", database=database
    )
    endpoint.run(
        "INSERT INTO file (file, outfile, engine) VALUES ('into outfile', 'x', 'File')", database=database
    )
    sql = "SELECT file, outfile, engine FROM file WHERE engine = 'File' AND file LIKE '%into outfile%'"
    assert endpoint.run(sql, database=database) == "into outfile\tx\tFile"
