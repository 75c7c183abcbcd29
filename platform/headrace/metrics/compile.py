"""Make SQL of a question. Identifiers and expressions come from definitions alone, values become parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from headrace.metrics import windows
from headrace.metrics.definitions import qualified
from headrace.metrics.plan import Plan, Shape, width_for
from headrace.metrics.windows import ALL, WINDOWS, Window

if TYPE_CHECKING:
    from headrace.metrics.catalogue import Catalogue
    from headrace.metrics.definitions import Metric, Model
    from headrace.metrics.question import Question, Value

Role = Literal["window", "dimension", "value", "previous"]
#: Without groups, an aggregate of no rows is a row, too.
_ANY_ROW = "having count() > 0"
_TIME = "DateTime64(6, 'UTC')"
#: Type of a filter's parameter, and what is compared with it, by kind of the dimension.
_PARAMETERS = {
    "category": ("Array(String)", "{0}"),
    "number": ("Array(Float64)", "toFloat64({0})"),
    "boolean": ("Array(UInt8)", "toUInt8({0})"),
    "time": ("Array(Date)", "toDate({0})"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer.

    Attributes:
        name: Its name.
        role: ``window`` is the start of the window, UTC; ``previous`` the value of the period before.
        kind: ``time``, ``category``, ``number`` or ``boolean``.
        label, unit, format: As the definition has them; empty where it has none.
    """

    name: str
    role: Role
    kind: str
    label: str
    unit: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with its parameters, and what its answer is made of.

    Attributes:
        sql: A query of ClickHouse.
        parameters: Values of ``{name:Type}`` in it.
        columns: The answer's columns, in their order.
        models: Names of the models that it reads.
        relations: Their full names.
        streams: Streams whose rows they hold; ``*`` for all of Headrace's own.
        live: Whether what was published a moment ago counts; otherwise what the last build has read.
    """

    sql: str
    parameters: dict[str, Any]
    columns: tuple[Column, ...]
    models: tuple[str, ...]
    relations: tuple[str, ...]
    streams: tuple[str, ...]
    live: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range as SQL: times, the days of its first and its last moment, and the first day of the live models.

    ``live_from`` is empty where no such day divides the range.
    """

    start: str
    end: str
    first_day: str
    last_day: str
    live_from: str


def compile_question(
    question: Question, catalogue: Catalogue, *, live_from: date | None = None, now: datetime | None = None
) -> Statement:
    """Make the SQL of a question.

    Args:
        question: The question, as ``ask`` made it.
        catalogue: The definitions.
        live_from: First UTC day that the live models answer. Days before it must have been built as a whole. Default:
            the first day that the speed layer reaches. An earlier one costs time, and changes no number.
        now: The present; default: the clock.

    Raises:
        QuestionError: No model can answer it rightly.
    """
    metric = catalogue.metric(question.metric)
    today = (now or datetime.now(UTC)).astimezone(UTC).date()
    if live_from is None:
        live_from = today - timedelta(days=catalogue.speed_days)
    parameters: dict[str, Any] = {}
    conditions = _conditions(question, catalogue, parameters)
    periods = [_period(question, catalogue, conditions, parameters, "", live_from)]
    if question.compare:
        periods.append(_period(question, catalogue, conditions, parameters, "previous_", live_from))
    used = {model.name: model for _, models in periods for model in models}.values()
    return Statement(
        _answer(question, metric, [sql for sql, _ in periods]),
        parameters,
        columns_of(metric, catalogue, WINDOWS[question.window], question.dimensions, question.compare),
        tuple(model.name for model in used),
        tuple(catalogue.schemas.relation(model) for model in used),
        (metric.stream,),
        any(model.live for model in used),
    )


