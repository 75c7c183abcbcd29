"""What a value of JSON is in a column of a type, in plain Python: the oracle of ``headrace.contracts.wire.typed``."""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
import uuid
from datetime import date, datetime
from decimal import Context, Decimal, localcontext
from typing import Any

import polars as pl
from hypothesis import strategies as st

from headrace.core.batch import UTC_MICROS

_EXACT = Context(prec=100_000, Emax=999_999, Emin=-999_999)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BITS = {pl.Int8: 8, pl.Int16: 16, pl.Int32: 32, pl.Int64: 64}
_UNSIGNED = {pl.UInt8: 8, pl.UInt16: 16, pl.UInt32: 32, pl.UInt64: 64}


class Token(str):
    """A number as it is written."""


def loads(text: str) -> Any:
    """Read JSON; numbers stay tokens."""
    return json.loads(text, parse_int=Token, parse_float=Token, parse_constant=str)


def judged(dtype: Any, value: Any, path: str, wire: str = "") -> tuple[Any, set[tuple[str, str]]]:
    """Return the value that lands, and the reasons (path, check) why it does not."""
    if isinstance(dtype, pl.List):
        return _list(dtype, value, path)
    if value is None:
        return None, set()
    if isinstance(dtype, pl.Struct):
        if not isinstance(value, dict):
            return None, {(path, "type(object)")}
        members = {f.name: judged(f.dtype, value.get(f.name), f"{path}.{f.name}") for f in dtype.fields}
        return {n: v for n, (v, _) in members.items()}, set().union(*(why for _, why in members.values()))
    found = _scalar(dtype, value, wire)
    return (None, {(path, found.check)}) if isinstance(found, Wrong) else (found, set())


class Wrong:
    """Stands for a value that fails a check."""

    def __init__(self, check: str) -> None:
        self.check = check


def _list(dtype: pl.List, value: Any, path: str) -> tuple[Any, set[tuple[str, str]]]:
    inner: Any = dtype.inner
    pairs = isinstance(inner, pl.Struct) and [f.name for f in inner.fields] == ["key", "value"]
    if value is None:
        return ({} if pairs else []), set()
    if not pairs:
        if not isinstance(value, list):
            return None, {(path, "type(array)")}
        items = [judged(inner, one, f"{path}[]") for one in value]
        return [v for v, _ in items], set().union(*(why for _, why in items))
    of = inner.fields[1].dtype
    if of == pl.String:  # read by the scanner itself, which knows one reason
        right = isinstance(value, dict) and all(type(one) is str for one in value.values())
        return (value, set()) if right else (None, {(path, "type(map)")})
    if not isinstance(value, dict):
        return None, {(path, "type(object)")}
    items = {key: judged(of, one, f"{path}.*") for key, one in value.items()}  # type: ignore[assignment]
    return (
        {k: v for k, (v, _) in items.items()},  # type: ignore[attr-defined]
        set().union(*(why for _, why in items.values())),  # type: ignore[attr-defined]
    )


def _scalar(dtype: Any, value: Any, wire: str) -> Any:
    if isinstance(dtype, pl.Decimal):
        return _decimal(dtype, value)
    if dtype == pl.Boolean:
        return value if isinstance(value, bool) else Wrong("type(boolean)")
    if dtype in _BITS or dtype in _UNSIGNED:
        return _integer(dtype, value)
    if dtype in (pl.Float32, pl.Float64):
        return _float(dtype, value)
    if wire == "object":
        return value if isinstance(value, dict) else Wrong("type(object)")
    if type(value) is not str:
        return Wrong("type(time)" if dtype == UTC_MICROS else "type(string)")
    return _text(dtype, value, wire)


