"""Derived fields, keys and the contract's own function: in columns, and a record at fault is alone at fault."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.contracts import Contract, Time, field
from headrace.contracts.shaping.fitted import fitted
from headrace.contracts.shaping.keys import key_of_fields
from headrace.contracts.shaping.parts import Hopeless, by_parts
from headrace.core.batch import CheckedBatch, MicroBatch
from headrace.core.errors import Fatal

Judge = Callable[..., CheckedBatch]
AT = "2024-03-13T10:21:14Z"


class Sales(pa.DataFrameModel):
    """A sale."""

    at: Time = field("when", required=True)
    user: pl.String = field("who", required=True)
    price: pl.Float64 = field("EUR", required=True, ge=0.0)
    pieces: pl.Int32 = field("how many")
    cents: pl.Int64 = field("in cents, needs total", derive=pl.col("total") * 100, required=True)
    total: pl.Float64 = field("EUR", derive=pl.col("price") * pl.col("pieces"), required=True, le=1000.0)
    size: pl.Int32 = field("of the name", derive=pl.col("user").str.split("-").list.get(1).cast(pl.Int32))
    key: pl.String = field("key", hashed=("user", "total"), required=True)


def contract(model: type[pa.DataFrameModel] = Sales, **changes: Any) -> Contract:
    return Contract(
        **{
            "name": "sales", "version": 1, "model": model, "key": "user", "time": "at", "partition": "sale_date",
            "order_by": ("at",), **changes,
        }
    )  # fmt: skip


def sale(**changes: Any) -> bytes:
    return json.dumps({"at": AT, "user": "u-1", "price": 2.0, "pieces": 3, **changes}).encode()


def reasons(found: CheckedBatch) -> dict[int, list[tuple[str, str, str]]]:
    return {
        offset: [tuple(one.values()) for one in row]
        for offset, row in found.rejected.select("_offset", "reasons").iter_rows()
    }


def test_fields_are_computed_after_those_that_they_need(judge: Judge) -> None:
    found = judge(contract(), [sale(), sale(user="u-7", price=0.5)])
    assert found.good.select("total", "cents", "size").rows() == [(6.0, 600, 1), (1.5, 150, 7)]
    assert found.good["key"].n_unique() == 2
    assert found.rejected.is_empty()


def test_what_follows_from_a_wrong_value_is_no_second_reason(judge: Judge) -> None:
    messages = [
        sale(price="x"),
        sale(price=-1.0),
        sale(pieces=None),
        sale(price=None),
        sale(at="x", price=5000),
        sale(),
    ]
    found = reasons(judge(contract(), messages))
    assert found == {
        0: [("type(number)", "price", '"x"')],
        1: [("greater_than_or_equal_to(0.0)", "price", "-1.0")],
        2: [("required", "total", "")],
        3: [("required", "price", "")],
        4: [("rfc3339_time_with_zone", "at", "x"), ("less_than_or_equal_to(1000.0)", "total", "15000.0")],
    }


def test_a_record_that_an_expression_fails_on_is_alone_at_fault(judge: Judge) -> None:
    messages = [sale(user=f"u-{n}" if n % 10 else f"u-{n}x") for n in range(1, 41)]
    found = judge(contract(), messages)
    assert found.good.height == 36
    failed = reasons(found)
    assert sorted(failed) == [9, 19, 29, 39]
    for row in failed.values():
        [(check, column, value)] = row
        assert (check, column) == ("derive", "size")
        assert "InvalidOperationError" in value


def test_a_value_that_does_not_fit_is_rejected_and_not_cut(judge: Judge) -> None:
    found = judge(contract(), [sale(price=0.335, pieces=1), sale(price=0.25, pieces=1)])
    [[(check, column, value)]] = reasons(found).values()
    assert (check, column, value[:4]) == ("derive", "cents", "33.5")
    assert found.good["cents"].to_list() == [25]


@pytest.mark.parametrize(
    ("derive", "said"),
    [
        (pl.col("price").sum(), "gives 1 values for 3 records; it is one per record"),
        (pl.col("price").cum_sum(), "it looks at other records"),
        (pl.col("price").shift(1), "it looks at other records"),
        (pl.col("user"), "it gives String, which is no Float64; write .cast(pl.Float64)"),
        (pl.col("price").struct.field("a"), "Error: "),
        (pl.col("at").dt.replace_time_zone(None), "it gives Datetime"),
    ],
)
def test_an_expression_that_no_record_could_pass_stops_the_stream(
    judge: Judge, derive: pl.Expr, said: str
) -> None:
    class Wrong(pa.DataFrameModel):
        at: Time = field("when", required=True)
        user: pl.String = field("who", required=True)
        price: pl.Float64 = field("EUR")
        x: pl.Float64 = field("x", derive=derive)

    with pytest.raises(Fatal) as refused:
        judge(contract(Wrong), [sale(), sale(price=3.0), sale(price=4.0)])
    assert str(refused.value).startswith("contract 'sales': field 'x' cannot be derived: ")
    assert said in str(refused.value)


def test_derived_texts_are_what_the_column_holds(judge: Judge) -> None:
    class Texts(pa.DataFrameModel):
        at: Time = field("when", required=True)
        user: pl.String = field("who", required=True)
        uuid: pl.String = field("u", wire="uuid", derive=pl.col("user"))
        object: pl.String = field(
            "o", wire="object", derive=pl.concat_str(pl.lit('{"a": '), "user", pl.lit("}"))
        )
        local: Time = field("t", derive=pl.col("at").dt.convert_time_zone("Asia/Kolkata"))
        day: pl.Date = field("d", derive=pl.col("at").dt.date())
        one: pl.Int8 = field("1", derive=pl.lit(1))
        kind: Annotated[pl.Enum, ["A"]] = field("k", derive=pl.lit("A"))

    found = judge(contract(Texts), [sale(user="00000000-0000-0000-0000-00000000000A"), sale(user="7")])
    failed = reasons(found)
    assert {(check, column) for row in failed.values() for check, column, _ in row} == {
        ("type(object)", "object"), ("uuid", "uuid"),
    }  # fmt: skip
    assert [len(row) for row in failed.values()] == [1, 1]


def piece(value: Any) -> bytes:
    """The bytes of one value, by the definition in ``keys``."""
    if value is None:
        return b"n0:"
    match value:
        case bool():
            letter, data = b"b", b"%d" % value
        case int():
            letter, data = b"i", b"%d" % value
        case float():
            bits = (
                0x7FF8 << 48 if math.isnan(value) else struct.unpack(">Q", struct.pack(">d", value + 0.0))[0]
            )
            letter, data = b"f", b"%d" % bits
        case Decimal():
            text = f"{value:f}"
            letter, data = b"m", (text.rstrip("0").rstrip(".") if "." in text else text).encode()
        case datetime():
            letter, data = b"z", b"%d" % ((value - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution))
        case date():
            letter, data = b"d", value.isoformat().encode()
        case bytes():
            letter, data = b"x", value.hex().encode()
        case list():
            letter, data = b"l", b"".join(map(piece, value))
        case dict():
            letter, data = b"s", b"".join(piece(value[name]) for name in sorted(value))
        case _:
            letter, data = b"t", value.encode()
    return b"%s%d:%s" % (letter, len(data), data)


TYPES: list[tuple[pl.DataType, Any]] = [
    (pl.String(), st.text(max_size=8)),
    (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    (pl.UInt64(), st.integers(0, 2**64 - 1)),
    (pl.Float64(), st.floats()),
    (pl.Boolean(), st.booleans()),
    (pl.Decimal(20, 4), st.decimals(-(10**12), 10**12, places=4)),
    (pl.Date(), st.dates()),
    (pl.Datetime("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    (pl.Binary(), st.binary(max_size=5)),
    (pl.List(pl.String()), st.lists(st.none() | st.text(max_size=3), max_size=3)),
    (pl.Struct({"a": pl.Int64(), "b": pl.List(pl.Boolean())}),
     st.fixed_dictionaries({"a": st.none() | st.integers(0, 9), "b": st.lists(st.booleans(), max_size=2)})),
]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_key_is_the_hash_of_the_defined_bytes(data: st.DataObject) -> None:
    height = data.draw(st.integers(0, 3))
    columns: list[pl.Series] = []
    rows: list[list[Any]] = [[] for _ in range(height)]
    for n, (dtype, values) in enumerate(data.draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4))):
        column = data.draw(st.lists(st.none() | values, min_size=height, max_size=height))
        columns.append(pl.Series(str(n), column, dtype=dtype))
        for row, value in zip(rows, column, strict=True):
            row.append(value)
    expected = [blake2b(b"".join(map(piece, row)), digest_size=16).hexdigest() for row in rows]
    assert key_of_fields(columns).to_list() == expected


def test_keys_are_the_same_for_ever() -> None:
    """These are in tables; a change would make every repeat a new record."""
    one = [pl.Series(["anna"]), pl.Series([datetime(2024, 3, 13, tzinfo=UTC)]).cast(pl.Datetime("us", "UTC"))]
    assert key_of_fields(one).to_list() == ["2dfa4f61e8bf6e8bfc08dedc833eb1c3"]
    assert key_of_fields([pl.Series([None, 1.5, -0.0, 0.0])]).n_unique() == 3
    assert (
        key_of_fields([pl.Series(["a"]), pl.Series(["bc"])])[0]
        != key_of_fields([pl.Series(["ab"]), pl.Series(["c"])])[0]
    )
    narrow, wide = (pl.Series([7], dtype=dtype) for dtype in (pl.Int8, pl.Int64))
    assert key_of_fields([narrow]).to_list() == key_of_fields([wide]).to_list()
    assert key_of_fields([pl.Series([1.5], dtype=pl.Float32)])[0] == key_of_fields([pl.Series([1.5])])[0]


class Keys(pa.DataFrameModel):
    """Records whose keys come from elsewhere than their fields."""

    at: Time = field("when", required=True)
    content: pl.String = field("key", hashed="payload", required=True)
    place: pl.String = field("key", hashed="position", required=True)


def test_keys_of_payload_and_position(judge: Judge) -> None:
    keys = contract(Keys, key="place")
    one, other = sale(), sale(user="u-2")
    found = judge(keys, [one, b"[ " + one + b" ," + other + b"]", one, b"x"])
    assert found.good["content"].to_list() == [
        blake2b(part, digest_size=16).hexdigest() for part in (one, one, other, one)
    ]
    origins = [("test/0", 0, 0), ("test/0", 1, 0), ("test/0", 1, 1), ("test/0", 2, 0)]
    assert found.good["place"].to_list() == [
        blake2b(b"".join(map(piece, origin)), digest_size=16).hexdigest() for origin in origins
    ]
    queue = MicroBatch.of("sqs/q", [one], cursor="sqs/q", message_id=["m-1"])
    from builders import NOW
    from headrace.contracts import Limits, check_batch

    [place] = check_batch(keys, queue, batch_id="b", now=NOW, limits=Limits()).good["place"]
    assert place == blake2b(b"".join(map(piece, ("sqs/q", "m-1", 0))), digest_size=16).hexdigest()


def test_transform_sees_all_fields_and_is_checked_after(judge: Judge) -> None:
    seen = []

    def doubled(rows: pl.DataFrame) -> pl.DataFrame:
        seen.append(rows.columns)
        return rows.with_columns(pl.col("price") * 2, more=pl.lit(1)).reverse().reverse()

    found = judge(contract(transform=doubled), [sale(), sale(price=-3.0)])
    assert seen == [["at", "user", "price", "pieces", "cents", "total", "size", "key"]]
    assert found.good["price"].to_list() == [4.0]
    assert reasons(found) == {1: [("greater_than_or_equal_to(0.0)", "price", "-6.0")]}
    assert "more" not in found.good.columns


def picky(rows: pl.DataFrame) -> pl.DataFrame:
    if (rows["price"] == 13.0).any():
        raise ValueError("an unlucky\nprice")
    return rows


TRANSFORMS: dict[str, tuple[Callable[[pl.DataFrame], Any], set[int], str]] = {
    "raises": (picky, {3, 17}, "ValueError: an unlucky"),
    "drops": (lambda rows: rows.filter(pl.col("price") != 13.0), {3, 17}, "ValueError: it returned 0 rows for 1"),
    "lacks a column": (lambda rows: rows.drop("user"), set(range(20)), "it returned no column 'user'"),
    "returns nothing": (lambda rows: None, set(range(20)), "it returned NoneType, no pl.DataFrame"),
    "other dtype": (
        lambda rows: rows.with_columns(price=pl.lit("x")), set(range(20)),
        "column 'price': it gives String, which is no Float64; write .cast(pl.Float64)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", TRANSFORMS)
def test_a_record_that_a_transform_fails_on_is_alone_at_fault(judge: Judge, way: str) -> None:
    transform, bad, said = TRANSFORMS[way]
    messages = [sale(price=13.0 if n in (3, 17) else 1.0) for n in range(20)]
    found = judge(contract(transform=transform), messages)
    assert reasons(found) == {n: [("transform", "", said)] for n in bad}
    assert found.good["_offset"].to_list() == [n for n in range(20) if n not in bad]


def test_a_transform_gets_no_records_that_have_failed(judge: Judge) -> None:
    heights = []

    def counted(rows: pl.DataFrame) -> pl.DataFrame:
        heights.append(rows.height)
        assert not rows["price"].has_nulls()
        return rows.with_columns(pl.col("user") + "!")

    found = judge(contract(transform=counted), [sale(), sale(price="x"), sale(), b"x"])
    assert heights == [2]
    assert found.good["user"].to_list() == ["u-1!", "u-1!"]
    assert [[check for check, *_ in row] for row in reasons(found).values()] == [["type(number)"], ["json"]]
    assert judge(contract(transform=counted), [b"x"]).rejected.height == 1


def test_a_value_of_a_transform_that_does_not_fit_is_rejected(judge: Judge) -> None:
    found = judge(
        contract(transform=lambda rows: rows.with_columns(pieces=pl.col("price"))), [sale(), sale(price=1.5)]
    )
    assert found.good["pieces"].to_list() == [2]
    assert reasons(found) == {1: [("transform", "pieces", "1.5")]}


@settings(max_examples=60, deadline=None)
@given(bad=st.sets(st.integers(0, 99), max_size=8))
@example(set(range(100)))
def test_halves_find_every_row_at_fault_and_no_other(bad: set[int]) -> None:
    calls = 0

    def call(rows: pl.DataFrame) -> list[int]:
        nonlocal calls
        calls += 1
        if bad & set(rows["n"]):
            raise KeyError("bad")
        return rows["n"].to_list()

    found = list(by_parts(pl.DataFrame({"n": range(100)}), call))
    assert [first for first, count, _ in found] == sorted(first for first, _, _ in found)
    assert sum(count for _, count, _ in found) == 100
    assert {first for first, count, part in found if isinstance(part, Exception)} == bad
    assert [n for _, _, part in found if not isinstance(part, Exception) for n in part] == sorted(
        set(range(100)) - bad
    )
    assert calls <= 1 + 14 * len(bad)


def test_what_is_hopeless_is_not_tried_in_halves() -> None:
    def call(rows: pl.DataFrame) -> None:
        raise Hopeless("no")

    [(first, count, _)] = by_parts(pl.DataFrame({"n": range(100)}), call)
    assert (first, count) == (0, 100)


FIT: list[tuple[pl.Series, pl.DataType, list[Any]]] = [
    (pl.Series([1.0, 1.5, None, math.nan, 3e9]), pl.Int32(), [1, None, None, None, None]),
    (pl.Series([2**53, 2**53 + 1]), pl.Float64(), [2.0**53, None]),
    (pl.Series([1.5, 1e300, math.inf]), pl.Float32(), [1.5, None, math.inf]),
    (pl.Series([0.3, 0.1 + 0.2]), pl.Decimal(10, 2), [Decimal("0.30"), None]),
    (pl.Series([1, -1, 300]), pl.UInt8(), [1, None, None]),
    (pl.Series(["a", "x", None]), pl.Enum(["a"]), ["a", None, None]),
    (pl.Series([None, None]), pl.String(), [None, None]),
    (pl.Series([], dtype=pl.Int64), pl.Int8(), []),
]


@pytest.mark.parametrize(("values", "dtype", "expected"), FIT)
def test_a_value_fits_or_is_named(values: pl.Series, dtype: pl.DataType, expected: list[Any]) -> None:
    found, wrong = fitted(values, dtype)
    assert found.dtype == dtype
    assert found.to_list() == expected
    assert wrong.to_list() == [v is not None and e is None for v, e in zip(values, expected, strict=True)]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pl.Series(["1"]), pl.Int32()),
        (pl.Series([True]), pl.Int8()),
        (pl.Series([1]), pl.Boolean()),
        (pl.Series([1]), pl.String()),
    ],
)
def test_other_types_are_not_guessed(values: pl.Series, dtype: pl.DataType) -> None:
    with pytest.raises(TypeError, match=r"which is no"):
        fitted(values, dtype)
