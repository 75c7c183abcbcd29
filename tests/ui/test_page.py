"""The page of ``headrace serve`` in a browser: links, keys, colours, a narrow window, no JavaScript, no other host.

Numbers are made up, the lake is real, and all its texts mean harm: if one of them ran, a test would see the alert.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from starlette.applications import Starlette

from builders import event, eventually
from headrace.config.settings import Settings, load_settings
from headrace.contracts import check_batch
from headrace.core.batch import MicroBatch
from headrace.flow.commit import land
from headrace.metrics import load
from headrace.serving.page.http import routes_of
from headrace.serving.page.screens import SCREENS
from headrace.serving.page.site import Sources
from headrace.streams.stream import streams
from serving.page.doubles import HOSTILE, Here, Pretended

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.ui,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        CHROMIUM is None, reason="there is no Chromium: apt-get install chromium, or Google Chrome"
    ),
]
SHOTS = Path(__file__).parents[2] / ".ui-test"
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
#: Milliseconds: a page of a busy machine.
PAGE = 30_000
ADDRESSES = [*(screen.path for screen in SCREENS), "/lake/events", "/lake/events?tab=difference"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three batches of four events and a message that is refused."""
    found = load_settings(home=tmp_path_factory.mktemp("page"))
    stream = streams(found)["events"]
    for n in range(3):
        payloads = [event(event_id=f"e-{n}-{i}", page_url=text) for i, text in enumerate(HOSTILE)]
        batch = MicroBatch.of(
            "test", [*payloads, HOSTILE[2].encode()], cursor="t/0", offset=range(5 * n, 5 * n + 5)
        )
        now = datetime(2026, 11, 1 + n, tzinfo=UTC)
        checked = check_batch(stream.contract, batch, batch_id=f"b-{n}", now=now, limits=stream.limits)
        land(batch, stream.contract, stream.lake, stream.limits, checked=checked)
    stream.close()
    return found


@pytest.fixture(scope="module")
def numbers(settings: Settings) -> Pretended:
    return Pretended(load(settings))


@pytest.fixture(scope="module")
def address(settings: Settings, numbers: Pretended) -> Iterator[str]:
    """Address of a server of the page."""
    looks = Here(settings)
    sources: Any = Sources(numbers, looks, looks, "")  # type: ignore[arg-type]
    config = uvicorn.Config(Starlette(routes=routes_of(sources)), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started, 30, "the start of the server")
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        expect.set_options(timeout=PAGE)
        yield found
        found.close()


@contextmanager
def window(browser: Browser, address: str, **how: Any) -> Iterator[Page]:
    """A window that no text has taken over: nothing ran, nothing was refused, and no other host was asked."""
    context: BrowserContext = browser.new_context(base_url=address, **{"viewport": WIDE, **how})
    page = context.new_page()
    page.set_default_timeout(PAGE)
    wrong: list[str] = []
    page.on("dialog", lambda one: wrong.append(f"dialog: {one.message}"))
    page.on("pageerror", lambda one: wrong.append(f"error: {one}"))
    page.on("console", lambda one: wrong.append(one.text) if "Content Security Policy" in one.text else None)
    page.on(
        "request", lambda one: wrong.append(one.url) if not one.url.startswith((address, "data:")) else None
    )
    yield page
    assert wrong == []
    context.close()


def arrived(page: Page) -> None:
    """Wait until every panel has come."""
    expect(page.locator(".body .skeleton")).to_have_count(0)
    expect(page.locator(".htmx-request")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_every_screen_comes_whole(browser: Browser, address: str, scheme: str, size: str) -> None:
    viewport = WIDE if size == "wide" else NARROW
    with window(browser, address, viewport=viewport, color_scheme=scheme) as page:
        for path in ADDRESSES:
            page.goto(path)
            arrived(page)
            assert page.locator("[role=alert]").count() == 0, path
            over = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert over <= 0, f"{path} is {over} pixels too wide"
            SHOTS.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "-", path).strip("-") or "overview"
            page.screenshot(path=SHOTS / f"page-{name}-{size}-{scheme}.png", animations="disabled")


def test_nothing_moves_when_panels_arrive(browser: Browser, address: str) -> None:
    with window(browser, address) as page:
        page.add_init_script(
            "window.shift = 0; new PerformanceObserver(l => l.getEntries().forEach(e => { if (!e.hadRecentInput)"
            " window.shift += e.value; })).observe({type: 'layout-shift', buffered: true});"
        )
        for path in ("/", "/sessions", "/hours"):
            page.goto(path)
            arrived(page)
            assert page.evaluate("window.shift") < 0.05, path


def test_a_click_filters_and_the_address_says_so(browser: Browser, address: str) -> None:
    with window(browser, address) as page:
        page.goto("/")
        arrived(page)
        page.locator("#p-channels").get_by_text("mobile").click()
        expect(page).to_have_url(re.compile(r"\?channel=mobile$"))
        expect(page.locator(".chip")).to_contain_text("Channel is mobile")
        page.locator("#p-types").get_by_text(HOSTILE[0], exact=True).click()
        expect(page.locator(".chip b").nth(1)).to_have_text(HOSTILE[0])
        again = page.url
        page.get_by_role("link", name="Sessions", exact=True).click()
        expect(page.locator(".chip.off")).to_contain_text("Event type does not apply here")
        page.goto(again)
        page.get_by_role("link", name="Take out the filter Channel").click()
        expect(page.locator(".chip")).to_have_count(1)


