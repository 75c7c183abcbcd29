"""Make Grafana's dashboards of what ``spec`` says, by its own library."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from headrace.dashboards.grafana.spec import Board, Measured, Number, Query, Row, Shape
from headrace.metrics import Catalogue, Column, Metric, Rendered, statement

with warnings.catch_warnings():  # the library prefers a format that Grafana does not provision from files yet
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        common,
        dashboard,
        prometheus,
        stat,
        table,
        timeseries,
    )
    from grafana_foundation_sdk.models import common as kinds
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

#: Names of the datasources, which are provisioned with the dashboards.
CLICKHOUSE, PROMETHEUS = "headrace-clickhouse", "headrace-prometheus"
CLICKHOUSE_TYPE = "grafana-clickhouse-datasource"
REFRESH = "5s"
_HEIGHTS: dict[Shape, int] = {"number": 4, "ranking": 9, "table": 9, "matrix": 10}
_HEIGHT, _COLUMNS = 8, 24
#: Grafana's unit by the format of a definition.
UNITS = {
    "integer": "short",
    "decimal": "short",
    "percent": "percentunit",
    "seconds": "s",
    "milliseconds": "ms",
    "bytes": "bytes",
    "time": "dateTimeAsIso",
}

#: A panel of any kind: the library's builders have the same methods, and no class in common.
Made = Any


class ClickHouseQuery(variants.Dataquery):
    """A query of ClickHouse's plugin for Grafana, which the library does not have.

    Args:
        sql: With the plugin's macros.
        series: Whether rows become series over time; they are a table otherwise.
    """

    def __init__(self, sql: str, *, series: bool) -> None:
        self.sql, self.series = sql, series

    def to_json(self) -> dict[str, object]:
        """Return it as it is in a dashboard."""
        return {
            "refId": "A",
            "datasource": {"type": CLICKHOUSE_TYPE, "uid": CLICKHOUSE},
            "editorType": "sql",
            "queryType": "timeseries" if self.series else "table",
            "format": 0 if self.series else 1,
            "rawSql": self.sql,
        }


class _Query(cog.Builder[variants.Dataquery]):
    def __init__(self, query: variants.Dataquery) -> None:
        self._query = query

    def build(self) -> variants.Dataquery:
        return self._query


def rendered(board: Board, catalogue: Catalogue) -> str:
    """Render a dashboard as Grafana reads it, always in the same way."""
    return json.dumps(_dashboard(board, catalogue).build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _dashboard(board: Board, catalogue: Catalogue) -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["headrace", *board.tags])
        .time(board.since, "now")
        .refresh(REFRESH)
        .timezone("utc")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
    )
    for variable in _variables(board, catalogue):
        made = made.with_variable(variable)
    for number, (what, place) in enumerate(_placed(board), start=1):
        if isinstance(what, Row):
            made = made.with_row(dashboard.Row(what.title).id(number).grid_pos(place))
        else:
            own = _of_number(what, board, catalogue) if isinstance(what, Number) else _of_measured(what)
            made = made.with_panel(own.id(number).grid_pos(place))
    return made


def _placed(board: Board) -> Iterator[tuple[Row | Number | Measured, models.GridPos]]:
    """Yield rows and panels with their places: from left to right, in a new line where one does not fit."""
    y = 0
    for row in board.rows:
        yield row, models.GridPos(h=1, w=_COLUMNS, x=0, y=y)
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            height = _HEIGHTS.get(panel.shape, _HEIGHT)
            if x + panel.span > _COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            yield panel, models.GridPos(h=height, w=panel.span, x=x, y=y)
            x, tallest = x + panel.span, max(tallest, height)
        y += tallest


def sql_of(panel: Number, board: Board, catalogue: Catalogue) -> Rendered:
    """Write the SQL of a panel, which is that of its definition."""
    metric = catalogue.metric(panel.metric)
    ranked = panel.shape in ("ranking", "table") and panel.window == "all"
    return statement(
        catalogue,
        panel.metric,
        "grafana",
        window=panel.window,
        dimensions=panel.by,
        filters={name: [value] for name, value in panel.filters},
        variables=[name for name in _filters(board, catalogue) if name in metric.dimensions],
        order=("-value",) if ranked else (),
        limit=panel.limit or None,
    )


def _filters(board: Board, catalogue: Catalogue) -> list[str]:
    """Return the dimensions that the dashboard has variables for."""
    return [variable.build().name for variable in _variables(board, catalogue)]


def _variables(board: Board, catalogue: Catalogue) -> Iterator[dashboard.QueryVariable]:
    """Yield a variable for each dimension, with the values that the first metric which has it finds in the range."""
    for name in board.variables:
        metrics = (catalogue.metric(number.metric) for number in board.numbers)
        # one that does not add up has no values by this dimension alone
        metric = next((m for m in metrics if name in m.dimensions and m.adds_up_over is None), None)
        if metric is None:
            continue
        found = catalogue.dimensions_of(metric)[name]
        values = statement(
            catalogue, metric.name, "grafana", window="all", dimensions=[name], order=("-value",)
        )
        yield (
            dashboard.QueryVariable(name)
            .label(found.label)
            .description(found.description)
            .datasource(kinds.DataSourceRef(CLICKHOUSE_TYPE, CLICKHOUSE))
            .query(f"select {name} from (\n{values.sql}\n)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .current(models.VariableOption(selected=True, text="All", value="$__all"))
        )


def _of_number(panel: Number, board: Board, catalogue: Catalogue) -> Made:
    metric, answer = catalogue.metric(panel.metric), sql_of(panel, board, catalogue)
    by = [column for column in answer.columns if column.role == "dimension"]
    series = panel.shape in ("line", "bars") and panel.window != "all"
    made = _PANELS[panel.shape]()
    named = f"{metric.label} by {' and '.join(one.label.lower() for one in by)}" if by else metric.label
    made = (
        made.title(named)
        .description(_described(metric, panel))
        .datasource(kinds.DataSourceRef(CLICKHOUSE_TYPE, CLICKHOUSE))
        .unit(UNITS[metric.format])
        .with_target(_Query(ClickHouseQuery(answer.sql, series=series)))
    )
    if panel.since:
        made = made.time_from(panel.since)
    if series:
        return made.display_name(f"${{__field.labels.{by[0].name}}}" if by else metric.label)
    if panel.shape == "matrix":
        return _matrix(made, answer.columns)
    return _named(made, answer.columns, metric)


def _described(metric: Metric, panel: Number) -> str:
    said = " ".join(metric.description.split())
    return f"{said} The last {panel.since}, whatever the range of the dashboard." if panel.since else said


def _named(made: Made, columns: tuple[Column, ...], metric: Metric) -> Made:
    """Give the columns of a table their labels; only values have the metric's unit."""
    for one in columns:
        label = metric.label if one.role == "value" else one.label
        properties = [models.DynamicConfigValue("displayName", label)]
        if one.role != "value":
            properties.append(models.DynamicConfigValue("unit", "string"))
        made = made.override_by_name(one.name, properties)
    return made


