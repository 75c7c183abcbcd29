"""Say what Metabase should hold: made of the settings, dbt's manifest and the catalogue of metrics."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.core.kept_secret import kept_secret
from headrace.dashboards.metabase.cards import Card, Dashboard, cards_of, dashboard_of
from headrace.metrics import load
from headrace.models import project as models
from headrace.models.exposed import is_hidden
from headrace.warehouse.server import Server

if TYPE_CHECKING:
    from headrace.config.settings import Settings
    from headrace.metrics import Catalogue

PK, FK, CATEGORY = "type/PK", "type/FK", "type/Category"
#: dbt-metabase's names of what a model or column says of itself in its meta.
_SEMANTIC, _VALUES, _VISIBILITY = (
    "metabase.semantic_type",
    "metabase.has_field_values",
    "metabase.visibility_type",
)
_BUILT = "SELECT name FROM system.tables WHERE database = {database:String}"


@dataclass(frozen=True, slots=True)
class Connection:
    """Metabase's connection to ClickHouse.

    Attributes:
        name: Its name.
        host, port, secure: ClickHouse as Metabase reaches it.
        user, password: The read-only user.
        database: Database of the marts.
    """

    name: str
    host: str
    port: int
    secure: bool
    user: str
    password: str = field(repr=False)
    database: str


@dataclass(frozen=True, slots=True)
class Field:
    """A column.

    Attributes:
        name: Its name.
        description: What it is.
        semantic: Metabase's semantic type of it; None for none.
        target: Table and column that it refers to, for ``type/FK``.
        values: How filters offer its values: ``list``, ``search``, ``none``; empty for Metabase's choice.
    """

    name: str
    description: str
    semantic: str | None = None
    target: tuple[str, str] | None = None
    values: str = ""


@dataclass(frozen=True, slots=True)
class TableOf:
    """A mart or live view.

    Attributes:
        name: Its name.
        description: What it is, and its grain.
        fields: Its columns.
        visibility: ``hidden`` or ``technical`` keeps it out of people's lists and of scans; None shows it.
    """

    name: str
    description: str
    fields: tuple[Field, ...]
    visibility: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that Metabase should hold.

    Attributes:
        connection: The connection.
        collection: Name of the collection.
        tables: Marts and live views.
        cards: Questions.
        dashboards: Dashboards.
        skipped: Metrics for which there is no question, and models that are left out, with the reason.
        sync_seconds: How long to wait until Metabase has found the tables.
    """

    connection: Connection
    collection: str
    tables: tuple[TableOf, ...]
    cards: tuple[Card, ...]
    dashboards: tuple[Dashboard, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    sync_seconds: float = 300.0


def wanted(settings: Settings) -> Wanted:
    """Say what Metabase should hold for an installation.

    Raises:
        Fatal: The dbt project or a definition cannot be used, or no warehouse is set.
    """
    manifest = models.read(models.manifest(settings))
    server = Server(settings.with_warehouse())
    try:
        built = {str(name) for (name,) in server.query(_BUILT, database=settings.dbt_schema)}
    finally:
        server.close()
    return of(settings, manifest, load(settings), built)


def of(
    settings: Settings,
    manifest: Mapping[str, Any],
    catalogue: Catalogue,
    built: Collection[str] | None = None,
) -> Wanted:
    """Say what Metabase should hold, from what has been read already.

    Args:
        settings: The installation.
        manifest: dbt's manifest.
        catalogue: The definitions.
        built: Tables and views of the marts that are there; None for all.
    """
    described = tuple(tables_of(manifest, settings.dbt_schema))
    tables = tuple(one for one in described if built is None or one.name in built)
    readable = {f"{settings.dbt_schema}.{one.name}" for one in tables}
    readable |= {
        f"{node['schema']}.{node['name']}"
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and isinstance((node["config"].get("meta") or {}).get("bi"), str)
    }
    cards: list[Card] = []
    dashboards: list[Dashboard] = []
    skipped = {one.name: "dbt has not built it yet" for one in described if one not in tables}
    for family in catalogue.families.values():
        own: list[Card] = []
        for metric in family.metrics.values():
            made, why = cards_of(catalogue, metric, readable)
            own += made
            if not made:
                skipped[metric.name] = why
        if own:
            cards += own
            dashboards.append(dashboard_of(family, own))
    return Wanted(
        connection_of(settings),
        settings.metabase_name,
        tables,
        tuple(cards),
        tuple(dashboards),
        skipped,
        settings.metabase_sync_seconds,
    )


def connection_of(settings: Settings) -> Connection:
    """Say how Metabase reaches ClickHouse.

    Raises:
        NotSet: No warehouse is set.
    """
    settings.with_warehouse()
    password = settings.bi_password.get_secret_value() or kept_secret(settings.bi_password_file)
    return Connection(
        settings.metabase_name,
        settings.metabase_clickhouse_host or settings.clickhouse_host,
        settings.metabase_clickhouse_port or settings.clickhouse_port,
        settings.clickhouse_secure,
        settings.bi_user,
        password,
        settings.dbt_schema,
    )


def tables_of(manifest: Mapping[str, Any], database: str) -> Iterator[TableOf]:
    """Yield the marts and live views that BI tools see, by name, as their YAML files describe them."""
    nodes = [
        node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model"
        and node["schema"] == database
        and node["config"].get("enabled", True)
        and not is_hidden(node["config"].get("meta") or {})
    ]
    keys = _keys(nodes)
    for node in sorted(nodes, key=lambda one: str(one["name"])):
        meta = node["config"].get("meta") or {}
        yield TableOf(
            node["name"],
            _line(node["description"]),
            tuple(_field(node["name"], column, keys) for column in node["columns"].values()),
            meta.get(_VISIBILITY),
        )


def _keys(nodes: list[Any]) -> dict[str, str]:
    """Return columns that are the key of exactly one table, with that table."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for column in node["columns"].values():
            if _meta(column).get(_SEMANTIC) == PK:
                found.setdefault(column["name"], []).append(node["name"])
    return {column: tables[0] for column, tables in found.items() if len(tables) == 1}


def _field(table: str, column: Mapping[str, Any], keys: Mapping[str, str]) -> Field:
    meta, kind, name = _meta(column), column.get("data_type") or "", column["name"]
    semantic, target, values = meta.get(_SEMANTIC), None, meta.get(_VALUES, "")
    if semantic is None and name in keys and keys[name] != table:
        semantic, target = FK, (keys[name], name)
    elif semantic is None and kind.startswith("LowCardinality("):
        # a sorting key is a primary key to Metabase, and would get no list of values
        semantic, values = CATEGORY, values or "list"
    elif semantic is None and "String" in kind:
        values = values or "search"
    return Field(name, _line(column["description"]), semantic, target, values)


def _meta(column: Mapping[str, Any]) -> Mapping[str, Any]:
    return (column.get("config") or {}).get("meta") or column.get("meta") or {}


def _line(text: str) -> str:
    return " ".join((text or "").split())
