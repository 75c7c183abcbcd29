"""Redrive: send rejected records through the contract once more, and land those that it accepts now.

A redriven record is a message of its own, whose id is the origin of the rejected row and whose cursor is
``redrive/<stream>``. It lands by the protocol of a queue: a record whose id is in the lake is dropped. So redriving
twice adds nothing, and two redrives at once cannot both commit. The rejected row stays where it is, as a record of
the past (docs/adr/0006).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from headrace.contracts import check_batch
from headrace.core.batch import HEADERS, RECORD_SCHEMA, CheckedBatch, MicroBatch, Position, new_batch_id
from headrace.flow.commit import land
from headrace.lake.suppression import person_columns
from headrace.repair.origins import Origins, hashes, short_id
from headrace.repair.selection import redrive_cursor

if TYPE_CHECKING:
    from headrace.flow.commit import Tables
    from headrace.streams.stream import Stream

#: Header of a redriven row that names the rejected row it was made of.
ORIGIN_HEADER = "headrace-redriven-from"
#: Records of one commit.
BATCH_ROWS = 50_000
#: Refused records that are named one by one.
_EXAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Redriven:
    """Outcome of a redrive, or of a dry run.

    Attributes:
        messages: Records that the contract accepts now.
        landed: Rows made of them.
        repeated: Records that had landed before.
        erased: Records that were dropped because their person was erased.
        refused_records: Records that were refused again.
        refused: Short id and reasons of the first refused records.
        reasons: Refused records by reason; one may have several.
    """

    messages: int = 0
    landed: int = 0
    repeated: int = 0
    erased: int = 0
    refused_records: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    reasons: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Redriven) -> Redriven:
        return Redriven(
            self.messages + other.messages,
            self.landed + other.landed,
            self.repeated + other.repeated,
            self.erased + other.erased,
            self.refused_records + other.refused_records,
            (self.refused + other.refused)[:_EXAMPLES],
            self.reasons + other.reasons,
        )


def redrive(
    stream: Stream,
    pages: Iterable[pl.DataFrame],
    *,
    dry_run: bool = False,
    batch_rows: int = BATCH_ROWS,
) -> Redriven:
    """Send rows through the contract, and land those that it accepts now.

    A record that is refused again changes nothing: its rejected row is there already.

    Args:
        stream: The stream that rejected them.
        pages: Rows of ``rejects.find``, with their payloads repaired.
        dry_run: Validate the rows and land nothing.
        batch_rows: Most records of one commit.
    """
    done, lake = Redriven(), _Redrive(stream, dry_run=dry_run)
    for rows in pages:
        for part in rows.iter_slices(batch_rows):
            done += lake.land(part)
    return done


class _Redrive:
    """Writer of redriven records: lands page after page through one pair of snapshots.

    It knows which origins the snapshots hold. If another writer lands meanwhile, the commit is a conflict: ``land``
    then looks up every message by its id, and the tables are opened anew.
    """

    def __init__(self, stream: Stream, *, dry_run: bool) -> None:
        self._stream, self._dry_run, self._cursor = stream, dry_run, redrive_cursor(stream)
        self._open()

    def _open(self) -> None:
        self._tables: Tables = self._stream.lake.rejected.open(), self._stream.lake.good.open()
        self._landed = Origins(self._tables[1].message_ids(self._cursor))

    def land(self, rows: pl.DataFrame) -> Redriven:
        there = self._landed.hold(hashes(rows["origin"]))
        fresh = rows.filter(~pl.Series(there, dtype=pl.Boolean)).unique(
            "origin", keep="last", maintain_order=True
        )
        done = Redriven(repeated=rows.height - fresh.height)
        if not fresh.height:
            return done
        stream, name, table = self._stream, self._cursor, self._tables[1]
        before = Position({name: table.position([name]).get(name, 0)})
        unwrap = stream.framing.or_plain if stream.framing else None
        after = before.advanced({name: before[name] + 1})
        batch = MicroBatch(name, _messages(fresh, name), before, after, unwrap=unwrap)
        found = check_batch(
            stream.contract, batch, batch_id=new_batch_id(batch), now=datetime.now(UTC), limits=stream.limits
        )
        refused = found.rejected.select("_message_id", "reasons").unique("_message_id", maintain_order=True)
        done += _refusals(refused)
        if refused.height:
            ids = refused["_message_id"].implode()
            batch = replace(batch, records=batch.records.filter(~pl.col("message_id").is_in(ids)))
            found = CheckedBatch(
                found.good.filter(~pl.col("_message_id").is_in(ids)), found.rejected.clear(), found.batch_id
            )
        if not len(batch):
            return done
        if self._dry_run:
            suppressed, erased = stream.lake.suppressed(self._tables), 0
            if suppressed is not None:
                people = person_columns(stream.contract.table)
                _, kept, gone = suppressed.drop(found.rejected, found.good, people)
                found, erased = replace(found, good=kept), sum(gone.values())
            self._landed.add(batch.records["message_id"])
            return done + Redriven(len(batch), found.good.height, erased=erased)
        at = table.version
        landed = land(batch, stream.contract, stream.lake, stream.limits, self._tables, found)
        if table.version == at:  # another writer was first
            self._open()
        else:
            self._landed.add(batch.records["message_id"])
        return done + Redriven(landed.messages, landed.good, landed.repeated, landed.erased)


def _refusals(refused: pl.DataFrame) -> Redriven:
    reasons: Counter[str] = Counter()
    if refused.height:
        said = (
            refused.explode("reasons").unnest("reasons").select("column", "check").to_struct().value_counts()
        )
        for one, count in said.iter_rows():
            reasons[_reason(one)] += count
    first = tuple(
        (short_id(origin), "; ".join(map(_reason, why)))
        for origin, why in refused.head(_EXAMPLES).iter_rows()
    )
    return Redriven(refused_records=refused.height, refused=first, reasons=reasons)


def _reason(one: dict[str, str]) -> str:
    return f"{one['column']}: {one['check']}" if one["column"] else one["check"]


def _messages(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Make messages (``RECORD_SCHEMA``) of rejected rows; the id of each is the origin of its row."""
    mark = pl.struct(pl.lit(ORIGIN_HEADER).alias("key"), pl.col("origin").cast(pl.Binary).alias("value"))
    return rows.select(
        "payload",
        pl.col("_key").alias("key"),
        pl.concat_list(pl.col("_headers").fill_null(pl.lit([], dtype=HEADERS)), mark).alias("headers"),
        pl.col("message_timestamp").alias("timestamp"),
        pl.lit(name).alias("cursor"),
        pl.lit(None, dtype=pl.Int64).alias("offset"),
        pl.col("origin").alias("message_id"),
        pl.lit(value=False).alias("redelivered"),
    ).cast(RECORD_SCHEMA)
