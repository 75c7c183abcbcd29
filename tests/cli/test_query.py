"""``headrace query``: answers as people or programs want them, and what is missing explained."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from commands import run
from conftest import Stack
from headrace.cli.query import own_format
from headrace.cli.table import fitted, show

ROWS = "SELECT number AS n, concat('a,', toString(number)) AS s FROM numbers(2)"


def asked(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "AWS_"))}
    return run("query", *arguments, env={**clean, **env})


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT 1 FORMAT CSV", "CSV"),
        ("SELECT 1\nformat TabSeparated ;  -- as TSV", "TabSeparated"),
        ("SELECT 1 FORMAT JSON SETTINGS max_threads = 1", "JSON"),
        ("SELECT 1 SETTINGS max_threads = 1 FORMAT Vertical", "Vertical"),
        ("SELECT 'x FORMAT CSV'", None),
        ("SELECT 1 -- FORMAT CSV", None),
        ("SELECT 1 /* FORMAT CSV */", None),
        ("SELECT format FROM t", None),
        ("SELECT 1 AS format", None),
        ("SELECT * FROM t WHERE format = 'CSV'", None),
        ("SELECT * FROM t ORDER BY format LIMIT 5", None),
        ("SELECT * FROM t ORDER BY format DESC", None),
        ("SELECT format('{}', a) FROM t", None),
        ("SELECT * FROM (SELECT 1 AS format) AS x", None),
        ("SELECT `FORMAT CSV` FROM t", None),
        ("SELECT 'unfinished FORMAT CSV", None),
    ],
)
def test_a_format_clause_is_found_where_it_is_one(sql: str, found: str | None) -> None:
    assert own_format(sql) == found


def test_answers_come_in_the_format_that_is_asked_for(stack: Stack, tmp_path: Path) -> None:
    env = stack.environment

    def answer(*arguments: str) -> str:
        done = asked(*arguments, env=env)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode()

    assert answer(ROWS, "--format", "csv") == '"n","s"\n0,"a,0"\n1,"a,1"\n'
    assert answer(ROWS, "--format", "tsv") == "n\ts\n0\ta,0\n1\ta,1\n"
    assert answer(f"{ROWS};") == answer(ROWS)
    assert [json.loads(line) for line in answer(ROWS, "--format", "ndjson").splitlines()] == json.loads(
        answer(ROWS, "--json")
    )
    assert answer(f"{ROWS} FORMAT CSV") == '0,"a,0"\n1,"a,1"\n'
    done = asked("SELECT number AS n FROM numbers(100000)", "--format", "parquet", env=env)
    found = pl.read_parquet(io.BytesIO(done.stdout))
    assert (found.height, found["n"].max()) == (100_000, 99_999)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["SELECT 1 FORMAT CSV", "--format", "tsv"], "the SQL ends in FORMAT CSV; leave it away, or the option"),
        (["SELECT 1", "--json", "--format", "csv"], "--json and --format csv exclude each other"),
        (["SELECT throwIf(number = 99999) FROM numbers(100000)", "--format", "csv"], "Code: 395"),
        (["CREATE DATABASE sneaky", "--format", "csv"], "refused"),
        (["CREATE DATABASE sneaky FORMAT CSV"], "refused"),
        (["SELECT * FROM analytics_q.event_metrics"], "the model analytics_q.event_metrics is not built yet: "),
        (["SELECT * FROM analytics_q.event_metric"], "did you mean analytics_q.event_metrics?"),
        (["SELECT * FROM raw_q.events"], "raw_q.events is not there yet: nothing has been published"),
        (["SELECT * FROM raw_q.evnts"], "did you mean raw_q.events?"),
        (["SELECT nothing FROM system.one"], "Code: 47"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line_and_no_half_answer(
    stack: Stack, arguments: list[str], said: str
) -> None:
    env = {**stack.environment, "HEADRACE_DBT_SCHEMA": "analytics_q", "HEADRACE_RAW_DATABASE": "raw_q"}
    done = asked(*arguments, env=env)
    assert (done.returncode, done.stdout) == (1, b"")
    [line] = done.stderr.decode().splitlines()
    assert said in line


def on_a_terminal(*arguments: str, columns: int, env: dict[str, str]) -> str:
    """What a terminal of that width shows."""
    ours, theirs = pty.openpty()
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "AWS_", "COLUMNS"))}
    clean |= {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(columns)}
    with subprocess.Popen(
        [sys.executable, "-m", "headrace.cli", "query", *arguments],
        env={**clean, **env},
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # how Linux says that nobody has the other end any more
                break
            if not part:
                break
            shown += part
        process.wait()
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode().replace("\r\n", "\n"))


def test_a_terminal_is_shown_what_it_can_show(stack: Stack) -> None:
    shown = on_a_terminal("SELECT repeat('x', 100) AS long, 12345 AS n", columns=80, env=stack.environment)
    assert max(map(cell_len, shown.splitlines())) <= 80
    assert "x…" in shown
    assert "12345" in shown
    assert "1 row" in shown
    wide = ", ".join(f"'value {n}' AS column_number_{n}" for n in range(12))
    shown = on_a_terminal(f"SELECT {wide}", columns=80, env=stack.environment)
    assert "column_number_11 value 11" in shown
    refused = on_a_terminal("SELECT 1", "--format", "parquet", columns=80, env=stack.environment)
    assert "Parquet is nothing that a terminal can show" in refused


def shown_in(width: int, names: list[str], rows: list[tuple[object, ...]]) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    show(console, names, rows)
    return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=12), st.integers(20, 200))
def test_columns_fit_or_are_not_columns(natural: list[int], width: int) -> None:
    widths = fitted(natural, width)
    if widths is None:
        assert sum(min(one, 14) for one in natural) + 3 * len(natural) + 1 > width
    else:
        assert sum(widths) + 3 * len(widths) + 1 <= width
        assert all(one == was or 14 <= one < was for one, was in zip(widths, natural, strict=True))


@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), min_size=1, max_size=6),
    st.integers(40, 120),
)
def test_no_line_is_longer_than_the_terminal(cells: list[str], width: int) -> None:
    names = [f"column_{place}" for place in range(len(cells))]
    assert max(map(cell_len, shown_in(width, names, [tuple(cells)]))) <= width


def test_elsewhere_nothing_is_cut() -> None:
    console = Console(file=io.StringIO(), width=80)
    show(console, ["a", "b"], [("x" * 200, None)])
    said = str(console.file.getvalue())  # type: ignore[attr-defined]
    assert "x" * 200 in said
    assert "NULL" in said
    assert "row" not in said
