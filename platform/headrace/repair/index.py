"""Look up rejected rows by id: an index of some bytes for each, searched by halves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from headrace.core.batch import ORIGIN_KEY
from headrace.core.errors import BadData
from headrace.repair.origins import ID_DIGITS, ORIGIN, hashes, id_number
from headrace.repair.selection import Selection, no_rows, redriven_origins, with_ids

if TYPE_CHECKING:
    from headrace.streams.stream import Stream

_EPOCH = date(1970, 1, 1)

Places = np.ndarray[Any, np.dtype[np.intp]]


class RejectIndex:
    """The ids, origins and days of a stream's rejected rows.

    Attributes:
        redriven: Origins of the rows that were redriven.
    """

    def __init__(self, stream: Stream) -> None:
        """Read the origins of all rejected rows of a stream."""
        self._stream = stream
        self.redriven = redriven_origins(stream)
        table = stream.lake.rejected
        self._fill(
            (rows.select(ORIGIN).to_series(), day)
            for day in table.counts_by_day()
            for rows in table.batches([day], ORIGIN_KEY)
        )

    @classmethod
    def of(cls, origins: pl.Series) -> RejectIndex:
        """Index these origins, without their rows."""
        index = cls.__new__(cls)
        index._fill([(origins, _EPOCH)])
        return index

    def _fill(self, found: Iterable[tuple[pl.Series, date]]) -> None:
        ids, origins, days = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        for origin, day in found:
            ids.append(np.fromiter(map(id_number, origin), np.uint64, len(origin)))
            origins.append(hashes(origin))
            days.append(np.full(len(origin), (day - _EPOCH).days, np.int32))
        every = np.concatenate(ids)
        order = np.argsort(every, kind="stable")
        self._ids, self._origins = every[order], np.concatenate(origins)[order]
        self._days = np.concatenate(days)[order]

    def origin(self, place: int) -> int:
        """Give the hash of the origin at a place."""
        return int(self._origins[place])

    @staticmethod
    def named(ids: Iterable[str]) -> pl.DataFrame:
        """Make the frame that ``rows`` takes, without payloads."""
        return pl.DataFrame({"name": list(ids)}, {"name": pl.String}).unique(maintain_order=True)

    def find(self, names: pl.Series) -> Places:
        """Find the places of the rows with these ids or origins.

        Args:
            names: Short ids, beginnings of them, or whole origins.

        Raises:
            BadData: A name fits no row, or more than one.
        """
        pairs = [_bounds(name) for name in names]
        low = np.searchsorted(self._ids, np.array([a for a, _ in pairs], np.uint64), "left")
        high = np.searchsorted(self._ids, np.array([b for _, b in pairs], np.uint64), "right")
        for n in np.flatnonzero(high - low != 1):
            origin = self._places(names[int(n)])
            if len(origin) == 1:  # an origin that reads like the beginning of an id
                low[n] = origin[0]
                continue
            count = len(origin) or int(high[n] - low[n])
            raise BadData(
                f"{names[int(n)]!r} names {count or 'no'} rejected rows; see 'headrace rejects list --every'"
            )
        return low

    def counts(self, edits: Iterable[pl.DataFrame]) -> tuple[int, int]:
        """Count the rows that edits name, and those of them that were redriven.

        Args:
            edits: Pages with a column ``name``, as ``edits.edited`` gives them.

        Raises:
            BadData: A line is wrong, or names no row, or more than one.
        """
        seen = [self._origins[self.find(part["name"])] for part in edits]
        rows = np.unique(np.concatenate(seen)) if seen else np.empty(0, np.uint64)
        return len(rows), int(self.redriven.hold(rows).sum())

    def _places(self, origin: str) -> Places:
        return np.flatnonzero(self._origins == hashes(pl.Series([origin]))[0])

    def rows(
        self, named: pl.DataFrame, selection: Selection, *, skip_redriven: bool = False
    ) -> Iterator[pl.DataFrame]:
        """Read the rejected rows that these names fit, with the columns of ``rejects.find``.

        Args:
            named: ``name``, an id or an origin, and optionally ``payload``, which replaces that of the row.
            selection: Further conditions.
            skip_redriven: Leave out rows that were redriven.

        Raises:
            BadData: A name fits no row, or more than one.
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
                told = with_ids(found.filter(selection.condition()), self.redriven)
                yield told.select(no_rows(self._stream).columns)


def _bounds(name: str) -> tuple[int, int]:
    """Give the lowest and the highest id that begin with a name; for an origin, its own id twice."""
    digits = len(name)
    if 0 < digits <= ID_DIGITS and all(c in "0123456789abcdef" for c in name):
        low = int(name, 16) << 4 * (ID_DIGITS - digits)
        return low, low + (1 << 4 * (ID_DIGITS - digits)) - 1
    number = id_number(name)
    return number, number
