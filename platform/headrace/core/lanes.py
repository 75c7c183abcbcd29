"""Messages that their sender numbers, so that it may send them again without their landing twice.

A sender divides what it sends of a stream into lanes. A message says its lane, its number there, and from which number
on it follows: every message of the lane with a lower number than that is to land first. So a message that was sent
twice, or overtook one that the broker lost, is told from one that is next
(docs/adr/0052). The number is in headers, and becomes the message's id.

A queue keeps no order, so a lane has one message on its way there, which holds everything from its position on up to
its number: a bundle. It lands only at exactly that position (docs/adr/0054).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from headrace.core.batch import MicroBatch

#: Header with the id of a sender's log and the lane, ``<log>/<lane>``.
LANE = "headrace-log"
#: Header with the number from which on the message follows, and its own: ``<follows>-<number>``, of a bundle
#: ``<follows>+<number>``.
SEQUENCE = "headrace-sequence"
#: Beginning of the cursors of lanes, and of the ids of their messages.
CURSOR = "http/"

#: Columns of ``MicroBatch.lanes``, null for messages without a number.
LANE_SCHEMA = pl.Schema({"lane": pl.String, "follows": pl.Int64, "number": pl.Int64, "bundle": pl.Boolean})

_LANE = re.compile(r"[0-9a-f]{16}/[0-9]{1,5}")
_SEQUENCE = r"^([0-9]{1,18})([-+])([0-9]{1,18})$"


def cursor_of(log: str, lane: int) -> str:
    """Return the cursor of a lane: its position in the lake is the number after the last that landed."""
    return f"{CURSOR}{log}/{lane}"


def message_id(log: str, lane: int, number: int) -> str:
    """Return the id of a message."""
    return f"{cursor_of(log, lane)}/{number}"


def headers(
    log: str, lane: int, follows: int, number: int, *, bundle: bool = False
) -> list[tuple[str, bytes]]:
    """Return the headers of a message.

    Args:
        log: Id of the sender's log.
        lane: The lane.
        follows: Number from which on it follows.
        number: Its number; of a bundle, that of the last that it holds.
        bundle: Whether it holds all of the lane from ``follows`` on.
    """
    sign = b"+" if bundle else b"-"
    return [(LANE, b"%s/%d" % (log.encode(), lane)), (SEQUENCE, b"%d%s%d" % (follows, sign, number))]


def numbered(records: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Read the numbers out of the headers of messages.

    Args:
        records: ``RECORD_SCHEMA``.

    Returns:
        The records, with the ids of those that have numbers, and ``LANE_SCHEMA``, one row per record; None where
        no message has a number. Headers that are no number of ours mean nothing.
    """
    headers_of = records["headers"]
    if headers_of.null_count() == len(headers_of):
        return records, None
    values = (
        pl.select(row=pl.int_range(len(headers_of), dtype=pl.UInt32), header=headers_of)
        .drop_nulls("header")
        .explode("header")
        .unnest("header")
        .filter(pl.col("key").is_in([LANE, SEQUENCE]))
    )
    if not values.height:
        return records, None
    values = values.with_columns(_text(values["value"]))
    lanes = values.filter(pl.col("key") == LANE).unique("row", keep="first", maintain_order=True)
    numbers = values.filter(pl.col("key") == SEQUENCE).unique("row", keep="first", maintain_order=True)
    parts = pl.col("value_right").str.extract_groups(_SEQUENCE).struct
    found = (
        lanes.join(numbers, on="row")
        .filter(pl.col("value").str.contains(f"^{_LANE.pattern}$"))
        .select(
            "row",
            lane=CURSOR + pl.col("value"),
            follows=parts.field("1").cast(pl.Int64),
            number=parts.field("3").cast(pl.Int64),
            bundle=parts.field("2") == "+",
        )
        .drop_nulls()
    )
    every = pl.select(row=pl.int_range(len(headers_of), dtype=pl.UInt32))
    whole = every.join(found, on="row", how="left", maintain_order="left").select(LANE_SCHEMA.names())
    if not found.height:
        return records, None
    ids = whole.select(id=pl.concat_str("lane", pl.lit("/"), "number"))["id"]  # null where the lane is
    return records.with_columns(message_id=pl.coalesce(ids, pl.col("message_id"))), whole