def _period(
    question: Question,
    catalogue: Catalogue,
    conditions: Sequence[tuple[str, str]],
    parameters: dict[str, Any],
    prefix: str,
    live_from: date,
) -> tuple[str, Sequence[Model]]:
    """Return the grouped rows of the range, or of the period before it, and the models they are of."""
    metric = catalogue.metric(question.metric)
    start, end = question.previous if prefix else (question.start, question.end)
    split = windows.midnight(datetime(live_from.year, live_from.month, live_from.day, tzinfo=UTC))
    counts = {name: len(values) for name, values in question.filters}
    window = WINDOWS[question.window]
    plan = catalogue.planned(
        metric, Shape(window, question.dimensions, counts, start, end, closed=end <= split)
    )
    if plan.batch and plan.live:
        plan = Plan(plan.batch if start < split else None, plan.live if end > split else None)
    last = end - timedelta(microseconds=1)
    given = {"start": start, "end": end, "first_day": start.date(), "last_day": last.date()}
    kinds = {"start": _TIME, "end": _TIME, "first_day": "Date", "last_day": "Date"}
    for name, value in given.items():
        parameters[prefix + name] = (
            f"{value:%Y-%m-%d %H:%M:%S.%f}" if name in ("start", "end") else f"{value}"
        )
    if len(plan.models) > 1:
        parameters["live_from"] = f"{live_from}"
    names = {name: f"{{{prefix}{name}:{kind}}}" for name, kind in kinds.items()}
    bounds = Bounds(**names, live_from="{live_from:Date}" if len(plan.models) > 1 else "")
    named = "counted" if question.compare else "value"
    grouped = grouped_rows(catalogue, metric, window, question.dimensions, plan, bounds, conditions, named)
    return grouped, plan.models


def grouped_rows(
    catalogue: Catalogue,
    metric: Metric,
    window: Window,
    dimensions: Sequence[str],
    plan: Plan,
    bounds: Bounds,
    conditions: Sequence[tuple[str, str]],
    value: str = "value",
) -> str:
    """Return a query of (window_start, dimensions, value) for one range.

    Args:
        catalogue: The definitions.
        metric: What is asked.
        window: Width of the rows.
        dimensions: Dimensions of the rows.
        plan: The models.
        bounds: The range as SQL.
        conditions: Dimensions with conditions on them, as SQL in which ``{0}`` is the dimension.
        value: Name of the value.
    """
    parts = [
        _rows(catalogue, metric, window, dimensions, model, plan, bounds, conditions) for model in plan.models
    ]
    keys = [*(["_window"] if window.name != ALL else []), *dimensions]
    selected = ["_window as window_start"] if window.name != ALL else []
    selected += [*dimensions, f"{metric.measure} as {value}"]
    sql = f"select {', '.join(selected)}\nfrom (\n{_indented(_union(parts))}\n)"
    if keys:
        return f"{sql}\ngroup by {', '.join(keys)}"
    return sql if metric.empty is not None else f"{sql}\n{_ANY_ROW}"


def _rows(
    catalogue: Catalogue,
    metric: Metric,
    window: Window,
    dimensions: Sequence[str],
    model: Model,
    plan: Plan,
    bounds: Bounds,
    conditions: Sequence[tuple[str, str]],
) -> str:
    """Return the rows of one model that count, or their states by group where the model itself holds none."""
    known = catalogue.family(metric).dimensions
    told = {name: known[name].expression("landed", model.time) for name in known}
    groups = [f"{told[name]} as {name}" for name in dimensions]
    if window.name != ALL:
        groups.insert(0, f"{window.sql.format(f'landed.{model.time}')} as _window")
    made = sorted(metric.columns & set(model.states))
    own = [name for name in sorted(metric.columns - set(model.states)) if name not in dimensions]
    values = [f"{qualified(model.states[name], 'landed')} as {name}" for name in made]
    values += [f"landed.{name} as {name}" for name in own]
    selected = [*groups, *values] or ["1 as counted"]
    where = [*_within(model, window, plan, bounds), *(f"({sql.format(told[n])})" for n, sql in conditions)]
    where += [f"({qualified(one, 'landed')})" for one in (model.where, metric.where) if one]
    final = " final" if model.final else ""
    sql = f"select {', '.join(selected)}\nfrom {catalogue.schemas.relation(model)} as landed{final}"
    sql += f"\nwhere {_all_of(where)}"
    if made:
        names = [*(["_window"] if window.name != ALL else []), *dimensions]
        sql += f"\ngroup by {', '.join(names)}" if names else f"\n{_ANY_ROW}"
    return sql


