"""What is on a dashboard, in plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

#: How a panel shows its values.
Shape = Literal["line", "bars", "number", "table", "ranking", "matrix"]


@dataclass(frozen=True, slots=True)
class Number:
    """A panel of a metric: title, description, unit and SQL are those of its definition.

    Attributes:
        metric: Name of the metric.
        window: Window of its values; ``all`` for one over the whole range.
        by: Dimensions that it is broken down by.
        shape: How it is shown.
        span: Width in columns of 24.
        since: A range of its own, such as ``30d``; empty for that of the dashboard.
        limit: Most rows; 0 for all.
        filters: Dimensions with the values that always count.
    """

    metric: str
    window: str = "minute"
    by: tuple[str, ...] = ()
    shape: Shape = "line"
    span: int = 8
    since: str = ""
    limit: int = 0
    filters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression with the name of its series, which may hold ``{{label}}``."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """A panel of measurements of the platform.

    Attributes:
        title, description: For people.
        unit: Grafana's unit.
        queries: What is shown.
        shape: How it is shown.
        span: Width in columns of 24.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    shape: Shape = "line"
    span: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    """A row of panels under a title."""

    title: str
    panels: tuple[Number | Measured, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard.

    Attributes:
        uid: Its name for ever, by which Grafana recognises it and links lead to it.
        title, description: For people.
        rows: What is on it.
        variables: Dimensions that people filter by, wherever a metric has them.
        since: The range that it opens with.
        tags: Beside ``headrace``.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[str, ...] = ()
    since: str = "now-6h"
    tags: tuple[str, ...] = field(default=())

    @property
    def numbers(self) -> Iterator[Number]:
        """The panels of metrics."""
        return (panel for row in self.rows for panel in row.panels if isinstance(panel, Number))
