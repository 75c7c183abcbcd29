"""Avro as JSON text: compared with fastavro on generated schemas and data, and safe on damaged data."""

from __future__ import annotations

import base64
import io
import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import BadData
from headrace.core.schemas import Schema
from headrace.formats.registered.avro import AvroReader
from headrace.formats.registered.avro_scan import MOST_TEXT

_DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 4}
_SCALARS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "null": ("null", st.none()),
    "boolean": ("boolean", st.booleans()),
    "int": ("int", st.integers(-(2**31), 2**31 - 1)),
    "long": ("long", st.integers(-(2**63), 2**63 - 1)),
    "float": ("float", st.floats(width=32)),
    "double": ("double", st.floats()),
    "cents": ("double", st.integers(-(10**9), 10**9).map(lambda n: n / 100)),
    "string": ("string", st.text()),
    "bytes": ("bytes", st.binary()),
    "date": ({"type": "int", "logicalType": "date"}, st.dates()),
    "millis": (
        {"type": "long", "logicalType": "timestamp-millis"},
        st.datetimes(timezones=st.just(UTC)).map(
            lambda d: d.replace(microsecond=d.microsecond // 1000 * 1000)
        ),
    ),
    "micros": ({"type": "long", "logicalType": "timestamp-micros"}, st.datetimes(timezones=st.just(UTC))),
    "clock": ({"type": "long", "logicalType": "time-micros"}, st.times()),
    "uuid": ({"type": "string", "logicalType": "uuid"}, st.uuids()),
    "decimal": (_DECIMAL, st.decimals(-(10**50), 10**50, places=4)),
}


