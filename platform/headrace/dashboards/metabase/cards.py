"""Make questions and dashboards of definitions. Their SQL is that of the room ``metrics``, and nobody else's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.dashboards.metabase.marks import short_id
from headrace.metrics import QuestionError
from headrace.metrics.dialects import Rendered, Tag, statement

if TYPE_CHECKING:
    from headrace.metrics import Catalogue, Family, Metric

COLUMNS = 24
#: Rows of a breakdown.
_TOP = 20
#: Breakdowns of a metric.
_MOST_BREAKDOWNS = 2
_SUFFIXES = {"milliseconds": " ms", "seconds": " s", "bytes": " B"}
_DECIMALS = {"integer": 0, "decimal": 2, "percent": 1}
_TOTAL, _TREND, _BY = "total", "trend", "by"
#: Columns and rows of the grid that a card takes, by kind.
_SIZES = {_TOTAL: (6, 3), _TREND: (12, 6), _BY: (12, 6)}


@dataclass(frozen=True, slots=True)
class Card:
    """A question.

    Attributes:
        key: Its name among questions: ``events.trend``.
        kind: ``total``, ``trend`` or ``by``.
        name, description: For people.
        display: Metabase's name of how it is shown.
        sql: Native query with template tags.
        tags: The tags, in order.
        settings: Metabase's visualization settings.
    """

    key: str
    kind: str
    name: str
    description: str
    display: str
    sql: str
    tags: tuple[Tag, ...]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tile:
    """A question's place on a dashboard, in columns and rows of the grid."""

    card: str
    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard.

    Attributes:
        key: Its name among dashboards: the family.
        name, description: For people.
        tags: Its filters.
        tiles: Its questions.
    """

    key: str
    name: str
    description: str
    tags: tuple[Tag, ...]
    tiles: tuple[Tile, ...]


def cards_of(catalogue: Catalogue, metric: Metric, readable: Collection[str]) -> tuple[list[Card], str]:
    """Make the questions of a metric: its value over the range, over time, and by dimension.

    Args:
        catalogue: The definitions.
        metric: The metric.
        readable: Full names of the tables that the read-only user reads.

    Returns:
        The questions, and why there is none where there is none.
    """
    made: list[Card] = []
    why = "its definition offers nothing to show"
    for kind, name, arguments in _shapes(catalogue, metric):
        try:
            found = _rendered(catalogue, metric, arguments)
        except QuestionError as error:
            why = str(error)
            continue
        unreadable = sorted(set(found.relations) - set(readable))
        if unreadable:
            why = f"it is counted in {', '.join(unreadable)}, which the BI user does not read"
            continue
        made.append(_card(metric, kind, name, found))
    return made, "" if made else why


def _shapes(catalogue: Catalogue, metric: Metric) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield kinds of questions with their name and what to ask."""
    windows = catalogue.windows_of(metric)
    if "all" in windows and metric.format != "time":
        yield _TOTAL, metric.label, {"window": "all"}
    over = next(
        (one for one in ("day", "hour", "week", "month", *windows) if one in windows and one != "all"), None
    )
    if over is not None:
        yield _TREND, f"{metric.label} by {over}", {"window": over}
    categories = [d for d in catalogue.dimensions_of(metric).values() if d.kind == "category"]
    for dimension in categories[:_MOST_BREAKDOWNS] if "all" in windows else ():
        order = {} if metric.show == "funnel" else {"order": ["-value"]}
        yield f"{_BY}.{dimension.name}", f"{metric.label} by {dimension.label.lower()}", {
            "window": "all", "dimensions": [dimension.name], "limit": _TOP, **order,
        }  # fmt: skip


def _rendered(catalogue: Catalogue, metric: Metric, arguments: dict[str, Any]) -> Rendered:
    """Write the SQL with all filters that the models have together; a metric that needs a dimension gets it."""
    offered = catalogue.dimensions_of(metric)
    asked = {"dimensions": [], **arguments}
    for _ in offered:
        try:
            statement(catalogue, metric.name, "metabase", **asked)
        except QuestionError as error:
            lacking = error.nearest if error.field == "dimensions" else None
            if lacking not in offered or lacking in asked["dimensions"]:
                raise
            asked["dimensions"] = [*asked["dimensions"], lacking]
        else:
            break
    found = statement(catalogue, metric.name, "metabase", **asked)
    filters: list[str] = []
    for name, dimension in offered.items():
        if dimension.kind != "category":
            continue
        try:
            more = statement(catalogue, metric.name, "metabase", **asked, variables=[*filters, name])
        except QuestionError:
            continue
        if more.relations == found.relations:  # a filter must not make an answer cost more
            found, filters = more, [*filters, name]
    return found


def _card(metric: Metric, kind: str, name: str, found: Rendered) -> Card:
    base = kind.split(".")[0]
    dimensions = [one.name for one in found.columns if one.role == "dimension"]
    time = [one.name for one in found.columns if one.role == "window"]
    settings: dict[str, Any] = {"column_settings": {'["name","value"]': _format(metric)}}
    display = "scalar"
    if time or dimensions:
        display = _display(metric, base, dimensions)
        settings["graph.dimensions"] = [*time, *dimensions][:2]
        settings["graph.metrics"] = ["value"]
    if display == "table":
        del settings["graph.dimensions"], settings["graph.metrics"]
    unit = f" Unit: {metric.unit}." if metric.unit else ""
    fresh = "Up to the last publication." if found.live else "As of the last build of the models."
    text = f"{metric.description.rstrip('.')}.{unit} {fresh} UTC."
    return Card(f"{metric.name}.{kind}", base, name, text, display, found.sql, found.tags, settings)


def _display(metric: Metric, kind: str, dimensions: Sequence[str]) -> str:
    if metric.format == "time" or len(dimensions) > 1:
        return "table"
    if kind == _TREND:
        return "bar" if metric.show == "bar" else "line"
    return "funnel" if metric.show == "funnel" else "row"


def _format(metric: Metric) -> dict[str, Any]:
    found: dict[str, Any] = {"column_title": metric.label}
    if metric.format == "percent":
        found["number_style"] = "percent"
    if metric.format in _DECIMALS:
        found["decimals"] = _DECIMALS[metric.format]
    if metric.format in _SUFFIXES:
        found["suffix"] = _SUFFIXES[metric.format]
    return found


def dashboard_of(family: Family, cards: Sequence[Card]) -> Dashboard:
    """Lay a family's questions out on a grid: values first, then what goes over time, then breakdowns."""
    tiles: list[Tile] = []
    row = 0
    for kind, (width, height) in _SIZES.items():
        own = [card for card in cards if card.kind == kind]
        across = COLUMNS // width
        for place, card in enumerate(own):
            tiles.append(
                Tile(card.key, place % across * width, row + place // across * height, width, height)
            )
        row += -(-len(own) // across) * height
    tags: dict[str, Tag] = {tag.name: tag for card in cards for tag in card.tags}
    return Dashboard(family.name, family.label, _sentence(family), tuple(tags.values()), tuple(tiles))


def _sentence(family: Family) -> str:
    return f"{family.description.rstrip('.')}. Owner: {family.owner}."


def parameter_id(dashboard: str, tag: str) -> str:
    """Return the id of a dashboard's filter."""
    return short_id("parameter", f"{dashboard}.{tag}")
