"""Every mart computed anew in Polars and plain Python, from raw rows: what the models must agree with, to the row.

Written apart from the models: event by event where they use window functions, and without their macros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

from headrace.contracts.base import Contract
from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS
from headrace.core.batch import STRING_MAP

ORDER_OF_ARRIVAL = ["_ingested_at", "_cursor", "_offset", "_message_id", "_index"]
CONVERSIONS = ("purchase", "signup", "order")
FUNNEL = (
    ("visit", ("page_view", "screen_view", "page_load", "app_open")),
    ("cart", ("add_to_cart",)),
    ("purchase", ("purchase", "order")),
)
ROLLUPS = (3_600, 86_400)
Row = dict[str, Any]
#: Day, time and value of a measurement.
Reading = tuple[date, datetime, float]


@dataclass(frozen=True)
class Oracle:
    """The marts of some raw rows.

    Attributes:
        raw_events, raw_metrics: Rows in the landed schema of their contracts.
        seconds: Width of the marts' windows.
        slow_ms: Threshold of a slow event.
        lookaround: Days that a session may go on after the day it starts.
        processing: Rows are placed by ``_ingested_at`` instead of ``occurred_at``.
        repeat_days: Days that two rows with one id are apart at most, of which the first counts alone.
    """

    raw_events: pl.DataFrame
    raw_metrics: pl.DataFrame
    seconds: int = 60
    slow_ms: float = 2_500.0
    lookaround: int = 1
    processing: bool = False
    repeat_days: int = 7

    def mart(self, name: str) -> pl.DataFrame:
        """A mart by its name."""
        found = getattr(self, name)
        return found if isinstance(found, pl.DataFrame) else found()

    def _first(self, raw: pl.DataFrame, contract: Contract) -> pl.DataFrame:
        """Each id once within ``repeat_days``, arrival by arrival, placed in time; copies of one origin are one."""
        day = contract.partition
        arrived = raw.sort(ORDER_OF_ARRIVAL, nulls_last=True).unique(
            [contract.key, day, *ORDER_OF_ARRIVAL], keep="first", maintain_order=True
        )
        days: dict[str, list[date]] = {}
        counts = []
        for key, on in arrived.select(contract.key, day).iter_rows():
            before = days.setdefault(key, [])
            counts.append(all(abs((on - other).days) > self.repeat_days for other in before))
            before.append(on)
        once = arrived.filter(pl.Series(counts, dtype=pl.Boolean))
        time = "_ingested_at" if self.processing else "occurred_at"
        return once.with_columns(window_time=pl.col(time), **{day: pl.col(time).dt.date()})

    @cached_property
    def events(self) -> pl.DataFrame:
        """Deduplicated events in order of time."""
        page = pl.coalesce(pl.col("page_url").str.replace(r"[?#].*$", ""), "screen_name")
        return (
            self._first(self.raw_events, EVENTS)
            .with_columns(page=page)
            .sort("window_time", "event_id", "occurred_at")
        )

    @cached_property
    def metrics(self) -> pl.DataFrame:
        """Deduplicated measurements in order of time."""
        return self._first(self.raw_metrics, METRICS).sort("window_time", "metric_id", "value")

    @cached_property
    def events_history(self) -> pl.DataFrame:
        """The mart of this name."""
        return self.events

    @property
    def event_metrics(self) -> pl.DataFrame:
        """The mart of this name."""
        return self._event_windows([self.seconds])

    @property
    def event_metrics_rollups(self) -> pl.DataFrame:
        """The mart of this name."""
        return self._event_windows(ROLLUPS)

    def _event_windows(self, widths: Iterable[int]) -> pl.DataFrame:
        keys = ["event_date", "window_start", "window_seconds", "event_type", "channel"]
        return pl.concat(
            _windowed(self.events, seconds)
            .group_by(keys)
            .agg(
                events=pl.len(),
                unique_users=pl.col("user_id").drop_nulls().n_unique(),
                unique_sessions=pl.col("session_id").n_unique(),
            )
            for seconds in widths
        )

    @property
    def performance_metrics(self) -> pl.DataFrame:
        """The mart of this name."""
        return self._performance_windows([self.seconds])

    @property
    def performance_metrics_rollups(self) -> pl.DataFrame:
        """The mart of this name."""
        return self._performance_windows(ROLLUPS)

    def _performance_windows(self, widths: Iterable[int]) -> pl.DataFrame:
        took = pl.col("duration_ms")
        timed = self.events.filter(took.is_not_null()).with_columns(pl.col("page").fill_null(""))
        keys = ["event_date", "window_start", "window_seconds", "page", "channel"]
        return pl.concat(
            _windowed(timed, seconds)
            .group_by(keys)
            .agg(
                events=pl.len(),
                **{f"p{p}_ms": took.quantile(p / 100, interpolation="linear") for p in (50, 75, 95, 99)},
                max_ms=took.max(),
                slow_ms=pl.lit(float(self.slow_ms)),
                slow_events=(took > self.slow_ms).sum(),
                slow_share=(took > self.slow_ms).mean(),
            )
            for seconds in widths
        )

    @cached_property
    def session_metrics(self) -> pl.DataFrame:
        """The mart of this name, event by event."""
        rows: dict[tuple[date, str], list[Row]] = {}
        start: dict[str, date] = {}
        before: dict[str, date] = {}
        read = ("session_id", "event_date", "window_time", "event_type", "channel", "user_id", "page")
        for event in self.events.select(read).iter_rows(named=True):
            session, day = event["session_id"], event["event_date"]
            if session not in before or (day - before[session]).days > self.lookaround:
                start[session] = day
            before[session] = day
            filed = start[session] if (day - start[session]).days <= self.lookaround else day
            rows.setdefault((filed, session), []).append(event)
        made = [_session(*key, its) for key, its in rows.items()]
        return pl.DataFrame(made, infer_schema_length=None)

    @property
    def conversion_funnel(self) -> pl.DataFrame:
        """The mart of this name."""
        counts: dict[tuple[date, str], list[int]] = {}
        sessions = self.session_metrics.select("session_date", "channel", "funnel_step")
        for day, channel, furthest in sessions.iter_rows():
            reached = counts.setdefault((day, channel), [0] * (len(FUNNEL) + 1))
            for step in range(furthest + 1):
                reached[step] += 1
        made = [
            {
                "session_date": day,
                "channel": channel,
                "step": step,
                "step_name": FUNNEL[step - 1][0],
                "sessions": reached[step],
                "sessions_before": reached[step - 1],
                "all_sessions": reached[0],
                "share_of_previous_step": reached[step] / reached[step - 1] if reached[step - 1] else None,
                "share_of_sessions": reached[step] / reached[0],
            }
            for (day, channel), reached in counts.items()
            for step in range(1, len(FUNNEL) + 1)
        ]
        return pl.DataFrame(made, infer_schema_length=None)

    @property
    def users_latest(self) -> pl.DataFrame:
        """The mart of this name, its rows merged."""
        known = self.events.filter(pl.col("user_id").is_not_null())
        return _latest(known, "user_id", last_session_id=pl.col("session_id"))

    @property
    def sessions_latest(self) -> pl.DataFrame:
        """The mart of this name, its rows merged."""
        return _latest(self.events, "session_id", user_id=pl.col("user_id"))

    @property
    def users_current(self) -> pl.DataFrame:
        """The view of this name."""
        return self.users_latest

    @property
    def sessions_current(self) -> pl.DataFrame:
        """The view of this name."""
        return self.sessions_latest

    @property
    def user_days(self) -> pl.DataFrame:
        """The mart of this name, its rows merged."""
        known = self.events.filter(pl.col("user_id").is_not_null())
        return known.select("user_id", activity_date="event_date").unique()

    @property
    def cohort_days(self) -> pl.DataFrame:
        """The mart of this name."""
        active: dict[str, set[date]] = {}
        for user, day in self.user_days.select("user_id", "activity_date").iter_rows():
            active.setdefault(user, set()).add(day)
        users = Counter((day, min(days)) for days in active.values() for day in days)
        made = [{"activity_date": d, "cohort_date": first, "users": n} for (d, first), n in users.items()]
        return pl.DataFrame(made, infer_schema_length=None)

    @property
    def daily_active_users(self) -> pl.DataFrame:
        """The mart of this name."""
        first = pl.col("activity_date").min().over("user_id")
        return (
            self.user_days.with_columns(new=pl.col("activity_date") == first)
            .group_by("activity_date")
            .agg(active_users=pl.len(), new_users=pl.col("new").sum(), returning_users=(~pl.col("new")).sum())
        )

    @property
    def user_retention(self) -> pl.DataFrame:
        """The mart of this name."""
        active: dict[str, set[date]] = {}
        for user, day in self.user_days.select("user_id", "activity_date").iter_rows():
            active.setdefault(user, set()).add(day)
        size: Counter[date] = Counter(min(days) for days in active.values())
        came: Counter[tuple[date, int]] = Counter(
            (min(days), (day - min(days)).days) for days in active.values() for day in days
        )
        made = [
            {
                "cohort_date": cohort,
                "days_since": since,
                "cohort_users": size[cohort],
                "retained_users": users,
                "retained_share": users / size[cohort],
            }
            for (cohort, since), users in came.items()
            if since <= 30
        ]
        return pl.DataFrame(made, infer_schema_length=None)

    @property
    def metric_windows(self) -> pl.DataFrame:
        """The mart of this name, reading by reading; dimensions as text."""
        return self._metric_windows([self.seconds])

    @property
    def metric_windows_rollups(self) -> pl.DataFrame:
        """The mart of this name; dimensions as text."""
        return self._metric_windows(ROLLUPS)

    def _metric_windows(self, widths: Iterable[int]) -> pl.DataFrame:
        ordered = self.metrics
        labels = [",".join(sorted(f"{d['key']}={d['value']}" for d in ds)) for ds in ordered["dimensions"]]
        of_series = ordered.select("name", "kind", pl.col("unit").fill_null(""), "source").rows()
        readings = ordered.select("metric_date", "window_time", "value").rows()
        made = []
        for seconds in widths:
            rows: dict[tuple[Any, ...], list[tuple[Reading, Reading | None]]] = {}
            before: dict[tuple[Any, ...], Reading] = {}
            starts = _windowed(ordered, seconds)["window_start"].to_list()
            for reading, start, named, label in zip(readings, starts, of_series, labels, strict=True):
                series = (*named, label)
                earlier = before.get(series)
                far = earlier is None or (reading[0] - earlier[0]).days > self.lookaround
                rows.setdefault((reading[0], start, seconds, *series), []).append(
                    (reading, None if far else earlier)
                )
                before[series] = reading
            made += [_metric_window(key, its) for key, its in rows.items()]
        return pl.DataFrame(made, infer_schema_length=None)


def _windowed(rows: pl.DataFrame, seconds: int) -> pl.DataFrame:
    return rows.with_columns(
        window_start=pl.col("window_time").dt.truncate(f"{seconds}s").dt.cast_time_unit("ms"),
        window_seconds=pl.lit(seconds, pl.UInt32),
    )


def _latest(events: pl.DataFrame, key: str, **other: pl.Expr) -> pl.DataFrame:
    """State of the last event of each key; ``events`` are in order of time."""
    last = events.unique(key, keep="last", maintain_order=True)
    return last.select(
        key,
        last_seen_at="window_time",
        last_event_id="event_id",
        last_event_type="event_type",
        last_channel="channel",
        last_device_id="device_id",
        last_page="page",
        **other,
    )


def _session(day: date, session: str, its: Sequence[Row]) -> Row:
    pages = [e["page"] for e in its if e["page"] is not None]
    users = [e["user_id"] for e in its if e["user_id"] is not None]
    step = 0
    for event in its:
        if step < len(FUNNEL) and event["event_type"] in FUNNEL[step][1]:
            step += 1
    started, ended = its[0]["window_time"], its[-1]["window_time"]
    return {
        "session_date": day,
        "session_id": session,
        "started_at": started,
        "ended_at": ended,
        "duration_seconds": (ended - started) / timedelta(microseconds=1) / 1e6,
        "channel": its[0]["channel"],
        "user_id": users[-1] if users else None,
        "events": len(its),
        "pages": len(set(pages)),
        "entry_page": pages[0] if pages else None,
        "exit_page": pages[-1] if pages else None,
        "is_bounce": len(its) == 1,
        "conversions": sum(e["event_type"] in CONVERSIONS for e in its),
        "funnel_step": step,
    }


def _metric_window(key: tuple[Any, ...], its: Sequence[tuple[Reading, Reading | None]]) -> Row:
    day, window, seconds, name, kind, unit, source, labels = key
    values = [value for (_, _, value), _ in its]
    total, increase = 0.0, None
    for value in values:
        total += value
    if kind == "counter":
        for (_, _, value), earlier in its:
            if earlier is not None:
                step = value if value < earlier[2] else value - earlier[2]  # below: it started again
                increase = (increase or 0.0) + step
    (_, first, _), earlier = its[0]
    elapsed = (its[-1][0][1] - (earlier[1] if earlier else first)) / timedelta(seconds=1)
    spread = pl.Series(values) if kind == "histogram" else None
    return {
        "metric_date": day,
        "window_start": window,
        "window_seconds": seconds,
        "metric_name": name,
        "kind": kind,
        "unit": unit,
        "source": source,
        "dimensions": labels,
        "measurements": len(values),
        "sum_value": total,
        "min_value": min(values),
        "max_value": max(values),
        "avg_value": total / len(values),
        "last_value": values[-1],
        "increase": increase,
        "rate_per_second": increase / elapsed if increase is not None and elapsed > 0 else None,
        "p50_value": None if spread is None else spread.quantile(0.5, "linear"),
        "p75_value": None if spread is None else spread.quantile(0.75, "linear"),
        "p95_value": None if spread is None else spread.quantile(0.95, "linear"),
        "p99_value": None if spread is None else spread.quantile(0.99, "linear"),
    }


def assert_equal(mart: pl.DataFrame, wanted: pl.DataFrame) -> None:
    """A mart has exactly the oracle's rows; floats that depend on an order of adding agree to 12 digits."""
    if "dimensions" in mart.columns:  # a map: as text, in its own order, which is that of the names
        pairs = pl.element().struct["key"] + "=" + pl.element().struct["value"]
        mart = mart.with_columns(pl.col("dimensions").cast(STRING_MAP).list.eval(pairs).list.join(","))
    wanted = wanted.select(mart.columns)
    key = [name for name, dtype in mart.schema.items() if not dtype.is_float()]
    assert_frame_equal(mart.sort(key), wanted.sort(key), check_dtypes=False, rel_tol=1e-12, abs_tol=1e-12)