def _matrix(made: Made, columns: tuple[Column, ...]) -> Made:
    """Turn rows into a matrix: windows down, the dimension across, values coloured."""
    [across] = [one.name for one in columns if one.role == "dimension"]
    options = {"columnField": across, "rowField": "window_start", "valueField": "value"}
    corner = f"window_start\\{across}"
    colours = {"type": "color-background", "mode": "gradient"}
    return (
        made.with_transformation(models.DataTransformerConfig("groupingToMatrix", options=options))
        .override_by_field_type("number", [models.DynamicConfigValue("custom.cellOptions", colours)])
        .override_by_name(corner, [models.DynamicConfigValue("displayName", "Time")])
    )


def _of_measured(panel: Measured) -> Made:
    made = (
        _PANELS[panel.shape]()
        .title(panel.title)
        .description(panel.description)
        .datasource(kinds.DataSourceRef("prometheus", PROMETHEUS))
        .unit(panel.unit)
    )
    now = panel.shape in ("number", "table")
    for place, query in enumerate(panel.queries):
        made = made.with_target(_promql(query, "ABCDEFGH"[place], now=now, rows=panel.shape == "table"))
    return made


def _promql(query: Query, name: str, *, now: bool, rows: bool) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(name)
    made = made.datasource(kinds.DataSourceRef("prometheus", PROMETHEUS))
    made = made.format(PromQueryFormat.TABLE if rows else PromQueryFormat.TIME_SERIES)
    return made.instant() if now else made.range()


def _line() -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).placement(kinds.LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI)
    return timeseries.Panel().line_width(1).fill_opacity(8).axis_soft_min(0).legend(legend).tooltip(tooltip)


def _bars() -> timeseries.Panel:
    stacked = common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A")
    return _line().draw_style(kinds.GraphDrawStyle.BARS).fill_opacity(70).stacking(stacked)


def _number() -> stat.Panel:
    last = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    return stat.Panel().reduce_options(last).graph_mode(kinds.BigValueGraphMode.NONE)


def _ranking() -> table.Panel:
    gauge = models.DynamicConfigValue("custom.cellOptions", {"type": "gauge", "mode": "basic"})
    return table.Panel().override_by_field_type("number", [gauge])


_PANELS: dict[Shape, Callable[[], Any]] = {
    "line": _line,
    "bars": _bars,
    "number": _number,
    "table": table.Panel,
    "ranking": _ranking,
    "matrix": table.Panel,
}
