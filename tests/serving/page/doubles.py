"""Numbers and a reading process that a test makes up, with input that means harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from headrace.config.settings import Settings
from headrace.core.errors import HeadraceError
from headrace.metrics import ask
from headrace.serving.page.address import Span
from headrace.serving.page.asked import fitting
from headrace.serving.page.beside import Pieces
from headrace.serving.page.numbers import FORMS, Answer, moments
from headrace.serving.page.reading import functions
from headrace.serving.page.seen import CheckSeen, HealthSeen, StreamSeen

#: Texts that break a page which does not escape them, in text, attributes, scripts and addresses.
HOSTILE = (
    "<script>alert(1)</script>",
    "\"' onmouseover=alert(1) x='",
    "</script><img src=x onerror=alert(1)>",
    "a&b=c#d%2F",
)
VALUES: dict[str, Sequence[Any]] = {
    "channel": ("web", "mobile", HOSTILE[0]),
    "event_type": ("page_view", *HOSTILE),
    "page": (None, "/pricing", *HOSTILE),
    "entry_page": ("/", HOSTILE[1]),
    "exit_page": ("/", HOSTILE[2]),
    "weekday": range(1, 8),
    "hour_of_day": range(24),
    "step": (1, 2, 3),
    "step_name": ("visit", "cart", HOSTILE[0]),
    "days_since": range(4),
    "stream": ("events", "metrics"),
    "reason": ("isin", HOSTILE[0]),
    "name": ("cpu", HOSTILE[0]),
    "kind": ("gauge", "histogram"),
    "unit": ("percent", "ms"),
    "source": ("host-1", HOSTILE[3]),
}
#: Dimensions that follow from others: their values go side by side.
_TOGETHER = {"step_name": "step", "kind": "name", "unit": "name"}


@dataclass
class Pretended:
    """Numbers that are the place of their row; each metric has the dimensions of the definitions.

    Attributes:
        catalogue: The definitions.
        fails: What is raised instead, by metric.
        empty: Whether nothing has ever landed.
        fresh: How fresh the answers are.
        age: How old they are, where the warehouse is away.
        asked: Metric, range and filters of each question.
    """

    catalogue: Any
    fails: dict[str, Exception] = field(default_factory=dict)
    empty: bool = False
    fresh: datetime | None = None
    age: int | None = None
    asked: list[tuple[str, Span, dict[str, str]]] = field(default_factory=list)

    def knows(self, metric: str, /) -> bool:
        return metric in self.catalogue.metrics

    def dimensions(self, metric: str, /) -> tuple[str, ...]:
        return tuple(self.catalogue.dimensions_of(self.catalogue.metric(metric)))

    def window(self, metric: str, wanted: str, /) -> str:
        return fitting(self.catalogue, metric, wanted)

    def described(self, metric: str, /) -> tuple[str, str, str]:
        found = self.catalogue.metric(metric)
        return found.label, found.description, FORMS.get(found.format, "number")

    async def ask(
        self,
        metric: str,
        span: Span,
        /,
        *,
        window: str = "all",
        dimensions: Sequence[str] = (),
        filters: Mapping[str, str] | None = None,
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> Answer:
        known = self.dimensions(metric)
        assert set(dimensions) <= set(known), (metric, dimensions)
        # refuses what no model can answer
        ask(self.catalogue, metric, start=span.start, end=span.end, window=window, dimensions=dimensions)
        self.asked.append((metric, span, dict(filters or {})))
        if metric in self.fails:
            raise self.fails[metric]
        label, _, form = self.described(metric)
        ignored = tuple(name for name in filters or {} if name not in known)
        if self.empty:
            whole = [{"value": 0.0}] if window == "all" and not dimensions and form == "number" else []
            return Answer(whole, label, form, window, self.fresh, ignored, self.age)
        keys = [dict(zip(dimensions, one, strict=True)) for one in _combined(dimensions)]
        at = [None] if window == "all" else moments(span, window)
        rows = [
            {**({} if when is None else {"window_start": when.isoformat()}), **key, "value": _value(form, n)}
            for when in at
            for n, key in enumerate(keys)
        ]
        return Answer(rows[:limit], label, form, window, self.fresh, ignored, self.age)


def _value(form: str, n: int) -> float:
    return 0.5 / (n + 1) if form == "percent" else 1000.0 - n


def _combined(dimensions: Sequence[str]) -> list[tuple[Any, ...]]:
    lone = [one for one in dimensions if _TOGETHER.get(one) not in dimensions]
    found: list[dict[str, Any]] = [{}]
    for name in lone:
        found = [{**one, name: value} for one in found for value in VALUES[name]]
    for name in set(dimensions) - set(lone):
        for one in found:
            place = list(VALUES[_TOGETHER[name]]).index(one[_TOGETHER[name]])
            one[name] = VALUES[name][place]
    return [tuple(one[name] for name in dimensions) for one in found]


class Here:
    """Runs the functions of the reading process in this one."""

    pid = None

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.fails: dict[str, HeadraceError] = {}

    def call(self, name: str, *arguments: Any, seconds: float) -> Any:
        if name in self.fails:
            raise self.fails[name]
        if name == "health":
            return HEALTH
        return getattr(functions, name)(self.settings, *arguments)

    def stream(self, name: str, *arguments: Any, seconds: float) -> Pieces:
        if name in self.fails:
            raise self.fails[name]
        return Pieces(self, getattr(functions, name)(self.settings, *arguments))  # type: ignore[arg-type]

    def kill(self) -> None:
        pass

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass


_AT = datetime(2026, 11, 3, 12, tzinfo=UTC)
HEALTH = HealthSeen(
    (
        StreamSeen(
            "events", {"kafka/events": 3, "sqs/events": "away"}, _AT, 6, 3, 0, 1, _AT, (HOSTILE[0],), ()
        ),
        StreamSeen("metrics", {}, None, None, None, None, None, None, (), (HOSTILE[1],)),
    ),
    (
        CheckSeen("lake/events", "freshness", False, "error", HOSTILE[2], _AT),
        CheckSeen("lake/metrics", "freshness", True, "error", "", _AT),
    ),
    (HOSTILE[3],),
)
