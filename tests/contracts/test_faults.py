"""What a contract declares is checked where it is declared."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import contract_in, event
from headrace.contracts import EVENTS, METRICS, Contract
from headrace.contracts.faults import faults
from headrace.core.batch import ORIGIN_SCHEMA, CheckedBatch
from headrace.core.errors import Fatal
from headrace.warehouse.ddl import create_table

MODEL = """
import datetime
import decimal
from typing import Annotated, Optional

import pandera.polars as pa
import polars as pl

from headrace.core.batch import STRING_MAP
from headrace.contracts import Contract, Time, field, map_of


class Orders(pa.DataFrameModel):
    \"\"\"An order.\"\"\"

    order_id: pl.String = field("id", length=(1, 64), required=True)
    placed_at: Time = field("when", required=True)
    paid_at: Time = field("when")
    country: pl.String = field("where", required=True, isin=["DE", "FR"])
    note: pl.String = field("words")
    amount: pl.Float64 = field("EUR", required=True)
    labels: STRING_MAP = field("labels", required=True, default={{}})
    {field}

    class Config:
        strict = True


contract = Contract(name="orders", version=1, model=Orders, key="order_id", time="placed_at",
                    partition="order_date", order_by=("country", "placed_at"))
"""
_count = itertools.count()


@pytest.fixture
def declared(tmp_path: Path) -> Callable[[str], Contract]:
    """``declared(line)``: a contract from a file whose model has this line too."""

    def made(line: str = "") -> Contract:
        return contract_in(tmp_path / f"declared_{next(_count)}.py", MODEL.format(field=line))

    return made


def test_headraces_own_contracts_have_no_faults() -> None:
    assert [fault for contract in (EVENTS, METRICS) for fault in faults(contract)] == []


#: By the line of a model: what is said of it.
FIELDS = {
    'x: pl.Time = field("x")': "field 'x' has dtype Time, which is not supported; for a time of day write pl.String",
    'x: pl.Categorical = field("x")': "which is not supported; for few values write Annotated[pl.Enum, [...]]",
    'x: pl.Int128 = field("x")': "for more than 64 bits write Annotated[pl.Decimal, 38, 0]; supported are pl.String",
    'x: pl.List = field("x")': "a list says of what: Annotated[pl.List, pl.String]",
    'x: pl.Enum = field("x")': "write Annotated[pl.Enum, ['web', 'mobile']]",
    'x: Annotated[pl.Enum, []] = field("x")': "has dtype Enum without values",
    'x: pl.Decimal = field("x")': "field 'x' has dtype Decimal without its digits; write Annotated[pl.Decimal, 18, 4]",
    'x: Annotated[pl.List, pl.Time] = field("x")': "has dtype Time, which is not supported; for a time of day write"
    " pl.String with str_matches; supported are pl.String",
    'x: Annotated[pl.List, pl.List(pl.Time)] = field("x")': "(at '[]') (at '[]')",
    'x: Annotated[pl.Struct, {"a": pl.String, "A": pl.String}] = field("x")': "has a Struct with member 'a' twice",
    'x: Annotated[pl.Struct, {"a b": pl.String}] = field("x")': "member 'a b', which is no identifier",
    f'x: {"pl.List(" * 9}pl.String{")" * 9} = field("x")': "is nested deeper than 8 levels",
    'x: map_of(pl.Binary) = field("x")': "the values of a map are anything but binary",
    'x: Annotated[pl.List, pl.String] = field("x", default=["a"])': "that of a list is []",
    'x: Annotated[pl.List, pl.String] = field("x", isin=["a"])': "a list has no checks",
    'x: Annotated[pl.Struct, {"a": pl.String}] = field("x", default={})': "a struct takes none",
    'x: Annotated[pl.Decimal, 5, 2] = field("x", ge=1.5)': "1.5 is no integer and no Decimal",
    'x: Annotated[pl.Decimal, 5, 2] = field("x", default=1000)': "has default 1000, which is no Decimal",
    'x: Annotated[pl.Decimal, 5, 2] = field("x", default=decimal.Decimal("0.125"))': "which is no Decimal",
    'x: Annotated[pl.Enum, ["a"]] = field("x", default="b")': "has default 'b', which is no Enum",
    'x: Annotated[pl.Enum, ["a"]] = field("x", length=(1, 2))': "an Enum has isin, notin, equal_to, not_equal_to alone",
    'x: pl.Boolean = field("x", default=1)': "has default 1, which is no Boolean",
    'x: pl.Boolean = field("x", ge=False)': "a Boolean has isin",
    'x: pl.UInt8 = field("x", ge=300)': "(min_value=300) and the largest UInt8",
    'x: pl.Date = field("x", ge="2020-01-01")': "'2020-01-01' is no date",
    'x: pl.Date = field("x", default=datetime.date(1850, 1, 1))': "which is no Date",
    'x: pl.String = field("x", wire="uuid", default="x")': "has default 'x', which is no",
    'x: pl.String = field("x", wire="uuid", low_cardinality=True)': "is for pl.String alone, not a uuid",
    'x: pl.Float32 = field("x", default=1e39)': "which is no Float32",
    'x: pl.Binary = field("x", default=b"")': "a binary takes none",
    'x: pl.Datetime = field("x")': "which is not supported; for times write headrace.contracts.Time; supported",
    'x: datetime.datetime = field("x")': "for times write headrace.contracts.Time",
    'x: pl.Float64 = field("x", wire="integer")': "which does not fit its dtype Float64; choose of number",
    'x: pl.String = field("x", wire="text")': "which does not fit its dtype String; choose of string, object",
    '_x: pl.String = field("x")': "field '_x' begins with _, so that Pandera leaves it out",
    'x: pl.String = pa.Field(nullable=True, alias="_offset")': "field '_offset' begins with _, as the columns do",
    'x: pl.String = pa.Field(alias="a b")': "field 'a b' is no SQL identifier",
    'x: pl.String = pa.Field(alias="größe")': "field 'größe' is no SQL identifier",
    'x: pl.String = pa.Field(nullable=True, alias="class")': "field 'class' is no SQL identifier",
    f'x: pl.String = pa.Field(nullable=True, alias="{"x" * 64}")': "is no SQL identifier: up to 63",
    'x: pl.String = pa.Field(alias="^c.*$", regex=True)': "is a pattern of names",
    'x: pl.String = pa.Field(nullable=True, alias="note")': "field 'note' is there twice",
    'note: pl.String = field("x")': "field 'note' is there twice",
    'Note: pl.String = field("x")': "field 'Note' is there twice",
    'x: pl.Int32 = field("x", ge=5, le=3)': "(min_value=5) and less_than_or_equal_to(max_value=3)",
    'x: pl.Float64 = field("x", gt=5.0, le=5.0)': "no value passes: greater_than(min_value=5.0)",
    'x: pl.Int32 = field("x", ge=2**40)': "(min_value=1099511627776) and the largest Int32",
    'x: pl.String = field("x", length=(-3, -1))': "which no text passes",
    'x: pl.String = field("x", isin=[])': "has isin=[], which no value passes",
    'x: pl.String = field("x", isin=["a", "bcd"], length=(1, 2))': "names 'bcd' in isin, which its own str_length(",
    'x: pl.Int32 = field("x", isin=["a"])': "has a check that cannot be asked, isin(allowed_values=['a'])",
    'x: pl.String = field("x", ge=1)': "has a check that cannot be asked, greater_than_or_equal_to(min_value=1)",
    'x: pl.String = field("x", str_matches="(?=x)")': "has a check that cannot be asked, str_matches(",
    'x: pl.Int64 = field("x", length=(1, 2))': "has a check that cannot be asked, str_length(",
    'x: pl.Int32 = field("x", default="a")': "has default 'a', which is no Int32",
    'x: pl.Int32 = field("x", default=True)': "has default True, which is no Int32",
    'x: pl.Int32 = field("x", default=2**31)': "has default 2147483648, which is no Int32",
    'x: pl.Int32 = field("x", default=1.5)': "has default 1.5, which is no Int32",
    'x: pl.Float64 = field("x", default=float("nan"))': "has default nan, which is no Float64",
    'x: pl.String = field("x", default="ab", length=(3, 4))': "its own str_length(min_value=3, max_value=4) refuses",
    'x: pl.Int32 = field("x", default=7, isin=[1, 2])': "which its own isin(allowed_values=[1, 2]) refuses",
    'x: Time = field("x", default="2026-01-01T00:00:00Z")': "a time takes none",
    'x: pl.String = field("x", wire="object", default="{}")': "an object takes none",
    'x: STRING_MAP = field("x", required=True, default={"a": "b"})': "that of a map is {}",
    'x: pl.Float64 = field("x", low_cardinality=True)': "has low_cardinality=True, which is for pl.String alone",
}  # fmt: skip


@pytest.mark.parametrize("line", FIELDS)
def test_a_field_that_cannot_be_kept_is_refused(declared: Callable[..., Contract], line: str) -> None:
    said = FIELDS[line]
    with pytest.raises(Fatal) as refused:
        declared(line)
    assert str(refused.value).startswith("contract 'orders': field ")
    assert said in str(refused.value)


#: What Headrace takes, from field to table.
RIGHT = [
    'x: str = field("x")',
    'x: int = field("x", ge=1, le=1)',
    'x: bool = field("x", default=False)',
    'x: bytes = field("x")',
    'x: pl.UInt64 = field("x", default=2**64 - 1)',
    'x: pl.Date = field("x", ge=datetime.date(2020, 1, 1), default=datetime.date(2020, 1, 1))',
    'x: Annotated[pl.Decimal, 5, 2] = field("x", ge=0, lt=decimal.Decimal("9.5"), default=decimal.Decimal("1.25"))',
    'x: Annotated[pl.Enum, ["a", "b"]] = field("x", default="b", isin=["b"])',
    'x: Annotated[pl.List, pl.String] = field("x", required=True)',
    'x: Annotated[pl.List, pl.Struct({"a": pl.Decimal(3, 1)})] = field("x", required=True, default=[])',
    'x: map_of(pl.List(pl.Date)) = field("x")',
    'x: STRING_MAP = field("x")',
    'x: pl.Float32 = field("x", ge=0.0)',
    'x: float = field("x", default=0, ge=0)',
    'x: Optional[str] = field("x")',
    'x: pl.Int64 = field("x", default=-(2**63))',
    'x: pl.String = field("x", wire="object", length=(2, 99))',
    'x: pl.String = field("x", default="a", isin=["a", "b"], low_cardinality=True)',
    'x: pl.String = field("x", required=True, str_matches="^[a-z]+$", alias="y")',
    'x: Time = field("x", ge=datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc))',
    'x: pl.Int32 = field("x", gt=1, lt=3, notin=[7])',
]


THREADS = """
import os, pathlib, sys, headrace.pipelines as p
sys.path.insert(0, sys.argv[1])
before = len(os.listdir("/proc/self/task"))
import declared
print(before, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by Linux")
def test_declaring_starts_no_threads_which_forked_workers_would_wait_for(tmp_path: Path) -> None:
    (tmp_path / "declared.py").write_text(
        MODEL.format(
            field="""x: pl.String = field("x", default="a", str_matches="^a", length=(1, 2))
    kind: Annotated[pl.Enum, ["a", "b"]] = field("x", default="b")
    price: Annotated[pl.Decimal, 5, 2] = field("x", default=decimal.Decimal("1.25"))
    places: Annotated[pl.List, pl.Struct({"a": pl.Date})] = field("x")"""
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(tmp_path)], capture_output=True, text=True, check=True
    )
    before, after = done.stdout.split()
    assert before == after


@pytest.mark.parametrize("line", RIGHT)
def test_what_is_right_passes_and_has_a_table(declared: Callable[..., Contract], line: str) -> None:
    contract = declared(line)
    assert contract.table.name in create_table("raw", contract.table)
    assert contract.landed_schema.names()[-1] == "_batch_id"


ROLES: list[tuple[dict[str, Any], str]] = [
    (
        {"partition": "country"},
        "partition 'country' is a field, which the date would overwrite; it names a new column",
    ),
    ({"partition": "_date"}, "partition '_date' is no SQL identifier"),
    ({"partition": "Country"}, "field 'Country' is there twice"),
    ({"partition": "order date"}, "partition 'order date' is no SQL identifier"),
    ({"partition": None}, "partition None is no SQL identifier"),
    ({"time": "placed_a"}, "time 'placed_a' is no field; did you mean 'placed_at'?"),
    (
        {"time": "country"},
        "time 'country' is not a time (headrace.contracts.Time); there are placed_at, paid_at",
    ),
    ({"time": "paid_at"}, "time 'paid_at' may be null; declare it with required=True"),
    ({"key": "id"}, "key 'id' is no field; "),
    ({"key": "note"}, "key 'note' may be null; declare it with required=True"),
    ({"key": "labels"}, "key 'labels' is not text or an integer; there are order_id, country, note"),
    ({"order_by": ("contry",)}, "order_by 'contry' is no field; did you mean 'country'?"),
    (
        {"order_by": ("note",)},
        "order_by 'note' may be null; declare it with required=True, or choose of order_id, placed",
    ),
    ({"order_by": ("country", "country")}, "order_by names 'country' twice"),
    ({"order_by": ("labels",)}, "order_by 'labels' is a map"),
    ({"order_by": "country"}, "order_by 'country' is no tuple of fields; write it like ('placed_at',)"),
    ({"order_by": ()}, "order_by () is no tuple of fields"),
    ({"name": "my orders"}, "name 'my orders' is no SQL identifier"),
    ({"name": "o" * 55}, "has 55 characters; at most 54 are possible"),
    ({"name": "_orders"}, "name '_orders' is no SQL identifier"),
    ({"version": 0}, "version 0 is no integer from 1 on"),
    ({"version": "1"}, "version '1' is no integer"),
    ({"version": True}, "version True is no integer"),
    ({"version": 2**31}, "is no integer"),
    ({"model": int}, "is no DataFrameModel of pandera.polars"),
]


@pytest.mark.parametrize(("changes", "said"), ROLES)
def test_a_role_that_no_field_can_have_is_refused(
    declared: Callable[..., Contract], changes: dict[str, Any], said: str
) -> None:
    right = declared()
    with pytest.raises(Fatal) as refused:
        replace(right, **changes)
    assert said in str(refused.value)


def test_every_fault_is_named_at_once(declared: Callable[..., Contract]) -> None:
    with pytest.raises(Fatal) as refused:
        replace(declared(), name="a b", version=0, partition="note", order_by=("nota",))
    assert str(refused.value).count(";") >= 3


def test_another_pandera_is_named() -> None:
    import pandera.pandas as other

    class Pandas(other.DataFrameModel):
        order_id: str

    with pytest.raises(Fatal, match="is no DataFrameModel of pandera"):
        replace(EVENTS, model=Pandas)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([*EVENTS.landed_schema.names(), "event_day", "EVENT_ID", "a-b", ""]),
    role=st.sampled_from(["key", "time", "partition", "order_by"]),
)
def test_a_contract_is_refused_or_lands_every_column_that_it_declares(
    judge: Callable[..., CheckedBatch], name: str, role: str
) -> None:
    """Whatever names whatever: data is never overwritten, and no null is in a table's keys."""
    try:
        contract = replace(EVENTS, **{role: (name,) if role == "order_by" else name})
    except Fatal:
        return
    good = judge(contract, [event(user_id="u")]).good
    assert good.schema == contract.landed_schema
    assert good[contract.partition].dtype == pl.Date and not good[contract.partition].has_nulls()
    assert not {contract.partition, *contract.order_by} & contract.table.nullable
    assert len(good.columns) == len(set(good.columns)) == len(EVENTS.columns) + 1 + len(ORIGIN_SCHEMA)
