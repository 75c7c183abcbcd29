"""What a sample suggests, as facts and as source text that loads and is harmless."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.contracts import Contract
from headrace.contracts.inference import Inferred, Place, Sample, infer
from headrace.contracts.inference.load import load_contract
from headrace.contracts.inference.names import column_names, usable
from headrace.contracts.inference.proposal import Proposal, quoted
from headrace.core.errors import BadData

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OWN = Place("contracts.things", own=True)
#: The calls that generated source makes.
CALLS = {
    "field",
    "Contract",
    "pl.Struct",
    "pl.List",
    "pl.col",
    "pl.Datetime",
    "map_of",
    "pl.col().cast",
    "datetime",
}


def sample_of(records: Iterable[dict[str, Any]]) -> Sample:
    sample = Sample("things.ndjson", "json")
    for number, record in enumerate(records, 1):
        sample.add_message(number, json.dumps(record).encode())
    sample.total = len(sample.records)
    return sample


def cells_of(**columns: list[str]) -> Sample:
    sample = Sample("things.csv", "csv", types=dict.fromkeys(columns))
    for number, row in enumerate(zip(*columns.values(), strict=True), 1):
        sample.records.append({n: cell for n, cell in zip(columns, row, strict=True) if cell})
        sample.numbers.append(number)
    sample.total = len(sample.records)
    return sample


def inferred(sample: Sample) -> Inferred:
    return infer(sample, "things", NOW)


def one(sample: Sample, name: str) -> Proposal:
    return next(column for column in inferred(sample).columns if column.name == name)


def loaded(sample: Sample) -> Contract:
    return load_contract(inferred(sample).contract(OWN), "things")


@pytest.mark.parametrize(
    ("cells", "dtype", "arguments"),
    [
        (["1", "-2", "0"], "pl.Int64", {}),
        (["007", "12", "100"], "pl.String", {"length": (1, 32)}),
        (["1.5", ".5", "1e3"], "pl.Float64", {}),
        (["true", "FALSE", "True"], "pl.Boolean", {}),
        (["yes", "no", "no"], "pl.Boolean", {}),
        (["2024-03-13", "2024-02-29", "1999-01-01"], "pl.Date", {}),
        (["13.03.2024", "1.2.2024", "2.2.2024"], "pl.Date", {"format": "%d.%m.%Y"}),
        (["2024-13-13", "2024-02-30", "1999-01-01"], "pl.String", {"length": (1, 32)}),
        (["2024-03-13T10:21:14Z"] * 3, "Time", {}),
        (["2024-03-13 10:21:14+01:00"] * 3, "Time", {}),
        (["2024-03-13 10:21:14"] * 3, "Time", {"format": "%Y-%m-%d %H:%M:%S", "zone": "UTC"}),
        (["2024-03-13T10:21:14.5"] * 3, "Time", {"format": "iso8601", "zone": "UTC"}),
        (["13/Mar/2024:10:21:14 +0100"] * 3, "Time", {"format": "%d/%b/%Y:%H:%M:%S %z"}),
        (["6F9619FF-8B86-D011-B42D-00CF4FC964FF"] * 3, "pl.String", {"wire": "uuid"}),
        (["1", "N/A", "3"], "pl.Int64", {"nulls": ("N/A",)}),
        (["99999999999999999999", "1", "2"], "pl.Float64", {}),
        ([" a", "b", "c"], "pl.String", {"length": (1, 32), "strip": True}),
    ],
)
def test_cells_of_a_csv_are_what_they_look_like(
    cells: list[str], dtype: str, arguments: dict[str, Any]
) -> None:
    found = one(cells_of(value=cells), "value")
    given = {n: v for n, v in found.arguments.items() if n != "required"}
    assert (found.dtype, given) == (dtype, arguments)


@pytest.mark.parametrize(
    ("values", "dtype", "arguments"),
    [
        ([1, 2, 3], "pl.Int64", {}),
        ([1, 2.5, 3], "pl.Float64", {}),
        ([2**63, 1, 2], "pl.UInt64", {}),
        ([True, False, None], "pl.Boolean", {}),
        (["1", "2", "3"], "pl.String", {"length": (1, 32)}),
        ([1, "N/A", 3], "pl.Int64", {"nulls": ("N/A",)}),
        (["", "a", "b"], "pl.String", {"nulls": ("",), "length": (1, 32)}),
        ([["a"], [], ["b", None]], "Annotated[pl.List, pl.String]", {"default": []}),
        ([[1], [2.5], []], "Annotated[pl.List, pl.Float64]", {"default": []}),
        ([{"a.b": 1, "'\"": 2}] * 3, "pl.String", {"wire": "object"}),
    ],
)
def test_values_of_json_keep_their_types(values: list[Any], dtype: str, arguments: dict[str, Any]) -> None:
    found = one(sample_of({"value": value} for value in values), "value")
    given = {n: v for n, v in found.arguments.items() if n != "required"}
    assert (found.dtype, given) == (dtype, arguments)


@pytest.mark.parametrize(
    ("name", "value", "format"),
    [
        ("ts", 1_710_321_674, "epoch_s"),
        ("created_at", 1_710_321_674_123, "epoch_ms"),
        ("time", 1_710_321_674_123_456, "epoch_us"),
        ("count", 1_710_321_674, None),
        ("ts", 17, None),
    ],
)
def test_numbers_are_times_if_name_and_size_say_so(name: str, value: int, format: str | None) -> None:
    found = one(sample_of({name: value + n} for n in range(3)), name)
    assert (found.arguments.get("format"), found.dtype) == (format, "Time" if format else "pl.Int64")


def test_a_date_that_can_be_read_in_two_ways_is_asked_about() -> None:
    ambiguous = one(cells_of(day=["01/02/2024", "03/04/2024"]), "day")
    assert ambiguous.arguments["format"] == "%m/%d/%Y"
    assert ambiguous.decide == ['format="%d/%m/%Y" fits all of them as well']
    assert one(cells_of(day=["13/02/2024", "03/04/2024"]), "day").decide == []


def test_amounts_of_money_are_decimals_if_name_and_digits_say_so() -> None:
    prices = [f"{n}.{n % 100:02}" for n in range(20)]
    found = inferred(cells_of(price=prices, ratio=prices))
    assert {c.name: c.dtype for c in found.columns if c.path} == {
        "price": "Annotated[pl.Decimal, 18, 2]",
        "ratio": "pl.Float64",
    }


def test_few_wrong_values_are_said_and_many_make_it_text() -> None:
    few = one(cells_of(value=["7"] * 199 + ["x"]), "value")
    assert few.dtype == "pl.Int64"
    assert [(m.count, m.example, m.row) for m in few.misfits] == [(1, '"x"', 200)]
    assert one(cells_of(value=["7"] * 190 + ["x"] * 10), "value").dtype == "pl.String"


def test_mixed_types_of_json_are_said_with_counts() -> None:
    found = one(sample_of({"value": 1 if n % 3 else "x"} for n in range(9)), "value")
    assert found.dtype == "pl.Int64"
    assert [(m.count, m.what, m.row) for m in found.misfits] == [(3, "texts", 1)]


def test_a_field_is_required_only_if_enough_records_have_it() -> None:
    assert not one(sample_of({"other": n} for n in range(99)), "other").required
    assert one(sample_of({"other": n} for n in range(100)), "other").required
    missing = one(sample_of({"other": n if n else None} for n in range(100)), "other")
    assert (missing.required, missing.missing) == (False, 1)


def test_objects_become_columns_maps_or_text() -> None:
    records = [
        {
            "page": {"url": "/a", "user": {"id": n}},
            "labels": {f"k{n}": "v"},
            "counts": {f"k{n}": n},
            "mess": {f"k{n}": n if n % 2 else "x"},
            "a b": {"c.d": 1},
        }
        for n in range(50)
    ]
    found = {c.name: (c.dtype, c.path) for c in inferred(sample_of(records)).columns if c.path}
    assert found == {
        "page_url": ("pl.String", ("page", "url")),
        "page_user_id": ("pl.Int64", ("page", "user", "id")),
        "labels": ("STRING_MAP", ("labels",)),
        "counts": ("map_of(pl.Int64)", ("counts",)),
        "mess": ("pl.String", ("mess",)),
        "a_b_c_d": ("pl.Int64", ("a b", "c.d")),
    }


def test_cells_of_a_csv_may_hold_json() -> None:
    found = inferred(
        cells_of(
            tags=['["a", "b"]', "[]", '["c"]'],
            page=['{"url": "/a", "n": 1.5}', '{"url": "/b"}', '{"n": 2}'],
            odd=["[1]", "not json", "{}"],
        )
    )
    assert {c.name: c.dtype for c in found.columns if c.path} == {
        "tags": "Annotated[pl.List, pl.String]",
        "page_url": "pl.String",
        "page_n": "pl.Float64",
        "odd": "pl.String",
    }


def test_lists_of_objects_have_members_with_types() -> None:
    items = one(
        sample_of({"items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2.5}]} for _ in range(3)), "items"
    )
    assert items.dtype == 'Annotated[pl.List, pl.Struct({"sku": pl.String, "n": pl.Float64})]'
    nested = one(sample_of({"items": [[1, 2], []], "n": 1} for _ in range(3)), "items")
    assert nested.dtype == "Annotated[pl.List, pl.List(pl.Int64)]"
    odd = sample_of({"items": [{"a b": 1}], "n": 1} for _ in range(3))
    assert inferred(odd).left_out == [
        '"items": lists of objects that no column holds; unknown="keep" would keep them as JSON'
    ]
    deep = sample_of({"items": [{"tags": ["a"], "size": {"x": 1}, "grid": [[1.5]]}]} for _ in range(3))
    contract = loaded(deep)
    size, tags = pl.Struct({"x": pl.Int64}), pl.List(pl.String)
    grid = pl.List(pl.List(pl.Float64))
    items_type = pl.List(pl.Struct({"tags": tags, "size": size, "grid": grid}))
    assert {c.name: c.dtype for c in contract.columns}["items"] == items_type


def test_an_id_that_never_repeats_is_the_key() -> None:
    rows = range(300)
    found = inferred(
        sample_of({"n": n, "thing_id": f"t{n}", "user_id": n, "at": "2026-01-01T00:00:00Z"} for n in rows)
    )
    assert found.roles.key == "thing_id"
    assert found.roles.why["key"] == "never missing, different in each of 300 records"
    assert found.roles.decide["key"] == ["user_id would do as well"]


def test_an_id_that_hardly_repeats_is_the_key_and_repeats_are_said() -> None:
    found = inferred(sample_of({"event_id": max(n, 3), "at": "2026-01-01T00:00:00Z"} for n in range(300)))
    assert found.roles.key == "event_id"
    assert found.roles.why["key"] == "named like an id; 3 of 300 records repeat one"


def test_without_an_id_the_key_is_a_hash_and_whole_repeats_are_said() -> None:
    records = [{"at": "2026-01-01T00:00:00Z", "user_id": n % 7, "page": n // 2} for n in range(200)]
    found = inferred(sample_of([*records, records[0]]))
    key = next(c for c in found.columns if c.name == found.roles.key)
    assert (found.roles.key, key.arguments["hashed"]) == ("record_id", ("at", "user_id", "page"))
    assert found.roles.repeats == 1
    assert "1 of 201 records repeat another one wholly" in found.roles.decide["key"][0]


def test_the_time_of_the_event_is_preferred_and_times_that_will_be_rejected_are_said() -> None:
    at = {"updated_at": "2026-01-02T00:00:00Z", "occurred_at": "2026-01-01T00:00:00Z"}
    records = [{**at, "id": n} for n in range(3)] + [{**at, "id": 4, "occurred_at": "1970-01-01T00:00:00Z"}]
    roles = inferred(sample_of(records)).roles
    assert (roles.time, roles.partition) == ("occurred_at", "thing_date")
    assert roles.decide["time"][0] == "updated_at would do as well"
    assert roles.decide["time"][1].startswith("1 times of the sample are before 2000-01-01")


def test_a_date_makes_the_time_and_without_either_somebody_must_decide() -> None:
    found = inferred(sample_of({"id": n, "day": "2026-01-01"} for n in range(3)))
    assert found.roles.why["time"] == "midnight of day: there is no time of day"
    found = inferred(sample_of({"id": n} for n in range(3)))
    assert "every stream needs the time of its events" in found.roles.decide["time"][0]


def test_rows_are_sorted_by_few_values_then_by_whose_they_are_then_by_time() -> None:
    at = "2026-01-01T00:00:00Z"
    records = [
        {"id": n, "user_id": f"u{n % 50}", "at": at, "kind": "ab"[n % 2], "page": f"p{n % 9}"}
        for n in range(400)
    ]
    assert inferred(sample_of(records)).roles.order_by == ("kind", "user_id", "at")
    named = [{"visitor" if name == "user_id" else name: v for name, v in one.items()} for one in records]
    assert inferred(sample_of(named)).roles.order_by == ("kind", "visitor", "at")
    assert inferred(sample_of(records[:50])).roles.order_by == ("at",)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("userId", "user_id"),
        ("HTTPServer", "http_server"),
        ("Straße 1", "strasse_1"),
        ("2x", "n_2x"),
        ("class", "class_value"),
        ("field", "field_value"),
        ("pl", "pl_value"),
        ("validate", "validate_value"),
        ("_id", "id"),
        ("日本", "unnamed"),
    ],
)
def test_names_become_identifiers(name: str, column: str) -> None:
    assert column_names([(name,)]) == {(name,): column}


def test_names_that_would_collide_are_told_apart_and_an_identifier_keeps_its_own() -> None:
    found = column_names([("userId",), ("user_id",), ("UserID",), ("user", "id")])
    assert found == {
        ("userId",): "user_id_2",
        ("user_id",): "user_id",
        ("UserID",): "user_id_3",
        ("user", "id"): "user_id_4",
    }


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), unique=True, max_size=12))
def test_every_name_becomes_a_usable_one_and_none_is_there_twice(paths: list[tuple[str, ...]]) -> None:
    found = column_names(paths)
    assert list(found) == paths
    assert len({name.lower() for name in found.values()}) == len(paths)
    assert [name for name in found.values() if not usable(name) or len(name) > 63] == []


@settings(max_examples=300, deadline=None)
@given(st.text())
@example('"""\n')
@example("'\\\"")
def test_a_literal_is_one_line_and_means_the_text(text: str) -> None:
    literal = quoted(text)
    assert ast.literal_eval(literal) == text
    assert literal.isprintable()