def _within(model: Model, window: Window, plan: Plan, bounds: Bounds) -> list[str]:
    """Return the conditions that a row is in the range, and in that part of it that the model answers."""
    width = width_for(model, window)
    day, time = f"landed.{model.day}", f"landed.{model.time}"
    found = [f"{day} >= {bounds.first_day}", f"{day} <= {bounds.last_day}"]
    if model.time != model.day:
        found += [f"{time} >= {bounds.start}", f"{time} < {bounds.end}"]
    if len(plan.models) > 1 and bounds.live_from:
        found.append(f"{day} {'>=' if model.live else '<'} {bounds.live_from}")
    if model.width_column:
        found.append(f"landed.{model.width_column} = {width}")
    return found


def _conditions(
    question: Question, catalogue: Catalogue, parameters: dict[str, Any]
) -> list[tuple[str, str]]:
    known = catalogue.dimensions_of(catalogue.metric(question.metric))
    found = []
    for place, (name, values) in enumerate(question.filters):
        kind, told = _PARAMETERS[known[name].kind]
        some: list[Value] = [one for one in values if one is not None]
        condition = f"{told} in {{{{filter_{place}:{kind}}}}}"
        if some:
            parameters[f"filter_{place}"] = (
                [int(bool(one)) for one in some] if known[name].kind == "boolean" else some
            )
        if None in values:
            condition = f"{condition} or {{0}} is null" if some else "{0} is null"
        found.append((name, condition))
    return found


def _answer(question: Question, metric: Metric, periods: list[str]) -> str:
    found = periods[0] if len(periods) == 1 else _compared(question, metric, *periods)
    order = ", ".join(
        f"{one.removeprefix('-')}{' desc' if one.startswith('-') else ''}" for one in question.order
    )
    return f"{found}\norder by {order}\nlimit {question.limit}"


def _compared(question: Question, metric: Metric, now: str, before: str) -> str:
    """Return the rows of two periods side by side: those of the period before moved on to their counterparts."""
    keys = [*(["window_start"] if question.window != ALL else []), *question.dimensions]
    shift = question.shift
    moved = f"addSeconds(addMonths(window_start, {shift.months}), {shift.seconds}) as moved"
    later = [moved if key == "window_start" else key for key in keys]
    both = _union(
        [
            f"select {', '.join([*keys, 'counted', '0 as period'])}\nfrom (\n{_indented(now)}\n)",
            f"select {', '.join([*later, 'counted', '1 as period'])}\nfrom (\n{_indented(before)}\n)",
        ]
    )
    values = [f"anyOrNullIf(counted, period = {place})" for place in (0, 1)]
    if metric.empty is not None:
        values = [f"coalesce({one}, {metric.empty})" for one in values]
    selected = [*keys, f"{values[0]} as value", f"{values[1]} as previous"]
    sql = f"select {', '.join(selected)}\nfrom (\n{_indented(both)}\n)"
    if keys:
        return f"{sql}\ngroup by {', '.join(keys)}"
    return sql if metric.empty is not None else f"{sql}\n{_ANY_ROW}"


def columns_of(
    metric: Metric, catalogue: Catalogue, window: Window, dimensions: Sequence[str], compare: str | None
) -> tuple[Column, ...]:
    """Return the columns of an answer."""
    known = catalogue.dimensions_of(metric)
    found = [Column("window_start", "window", "time", "Time")] if window.name != ALL else []
    found += [Column(name, "dimension", known[name].kind, known[name].label) for name in dimensions]
    kind = "time" if metric.format == "time" else "number"
    found.append(Column("value", "value", kind, metric.label, metric.unit, metric.format))
    if compare:
        label = f"{metric.label}, period before"
        found.append(Column("previous", "previous", kind, label, metric.unit, metric.format))
    return tuple(found)


def _union(parts: Sequence[str]) -> str:
    return "\nunion all\n".join(parts)


def _all_of(conditions: Sequence[str]) -> str:
    return "\n    and ".join(conditions)


def _indented(sql: str) -> str:
    return "\n".join(f"    {line}" for line in sql.splitlines())


def plain(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as ClickHouse's HTTP interface takes them: ``param_NAME`` with their text."""
    return {f"param_{name}": _text(value) for name, value in parameters.items()}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(quoted(one) if isinstance(one, str) else str(one) for one in value) + "]"
    return str(value)


def quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
