"""Bodies that nobody should send: each is taken or refused by one clear answer, and what is taken is JSON."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import EVENT, METRIC
from collector.doubles import Room, room
from collector.test_routes import JSON
from headrace.collector.http import Response
from headrace.collector.routes import otlp
from headrace.collector.service import TAKING

#: Whole bodies from which others are made.
SEEDS: list[bytes] = [
    json.dumps(one).encode()
    for one in (
        EVENT,
        [EVENT, METRIC, 5, None, [], "a"],
        {
            "events": [EVENT],
            "measurements": [METRIC],
            "streams": {"metrics": [METRIC]},
            "sent_at": "2026-01-02T03:04:05Z",
        },
        {
            "batch": [{"type": "track", "event": "a", "userId": "u", "timestamp": "2026-01-02T03:04:05Z"}],
            "sentAt": 5,
        },
        {"api_key": "x", "batch": [{"event": "$pageview", "properties": {"distinct_id": "u"}}]},
        {
            "specversion": "1.0",
            "id": "1",
            "source": "s",
            "type": "t",
            "data": {"a": [1, 2.5, "é\ud83d\ude00"]},
        },
        {
            "resourceMetrics": [
                {"scopeMetrics": [{"metrics": [{"name": "a", "gauge": {"dataPoints": [{"asInt": "3"}]}}]}]}
            ]
        },
    )
]
CONTENTS = [
    "application/json", "text/plain", "application/x-ndjson", "application/cloudevents+json",
    "application/cloudevents-batch+json", otlp.PROTOBUF, "", "application/x-www-form-urlencoded",
]  # fmt: skip
BODIES = 400
#: What a body may be answered with.
CLEAR = (200, 202, 207, 400, 413, 415, 422)
#: So many are sent beside each other; FUZZ_BODIES=1000000 FUZZ_SEED=1 tries more than fits a test run.
FLOOD, SEED = int(os.environ.get("FUZZ_BODIES", "2000")), int(os.environ.get("FUZZ_SEED", "21"))
TOGETHER = 200


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def one(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Room]:
    with room(tmp_path, workers=request.param) as found:
        yield found


def judged(one: Room, path: str, body: bytes, content: str, **headers: str) -> None:
    """Send a body; hold that the answer is a clear one and the log holds nothing but JSON."""
    before = len(one.log.entries)
    response = one.send(path, body, {"content-type": content, **headers})
    assert response.status in CLEAR, (response.status, path, content, body)
    assert response.status < 400 or len(one.log.entries) == before
    for entry in one.log.entries[before:]:
        assert len(entry.ids) == 24 * records(entry.payload)
    if response.content_type == "application/json":
        msgspec.json.decode(response.body)


def records(payload: bytes) -> int:
    """How many records an entry has, which must be JSON; numbers of any size are."""
    if payload.startswith(b"["):
        return len(msgspec.json.decode(payload, type=list[msgspec.Raw]))
    msgspec.json.decode(payload, type=msgspec.Raw)
    return 1


def damaged(random_: random.Random, body: bytes) -> bytes:
    """Change a body at random: bits, pieces, numbers, nesting."""
    for _ in range(random_.choice((0, 1, 1, 2, 5))):
        at = random_.randrange(len(body) + 1)
        match random_.randrange(7):
            case 0:
                body = body[:at] + bytes([random_.randrange(256)]) + body[at + 1 :]
            case 1:
                body = body[:at]
            case 2:
                end = random_.randrange(at, len(body) + 1)
                body = body[:at] + body[end:]
            case 3:
                piece = random_.choice(
                    (b'"', b"{", b"}", b"[", b",", b":", b"\\u", b"\\ud800", b"1e400", b"-", b"\x00")
                )
                body = body[:at] + piece + body[at:]
            case 4:
                body = body[:at] + body[at : at + 40] + body[at:]
            case 5:
                body = b"[" * (n := random_.randrange(1, 3_000)) + body + b"]" * n
            case _:
                body = body.replace(b'"', b"'", 1) if at % 2 else body.replace(b"2026", b"0000", 1)
    return body


def test_damaged_bodies(one: Room) -> None:
    random_ = random.Random(20)
    paths = sorted(TAKING)
    for _ in range(BODIES):
        judged(one, random_.choice(paths), damaged(random_, random_.choice(SEEDS)), random_.choice(CONTENTS))
    assert len(one.log.entries) > BODIES / 50, "hardly anything was taken: this tries the refusals alone"


@pytest.mark.timeout(900 if FLOOD <= 10_000 else 0)
def test_damaged_bodies_beside_each_other(one: Room) -> None:
    """Each is answered clearly, and the log holds as many events as were told that they are in it."""
    random_, paths, told = random.Random(SEED), sorted(TAKING), 0
    for sent in range(0, FLOOD, TOGETHER):
        requests = [
            one.request(
                random_.choice(paths), damaged(random_, random_.choice(SEEDS)), {"content-type": content}
            )
            for content in random_.choices(CONTENTS, k=min(TOGETHER, FLOOD - sent))
        ]
        before = len(one.log.entries)
        for request, response in zip(requests, one.answers(requests), strict=True):
            assert response.status in CLEAR, (response.status, request.path, request.body)
            told += taken(response)
        for entry in one.log.entries[before:]:
            assert len(entry.ids) == 24 * records(entry.payload)
    counted = re.findall(r'outcome="(?:accepted|rejected)"} (\d+)', one.meters.counts.text({}))
    assert sum(len(entry.ids) // 24 for entry in one.log.entries) == sum(map(int, counted)) >= told > 0


def taken(response: Response) -> int:
    """How many events a native answer says are new in the log; other protocols' answers do not say."""
    if response.status >= 400 or response.content_type != "application/json":
        return 0
    said = msgspec.json.decode(response.body)
    return int(said.get("accepted", 0)) + int(said.get("rejected", 0)) if isinstance(said, dict) else 0


def test_any_json_to_every_route(one: Room) -> None:
    @settings(deadline=None, max_examples=60, database=None)
    @given(JSON, st.sampled_from(sorted(TAKING)), st.sampled_from(CONTENTS))
    def tried(value: Any, path: str, content: str) -> None:
        judged(one, path, json.dumps(value).encode(), content)

    tried()


def test_any_headers(one: Room) -> None:
    texts = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=20)
    names = st.sampled_from(
        ["authorization", "content-encoding", "content-type", "x-sent-at", "idempotency-key", "x-forwarded-for",
         "user-agent", "ce-specversion", "ce-id", "ce-source", "ce-type", "x-write-key", "origin"]
    )  # fmt: skip

    @settings(deadline=None, max_examples=100, database=None)
    @given(st.dictionaries(names, texts, max_size=4), texts)
    def tried(headers: dict[str, str], query: str) -> None:
        response = one.send("/v1/analytics", {**EVENT}, headers, query=query, key=None)
        assert response.status in (400, 401, 403, 415), response.body

    tried()
    assert not one.log.entries
