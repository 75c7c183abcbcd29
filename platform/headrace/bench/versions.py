"""Measure what a contract's history costs the check: the same contract with and without one, on the same records."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.polars as pa
import polars as pl

from headrace.bench.measure import interleaved
from headrace.contracts import Contract, Limits, Time, Was, check_batch, field
from headrace.core.batch import MicroBatch

_NOW = datetime(2024, 6, 1, tzinfo=UTC)
_FIRST = datetime(2024, 3, 13, 10, 21, 14, tzinfo=UTC)
_BATCH = 50_000
_NEWEST = 3
#: What grew -> whether a field was renamed, too.
_HISTORIES = {"added, widened, tightened, retired": False, "also renamed": True}
#: A field as a model declares it: its type, and what ``field`` returns.
_Fields = dict[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class VersionCost:
    """What a history costs for some records.

    Attributes:
        name: Which records, and what grew.
        plain: Core seconds per million records with a contract of their own version that has no history, median.
        grown: Core seconds per million records with the newest version and its history, median.
    """

    name: str
    plain: float
    grown: float

    @property
    def ratio(self) -> float:
        """How many times as much."""
        return self.grown / self.plain


def version_costs(records: int = 200_000, repetitions: int = 7) -> list[VersionCost]:
    """Measure decoding and checking in memory; repetitions are interleaved, and one more warms up.

    Records that are half of each version are compared with both plain contracts, each on its half.
    """
    ways: dict[str, tuple[Contract, list[MicroBatch]]] = {}
    for name, renamed in _HISTORIES.items():
        grown = _contract(_grown(renamed=renamed), _NEWEST)

        def then(n: int, renamed: bool = renamed) -> dict[str, Any]:
            return _sent_then(n, renamed=renamed)

        def either(n: int, renamed: bool = renamed) -> dict[str, Any]:
            return _sent_now(n) if n % 2 else _sent_then(n, renamed=renamed)

        newest, older, mixed = (_batches(sent, records) for sent in (_sent_now, then, either))
        ways |= {
            f"{name}: newest, plain": (_contract(_now(), _NEWEST), newest),
            f"{name}: newest, grown": (grown, newest),
            f"{name}: older, plain": (_contract(_then(renamed=renamed), 1), older),
            f"{name}: older, grown": (grown, older),
            f"{name}: mixed, grown": (grown, mixed),
        }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for n, way in enumerate(interleaved(repetitions + 1, list(ways))):
        took = _checked(*ways[way])
        if n >= len(ways):
            seconds[way].append(took)
    cost = {way: statistics.median(some) * 1_000_000 / records for way, some in seconds.items()}
    found = []
    for name in _HISTORIES:
        now, old = cost[f"{name}: newest, plain"], cost[f"{name}: older, plain"]
        found += [
            VersionCost(f"{name}: records of the newest version", now, cost[f"{name}: newest, grown"]),
            VersionCost(f"{name}: records of version 1", old, cost[f"{name}: older, grown"]),
            VersionCost(f"{name}: half of each", (now + old) / 2, cost[f"{name}: mixed, grown"]),
        ]
    return found


def _base() -> _Fields:
    return {
        "order_id": (pl.String, field("id", required=True, length=(1, 64))),
        "at": (Time, field("when", required=True)),
        "user": (pl.String, field("who", required=True, length=(1, 64))),
        "page_url": (pl.String, field("where", length=(1, 2_048))),
        "note": (pl.String, field("words")),
        "properties": (pl.String, field("anything else", wire="object", length=(2, 65_536))),
        "schema_version": (pl.Int32, field("version", required=True)),
    }


def _now() -> _Fields:
    return {
        **_base(),
        "quantity": (pl.Int64, field("pieces", ge=0)),
        "price": (pl.Float64, field("EUR", ge=0.0, le=1e6)),
        "store": (pl.String, field("where")),
        "channel": (pl.String, field("how", required=True, default="web")),
        "country": (pl.String, field("where to")),
    }


def _grown(*, renamed: bool) -> _Fields:
    return {
        **_now(),
        "quantity": (pl.Int64, field("pieces", ge=0, was={1: Was(dtype=pl.Int32)})),
        "price": (pl.Float64, field("EUR", ge=0.0, le=1e6, was={1: Was(le=None)})),
        "store": (pl.String, field("where", was={2: Was(name="shop")} if renamed else None)),
        "channel": (pl.String, field("how", required=True, since=2, default="web")),
        "country": (pl.String, field("where to", since=2)),
        "legacy": (pl.String, field("no longer used", required=True, retired=3)),
    }


def _then(*, renamed: bool) -> _Fields:
    return {
        **_base(),
        "quantity": (pl.Int32, field("pieces", ge=0)),
        "price": (pl.Float64, field("EUR", ge=0.0)),
        "shop" if renamed else "store": (pl.String, field("where")),
        "legacy": (pl.String, field("no longer used", required=True)),
    }


def _contract(fields: _Fields, version: int) -> Contract:
    body = {"__annotations__": {name: kind for name, (kind, _) in fields.items()}, "__doc__": "An order."}
    model = type("Order", (pa.DataFrameModel,), body | {name: one for name, (_, one) in fields.items()})
    return Contract(
        "orders",
        version,
        model,
        key="order_id",
        time="at",
        partition="day",
        order_by=("at",),
        claims="schema_version",
    )


def _sent(n: int) -> dict[str, Any]:
    return {
        "order_id": f"{n:032x}",
        "at": (_FIRST + timedelta(seconds=n)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "user": f"user-{n % 5_000}",
        "page_url": f"https://shop.example/products/{n % 977}",
        "note": "a note of some sixty characters, as they are",
        "properties": {"campaign": f"c{n % 31}", "position": n % 7},
        "quantity": n % 9,
        "price": n / 8 % 1_000,
    }


def _sent_now(n: int) -> dict[str, Any]:
    return {**_sent(n), "store": f"s{n % 40}", "channel": "app", "country": "DE", "schema_version": _NEWEST}


def _sent_then(n: int, *, renamed: bool) -> dict[str, Any]:
    return {
        **_sent(n),
        "shop" if renamed else "store": f"s{n % 40}",
        "legacy": "as it was",
        "schema_version": 1,
    }


def _batches(sent: Callable[[int], dict[str, Any]], records: int) -> list[MicroBatch]:
    parts = [range(first, min(first + _BATCH, records)) for first in range(0, records, _BATCH)]
    return [
        MicroBatch.of("memory", [json.dumps(sent(n)).encode() for n in part], cursor="memory/0", offset=part)
        for part in parts
    ]


def _checked(contract: Contract, batches: list[MicroBatch]) -> float:
    """Return the core seconds of checking."""
    began = time.process_time()
    for batch in batches:
        found = check_batch(contract, batch, batch_id="b", now=_NOW, limits=Limits())
        assert found.rejected.is_empty(), found.rejected["reasons"][0].to_list()
    return time.process_time() - began
