"""What a cached answer is worth: closed days live on, open ones are never old, outages are said."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from builders import eventually
from headrace.serving.held import Held, MadeOf

from .conftest import WITHIN, Built, Served, serving


@pytest.fixture
def fresh(built: Built, tmp_path: Path) -> Iterator[Served]:
    """A server of a test's own, which knows no answers yet."""
    with serving(built.settings(tmp_path)) as found:
        yield found


def ask(served: Served, day: date, **more: Any) -> httpx.Response:
    return served.get(f"/v1/metrics/events?from={day}&to={day}&window=all", **more)


def test_a_closed_day_lives_on_over_a_publication_and_a_build_of_it_changes_its_key(
    built: Built, fresh: Served
) -> None:
    closed, late, today = (built.day(n) for n in (9, 8, 0))
    before = {day: ask(fresh, day) for day in (closed, late)}
    made = fresh.services.answers.made

    built.small.publish(late)
    after = ask(fresh, closed)
    assert after.headers["etag"] == before[closed].headers["etag"]
    assert fresh.services.answers.made == made, "a closed day is not asked for again"

    lagging = ask(fresh, late)  # the mart is as it was, and the answer says so now
    assert lagging.json()["rows"] == before[late].json()["rows"]
    assert lagging.json()["fresh"] is False
    assert lagging.json()["made_of"]["stale_days"] == [f"{late}"]
    assert lagging.headers["etag"] != before[late].headers["etag"]

    built.small.build(late)
    mended = ask(fresh, late)
    assert mended.json()["rows"][0]["value"] == before[late].json()["rows"][0]["value"] + 1
    assert mended.json()["fresh"] is True
    assert ask(fresh, closed).headers["etag"] == before[closed].headers["etag"]

    live = fresh.get("/v1/metrics/events?from=now-1d&window=all")
    built.small.publish(today)
    now = fresh.get("/v1/metrics/events?from=now-1d&window=all")
    assert now.json()["rows"][0]["value"] == live.json()["rows"][0]["value"] + 1, "an open day is never old"


def test_rows_that_go_away_behind_everybodys_back_change_the_key(built: Built, fresh: Served) -> None:
    day = built.day(10)
    before = ask(fresh, day)
    built.small.run(
        f"alter table {{db}}.event_metrics_rollups delete where event_date = '{day}' and channel = 'chat'"
        " settings mutations_sync = 2"
    )
    after = ask(fresh, day)
    assert after.headers["etag"] != before.headers["etag"]
    assert after.json()["rows"][0]["value"] < before.json()["rows"][0]["value"]


def test_a_merge_changes_no_key(built: Built, fresh: Served) -> None:
    day = built.day(7)
    before = ask(fresh, day)
    built.small.run("optimize table {db}.event_metrics_rollups final")
    assert ask(fresh, day).headers["etag"] == before.headers["etag"]


def test_a_cache_that_ignores_the_version_is_caught(
    built: Built, fresh: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the tests above: they would see an answer that is old."""
    monkeypatch.setattr(MadeOf, "version", ())
    monkeypatch.setattr(Held, "_marks", lambda *_: iter(()))
    before = fresh.get("/v1/metrics/events?from=now-1d&window=all")
    built.small.publish(built.day(0))
    after = fresh.get("/v1/metrics/events?from=now-1d&window=all")
    if after.json()["question"] == before.json()["question"]:  # not when a minute has just passed
        assert after.json()["rows"] == before.json()["rows"]


def test_many_who_ask_at_once_are_one_question(built: Built, fresh: Served) -> None:
    day = built.day(6)
    made = fresh.services.answers.made
    found: list[int] = []

    def reader() -> None:
        with httpx.Client(base_url=fresh.url, timeout=WITHIN, trust_env=False) as client:
            found.append(client.get(f"/v1/metrics/events?from={day}&to={day}&window=5_minutes").status_code)

    readers = [threading.Thread(target=reader) for _ in range(12)]
    for one in readers:
        one.start()
    for one in readers:
        one.join(WITHIN)
    assert found == [200] * 12
    assert fresh.services.answers.made == made + 1


def test_without_the_warehouse_older_answers_are_marked_and_others_are_a_503(
    built: Built, fresh: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = built.day(6)
    before = ask(fresh, day)
    monkeypatch.setattr(fresh.services.warehouse, "_url", "http://127.0.0.1:9/")
    older = ask(fresh, day)
    assert older.status_code == 200
    said = older.json()
    assert said.pop("stale") is True and said.pop("age_seconds") >= 0
    assert said == before.json()
    assert older.headers["headrace-stale"] == "true" and "age" in older.headers and "warning" in older.headers
    assert older.headers["etag"] != before.headers["etag"]
    other = ask(fresh, day - timedelta(days=1))
    assert other.status_code == 503 and int(other.headers["retry-after"]) > 0
    assert fresh.get("/readyz").status_code == 503
    assert fresh.get("/healthz").status_code == 200
    monkeypatch.undo()
    eventually(lambda: fresh.get("/readyz").status_code == 200, WITHIN, "the warehouse")
    assert ask(fresh, day).json() == before.json()


def events_of(response: httpx.Response) -> Iterator[dict[str, str]]:
    found: dict[str, str] = {}
    for line in response.iter_lines():
        if not line:
            if "data" in found:
                yield found
            found = {}
        else:
            name, _, value = line.partition(": ")
            found[name] = f"{found[name]}\n{value}" if name in found else value


def test_listeners_get_each_publication_once(built: Built, fresh: Served) -> None:
    asked = "/v1/stream?metric=events&from=now-1d&window=all"
    with fresh.client.stream("GET", asked) as one, httpx.Client(base_url=fresh.url, timeout=WITHIN) as other:
        assert one.headers["content-type"].startswith("text/event-stream")
        events = events_of(one)
        first = next(events)
        value = json.loads(first["data"])["rows"][0]["value"]
        with other.stream("GET", asked, headers={"last-event-id": first["id"]}) as again:
            resumed = events_of(again)
            built.small.publish(built.day(0))
            for heard in (events, resumed):
                while json.loads((event := next(heard))["data"])["rows"][0]["value"] != value + 1:
                    assert event["id"] != first["id"]
                assert event["id"] != first["id"]


def test_nobody_is_asked_once_the_last_listener_has_left(built: Built, fresh: Served) -> None:
    with fresh.client.stream("GET", "/v1/stream") as one:
        assert "metrics" in json.loads(next(events_of(one))["data"])
    fresh.client.close()

    def left() -> bool:
        looks = fresh.services.versions.looks
        threading.Event().wait(0.5)
        return fresh.services.versions.looks == looks

    fresh.services.recent._asked.clear()
    eventually(left, WITHIN, "an end of looking")
