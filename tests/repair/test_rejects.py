"""Rejected records: found, repaired, redriven once."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import event
from conftest import Stack
from headrace.core.batch import MicroBatch
from headrace.core.errors import BadData, Fatal
from headrace.flow.commit import land
from headrace.health.audit import audit
from headrace.repair import edits, rejects
from headrace.repair.index import RejectIndex
from headrace.repair.origins import Origins, hashes, short_id
from headrace.repair.redrive import BATCH_ROWS, ORIGIN_HEADER, Redriven, redrive
from headrace.repair.selection import PAGE_ROWS, Selection
from headrace.streams.stream import Stream, streams

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
    repair = edits.transformed(rejects.find(stream, reason="channel"), '.channel = "web"')
    assert not repair.failed
    landed = redrive(stream, [repair.rows])
    assert (landed.messages, landed.landed, landed.repeated, landed.refused) == (1, 1, 0, ())
    row = good(stream).filter(pl.col("event_id") == "e-1").row(0, named=True)
    assert (row["channel"], row["_source"], row["_cursor"]) == ("web", "redrive/events", "redrive/events")
    assert row["_message_id"] == "kafka/t/i/0:1:0"
    assert row["_headers"] == [{"key": ORIGIN_HEADER, "value": b"kafka/t/i/0:1:0"}]
    again = redrive(stream, [repair.rows])
    assert (again.landed, again.repeated, again.refused) == (0, 1, ())
    assert good(stream).height == 3
    assert rejects.find(stream)["payload"].to_list() == [NO_JSON], "what was redriven is done with"
    assert rejects.find(stream, every=True)["redriven"].sum() == 1
    assert audit(stream.lake).doubled == 0


def test_one_that_is_refused_again_may_be_repaired_better(stream: Stream) -> None:
    rows = rejects.find(stream, reason="channel")
    worse = redrive(stream, [edits.transformed(rows, '.channel = "owl"').rows])
    assert (worse.landed, worse.refused[0][0]) == (0, rows["id"][0])
    assert "channel" in worse.refused[0][1]
    assert rejects.find(stream).height == 2, "it is rejected once, not twice"
    better = redrive(stream, [edits.transformed(rows, '.channel = "chat"').rows])
    assert (better.landed, better.repeated, better.refused) == (1, 0, ())
    assert audit(stream.lake).doubled == 0


def test_what_cannot_be_repaired_is_named_and_left(stream: Stream) -> None:
    repair = edits.transformed(rejects.find(stream), '.channel = "web"')
    assert repair.rows["payload"].len() == 1
    [(short, why)] = repair.failed
    assert rejects.find(stream, ids=[short])["payload"].to_list() == [NO_JSON]
    assert why
    with pytest.raises(BadData, match="not a jq expression"):
        edits.transformed(rejects.find(stream), ".channel = ")


def test_edited_lines_are_redriven(stream: Stream, tmp_path: Path) -> None:
    lines = {line["id"]: line for line in edits.exported(rejects.find(stream))}
    binary, channel = sorted(lines.values(), key=lambda line: "record" in line)
    assert set(binary) == {"id", "origin", "reasons", "base64"}
    channel["record"]["channel"] = "iot"
    mended = {"id": binary["origin"], "text": event(event_id="mended").decode()}
    file = tmp_path / "edited.ndjson"
    file.write_text(f"{json.dumps(channel, default=str)}\n\n{json.dumps(mended)}\n")
    index = RejectIndex(stream)
    assert index.counts(edits.edited(file)) == (2, 0)
    assert redrive(stream, edits.replaced(index, edits.edited(file))).landed == 2
    assert set(good(stream)["event_id"]) == {"ok", "ok-2", "e-1", "mended"}
    file.write_text('{"id": "x", "record": {}}\n{"id": "y"}\n')
    with pytest.raises(BadData, match="line 2"):
        list(edits.edited(file))


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"[[[[" * 1_000, "text"),
        (b"[" * 900 + b"]" * 900, "text"),
        (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "text"),
        (b"[" * 150 + b"]" * 150, "record"),
        (b'{"a": "' + b"[{" * 50 + b'"}', "record"),
        (b'{"a": [' + b"[]," * 500 + b"[]]}", "record"),
        (b'{"a": "\xff"}', "base64"),
        (b"", "text"),
        (b"\x00\xff\xfe", "base64"),
    ],
)
def test_any_payload_is_exported_and_read_back(payload: bytes, kind: str, tmp_path: Path) -> None:
    reasons = [{"check": "json", "column": "", "value": ""}]
    rows = pl.DataFrame({"id": ["x"], "origin": ["o"], "reasons": [reasons], "payload": [payload]})
    [line] = edits.exported(rows)
    assert kind in line
    file = tmp_path / "one.ndjson"
    file.write_text(json.dumps(line))
    [page] = edits.edited(file)
    back = page["payload"].item()
    assert back == payload or (kind == "record" and json.loads(back) == json.loads(payload))
    file.write_text('{"id": "x", "record": ' + "[" * 5_000)
    with pytest.raises(BadData, match="line 1"):
        list(edits.edited(file))


def test_without_its_id_a_second_redrive_would_double(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: with the anti-join off, the audit sees the double."""
    repair = edits.transformed(rejects.find(stream, reason="channel"), '.channel = "web"')
    redrive(stream, [repair.rows])
    monkeypatch.setattr(Origins, "hold", lambda self, wanted: np.zeros(len(wanted), np.bool_))
    redrive(stream, [repair.rows])
    assert audit(stream.lake).doubled == 1


