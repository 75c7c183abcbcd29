"""Every screen and every panel: it comes, it escapes what is hostile, and it fails alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import pytest

from headrace.core.errors import Retriable
from headrace.serving.base import NotBuilt, TooMuch
from headrace.serving.page.screens import SCREENS, lake, overview
from headrace.serving.page.site import POLICY, Panel, Screen

from .conftest import Site
from .doubles import HOSTILE

TABLES = [f"/lake/events?tab={tab}" for tab in lake.TABS]
ADDRESSES = [*(screen.path for screen in SCREENS), *TABLES, "/lake/events_rejected"]
PANELS = [(screen, panel) for screen in SCREENS for panel in screen.panels]


class Reader(HTMLParser):
    """What a browser would run, load and follow; and whether every element is closed."""

    VOID = frozenset(
        ["area", "base", "br", "col", "hr", "img", "input", "link", "meta", "path", "rect", "source"]
    )

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.handlers: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.handlers += [name for name in given if name.startswith("on") or name == "style"]
        self.loads += [value for name in ("src", "hx-get", "action") if (value := given.get(name))]
        self.loads += [given["href"] or ""] if tag == "link" else []
        self.links += [given["href"] or ""] if tag == "a" else []
        self.scripts += [given.get("src") or "inline"] if tag == "script" else []
        assert tag not in ("iframe", "object", "embed", "img"), given
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def check(text: str) -> Reader:
    """Nothing of what is hostile has become markup, and nothing is loaded from elsewhere."""
    read = Reader(text)
    assert read.handlers == []
    assert all(one.startswith("/static/") for one in read.scripts)
    assert all(one.startswith("/") and not one.startswith("//") for one in read.loads), read.loads
    for one in read.links:
        assert one.startswith(("/", "#", "http://dagster.example:3000")), one
    assert "<script>alert" not in text and "<img" not in text
    return read


@pytest.mark.parametrize("path", ADDRESSES)
def test_the_frame_comes_first_and_the_whole_page_without_javascript(site: Site, path: str) -> None:
    frame = check(site.get(path))
    assert any(one.startswith("/panels/") for one in frame.loads)
    if not path.startswith("/lake/"):
        assert site.numbers.asked == []  # the frame waits for no number
    whole = site.get(f"{path}{'&' if '?' in path else '?'}plain=1")
    assert check(whole).scripts == [] and "hx-get" not in whole and "skeleton" not in whole
    assert 'role="alert"' not in whole, re.findall(r'class="why">([^<]*)', whole)
    assert "<noscript>" not in whole


@pytest.mark.parametrize(("screen", "panel"), PANELS, ids=lambda one: getattr(one, "name", ""))
def test_each_panel_escapes_what_is_hostile(site: Site, screen: Screen, panel: Panel) -> None:
    text = site.get(f"/panels/{screen.name}/{panel.name}")
    check(text)


def test_hostile_values_are_there_as_text(site: Site) -> None:
    text = site.get("/panels/overview/types")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    rows = site.get("/panels/lake/events/rows")
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in rows
    feed = site.get("/panels/live/feed")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in feed


def test_a_filter_of_a_link_is_the_value_to_the_last_character(site: Site) -> None:
    """The negative control of escaping: what comes back out of an address is what went in."""
    read = check(site.get("/panels/overview/types?period=30d"))
    queries = [parse_qs(urlsplit(one).query, keep_blank_values=True) for one in read.links]
    assert [one["event_type"][0] for one in queries] == ["page_view", *HOSTILE]
    assert all(one["period"] == ["30d"] for one in queries)
    followed = site.get(read.links[1])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in check(followed).rawdata + followed
    site.numbers.asked.clear()
    site.get(f"/panels/overview/chart?{urlsplit(read.links[1]).query}")
    assert {one[2].get("event_type") for one in site.numbers.asked if one[2]} == {HOSTILE[0]}


def test_a_row_that_is_the_filter_takes_it_out(site: Site) -> None:
    links = check(site.get("/panels/overview/channels?channel=web")).links
    assert "channel" not in parse_qs(urlsplit(links[0]).query)
    assert parse_qs(urlsplit(links[1]).query)["channel"] == ["mobile"]


def test_filters_go_along_from_screen_to_screen(site: Site) -> None:
    links = check(site.get("/?channel=web&from=2026-11-01&to=2026-11-03")).links
    assert "/sessions?from=2026-11-01&to=2026-11-03&channel=web" in links
    # what a screen cannot filter by is said
    assert "Event type does not apply here" in site.get("/sessions?event_type=click")


def test_a_figure_fails_alone_and_all_of_them_with_their_reason(site: Site) -> None:
    site.numbers.fails["sessions"] = Retriable("no <b>")
    some = site.get("/panels/overview/figures")
    assert "no answer for now" in some and "no &lt;b&gt;" in some and "Users" in some
    site.numbers.fails |= dict.fromkeys(overview.METRICS, Retriable("away"))
    assert "away" in site.get("/panels/overview/figures", status=503)


def test_what_takes_too_long_is_not_yet_and_says_why(site: Site) -> None:
    """As where models are hundreds of versions behind: the others are shown, and nothing hangs."""
    site.numbers.fails |= {"sessions": TooMuch("10 s"), "conversions": NotBuilt("no table")}
    some = site.get("/panels/sessions/figures")
    assert "not yet" in some and "how far the models are behind" in some and "not built yet" in some
    assert "Bounce rate" in some
    assert "how far the models are behind" in site.get("/panels/sessions/chart?metric=sessions", status=503)
    site.numbers.fails = {"repeated_rows": TooMuch("10 s")}
    some = site.get("/panels/quality/by_stream")
    assert "Not yet: the warehouse took longer" in some and "events" in some
    names = ("landed_rows", "late_share", "repeated_rows", "rejected_records", "lateness_longest")
    site.numbers.fails = dict.fromkeys(names, TooMuch("10 s"))
    assert "Not yet" in site.get("/panels/quality/by_stream", status=503)


def test_a_panel_fails_alone_with_its_reason(site: Site) -> None:
    site.numbers.fails["events"] = Retriable("the warehouse at 127.0.0.1:1 does not answer <b>")
    failed = site.get("/panels/overview/chart", status=503)
    assert "the warehouse at 127.0.0.1:1 does not answer &lt;b&gt;" in failed and "Try again" in failed
    site.numbers.fails = {"funnel_sessions": Retriable("away")}
    assert "web" in site.get("/panels/overview/channels")
    whole = site.get("/quality?plain=1")
    assert 'role="alert"' not in whole
    whole = site.get("/funnel?plain=1")
    assert whole.count('role="alert"') == 2 and "Funnel" in whole


def test_how_fresh_a_chart_is_stands_beside_it(site: Site) -> None:
    site.numbers.fresh = datetime(2026, 11, 30, 12, 0, 1, tzinfo=UTC)
    assert "as of 2026-11-30 12:00:01" in site.get("/panels/overview/chart")
    site.numbers.age = 75
    assert "the warehouse is away: as of 1 min 15 s ago" in site.get("/panels/overview/chart")


def test_a_defect_is_said_without_its_inside(site: Site) -> None:
    site.numbers.fails["events"] = ZeroDivisionError("secret 42")
    assert "secret" not in site.get("/panels/overview/channels", status=500)


def test_before_anything_has_landed_the_page_says_how_to_send(site: Site) -> None:
    site.numbers.empty = True
    assert "headrace send" in site.get("/panels/overview/chart")
    whole = site.get("/?plain=1")
    assert "Nothing has landed yet" in whole and 'role="alert"' not in whole
    for screen in SCREENS:
        check(site.get(f"{screen.path}?plain=1"))


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/?chanel=web", 400, "did you mean &#39;channel&#39;?"),
        ("/?period=24hours", 400, "did you mean &#39;24h&#39;?"),
        ("/?from=2026-11-01", 400, "needs both"),
        ("/?from=2026-11-31&to=2026-12-01", 400, "write it as 2026-11-30"),
        ("/?from=2026-11-03&to=2026-11-01", 400, "is no range"),
        ("/?from=2020-01-01&to=2026-11-01", 400, "ask for up to 400"),
        ("/?from=2026-11-01&to=2026-11-02&period=7d", 400, "exclude period"),
        (f"/?channel={'x' * 300}", 400, "give up to 200"),
        ("/panels/overview/figures?metric=eventz", 400, "did you mean &#39;events&#39;?"),
        ("/panels/overview/figurs", 404, "has no panel"),
        ("/panels/overwiew/figures", 404, "there are: overview"),
        ("/lake/events?where=channel", 200, "/panels/lake/events/rows"),
        ("/panels/lake/events/rows?where=channel", 400, "column:eq:value"),
        ("/panels/lake/events/rows?where=chanel:eq:web", 400, "did you mean &#39;channel&#39;?"),
        ("/panels/lake/events/rows?where=channel:is:web", 400, "there is no operator"),
        ("/panels/lake/events/rows?where=duration_ms:gt:fast", 400, "is no value of duration_ms"),
        ("/panels/lake/events/rows?where=properties:eq:1", 200, ""),
        ("/panels/lake/events/rows?version=-1", 400, "is no whole number"),
        ("/panels/lake/events/rows?version=9999", 410, "can no longer be read"),
        ("/panels/lake/events/rows?version=1&at=2026-11-01", 400, "exclude each other"),
        ("/panels/lake/events/rows?at=yesterday", 400, "is no moment"),
        ("/panels/lake/evens/rows", 400, "there are: events, events_rejected, metrics, metrics_rejected"),
        ("/panels/lake/..%2F..%2Fetc/rows", 404, ""),
        ("/panels/lake/events/difference?before=3&after=1", 400, "turn them round"),
        ("/lake/events?tab=row", 400, "did you mean &#39;rows&#39;?"),
        ("/lake/events/export.xlsx", 404, "there are: csv, parquet"),
        ("/lake/evens/export.csv", 400, "there is no table"),
        ("/theme?to=purple", 400, "there are: auto, light, dark"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_the_right_choice(site: Site, path: str, status: int, said: str) -> None:
    text = site.get(path, status=status)
    assert said in text, text[-1500:]
    if text.startswith("<"):
        check(text)


def test_nothing_may_come_from_elsewhere(site: Site) -> None:
    for path in ("/", "/panels/overview/channels", "/?chanel=x"):
        headers = site.client.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in POLICY and "http" not in POLICY and "*" not in POLICY


def test_colours_are_kept_and_lead_back_to_this_site_alone(site: Site) -> None:
    answer = site.client.get("/theme", params={"to": "dark", "back": "/sessions?period=30d"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sessions?period=30d")
    assert 'data-theme="dark"' in site.get("/")
    site.client.cookies.set("headrace-theme", "><script>")
    assert "data-theme=" not in site.get("/").partition("<head>")[0]
    for evil in (
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\r\nb: c",
    ):
        assert site.client.get("/theme", params={"to": "dark", "back": evil}).headers["location"] == "/"


def test_files_are_kept_for_ever_by_their_content(site: Site) -> None:
    own = [one for one in check(site.get("/")).loads if one.startswith("/static/")]
    assert len(own) >= 5
    for one in own:
        answer = site.client.get(one)
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert site.client.get("/static/../site.py").status_code == 404
    assert site.client.get("/static/%2e%2e/site.py").status_code == 404
