"""What a type costs in the hot path: decoding, checking and encoding one value, beside one of text."""

from __future__ import annotations

import json
import statistics
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import pandera.polars as pa
import polars as pl

from headrace.bench.measure import interleaved
from headrace.contracts import Contract, Limits, Time, check_batch, field, map_of
from headrace.core.batch import STRING_MAP, UTC_MICROS, CheckedBatch, MicroBatch
from headrace.lake.delta.parquet import StagedFiles

#: Columns of the type in each record, so that they outweigh the key and the time that every record has.
COLUMNS = 8
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)
_WORDS = ("web", "mobile", "chat", "server", "iot", "other")


@dataclass(frozen=True, slots=True)
class TypeCost:
    """The cost of a type.

    Attributes:
        name: The type, as contracts write it.
        check: Nanoseconds of a core per value from JSON bytes to checked columns, median.
        encode: Nanoseconds of a core per value from there to Parquet, median.
        size: Bytes of a value in JSON, mean.
    """

    name: str
    check: float
    encode: float
    size: float


def type_costs(
    records: int, repetitions: int, tell: Callable[[str], object] = lambda line: None
) -> list[TypeCost]:
    """Measure every type on messages of its own, text first; repetitions are interleaved.

    A record of key and time alone is measured, too, and taken off.

    Args:
        records: Messages of each type.
        repetitions: Rounds over all types, of which one more warms up.
        tell: Receives the name of each type as it is measured.
    """
    cases = dict(_cases(Random(7), records))
    check: dict[str, list[float]] = {name: [] for name in cases}
    encode: dict[str, list[float]] = {name: [] for name in cases}
    for n, name in enumerate(interleaved(repetitions + 1, list(cases))):
        contract, batch, _ = cases[name]
        tell(name)
        began = time.process_time()
        checked = _checked(contract, batch)
        middle = time.process_time()
        staged = StagedFiles(contract.table, ["at", "_cursor", "_offset", "_batch_id"])
        staged.add(checked.good)
        ended = time.process_time()
        if checked.rejected.height:
            raise AssertionError(f"{name}: {checked.rejected['reasons'][0].to_list()}")
        if n >= len(cases):
            check[name].append(middle - began)
            encode[name].append(ended - middle)

    def cost(name: str, of: dict[str, list[float]]) -> float:
        bare = statistics.median(of[_BARE])
        return max(0.0, statistics.median(of[name]) - bare) / records / COLUMNS * 1e9

    return [
        TypeCost(name, cost(name, check), cost(name, encode), size)
        for name, (_, _, size) in cases.items()
        if name != _BARE
    ]


_BARE = "key and time alone"


def _checked(contract: Contract, batch: MicroBatch) -> CheckedBatch:
    return check_batch(contract, batch, batch_id="b", now=_FIRST + timedelta(days=30), limits=Limits())


def _types(random: Random) -> dict[str, tuple[Any, str | None, Callable[[], Any]]]:
    """Each type with its dtype, its wire and a maker of values."""
    number = random.randrange
    words = partial(random.choice, _WORDS)

    def of_date() -> str:
        return str(date(2000, 1, 1) + timedelta(days=number(9_000)))

    def place() -> dict[str, Any]:
        return {"zip": str(number(10**5)), "lat": random.random(), "since": of_date()}

    return {
        "text of 16 characters": (pl.String(), None, lambda: f"{random.getrandbits(64):016x}"),
        "Boolean": (pl.Boolean(), None, lambda: random.random() < 0.5),
        "Int8": (pl.Int8(), None, lambda: number(-128, 128)),
        "Int64": (pl.Int64(), None, lambda: number(10**12)),
        "UInt16": (pl.UInt16(), None, lambda: number(2**16)),
        "UInt64": (pl.UInt64(), None, lambda: number(10**18)),
        "UInt64 beyond 10^18": (pl.UInt64(), None, lambda: number(10**18, 2**64)),
        "Float64": (pl.Float64(), None, lambda: round(random.random() * 1e6, 4)),
        "Float32": (pl.Float32(), None, lambda: round(random.random() * 1e6, 2)),
        "Time": (UTC_MICROS, None, lambda: (_FIRST + timedelta(seconds=number(10**6))).isoformat()),
        "Date": (pl.Date(), None, of_date),
        "Decimal(10, 2)": (pl.Decimal(10, 2), None, lambda: f"{number(10**8) / 100:.2f}"),
        "Decimal(38, 18)": (pl.Decimal(38, 18), None, lambda: f"{number(10**15)}.{number(10**18):018}"),
        "Enum": (pl.Enum(_WORDS), None, words),
        "UUID": (pl.String(), "uuid", lambda: str(uuid.UUID(int=random.getrandbits(128)))),
        "Binary of 24 bytes": (pl.Binary(), None, lambda: b64encode(random.randbytes(24)).decode()),
        "object, as JSON text": (pl.String(), "object", place),
        "Struct of 3": (
            pl.Struct({"zip": pl.String(), "lat": pl.Float64(), "since": pl.Date()}),
            None,
            place,
        ),
        "List of 4 texts": (pl.List(pl.String()), None, lambda: [words() for _ in range(4)]),
        "List of 4 Int32": (pl.List(pl.Int32()), None, lambda: [number(1_000) for _ in range(4)]),
        "map of 3 texts": (STRING_MAP, None, lambda: {name: words() for name in "abc"}),
        "map of 3 Float64": (map_of(pl.Float64), None, lambda: {name: random.random() for name in "abc"}),
    }


def _cases(random: Random, records: int) -> Iterator[tuple[str, tuple[Contract, MicroBatch, float]]]:
    for name, (dtype, wire, make) in {_BARE: (None, None, None), **_types(random)}.items():
        columns = [f"c{n}" for n in range(COLUMNS)] if dtype is not None else []
        payloads, size = [], 0
        for n in range(records):
            values = {column: make() for column in columns}  # type: ignore[misc]
            payloads.append(
                json.dumps({"id": f"{n:08}", "at": "2026-01-02T03:04:05.678901Z", **values}).encode()
            )
            size += sum(len(json.dumps(value)) for value in values.values())
        batch = MicroBatch.of("bench", payloads, cursor="bench/0", offset=range(records))
        yield name, (_contract(dtype, wire, columns), batch, size / records / COLUMNS)


def _contract(dtype: Any, wire: Any, columns: list[str]) -> Contract:
    fields: dict[str, Any] = {"id": pl.String, "at": Time, **dict.fromkeys(columns, dtype)}
    values = {
        "id": field("key", required=True),
        "at": field("time", required=True),
        **{column: field("value", wire=wire) for column in columns},
    }
    model = type("Typed", (pa.DataFrameModel,), {"__annotations__": fields, **values})
    return Contract("typed", 1, model, key="id", time="at", partition="typed_date", order_by=("at",))
