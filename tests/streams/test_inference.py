"""Tables of every type, as every format: what is inferred lands every value that is right."""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from builders import NOW
from headrace.config.settings import load_settings
from headrace.contracts import Limits, check_batch
from headrace.contracts.inference import Place, infer
from headrace.contracts.inference.load import load_contract
from headrace.formats.sampling import sample_file
from headrace.pipelines import Files, Pipeline
from headrace.streams import samples

ROWS = 120
START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = st.text(st.sampled_from("abc ,;|\"'\\ä\n日"), min_size=1, max_size=9).map(lambda text: f"x{text}x")
MICROS = st.integers(0, 86_400_000_000 * 100).map(lambda n: START + timedelta(microseconds=n))
SECONDS = st.integers(0, 86_400 * 100).map(lambda n: START + timedelta(seconds=n))


@dataclass(frozen=True)
class Kind:
    """A type of column.

    Attributes:
        values: The values as they should land.
        json: What a value is in a message.
        cell: What it is in a CSV; None if a CSV cannot hold it.
        arrow: Its type in Parquet.
        dtype: The dtype that lands.
    """

    values: st.SearchStrategy[Any]
    json: Callable[[Any], Any]
    cell: Callable[[Any], str] | None
    arrow: pa.DataType
    dtype: pl.DataType


def same(value: Any) -> Any:
    return value


def moment(value: datetime) -> str:
    return value.isoformat()


def plain(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}"


MICROSECONDS = pa.timestamp("us", "UTC")
TIMES = pl.Datetime("us", "UTC")
KINDS = {
    "flag": Kind(st.booleans(), same, str, pa.bool_(), pl.Boolean()),
    "count": Kind(st.integers(-(2**63), 2**63 - 1), same, str, pa.int64(), pl.Int64()),
    "large": Kind(st.integers(2**63, 2**64 - 1), same, None, pa.uint64(), pl.UInt64()),
    "ratio": Kind(
        st.floats(allow_nan=False, allow_infinity=False), same, repr, pa.float64(), pl.Float64()
    ),
    "word": Kind(WORDS, same, same, pa.string(), pl.String()),
    "colour": Kind(st.sampled_from(["red", "green"]), same, same, pa.string(), pl.String()),
    "day": Kind(st.dates(date(1900, 1, 1), date(2299, 12, 31)), str, str, pa.date32(), pl.Date()),
    "moment": Kind(MICROS, moment, moment, MICROSECONDS, TIMES),
    "local": Kind(SECONDS, plain, plain, MICROSECONDS, TIMES),
    "epoch_at": Kind(
        SECONDS, lambda v: int(v.timestamp()), lambda v: str(int(v.timestamp())), MICROSECONDS, TIMES
    ),
    "ident": Kind(st.uuids().map(str), str.upper, str.upper, pa.string(), pl.String()),
    "price": Kind(
        st.integers(0, 10**9).map(lambda n: Decimal(n).scaleb(-2)), float, str, pa.decimal128(18, 2), pl.Decimal(18, 2)
    ),
    "tags": Kind(st.lists(WORDS, max_size=3), same, json.dumps, pa.list_(pa.string()), pl.List(pl.String())),
    "sizes": Kind(st.lists(st.integers(0, 9), max_size=3), same, json.dumps, pa.list_(pa.int64()), pl.List(pl.Int64())),
}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn, kinds: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of some kinds; a value may be missing where a column is not a list."""
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6, unique=True))
    some = {name: draw(st.lists(KINDS[name].values, min_size=12, max_size=12)) for name in chosen}
    gaps = {name: draw(st.booleans()) and name not in ("tags", "sizes") for name in chosen}
    return {
        name: [None if gaps[name] and n % 5 == 4 else some[name][n * 7 % 12] for n in range(ROWS)]
        for name in chosen
    }


def written(folder: Path, format: str, table: dict[str, list[Any]]) -> Path:
    """Write a table, with an id and a time."""
    table = {"row_id": [f"r{n}" for n in range(ROWS)], "occurred_at": [START] * ROWS, **table}
    kinds = {
        "row_id": KINDS["word"],
        "occurred_at": KINDS["moment"],
        **{n: KINDS[n] for n in table if n in KINDS},
    }
    path = folder / f"things.{format}"
    if format == "parquet":
        arrays = {name: pa.array(values, kinds[name].arrow) for name, values in table.items()}
        pq.write_table(pa.table(arrays), path)
    elif format == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            for row in zip(*table.values(), strict=True):
                cells = zip(table, row, strict=True)
                writer.writerow("" if v is None else (kinds[n].cell or str)(v) for n, v in cells)
    else:
        records = [
            {n: v if v is None else kinds[n].json(v) for n, v in zip(table, row, strict=True)}
            for row in zip(*table.values(), strict=True)
        ]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def landed(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Infer a contract from a file and check the file with it."""
    sample = sample_file(lambda: path.open("rb"), str(path), 100_000)
    contract = load_contract(
        infer(sample, "things", NOW).contract(Place("contracts.things", own=True)), "things"
    )
    pipeline = Pipeline(contract, (Files("things"),), owner="team:a", description="")
    [batch] = samples.batches(
        samples.NamedFile(str(path), lambda: path.open("rb")), pipeline, None, load_settings()
    )
    checked = check_batch(contract, batch, batch_id="b", now=NOW, limits=Limits())
    return checked.good, checked.rejected