def _text(dtype: Any, value: str, wire: str) -> Any:
    if dtype == UTC_MICROS:
        return datetime.fromisoformat(value)
    if isinstance(dtype, pl.Enum):
        choices = dtype.categories.to_list()
        return value if value in choices else Wrong(f"isin({choices})")
    if dtype == pl.Date:
        try:
            found = date.fromisoformat(value) if re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII) else None
        except ValueError:
            found = None
        if found is None:
            return Wrong("date(YYYY-MM-DD)")
        return found if 1900 <= found.year <= 2299 else Wrong("in_range(1900-01-01, 2299-12-31)")
    if dtype == pl.Binary:
        try:
            data = base64.b64decode(value.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            return Wrong("base64")
        return data if base64.b64encode(data).decode() == value else Wrong("base64")
    if wire == "uuid":
        try:
            found_uuid = str(uuid.UUID(value))
        except ValueError:
            return Wrong("uuid")
        return found_uuid if found_uuid == value.lower() else Wrong("uuid")
    return str(value)


def _integer(dtype: Any, value: Any) -> Any:
    if not isinstance(value, Token):
        return Wrong("type(integer)")
    with localcontext(_EXACT):
        number = Decimal(value)
        if number != number.to_integral_value():
            return Wrong("type(integer)")
    bits = _UNSIGNED.get(dtype)
    low, high = (0, 2**bits - 1) if bits else (-(2 ** (_BITS[dtype] - 1)), 2 ** (_BITS[dtype] - 1) - 1)
    return int(number) if low <= number <= high else Wrong(f"in_range({low}, {high})")


def _float(dtype: Any, value: Any) -> Any:
    if not isinstance(value, Token) or abs(float(value)) == float("inf"):
        return Wrong("type(number)")
    if dtype == pl.Float64:
        return float(value)
    try:
        found = struct.unpack("f", struct.pack("f", float(value)))[0]
    except OverflowError:
        found = float("inf")
    return Wrong("in_range(-3.4028235e+38, 3.4028235e+38)") if abs(found) == float("inf") else found


def _decimal(dtype: pl.Decimal, value: Any) -> Any:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        return Wrong("type(decimal)")
    assert dtype.precision is not None
    with localcontext(_EXACT):
        number = Decimal(value)
        scaled = number.scaleb(dtype.scale)
        fits = scaled == scaled.to_integral_value() and abs(scaled) < 10**dtype.precision
        return number if fits else Wrong(f"decimal({dtype.precision}, {dtype.scale})")


# ---- values to judge ----


def _near(*edges: int) -> st.SearchStrategy[str]:
    return st.builds(lambda e, d: str(e + d), st.sampled_from(edges), st.integers(-2, 2))


_EDGES = [0, *(sign * 2**n for n in (7, 8, 15, 16, 31, 32, 63, 64) for sign in (1, -1)), 10**18, -(10**18)]
integers = (
    _near(*_EDGES)
    | _near(*_EDGES).map(lambda n: f"{n}.0")
    | st.sampled_from(["1e2", "1.5", "-0", "0.0", "1e400", "12e-1", "2550e-1", "1E1", "-1.0e1"])
)
numbers = (
    st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr)
    | st.sampled_from(["3.4028235e38", "3.4028236e38", "-1e39", "1e-50", "0.1", "-0.0", "16777217", "1e308"])
)
decimals = (
    st.decimals(-(10**12), 10**12, places=3).map(lambda d: f"{d:f}")
    | st.from_regex(r"\A-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,2})?\Z")
    | st.sampled_from(
        [
            "99999999.99", "-99999999.99", "100000000", "99999999.999", "0.10", "1e7", "1e8", "0e99", "1.00000",
            "9" * 20 + "." + "9" * 18, "-" + "9" * 20 + "." + "9" * 18, "1" + "0" * 20, "0." + "0" * 18 + "1", "1e-18",
            "1e-19", "1e9999", "1e-9999", "0.00000e-5",
        ]
    )
)  # fmt: skip
dates = st.dates().map(str) | st.sampled_from(
    ["1900-01-01", "1899-12-31", "2299-12-31", "2300-01-01", "2023-02-29", "2024-02-29", "2024-2-1", "0000-01-01",
     "2024-13-01", "2024-01-00", "2024-01-01T00:00:00Z", " 2024-01-01", "9999-12-31", "٢٠٢٤-٠١-٠١"]
)  # fmt: skip
texts = st.text(max_size=8) | st.sampled_from(["", "é", "web", "a" * 13, '"\\/\n', "\U0001f600"])
uuids = st.uuids().map(str) | st.sampled_from(
    ["123E4567-E89B-12D3-A456-426614174000", "123e4567e89b12d3a456426614174000",
     "{123e4567-e89b-12d3-a456-426614174000}", "123e4567-e89b-12d3-a456-42661417400g",
     "urn:uuid:123e4567-e89b-12d3-a456-426614174000"]
)  # fmt: skip
blobs = st.binary(max_size=9).map(lambda b: base64.b64encode(b).decode()) | st.sampled_from(
    ["AB==", "A", "AA=", "-_8=", "AA==\n"]
)
wrong = st.sampled_from(
    ["true", "1", '"1"', '""', "[]", "{}", '["a"]', '{"a": 1}', "1.5", '"true"', '"null"']
)


def _quoted(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(json.dumps, texts, ensure_ascii=st.booleans())


def tokens(dtype: Any, wire: str = "") -> st.SearchStrategy[str]:
    """JSON texts of values that mostly fit a dtype."""
    return st.one_of(_right(dtype, wire), _right(dtype, wire), _right(dtype, wire), wrong, st.just("null"))


def _right(dtype: Any, wire: str) -> st.SearchStrategy[str]:
    if isinstance(dtype, pl.List):
        inner: Any = dtype.inner
        if isinstance(inner, pl.Struct) and [f.name for f in inner.fields] == ["key", "value"]:
            pairs = st.dictionaries(texts, tokens(inner.fields[1].dtype), max_size=3)
            return pairs.map(_object)
        return st.lists(tokens(inner), max_size=3).map(lambda items: f"[{', '.join(items)}]")
    if isinstance(dtype, pl.Struct):
        return st.fixed_dictionaries({}, optional={f.name: tokens(f.dtype) for f in dtype.fields}).map(
            _object
        )
    if isinstance(dtype, pl.Decimal):
        return decimals | decimals.map(json.dumps)
    if isinstance(dtype, pl.Enum):
        return _quoted(st.sampled_from([*dtype.categories.to_list(), "other"]))
    if wire == "object":
        return st.dictionaries(texts, tokens(pl.Int64()), max_size=2).map(_object)
    if wire == "uuid":
        return _quoted(uuids)
    if dtype in _BITS or dtype in _UNSIGNED:
        return integers
    scalars = {
        pl.Boolean: st.sampled_from(["true", "false"]),
        pl.Float32: numbers,
        pl.Float64: numbers,
        pl.Date: _quoted(dates),
        pl.Binary: _quoted(blobs),
        pl.String: _quoted(texts),
    }
    return scalars[dtype]


def _object(members: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}"