def once_each(records: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Leave out messages of a queue that came several times within a batch, and read the numbers of the others.

    Those with a number are not looked up among what has landed: the positions of their lanes tell.

    Args:
        records: ``RECORD_SCHEMA``.

    Returns:
        As ``numbered`` does.
    """
    records, lanes = numbered(records)
    first = records["message_id"].is_first_distinct()
    if lanes is None:
        return records.filter(first), None
    known = pl.col("redelivered") & lanes["lane"].is_null()
    return records.with_columns(redelivered=known).filter(first), lanes.filter(first)


def _text(values: pl.Series) -> pl.Series:
    try:
        return values.cast(pl.String)
    except pl.exceptions.PolarsError:  # others may use the names, too
        texts = [None if value is None else value.decode(errors="replace") for value in values]
        return pl.Series(values.name, texts, pl.String)


@dataclass(frozen=True, slots=True)
class Taken:
    """Which messages of a batch are next in their lanes.

    Attributes:
        left_out: ``_cursor`` and ``_offset`` of the messages that are not, and have offsets.
        ids_out: ``_message_id`` of the messages that are not, and have none.
        again: How many of those with offsets there are, by cursor.
        early: How many of them came before one that they follow, by lane.
        moved: The lanes' numbers behind the last message that is taken.
    """

    left_out: pl.DataFrame
    ids_out: pl.DataFrame
    again: Mapping[str, int]
    early: Mapping[str, int]
    moved: Mapping[str, int]

    def filter_out(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows of the origins' schema without those of messages that are left out."""
        if self.left_out.height:
            rows = rows.join(self.left_out, on=["_cursor", "_offset"], how="anti", maintain_order="left")
        if self.ids_out.height:
            rows = rows.join(self.ids_out, on="_message_id", how="anti", maintain_order="left")
        return rows


def lanes_in(batch: MicroBatch) -> list[str]:
    """List the lanes of a batch."""
    return [] if batch.lanes is None else batch.lanes["lane"].drop_nulls().unique().sort().to_list()


def taken(
    batch: MicroBatch, position: Mapping[str, int], landed: Mapping[str, int], judged: Mapping[str, int]
) -> Taken:
    """Choose the messages that are next in their lanes, and go along with them.

    A bundle may come again with more in it than before, or less. So one is taken only at exactly the position that it
    follows; and where a writer has died between its two commits, only the one that it had: its rejected rows are known.

    Args:
        batch: A batch with ``lanes``.
        position: Position of each lane; one without has landed nothing.
        landed: Position of each cursor of the batch that has one. Messages below it are not counted.
        judged: Position of each lane in the rejected table, which is written first.
    """
    assert batch.lanes is not None
    at = dict(position)
    moved: dict[str, int] = {}
    again: dict[str, int] = {}
    early: dict[str, int] = {}
    out: list[tuple[str, int]] = []
    ids_out: list[str] = []
    rows = batch.lanes.hstack(batch.records.select("cursor", "offset", "message_id")).drop_nulls("lane")
    for lane, follows, number, bundle, cursor, offset, identity in rows.iter_rows():
        now = at.get(lane, 0)
        if bundle:
            ahead = judged.get(lane, 0)
            is_next = follows == now <= number and (ahead <= now or ahead == number + 1)
        else:
            is_next = follows <= now <= number
        if is_next:
            at[lane] = moved[lane] = number + 1
            continue
        if offset is None:
            ids_out.append(identity)
        else:
            out.append((cursor, offset))
        if offset is not None and offset >= landed.get(cursor, 0):
            again[cursor] = again.get(cursor, 0) + 1
        if follows > now and (offset is None or offset >= landed.get(cursor, 0)):
            early[lane] = early.get(lane, 0) + 1
    left_out = pl.DataFrame(out, {"_cursor": pl.String, "_offset": pl.Int64}, orient="row")
    return Taken(
        left_out, pl.DataFrame({"_message_id": ids_out}, {"_message_id": pl.String}), again, early, moved
    )


def spread(number: int, lanes: int) -> int:
    """Return the lane of an entry: entries that alternate between two streams still use all lanes of both."""
    mixed = (number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    return (mixed >> 40) % lanes
