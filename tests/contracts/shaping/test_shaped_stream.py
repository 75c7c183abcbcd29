"""Records that a contract could not shape keep their bytes, and land once its declarations are right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Limits, Time, field
from headrace.core.batch import CheckedBatch, MicroBatch
from headrace.flow.commit import Landed, StreamLake, land
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.lake.memory import MemoryLakeTable
from headrace.sources.memory import MemoryLog
from shaped import VISIT, VISITS


class Strict(pa.DataFrameModel):
    """A click, as it was first thought to be sent."""

    id: pl.String = field("key", hashed=("at", "user"), required=True)
    at: Time = field("when", required=True)
    user: pl.String = field("who", required=True, isin=["anna", "bob"])
    pieces: pl.Int32 = field("how many", required=True)
    double: pl.Int32 = field("twice", derive=pl.col("pieces") * 2, required=True)


class Shaped(Strict):
    """A click, as it is sent."""

    at: Time = field("when", alias="ts", format="%d.%m.%Y %H:%M", zone="Europe/Berlin", required=True)
    user: pl.String = field(
        "who", path="visitor.name", lower=True, strip=True, required=True, isin=["anna", "bob"]
    )
    pieces: pl.Int32 = field("how many", nulls="-", alias="n", required=True)


STRICT = Contract("clicks", 1, Strict, key="id", time="at", partition="day", order_by=("user", "at"))
SHAPED = replace(STRICT, model=Shaped, version=2)
CLICKS = [
    b'{ "ts": "13.03.2024 10:21", "visitor": {"name": " Anna "}, "n": 2 }',
    b'[{"ts": "13.03.2024 10:21", "visitor": {"name": "BOB"}, "pieces": 3},'
    b' {"ts": "31.03.2024 02:30", "visitor": {"name": "bob"}, "n": 4}]',
    b'{"ts": "13.03.2024 10:22", "visitor": {"name": "bob"}, "n": "-"}',
    b"no JSON",
]


def lake_of(contract: Contract) -> StreamLake[MemoryLakeTable]:
    return StreamLake(MemoryLakeTable(contract.table), MemoryLakeTable(contract.rejected_table))


def test_what_was_refused_lands_under_a_changed_contract_and_once() -> None:
    source, lake, limits = MemoryLog("log", partitions=1), lake_of(STRICT), Limits()
    source.publish(list(CLICKS))
    landed = sum(ingest(source, STRICT, lake, limits, Pace(batch_messages=3, idle_seconds=0.001)), Landed())
    refused = lake.rejected.rows().sort("_offset", "_index")
    assert lake.good.rows().is_empty()
    assert refused.height == 5 == landed.rejected
    assert [bytes(payload) in CLICKS[1] for payload in refused["payload"]] == [
        False,
        True,
        True,
        False,
        False,
    ]

    origins = refused.select(pl.concat_str("_cursor", "_offset", "_index", separator=":")).to_series()
    again = MicroBatch.of(
        "redrive/clicks", refused["payload"], cursor="redrive/clicks", message_id=origins.to_list()
    )
    land(again, SHAPED, lake, limits)
    good = lake.good.rows().sort("user")
    assert good.select("user", "pieces", "double").rows() == [("anna", 2, 4), ("bob", 3, 6)]
    assert good["at"].to_list() == [datetime(2024, 3, 13, 9, 21, tzinfo=UTC)] * 2
    assert good["_message_id"].to_list() == [origins[0], origins[1]]
    still = lake.rejected.rows().filter(pl.col("_source") == "redrive/clicks").sort("_message_id")
    assert [[(r["check"], r["column"]) for r in row] for row in still["reasons"].to_list()] == [
        [("time_in_zone(Europe/Berlin)", "at")],
        [("required", "pieces")],
        [("json", "")],
    ]


def test_a_batch_that_is_sent_again_has_the_same_keys(judge: Callable[..., CheckedBatch]) -> None:
    first = judge(SHAPED, list(CLICKS)).good
    again = judge(SHAPED, list(reversed(CLICKS))).good
    assert sorted(first["id"]) == sorted(again["id"])
    assert first["id"].n_unique() == 2


def test_what_lands_is_never_more_than_what_was_sent(judge: Callable[..., CheckedBatch]) -> None:
    messages: list[bytes | None] = [*CLICKS, b"", None, b"[]", json.dumps({"ts": None}).encode()]
    found = judge(SHAPED, messages)
    origins = pl.concat([f.select("_offset", "_index") for f in (found.good, found.rejected)])
    assert origins.n_unique() == origins.height == 9
    assert set(origins["_offset"]) == set(range(8))
    assert found.good.schema == SHAPED.landed_schema


def test_a_contract_with_everything_lands_in_a_memory_lake() -> None:
    source, lake = MemoryLog("log", partitions=1), lake_of(VISITS)
    changes: list[dict[str, Any]] = [{}, {"user": "Bob", "context": {"page": {"url": "/"}}}, {"user": 5}]
    source.publish([json.dumps({**VISIT, **one}).encode() for one in changes])
    landed = sum(ingest(source, VISITS, lake, Limits(), Pace(batch_messages=2, idle_seconds=0.001)), Landed())
    assert (landed.messages, landed.rejected) == (3, 1)
    rows = lake.good.rows()
    assert rows.schema == VISITS.landed_schema
    assert "note" not in rows.columns
