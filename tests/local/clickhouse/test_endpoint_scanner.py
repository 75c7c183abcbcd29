"""The SQL scanner and the guard: by example, by property, and against the engine's own lexer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.local.clickhouse import access
from headrace.local.clickhouse.errors import ClickHouseError, translate
from headrace.local.clickhouse.statement import Kind, analyse, quote, quote_name, tokens, unquote

#: Shared machines are slow at times, and the server fixture outlives a single example.
calm = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

HOSTILE = [
    "INTO OUTFILE '/x'",
    "FORMAT CSV",
    "VALUES (1)",
    "; DROP",
    "file('/x')",
    "'",
    "\\",
    "--",
    "/*",
    "*/",
    "`",
]
ANY_TEXT = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=6)), max_size=6).map("".join)
PIECES = st.lists(
    st.sampled_from(
        [
            "select",
            "file",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "'",
            '"',
            "`",
            "\\",
            "--",
            "/*",
            "*/",
            "#",
            "#!",
            "#x",
            "$",
            "$a$",
            "$$",
            "INTO",
            "OUTFILE",
            "FROM",
            "INFILE",
            "FORMAT",
            "CSV",
            ";",
            ",",
            ".",
            "1",
            "1.5",
            "1e5",
            "0x1F",
            "1abc",
            "a",
            "a$b",
            "_b",
            "‘",
            "’",
            "“",
            "”",
            "é",
            "@",
            "@@",
            "||",
            "::",
            "->",
            "?",
            "=",
            "==",
            "<>",
            "%",
            "^",
            "&",
            "!",
            "~",
            "\n",
            " ",
            "\t",
            "\xa0",
            "\\'",
            "''",
            '""',
            "``",
            "\x00",
            "\ufeff",
        ]
    ),
    max_size=14,
).map("".join)


@pytest.mark.parametrize(
    ("sql", "kind", "format_name", "head"),
    [
        ("SELECT 1", Kind.READ, None, "SELECT 1"),
        ("  -- c\n select 1 format JSON ; ", Kind.READ, "JSON", "  -- c\n select 1 "),
        ("(SELECT 1)", Kind.READ, None, "(SELECT 1)"),
        ("WITH 1 AS x SELECT x FORMAT CSV SETTINGS a = 1", Kind.READ, "CSV", "WITH 1 AS x SELECT x "),
        (
            "SELECT format(CSV, 'a'), t.format csv FROM t",
            Kind.READ,
            None,
            "SELECT format(CSV, 'a'), t.format csv FROM t",
        ),
        ("SELECT 'FORMAT CSV'", Kind.READ, None, "SELECT 'FORMAT CSV'"),
        ("SELECT (SELECT 1 FORMAT CSV)", Kind.READ, None, "SELECT (SELECT 1 FORMAT CSV)"),
        ("SHOW TABLES FORMAT CSV", Kind.COMMAND, "CSV", "SHOW TABLES "),
        ("CREATE TABLE t (a Int8)", Kind.COMMAND, None, "CREATE TABLE t (a Int8)"),
        ("INSERT INTO t SELECT 1", Kind.COMMAND, None, "INSERT INTO t SELECT 1"),
        ("INSERT INTO t (SELECT 1)", Kind.COMMAND, None, "INSERT INTO t (SELECT 1)"),
        (
            "INSERT INTO t (a) (WITH 1 AS x SELECT x)",
            Kind.COMMAND,
            None,
            "INSERT INTO t (a) (WITH 1 AS x SELECT x)",
        ),
        ("WITH 1 AS x INSERT INTO t SELECT x", Kind.COMMAND, None, "WITH 1 AS x INSERT INTO t SELECT x"),
        ("INSERT INTO t VALUES (1); not sql '", Kind.INSERT, "Values", "INSERT INTO t "),
        ("insert into t (a, `values`) format TSV\n1\t'", Kind.INSERT, "TSV", "insert into t (a, `values`) "),
        ("INSERT INTO db.values FORMAT CSV\n1", Kind.INSERT, "CSV", "INSERT INTO db.values "),
        ("INSERT INTO t SETTINGS a = 1 FORMAT CSV 1", Kind.INSERT, "CSV", "INSERT INTO t SETTINGS a = 1 "),
        ("INSERT INTO t", Kind.INSERT, None, "INSERT INTO t"),
    ],
)
def test_statements(sql: str, kind: Kind, format_name: str | None, head: str) -> None:
    found = analyse(sql)
    assert (found.kind, found.format, found.head) == (kind, format_name, head)


@pytest.mark.parametrize("sql", ["", " ", "-- x", "/* x", ";", "(", "SELECT 1; SELECT 2", "SELECT 1;; x"])
def test_not_one_statement(sql: str) -> None:
    with pytest.raises(ClickHouseError) as raised:
        access.check(analyse(sql)) if sql != ";" else analyse(sql + " x")
    assert raised.value.code == 62


@calm
@given(ANY_TEXT, ANY_TEXT)
def test_literals_names_and_comments_hide_everything(text: str, other: str) -> None:
    comment = text.replace("*/", "").replace("/*", "").rstrip("*/")
    sql = f"SELECT {quote(text)} AS {quote_name(other)} /*{comment}*/ FROM t FORMAT JSON"
    found = analyse(sql)
    assert (found.kind, found.format) == (Kind.READ, "JSON")
    literal, name = found.tokens[1], found.tokens[3]
    assert unquote(literal.text) == text
    assert name.name == other
    assert [token.text for token in found.tokens[4:]] == ["FROM", "t", "FORMAT", "JSON"]


@calm
@given(st.text() | PIECES)
def test_tokens_cover_the_text_in_order(sql: str) -> None:
    end = 0
    for token in tokens(sql):
        assert end <= token.start < token.end and sql[token.start : token.end] == token.text
        end = token.end
    assert end <= len(sql)


@calm
@given(ANY_TEXT, st.binary(max_size=40))
def test_data_of_an_insert_is_found_byte_by_byte(name: str, data: bytes) -> None:
    head = f"INSERT INTO {quote_name(name)} FORMAT RowBinary"
    sql = head.encode("utf-8", "surrogateescape") + b"\n" + data
    text = sql.decode("utf-8", "surrogateescape")
    found = analyse(text)
    assert found.format == "RowBinary"
    assert text[found.data_at :].encode("utf-8", "surrogateescape") == b"\n" + data


@calm
@given(sql=PIECES)
def test_the_scanner_agrees_with_the_engines_lexer(endpoint: Any, sql: str) -> None:
    """Where they differ, a keyword could hide from the access. What the lexer refuses does not count."""
    text = endpoint.run("SELECT tokenizeQuery({q:String}) FORMAT JSONCompactEachRow", param_q=_parameter(sql))
    names = {"BareWord": "word", "QuotedIdentifier": "quoted", "StringLiteral": "string", "HereDoc": "string"}
    theirs = [
        tuple(token.values()) if isinstance(token, dict) else tuple(token) for token in json.loads(text)[0]
    ]
    if any("Error" in kind for _, _, kind in theirs):
        return
    offsets = [0]
    for character in sql:
        offsets.append(offsets[-1] + len(character.encode()))
    ours = [(offsets[t.start], offsets[t.end], t.kind) for t in tokens(sql) if t.kind in names.values()]
    words = [(int(start), int(end), names[kind]) for start, end, kind in theirs if kind in names]
    # what begins with a digit or runs on from a number is one token to the scanner, whatever the lexer says
    data = b" " + sql.encode()
    joined = re.compile(rb"\w|[^\w][0-9]")
    ours, words = ([w for w in ws if w[2] != "word" or not joined.match(data, w[0])] for ws in (ours, words))
    assert ours == words


def _parameter(value: str) -> str:
    """A query parameter is read as a TSV field."""
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\0", "\\0")):
        value = value.replace(plain, escaped)
    return value


@calm
@given(
    st.sampled_from([" ", "\n", "/**/", "-- x\n", "/* OUTFILE */", "\t#! x\n"]),
    st.sampled_from(["INTO", "into", "InTo"]),
)
def test_outfile_is_seen_through_space_and_case(gap: str, word: str) -> None:
    with pytest.raises(ClickHouseError):
        access.check(analyse(f"SELECT t.1{word}{gap}OutFile{gap}'/x'"))
    with pytest.raises(ClickHouseError):
        access.check(analyse(f"SELECT 1{gap}{word}{gap}OutFile{gap}'/x'"))


@calm
@given(ANY_TEXT)
def test_the_guard_lets_literals_pass(text: str) -> None:
    if "file" not in text:
        access.check(
            analyse(f"SELECT {quote(text)}, a AS {quote_name(text)} FROM t WHERE engine = {quote(text)}")
        )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT file FROM logs WHERE file LIKE '%file(%' GROUP BY file",
        "INSERT INTO file (a) SELECT 1",
        "CREATE TABLE file (a UInt8) ENGINE = ReplacingMergeTree(v) ORDER BY a",
        "CREATE TABLE IF NOT EXISTS db.file (a UInt8) ENGINE MergeTree ORDER BY a",
        "CREATE VIEW v AS SELECT engine AS kind FROM system.tables",
        "CREATE OR REPLACE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(CLICKHOUSE(TABLE 't')) LAYOUT(FLAT())",
        "CREATE DATABASE d ENGINE = Atomic",
        "SELECT countIf(engine = 'File') FROM system.tables",
    ],
)
def test_the_guard_lets_ordinary_statements_pass(sql: str) -> None:
    access.check(analyse(sql))


@pytest.mark.parametrize(
    ("text", "code", "shown"),
    [
        (
            "Query failed: Code: 60. DB::Exception: no t. (UNKNOWN_TABLE)",
            60,
            "Code: 60. DB::Exception: no t.",
        ),
        (
            "Code: 62. DB::Exception: Code: 62. DB::Exception: x. (SYNTAX_ERROR)",
            62,
            "Code: 62. DB::Exception: x.",
        ),
        ("something else", 49, "Code: 49. DB::Exception: something else."),
    ],
)
def test_engine_errors_are_translated(text: str, code: int, shown: str) -> None:
    error = translate(RuntimeError(text), "1.2.3")
    assert error.code == code and error.text.startswith(shown)
