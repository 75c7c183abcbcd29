"""Write the SQL of a metric for tools that fill in its range by themselves: Grafana's panels, Metabase's cards.

It is the SQL of ``compile_question`` with other bounds: whole windows from the beginning of the panel's time range on,
whole days of the card's ``{{from}}`` and ``{{to}}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from headrace.metrics.compile import Bounds, Column, columns_of, grouped_rows, quoted
from headrace.metrics.errors import QuestionError, nearest
from headrace.metrics.plan import Plan, Shape
from headrace.metrics.question import chosen_dimensions, chosen_order, known_dimension, typed_values
from headrace.metrics.windows import ALL, WINDOWS, Window

if TYPE_CHECKING:
    from headrace.metrics.catalogue import Catalogue
    from headrace.metrics.definitions import Dimension

Dialect = Literal["grafana", "metabase"]
#: Days that a card shows while nobody has set its range.
CARD_DAYS = 30
#: A range of whole hours: what a panel without windows shows.
_HOURS = (datetime(2000, 1, 1, 1, tzinfo=UTC), datetime(2000, 1, 1, 2, tzinfo=UTC))
_TAG_KINDS = {"category": "text", "number": "number", "boolean": "text", "time": "date"}


@dataclass(frozen=True, slots=True)
class Tag:
    """A variable of a rendered statement.

    Attributes:
        name: Its name: of a dimension, or ``from`` and ``to`` of a card.
        label: For people.
        type: Metabase's type of it: ``text``, ``number`` or ``date``.
    """

    name: str
    label: str
    type: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """SQL for a tool.

    Attributes:
        sql: Text with the tool's own macros or tags.
        columns: The answer's columns, in their order.
        tags: Variables in it, without those that Grafana itself has.
        models: Names of the models that it reads.
        relations: Their full names.
        live: Whether what was published a moment ago counts.
    """

    sql: str
    columns: tuple[Column, ...]
    tags: tuple[Tag, ...]
    models: tuple[str, ...]
    relations: tuple[str, ...]
    live: bool


def statement(
    catalogue: Catalogue,
    metric: str,
    dialect: Dialect,
    *,
    window: str = "day",
    dimensions: Iterable[str] = (),
    filters: Mapping[str, Any] | None = None,
    variables: Iterable[str] = (),
    order: Iterable[str] = (),
    limit: int | None = None,
) -> Rendered:
    """Write the SQL of a metric for a tool.

    Args:
        catalogue: The definitions.
        metric: Name of the metric.
        dialect: ``grafana`` or ``metabase``.
        window: Window of the rows; ``all`` for one over the whole range, which begins with a whole hour in Grafana.
        dimensions: Dimensions of the rows.
        filters: Dimensions with the values that always count.
        variables: Dimensions that people filter by: variables of the dashboard with these names.
        order: As of a question.
        limit: Most rows; None for all.

    Raises:
        QuestionError: Something of it is not possible.
    """
    if dialect not in get_args(Dialect):
        near = nearest(dialect, get_args(Dialect))
        raise QuestionError(
            "dialect", dialect, "there is no such dialect", nearest=near, choices=get_args(Dialect)
        )
    found = catalogue.metric(metric)
    offered = catalogue.dimensions_of(found)
    if window not in catalogue.windows_of(found):
        choices = catalogue.windows_of(found)
        raise QuestionError(
            "window",
            window,
            "the metric has no such window",
            nearest=nearest(window, choices),
            choices=choices,
        )
    width, chosen = WINDOWS[window], chosen_dimensions(dimensions, offered)
    fixed = {name: typed_values(name, value, offered) for name, value in (filters or {}).items()}
    asked = tuple(dict.fromkeys(variables))
    for name in asked:
        known_dimension("variables", name, offered)
    conditions = [(name, _fixed(offered[name], values)) for name, values in sorted(fixed.items())]
    conditions += [(name, _VARIABLES[dialect](offered[name])) for name in asked]
    # a variable may have several values
    counts = {name: len(values) for name, values in fixed.items()} | dict.fromkeys(asked, 2)
    start, end = _HOURS if dialect == "grafana" and window == ALL else (None, None)
    plan = catalogue.planned(found, Shape(width, chosen, counts, start, end))
    bounds = _BOUNDS[dialect](width, catalogue.speed_days, plan)
    sql = grouped_rows(catalogue, found, width, chosen, plan, bounds, conditions)
    ordered = chosen_order(order, width, chosen, None)
    sql += f"\norder by {', '.join(one.removeprefix('-') + ' desc' * one.startswith('-') for one in ordered)}"
    sql += f"\nlimit {limit}" if limit else ""
    tags = [Tag(name, offered[name].label, _TAG_KINDS[offered[name].kind]) for name in asked]
    if dialect == "metabase":
        tags = [Tag("from", "From", "date"), Tag("to", "To", "date"), *tags]
    return Rendered(
        sql,
        columns_of(found, catalogue, width, chosen, None),
        tuple(tags),
        tuple(model.name for model in plan.models),
        tuple(catalogue.schemas.relation(model) for model in plan.models),
        any(model.live for model in plan.models),
    )


def _grafana_bounds(window: Window, speed_days: int, plan: Plan) -> Bounds:
    sql = WINDOWS["hour"].sql if window.name == ALL else window.sql
    start = sql.format("toDateTime64($__fromTime, 0, 'UTC')")
    return Bounds(
        start=start,
        end="toDateTime64($__toTime, 0, 'UTC')",
        first_day=f"toDate({start})",
        last_day="toDate($__toTime, 'UTC')",
        live_from=_live_from(speed_days, plan),
    )


def _metabase_bounds(window: Window, speed_days: int, plan: Plan) -> Bounds:
    today = "toDate(now('UTC'))"
    first = f"coalesce([[toDate({{{{from}}}}),]] {today} - {CARD_DAYS - 1})"
    last = f"coalesce([[toDate({{{{to}}}}),]] {today})"
    return Bounds(
        start=f"toDateTime64({first}, 0, 'UTC')",
        end=f"toDateTime64({last} + 1, 0, 'UTC')",
        first_day=first,
        last_day=last,
        live_from=_live_from(speed_days, plan),
    )


def _live_from(speed_days: int, plan: Plan) -> str:
    return f"toDate(now('UTC')) - {speed_days}" if len(plan.models) > 1 else ""


_BOUNDS: dict[str, Callable[[Window, int, Plan], Bounds]] = {
    "grafana": _grafana_bounds,
    "metabase": _metabase_bounds,
}


def _told(dimension: Dimension) -> str:
    """Return a dimension, as ``{0}``, in a form in which it can be compared with a literal."""
    return {"boolean": "toString(toBool({0}))", "time": "toString(toDate({0}))"}.get(dimension.kind, "{0}")


def _fixed(dimension: Dimension, values: Sequence[Any]) -> str:
    some = [one for one in values if one is not None]
    literals = ", ".join(_literal(one) for one in some)
    condition = f"{_told(dimension)} in ({_braced(literals)})" if some else ""
    if None not in values:
        return condition
    return f"{condition} or {{0}} is null" if some else "{0} is null"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return f"'{str(value).lower()}'"
    return quoted(value) if isinstance(value, str) else repr(value)


def _braced(text: str) -> str:
    """Return a text in which braces are no places of values."""
    return text.replace("{", "{{").replace("}", "}}")


def _grafana_variable(dimension: Dimension) -> str:
    name = dimension.name
    form = f"${{{{{name}:csv}}}}" if dimension.kind == "number" else f"${{{{{name}:singlequote}}}}"
    return f"$__conditionalAll({_told(dimension)} in ({form}), ${name})"


def _metabase_variable(dimension: Dimension) -> str:
    value = _braced(f"{{{{{dimension.name}}}}}")
    value = f"toString(toDate({value}))" if dimension.kind == "time" else value
    return f"true [[and {_told(dimension)} = {value}]]"


_VARIABLES: dict[str, Callable[[Dimension], str]] = {
    "grafana": _grafana_variable,
    "metabase": _metabase_variable,
}

_OPTIONAL = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_TAG = re.compile(r"\{\{(\w+)\}\}")
_ALL = re.compile(r"\$__conditionalAll\((.*), \$(\w+)\)")
_CHOSEN = re.compile(r"\$\{(\w+):(singlequote|csv)\}")


def expanded(sql: str, dialect: Dialect, values: Mapping[str, Any]) -> str:
    """Fill in macros and tags as the tool does, for whoever runs a statement without it.

    Args:
        sql: A rendered statement.
        dialect: Its dialect.
        values: For Metabase, tags that are set: texts, numbers, days. For Grafana, ``from`` and ``to`` as times, and
            lists of values of variables; a variable that is not in it is set to all.
    """
    if dialect == "metabase":
        set_ = {name: value for name, value in values.items() if value is not None}

        def part(match: re.Match[str]) -> str:
            return match[1] if set(_TAG.findall(match[1])) <= set(set_) else ""

        return _TAG.sub(lambda match: _value(set_[match[1]]), _OPTIONAL.sub(part, sql))
    for name, macro in (("from", "$__fromTime"), ("to", "$__toTime")):
        seconds = values[name] - datetime(1970, 1, 1, tzinfo=UTC)
        sql = sql.replace(macro, f"toDateTime({seconds // timedelta(seconds=1)})")
    sql = _ALL.sub(lambda match: match[1] if match[2] in values else "1=1", sql)
    return _CHOSEN.sub(lambda match: ", ".join(_value(one) for one in values[match[1]]), sql)


def _value(value: Any) -> str:
    if isinstance(value, int | float):
        return repr(value)
    return quoted(str(value))
