"""Days: the partitions of everything in the warehouse."""

from __future__ import annotations

from datetime import date

from dagster import AssetExecutionContext, DailyPartitionsDefinition

from headrace.core.days import days_between

#: Tags of a run over a range of days, both inclusive, as Dagster's own backfills set them.
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def daily(begin: date) -> DailyPartitionsDefinition:
    """Make partitions of the UTC days from ``begin`` to tomorrow, which clocks that run ahead may reach."""
    return DailyPartitionsDefinition(start_date=begin.isoformat(), end_offset=2)


def days_of(context: AssetExecutionContext) -> list[date]:
    """List the days that a run was asked for."""
    window = context.partition_time_window
    return days_between(window.start.date(), window.end.date())[:-1]
