"""Faults that checks must find beside live traffic, each planted behind Headrace's back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from headrace.core.errors import Conflict
from headrace.health.parity import parity
from headrace.streams.stream import Stream
from headrace.warehouse.server import Server

_RACES = Retrying(
    retry=retry_if_exception_type(Conflict), stop=stop_after_attempt(100), wait=wait_fixed(0.01), reraise=True
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: What is done.
        plant: Does it.
        check: Must be red by it.
        mend: Puts it right again, where that can be.
    """

    name: str
    plant: Callable[[Stream], None]
    check: str
    mend: Callable[[Stream], None]


def delete_a_row(stream: Stream) -> None:
    """Delete one row of the newest day from the raw table."""
    raw = f"{stream.settings.raw_database}.{stream.contract.table.name}"
    day = stream.contract.partition
    key = "_cursor, _offset, _index"
    [row] = stream.warehouse.query(
        f"SELECT {day}, {key} FROM {raw} WHERE _offset IS NOT NULL ORDER BY {day} DESC, _offset LIMIT 1"
    )
    Server(stream.settings).command(
        f"ALTER TABLE {raw} DELETE WHERE {day} = '{row[0]}' AND _cursor = '{row[1]}' AND _offset = {row[2]}"
        f" AND _index = {row[3]} SETTINGS mutations_sync = 2"
    )


def double_a_row(stream: Stream) -> None:
    """Insert one row of the newest day of the raw table again."""
    raw, day = f"{stream.settings.raw_database}.{stream.contract.table.name}", stream.contract.partition
    Server(stream.settings).command(
        f"INSERT INTO {raw} SELECT * FROM {raw} ORDER BY {day} DESC, _offset LIMIT 1"
    )


def skip_an_offset(stream: Stream) -> None:
    """Move a cursor of the lake past a message that has not landed."""
    source = next(spec.name for spec in stream.pipeline.sources if spec.kind == "kafka")
    cursor = stream.source(source).cursors()[0]
    for attempt in _RACES:
        with attempt:
            tables = stream.lake.rejected.open(), stream.lake.good.open()
            position = tables[1].position([cursor]).get(cursor, 0)
            for table, of in zip(tables, (stream.lake.rejected, stream.lake.good), strict=True):
                empty = of.stage()
                ahead = max(position + 1, table.position([cursor]).get(cursor, 0))
                table.append(empty, {cursor: ahead}, "skipped")


def rebuild(stream: Stream) -> None:
    """Replace the days that differ from the lake."""
    list(stream.replace_days(parity(stream).different))


FAULTS = (
    Fault("a row of the raw table deleted", delete_a_row, "parity_with_lake", rebuild),
    Fault("a row of the raw table doubled", double_a_row, "parity_with_lake", rebuild),
    Fault("an offset skipped in the lake", skip_an_offset, "every_message_once", lambda _: None),
)

__all__ = ["FAULTS", "Fault"]
