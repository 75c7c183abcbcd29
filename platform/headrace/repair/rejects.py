"""Rejected rows: find them, export them, repair their payloads. ``redrive`` sends them through the contract once more.

A rejected row is known by its origin, and to people by the first digits of its hash. Rows are handled page by page, so
that a million of them take no more memory than some thousands.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from headrace.core.batch import ORIGIN_KEY
from headrace.core.errors import BadData, Fatal

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.streams.stream import Stream

#: Origin of a rejected row, by which a record is redriven.
ORIGIN = pl.concat_str(
    pl.col("_cursor"),
    pl.coalesce(pl.col("_offset").cast(pl.String), "_message_id"),
    pl.col("_index").cast(pl.String),
    separator=":",
)
_EPOCH = date(1970, 1, 1)
#: Hex digits of a short id.
_DIGITS = 12
_PAGE_BYTES = 64 << 20
_PAGE_ROWS = 50_000


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
class Which:
    """Which rejected rows are meant; all that are not redriven by default.

    Attributes:
        reason: Only rows with a reason whose check or column contains this text.
        since: Only rows rejected on this UTC day or later.
        source: Only rows of this source, or of all sources of this kind (``kafka``).
        every: Also those of which a redriven record has landed.
    """

    reason: str | None = None
    since: date | None = None
    source: str | None = None
    every: bool = False

    def condition(self) -> pl.Expr:
        """Of the rejected table's columns, but for what has been redriven."""
        wanted = pl.lit(value=True)
        if self.since is not None:
            wanted &= pl.col("rejected_date") >= self.since
        if self.source is not None:
            wanted &= (pl.col("_source") == self.source) | pl.col("_source").str.starts_with(
                f"{self.source}/"
            )
        if self.reason is not None:
            said = [
                pl.element().struct[part].str.contains(self.reason, literal=True)
                for part in ("check", "column")
            ]
            wanted &= pl.col("reasons").list.eval((said[0] | said[1]).fill_null(value=False)).list.any()
        return wanted


