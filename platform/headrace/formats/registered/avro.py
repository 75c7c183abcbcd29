"""Read Avro data as JSON text, a column at a time."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from headrace.core.schemas import Schema
from headrace.formats.registered.avro_program import program_of
from headrace.formats.registered.avro_scan import (
    DEEPEST,
    MOST_TEXT,
    PROBLEMS,
    RIGHT,
    Program,
    Room,
    fill,
    transcode,
)
from headrace.formats.registered.texts import Texts, end_to_end

#: Bytes of text for one byte of Avro, at first; more is taken where it does not suffice.
_TEXT_PER_BYTE, _TEXT_AT_LEAST = 4, 1 << 16
#: Limbs of a decimal.
_LIMBS = 16


class AvroReader:
    """Reads data of one schema; for one thread at a time."""

    check = "avro"

    def __init__(self, schema: Schema) -> None:
        """Compile the schema.

        Raises:
            BadData: It does not parse.
        """
        self._program = program_of(schema)

    def read(self, bodies: pl.Series) -> Texts:
        """Return the JSON text of each datum, or why it does not fit the schema.

        Args:
            bodies: Binary, no nulls: data without header.
        """
        data, bounds = end_to_end(bodies)
        rows = len(bodies)
        ends, problem, at = np.zeros(rows, np.int64), np.zeros(rows, np.uint8), np.zeros(rows, np.int64)
        room, done = _room(data.size, _TEXT_PER_BYTE * data.size + _TEXT_AT_LEAST), 0
        while True:
            done = transcode(data, bounds, done, self._program, room, ends, problem, at)
            if done == rows:
                break
            room = _larger(room)
        _fill(room)
        offsets = np.concatenate(([0], ends))
        known = problem == RIGHT
        validity = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
        texts = pa.Array.from_buffers(
            pa.large_binary(), rows, [validity, pa.py_buffer(offsets), pa.py_buffer(room.out)]
        )
        wrong = {
            int(row): f"{PROBLEMS[int(problem[row])]}, at byte {at[row]}" for row in np.flatnonzero(~known)
        }
        payloads = pl.from_arrow(texts)
        assert isinstance(payloads, pl.Series)
        return Texts(payloads, wrong)


def _room(doubles_bytes: int, size: int) -> Room:
    doubles = doubles_bytes // 4 + 1
    return Room(
        np.empty(size, np.uint8),
        np.empty(doubles, np.int64),
        np.empty(doubles, np.float64),
        np.zeros(3 * DEEPEST, np.int64),
        np.zeros(_LIMBS, np.int64),
        np.zeros(3, np.int64),
    )


def _larger(room: Room) -> Room:
    out = np.empty(2 * room.out.size + MOST_TEXT, np.uint8)
    used = int(room.state[0])
    out[:used] = room.out[:used]
    return room._replace(out=out)


def _fill(room: Room) -> None:
    """Write the doubles that the compiled code left to Polars, which finds their shortest text."""
    count = int(room.state[1])
    if count:
        texts, bounds = end_to_end(pl.Series(room.holes[:count]).cast(pl.String).cast(pl.Binary))
        fill(room.out, room.hole_at, texts, bounds)


def compile_ahead() -> None:
    """Compile the code of this module, for installations that do so before the first message."""
    fields = '{"name":"d","type":"double"}'
    schema = Schema("AVRO", f'{{"type":"record","name":"R","fields":[{fields}]}}')
    AvroReader(schema).read(pl.Series([np.array([0.1 + 0.2]).tobytes()]))


__all__ = ["AvroReader", "Program", "compile_ahead"]
