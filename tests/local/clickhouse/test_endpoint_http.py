"""The HTTP interface itself, spoken byte by byte: statements, credentials, sessions, settings, errors."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import threading
import uuid
from typing import Any

import pytest


def test_ping_and_replicas_status_need_no_credentials(endpoint: Any) -> None:
    for path in ("/ping", "/replicas_status"):
        connection = endpoint.connection()
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"Ok.\n")
        connection.close()


def test_statement_in_url_in_body_and_across_both(endpoint: Any) -> None:
    assert endpoint.run("SELECT 1 + 1") == "2"
    assert endpoint.request("SELECT 3", method="GET").text == "3\n"
    assert endpoint.request("SELECT", body=b"1 + 3").text == "4\n"
    assert endpoint.request("SELECT 5;").text == "5\n"
    assert endpoint.request(None, body=b"").text == "Ok.\n"


def test_a_client_that_names_no_database_lands_in_the_working_one(endpoint: Any, database: str) -> None:
    assert endpoint.run("SELECT currentDatabase()") == "headrace"
    assert endpoint.run("SELECT currentDatabase()", database="default") == "headrace"
    assert endpoint.run("SELECT currentDatabase()", database=database) == database
    reply = endpoint.request("SELECT currentDatabase()", headers={"X-ClickHouse-Database": database})
    assert reply.text.strip() == database
    assert endpoint.run("SELECT engine FROM system.databases WHERE name = 'headrace'") == "Atomic"
    assert endpoint.request("SELECT 1", database="absent").code == 81


def test_formats(endpoint: Any) -> None:
    reply = endpoint.request("SELECT 1 AS a", default_format="JSONEachRow")
    assert (reply.text, reply.headers["x-clickhouse-format"]) == ('{"a":1}\n', "JSONEachRow")
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    reply = endpoint.request(
        "SELECT 1 AS a FORMAT CSVWithNames SETTINGS max_threads = 1", default_format="JSON"
    )
    assert reply.text == '"a"\n1\n'
    reply = endpoint.request("SELECT 1 AS a", headers={"X-ClickHouse-Format": "TSVWithNames"})
    assert reply.text == "a\n1\n"
    assert json.loads(endpoint.run("SHOW DATABASES FORMAT JSON"))["rows"] >= 2
    assert endpoint.request("SELECT 1", default_format="CSV SETTINGS x=1").code == 73


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1", 400, 62),
        ("", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT nothing", 404, 47),
        ("SELECT * FROM nothing", 404, 60),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT toUInt8('x')", 400, 6),
        ("INSERT INTO nothing VALUES (1)", 404, 60),
        ("CREATE TABLE x (a Int8", 400, 62),
        ("INSERT INTO x", 400, 62),
    ],
)
def test_an_error_before_the_stream_has_its_own_status(
    endpoint: Any, sql: str, status: int, code: int
) -> None:
    reply = endpoint.request(sql or " -- nothing")
    assert (reply.status, reply.code) == (status, code)
    assert reply.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "OUTFILE '" not in reply.text and "/proc/" not in reply.text


def test_an_error_in_mid_stream_is_marked_with_the_announced_tag(endpoint: Any) -> None:
    sql = "SELECT number, throwIf(number = 3000000, 'late') FROM numbers(4000000)"
    reply = endpoint.request(sql, max_block_size="65536", max_threads="1")
    assert reply.status == 200
    tag = reply.headers["x-clickhouse-exception-tag"]
    _, marker, end = reply.text.partition(f"\r\n__exception__\r\n{tag}\r\n")
    assert marker and "Code: 395" in end and "late" in end
    message, _, closing = end.rpartition(f" {tag}\r\n__exception__\r\n")
    text, _, size = message.rpartition("\n")
    assert len(text.encode()) + 1 == int(size) and closing == ""
    # the same error, waited for, has its own status
    reply = endpoint.request(sql, wait_end_of_query="1", max_block_size="65536")
    assert (reply.status, reply.code) == (500, 395)


def test_wait_end_of_query_spools_inside_the_data_folder(endpoint: Any) -> None:
    reply = endpoint.request("SELECT number FROM numbers(5000000)", wait_end_of_query="1")
    assert reply.body.count(b"\n") == 5_000_000
    assert reply.summary["read_rows"] == 5_000_000


def test_query_id_and_summary(endpoint: Any) -> None:
    wanted = str(uuid.uuid4())
    reply = endpoint.request("SELECT sum(number) FROM numbers(1000)", query_id=wanted)
    assert reply.headers["x-clickhouse-query-id"] == wanted
    assert (reply.summary["read_rows"], reply.summary["result_rows"]) == (1000, 1)
    assert uuid.UUID(endpoint.request("SELECT 1").headers["x-clickhouse-query-id"])
    hostile = endpoint.request("SELECT 1", query_id="a\r\nSet-Cookie: b")
    assert "set-cookie" not in hostile.headers


def test_query_parameters(endpoint: Any) -> None:
    sql = "SELECT {a:UInt8} + 1, {b:String}, {c:Array(String)}"
    reply = endpoint.request(sql, param_a="1", param_b="x'y\\tz", param_c="['p','q']")
    assert reply.text == "2\tx\\'y\\tz\t['p','q']\n"
    assert endpoint.request("SELECT {a:UInt8}").code == 456
    assert endpoint.request("SELECT {a:UInt8}", param_a="x").status == 400


def test_settings_of_the_url_last_for_their_request(endpoint: Any) -> None:
    sql = "SELECT getSetting('max_block_size')"
    usual = endpoint.run(sql)
    session = str(uuid.uuid4())
    assert endpoint.run(sql, max_block_size="77") == "77"
    assert endpoint.run(sql) == usual
    assert endpoint.run(sql, max_block_size="77", session_id=session) == "77"
    assert endpoint.run(sql, session_id=session) == usual
    endpoint.run("SET max_block_size = 88", session_id=session, max_block_size="77")
    assert endpoint.run(sql, session_id=session) == "88"
    assert endpoint.run(sql, session_id=session, max_block_size="99") == "99"
    assert endpoint.run(sql, session_id=session) == "88"


@pytest.mark.parametrize("name", ["no_such_setting", "a-b", "a b", "x; DROP"])
def test_an_unknown_parameter_is_an_unknown_setting(endpoint: Any, name: str) -> None:
    reply = endpoint.request("SELECT 1", **{name: "1"})
    assert (reply.status, reply.code) == (404, 115)


def test_sessions_keep_settings_database_and_temporary_tables(endpoint: Any, database: str) -> None:
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    endpoint.run("CREATE TEMPORARY TABLE mine (a UInt8)", session_id=one)
    endpoint.run("INSERT INTO mine VALUES (7)", session_id=one)
    endpoint.run(f"USE {database}", session_id=one)
    assert endpoint.run("SELECT a FROM mine", session_id=one) == "7"
    assert endpoint.run("SELECT currentDatabase()", session_id=one) == database
    names = "SELECT count() FROM system.tables WHERE is_temporary AND name = 'mine'"
    assert endpoint.run(names, session_id=one) == "1"
    for stranger in ({"session_id": other}, {}):
        assert endpoint.request("SELECT a FROM mine", **stranger).code == 60
        assert endpoint.run(names, **stranger) == "0"
        assert endpoint.run("SELECT currentDatabase()", **stranger) == "headrace"


def test_a_session_can_be_required_closed_and_has_a_longest_timeout(endpoint: Any) -> None:
    session = str(uuid.uuid4())
    assert endpoint.request("SELECT 1", session_id=session, session_check="1").code == 372
    endpoint.run("SELECT 1", session_id=session, session_timeout="5")
    assert endpoint.run("SELECT 1", session_id=session, session_check="1", close_session="1") == "1"
    assert endpoint.request("SELECT 1", session_id=session, session_check="1").code == 372
    assert endpoint.request("SELECT 1", session_id=session, session_timeout="100000").code == 374
    assert endpoint.request("SELECT 1", session_id=session, session_timeout="soon").code == 374


def test_an_idle_session_expires(endpoint: Any, eventually: Any) -> None:
    session = str(uuid.uuid4())
    endpoint.run("CREATE TEMPORARY TABLE old (a UInt8)", session_id=session, session_timeout="0")
    # another session's arrival is what clears out the old ones
    assert eventually(lambda: endpoint.request("SELECT 1", session_id=session, session_check="1").code == 372)


def test_a_busy_session_is_locked(endpoint: Any, eventually: Any) -> None:
    session = str(uuid.uuid4())
    connection = endpoint.connection()
    sql = f"SELECT sleepEachRow(1) FROM numbers(60) -- {session}"
    target = f"/?session_id={session}&max_block_size=1"
    connection.request("POST", target, sql.encode(), endpoint.credentials())
    eventually(lambda: endpoint.request("SELECT 1", session_id=session).code == 373)
    connection.close()
    assert eventually(lambda: endpoint.request("SELECT 1", session_id=session).status == 200)


def test_external_tables(endpoint: Any) -> None:
    boundary = "b0undary"
    parts = [("one", b"1,a\n2,b\n"), ("two", b"3\n")]
    body = b"".join(
        b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n\r\n%b\r\n'
        % (boundary.encode(), name.encode(), name.encode(), data)
        for name, data in parts
    )
    body += b"--%b--\r\n" % boundary.encode()
    sql = "SELECT (SELECT sum(id) FROM one), (SELECT sum(_1) FROM two)"
    given = {"one_structure": "id UInt8, s String", "one_format": "CSV", "two_types": "UInt16"}
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    session = str(uuid.uuid4())
    for extra in ({}, {"session_id": session}, {"session_id": session}):
        reply = endpoint.request(sql, body=body, headers=headers, **given, **extra)
        assert reply.text == "3\t3\n"
    reply = endpoint.request(sql, body=body, headers=headers, two_types="UInt16")
    assert (reply.status, reply.code) == (400, 36)


@pytest.mark.parametrize("way", ["headers", "basic", "url"])
def test_authentication(endpoint: Any, way: str) -> None:
    from urllib.parse import urlencode

    def status(user: str, password: str) -> tuple[int, str]:
        import base64

        headers, query = {}, ""
        if way == "headers":
            headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password.encode().decode("latin-1")}
        elif way == "basic":
            headers = {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
        else:
            query = urlencode({"user": user, "password": password})
        connection = endpoint.connection()
        connection.request("POST", f"/?{query}", b"SELECT 'in'", headers)
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer

    assert status(endpoint.user, endpoint.password) == (200, "in\n")
    for user, password in [(endpoint.user, "wrong"), (endpoint.user, ""), ("default", ""), ("", "")]:
        refused, text = status(user, password)
        assert refused == 403 and "Code: 516" in text and "in\n" not in text


def test_no_credentials_and_damaged_ones_are_refused(endpoint: Any) -> None:
    for headers in ({}, {"Authorization": "Basic !!"}, {"Authorization": "Bearer x"}):
        connection = endpoint.connection()
        connection.request("POST", "/", b"SELECT 1", headers)
        response = connection.getresponse()
        assert (response.status, response.getheader("X-ClickHouse-Exception-Code")) == (403, "516")
        response.read()
        connection.close()


def test_get_is_read_only(endpoint: Any, database: str) -> None:
    session = str(uuid.uuid4())
    for extra in ({}, {"session_id": session}):
        reply = endpoint.request(f"CREATE TABLE {database}.t (a UInt8) ORDER BY a", method="GET", **extra)
        assert reply.code == 164
        assert endpoint.request("SHOW DATABASES", method="GET", **extra).status == 200
        assert endpoint.request("SELECT 1", method="GET", max_threads="1", **extra).text == "1\n"
        # nor can it say otherwise
        sql = f"CREATE TABLE {database}.t (a UInt8) ORDER BY a"
        assert endpoint.request(sql, method="GET", readonly="0", **extra).code == 164
    assert endpoint.request(f"CREATE TABLE {database}.t (a UInt8) ORDER BY a", readonly="1").code == 164
    assert (
        endpoint.run("SELECT count() FROM system.tables WHERE database = {d:String}", param_d=database) == "0"
    )
    endpoint.run(f"CREATE TABLE {database}.t (a UInt8) ORDER BY a", session_id=session)


def test_keep_alive_survives_errors_with_unread_bodies(endpoint: Any) -> None:
    connection = endpoint.connection()
    for _ in range(3):
        body = b"INSERT INTO absent FORMAT CSV\n" + b"1\n" * 3_000_000
        connection.request("POST", "/", body, endpoint.credentials())
        response = connection.getresponse()
        assert response.status == 404 and b"Code: 60" in response.read()
        connection.request("POST", "/", b"SELECT 1", endpoint.credentials())
        assert connection.getresponse().read() == b"1\n"
    connection.close()


def test_inserts_of_every_shape(endpoint: Any, database: str) -> None:
    endpoint.run("CREATE TABLE t (a UInt8) ORDER BY a", database=database)
    for sql in (
        "INSERT INTO t VALUES (1), (1 + 1);",
        "INSERT INTO t (a) SELECT 1",
        "INSERT INTO t (SELECT 1)",
        "INSERT INTO t WITH 1 AS x SELECT x",
        "WITH 1 AS x INSERT INTO t SELECT x",
        '/* a /* b */ */ INSERT INTO t FORMAT JSONEachRow\n{"a": 1}',
        "INSERT INTO t FORMAT TSV\r\n1\n",
        "INSERT INTO t FORMAT CSV 1",
    ):
        before = int(endpoint.run("SELECT count() FROM t", database=database))
        endpoint.run(sql, database=database)
        assert int(endpoint.run("SELECT count() FROM t", database=database)) > before, sql
    assert (
        endpoint.request("INSERT INTO t", body=b"1\n", database=database, default_format="CSV").status == 200
    )
    assert endpoint.request("INSERT INTO t VALUES", body=b"(9)", database=database).status == 200
    assert endpoint.run("SELECT max(a), count() FROM t", database=database) == "9\t11"


def test_a_cut_insert_adds_nothing(endpoint: Any, database: str, eventually: Any) -> None:
    endpoint.run(f"CREATE TABLE {database}.t (a UInt32) ORDER BY a")
    head = "&".join(["database=" + database, "query=INSERT%20INTO%20t%20FORMAT%20TSV"])
    lines = [f"POST /?{head} HTTP/1.1", "Host: x", *(f"{n}: {v}" for n, v in endpoint.credentials().items())]
    for framing, data in [
        ("Content-Length: 1000000", b"1\n" * 1000),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (2000, b"1\n" * 1000)),
    ]:
        with socket.create_connection(("127.0.0.1", endpoint.port), 10) as client:
            client.sendall("\r\n".join([*lines, framing, "", ""]).encode() + data)
            client.shutdown(socket.SHUT_WR)
            client.recv(1000)
    eventually(
        lambda: endpoint.run("SELECT count() FROM system.processes WHERE query ILIKE 'INSERT%'") == "0"
    )
    assert endpoint.run(f"SELECT count() FROM {database}.t") == "0"
    assert endpoint.request("INSERT INTO t FORMAT TSV", body=b"1\n" * 1000, database=database).status == 200
    assert endpoint.run(f"SELECT count() FROM {database}.t") == "1000"


def test_an_insert_that_was_killed_is_not_called_done(endpoint: Any, database: str, eventually: Any) -> None:
    endpoint.run(f"CREATE TABLE {database}.t (a UInt32, s UInt8 DEFAULT sleepEachRow(0.01)) ORDER BY a")
    found: list[tuple[int, int]] = []

    def insert() -> None:
        answer = endpoint.request(
            "INSERT INTO t (a) FORMAT TSV", body=b"1\n" * 3_000, database=database, max_insert_block_size="50",
            min_insert_block_size_rows="50", input_format_parallel_parsing="0",
        )  # fmt: skip
        found.append((answer.status, answer.code))

    inserting = threading.Thread(target=insert)
    inserting.start()
    running = (
        f"SELECT count() FROM system.processes WHERE query LIKE 'INSERT%' AND current_database = '{database}'"
    )
    eventually(lambda: endpoint.run(running) == "1")
    endpoint.run(f"KILL QUERY WHERE current_database = '{database}' AND query LIKE 'INSERT%' ASYNC")
    inserting.join(60)
    assert found and found[0][1] == 394
    assert int(endpoint.run(f"SELECT count() FROM {database}.t")) < 3_000, "the kill came in time"
    assert endpoint.request("INSERT INTO t VALUES (2, 0)", database=database).status == 200, (
        "later ones are done"
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(endpoint: Any, database: str) -> None:
    def curl(*arguments: str, data: bytes = b"") -> bytes:
        url = f"http://127.0.0.1:{endpoint.port}/?database={database}"
        login = ["-u", f"{endpoint.user}:{endpoint.password}"]
        found = subprocess.run(
            ["curl", "-sS", *login, url, *arguments], input=data, capture_output=True, timeout=30
        )
        assert not found.stderr, found.stderr
        return found.stdout

    assert curl("-d", "SELECT 1") == b"1\n"
    assert curl("-G", "--data-urlencode", "query=SELECT 2") == b"2\n"
    assert curl("--data-urlencode", "query=SELECT 3") == b"3\n"
    curl("-d", "CREATE TABLE t (a UInt32, s String) ORDER BY a")
    curl("--data-binary", "@-", data=b"INSERT INTO t FORMAT CSV\n" + b'1,"x"\n' * 200_000)  # sends Expect
    curl("-H", "Transfer-Encoding: chunked", "--data-binary", "@-", data=b"INSERT INTO t VALUES (2, 'a;b')")
    assert curl("-d", "SELECT count(), max(s) FROM t") == b"200001\tx\n"
    assert curl("-d", "SELECT s FROM t WHERE a = 2") == b"a;b\n"
    assert b"Code: 62" in curl("-d", "SELECT")


def test_chunked_request_and_response(endpoint: Any, database: str) -> None:
    endpoint.run(f"CREATE TABLE {database}.t (a UInt32) ORDER BY a")
    pieces = (b"1\n" * 50_000 for _ in range(4))
    reply = endpoint.request("INSERT INTO t FORMAT TSV", body=pieces, database=database)
    assert reply.status == 200 and reply.summary["written_rows"] == 200_000
    response: http.client.HTTPResponse
    connection = endpoint.connection()
    connection.request("POST", f"/?database={database}", b"SELECT * FROM t", endpoint.credentials())
    response = connection.getresponse()
    assert response.read().count(b"\n") == 200_000
    connection.close()
