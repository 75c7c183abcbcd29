"""Measure what each kind of shaping costs, beside the same field unshaped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Limits, Time, check_batch, field
from headrace.core.batch import MicroBatch

_NOW = datetime(2024, 6, 1, tzinfo=UTC)
_FIRST = datetime(2024, 3, 13, 10, 21, 14, tzinfo=UTC)
_BATCH = 50_000

#: A field as a model declares it: its type, and what ``field`` returns.
Declared = tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of shaping.

    Attributes:
        name: What a field declares.
        plain: The same field unshaped; None for none.
        sent: What a record then has for it, by the number of the record.
        shaped: The field that declares it.
        shaped_sent: What a record then has for it.
        transform: The contract's function, if that is what is measured.
    """

    name: str
    plain: Declared | None
    sent: Callable[[int], dict[str, Any]]
    shaped: Declared | None
    shaped_sent: Callable[[int], dict[str, Any]]
    transform: Callable[[pl.DataFrame], pl.DataFrame] | None = None


def _nothing(n: int) -> dict[str, Any]:
    return {}


def _text(n: int) -> dict[str, Any]:
    return {"x": f"/products/{n % 977}"}


def _time(form: str) -> Callable[[int], dict[str, Any]]:
    return lambda n: {"x": (_FIRST + timedelta(seconds=n)).strftime(form)}


def _epoch(n: int) -> dict[str, Any]:
    return {"x": round((_FIRST + timedelta(seconds=n)).timestamp() * 1_000)}


def _number(n: int) -> dict[str, Any]:
    return {"x": n / 4}


TEXT: Declared = (pl.String, field("x"))
TIME: Declared = (Time, field("x"))
NUMBER: Declared = (pl.Float64, field("x"))
_RFC, _LOCAL = "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S"
CASES = (
    Case("alias", TEXT, _text, (pl.String, field("x", alias="y")), lambda n: {"y": _text(n)["x"]}),
    Case("path, in an object", TEXT, _text, (pl.String, field("x", path="c.x")), lambda n: {"c": _text(n)}),
    Case("path, two objects deep", TEXT, _text,
         (pl.String, field("x", path="c.d.x")), lambda n: {"c": {"d": _text(n)}}),
    Case("path, in a list", TEXT, _text, (pl.String, field("x", path="c[0].x")), lambda n: {"c": [_text(n)]}),
    Case("format, strftime with a zone", TIME, _time(_RFC),
         (Time, field("x", format=_LOCAL, zone="Europe/Berlin")), _time(_LOCAL)),
    Case("format, strftime in UTC", TIME, _time(_RFC), (Time, field("x", format=_LOCAL, zone="UTC")), _time(_LOCAL)),
    Case("format, iso8601", TIME, _time(_RFC), (Time, field("x", format="iso8601", zone="UTC")), _time(_LOCAL)),
    Case("format, epoch_ms", TIME, _time(_RFC), (Time, field("x", format="epoch_ms")), _epoch),
    Case("lower and strip", TEXT, _text, (pl.String, field("x", lower=True, strip=True)), _text),
    Case("nulls, of text", TEXT, _text, (pl.String, field("x", nulls=("", "-"))), _text),
    Case("nulls, of a number", NUMBER, _number, (pl.Float64, field("x", nulls=("", "-"))), _number),
    Case("constant", TEXT, lambda n: {"x": "shop-7"}, (pl.String, field("x", constant="shop-7")), _nothing),
    Case("derive, a product", None, _nothing, (pl.Float64, field("x", derive=pl.col("price") * 2)), _nothing),
    Case("hashed, of two fields", None, _nothing, (pl.String, field("x", hashed=("user", "at"))), _nothing),
    Case("hashed, of the payload", None, _nothing, (pl.String, field("x", hashed="payload")), _nothing),
    Case("hashed, of the position", None, _nothing, (pl.String, field("x", hashed="position")), _nothing),
    Case("transform, one new column", None, _nothing, None, _nothing,
         lambda rows: rows.with_columns(pl.col("price") * 2)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """What one kind of shaping costs.

    Attributes:
        name: What a field declares.
        plain: Core seconds per million records with the same field unshaped.
        shaped: Core seconds per million records with the shaped field.
    """

    name: str
    plain: float
    shaped: float


def shaping_costs(records: int = 100_000, repetitions: int = 3) -> list[Cost]:
    """Measure all cases: decode and check in memory, the least of several repetitions."""
    found = []
    for case in CASES:
        ways = (
            (_contract(case.plain), _batches(case.sent, records)),
            (_contract(case.shaped, case.transform), _batches(case.shaped_sent, records)),
        )
        for contract, batches in ways:
            _checked(contract, batches[:1])  # compile, and try the declarations
        seconds = [[_checked(*way) for way in ways] for _ in range(repetitions)]
        plain, shaped = (min(column) * 1_000_000 / records for column in zip(*seconds, strict=True))
        found.append(Cost(case.name, plain, shaped))
    return found


def _contract(
    declared: Declared | None, transform: Callable[[pl.DataFrame], pl.DataFrame] | None = None
) -> Contract:
    fields: dict[str, Declared] = {
        "at": (Time, field("when", required=True)),
        "user": (pl.String, field("who", required=True, length=(1, 64))),
        "price": (pl.Float64, field("EUR", ge=0.0)),
        "note": (pl.String, field("words")),
    }
    if declared is not None:
        fields["x"] = declared
    body = {"__annotations__": {name: kind for name, (kind, _) in fields.items()}, "__doc__": "A record."}
    model = type("Record", (pa.DataFrameModel,), body | {name: one for name, (_, one) in fields.items()})
    return Contract(
        "record", 1, model, key="user", time="at", partition="day", order_by=("at",), transform=transform
    )


def _batches(sent: Callable[[int], dict[str, Any]], records: int) -> list[MicroBatch]:
    def payload(n: int) -> bytes:
        at = (_FIRST + timedelta(seconds=n)).strftime(_RFC)
        base = {
            "at": at,
            "user": f"user-{n % 5_000}",
            "price": n / 8,
            "note": "a note of some sixty characters, as they are",
        }
        return json.dumps({**base, **sent(n)}).encode()

    parts = [range(first, min(first + _BATCH, records)) for first in range(0, records, _BATCH)]
    return [
        MicroBatch.of("memory", list(map(payload, part)), cursor="memory/0", offset=part) for part in parts
    ]


def _checked(contract: Contract, batches: list[MicroBatch]) -> float:
    """Return the core seconds of checking."""
    began = time.process_time()
    for batch in batches:
        found = check_batch(contract, batch, batch_id="b", now=_NOW, limits=Limits())
        assert found.rejected.is_empty(), found.rejected["reasons"][0]
    return time.process_time() - began
