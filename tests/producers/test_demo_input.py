"""The demo's input: every real message passes its contract, every malformed one fails as foretold."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from headrace.contracts import EVENTS, METRICS, Contract
from headrace.core.batch import CheckedBatch
from headrace.producers import flights
from headrace.producers.malformed import MalformedMessage, interleave, malformed_events, malformed_metrics

Judge = Callable[..., CheckedBatch]
SAMPLE = 20_000


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return flights.flight_events()


@pytest.fixture(scope="module")
def readings() -> pl.DataFrame:
    return flights.weather_messages()


def test_flights_pass_the_contract(events: pl.DataFrame, judge: Judge) -> None:
    sample = events.sample(SAMPLE, seed=1)
    checked = judge(EVENTS, sample["payload"])
    assert (checked.good.height, checked.rejected.height) == (SAMPLE, 0)
    good = checked.good
    assert good["session_id"].cast(pl.Binary).equals(sample["key"], check_names=False)
    departed = good.filter(pl.col("event_type") == "flight_departed")
    delay = departed["properties"].str.json_path_match("$.dep_delay").cast(pl.Float64)
    assert (departed["duration_ms"] == (delay * 60_000).clip(0)).all()
    cancelled = good.filter(pl.col("event_type") == "flight_cancelled")
    assert cancelled["duration_ms"].null_count() == cancelled.height > 0


def test_flights_agree_with_the_raw_columns(events: pl.DataFrame) -> None:
    """Counts from the payloads against those from the files."""
    expected = flights.expected_events()
    columns = dict.fromkeys(("event_id", "event_type", "occurred_at", "session_id"), pl.String)
    seen = pl.read_ndjson(
        b"\n".join(events["payload"].to_list()), schema={**columns, "duration_ms": pl.Float64}
    )
    assert events.height == expected.messages == expected.rows == 336_776
    assert seen["event_id"].n_unique() == expected.rows
    assert dict(seen["event_type"].value_counts().iter_rows()) == expected.by_kind
    assert expected.by_kind == {"flight_departed": 328_521, "flight_cancelled": 8_255}
    assert seen["session_id"].n_unique() == events["key"].n_unique() == expected.sessions == 253_923
    months = seen["occurred_at"].str.head(7).value_counts().sort("occurred_at")
    assert dict(months.iter_rows()) == expected.by_month
    assert seen["occurred_at"].str.head(10).n_unique() == expected.days == 366
    assert seen["duration_ms"].sum() == expected.total


def test_a_known_flight(events: pl.DataFrame) -> None:
    """Scheduled 5:15 in New York, two minutes late: 10:17 UTC."""
    assert events["payload"][0] == (
        b'{"event_id":"2013-01-01-UA1545-EWR","event_type":"flight_departed","occurred_at":"2013-01-01T10:17:00Z",'
        b'"session_id":"N14228-2013-01-01","user_id":null,"device_id":"N14228","channel":"other",'
        b'"screen_name":"EWR","duration_ms":120000,"properties":{"carrier":"UA","flight":1545,"dest":"IAH",'
        b'"dep_delay":2,"arr_delay":11,"distance":1400,"air_time":227}}'
    )


def test_weather_passes_the_contract_and_agrees_with_the_raw_columns(
    readings: pl.DataFrame, judge: Judge
) -> None:
    expected = flights.expected_metrics()
    checked = judge(METRICS, readings["payload"])
    assert readings.height == expected.messages == 26_115
    assert checked.rejected.is_empty()
    good = checked.good
    assert good.height == expected.rows == 211_061
    assert good["metric_id"].n_unique() == good.height
    assert dict(good["name"].value_counts().iter_rows()) == expected.by_kind
    months = good["occurred_at"].dt.strftime("%Y-%m").value_counts().sort("occurred_at")
    assert dict(months.iter_rows()) == expected.by_month
    assert good["metric_date"].n_unique() == expected.days == 364
    assert good["value"].sum() == pytest.approx(expected.total)


@pytest.mark.parametrize(("contract", "make"), [(EVENTS, malformed_events), (METRICS, malformed_metrics)])
def test_malformed_messages_fail_for_exactly_their_reasons(
    contract: Contract, make: Callable[[], tuple[MalformedMessage, ...]], judge: Judge
) -> None:
    messages = make()
    assert len({m.name for m in messages}) == len(messages) >= 35
    checked = judge(contract, [m.payload for m in messages])
    for place, message in enumerate(messages):
        rejected = checked.rejected.filter(pl.col("_offset") == place).sort("_index")["reasons"]
        found = tuple(frozenset((r["check"], r["column"]) for r in row) for row in rejected)
        assert found == message.reasons, message.name
        assert checked.good.filter(pl.col("_offset") == place).height == message.landed, message.name


def test_interleaving_keeps_every_message_and_its_order(readings: pl.DataFrame) -> None:
    bad = malformed_metrics()
    real = readings.head(5_000)
    mixed = interleave(real, bad, every=100)
    assert mixed.schema == real.schema
    assert mixed.height == 5_000 + len(bad)
    assert [mixed["payload"][101 * (n + 1) - 1] for n in range(len(bad))] == [m.payload for m in bad]
    assert mixed.filter(pl.col("key") != b"malformed").equals(real)
    at_the_end = interleave(real.head(150), bad, every=100)
    assert at_the_end.tail(len(bad) - 1)["payload"].to_list() == [m.payload for m in bad[1:]]


def test_chunks_hold_every_message(readings: pl.DataFrame) -> None:
    made = list(flights.chunks(readings, 4_000))
    assert [len(c) for c in made] == [4_000] * 6 + [2_115]
    assert [p for c in made for p in c.payloads] == readings["payload"].to_list()
    assert [k for c in made for k in c.keys or ()] == readings["key"].to_list()
