"""Random histories of a contract, random producers that lag behind: each record as its own version judges it alone.

The oracle reads one record at a time with ``Contract.at`` of the version that it claims, which knows nothing of later
ones, and then names and types what that version landed as the newest does.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import NOW
from headrace.contracts import Contract, Limits, Time, Was, check_batch, field
from headrace.core.batch import ORIGIN_SCHEMA, CheckedBatch, MicroBatch

NEWEST = 4
#: Chains of types, each of which widens to the next.
CHAINS: list[list[Any]] = [
    [pl.Int8, pl.Int16, pl.Int32, pl.Int64],
    [pl.UInt8, pl.Int16, pl.Int64, pl.Float64],
    [pl.Int32, pl.Float64],
    [pl.Float32, pl.Float64],
    [pl.String],
    [Annotated[pl.Enum, ["a"]], Annotated[pl.Enum, ["a", "b"]], Annotated[pl.Enum, ["c", "b", "a"]]],
    [Annotated[pl.Decimal, 5, 1], Annotated[pl.Decimal, 9, 3]],
    [Annotated[pl.List, pl.Int8], Annotated[pl.List, pl.Int64]],
    [
        Annotated[pl.Struct, {"a": pl.Int8}],
        Annotated[pl.Struct, {"a": pl.Int32, "b": pl.String}],
    ],
]
NUMBERS = 4  # of the chains, the first ones take bounds
VALUES: list[Any] = [
    None, 0, 1, -1, 5, 100, 127, 128, 200, 255, 256, 70_000, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 0.5, 1.0, 1e300, 3.3,
    True, "a", "b", "c", "abc", "", "12.3", "12.34", [], [1, 200], [1, "x"], [None], {}, {"a": 1}, {"a": 300, "b": "x"},
    {"a": 1, "b": None}, {"b": 2}, {"c": 1},
]  # fmt: skip
TEXT_OF_EACH = 6  # names that fields take in the course of time


@st.composite
def fields(draw: st.DrawFn, n: int) -> tuple[str, Any, Any]:
    """A field with a history."""
    name = f"f{n}"
    at = draw(st.integers(0, len(CHAINS) - 1))
    chain = CHAINS[at]
    since = draw(st.sampled_from([1, 1, 2, 3]))
    retired = draw(st.sampled_from([None, None, None, *range(since + 1, NEWEST + 1)]))
    last_asked = (retired or NEWEST + 1) - 1
    scalar = at < 5
    was: dict[int, Was] = {}
    now_dtype = draw(st.integers(0, len(chain) - 1))
    later = now_dtype
    said: dict[str, Any] = {"required": draw(st.booleans())}
    bounds = at < NUMBERS
    said |= {"le": draw(st.sampled_from([None, 3, 100]))} if bounds else {}
    default = (
        draw(st.sampled_from([None, 1])) if bounds else draw(st.sampled_from([None, "a"])) if scalar else None
    )
    current = dict(said)
    for last in reversed(range(since, min(last_asked, NEWEST - 1) + 1)):
        changed: dict[str, Any] = {}
        if later and draw(st.booleans()):
            later = draw(st.integers(0, later - 1))
            changed["dtype"] = chain[later]
        if draw(st.integers(0, 3)) == 0:
            changed["name"] = f"f{n}_{last}"
        if draw(st.integers(0, 3)) == 0:
            current["required"] = changed["required"] = draw(st.booleans())
        if bounds and draw(st.integers(0, 3)) == 0:
            current["le"] = changed["le"] = draw(st.sampled_from([None, 3, 100]))
        if scalar and draw(st.integers(0, 4)) == 0:
            changed["default"] = draw(st.sampled_from([None, 1 if bounds else "a"]))
        if changed:
            was[last] = Was(**changed)
    checks = {key: value for key, value in said.items() if value is not None}
    moved = "properties" if retired is not None and draw(st.booleans()) else None
    declared = field(
        "a field", default=default, since=since if since > 1 else None, was=was or None, retired=retired,
        moved_to=moved, **checks,
    )  # fmt: skip
    return name, chain[now_dtype], declared


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    columns: dict[str, tuple[Any, Any]] = {
        "id": (pl.String, field("key", required=True)),
        "at": (Time, field("when", required=True)),
        "version": (pl.Int32, field("which")),
        "properties": (pl.String, field("others", wire="object")),
    }
    for n in range(draw(st.integers(1, 4))):
        name, dtype, declared = draw(fields(n))
        columns[name] = (dtype, declared)
    body = {"__annotations__": {name: one for name, (one, _) in columns.items()}, "__module__": __name__}
    model = type("Grown", (pa.DataFrameModel,), body | {name: one for name, (_, one) in columns.items()})
    return Contract(
        "grown", NEWEST, model, key="id", time="at", partition="day", order_by=("at",), claims="version",
        oldest=draw(st.integers(1, NEWEST)), unknown=draw(st.sampled_from(["count", "reject", "keep"])),
    )  # fmt: skip


@st.composite
def records(draw: st.DrawFn, contract: Contract) -> dict[str, Any]:
    """A record of a producer of some version, who may be wrong."""
    version = draw(st.integers(1, NEWEST + 1))
    record: dict[str, Any] = {"id": "x", "at": "2026-01-01T00:00:00Z"}
    if draw(st.integers(0, 6)):
        record["version"] = version
    names = {c.name for v in range(1, NEWEST + 1) for c in contract.at(v).read_columns}
    own = {c.name for c in contract.at(min(version, NEWEST)).read_columns}
    for name in sorted(names - record.keys() - {"version"}):
        if draw(st.integers(0, 9)) < (7 if name in own else 1):
            record[name] = draw(st.sampled_from(VALUES))
    if draw(st.integers(0, 5)) == 0:
        record["stranger"] = draw(st.sampled_from(VALUES))
    return record


def checked(contract: Contract, payloads: list[Any]) -> CheckedBatch:
    batch = MicroBatch.of(
        "memory",
        [json.dumps(one).encode() for one in payloads],
        cursor="memory/0",
        offset=range(len(payloads)),
    )
    return check_batch(contract, batch, batch_id="b", now=NOW, limits=Limits())


def expected(contract: Contract, record: dict[str, Any]) -> tuple[int, Any]:
    """The version that judges a record, and what lands, or the reasons."""
    claimed = record.get("version")
    version = contract.version if claimed is None else claimed
    if claimed is not None and claimed not in contract.accepted:
        accepted = (
            f"{contract.oldest}..{contract.version}"
            if contract.oldest < contract.version
            else contract.version
        )
        return contract.version, {(f"known_version({accepted})", "version")}
    then = replace_oldest(contract.at(version), version)
    found = checked(then, [record])
    if found.rejected.height:
        return version, {(one["check"], one["column"]) for one in found.rejected["reasons"][0]}
    [row] = found.good.drop(ORIGIN_SCHEMA.names()).to_dicts()
    landed: dict[str, Any] = {"_extra": row["_extra"]} if contract.unknown == "keep" else {}
    for column in contract.columns:
        name = column.growth.at(version).get("name", column.name)
        if column.growth.has(version):
            landed[column.name] = _as_now(row[name], column.dtype)
        else:
            landed[column.name] = [] if column.wire == "list" else column.default
    return version, landed


def replace_oldest(contract: Contract, version: int) -> Contract:
    """The contract of a process that knows this version alone."""
    found = contract.at(version)
    if found.oldest != version:
        found = object.__new__(Contract)
        found.__dict__.update({name: getattr(contract, name) for name in contract.__dataclass_fields__})
        found.__dict__["oldest"] = version
    return found


def _as_now(value: Any, dtype: Any) -> Any:
    """A value of an earlier dtype, in plain Python."""
    if value is None:
        return None
    if isinstance(dtype, pl.Struct):
        return {member.name: _as_now(value.get(member.name), member.dtype) for member in dtype.fields}
    if isinstance(dtype, pl.List):
        return [_as_now(one, dtype.inner) for one in value]
    return float(value) if dtype == pl.Float64() else value


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_each_record_is_judged_as_its_own_version_judges_it_alone(data: st.DataObject) -> None:
    contract = data.draw(contracts())
    sent = data.draw(st.lists(records(contract), min_size=1, max_size=12))
    payloads: list[Any] = sent
    if data.draw(st.booleans()):  # some of them in one array
        payloads = [sent, *sent[:1]]
    found = checked(contract, payloads)
    flat = sent if payloads is sent else [*sent, *sent[:1]]
    places = (
        [(n, 0) for n in range(len(sent))]
        if payloads is sent
        else [(0, n) for n in range(len(sent))] + [(1, 0)]
    )
    good = {(row["_offset"], row["_index"]): row for row in found.good.to_dicts()}
    bad = {(row["_offset"], row["_index"]): row for row in found.rejected.to_dicts()}
    assert len(good) + len(bad) == len(flat)
    for place, record in zip(places, flat, strict=True):
        version, outcome = expected(contract, record)
        if isinstance(outcome, set):
            assert place in bad, (record, outcome, good[place])
            reasons = {(one["check"], one["column"]) for one in bad[place]["reasons"]}
            assert (bad[place]["contract_version"], reasons) == (version, outcome), record
        else:
            assert place in good, (record, version, bad[place]["reasons"])
            assert {name: good[place][name] for name in outcome} == outcome, (record, version)


def test_the_oracle_tells_versions_apart() -> None:
    """The comparison fails for a check that judges all records by the newest version."""
    model = type(
        "Grown",
        (pa.DataFrameModel,),
        {
            "__annotations__": {"id": pl.String, "at": Time, "version": pl.Int32, "x": pl.Int64},
            "__module__": __name__,
            "id": field("key", required=True),
            "at": field("when", required=True),
            "version": field("which"),
            "x": field("x", le=3, was={1: Was(le=None)}),
        },
    )
    contract = Contract(
        "g", 2, model, key="id", time="at", partition="day", order_by=("at",), claims="version"
    )
    record = {"id": "a", "at": "2026-01-01T00:00:00Z", "version": 1, "x": 9}
    assert expected(contract, record)[1]["x"] == 9
    assert checked(contract, [record]).good["x"].to_list() == [9]
    assert checked(replace(contract, claims=None), [record]).good.is_empty()
