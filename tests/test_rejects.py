"""Rejected records: found, repaired, redriven once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from builders import event
from conftest import Stack
from headrace import rejects
from headrace.batch import MicroBatch
from headrace.errors import BadData
from headrace.ingest import land
from headrace.stream import Stream, streams

BAD_CHANNEL = event(event_id="e-1", channel="pigeon")
NO_JSON = b"{not json \xff"


@pytest.fixture
def stream(stack: Stack, tmp_path: Path, batch_of: Callable[..., MicroBatch]) -> Iterator[Stream]:
    """A stream of its own with two good records and two rejected ones."""
    config = stack.settings.model_copy(
        update={"lake_uri": str(tmp_path / "a lake"), "raw_database": f"raw_{uuid.uuid4().hex[:8]}"}
    )
    one = streams(config)["events"]
    batch = batch_of(
        [event(event_id="ok"), BAD_CHANNEL, NO_JSON, event(event_id="ok-2")], cursor="kafka/t/i/0"
    )
    land(batch, one.contract, one.lake, one.limits)
    yield one
    one.close()


def good(stream: Stream) -> pl.DataFrame:
    return stream.lake.good.scan().collect().sort("event_id")


def test_what_was_refused_is_found_newest_first_and_by_reason(stream: Stream) -> None:
    found = rejects.find(stream)
    assert sorted(found["origin"]) == ["kafka/t/i/0:1:0", "kafka/t/i/0:2:0"]
    assert found["redriven"].to_list() == [False, False]
    [channel] = rejects.find(stream, reason="channel")["payload"]
    assert channel == BAD_CHANNEL
    assert rejects.find(stream, reason="no such check").is_empty()
    [short] = rejects.find(stream, ids=["kafka/t/i/0:2:0"])["id"]
    assert rejects.find(stream, ids=[short[:6]])["payload"].to_list() == [NO_JSON]
    with pytest.raises(BadData, match="'nope' names no rejected rows"):
        rejects.find(stream, ids=["nope"])


def test_a_repaired_record_lands_once_and_remembers_where_it_came_from(stream: Stream) -> None:
    repair = rejects.transformed(rejects.find(stream, reason="channel"), '.channel = "web"')
    assert not repair.failed
    landed = rejects.redrive(stream, repair.rows)
    assert (landed.messages, landed.landed, landed.repeated, landed.refused) == (1, 1, 0, ())
    row = good(stream).filter(pl.col("event_id") == "e-1").row(0, named=True)
    assert (row["channel"], row["_source"], row["_cursor"]) == ("web", "redrive/events", "redrive/events")
    assert row["_message_id"] == "kafka/t/i/0:1:0"
    assert row["_headers"] == [{"key": rejects.ORIGIN_HEADER, "value": b"kafka/t/i/0:1:0"}]
    again = rejects.redrive(stream, repair.rows)
    assert (again.landed, again.repeated, again.refused) == (0, 1, ())
    assert good(stream).height == 3
    assert rejects.find(stream)["payload"].to_list() == [NO_JSON], "what was redriven is done with"
    assert rejects.find(stream, every=True)["redriven"].sum() == 1
    assert stream.audit().doubled == 0


def test_one_that_is_refused_again_may_be_repaired_better(stream: Stream) -> None:
    rows = rejects.find(stream, reason="channel")
    worse = rejects.redrive(stream, rejects.transformed(rows, '.channel = "owl"').rows)
    assert (worse.landed, worse.refused[0][0]) == (0, rows["id"][0])
    assert "channel" in worse.refused[0][1]
    assert rejects.find(stream).height == 2, "it is rejected once, not twice"
    better = rejects.redrive(stream, rejects.transformed(rows, '.channel = "chat"').rows)
    assert (better.landed, better.repeated, better.refused) == (1, 0, ())
    assert stream.audit().doubled == 0


def test_what_cannot_be_repaired_is_named_and_left(stream: Stream) -> None:
    repair = rejects.transformed(rejects.find(stream), '.channel = "web"')
    assert repair.rows["payload"].len() == 1
    [(short, why)] = repair.failed
    assert rejects.find(stream, ids=[short])["payload"].to_list() == [NO_JSON]
    assert why
    with pytest.raises(BadData, match="not a jq expression"):
        rejects.transformed(rejects.find(stream), ".channel = ")


def test_edited_lines_are_redriven(stream: Stream, tmp_path: Path) -> None:
    lines = {line["id"]: line for line in rejects.exported(rejects.find(stream))}
    binary, channel = sorted(lines.values(), key=lambda line: "record" in line)
    assert set(binary) == {"id", "origin", "reasons", "base64"}
    channel["record"]["channel"] = "iot"
    mended = {"id": binary["origin"], "text": event(event_id="mended").decode()}
    file = tmp_path / "edited.ndjson"
    file.write_text(f"{json.dumps(channel, default=str)}\n\n{json.dumps(mended)}\n")
    payloads = rejects.edited(file)
    repair = rejects.replaced(rejects.find(stream, ids=list(payloads)), payloads)
    assert rejects.redrive(stream, repair.rows).landed == 2
    assert set(good(stream)["event_id"]) == {"ok", "ok-2", "e-1", "mended"}
    file.write_text('{"id": "x", "record": {}}\n{"id": "y"}\n')
    with pytest.raises(BadData, match="line 2"):
        rejects.edited(file)


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"a": 1}', {"record": {"a": 1}}),
        (b'{"a": "\xff"}', {"base64": "eyJhIjogIv8ifQ=="}),
        (b"[" * 3_000 + b"]" * 3_000, {"text": "[" * 3_000 + "]" * 3_000}),
        (b'{"a": "\\ud800"}', {"text": '{"a": "\\ud800"}'}),
        (None, {"text": ""}),
    ],
    ids=["a record", "not UTF-8", "nested deeply", "a lone surrogate", "a tombstone"],
)
def test_whatever_was_rejected_can_be_exported(payload: bytes | None, shown: dict[str, Any]) -> None:
    rows = pl.DataFrame(
        {"id": ["1"], "origin": ["o"], "reasons": [[]], "payload": pl.Series([payload], dtype=pl.Binary)}
    )
    assert list(rejects.exported(rows)) == [{"id": "1", "origin": "o", "reasons": [], **shown}]


def test_without_its_id_a_second_redrive_would_double(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: with the anti-join off, the audit sees the double."""
    repair = rejects.transformed(rejects.find(stream, reason="channel"), '.channel = "web"')
    rejects.redrive(stream, repair.rows)
    monkeypatch.setattr("headrace.ingest._Done.dropped", lambda self, rows: rows)
    rejects.redrive(stream, repair.rows)
    assert stream.audit().doubled == 1
