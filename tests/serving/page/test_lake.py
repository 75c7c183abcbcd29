"""The lake's screen: rows with filters, as of a moment, versions, the difference of two, and exports."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from html import unescape

import polars as pl
import pytest

from headrace.config.settings import Settings
from headrace.serving.page.beside import Busy

from .conftest import BEGIN, DAYS, GOOD, Site
from .doubles import HOSTILE

ROWS = "/panels/lake/events/rows"


def ids(text: str) -> list[str]:
    """The ids of the events that a table shows, in its order."""
    return re.findall(r'<td title="(e-\d-\d)">', text)


def test_the_newest_rows_come_first(site: Site) -> None:
    assert ids(site.get(ROWS)) == [f"e-{n}-{i}" for n in (2, 1, 0) for i in (3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("where=user_id:eq:u-1", ["e-2-1", "e-1-1", "e-0-1"]),
        ("column=user_id&operator=eq&value=u-1", ["e-2-1", "e-1-1", "e-0-1"]),
        ("where=user_id:eq:u-1&where=_offset:lt:9", ["e-1-1", "e-0-1"]),
        ("where=duration_ms:ge:200&where=_batch_id:eq:b-0", ["e-0-3", "e-0-2"]),
        ("where=event_id:contains:e-1", ["e-1-3", "e-1-2", "e-1-1", "e-1-0"]),
        ("where=event_id:ne:e-0-0&at=2026-11-01T00:00", ["e-0-3", "e-0-2", "e-0-1"]),
        ("where=_ingested_at:gt:2026-11-02T12:00", ["e-2-3", "e-2-2", "e-2-1", "e-2-0"]),
        ("where=received_at:present", []),
        ("where=received_at:null&where=_batch_id:eq:b-1&where=user_id:eq:u-0", ["e-1-0"]),
        ("where=user_id:eq:u-1'%20OR%201=1%20--", []),
        ("day=2026-01-02&where=user_id:eq:u-3", ["e-2-3", "e-1-3", "e-0-3"]),
        ("day=2026-01-03", []),
        ("version=2", ["e-1-3", "e-1-2", "e-1-1", "e-1-0", "e-0-3", "e-0-2", "e-0-1", "e-0-0"]),
    ],
)
def test_conditions_choose_rows(site: Site, query: str, found: list[str]) -> None:
    assert ids(site.get(f"{ROWS}?{query}")) == found


def test_as_of_a_moment_nothing_later_is_known(site: Site) -> None:
    for n in range(DAYS):
        at = f"{BEGIN + timedelta(days=n, hours=1):%Y-%m-%dT%H:%M}"
        assert len(ids(site.get(f"{ROWS}?at={at}"))) == GOOD * (n + 1)
    assert ids(site.get(f"{ROWS}?at=2026-10-01")) == []


def test_versions_lead_to_their_rows_and_differences(site: Site) -> None:
    text = site.get("/panels/lake/events/versions")
    assert "+4 rows" in text and "/lake/events?version=2" in text
    assert "/lake/events?tab=difference&amp;before=2&amp;after=3" in text
    changed = site.get("/panels/lake/events/difference?before=1&after=3")
    assert "+8" in changed and ids(changed) == [f"e-{n}-{i}" for n in (2, 1) for i in (3, 2, 1, 0)]
    same = site.get("/panels/lake/events/difference?before=3&after=3")
    assert "No day has more or fewer rows" in same and ids(same) == []


def test_an_export_has_the_rows_that_the_screen_shows(site: Site) -> None:
    query = "where=user_id:ne:u-1&at=2026-11-02T00:00"
    links = re.findall(r'href="(/lake/events/export[^"]*)"', site.get(f"{ROWS}?{query}"))
    assert len(links) == 2
    answer = site.client.get(unescape(links[0]))
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    expected = {f"e-{n}-{i}" for n in (0, 1) for i in (0, 2, 3)}
    assert {one["event_id"] for one in rows} == expected
    assert answer.headers["content-disposition"] == 'attachment; filename="events.csv"'
    frame = pl.read_parquet(io.BytesIO(site.client.get(unescape(links[1])).content))
    assert set(frame["event_id"]) == expected
    assert set(frame["page_url"]) == {HOSTILE[n] for n in (0, 2, 3)}
    assert frame.schema["occurred_at"] == pl.Datetime("us", "UTC")


def test_one_export_more_than_there_may_be_is_told_when_to_come_again(site: Site) -> None:
    site.looks.fails["export"] = Busy("2 exports are being written")
    answer = site.client.get("/lake/events/export.csv")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "15")
    assert "2 exports are being written" in answer.text
    del site.looks.fails["export"]
    assert site.client.get("/lake/events/export.csv").status_code == 200


def test_a_spreadsheet_runs_nothing_of_an_export(settings: Settings) -> None:
    from headrace.serving.page.reading.exports import csv as written

    text = ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "plain", 'a,"b"\nc', None)
    frame = pl.DataFrame({"a": text, "n": list(range(8)), "l": [["=x"]] * 8})
    found = list(csv.reader(io.StringIO(b"".join(written([frame], None)).decode())))  # type: ignore[arg-type]
    assert [row[0] for row in found[1:]] == [
        "'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\tx", "plain", "a,\"b\"\nc", "",
    ]  # fmt: skip
    assert found[1][2] == '["=x"]'


def test_an_export_of_no_rows_has_its_columns(site: Site) -> None:
    found = site.client.get("/lake/events/export.csv?where=user_id:eq:nobody").text
    assert found.startswith("event_id,event_type") and len(found.splitlines()) == 1
    frame = pl.read_parquet(
        io.BytesIO(site.client.get("/lake/events/export.parquet?where=user_id:eq:nobody").content)
    )
    assert frame.height == 0 and "event_id" in frame.columns


def test_a_table_before_anything_has_landed(site: Site) -> None:
    for tab in ("rows", "versions", "files", "schema", "difference"):
        whole = site.get(f"/lake/metrics?tab={tab}&plain=1")
        assert 'role="alert"' not in whole
        assert "Nothing has landed yet" in whole or tab == "schema"
    assert "nothing has landed yet" in site.get("/panels/lake/metrics/rows?day=2026-01-01").lower()
