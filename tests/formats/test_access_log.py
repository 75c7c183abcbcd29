"""Lines of access logs become the events that they say, and nothing makes the parser raise."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from access_logs import BOTH
from headrace.contracts import EVENTS
from headrace.core.batch import CheckedBatch
from headrace.formats import read_file
from headrace.formats.access_log import SESSION_GAP, AccessLog, is_access_log

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def escaped(text: str) -> bytes:
    """As Apache writes a field: quotes, backslashes and whatever is not printable ASCII are escaped."""
    out = b""
    for byte in text.encode():
        if byte in b'"\\':
            out += b"\\" + bytes([byte])
        elif 32 <= byte < 127:
            out += bytes([byte])
        else:
            out += b"\\n" if byte == 10 else b"\\x%02x" % byte
    return out


def stamp(at: datetime) -> str:
    return f"{at.day:02}/{MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S %z}"


def line(
    *,
    client: str = "10.0.0.1",
    user: str = "-",
    at: datetime = datetime(2026, 5, 17, 10, 5, 3, tzinfo=UTC),
    request: str = "GET / HTTP/1.1",
    status: int = 200,
    size: str = "17",
    referrer: str = "-",
    agent: str | None = "Firefox",
) -> bytes:
    common = f'{client} - {user} [{stamp(at)}] "'.encode() + escaped(request) + f'" {status} {size}'.encode()
    return common if agent is None else common + b' "' + escaped(referrer) + b'" "' + escaped(agent) + b'"'


def parse(raw: bytes, number: int = 1, log: AccessLog | None = None) -> dict[str, Any]:
    found = (log or AccessLog()).parse(number, raw)
    assert not isinstance(found, str), found
    event: dict[str, Any] = msgspec.json.decode(found[0])
    assert event["session_id"].encode() == found[1]
    return event


WORDS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda t: t != "-")
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@given(
    client=st.ip_addresses().map(str),
    user=st.none() | st.from_regex(r"[a-z][a-z .@-]{0,20}[a-z]", fullmatch=True),
    at=st.datetimes(datetime(2000, 1, 2), datetime(2200, 1, 1), timezones=ZONES),
    method=st.sampled_from(["GET", "POST", "HEAD"]),
    path=st.from_regex(r"/[a-z0-9/._~%-]{0,60}", fullmatch=True),
    query=st.none() | st.from_regex(r"[a-z]=[^\s#\x00-\x1f]{1,20}", fullmatch=True),
    status=st.integers(200, 599),
    size=st.none() | st.integers(0, 10**12),
    referrer=st.none() | WORDS,
    agent=st.none() | WORDS,
)
def test_a_combined_line_comes_back(
    client: str,
    user: str | None,
    at: datetime,
    method: str,
    path: str,
    query: str | None,
    status: int,
    size: int | None,
    referrer: str | None,
    agent: str | None,
) -> None:
    target = path + (f"?{query}" if query else "")
    raw = line(
        client=client,
        user=user or "-",
        at=at,
        request=f"{method} {target} HTTP/1.1",
        status=status,
        size="-" if size is None else str(size),
        referrer=referrer or "-",
        agent=agent or "-",
    )
    event = parse(raw)
    assert datetime.fromisoformat(event["occurred_at"]) == at.replace(microsecond=0)
    assert event.get("user_id") == user
    assert event["page_url"] == path
    properties = {
        "status": status,
        "bytes": size or 0,
        "method": method,
        "query": query,
        "referrer": referrer,
        "agent": agent,
        "protocol": "HTTP/1.1",
        "client": client,
    }
    assert event["properties"] == {k: v for k, v in properties.items() if v is not None}


@given(st.binary(max_size=300))
def test_garbage_never_raises(raw: bytes) -> None:
    assert isinstance(AccessLog().parse(1, raw), str)


@given(st.data())
def test_a_damaged_line_never_raises(data: st.DataObject) -> None:
    raw = bytearray(line(request="GET /a?b=c HTTP/1.1", referrer="http://x/", agent='say "hi" \\'))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found = AccessLog().parse(1, bytes(raw))
    if not isinstance(found, str):
        msgspec.json.decode(found[0])


@pytest.mark.parametrize(
    ("request_line", "status", "kind"),
    [
        ("GET / HTTP/1.1", 200, "page_view"),
        ("GET /blog/post.html?x=.css HTTP/1.1", 304, "page_view"),
        ("GET /old HTTP/1.0", 301, "page_view"),
        ("GET /style.CSS?v=2 HTTP/1.1", 200, "asset_request"),
        ("GET /favicon.ico HTTP/1.1", 304, "asset_request"),
        ("GET /favicon.ico HTTP/1.1", 404, "request_error"),
        ("POST /login HTTP/1.1", 503, "request_error"),
        ("POST /login HTTP/1.1", 302, "request"),
        ("HEAD / HTTP/1.1", 200, "request"),
        ("-", 408, "request_error"),
        ("\x16\x03\x01", 400, "request_error"),
        ("GET /with space HTTP/1.1", 200, "page_view"),
    ],
)
def test_event_types(request_line: str, status: int, kind: str) -> None:
    assert parse(line(request=request_line, status=status))["event_type"] == kind


def test_the_common_format_has_no_agent() -> None:
    event = parse(line(agent=None))
    assert event["event_type"] == "page_view"
    assert "agent" not in event["properties"]


@pytest.mark.parametrize(
    "time",
    [
        "31/Feb/2026:10:00:00 +0000",
        "01/Foo/2026:10:00:00 +0000",
        "17/May/2026:10:05:75 +0000",
        "17/May/2026:10:05:03 +0160",
        "yesterday",
    ],
)
def test_times_that_do_not_exist_are_named(time: str) -> None:
    raw = line().replace(stamp(datetime(2026, 5, 17, 10, 5, 3, tzinfo=UTC)).encode(), time.encode())
    assert AccessLog().parse(1, raw) == f"no such time: {time}"


def test_a_session_ends_after_the_gap_and_belongs_to_client_and_agent() -> None:
    log, start = AccessLog(), datetime(2026, 5, 17, tzinfo=UTC)

    def session(seconds: int, client: str = "10.0.0.1", agent: str = "Firefox") -> str:
        raw = line(at=start + timedelta(seconds=seconds), client=client, agent=agent)
        return str(parse(raw, number=seconds + 1, log=log)["session_id"])

    first = session(0)
    assert session(SESSION_GAP) == first
    assert session(SESSION_GAP - 60) == first  # a line that comes late
    assert session(2 * SESSION_GAP) == first
    assert session(3 * SESSION_GAP + 1) != first
    assert len({first, session(1, client="10.0.0.2"), session(1, agent="Chrome")}) == 3


def test_visitors_of_long_ago_are_forgotten() -> None:
    log, start = AccessLog(), datetime(2026, 5, 17, tzinfo=UTC)
    log._look_over = 10
    for n in range(200):
        parse(line(at=start + timedelta(hours=n), client=f"10.0.0.{n}"), number=n, log=log)
    assert len(log._seen) < 20 or log._look_over > 20


def test_ids_come_from_place_and_content() -> None:
    assert parse(line(), 1) == parse(line(), 1)
    ids = {parse(line(), 1)["event_id"], parse(line(), 2)["event_id"], parse(line(size="18"), 1)["event_id"]}
    assert len(ids) == 3


@pytest.mark.parametrize("file", BOTH)
def test_a_real_log_agrees_with_an_independent_count(file: Path, judge: Callable[..., CheckedBatch]) -> None:
    chunks = list(read_file(file, EVENTS))
    payloads = [p for c in chunks for p in c.payloads]
    malformed = [m for c in chunks for m in c.malformed]
    raw = pl.Series("line", gzip.decompress(file.read_bytes()).decode().splitlines()).to_frame()
    assert raw.height > 500
    assert chunks[0].read == min(5_000, raw.height)
    events = pl.DataFrame([msgspec.json.decode(p) for p in payloads], infer_schema_length=None)
    again = [p for c in read_file(file, EVENTS) for p in c.payloads]
    assert again == payloads

    assert raw.height - len(payloads) == len(malformed) == 1
    # the one line whose agent has no closing quote
    assert [m.line for m in malformed] == (
        raw.with_row_index("n", 1).filter(~pl.col("line").str.ends_with('"'))["n"].to_list()
    )
    part = pl.col("line").str
    log = raw.filter(part.ends_with('"')).select(
        part.extract(r"^(\S+)").alias("client"),
        part.extract(r'"([^"]*)"$').alias("agent"),
        part.extract(r"\[(.*?)\]").str.to_datetime("%d/%b/%Y:%H:%M:%S %z").alias("at"),
        part.extract(r'" (\d{3}) ').cast(pl.Int64).alias("status"),
    )
    gaps = pl.col("at").sort().diff() > timedelta(seconds=SESSION_GAP)
    sessions = log.group_by("client", "agent").agg(gaps.sum() + 1).select(pl.col("at").sum()).item()
    assert events["session_id"].n_unique() == sessions
    statuses = Counter(events["properties"].struct.field("status").to_list())
    assert statuses == Counter(log["status"].to_list())
    assert (events["event_type"] == "request_error").sum() == log.filter(pl.col("status") >= 400).height
    assert events["occurred_at"].str.to_datetime("%+").to_list() == log["at"].to_list()
    assert events["event_id"].n_unique() == log.height

    checked = judge(EVENTS, payloads)
    assert (checked.good.height, checked.rejected.height) == (len(payloads), 0)


def test_detection() -> None:
    assert is_access_log(line())
    assert is_access_log(line(agent=None))
    assert not is_access_log(b'{"event_id":"1"}')