def test_menus_and_days(browser: Browser, address: str) -> None:
    with window(browser, address) as page:
        page.goto("/?metric=unique_users")
        page.locator("summary", has_text="Channel").click()
        page.locator(".menu[open]").get_by_role("link", name="web").click()
        expect(page).to_have_url(
            re.compile(r"metric=unique_users.*channel=web|channel=web.*metric=unique_users")
        )
        page.locator("summary", has_text=" to ").click()
        page.get_by_label("From").fill("2026-11-01")
        page.get_by_label("To, that day included").fill("2026-11-03")
        page.get_by_role("button", name="Show these days").click()
        expect(page).to_have_url(re.compile(r"channel=web.*from=2026-11-01&to=2026-11-03"))
        assert "metric=unique_users" in page.url
        page.locator("summary", has_text=" to ").click()
        page.keyboard.press("Escape")
        expect(page.locator(".menu[open]")).to_have_count(0)


def test_by_keys_alone(browser: Browser, address: str) -> None:
    with window(browser, address) as page:
        page.goto("/")
        arrived(page)
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        page.locator("#p-chart .plot").focus()
        page.keyboard.press("Home")
        expect(page.locator("#tip")).to_be_visible()
        first = page.locator("#tip").inner_text()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#tip")).not_to_have_text(first)
        expect(page.locator("#said")).to_contain_text("Events: ")
        page.locator("#p-channels a").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("channel=mobile"))
        page.goto("/hours")
        arrived(page)
        page.locator("table.heat td[tabindex='0']").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#tip")).to_contain_text("Tuesday, 01:00 to 02:00")


def test_colours_stay(browser: Browser, address: str) -> None:
    with window(browser, address, color_scheme="light") as page:
        page.goto("/lake")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.get_by_title("Dark").click()
        dark = page.evaluate(ground)
        assert dark != light
        page.goto("/sessions")  # by the server now
        assert page.evaluate(ground) == dark
        page.get_by_title("As the system").click()
        assert page.evaluate(ground) == light


def test_it_can_be_read_without_javascript(browser: Browser, address: str) -> None:
    with window(browser, address, java_script_enabled=False) as page:
        page.goto("/")
        expect(page).to_have_url(re.compile("plain=1"))
        expect(page.locator("#p-channels")).to_contain_text("mobile")
        expect(page.locator(".still path").first).to_be_attached()
        page.locator("#p-channels").get_by_text("mobile").click()
        expect(page.locator(".chip")).to_contain_text("mobile")
        page.get_by_role("link", name="Lake").click()
        page.get_by_role("link", name="events", exact=True).click()
        page.get_by_label("Column").select_option("event_id")
        page.get_by_label("Value").fill("e-1-2")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("table.cells tbody tr")).to_have_count(1)


def test_a_panel_that_fails_is_asked_for_again_in_its_place(
    browser: Browser, address: str, numbers: Pretended
) -> None:
    with window(browser, address) as page:
        numbers.fails["events"] = ZeroDivisionError()
        try:
            page.goto("/hours")
            expect(page.locator("[role=alert]")).to_contain_text("This does not work")
        finally:
            numbers.fails.clear()
        page.get_by_role("link", name="Try again").click()
        expect(page.locator("table.heat")).to_be_visible()
        expect(page).to_have_url(re.compile("/hours$"))


def test_a_lake_table_is_looked_into_and_taken_home(browser: Browser, address: str, tmp_path: Path) -> None:
    with window(browser, address) as page:
        page.goto("/lake")
        page.get_by_role("link", name="events", exact=True).click()
        arrived(page)
        expect(page.locator("table.cells tbody tr")).to_have_count(12)
        expect(page.get_by_text(HOSTILE[2]).first).to_be_visible()
        page.get_by_label("As known at").fill("2026-11-01T12:00")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("table.cells tbody tr")).to_have_count(4)
        with page.expect_download() as download:
            page.get_by_role("link", name="CSV").click()
        saved = tmp_path / "rows.csv"
        download.value.save_as(saved)
        assert len(saved.read_text().splitlines()) == 5
        page.get_by_role("link", name="Versions").click()
        page.get_by_role("link", name="Difference").nth(1).click()
        expect(page.locator("dd.plus")).to_have_text("+4")


def test_the_newest_events_can_be_opened_with_the_reasons_of_their_refusal(
    browser: Browser, address: str
) -> None:
    with window(browser, address) as page:
        page.goto("/live?show=rejected")
        refused = page.locator(".feed details")
        expect(refused).to_have_count(3)
        refused.first.locator("summary").click()
        expect(refused.first.locator("pre")).to_have_text(HOSTILE[2])
        expect(refused.first.locator(".reasons")).to_contain_text("json")
        assert urlsplit(page.url).path == "/live"
        # what is open stays open when the panel comes anew
        page.evaluate("htmx.trigger(document.body, 'live')")
        arrived(page)
        expect(refused.first.locator("pre")).to_be_visible()


def test_a_week_has_an_axis_of_days(browser: Browser, address: str) -> None:
    """The drawing is there: as wide as its place, in the place of the server's."""
    with window(browser, address) as page:
        page.goto(f"/?from={datetime.now(UTC).date() - timedelta(days=40)}&to={datetime.now(UTC).date()}")
        arrived(page)
        drawn = page.locator("#p-chart .uplot")
        expect(drawn).to_be_visible()
        place = page.locator("#p-chart .plot").bounding_box()
        box = drawn.bounding_box()
        assert place is not None and box is not None and abs(place["width"] - box["width"]) < 2
        expect(page.locator("#p-chart .still")).to_be_hidden()
