"""The dashboards: product, sessions, performance, and the streams of the installation's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from headrace.dashboards.grafana.platform import PLATFORM
from headrace.dashboards.grafana.spec import Board, Measured, Number, Row, Shape
from headrace.metrics import Catalogue, Metric

#: Families with panels on the dashboards below; every other one gets a dashboard of its own.
_KNOWN = ("events", "sessions", "performance", "measurements", "funnel", "retention", "quality")

PRODUCT = Board(
    "headrace-product",
    "Headrace: product",
    "What people do: events, users, where they go, who comes back.",
    (
        Row(
            "Now",
            (
                Number("events", "all", shape="number", span=6),
                Number("unique_users", "all", shape="number", span=6),
                Number("unique_sessions", "all", shape="number", span=6),
                Number("conversions", "all", shape="number", span=6),
                Number("events", by=("channel",), shape="bars", span=12),
                Number("unique_users", "5_minutes", span=12),
            ),
        ),
        Row(
            "What and where",
            (
                Number("events", "all", ("event_type",), "ranking", 8, limit=15),
                Number("events", "all", ("page",), "ranking", 8, limit=15),
                Number("unique_users", "all", ("channel",), "ranking", 8, limit=15),
            ),
        ),
        Row(
            "Who comes back",
            (
                Number("new_users", "day", shape="bars", span=12, since="30d"),
                Number("returning_users", "day", shape="bars", span=12, since="30d"),
                Number("retention_rate", "day", ("days_since",), "matrix", 24, since="14d"),
            ),
        ),
    ),
    variables=("channel", "event_type"),
    tags=("product",),
)

SESSIONS = Board(
    "headrace-sessions",
    "Headrace: sessions",
    "Visits: how many, how long, where they begin and end, and how far they get.",
    (
        Row(
            "Now",
            (
                Number("sessions", "all", shape="number", span=6),
                Number("bounce_rate", "all", shape="number", span=6),
                Number("session_duration", "all", shape="number", span=6),
                Number("conversion_rate", "all", shape="number", span=6),
                Number("sessions", "5_minutes", ("channel",), "bars", 12),
                Number("session_duration_median", "15_minutes", span=12),
                Number("conversion_rate", "hour", span=12, since="7d"),
                Number("pages_per_session", "hour", span=12, since="7d"),
            ),
        ),
        Row(
            "Where they begin and end",
            (
                Number("sessions", "all", ("entry_page",), "ranking", 12, limit=15),
                Number("sessions", "all", ("exit_page",), "ranking", 12, limit=15),
            ),
        ),
        Row(
            "How far they get",
            (
                Number("funnel_sessions", "day", ("step_name",), span=12, since="30d"),
                Number("funnel_share", "day", ("step_name",), span=12, since="30d"),
            ),
        ),
    ),
    variables=("channel",),
    tags=("sessions",),
)

PERFORMANCE = Board(
    "headrace-performance",
    "Headrace: performance",
    "How long pages, screens and calls take, which are slow, and what machines measure.",
    (
        Row(
            "Durations",
            (
                Number("duration_p50", "all", shape="number", span=6),
                Number("duration_p95", "all", shape="number", span=6),
                Number("slow_share", "all", shape="number", span=6),
                Number("timed_events", "all", shape="number", span=6),
                Number("duration_p50", "5_minutes", span=8),
                Number("duration_p95", "5_minutes", span=8),
                Number("duration_p99", "5_minutes", span=8),
                Number("slow_share", "5_minutes", span=12),
                Number("slow_events", shape="bars", span=12),
            ),
        ),
        Row(
            "Which are slow",
            (
                Number("duration_p95", "all", ("page",), "ranking", 12, limit=15),
                Number("slow_events", "all", ("page",), "ranking", 12, limit=15),
            ),
        ),
        Row(
            "What machines measure",
            (
                Number("measurements", by=("source",), shape="bars", span=8),
                Number("gauge_average", by=("name",), span=8),
                Number("counter_increase", by=("name",), shape="bars", span=8),
                Number("histogram_p95", "5_minutes", ("name",), span=24),
            ),
        ),
    ),
    variables=("channel",),
    tags=("performance",),
)

_SHAPES: dict[str, Shape] = {"line": "line", "bar": "bars", "number": "number", "table": "table"}


def boards(catalogue: Catalogue) -> Iterator[Board]:
    """Yield the dashboards of an installation, without what it has no metric for, and one for each own family."""
    for board in (PRODUCT, SESSIONS, PERFORMANCE, PLATFORM):
        rows = tuple(row for one in board.rows if (row := _known(one, catalogue)).panels)
        if rows:
            yield replace(board, rows=rows)
    for name, family in catalogue.families.items():
        if name not in _KNOWN and family.metrics:
            yield _own(name, family.label, family.description, list(family.metrics.values()), catalogue)


def _known(row: Row, catalogue: Catalogue) -> Row:
    def has(panel: Number | Measured) -> bool:
        return isinstance(panel, Measured) or panel.metric in catalogue.metrics

    return replace(row, panels=tuple(panel for panel in row.panels if has(panel)))


def _own(name: str, label: str, said: str, metrics: list[Metric], catalogue: Catalogue) -> Board:
    panels = []
    for metric in metrics:
        windows = catalogue.windows_of(metric)
        shape = _SHAPES.get(metric.show, "line")
        window = "all" if shape in ("number", "table") and "all" in windows else windows[0]
        # values that do not add up need their dimensions named
        by = (
            ()
            if metric.adds_up_over is None
            else tuple(d for d in metric.dimensions if d not in metric.adds_up_over)
        )
        panels.append(Number(metric.name, window, by, shape if not by else "line"))
    return Board(
        f"headrace-{name}"[:40], f"Headrace: {label}", said, (Row(label, tuple(panels)),), tags=(name,)
    )