def refused(stream: Stream, batch_of: Callable[..., MicroBatch], records: int, cursor: str = "sqs/q") -> None:
    batch = batch_of([event(event_id=f"r-{n}", channel="?") for n in range(records)], cursor=cursor)
    land(replace(batch, source=cursor.rsplit("/", 1)[0]), stream.contract, stream.lake, stream.limits)


def written(stream: Stream, path: Path, **changes: str) -> Path:
    """All rejected records, edited."""
    lines = []
    for line in edits.exported(rejects.find(stream, reason="channel", every=True)):
        line["record"] |= changes
        lines.append(json.dumps(line, default=str))
    path.write_text("\n".join(lines))
    return path


def from_file(
    stream: Stream,
    path: Path,
    *,
    dry_run: bool = False,
    page_rows: int = PAGE_ROWS,
    batch_rows: int = BATCH_ROWS,
) -> Redriven:
    """What ``redrive --file`` does."""
    index = RejectIndex(stream)
    index.counts(edits.edited(path))
    lines = edits.edited(path, 4 * page_rows)
    rows = edits.replaced(index, lines, skip_redriven=True, page_rows=page_rows)
    return redrive(stream, rows, dry_run=dry_run, batch_rows=batch_rows)


def test_many_are_redriven_page_by_page_and_once(
    stream: Stream, batch_of: Callable[..., MicroBatch], tmp_path: Path
) -> None:
    refused(stream, batch_of, 20)
    file = written(stream, tmp_path / "edited.ndjson", channel="web")
    dry = from_file(stream, file, dry_run=True, page_rows=3, batch_rows=5)
    assert (dry.messages, dry.landed, dry.repeated, dry.refused_records) == (21, 21, 0, 0)
    assert good(stream).height == 2, "that was a dry run"
    done = from_file(stream, file, page_rows=3, batch_rows=5)
    assert (done.messages, done.landed, done.repeated) == (21, 21, 0)
    index = RejectIndex(stream)
    assert index.counts(edits.edited(file)) == (21, 21)
    assert from_file(stream, file, page_rows=3, batch_rows=5) == Redriven()
    again = redrive(stream, edits.replaced(index, edits.edited(file)))
    assert (again.landed, again.repeated) == (0, 21)
    assert good(stream).height == 23
    assert audit(stream.lake).doubled == 0