class Origins:
    """A set of origins, by hash: eight bytes for each."""

    def __init__(self, origins: pl.Series | None = None) -> None:
        self._sorted = np.empty(0, np.uint64)
        if origins is not None:
            self.add(origins)

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, origins: pl.Series) -> None:
        """More of them."""
        self._sorted = np.union1d(self._sorted, hashes(origins))

    def hold(self, wanted: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of these hashes are among them."""
        if not len(self._sorted):
            return np.zeros(len(wanted), np.bool_)
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        found: np.ndarray[Any, np.dtype[np.bool_]] = np.equal(self._sorted[at], wanted)
        return found


def hashes(origins: pl.Series) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Of origins, the same within a process."""
    return origins.hash().to_numpy()


def cursor(stream: Stream) -> str:
    """The cursor under which a stream's redriven records land."""
    return f"redrive/{stream.name}"


def redriven(stream: Stream) -> Origins:
    """Of the rejected rows of which a redriven record is among the good rows."""
    return Origins(stream.lake.good.open().message_ids(cursor(stream)))


def find(
    stream: Stream,
    *,
    ids: Sequence[str] = (),
    reason: str | None = None,
    since: date | None = None,
    source: str | None = None,
    every: bool = False,
) -> pl.DataFrame:
    """Rejected rows, newest first: the rejected table's columns, ``origin``, short ``id`` and ``redriven``.

    Args:
        stream: Whose.
        ids: Only these: short ids, as far as they are unambiguous, or whole origins.
        reason: See ``Which``.
        since: See ``Which``.
        source: See ``Which``.
        every: See ``Which``. Those of ``ids`` in any case.

    Raises:
        BadData: An id names no rejected row, or more than one.
    """
    which = Which(reason, since, source, every or bool(ids))
    found = Index(stream).rows(Index.named(ids), which) if ids else pages(stream, which)
    rows = pl.concat([_nothing(stream), *found])
    return rows.sort("_ingested_at", "origin", descending=[True, False])


def pages(stream: Stream, which: Which) -> Iterator[pl.DataFrame]:
    """The rows of ``find``, some thousands at a time, the newest day first."""
    done, table = redriven(stream), stream.lake.rejected
    for day in sorted(table.counts_by_day(), reverse=True):
        if which.since is None or day >= which.since:
            parts = (_told(rows.filter(which.condition()), done) for rows in table.batches([day]))
            yield from _paged(parts if which.every else (rows.filter(~pl.col("redriven")) for rows in parts))


def newest(stream: Stream, which: Which, most: int) -> tuple[int, pl.DataFrame]:
    """How many rows ``find`` has, and the first of them."""
    total, first = 0, _nothing(stream)
    for rows in pages(stream, which):
        total += rows.height
        first = pl.concat([first, rows]).sort("_ingested_at", "origin", descending=[True, False]).head(most)
    return total, first


def _nothing(stream: Stream) -> pl.DataFrame:
    return _told(pl.DataFrame(schema=stream.lake.rejected.table.schema), Origins())


def _told(rows: pl.DataFrame, done: Origins) -> pl.DataFrame:
    """With ``origin``, ``id`` and ``redriven``."""
    rows = rows.with_columns(origin=ORIGIN)
    return rows.with_columns(
        id=pl.Series([short(origin) for origin in rows["origin"]], dtype=pl.String),
        redriven=pl.Series(done.hold(hashes(rows["origin"])), dtype=pl.Boolean),
    )


def _paged(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows put together to pages: a commit costs as much for one row as for thousands."""
    waiting: list[pl.DataFrame] = []
    rows = size = 0
    for part in parts:
        if not part.height:
            continue
        waiting.append(part)
        rows, size = rows + part.height, size + int(part["payload"].bin.size().sum() or 0)
        if rows >= _PAGE_ROWS or size >= _PAGE_BYTES:
            yield pl.concat(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pl.concat(waiting)


def short(origin: str) -> str:
    """The id that people use for a rejected row of this origin."""
    return hashlib.sha256(origin.encode()).hexdigest()[:_DIGITS]


class Index:
    """Which ids rejected rows have: some bytes for each, looked up by halves.

    Attributes:
        redriven: Origins that have been redriven.
    """

    def __init__(self, stream: Stream) -> None:
        """Read the origins of all rejected rows of a stream."""
        self._stream = stream
        self.redriven = redriven(stream)
        table = stream.lake.rejected
        self._fill(
            (rows.select(ORIGIN).to_series(), day)
            for day in table.counts_by_day()
            for rows in table.batches([day], ORIGIN_KEY)
        )

    @classmethod
    def of(cls, origins: pl.Series) -> Index:
        """Of these, without their rows."""
        index = cls.__new__(cls)
        index._fill([(origins, _EPOCH)])
        return index

    def _fill(self, found: Iterable[tuple[pl.Series, date]]) -> None:
        ids, origins, days = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        for origin, day in found:
            ids.append(np.fromiter(map(_number, origin), np.uint64, len(origin)))
            origins.append(hashes(origin))
            days.append(np.full(len(origin), (day - _EPOCH).days, np.int32))
        every = np.concatenate(ids)
        order = np.argsort(every, kind="stable")
        self._ids, self._origins = every[order], np.concatenate(origins)[order]
        self._days = np.concatenate(days)[order]

    def origin(self, place: int) -> int:
        """Hash of the origin of a row, by its place."""
        return int(self._origins[place])

    @staticmethod
    def named(ids: Iterable[str]) -> pl.DataFrame:
        """As ``rows`` takes them, without payloads."""
        return pl.DataFrame({"name": list(ids)}, {"name": pl.String}).unique(maintain_order=True)

    def find(self, names: pl.Series) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Places of the rows of these ids or origins.

        Raises:
            BadData: One names no row, or more than one.
        """
        pairs = [_bounds(name) for name in names]
        low = np.searchsorted(self._ids, np.array([a for a, _ in pairs], np.uint64), "left")
        high = np.searchsorted(self._ids, np.array([b for _, b in pairs], np.uint64), "right")
        for n in np.flatnonzero(high - low != 1):
            origin = self._places(names[int(n)])
            if len(origin) == 1:  # it is none of the hash's digits
                low[n] = origin[0]
                continue
            count = len(origin) or int(high[n] - low[n])
            raise BadData(
                f"{names[int(n)]!r} names {count or 'no'} rejected rows; see 'headrace rejects list --every'"
            )
        return low

    def counts(self, edits: Iterable[pl.DataFrame]) -> tuple[int, int]:
        """How many rows the lines of a file name, and how many of them have been redriven.

        Raises:
            BadData: A line is wrong, or names no row, or more than one.
        """
        seen = [self._origins[self.find(part["name"])] for part in edits]
        rows = np.unique(np.concatenate(seen)) if seen else np.empty(0, np.uint64)
        return len(rows), int(self.redriven.hold(rows).sum())

    def _places(self, origin: str) -> np.ndarray[Any, np.dtype[np.intp]]:
        return np.flatnonzero(self._origins == hashes(pl.Series([origin]))[0])

    def rows(
        self, named: pl.DataFrame, which: Which, *, skip_redriven: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The rejected rows of ``find`` that these ids name.

        Args:
            named: ``name``, an id or an origin, and ``payload``, if another is to be taken than the row's.
            which: What must hold, too.
            skip_redriven: Leave out those that have been redriven.

        Raises:
            BadData: One names no row, or more than one.
        """
        at = self.find(named["name"])
        named = named.with_columns(_hash=pl.Series(self._origins[at], dtype=pl.UInt64)).unique(
            "_hash", keep="last", maintain_order=True
        )
        days = {_EPOCH + timedelta(days=int(day)) for day in np.unique(self._days[at])}
        if skip_redriven:
            named = named.filter(~pl.Series(self.redriven.hold(named["_hash"].to_numpy()), dtype=pl.Boolean))
        if not named.height:
            return
        table = self._stream.lake.rejected
        columns = table.table.schema.names()
        if "payload" in named.columns:
            columns.remove("payload")
        for rows in table.batches(sorted(days), columns):
            hashed = rows.with_columns(
                _hash=pl.Series(hashes(rows.select(ORIGIN).to_series()), dtype=pl.UInt64)
            )
            found = hashed.join(named.drop("name"), on="_hash", how="inner").drop("_hash")
            if found.height:
                told = _told(found.filter(which.condition()), self.redriven)
                yield told.select(_nothing(self._stream).columns)


def _number(origin: str) -> int:
    return int.from_bytes(hashlib.sha256(origin.encode()).digest()[: _DIGITS // 2])


def _bounds(name: str) -> tuple[int, int]:
    """Lowest and highest id that begins so; that of the origin, where it is no beginning of an id."""
    digits = len(name)
    if 0 < digits <= _DIGITS and all(c in "0123456789abcdef" for c in name):
        low = int(name, 16) << 4 * (_DIGITS - digits)
        return low, low + (1 << 4 * (_DIGITS - digits)) - 1
    number = _number(name)
    return number, number


def known_source(stream: Stream, source: str | None) -> None:
    """Refuse a source that the stream does not have and of which nothing was rejected.

    Raises:
        Fatal: It is none; the message names those there are.
    """
    if source is None:
        return
    there = {spec.name for spec in stream.pipeline.sources} | {cursor(stream)}
    found = stream.lake.rejected.scan().select(pl.col("_source").unique()).collect().to_series()
    there |= {str(one) for one in found}
    if not any(one == source or one.startswith(f"{source}/") for one in there):
        raise Fatal(f"stream {stream.name!r} has no source {source!r}; it has {', '.join(sorted(there))}")


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
    except msgspec.DecodeError:
        pass
    try:
        return {"text": payload.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}


class _Line(msgspec.Struct):
    id: str
    record: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET


def edited(path: Path) -> Iterator[pl.DataFrame]:
    """``name`` and ``payload`` from a file of ``exported`` lines that somebody has edited, page by page.

    Raises:
        BadData: A line is not what ``exported`` gives; the message names it.
    """
    decode = msgspec.json.Decoder(_Line).decode
    names: list[str] = []
    payloads: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                one = decode(line)
                payload = _payload(one)
            except ValueError as error:  # msgspec's errors are ones, too
                raise BadData(
                    f"{path}, line {number}: expected an object with id and one of record, text, base64 ({error})"
                ) from error
            names.append(one.id)
            payloads.append(payload)
            size += len(payload)
            if len(names) >= 4 * _PAGE_ROWS or size >= 2 * _PAGE_BYTES:
                yield _named(names, payloads)
                names, payloads, size = [], [], 0
    if names:
        yield _named(names, payloads)


def _payload(one: _Line) -> bytes:
    if one.record is not msgspec.UNSET:
        return bytes(one.record)
    if one.text is not msgspec.UNSET:
        return one.text.encode()
    if one.base64 is not msgspec.UNSET:
        return base64.b64decode(one.base64, validate=True)
    raise ValueError("it has none of them")


def _named(names: list[str], payloads: list[bytes]) -> pl.DataFrame:
    return pl.DataFrame({"name": names, "payload": payloads}, {"name": pl.String, "payload": pl.Binary})


def replaced(
    index: Index, edits: Iterable[pl.DataFrame], *, skip_redriven: bool = False
) -> Iterator[pl.DataFrame]:
    """Rejected rows with the payloads of an edited file, page by page.

    Args:
        index: Of the stream.
        edits: From ``edited``.
        skip_redriven: Leave out those that have been redriven.

    Raises:
        BadData: An id names no rejected row, or more than one.
    """
    for part in edits:
        yield from _paged(index.rows(part, Which(every=True), skip_redriven=skip_redriven))


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
    for name, payload in rows.select("id", "payload").iter_rows():
        try:
            made = program.input_text((payload or b"").decode()).text()
            if "\n" in made or not made:
                raise ValueError("the expression must give exactly one value")
            payloads.append(made.encode())
        except ValueError as error:  # invalid UTF-8 is one, too
            payloads.append(None)
            failed.append((name, str(error).splitlines()[0]))
    rows = rows.with_columns(payload=pl.Series(payloads, dtype=pl.Binary))
    return Repair(rows.filter(~pl.col("id").is_in([name for name, _ in failed])), tuple(failed))
