"""A contract that contradicts an earlier version of itself is refused at import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
import pytest

from grown import ORDERS
from headrace.contracts import EVENTS, METRICS, Contract, Time, Was, field
from headrace.contracts.faults import faults
from headrace.core.errors import Fatal

Declare = Callable[..., Contract]


def declared(kind: Any, said: Any, **contract: Any) -> Contract:
    """A contract of version 3 with a field ``x``."""
    fields: dict[str, tuple[Any, Any]] = {
        "id": (pl.String, field("key", required=True)),
        "at": (Time, field("when", required=True)),
        "other": (pl.String, field("another", was={1: Was(name="another")})),
        "properties": (pl.String, field("anything else", wire="object")),
        "claimed": (pl.Int32, field("version")),
        "x": (kind, said),
    }
    body = {"__annotations__": {name: one for name, (one, _) in fields.items()}, "__module__": __name__}
    model = type("Model", (pa.DataFrameModel,), body | {name: one for name, (_, one) in fields.items()})
    defaults: dict[str, Any] = {
        "name": "xs", "version": 3, "model": model, "key": "id", "time": "at", "partition": "day", "order_by": ("at",),
    }  # fmt: skip
    return Contract(**(defaults | contract))


#: A field's type, its declaration -> what is said of it.
FIELDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "narrowed": (
        pl.Int32, {"was": {1: Was(dtype=pl.Int64)}},
        "field 'x' was Int64 up to version 1 and is Int32 from version 2 on: not every Int64 is one, and files with"
        " Int64 exist; add another field with since=2, and retire this one",
    ),
    "of another kind": (pl.String, {"was": {2: Was(dtype=pl.Int64)}}, "was Int64 up to version 2 and is String"),
    "narrowed on the way": (
        pl.Int64, {"was": {1: Was(dtype=pl.Int32), 2: Was(dtype=pl.Int16)}}, "was Int32 up to version 1 and is Int16",
    ),
    "an enum loses a value": (
        Annotated[pl.Enum, ["a"]], {"was": {1: Was(dtype=Annotated[pl.Enum, ["a", "b"]])}}, "not every Enum",
    ),
    "the same type": (pl.Int64, {"was": {1: Was(dtype=pl.Int64)}}, "that is the same, take dtype= away"),
    "the same name": (pl.Int64, {"was": {1: Was(name="x")}}, "that is the same, take name= away"),
    "nothing": (pl.Int64, {"was": {1: Was()}}, "which says nothing"),
    "no mapping": (pl.Int64, {"was": Was(le=1)}, "write was={1: Was(dtype=pl.Int32)}"),
    "no Was": (pl.Int64, {"was": {1: {"le": 1}}}, "write was={1: Was(dtype=pl.Int32)}"),
    "a check that is none": (pl.Int64, {"was": {1: Was(max=1)}}, "'max' is nothing that a field was"),
    "no version": (pl.Int64, {"was": {0: Was(le=1)}}, "which is no version"),
    "a version to come": (pl.Int64, {"was": {3: Was(le=1)}}, "is of version 3; write version=4"),
    "before it came": (pl.Int64, {"since": 3, "was": {1: Was(le=1)}}, "but since=3: version 1 did not have it"),
    "after it went": (pl.Int64, {"retired": 2, "was": {2: Was(le=1)}}, "it was not asked for then"),
    "since the first": (pl.Int64, {"since": 1}, "has since=1, which is no version from 2 on"),
    "since a version to come": (pl.Int64, {"since": 4}, "the contract is of version 3; write version=4"),
    "since no version": (pl.Int64, {"since": "2"}, "has since='2', which is no version"),
    "retired to come": (pl.Int64, {"retired": 4}, "has retired=4, but the contract is of version 3"),
    "retired as it came": (pl.Int64, {"since": 2, "retired": 2}, "no version asks for it"),
    "moved and not retired": (pl.Int64, {"moved_to": "properties"}, "which is for a retired field"),
    "moved nowhere": (pl.Int64, {"retired": 2, "moved_to": "other"}, "no field of a JSON object; there are properties"),
    "another's name": (pl.String, {"was": {1: Was(name="other")}}, "a name is never used again for another field"),
    "another's old name": (pl.String, {"was": {1: Was(name="another")}}, "'other' is or was 'another', too"),
    "a name that is none": (pl.String, {"was": {1: Was(name="a b")}}, "with name='a b', which is no SQL identifier"),
    "a check that its type has not": (pl.Int64, {"was": {1: Was(length=(1, 2))}}, "up to version 1 has a check"),
    "a default that its check refuses": (
        pl.Int64, {"le": 9, "was": {1: Was(le=3, default=5)}}, "up to version 1 has default 5, which its own",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind, said, why", FIELDS.values(), ids=FIELDS)
def test_a_field_that_contradicts_its_past_is_refused(kind: Any, said: dict[str, Any], why: str) -> None:
    with pytest.raises(Fatal) as refused:
        declared(kind, field("x", **said))
    assert "contract 'xs': field 'x' " in str(refused.value)
    assert why in str(refused.value)


CONTRACTS: dict[str, tuple[dict[str, Any], str]] = {
    "oldest zero": ({"oldest": 0}, "oldest 0 is no version from 1 to 3"),
    "oldest to come": ({"oldest": 4}, "oldest 4 is no version from 1 to 3"),
    "claims no field": ({"claims": "claimd"}, "claims 'claimd' is no field; did you mean 'claimed'?"),
    "claims a text": ({"claims": "other"}, "claims 'other' is String; a version is an integer"),
}


@pytest.mark.parametrize("contract, why", CONTRACTS.values(), ids=CONTRACTS)
def test_a_contract_whose_versions_cannot_be_is_refused(contract: dict[str, Any], why: str) -> None:
    with pytest.raises(Fatal) as refused:
        declared(pl.Int64, field("x"), **contract)
    assert why in str(refused.value)


CLAIMS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "with a default": (pl.Int32, {"default": 1}, "is of the newest version, 3: take default= away"),
    "with a check": (pl.Int32, {"isin": [1, 2]}, "here 1 to 3: take the check away"),
    "that grew": (pl.Int32, {"since": 2}, "the same in all of them"),
    "that is computed": (pl.Int32, {"constant": 3}, "is not read from the message"),
}


@pytest.mark.parametrize("kind, said, why", CLAIMS.values(), ids=CLAIMS)
def test_the_field_of_versions_says_them_all(kind: Any, said: dict[str, Any], why: str) -> None:
    with pytest.raises(Fatal) as refused:
        declared(kind, field("x", **said), claims="x")
    assert f"claims 'x' {why}" in str(refused.value) or why in str(refused.value)
    assert declared(kind, field("x", **said)) is not None  # what is wrong is to claim it


ROLES: dict[str, tuple[dict[str, Any], str]] = {
    "renamed": ({"was": {1: Was(name="y")}}, "order_by 'x' was 'y' up to version 1"),
    "without a default": ({"since": 2}, "rows of earlier versions would have null"),
    "not required": ({"was": {1: Was(required=False)}}, "order_by 'x' was not required up to version 1"),
}


@pytest.mark.parametrize("said, why", ROLES.values(), ids=ROLES)
def test_fields_that_tables_are_sorted_by_are_in_every_row(said: dict[str, Any], why: str) -> None:
    with pytest.raises(Fatal) as refused:
        declared(pl.String, field("x", required=True, **said), order_by=("x",))
    assert why in str(refused.value)


def test_contracts_that_grew_rightly_have_no_faults() -> None:
    assert [fault for contract in (ORDERS, EVENTS, METRICS) for fault in faults(contract)] == []
    assert faults(replace(ORDERS, oldest=3)) == []
    assert (
        declared(pl.Float64, field("x", was={1: Was(dtype=pl.Int8), 2: Was(dtype=pl.Int64, le=9)}))
        is not None
    )
