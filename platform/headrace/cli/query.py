"""Command ``headrace query``: query the warehouse, and print the answer for people or programs."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.shared import Json, console
from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from headrace.config.settings import Settings
    from headrace.warehouse.server import Refused

#: Words that may follow a name FORMAT, as in ``SELECT format FROM t``, and are no formats.
_NO_FORMATS = re.compile(
    "AND|AS|ASC|DESC|EXCEPT|FROM|GROUP|HAVING|IN|INTERSECT|INTO|IS|JOIN|LEFT|LIKE|LIMIT|OFFSET|ON|OR|ORDER"
    "|PREWHERE|QUALIFY|SAMPLE|SETTINGS|THEN|UNION|USING|WHERE|WINDOW",
    re.IGNORECASE,
)
#: Formats that a terminal cannot show.
_BINARY = re.compile(
    r"parquet|orc|avro\w*|arrow\w*|native|rowbinary\w*|msgpack|protobuf\w*|capnproto|bsoneachrow|npy|buffers"
    r"|rawblob|mysqlwire|postgresqlwire|odbcdriver2",
    re.IGNORECASE,
)
_NAMES = re.compile(r"[`'\"]?(\w+)[`'\"]?\.[`'\"]?(\w+)[`'\"]?")


class Format(StrEnum):
    """Format of a printed answer."""

    table = "table"
    json = "json"
    ndjson = "ndjson"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"


_SERVER_FORMATS = {
    Format.ndjson: "JSONEachRow",
    Format.csv: "CSVWithNames",
    Format.tsv: "TabSeparatedWithNames",
    Format.parquet: "Parquet",
}


def query(
    sql: Annotated[str, typer.Argument(help="ClickHouse SQL; read only. May end in a FORMAT clause.")],
    format: Annotated[
        Format | None, typer.Option("--format", help="How to print the answer; default: a table.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Query the warehouse."""
    from headrace.config.settings import settings
    from headrace.warehouse.clickhouse import ClickHouse
    from headrace.warehouse.server import Refused

    if as_json and format not in (None, Format.json):
        raise Fatal(f"--json and --format {format} exclude each other")
    asked = Format.json if as_json else format
    own = own_format(sql)
    if own and asked:
        raise Fatal(f"the SQL ends in FORMAT {own}; leave it away, or the option")
    name = own or _SERVER_FORMATS.get(asked or Format.table)
    if name and _BINARY.fullmatch(name) and sys.stdout.isatty():
        raise Fatal(
            f"{name} is nothing that a terminal can show; send it to a file: headrace query ... > FILE"
        )
    config = settings().with_warehouse()
    warehouse = ClickHouse(config)
    try:
        if name:
            # a format in the statement must not be named again
            _copy(warehouse.stream(sql.rstrip().rstrip(";"), None if own else name))
            return
        names, rows = warehouse.read_only(sql)
    except Refused as error:
        raise _explained(error, sql, config) from error
    finally:
        warehouse.close()
    if asked is Format.json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=str))
        return
    from headrace.cli.table import show

    show(console, names, rows)


def own_format(sql: str) -> str | None:
    """Return the format of a statement's own FORMAT clause; None without one."""
    if "format" not in sql.lower():
        return None
    from sqlglot import TokenType
    from sqlglot.dialects.clickhouse import ClickHouse
    from sqlglot.errors import TokenError

    try:
        tokens = ClickHouse().tokenize(sql)
    except TokenError:
        return None  # the server reports the error
    depth, words = 0, []
    for token in tokens:
        if token.token_type is TokenType.SEMICOLON:
            continue
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        quoted = token.token_type in (TokenType.STRING, TokenType.IDENTIFIER)
        words.append("" if depth or quoted else token.text)
    for place in range(len(words) - 2, -1, -1):
        word, name, after = words[place], words[place + 1], words[place + 2 : place + 3]
        if word.upper() == "FORMAT" and re.fullmatch(r"[A-Za-z]\w*", name):
            ends = not after or after[0].upper() == "SETTINGS"
            return name if ends and not _NO_FORMATS.fullmatch(name) else None
    return None


def _copy(parts: Iterable[bytes]) -> None:
    """Copy bytes to standard output. A reader may close it early, as ``head`` does."""
    try:
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explained(error: Refused, sql: str, config: Settings) -> Fatal:
    """Explain a missing table: whether the name is wrong, or when it will exist."""
    from headrace.warehouse.server import UNKNOWN_DATABASE, UNKNOWN_TABLE

    if error.code not in (UNKNOWN_TABLE, UNKNOWN_DATABASE):
        return error
    # for a missing database, the server does not name the table
    named = _NAMES.findall(str(error)) if error.code == UNKNOWN_TABLE else _NAMES.findall(sql)
    for database, table in named:
        if said := _missing(database, table, config):
            return Fatal(said)
    return error


def _missing(database: str, table: str, config: Settings) -> str | None:
    from headrace.models.composition import parts

    full = f"{database}.{table}"
    if database == config.raw_database:
        tables = list(_raw_tables(config))
        if table in tables:
            return f"{full} is not there yet: nothing has been published; see 'headrace status'"
        return _near(database, table, tables)
    if database in (config.dbt_schema, f"{config.dbt_schema}_speed"):
        found = parts(config)
        folders = [one for one in (found.root, found.package) if one]
        models = [one.stem for folder in folders for one in (folder / "models").rglob("*.sql")]
        if table in models:
            return (
                f"the model {full} is not built yet: Dagster, while it runs, deploys views first and begins with marts"
                " half a minute after their first rows; see 'headrace status' and the runs in its UI"
            )
        return _near(database, table, models)
    return None


def _near(database: str, table: str, known: list[str]) -> str | None:
    near = difflib.get_close_matches(table, known, n=1)
    return f"there is no table {database}.{table}; did you mean {database}.{near[0]}?" if near else None


def _raw_tables(config: Settings) -> Iterator[str]:
    from headrace.pipelines import discover_for

    for pipeline in discover_for(config).pipelines.values():
        yield from (table.name for table in pipeline.tables)
