"""Every metric counted anew in Polars from raw rows, and any question with it: what the warehouse must agree with.

Nothing here knows a model: a metric is an expression over rows with a time and its dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property

import polars as pl

from headrace.metrics import Metric, Question
from marts.oracle import FUNNEL, Oracle

#: Default of var lateness_seconds and slow_ms.
LATENESS, SLOW = 600, 2_500.0
_WIDTHS = {
    "minute": "1m", "5_minutes": "5m", "15_minutes": "15m", "hour": "1h", "day": "1d", "week": "1w", "month": "1mo"
}  # fmt: skip
_MIDNIGHT = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Landed:
    """Raw rows, and what they come to, each once.

    Attributes:
        raw_events, raw_metrics: Rows as they landed.
        rejected: Rejected records by stream.
        now: The present; what happened today is not built yet.
    """

    raw_events: pl.DataFrame
    raw_metrics: pl.DataFrame
    rejected: dict[str, pl.DataFrame]
    now: datetime

    @cached_property
    def oracle(self) -> Oracle:
        """Each event and measurement once, and sessions, event by event."""
        return Oracle(self.raw_events, self.raw_metrics)

    @cached_property
    def events(self) -> pl.DataFrame:
        """An event a row."""
        return _timed(self.oracle.events, "window_time")

    @cached_property
    def timed(self) -> pl.DataFrame:
        """An event with a duration a row."""
        return self.events.filter(pl.col("duration_ms").is_not_null()).with_columns(
            pl.col("page").fill_null("")
        )

    @cached_property
    def sessions(self) -> pl.DataFrame:
        """A session a row."""
        return _timed(self.oracle.session_metrics, "started_at").with_columns(
            bounced=pl.col("is_bounce"),
            converted=pl.col("conversions") > 0,
            signed_in=pl.col("user_id").is_not_null(),
        )

    @cached_property
    def funnel(self) -> pl.DataFrame:
        """A session and step a row."""
        steps = pl.DataFrame({"step": range(1, len(FUNNEL) + 1), "step_name": [name for name, _ in FUNNEL]})
        return (
            self.sessions.join(steps, how="cross")
            .with_columns(time=pl.col("session_date").cast(_MIDNIGHT))
            .with_columns(
                reached=pl.col("funnel_step") >= pl.col("step"),
                before=pl.col("funnel_step") >= pl.col("step") - 1,
            )
        )

    @cached_property
    def users(self) -> pl.DataFrame:
        """A user and active day a row, as of the last build."""
        days: dict[str, set[date]] = {}
        for user, at in self.events.select("user_id", "time").iter_rows():
            if user is not None and at.date() < self.now.date():
                days.setdefault(user, set()).add(at.date())
        made = [
            {"user": user, "day": day, "cohort": min(active), "days_since": (day - min(active)).days}
            for user, active in days.items()
            for day in active
        ]
        size = pl.col("user").filter(pl.col("days_since") == 0).len().over("cohort")
        return pl.DataFrame(made).with_columns(size=size)

    @cached_property
    def cohorts(self) -> pl.DataFrame:
        """The same, in time of the cohort."""
        return self.users.with_columns(time=pl.col("cohort").cast(_MIDNIGHT))

    @cached_property
    def active(self) -> pl.DataFrame:
        """The same, in time of the activity."""
        return self.users.with_columns(time=pl.col("day").cast(_MIDNIGHT))

    @cached_property
    def readings(self) -> pl.DataFrame:
        """A measurement a row, with what a counter grew by since the one before."""
        rows = self.oracle.metrics.with_columns(
            time=pl.col("window_time"),
            unit=pl.col("unit").fill_null(""),
            labels=pl.col("dimensions").map_elements(_labels, pl.String),
        ).sort("time", "metric_id")
        last: dict[tuple[str, ...], tuple[date, float]] = {}
        grew = []
        for *series, at, value in rows.select(
            "name", "kind", "unit", "source", "labels", "time", "value"
        ).iter_rows():
            before = last.get(tuple(series))
            near = before is not None and (at.date() - before[0]).days <= 1
            grew.append((value if value < before[1] else value - before[1]) if before and near else 0.0)
            last[tuple(series)] = (at.date(), value)
        return rows.with_columns(grew=pl.Series(grew))

    @cached_property
    def quality(self) -> pl.DataFrame:
        """A raw row, or a rejected record, a row."""
        streams = []
        for stream, raw, day, once in (
            ("events", self.raw_events, "event_date", self.oracle.events.height),
            ("metrics", self.raw_metrics, "metric_date", self.oracle.metrics.height),
        ):
            lag = (pl.col("_ingested_at") - pl.col("occurred_at")).dt.total_microseconds() / 1e6
            key = "event_id" if stream == "events" else "metric_id"
            frame = raw.sort("_ingested_at").select(
                stream=pl.lit(stream),
                time=pl.col(day).cast(_MIDNIGHT),
                lag=lag,
                repeat=~pl.col(key).is_first_distinct(),
                at=pl.col("_ingested_at"),
                rejected=pl.lit(False),
            )
            assert frame.filter(~pl.col("repeat")).height == once
            refused = self.rejected[stream].select(
                stream=pl.lit(stream), time=pl.col("rejected_date").cast(_MIDNIGHT), rejected=pl.lit(True)
            )
            streams.append(pl.concat([frame, refused], how="diagonal"))
        return pl.concat(streams)

    @cached_property
    def rejections(self) -> pl.DataFrame:
        """A rejected record and failed check a row."""
        return pl.concat(
            frame.select(
                stream=pl.lit(stream),
                time=pl.col("rejected_date").cast(_MIDNIGHT),
                reason=pl.col("reasons").list.eval(pl.element().struct.field("check")),
            ).explode("reason")
            for stream, frame in self.rejected.items()
        )


def _timed(rows: pl.DataFrame, time: str) -> pl.DataFrame:
    return rows.with_columns(
        time=pl.col(time),
        weekday=pl.col(time).dt.weekday().cast(pl.Int64),
        hour_of_day=pl.col(time).dt.hour().cast(pl.Int64),
    )


def _labels(pairs: pl.Series) -> str:
    told = ",".join(
        f"'{one['key']}':'{one['value']}'" for one in sorted(pairs, key=lambda one: str(one["key"]))
    )
    return "{" + told + "}"


@dataclass(frozen=True)
class Count:
    """A metric as an expression over rows.

    Attributes:
        rows: Rows with ``time`` and the dimensions.
        value: The metric of some of them.
        where: Rows that count.
    """

    rows: Callable[[Landed], pl.DataFrame]
    value: pl.Expr
    where: pl.Expr | None = None


def _share(condition: pl.Expr) -> pl.Expr:
    return condition.sum() / pl.len()


def _quantile(column: str, q: float) -> pl.Expr:
    return pl.col(column).quantile(q, interpolation="linear")


_GAUGES, _COUNTERS, _HISTOGRAMS = (pl.col("kind") == kind for kind in ("gauge", "counter", "histogram"))
_GOOD = ~pl.col("rejected")
COUNTS: dict[str, Count] = {
    "events": Count(lambda of: of.events, pl.len()),
    "unique_users": Count(lambda of: of.events, pl.col("user_id").drop_nulls().n_unique()),
    "unique_sessions": Count(lambda of: of.events, pl.col("session_id").n_unique()),
    "sessions": Count(lambda of: of.sessions, pl.len()),
    "bounce_rate": Count(lambda of: of.sessions, _share(pl.col("events") == 1)),
    "session_duration": Count(lambda of: of.sessions, pl.col("duration_seconds").mean()),
    "session_duration_median": Count(lambda of: of.sessions, _quantile("duration_seconds", 0.5)),
    "pages_per_session": Count(lambda of: of.sessions, pl.col("pages").mean()),
    "events_per_session": Count(lambda of: of.sessions, pl.col("events").mean()),
    "conversions": Count(lambda of: of.sessions, pl.col("conversions").sum()),
    "conversion_rate": Count(lambda of: of.sessions, _share(pl.col("conversions") > 0)),
    "timed_events": Count(lambda of: of.timed, pl.len()),
    "slow_events": Count(lambda of: of.timed, (pl.col("duration_ms") > SLOW).sum()),
    "slow_share": Count(lambda of: of.timed, _share(pl.col("duration_ms") > SLOW)),
    "longest": Count(lambda of: of.timed, pl.col("duration_ms").max()),
    **{
        f"duration_p{percent}": Count(lambda of: of.timed, _quantile("duration_ms", percent / 100))
        for percent in (50, 75, 95, 99)
    },
    "measurements": Count(lambda of: of.readings, pl.len()),
    "gauge_average": Count(lambda of: of.readings, pl.col("value").mean(), _GAUGES),
    "gauge_lowest": Count(lambda of: of.readings, pl.col("value").min(), _GAUGES),
    "gauge_highest": Count(lambda of: of.readings, pl.col("value").max(), _GAUGES),
    "counter_increase": Count(lambda of: of.readings, pl.col("grew").sum(), _COUNTERS),
    "histogram_average": Count(lambda of: of.readings, pl.col("value").mean(), _HISTOGRAMS),
    **{
        f"histogram_p{percent}": Count(lambda of: of.readings, _quantile("value", percent / 100), _HISTOGRAMS)
        for percent in (50, 95, 99)
    },
    "funnel_sessions": Count(lambda of: of.funnel, pl.col("reached").sum()),
    "funnel_step_share": Count(
        lambda of: of.funnel,
        pl.when(pl.col("before").any()).then(pl.col("reached").sum() / pl.col("before").sum()),
    ),
    "funnel_share": Count(lambda of: of.funnel, pl.col("reached").mean()),
    "cohort_users": Count(lambda of: of.cohorts, (pl.col("days_since") == 0).sum()),
    "retained_users": Count(lambda of: of.cohorts, pl.len()),
    "retention_rate": Count(lambda of: of.cohorts, pl.len() / pl.col("size").first()),
    "new_users": Count(lambda of: of.active, (pl.col("days_since") == 0).sum()),
    "returning_users": Count(lambda of: of.active, (pl.col("days_since") > 0).sum()),
    "landed_rows": Count(lambda of: of.quality, pl.len(), _GOOD),
    "repeated_rows": Count(lambda of: of.quality, pl.col("repeat").sum()),
    "late_rows": Count(lambda of: of.quality, (pl.col("lag") > LATENESS).sum(), _GOOD),
    "late_share": Count(lambda of: of.quality, _share(pl.col("lag") > LATENESS), _GOOD),
    "lateness_p99": Count(lambda of: of.quality, _quantile("lag", 0.99), _GOOD),
    "lateness_longest": Count(lambda of: of.quality, pl.col("lag").max(), _GOOD),
    "last_landed": Count(lambda of: of.quality, pl.col("at").max(), _GOOD),
    "rejected_records": Count(lambda of: of.quality, pl.len(), ~_GOOD),
    "rejections": Count(lambda of: of.rejections, pl.len()),
}


def counted(count: Count, metric: Metric, question: Question, landed: Landed, *, live: bool) -> pl.DataFrame:
    """The answer to a question, in any order.

    Args:
        count: The metric as an expression.
        metric: Its definition, of which only the value without rows is used.
        question: The question.
        landed: The raw rows.
        live: Whether the rows of today count: the last build has not seen them.
    """
    now = _grouped(count, question, landed, (question.start, question.end), live)
    keys = [name for name in now.columns if name != "value"]
    found = now
    if question.compare:
        before = _grouped(count, question, landed, question.previous, live).rename({"value": "previous"})
        shift = question.shift
        if "window_start" in keys:
            moved = pl.col("window_start").dt.offset_by(f"{shift.months}mo{shift.seconds}s")
            before = before.with_columns(window_start=moved)
        if keys:
            found = now.join(before, on=keys, how="full", coalesce=True, nulls_equal=True)
        else:
            found = pl.concat([now, before], how="diagonal")
            if not found.is_empty():
                found = found.select(pl.all().drop_nulls().first())
    values = ["value", *(["previous"] if question.compare else [])]
    if metric.empty is not None:
        found = found.with_columns(pl.col(name).fill_null(metric.empty) for name in values)
        if not keys and found.is_empty():
            found = pl.DataFrame({name: [metric.empty] for name in values})
    return found.select(*keys, *values)


def _grouped(
    count: Count, question: Question, landed: Landed, within: tuple[datetime, datetime], live: bool
) -> pl.DataFrame:
    rows = count.rows(landed)
    rows = rows.filter(pl.col("time") >= within[0], pl.col("time") < within[1])
    if count.where is not None:
        rows = rows.filter(count.where)
    if not live:
        today = landed.now.replace(hour=0, minute=0, second=0, microsecond=0)
        rows = rows.filter(pl.col("time") < today)
    for name, values in question.filters:
        some = [one for one in values if one is not None]
        column = pl.col(name)
        if rows.schema[name].is_integer():
            column = column.cast(pl.Float64)
        rows = rows.filter(
            (column.is_in(some) & column.is_not_null()) | (column.is_null() & (None in values))
        )
    keys: list[pl.Expr | str] = [*question.dimensions]
    if question.window != "all":
        width = _WIDTHS[question.window]
        keys.insert(0, pl.col("time").dt.truncate(width).dt.cast_time_unit("ms").alias("window_start"))
    if not keys:
        return rows.select(value=count.value) if rows.height else pl.DataFrame(schema={"value": pl.Float64})
    return rows.group_by(keys).agg(value=count.value)
