"""Rejected rows: find them, repair them, send them through the contract once more.

A redriven record is a message of its own, whose id is the origin of the rejected row and whose cursor is
``redrive/<stream>``. It lands by the protocol of a queue: what is in the lake under that id is dropped, so that
redriving twice adds nothing, and two redrives at once cannot both commit. The rejected row stays where it is: it is
what happened.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from headrace.batch import HEADERS, RECORD_SCHEMA, MicroBatch, Position
from headrace.contracts import check
from headrace.errors import BadData
from headrace.ingest import Landed, land

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.stream import Stream

#: Header of a redriven row that names the rejected row it was made of.
ORIGIN_HEADER = "headrace-redriven-from"
_BATCH = 50_000
#: Origin of a rejected row, by which a record is redriven.
ORIGIN = pl.concat_str(
    pl.col("_cursor"),
    pl.coalesce(pl.col("_offset").cast(pl.String), "_message_id"),
    pl.col("_index").cast(pl.String),
    separator=":",
)


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of the payloads that were to be repaired.

    Attributes:
        rows: The rejected rows with their new payloads.
        failed: Short ids of rows that could not be repaired, and why; they are left alone.
    """

    rows: pl.DataFrame
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive did.

    Attributes:
        messages: Records that the contract accepts now.
        landed: Rows that they became.
        repeated: Those of them that had landed before.
        refused: Short ids of records that were refused again, and why.
    """

    messages: int = 0
    landed: int = 0
    repeated: int = 0
    refused: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: Redriven) -> Redriven:
        return Redriven(
            self.messages + other.messages,
            self.landed + other.landed,
            self.repeated + other.repeated,
            self.refused + other.refused,
        )


def cursor(stream: Stream) -> str:
    """The cursor under which a stream's redriven records land."""
    return f"redrive/{stream.name}"


def find(
    stream: Stream,
    *,
    ids: Sequence[str] = (),
    reason: str | None = None,
    since: date | None = None,
    every: bool = False,
) -> pl.DataFrame:
    """Rejected rows, newest first: the rejected table's columns, ``origin``, short ``id`` and ``redriven``.

    Args:
        stream: Whose.
        ids: Only these: short ids, as far as they are unambiguous, or whole origins.
        reason: Only rows with a reason whose check or column contains this text.
        since: Only rows rejected on this UTC day or later.
        every: Also those of which a redriven record has landed.

    Raises:
        BadData: An id names no rejected row, or more than one.
    """
    rows = stream.lake.rejected.scan()
    if since is not None:
        rows = rows.filter(pl.col("rejected_date") >= since)
    if reason is not None:
        parts = [pl.element().struct[part].str.contains(reason, literal=True) for part in ("check", "column")]
        hit = parts[0] | parts[1]
        rows = rows.filter(pl.col("reasons").list.eval(hit.fill_null(value=False)).list.any())
    found = rows.with_columns(origin=ORIGIN).collect()
    found = found.with_columns(
        id=pl.Series([_short(origin) for origin in found["origin"]], dtype=pl.String),
        redriven=pl.col("origin").is_in(_landed(stream).implode()),
    )
    if ids:
        found = found.filter(pl.col("origin").is_in(_named(found, ids)))
    elif not every:
        found = found.filter(~pl.col("redriven"))
    return found.sort("_ingested_at", "origin", descending=[True, False])


def _short(origin: str) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()[:12]


def _landed(stream: Stream) -> pl.Series:
    """Origins of which a redriven record is among the good rows."""
    good = stream.lake.good.scan().filter(pl.col("_cursor") == cursor(stream))
    return good.select("_message_id").collect().to_series().unique()


def _named(found: pl.DataFrame, ids: Sequence[str]) -> list[str]:
    named = []
    for wanted in ids:
        hits = found.filter(pl.col("id").str.starts_with(wanted) | (pl.col("origin") == wanted))["origin"]
        if len(hits) != 1:
            raise BadData(
                f"{wanted!r} names {len(hits) or 'no'} rejected rows; see 'headrace rejects list --every'"
            )
        named.append(hits[0])
    return named


