"""Trace each column of a dbt model to the columns it is made of, once per version of the project.

sqlglot follows the columns of the compiled SQL through its common table expressions to the model's parents. This needs
no warehouse: contracts define the raw tables' columns, and parents determine a model's columns. Tuples and aggregate
states are followed as a whole: a part of one depends on everything that went in.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.core.atomic import write_atomically
from headrace.warehouse.ddl import KEY_HASH

if TYPE_CHECKING:
    from headrace.core.batch import Table

log = logging.getLogger(__name__)

FILE = "column_lineage.json"
#: Column -> its source columns, as (unique id of the model or source, column).
Columns = dict[str, list[tuple[str, str]]]
#: Columns of a table that views read and that is no asset (warehouse/migrations/0001_bookkeeping.sql). They must be
#: known so that other columns are not resolved to them. They are in no lineage.
_BOOKKEEPING = {"_refreshes": ("table", "lake_id", "version", "days", "began_at", "epoch", "refreshed_at")}
#: Functions that sqlglot lacks or knows from another database, and known ones with the same arguments.
_SIBLINGS = {
    "quantilesExactInclusive": "quantilesExact",
    "arrayCompact": "arraySort",
    "arrayMax": "arraySort",
}
_UNKNOWN = re.compile(r"\b(" + "|".join(_SIBLINGS) + ")")


class Lineage:
    """Lineage of a project's models.

    Attributes:
        columns: Columns by unique id of the model, for models whose SQL could be followed.
    """

    def __init__(self, found: Mapping[str, Any]) -> None:
        """Read the lineage.

        Args:
            found: Content that ``write`` wrote.
        """
        self._checksums = {name: one["checksum"] for name, one in found.items()}
        self.columns: dict[str, Columns] = {
            name: {column: [(node, of) for node, of in made] for column, made in one["columns"].items()}
            for name, one in found.items()
        }

    def of(self, node: Mapping[str, Any]) -> Columns:
        """Return the columns of a manifest's model; empty if unknown or of another version of the model."""
        name = node["unique_id"]
        unchanged = name in self.columns and self._checksums[name] == node["checksum"]["checksum"]
        return self.columns[name] if unchanged else {}


def write(manifest: Path, tables: Iterable[Table]) -> None:
    """Trace the lineage of a manifest with compiled SQL (``dbt compile``), and write it beside the manifest.

    Args:
        manifest: Path of the manifest.
        tables: The raw tables, which are the project's sources.
    """
    _write(manifest, _stored(tables))


def write_beside(manifest: Path, tables: Iterable[Table]) -> None:
    """Call ``write`` in a process of its own, because it keeps the interpreter busy for seconds.

    Raises:
        subprocess.CalledProcessError: It failed; the reason is on standard error.
    """
    columns = json.dumps(_stored(tables))
    subprocess.run([sys.executable, "-m", __name__, str(manifest)], input=columns, text=True, check=True)


def _stored(tables: Iterable[Table]) -> dict[str, list[str]]:
    """Return the columns of raw tables in the warehouse, by name."""
    return {table.name: [*table.schema, *([KEY_HASH] if table.key else [])] for table in tables}


def _write(manifest: Path, tables: dict[str, list[str]]) -> None:
    content = json.loads(manifest.read_bytes())
    found = {
        node["unique_id"]: {"checksum": node["checksum"]["checksum"], "columns": columns}
        for node, columns in _followed(content, tables)
    }
    write_atomically(manifest.with_name(FILE), json.dumps(found))


def read(manifest: Path) -> Lineage:
    """Read the lineage beside a manifest; empty if it is damaged, because only the UI depends on it."""
    path = manifest.with_name(FILE)
    try:
        return Lineage(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning(
            "%s is damaged, so the UI shows no column lineage: %s; remove it to have it rebuilt", path, error
        )
        return Lineage({})


def _known(sql: str) -> str:
    return _UNKNOWN.sub(lambda found: _SIBLINGS[found[1]], sql)


def _followed(
    manifest: Mapping[str, Any], sources: Mapping[str, list[str]]
) -> Iterator[tuple[dict[str, Any], Columns]]:
    """Yield models, parents first, with the columns of each that could be followed."""
    from sqlglot.schema import MappingSchema

    # it warns of SQL of Headrace's own that it cannot follow
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    models = {name: node for name, node in manifest["nodes"].items() if node["resource_type"] == "model"}
    nodes = {**manifest["sources"], **models}
    schema = MappingSchema(dialect="clickhouse")
    for source in manifest["sources"].values():
        _know(schema, source["relation_name"], sources.get(source["name"], []))
        for table, known in _BOOKKEEPING.items():
            _know(schema, f"`{source['schema']}`.`{table}`", known)
    graph = {name: set(node["depends_on"]["nodes"]) & set(models) for name, node in models.items()}
    for name in TopologicalSorter(graph).static_order():
        node = models[name]
        parents = {_key(nodes[p]["relation_name"]): p for p in node["depends_on"]["nodes"] if p in nodes}
        try:
            columns = _columns(_known(node["compiled_code"]), schema, parents)
        except Exception as error:  # sqlglot's errors, and others on SQL that it does not support
            log.debug("no column lineage of %s: %s", node["name"], str(error).partition("\n")[0])
            _know(schema, node["relation_name"], node["columns"])
            continue
        _know(schema, node["relation_name"], columns)
        yield node, columns


def _know(schema: Any, relation: str, columns: Iterable[str]) -> None:
    from sqlglot import exp

    if known := dict.fromkeys(columns, "String"):
        schema.add_table(exp.to_table(relation, dialect="clickhouse"), known)


def _key(relation: str) -> tuple[str, str]:
    from sqlglot import exp

    table = exp.to_table(relation, dialect="clickhouse")
    return table.db, table.name


def _columns(sql: str, schema: Any, parents: Mapping[tuple[str, str], str]) -> Columns:
    """Return a query's columns and the columns that each is made of."""
    from sqlglot import exp, parse_one
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    parsed = parse_one(sql, dialect="clickhouse")
    query = qualify(parsed, schema=schema, dialect="clickhouse", validate_qualify_columns=False)
    assert isinstance(query, exp.Query)
    scope = build_scope(query)
    return {
        column: sorted(_ends(lineage(column, query, schema, scope=scope, dialect="clickhouse"), parents))
        for column in query.named_selects
    }


def _ends(node: Any, parents: Mapping[tuple[str, str], str]) -> set[tuple[str, str]]:
    from sqlglot import exp

    return {
        (parents[key], exp.to_column(step.name).name)
        for step in node.walk()
        if not step.downstream and isinstance(step.expression, exp.Table)
        for key in [(step.expression.db, step.expression.name)]
        if key in parents
    }


if __name__ == "__main__":
    _write(Path(sys.argv[1]), json.load(sys.stdin))