def _schemas(names: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    scalars = names.map(lambda name: _SCALARS[name])

    def nested(inner: Any) -> Any:
        return st.one_of(
            inner.map(lambda one: ({"type": "array", "items": one[0]}, st.lists(one[1], max_size=3))),
            inner.map(
                lambda one: (
                    {"type": "map", "values": one[0]},
                    st.dictionaries(st.text(), one[1], max_size=3),
                )
            ),
        )

    return st.recursive(scalars, nested, max_leaves=3)


@st.composite
def records(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A schema of some fields, some of them optional, and records of it."""
    fields, values = [], {}
    for n in range(draw(st.integers(0, 4))):
        kind, value = draw(_schemas(st.sampled_from(sorted(_SCALARS))))
        if kind != "null" and draw(st.booleans()):
            kind, value = ["null", kind], st.none() | value
        fields.append({"name": f"f{n}", "type": kind})
        values[f"f{n}"] = value
    schema = {"type": "record", "name": "R", "fields": fields}
    return schema, draw(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=3))


def encoded(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def reader(schema: Any, *references: Any) -> AvroReader:
    named = tuple((str(n), json.dumps(one)) for n, one in enumerate(references))
    return AvroReader(Schema("AVRO", json.dumps(schema), named))


def plain(value: Any) -> Any:
    """What a value that fastavro read is in JSON, as the docs say."""
    match value:
        case dict():
            return {key: plain(one) for key, one in value.items()}
        case list():
            return [plain(one) for one in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
        case date():
            return value.isoformat()
        case time():
            return value.isoformat(timespec="microseconds")
        case UUID():
            return str(value)
        case float() if not math.isfinite(value):
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return value


@settings(deadline=None)
@given(records())
def test_it_reads_what_fastavro_reads(made: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    schema, rows = made
    data = [encoded(schema, row) for row in rows]
    found = reader(schema).read(pl.Series(data))
    assert not found.wrong
    parsed = fastavro.parse_schema(schema)
    for text, body in zip(found.payloads, data, strict=True):
        expected = plain(fastavro.schemaless_reader(io.BytesIO(body), parsed, None))
        assert json.loads(text, parse_float=_number) == _exact(expected)


def _number(text: str) -> Any:
    """A number with a point: equal to the double or the decimal that it was."""
    return Decimal(text)


def _exact(value: Any) -> Any:
    match value:
        case dict():
            return {key: _exact(one) for key, one in value.items()}
        case list():
            return [_exact(one) for one in value]
        case float():
            return _Double(value)
    return value


class _Double:
    """A double, equal to each decimal text that is read back as it."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        same = float(str(other)) == self.value
        return same and math.copysign(1, float(str(other))) == math.copysign(1, self.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.value)


@settings(deadline=None)
@given(records(), st.data())
def test_damaged_data_costs_its_neighbours_nothing(
    made: tuple[dict[str, Any], list[dict[str, Any]]], data: st.DataObject
) -> None:
    schema, rows = made
    good = encoded(schema, rows[0])
    cut = good[: data.draw(st.integers(0, max(0, len(good) - 1)))] if good else b"x"
    bad = data.draw(st.sampled_from([cut, good + b"\0", good + b"\x80"]) | st.binary(max_size=40))
    found = reader(schema).read(pl.Series([good, bad, good, bad]))
    assert found.payloads[0] == found.payloads[2] is not None
    assert (1 in found.wrong) == (3 in found.wrong)
    for row in (1, 3):
        assert (found.payloads[row] is None) == (row in found.wrong)
    if bad in (cut, good + b"\0"):
        assert 1 in found.wrong, "what is cut off, or too long, is never taken for a datum"


@pytest.mark.parametrize(
    ("schema", "body", "said"),
    [
        ("string", b"\x0aab", "the message ends within a value, at byte 0"),
        ("string", b"\x01", "a negative length"),
        ("long", b"\xff" * 10, "a number of more than 64 bits"),
        ("int", encoded("long", 2**31), "an int of more than 32 bits"),
        ("boolean", b"\x02", "a boolean is neither 0 nor 1"),
        (["null", "long"], b"\x04", "a union has no such branch"),
        (["null", "long"], b"\x01", "a union has no such branch"),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, b"\x02", "an enum has no such symbol"),
        ("long", b"\x02\x02", "bytes are left over, at byte 1"),
        ({"type": "array", "items": "null"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "too long"),
        (
            {"type": "array", "items": "long"},
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
            "a negative length",
        ),
        (_DECIMAL, encoded("bytes", b"x" * 33), "a decimal of more than 32 bytes"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(schema: Any, body: bytes, said: str) -> None:
    found = reader(schema).read(pl.Series([body]))
    assert found.payloads.to_list() == [None]
    assert said in found.wrong[0]


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        ({"type": "fixed", "name": "F", "size": 3}, b"abc", '"YWJj"'),
        ({"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}, bytes(range(16)), '"00010203-0405-0607-0809-0a0b0c0d0e0f"'),
        ({"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}, b"\1\0\0\0\2\0\0\0\3\0\0\0", '{"months":1,"days":2,"millis":3}'),
        ({"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 3}, Decimal("-0.005"), "-0.005"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 0}, Decimal("-120"), "-120"),
        ({"type": "int", "logicalType": "time-millis"}, 86_399_999, '"23:59:59.999000"'),
        ({"type": "int", "logicalType": "time-millis"}, 86_400_000, "86400000"),
        ({"type": "long", "logicalType": "timestamp-nanos"}, -1, '"1969-12-31T23:59:59.999999Z"'),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, 1_500, '"1970-01-01T00:00:01.500000"'),
        ({"type": "long", "logicalType": "timestamp-millis"}, 2**62, str(2**62)),
        ({"type": "int", "logicalType": "date"}, 2**31 - 1, str(2**31 - 1)),
        ("double", 5.0, "5.0"), ("double", -0.0, "-0.0"), ("double", 0.07, "0.07"), ("double", 1e15, "1e15"),
        ("string", 'a"\\\n\x1f\x7fé', '"a\\"\\\\\\u000a\\u001f\x7fé"'),
        ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, "b", '"b"'),
        (["string", "long"], 7, "7"),
    ],
)  # fmt: skip
def test_each_type_arrives_as_the_docs_say(schema: Any, value: Any, text: str) -> None:
    logical = isinstance(schema, dict) and isinstance(value, int)
    body = encoded("long" if logical else schema, value)
    [found] = reader(schema).read(pl.Series([body])).payloads
    written, got = text.encode(), found.rstrip()
    assert got == written or (float(got) == float(written) and b"e" in written)


def test_a_type_may_contain_itself_and_be_of_another_schema() -> None:
    node = {"type": "record", "name": "x.Node", "fields": [
        {"name": "next", "type": ["null", "x.Node"]}, {"name": "tag", "type": "x.Tag"}]}  # fmt: skip
    tag = {"type": "enum", "name": "x.Tag", "symbols": ["a", "b"]}
    list_of = reader({"type": "array", "items": "x.Node"}, tag, node)
    one = list_of.read(pl.Series([b"\x02\x02\x00\x02\x00\x00"]))
    assert one.payloads.to_list() == [b'[{"next":{"next":null,"tag":"b"},"tag":"a"}]']
    deep = list_of.read(pl.Series([b"\x02" + b"\x02" * 100 + b"\x00" + b"\x00" * 101 + b"\x00"]))
    assert "nested too deep" in deep.wrong[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is no Avro schema"),
        ('{"type":"recor","name":"R"}', "it is no Avro schema"),
        ('"x.Unknown"', "it is no Avro schema"),
        ('{"type":"record","name":"R","fields":7}', "it is no Avro schema"),
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
    ],
)
def test_what_is_no_schema_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadData, match=said):
        AvroReader(Schema("AVRO", text))


def test_a_schema_of_many_fields_works_and_of_too_many_is_refused() -> None:
    def wide(fields: int) -> dict[str, Any]:
        return {
            "type": "record",
            "name": "R",
            "fields": [{"name": f"f{n}", "type": "int"} for n in range(fields)],
        }

    [text] = reader(wide(5_000)).read(pl.Series([b"\x02" * 5_000])).payloads
    assert json.loads(text) == {f"f{n}": 1 for n in range(5_000)}
    with pytest.raises(BadData, match="more than 200,000 parts"):
        reader(wide(100_001))


def test_much_text_finds_its_room() -> None:
    long = {"type": "enum", "name": "E", "symbols": ["s" * 3_000, "t"]}
    found = reader({"type": "array", "items": long}).read(
        pl.Series(
            [b"\xd0\x0f" + b"\0" * 1_000 + b"\0", b"\x02\x02\0", b"\x80\x9c\x01" + b"\0" * 10_000 + b"\0"]
        )
    )
    assert json.loads(found.payloads[0]) == ["s" * 3_000] * 1_000
    assert json.loads(found.payloads[1]) == ["t"]
    assert list(found.wrong) == [2]
    assert MOST_TEXT < 3_000 * 10_000
