"""The metrics API on a warehouse with real rows: numbers, forms, tags, and what is wrong with a question."""

from __future__ import annotations

import csv
import io

import httpx
import pyarrow as pa
import pytest

from .conftest import Built, Served


def day_of(built: Built, ago: int) -> str:
    return f"{built.day(ago)}"


def test_a_number_is_that_of_the_input_and_says_what_it_is_made_of(built: Built, served: Served) -> None:
    day = built.day(5)
    found = served.get(f"/v1/metrics/events?from={day}&to={day}&window=day")
    assert found.status_code == 200, found.text
    said = found.json()
    assert [row["value"] for row in said["rows"]] == [built.small.events_of(day)]
    assert said["rows"][0]["window_start"] == f"{day}T00:00:00Z"
    assert said["question"]["from"] == f"{day}T00:00:00Z"
    assert said["made_of"]["published"]["events"]["version"] == 1
    [run] = said["made_of"]["builds"]["events"]
    assert (run["from"], run["to"], run["version"]) == (f"{day}", f"{day}", 1)
    assert said["fresh"] is True and said["watermark"] == found.headers["headrace-watermark"]


def test_today_is_live(built: Built, served: Served) -> None:
    said = served.get("/v1/metrics/events?from=now-1d&window=all").json()
    assert said["made_of"]["live"] is True
    assert said["rows"][0]["value"] > 0


def test_all_forms_say_the_same(built: Built, served: Served) -> None:
    asked = f"/v1/metrics/events?from={day_of(built, 6)}&to={day_of(built, 2)}&window=day&dimensions=channel"
    rows = served.get(asked).json()["rows"]
    text = served.get(asked, headers={"accept": "text/csv"})
    assert text.headers["content-type"].startswith("text/csv")
    told = [int(row["value"]) for row in csv.DictReader(io.StringIO(text.text))]
    table = pa.ipc.open_stream(served.get(f"{asked}&format=arrow").content).read_all()
    assert told == table["value"].to_pylist() == [row["value"] for row in rows]
    streamed = served.get(f"{asked}&format=csv&limit=90000")
    assert streamed.text == text.text
    assert "etag" not in streamed.headers


def test_a_filter_is_a_value_whatever_it_holds(built: Built, served: Served) -> None:
    def asked(*filters: str) -> httpx.Response:
        span = {"from": day_of(built, 6), "to": day_of(built, 2), "window": "all"}
        return served.get("/v1/metrics/events", params={**span, "filter": filters})

    both, web, mobile = (
        asked(*one).json()["rows"][0]["value"]
        for one in (("channel:web", "channel:mobile"), ("channel:web",), ("channel:mobile",))
    )
    assert both == web + mobile > 0
    for odd in ("' or 1 = 1 --", "\\", "\\'", "a\tb\nc", "{x:String}", "ü'", ":", ""):
        found = asked(f"channel:{odd}")
        assert (found.status_code, found.json()["rows"][0]["value"]) == (200, 0), odd
        assert found.json()["question"]["filters"] == {"channel": [odd]}


def test_an_answer_that_the_client_has_is_not_sent_again(built: Built, served: Served) -> None:
    asked = f"/v1/metrics/events?from={day_of(built, 4)}&to={day_of(built, 4)}"
    first = served.get(asked)
    tag = first.headers["etag"]
    for _ in range(2):  # made anew by the route, then ready
        again = served.get(asked, headers={"if-none-match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert served.get(asked, headers={"if-none-match": 'W/"other"'}).json() == first.json()


def test_the_warehouse_is_asked_once(built: Built, served: Served) -> None:
    span = f"from={day_of(built, 7)}&to={day_of(built, 3)}"
    asked = f"/v1/metrics/events?{span}&window=hour&dimensions=channel,event_type"
    served.get(asked)
    made = served.services.answers.made
    for encoding in ("gzip", "identity"):
        assert served.get(asked, headers={"accept-encoding": encoding}).status_code == 200
    assert served.services.answers.made == made


@pytest.mark.parametrize(
    ("path", "field", "nearest"),
    [
        ("/v1/metrics/event", "metric", "events"),
        ("/v1/metrics/events?windw=day", "windw", "window"),
        ("/v1/metrics/events?window=dya", "window", "day"),
        ("/v1/metrics/events?dimensions=chanel", "dimensions", "channel"),
        ("/v1/metrics/events?filter=chanel:web", "filters", "channel"),
        ("/v1/metrics/events?from=yesterday", "from", None),
        ("/v1/metrics/events?from=2020-01-01&window=minute", "window", "day"),
        ("/v1/metrics/events?limit=many", "limit", None),
        ("/v1/metrics/events?limit=1&limit=2", "limit", None),
        ("/v1/metrics/events?order=-valu", "order", "value"),
        ("/v1/metrics/events?compare=previous", "compare", "previous_period"),
        ("/v1/metrics/events?format=jsn", "format", "json"),
        ("/v1/overview?window=day", "window", None),
        ("/v1/stream?view=lively", "view", "live"),
        ("/v1/stream?metric=evnts", "metric", "events"),
    ],
)
def test_a_question_that_is_not_possible_says_the_nearest_one(
    served: Served, path: str, field: str, nearest: str | None
) -> None:
    found = served.get(path)
    assert found.status_code == 400, found.text
    assert found.headers["content-type"] == "application/problem+json"
    said = found.json()
    assert (said["field"], said["status"]) == (field, 400)
    assert nearest is None or said["nearest"] == nearest
    assert said["detail"]


def test_what_is_long_is_compressed_for_who_takes_it(served: Served) -> None:
    packed, plain = (
        served.get("/v1/metrics", headers={"accept-encoding": one}) for one in ("gzip", "identity")
    )
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert packed.json() == plain.json()


def test_the_catalogue_lists_every_metric(served: Served) -> None:
    names = [one["name"] for one in served.get("/v1/metrics").json()["metrics"]]
    assert names == list(served.services.answers.catalogue.metrics)


def test_the_overview_has_the_period_before(built: Built, served: Served) -> None:
    first, last = day_of(built, 4), day_of(built, 3)
    metrics = served.get(f"/v1/overview?from={first}&to={last}").json()["metrics"]
    events = next(one for one in metrics if one["metric"] == "events")
    own = [built.small.events_of(built.day(n)) for n in (6, 5, 4, 3)]
    assert (events["previous"], events["value"]) == (own[0] + own[1], own[2] + own[3])


def test_the_last_half_hour_is_by_the_minute(built: Built, served: Served) -> None:
    found = served.get("/v1/live")
    said = found.json()
    assert said["minutes"] == 30 and "events" in [one["metric"] for one in said["metrics"]]
    assert served.get("/v1/live", headers={"if-none-match": found.headers["etag"]}).status_code in (200, 304)
