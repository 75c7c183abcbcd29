"""Peers do the same work on the same events, as far as they can."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from conftest import Stack
from headrace.bench import peers
from headrace.bench.load import live
from headrace.bench.peers import PEERS, Peer, by_hand, measure_peer
from headrace.bench.peers.record import SCHEMA, Event, is_right, with_times
from headrace.bench.throughput import seed_topic
from headrace.contracts import EVENTS
from headrace.core.batch import CheckedBatch
from headrace.core.errors import Fatal
from headrace.producers.malformed import MalformedMessage, malformed_events

#: What a function over a dict or a Pydantic model does not say: limits relative to the moment, and what is decoded.
_NOT_SAID = {"far future", "long ago", "too long", "NaN", "Infinity"}


def test_columns_are_the_contracts() -> None:
    assert {*SCHEMA.names} == {*(c.name for c in EVENTS.columns), EVENTS.partition}
    assert {*Event.model_fields} == {c.name for c in EVENTS.columns}


def test_good_events_are_right_for_peers() -> None:
    rows = [json.loads(payload) for payload in live(0, 50, datetime.now(UTC))["payload"]]
    assert all(map(is_right, rows))
    for row in rows:
        Event.model_validate({**row, "properties": json.dumps(row["properties"])})
    table = pa.Table.from_pylist(
        [with_times({**row, "properties": json.dumps(row["properties"])}) for row in rows], schema=SCHEMA
    )
    assert table["occurred_at"].null_count == 0


@pytest.mark.parametrize(
    "message", [m for m in malformed_events() if m.name not in _NOT_SAID], ids=lambda m: m.name
)
def test_what_the_contract_refuses_peers_refuse(
    message: MalformedMessage, judge: Callable[..., CheckedBatch]
) -> None:
    assert judge(EVENTS, [message.payload]).good.height == 0
    try:
        row = json.loads(message.payload or b"")
    except ValueError:
        return  # nobody gets to see a row
    assert not _keeps(row)
    properties = row.get("properties") if isinstance(row, dict) else None
    if not isinstance(properties, str):  # to the model they are text
        with pytest.raises(ValidationError):
            Event.model_validate(row)


def _keeps(row: Any) -> bool:
    """As the loop does, where an error ends it."""
    try:
        return isinstance(row, dict) and is_right(row) and with_times(row)["occurred_at"].tzinfo is not None
    except (ValueError, TypeError):
        return False


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_lands_its_share(stack: Stack, name: str) -> None:
    if find_spec(PEERS[name].needs) is None:
        pytest.skip("the dependency group 'bench' is not installed")
    seeded = seed_topic(stack.settings, 1_000, 0, None)
    run = measure_peer(stack.settings, seeded, name)[name]
    assert run.wrong == ()
    assert run.events == int(1_000 * PEERS[name].share)


def test_a_peer_that_loses_rows_is_found(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = seed_topic(stack.settings, 1_000, 0, None)
    monkeypatch.setattr(by_hand, "is_right", lambda row: not row["event_id"].endswith("7"))
    run = measure_peer(stack.settings, seeded, "loop")["loop"]
    assert run.events == 200
    [line] = run.wrong
    assert line.endswith("instead of 200")


def test_peers_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.PEERS, "other", Peer("", "other", "no_such_package"))
    with pytest.raises(Fatal, match="no_such_package"):
        peers.require()