def test_another_redrive_that_is_first_leaves_nothing_to_add(
    stream: Stream, batch_of: Callable[..., MicroBatch]
) -> None:
    refused(stream, batch_of, 12)
    rows = edits.transformed(rejects.find(stream, reason="channel"), '.channel = "web"').rows

    def pages() -> Iterator[pl.DataFrame]:
        yield rows[:4]
        other = redrive(stream, [rows[2:9]], batch_rows=4)
        assert (other.landed, other.repeated) == (5, 2)
        yield rows[4:]

    done = redrive(stream, pages(), batch_rows=4)
    assert (done.landed, done.repeated) == (8, 5)
    assert good(stream).height == 2 + 13
    assert audit(stream.lake).doubled == 0


def test_a_dry_run_says_why_what_is_refused(stream: Stream, batch_of: Callable[..., MicroBatch]) -> None:
    refused(stream, batch_of, 3)
    found = redrive(stream, rejects.pages(stream, Selection()), dry_run=True)
    assert (found.messages, found.refused_records) == (0, 5)
    assert found.reasons["channel: isin(['web', 'mobile', 'chat', 'server', 'iot', 'other'])"] == 4
    assert sum(found.reasons.values()) == 5


def test_those_of_a_source(stream: Stream, batch_of: Callable[..., MicroBatch]) -> None:
    refused(stream, batch_of, 3, "sqs/q/0")
    refused(stream, batch_of, 2, "sqs/queue/0")
    for source, count in (("sqs/q", 3), ("sqs", 5), ("sqs/queue", 2), ("test", 2)):
        rejects.known_source(stream, source)
        assert rejects.find(stream, source=source).height == count
        assert rejects.newest(stream, Selection(source=source), 1)[0] == count
    with pytest.raises(Fatal, match=r"has no source 'sqs/qu'; it has .*sqs/queue"):
        rejects.known_source(stream, "sqs/qu")
    rejects.known_source(stream, "kafka/analytics_events")


def test_a_file_with_a_wrong_line_lands_nothing(stream: Stream, tmp_path: Path) -> None:
    file = written(stream, tmp_path / "edited.ndjson", channel="web")
    right = file.read_text()
    for wrong in (
        '{"id": "0123456789ab", "record": {}}',
        "[]",
        '{"id": "", "record": {}}',
        '{"id": 1, "text": ""}',
    ):
        file.write_text(f"{right}\n{wrong}\n")
        with pytest.raises(BadData):
            from_file(stream, file)
    assert good(stream).height == 2


def test_the_work_grows_with_the_records_and_no_faster(
    stream: Stream, batch_of: Callable[..., MicroBatch], tmp_path: Path
) -> None:
    """Calls are counted, not seconds: with ten times the records at most ten times as many, and some."""

    def calls(records: int) -> int:
        refused(stream, batch_of, records, f"many/{records}")
        lines = rejects.find(stream, source="many")
        file = tmp_path / f"{records}.ndjson"
        edited = edits.transformed(lines, '.channel = "web"').rows
        file.write_text("\n".join(json.dumps(one, default=str) for one in edits.exported(edited)))
        counted = [0]

        def count(*_: object) -> None:
            counted[0] += 1

        sys.setprofile(count)
        try:
            done = from_file(stream, file)
        finally:
            sys.setprofile(None)
        assert done.landed == records
        return counted[0]

    base, few, many = calls(1), calls(400), calls(4_000)
    assert many - base < 12 * (few - base) + 2_000


@given(st.lists(st.text("0123456789abcdef", min_size=1, max_size=13), max_size=8), st.integers(0, 60))
def test_ids_are_found_as_far_as_they_are_unambiguous(prefixes: list[str], rows: int) -> None:
    origins = [f"kafka/t/i/0:{n}:0" for n in range(rows)]
    index = RejectIndex.of(pl.Series(origins, dtype=pl.String))
    names = [*prefixes, *(short_id(one)[: 3 + n % 10] for n, one in enumerate(origins)), *origins]
    for name in names:
        hits = [one for one in origins if one == name or short_id(one).startswith(name)]
        if len(hits) == 1:
            [at] = index.find(pl.Series([name]))
            assert index.origin(at) == hashes(pl.Series(hits))[0]
        else:
            with pytest.raises(BadData, match=f"{len(hits) or 'no'} rejected rows"):
                index.find(pl.Series([name]))