FORMATS = {
    "ndjson": [name for name in KINDS if name != "price"],
    "csv": [name for name, kind in KINDS.items() if kind.cell],
    "parquet": list(KINDS),
}


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_inferred_lands_every_value(format: str, tmp_path: Path) -> None:
    # each example is a file, so that shrinking one would take minutes
    without_shrinking = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]

    @settings(
        max_examples=25, deadline=None, phases=without_shrinking, suppress_health_check=list(HealthCheck)
    )
    @given(tables(FORMATS[format]))
    def holds(table: dict[str, list[Any]]) -> None:
        good, rejected = landed(written(tmp_path, format, table))
        assert rejected["reasons"].to_list() == []
        assert good.height == ROWS
        for name, values in table.items():
            wanted = pl.Series(name, values, dtype=KINDS[name].dtype)
            found = good[name]
            if found.dtype != wanted.dtype and found.dtype.is_numeric():
                found = found.cast(wanted.dtype, strict=True)
            assert found.to_list() == wanted.to_list(), (name, found.dtype)

    holds()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("count", "many"),
        ("ratio", "1,5"),
        ("day", "2026-02-30"),
        ("moment", "yesterday"),
        ("ident", "0-0"),
    ],
)
def test_a_wrong_value_among_many_right_ones_is_all_that_is_rejected(
    kind: str, wrong: str, tmp_path: Path
) -> None:
    one = {
        "count": 7,
        "ratio": 1.5,
        "day": date(2026, 1, 2),
        "moment": START,
        "ident": str(uuid.UUID(int=2)),
    }[kind]
    path = written(tmp_path, "csv", {kind: [one] * ROWS})
    path.write_text(path.read_text() + f'wrong,2026-01-01T00:00:00Z,"{wrong}"\n')
    good, rejected = landed(path)
    assert good.height == ROWS
    [[reason]] = rejected["reasons"].to_list()
    assert (reason["column"], reason["value"].strip('"')) == (kind, wrong)


ARROW = {
    "i8": (pa.array([1], pa.int8()), pl.Int8()),
    "i16": (pa.array([1], pa.int16()), pl.Int16()),
    "i32": (pa.array([1], pa.int32()), pl.Int32()),
    "u8": (pa.array([1], pa.uint8()), pl.UInt8()),
    "u64": (pa.array([2**64 - 1], pa.uint64()), pl.UInt64()),
    "f32": (pa.array([1.5], pa.float32()), pl.Float32()),
    "whole": (pa.array([1.0]), pl.Float64()),
    "money": (pa.array([Decimal("1.500")], pa.decimal128(9, 3)), pl.Decimal(9, 3)),
    "flag": (pa.array([True]), pl.Boolean()),
    "day": (pa.array([date(2026, 1, 2)]), pl.Date()),
    "at_ms": (pa.array([START], pa.timestamp("ms", "Europe/Berlin")), TIMES),
    "local": (pa.array([START.replace(tzinfo=None)], pa.timestamp("ns")), TIMES),
    "kind": (pa.array(["a"]).dictionary_encode(), pl.String()),
    "span": (pa.array([timedelta(seconds=1)]), pl.String()),
    "raw": (pa.array([b"\xff\xfe"]), pl.Binary()),
    "text": (pa.array([b"abc"]), pl.String()),
    "tags": (pa.array([["a"]]), pl.List(pl.String())),
    "none_i": (pa.array([None], pa.int16()), pl.Int16()),
    "none_d": (pa.array([None], pa.date32()), pl.Date()),
    "none_s": (pa.array([None], pa.string()), pl.String()),
}


def test_the_types_that_parquet_declares_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "things.parquet"
    columns = {name: pa.concat_arrays([array] * ROWS) for name, (array, _) in ARROW.items()}
    pq.write_table(pa.table(columns), path)
    good, rejected = landed(path)
    assert rejected["reasons"].to_list() == []
    assert {name: good.schema[name] for name in ARROW} == {name: dtype for name, (_, dtype) in ARROW.items()}
    assert good["raw"][0] == b"\xff\xfe"
    assert good["local"][0] == START
    assert (good["money"][0], good["u64"][0]) == (Decimal("1.500"), 2**64 - 1)