def exported(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows for editing: id, reasons, and the payload as ``record`` (JSON), ``text`` or ``base64``."""
    for row in rows.select("id", "origin", "reasons", "payload").iter_rows(named=True):
        yield {
            "id": row["id"],
            "origin": row["origin"],
            "reasons": row["reasons"],
            **_editable(row["payload"]),
        }


def _editable(payload: bytes | None) -> dict[str, Any]:
    payload = payload or b""
    try:
        return {"record": msgspec.json.decode(payload)}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return {"text": payload.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}


def edited(path: Path) -> dict[str, bytes]:
    """Payloads by id or origin from a file of ``exported`` lines that somebody has edited.

    Raises:
        BadData: A line is not what ``exported`` gives; the message names it.
    """
    payloads: dict[str, bytes] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            one = msgspec.json.decode(line)
            name = str(one["id"])
            if "record" in one:
                payloads[name] = msgspec.json.encode(one["record"])
            elif "text" in one:
                payloads[name] = str(one["text"]).encode()
            else:
                payloads[name] = base64.b64decode(one["base64"], validate=True)
        except (ValueError, KeyError, TypeError) as error:
            raise BadData(
                f"{path}, line {number}: expected an object with id and one of record, text, base64 ({error})"
            ) from error
    return payloads


def replaced(rows: pl.DataFrame, payloads: dict[str, bytes]) -> Repair:
    """Rows with the payloads of an edited file; ``rows`` were found by its ids."""
    by_row = []
    for short, origin in rows.select("id", "origin").iter_rows():
        names = [n for n in payloads if n == origin or short.startswith(n)]
        by_row.append(payloads[names[0]])
    return Repair(rows.with_columns(payload=pl.Series(by_row, dtype=pl.Binary)))


def transformed(rows: pl.DataFrame, expression: str) -> Repair:
    """Rows whose payload is what a jq expression makes of it.

    Raises:
        BadData: The expression is not jq.
    """
    import jq

    try:
        program = jq.compile(expression)
    except ValueError as error:
        raise BadData(f"{expression!r} is not a jq expression: {error}") from error
    payloads: list[bytes | None] = []
    failed = []
    for short, payload in rows.select("id", "payload").iter_rows():
        try:
            made = program.input_text((payload or b"").decode()).text()
            if "\n" in made or not made:
                raise ValueError("the expression must give exactly one value")
            payloads.append(made.encode())
        except ValueError as error:  # invalid UTF-8 is one, too
            payloads.append(None)
            failed.append((short, str(error).splitlines()[0]))
    rows = rows.with_columns(payload=pl.Series(payloads, dtype=pl.Binary))
    return Repair(rows.filter(~pl.col("id").is_in([short for short, _ in failed])), tuple(failed))


def redrive(stream: Stream, rows: pl.DataFrame) -> Redriven:
    """Send rows through the contract and, where it accepts them now, into the lake.

    A record that is refused again changes nothing: its rejected row is there already.

    Args:
        stream: Whose rejects they are.
        rows: From ``find``, with their payloads repaired.
    """
    done, name = Redriven(), cursor(stream)
    for at in range(0, rows.height, _BATCH):
        part = rows[at : at + _BATCH]
        tables = stream.lake.rejected.open(), stream.lake.good.open()
        before = Position({name: tables[1].position([name]).get(name, 0)})
        batch = MicroBatch(name, _messages(part, name), before, before.advanced({name: before[name] + 1}))
        checked = check(stream.contract, batch, batch_id="", now=datetime.now(UTC), limits=stream.limits)
        refused = checked.rejected.select("_message_id", "reasons").unique("_message_id", maintain_order=True)
        accepted = batch.records.filter(~pl.col("message_id").is_in(refused["_message_id"].implode()))
        landed = Landed()
        if accepted.height:
            batch = replace(batch, records=accepted)
            landed = land(batch, stream.contract, stream.lake, stream.limits, tables)
        done += Redriven(
            landed.messages,
            landed.good,
            landed.repeated,
            tuple((_short(origin), _said(reasons)) for origin, reasons in refused.iter_rows()),
        )
    return done


def _messages(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """``RECORD_SCHEMA``: each row as a message whose id is the row's origin, handed out before for all we know."""
    mark = pl.struct(pl.lit(ORIGIN_HEADER).alias("key"), pl.col("origin").cast(pl.Binary).alias("value"))
    return rows.select(
        "payload",
        pl.col("_key").alias("key"),
        pl.concat_list(pl.col("_headers").fill_null(pl.lit([], dtype=HEADERS)), mark).alias("headers"),
        pl.col("message_timestamp").alias("timestamp"),
        pl.lit(name).alias("cursor"),
        pl.lit(None, dtype=pl.Int64).alias("offset"),
        pl.col("origin").alias("message_id"),
        pl.lit(value=True).alias("redelivered"),
    ).cast(RECORD_SCHEMA)


def _said(reasons: list[dict[str, str]]) -> str:
    return "; ".join(f"{r['column']}: {r['check']}" if r["column"] else r["check"] for r in reasons)
