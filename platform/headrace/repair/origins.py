"""Origins of rejected rows: the ids by which records are redriven, and the short ids that people use."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl

#: Origin of a rejected row, of the columns ``ORIGIN_KEY``.
ORIGIN = pl.concat_str(
    pl.col("_cursor"),
    pl.coalesce(pl.col("_offset").cast(pl.String), "_message_id"),
    pl.col("_index").cast(pl.String),
    separator=":",
)
#: Hex digits of a short id.
ID_DIGITS = 12

Hashes = np.ndarray[Any, np.dtype[np.uint64]]


class Origins:
    """A set of origins, held by hash: eight bytes each."""

    def __init__(self, origins: pl.Series | None = None) -> None:
        self._sorted = np.empty(0, np.uint64)
        if origins is not None:
            self.add(origins)

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, origins: pl.Series) -> None:
        """Add origins to the set."""
        self._sorted = np.union1d(self._sorted, hashes(origins))

    def hold(self, wanted: Hashes) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Tell for each of these hashes whether it is in the set."""
        if not len(self._sorted):
            return np.zeros(len(wanted), np.bool_)
        at = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        found: np.ndarray[Any, np.dtype[np.bool_]] = np.equal(self._sorted[at], wanted)
        return found


def hashes(origins: pl.Series) -> Hashes:
    """Hash origins; an origin has the same hash within a process, not in another."""
    return origins.hash().to_numpy()


def short_id(origin: str) -> str:
    """Make the id by which people name the rejected row of this origin."""
    return hashlib.sha256(origin.encode()).hexdigest()[:ID_DIGITS]


def id_number(origin: str) -> int:
    """Make the short id of an origin, as a number."""
    return int.from_bytes(hashlib.sha256(origin.encode()).digest()[: ID_DIGITS // 2])
