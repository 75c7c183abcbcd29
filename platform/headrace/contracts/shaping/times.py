"""Read columns of times and dates in the formats that their fields declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from headrace.contracts.shaping.formats import EPOCHS, ISO8601, RFC3339, program
from headrace.core.batch import UTC_MICROS
from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from headrace.contracts.wire.decoded import Failures

#: Stands, while one format is tried, for a row that it is not tried on.
_ELSEWHERE = 9
_FIRST_MICROS, _LAST_MICROS = -62_135_596_800_000_000, 253_402_300_799_999_999


def read_times(
    name: str,
    texts: pl.Series,
    formats: Sequence[str],
    zone: str,
    failures: Failures,
    *,
    quoted: pl.Series | None = None,
    date: bool = False,
) -> pl.Series:
    """Read texts as instants, or as dates; what is no time becomes null and has a reason.

    A wall clock's time that occurs twice, when clocks go back, is the earlier one. One that does not occur is
    refused.

    Args:
        name: Name of the column.
        texts: Texts, and numbers as they are written.
        formats: Formats, tried one after the other.
        zone: Zone of times that come without one; empty for none.
        failures: Gets a reason for each text that is no time.
        quoted: Which values are texts; numbers are times only in the formats ``epoch_*``. By default all are.
        date: Whether dates are wanted: the day on the wall clock, or in ``zone`` (else UTC) of an instant.
    """
    from headrace.contracts.shaping import (
        time_scan,
    )  # Numba's import takes longer than a command without batches

    micros, state = _scanned(texts, formats, bool(zone), quoted)
    given = texts.is_not_null().to_numpy()
    _fail(name, texts, given & (state == time_scan.UNREAD), failures, check_of(formats, zone, date))
    local, instant = state == time_scan.LOCAL, state == time_scan.INSTANT
    if date:
        clock = _column(micros, local | instant)
        if instant.any() and zone:
            shifted = clock.cast(UTC_MICROS).dt.convert_time_zone(zone).dt.replace_time_zone(None)
            clock = clock.zip_with(pl.Series(local), shifted)
        return clock.dt.date().alias(name)
    if local.any() and not zone:
        _fail(name, texts, local, failures, "time_with_zone")
    elif local.any():
        moved = _moved(name, _column(micros, local), zone).cast(pl.Int64)
        right = moved.is_between(_FIRST_MICROS, _LAST_MICROS).fill_null(False).to_numpy()
        _fail(name, texts, local & ~right, failures, f"time_in_zone({zone})")
        micros = np.where(local, moved.fill_null(0).to_numpy(), micros)
        instant |= local & right
    return _column(micros, instant).cast(UTC_MICROS).alias(name)


def _moved(name: str, clock: pl.Series, zone: str) -> pl.Series:
    """Return the instants of a wall clock's times; null for one that does not occur."""
    try:
        found = clock.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    except pl.exceptions.ComputeError as error:
        raise Fatal(
            f"field {name!r}: Polars {pl.__version__} does not know the time zone {zone!r}; name another, or update it"
        ) from error
    return found.dt.convert_time_zone("UTC")


def check_of(formats: Sequence[str], zone: str, date: bool = False) -> str:
    """Name the check of these formats, the same in every batch."""
    if tuple(formats) == (RFC3339,):
        return "rfc3339_time" if zone else "rfc3339_time_with_zone"
    return f"{'date' if date else 'time'}_format({' or '.join(formats)})"


def _scanned(
    texts: pl.Series, formats: Sequence[str], zone: bool, quoted: pl.Series | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    from headrace.contracts.shaping import time_scan
    from headrace.contracts.wire.json_scan import times as rfc3339

    data, offsets = _end_to_end(texts)
    micros, state = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.uint8)
    numbers = None if quoted is None or quoted.all() else ~quoted.to_numpy()
    for format in formats:
        tried = (
            np.where(numbers & (state == 0), np.uint8(_ELSEWHERE), state) if numbers is not None else state
        )
        if format in EPOCHS:
            time_scan.epoch(data, offsets, EPOCHS[format], micros, state)
            continue
        if format in (RFC3339, ISO8601):
            # the exact reading that times without a format get
            found, known = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
            rfc3339(data, offsets, found, known)
            known &= tried == time_scan.UNREAD
            micros, tried = (
                np.where(known, found, micros),
                np.where(known, np.uint8(time_scan.INSTANT), tried),
            )
            if format == ISO8601 or zone:
                time_scan.iso(data, offsets, format == ISO8601, micros, tried)
        else:
            time_scan.formatted(data, offsets, np.array(program(format), np.int64), micros, tried)
        state = np.where(tried == _ELSEWHERE, state, tried)
    return micros, state


def _end_to_end(texts: pl.Series) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    whole: Any = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = whole.buffers()
    within = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    return np.frombuffer(data or b"", np.uint8), within


def _column(micros: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> pl.Series:
    """Return times of a wall clock; null where they are not ``known``."""
    found = pl.from_arrow(pa.array(micros, pa.timestamp("us"), mask=~known))
    assert isinstance(found, pl.Series)
    return found


def _fail(name: str, texts: pl.Series, wrong: npt.NDArray[np.bool_], failures: Failures, check: str) -> None:
    for row in np.flatnonzero(wrong).tolist():
        failures.add(row, check, name, texts[row])
