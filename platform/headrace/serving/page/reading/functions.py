"""The functions that the reading process runs; each opens what it needs and closes it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import polars as pl

from headrace.config.settings import Settings
from headrace.core.batch import ORIGIN_SCHEMA
from headrace.core.errors import BadData, HeadraceError
from headrace.lake.delta import DeltaLakeTable, browse
from headrace.serving.page.reading import exports
from headrace.serving.page.reading.conditions import expression
from headrace.serving.page.seen import (
    CheckSeen,
    ColumnSeen,
    DifferenceSeen,
    EventSeen,
    FileSeen,
    FilesSeen,
    HealthSeen,
    RowsSeen,
    StreamSeen,
    TableSeen,
    VersionSeen,
    VersionsSeen,
    Which,
)
from headrace.serving.page.words import cell
from headrace.streams.stream import Stream, streams

#: Characters of a value in a table of rows, and of a payload.
_CELL, _PAYLOAD = 500, 20_000
_DATED = "%Y-%m-%d"


def opened(settings: Settings) -> Settings:
    """Return what each function is given."""
    return settings


@contextmanager
def _streams(settings: Settings) -> Iterator[dict[str, Stream]]:
    found = streams(settings, retry=False)
    try:
        yield found
    finally:
        for stream in found.values():
            stream.close()


@contextmanager
def _table(settings: Settings, name: str) -> Iterator[DeltaLakeTable]:
    """Open a table by its name, which is one of those that the streams have: no path is made of it."""
    with _streams(settings) as found:
        every = {t.table.name: t for s in found.values() for t in (s.lake.good, s.lake.rejected)}
        if name not in every:
            raise BadData(f"there is no table {name!r}; there are: {', '.join(sorted(every))}")
        yield every[name]


def _over(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def tables(settings: Settings) -> list[TableSeen]:
    """Look at every table."""
    found = []
    with _streams(settings) as opened_streams:
        for stream in opened_streams.values():
            for table, rejected in ((stream.lake.good, False), (stream.lake.rejected, True)):
                found.append(_seen(table, stream.name, rejected))
    return found


def _seen(table: DeltaLakeTable, stream: str, rejected: bool) -> TableSeen:
    name = table.table.name
    try:
        if not table.exists():
            return TableSeen(name, stream, rejected)
        extent, handle = table.extent(), table.newest()
        return TableSeen(
            name,
            stream,
            rejected,
            True,
            extent.rows,
            extent.bytes,
            extent.files,
            handle.version(),
            table.latest(),
            len(table.counts_by_day()),
        )
    except HeadraceError as error:
        return TableSeen(name, stream, rejected, wrong=str(error))


def versions(settings: Settings, name: str, most: int) -> VersionsSeen:
    """List versions of a table; none before anything has landed."""
    with _table(settings, name) as table:
        if not table.exists():
            return VersionsSeen((), 0, 0)
        found = table.versions(most)
    listed = tuple(VersionSeen(v.version, v.at, v.rows, v.daily, v.changed) for v in found.listed)
    return VersionsSeen(listed, found.first, found.newest)


def files(settings: Settings, name: str, most: int) -> FilesSeen:
    """List files of a table, the newest ``most`` of them."""
    with _table(settings, name) as table:
        if not table.exists():
            return FilesSeen(0, 0, (), ())
        found = browse.files_of(table)
    by_day = found.group_by("day").agg(pl.len(), pl.col("rows").sum(), pl.col("bytes").sum())
    days = tuple((d, n, r, b) for d, n, r, b in by_day.sort("day", descending=True).iter_rows())
    listed = tuple(FileSeen(*row) for row in found.head(most).iter_rows())
    return FilesSeen(found.height, int(found["bytes"].sum()), days, listed)


def columns(settings: Settings, name: str) -> list[ColumnSeen]:
    """List the columns of a table as they are read."""
    with _table(settings, name) as table:
        shape = table.shape() if table.exists() else table.table
    return [
        ColumnSeen(
            one,
            type_name(dtype),
            " ".join(shape.comments.get(one, "").split()),
            one in shape.nullable,
            one in ORIGIN_SCHEMA,
        )
        for one, dtype in shape.schema.items()
    ]


def type_name(dtype: Any) -> str:
    """Write a dtype as people read it."""
    if isinstance(dtype, pl.Datetime):
        return "timestamp (UTC)" if dtype.time_zone else "timestamp"
    if isinstance(dtype, pl.List):
        inner = dtype.inner
        if isinstance(inner, pl.Struct) and [f.name for f in inner.fields] == ["key", "value"]:
            return f"map of text to {type_name(inner.fields[1].dtype)}"
        return f"list of {type_name(inner)}"
    if isinstance(dtype, pl.Struct):
        return f"struct ({', '.join(f'{f.name}: {type_name(f.dtype)}' for f in dtype.fields)})"
    plain = {"String": "text", "Binary": "bytes", "Boolean": "boolean", "Float64": "double"}
    return plain.get(str(dtype), str(dtype).lower())


def rows(settings: Settings, which: Which, most: int, seconds: float) -> RowsSeen:
    """Read the newest rows that are asked for, within so many seconds."""
    with _table(settings, which.table) as table:
        if not table.exists():
            return RowsSeen((), ())
        found = browse.newest_rows(
            table,
            most,
            expression(which.conditions, table.shape()),
            version=which.version,
            moment=which.moment,
            days=None if which.day is None else [which.day],
            over=_over(seconds),
        )
    shown = _texts(found.rows)
    return RowsSeen(
        shown.columns,
        shown.rows,
        found.looked_at,
        found.matching,
        found.files,
        found.of_files,
        found.enough,
    )


def _texts(frame: pl.DataFrame) -> RowsSeen:
    written = tuple(
        tuple(None if value is None else _cut(cell(value), _CELL) for value in row)
        for row in frame.iter_rows()
    )
    return RowsSeen(tuple(frame.columns), written)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def difference(settings: Settings, name: str, before: int, after: int, most: int) -> DifferenceSeen:
    """Compare two versions of a table."""
    with _table(settings, name) as table:
        found = browse.difference(table, before, after, most)
    return DifferenceSeen(
        before,
        after,
        found.files_added,
        found.files_removed,
        tuple((day, *pair) for day, pair in found.days.items()),
        tuple((name, *pair) for name, pair in found.columns.items()),
        found.rows_added,
        found.rows_removed,
        _texts(found.added),
        _texts(found.removed),
    )


def export(settings: Settings, which: Which, form: str) -> Iterator[bytes]:
    """Write all rows that are asked for, as ``csv`` or ``parquet``, piece by piece."""
    with _table(settings, which.table) as table:
        if not table.exists():
            raise BadData(f"{which.table}: nothing has landed yet")
        shape = table.shape()
        condition = expression(which.conditions, shape)
        batches = table.batches_of(
            version=which.version,
            moment=which.moment,
            days=None if which.day is None else [which.day],
            at_once=exports.BATCH_ROWS,
        )
        chosen = (one if condition is None else one.filter(condition) for one in batches)
        yield from exports.WRITERS[form](chosen, shape)


def newest_events(settings: Settings, most: int, seconds: float) -> list[EventSeen]:
    """Read the newest rows of all streams, good and rejected, the newest first."""
    found: list[EventSeen] = []
    with _streams(settings) as opened_streams:
        for stream in opened_streams.values():
            for table, rejected in ((stream.lake.good, False), (stream.lake.rejected, True)):
                if not table.exists():
                    continue
                newest = browse.newest_rows(table, most, over=_over(seconds))
                make = _rejected if rejected else _good
                found += [make(stream.name, row) for row in newest.rows.iter_rows(named=True)]
    return sorted(found, key=lambda one: one.at, reverse=True)[: 2 * most]


_LABELS = ("event_type", "name")


def _good(stream: str, row: dict[str, Any]) -> EventSeen:
    own = {name: value for name, value in row.items() if value is not None and not name.startswith("_")}
    label = next((str(own[name]) for name in _LABELS if name in own), next(iter(own), ""))
    said = [f"{name}: {cell(value)}" for name, value in own.items()]
    texts = [value for name, value in own.items() if isinstance(value, str) and not name.endswith("_id")]
    numbers = [cell(value) for value in own.values() if isinstance(value, float)]
    detail = " · ".join(one for one in dict.fromkeys([*texts, *numbers]) if one != label and len(one) < 60)
    return EventSeen(
        row["_ingested_at"].astimezone(UTC),
        stream,
        row["_source"],
        label,
        detail,
        _cut("\n".join(said), _PAYLOAD),
    )


def _rejected(stream: str, row: dict[str, Any]) -> EventSeen:
    reasons = tuple(
        (str(r["check"] or ""), str(r["column"] or ""), _cut(str(r["value"] or ""), 200))
        for r in row["reasons"] or ()
    )
    label = ", ".join(
        dict.fromkeys(f"{column}: {check}" if column else check for check, column, _ in reasons)
    )
    payload = row["payload"]
    text = "" if payload is None else payload.decode(errors="backslashreplace")
    return EventSeen(
        row["_ingested_at"].astimezone(UTC),
        stream,
        row["_source"],
        label or "rejected",
        " ".join(text.split())[:200],
        _cut(text, _PAYLOAD),
        reasons or (("rejected", "", ""),),
    )


def health(settings: Settings) -> HealthSeen:
    """Examine the installation as ``headrace status`` does."""
    from headrace.health.status import examine

    with _streams(settings) as opened_streams:
        found = examine(opened_streams.values(), settings)
    seen = tuple(
        StreamSeen(
            s.stream,
            s.sources,
            s.last_landed,
            s.lake_rows,
            s.rejected_rows,
            s.unpublished_versions,
            s.touched_days,
            s.touched_since,
            s.problems,
            s.warnings,
        )
        for s in found.streams
    )
    checks = None
    if found.checks is not None:
        checks = tuple(
            CheckSeen(c.asset, c.name, c.passed, c.severity, c.said, c.at)
            for c in sorted(found.checks, key=lambda c: (c.passed, c.severity, c.asset, c.name))
        )
    return HealthSeen(seen, checks, tuple(found.problems))


def now() -> datetime:
    """Return the time (UTC)."""
    return datetime.now(UTC)
