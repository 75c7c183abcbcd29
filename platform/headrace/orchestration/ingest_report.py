"""The report of an ingest run to Dagster: its progress, the days that it has published, its outcome.

Each line that a run logs, and each asset that it reports, is a row of Dagster's database. So it logs a line a minute at
most, and reports a day once.
"""

# no `from __future__ import annotations`: as everywhere beside assets

import time
from collections.abc import Iterator
from datetime import date

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
)

from headrace.contracts.unknown import added
from headrace.core.errors import HeadraceError
from headrace.lake import Extent
from headrace.orchestration import metadata
from headrace.orchestration.runtime.materializations import report_materializations
from headrace.streams.drain import Step
from headrace.streams.stream import Stream

_LINE_SECONDS = 60.0


class IngestReport:
    """The report of one run.

    Attributes:
        totals: Progress of each source so far.
        lake: Asset of the lake table.
        warehouse: Asset of the warehouse table, by day.
        rejected: Asset of the warehouse table of rejected rows.
    """

    def __init__(
        self, context: AssetExecutionContext, lake: AssetKey, warehouse: AssetKey, rejected: AssetKey
    ) -> None:
        self.lake, self.warehouse, self.rejected = lake, warehouse, rejected
        self.totals: dict[str, Step] = {}
        self._context = context
        self._began = self._last = time.monotonic()
        self._said_at = float("-inf")
        self._pace: list[float] = []
        self._days: set[date] = set()

    def step(self, name: str, step: Step, stream: Stream) -> None:
        """Take note of a step. A step without messages, of a run that has caught up and stays, reports the days."""
        before, now = self.totals.get(name), time.monotonic()
        came = step.landed.messages - (before.landed.messages if before else 0)
        if came:
            self._pace.append(came / max(now - self._last, 1e-9))
        self.totals[name], self._last = step, now
        if came and now - self._said_at >= _LINE_SECONDS:
            self._say(name, now)
        if not came and self._new_days():
            self._tell_days(stream)

    def source_done(self, name: str) -> None:
        """Log the outcome of a source."""
        for why in self.totals[name].landed.refused:
            self._context.log.error(why)
        for line in self.totals[name].landed.ahead:
            self._context.log.warning(line)
        self._say(name, time.monotonic())
        self._said_at = float("-inf")

    def _say(self, name: str, now: float) -> None:
        got, self._said_at = self.totals[name].landed, now
        erased = f", {got.erased:,} dropped of people who were erased" if got.erased else ""
        self._context.log.info(
            f"{name}: {got.messages:,} messages, {got.good:,} rows landed, {got.rejected:,} rejected{erased}"
        )

    def _new_days(self) -> set[date]:
        return {day for step in self.totals.values() for day in step.published.days} - self._days

    def _tell_days(self, stream: Stream) -> None:
        version, extent = stream.lake.good.open().version, stream.lake.good.extent()
        shown = {**_size(extent), "lake_version": MetadataValue.int(version)}
        self._report([AssetMaterialization(self.lake, metadata=shown), *self._by_day(stream, version)])

    def _by_day(self, stream: Stream, version: int) -> Iterator[AssetMaterialization]:
        new = self._new_days()
        self._days |= new
        rows = _warehouse_rows(stream) if new else {}
        for day in sorted(new):
            shown = {"lake_version": MetadataValue.int(version)}
            if rows:
                shown["dagster/row_count"] = MetadataValue.int(sum(rows.values()))
                shown["dagster/partition_row_count"] = MetadataValue.int(rows.get(day, 0))
            yield AssetMaterialization(self.warehouse, partition=day.isoformat(), metadata=shown)

    def _report(self, made: list[AssetMaterialization]) -> None:
        report_materializations(self._context.op_execution_context, made)

    def end(self, stream: Stream, offsets: dict[str, int]) -> dict[str, MetadataValue]:
        """Report the days that are not reported yet; returns the metadata of the lake table."""
        version, extent = stream.lake.good.open().version, stream.lake.good.extent()
        rejected = sum(step.landed.rejected for step in self.totals.values())
        made = [*self._by_day(stream, version)]
        if rejected:
            stream.lake.rejected.open()
            shown = {"dagster/row_count": stream.lake.rejected.extent().rows, "rejected": rejected}
            made.append(AssetMaterialization(self.rejected, metadata=shown))
        self._report(made)
        found = _metadata(self.totals, version, extent, time.monotonic() - self._began)
        found["throughput"] = metadata.sparkline(self._pace, "messages/s, batch by batch")
        if offsets:
            found["offsets"] = _offsets(offsets)
        return found


def _warehouse_rows(stream: Stream) -> dict[date, int]:
    """Count the rows by day; gives none if the warehouse does not answer."""
    try:
        return stream.warehouse_counts()
    except HeadraceError:
        return {}


def _size(extent: Extent) -> dict[str, MetadataValue]:
    return {
        "dagster/row_count": MetadataValue.int(extent.rows),
        "size_bytes": MetadataValue.int(extent.bytes),
        "files": MetadataValue.int(extent.files),
    }


def _metadata(
    totals: dict[str, Step], version: int, extent: Extent, seconds: float
) -> dict[str, MetadataValue]:
    messages = sum(s.landed.messages for s in totals.values())
    gaps = [str(gap) for s in totals.values() for gap in s.landed.gaps]
    found: dict[str, MetadataValue] = {
        **_size(extent),
        "lake_version": MetadataValue.int(version),
        "messages": MetadataValue.int(messages),
        "landed_rows": MetadataValue.int(sum(s.landed.good for s in totals.values())),
        "rejected": MetadataValue.int(sum(s.landed.rejected for s in totals.values())),
        "repeated": MetadataValue.int(sum(s.landed.repeated for s in totals.values())),
        "erased": MetadataValue.int(sum(s.landed.erased for s in totals.values())),
        "published_rows": MetadataValue.int(sum(s.published.rows for s in totals.values())),
        "messages_per_second": MetadataValue.float(round(messages / max(seconds, 1e-9), 1)),
    }
    if gaps:
        found["lost_offsets"] = MetadataValue.md("\n".join(f"- `{gap}`" for gap in gaps))
    unknown = added(*(s.landed.unknown for s in totals.values()))
    if unknown:
        found["unknown_fields"] = MetadataValue.json(unknown)
    ahead = dict.fromkeys(line for s in totals.values() for line in s.landed.ahead)
    if ahead:
        found["newer_contract"] = MetadataValue.text("; ".join(ahead))
    refused = [why for s in totals.values() for why in s.landed.refused]
    if refused:
        found["refused_files"] = MetadataValue.md("\n".join(f"- {why}" for why in refused))
    return found


def _offsets(offsets: dict[str, int]) -> MetadataValue:
    schema = TableSchema([TableColumn("cursor", "string"), TableColumn("next_offset", "int")])
    records = [TableRecord({"cursor": c, "next_offset": n}) for c, n in sorted(offsets.items())]
    return MetadataValue.table(records, schema)