HOSTILE = '"); import os; os.system("true")#\n'
RECORDS = st.dictionaries(
    NAMES,
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.text(max_size=20),
        st.booleans(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.none(),
        st.dictionaries(NAMES, st.text(max_size=5), max_size=3),
        st.lists(st.text(max_size=5), max_size=3),
    ),
    min_size=1,
    max_size=6,
)


def called(node: ast.expr) -> str:
    """Name of what is called, without arguments."""
    if isinstance(node, ast.Attribute):
        return f"{called(node.value)}.{node.attr}"
    return f"{called(node.func)}()" if isinstance(node, ast.Call) else getattr(node, "id", "?")


def harmful(source: str) -> list[str]:
    """What source text does beyond declaring a contract."""
    tree = ast.parse(source)
    calls = {called(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    imported = {
        alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    known = (
        "datetime.",
        "__future__.",
        "typing.Annotated",
        "pandera.polars",
        "polars",
        "headrace.contracts.",
        "headrace.core.batch.",
    )
    return sorted(calls - CALLS) + sorted(name for name in imported if not name.startswith(known))


@settings(max_examples=100, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=4))
@example([{HOSTILE: HOSTILE, "a": {HOSTILE: 1}, '"""': ['"""']}])
@example([{"class": 1, "validate": "x", "pl": 1, "field": 2, "Config": 3, "": 4}])
def test_whatever_a_message_holds_the_contract_loads_and_does_nothing_else(
    records: list[dict[str, Any]],
) -> None:
    sample = sample_of(records * 30)  # of many records more is said
    if not any(name for record in sample.records for name in record):
        return
    try:
        source = inferred(sample).contract(OWN)
    except BadData:
        return  # no field that a column can hold
    assert harmful(source) == []
    contract = load_contract(source, "things")
    assert contract.name == "things"


def test_harm_would_be_seen() -> None:
    assert harmful("import os\nos.system('x')\nfield()") == ["os.system", "os"]


def test_the_source_is_as_ruff_would_format_it(tmp_path: Path) -> None:
    long = "a_name_that_is_as_long_as_names_can_get_in_a_warehouse"
    records = [
        {
            f"{long}_{n}": f"{'x' * (n % 40)}",
            "Session ID": f"s{n % 5}",
            "items": [{f"{long}_{m}": m for m in range(6)}],
            "few": [{"a": 1}],
            "deep": [{f"{long}_{m}": {f"{long}_{m}": [{"a": 1}]} for m in range(3)}],
            "context": {"page": {"url": f"/{n % 3}"}},
            HOSTILE: "it's" if n % 2 else 'a "quote"',
            "at": "2026-01-01 00:00:00",
            "big": 2**63 + n,
            "mixed": n if n % 7 else "x",
        }
        for n in range(300)
    ]
    for n, sample in enumerate((sample_of(records), sample_of(records[:3]), sample_of([{"id": 1}]))):
        (tmp_path / f"contract_{n}.py").write_text(inferred(sample).contract(OWN))
    ruff = [sys.executable, "-m", "ruff"]
    formatted = [*ruff, "format", "--diff", "--isolated", "--line-length", "110", str(tmp_path)]
    done = subprocess.run(formatted, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    linted = [*ruff, "check", "--isolated", "--line-length", "110", "--select", "F,I,UP,W,B", str(tmp_path)]
    done = subprocess.run(linted, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_is_learnt_from_nothing() -> None:
    empty = Sample("things.ndjson", "json")
    empty.add_message(1, b"not json")
    with pytest.raises(BadData, match="no record to learn from: 1 not JSON, row 1: not json"):
        inferred(empty)


def test_what_never_repeats_without_being_named_like_an_id_is_offered() -> None:
    records = [{"at": "2026-01-01T00:00:00Z", "tail": f"N{n}", "seats": n % 7} for n in range(200)]
    roles = inferred(sample_of(records)).roles
    assert (roles.key, roles.decide["key"][0]) == (
        "record_id",
        "tail never repeats; if it identifies a record, name it here",
    )


def test_a_key_of_many_fields_hashes_those_that_tell_records_apart() -> None:
    few = [{f"c{m}": n * (m + 1) for m in range(30)} for n in range(50)]
    key = next(c for c in inferred(sample_of(few)).columns if c.name == "record_id")
    assert len(key.arguments["hashed"]) == 12
    many = [{f"c{m}": int(n == m) for m in range(30)} for n in range(30)]
    found = inferred(sample_of(many))
    key = next(c for c in found.columns if c.name == "record_id")
    assert len(key.arguments["hashed"]) == 30
    assert found.roles.decide["key"] == []
