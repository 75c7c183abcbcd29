"""What a person does in the UI: see a check fail and why, mend the days by a backfill, look at the lineage.

The tests are one story and run in their order: the warehouse has lost rows of a day, the check says so, the backfill
brings them back, the check passes again. ``make ui-test`` runs them, and keeps the screenshots in ``.ui-test``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from .conftest import LOST, PER_DAY, REFUSED, Running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.ui,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        CHROMIUM is None, reason="there is no Chromium: apt-get install chromium, or Google Chrome"
    ),
]
SHOTS = Path(__file__).parents[2] / ".ui-test"
LAPTOP, WIDE = {"width": 1600, "height": 1000}, {"width": 2600, "height": 1100}
#: The graph is fitted once, before the list at its side is folded, which is 300 pixels wide.
FITTED = {"width": 2300, "height": 1100}
GROUPS = ("sources", "lake", "warehouse", "staging", "marts", "speed", "exposures")
#: Milliseconds: pages of a busy machine; a run, with its start.
PAGE, RUN = 30_000, 180_000

Shoot = Callable[[str], None]


@pytest.fixture(scope="module")
def page(platform: Running) -> Iterator[Page]:
    """A window of a browser that has never been here."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=LAPTOP, base_url=platform.ui)  # type: ignore[arg-type]
        page.set_default_timeout(PAGE)
        expect.set_options(timeout=PAGE)
        yield page
        browser.close()


@pytest.fixture
def shoot(page: Page) -> Shoot:
    """``shoot(name)``: the window as a picture, once nothing in it is loading."""

    def shot(name: str) -> None:
        page.mouse.move(0, 0)  # nothing is hovered over
        expect(page.locator(".bp5-spinner, .bp5-skeleton")).to_have_count(0)
        expect(page.get_by_text(re.compile("Loading|fetching"))).to_have_count(0)
        expect(page.locator(".bp5-toast")).to_have_count(0)
        page.evaluate("document.fonts.ready")
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png", animations="disabled")

    return shot


def button(inside: Page | Locator, label: str) -> Locator:
    """A button by the end of its name, which begins with that of its icon."""
    return inside.get_by_role("button", name=re.compile(rf"{label}$"))


def test_a_failed_check_says_which_day_lost_rows(platform: Running, page: Page, shoot: Shoot) -> None:
    page.goto("/assets/warehouse/events?view=checks")
    expect(page.get_by_text("every day agrees")).to_be_visible()  # when it was looked at last
    page.goto("/locations/headrace/jobs/health/playground")
    button(page, "Launch Run").click()
    expect(page).to_have_url(re.compile("/runs/"))
    # a blocking check fails its run; the other checks of the run are judged all the same
    expect(page.get_by_text("Failure", exact=True).first).to_be_visible(timeout=RUN)
    shoot("health-run")
    page.goto("/assets/warehouse/events?view=checks")
    reason = f"1 day differs: {platform.wounded} (lake {PER_DAY}, warehouse {PER_DAY - LOST})"
    expect(page.get_by_text(reason)).to_be_visible()
    expect(page.get_by_text("This is a blocking asset check.")).to_be_visible()
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    shoot("failed-check")
    page.goto("/assets/lake/events?view=checks")
    page.get_by_text("reject_rate", exact=True).first.click()
    rate = f"{REFUSED} of {REFUSED + 4 * PER_DAY} rows of the last 15 min rejected"
    expect(page.get_by_text(rate)).to_be_visible()
    shoot("warning")


def test_a_backfill_of_three_days_brings_the_rows_back(platform: Running, page: Page, shoot: Shoot) -> None:
    day, first, last = platform.wounded, platform.days[0], platform.days[2]
    raw = "SELECT event_date, count() FROM raw.events GROUP BY 1 ORDER BY 1"
    lost = [[str(d), PER_DAY - LOST * (d == day)] for d in platform.days]
    assert platform.query(raw) == lost
    page.goto("/locations/headrace/jobs/rebuild_events")
    button(page, "Materialize all…").click()
    dialog = page.locator(".dagster-dialog")
    expect(dialog.get_by_text(re.compile(r"Launch runs to materialize \d+ assets"))).to_be_visible()
    dialog.locator("button", has=page.get_by_label("close")).first.click()  # what the dialog leaves out
    days = dialog.locator("input[type=text]").first
    days.fill(f"[{first}...{last}]")
    days.press("Enter")
    expect(dialog.get_by_text("3 partitions")).to_be_visible()
    shoot("backfill-dialog")
    button(dialog, "Launch backfill").click()
    expect(dialog).to_have_count(0)
    page.goto("/runs?view=backfills")
    expect(page.get_by_text("3 partitions")).to_be_visible()
    page.locator("a[href^='/runs/b/']").first.click()
    expect(page.get_by_text("100% completed")).to_be_visible(timeout=RUN)
    # days that were targeted, are in progress, succeeded, failed
    expect(page.get_by_role("cell")).to_have_text([re.compile("rebuild_events"), "3", "0", "3", "0"])
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(2)  # the status, and a column's name
    shoot("backfill")
    assert platform.query(raw) == [[str(d), PER_DAY] for d in platform.days]
    page.goto("/assets/warehouse/events?view=checks")
    expect(page.get_by_text("every day agrees")).to_be_visible()
    expect(page.get_by_text("Passed", exact=True)).to_be_visible()


def test_a_dbt_test_keeps_its_history(page: Page, shoot: Shoot) -> None:
    page.goto("/assets/marts/session_metrics?view=checks")
    page.get_by_text("session_metrics_rows_hold", exact=True).first.click()
    page.get_by_text("Execution history", exact=True).first.click()
    # when the days were built first, and by the backfill
    evaluated = page.get_by_role("row").filter(has=page.get_by_text("Passed", exact=True))
    expect(evaluated.nth(1)).to_be_visible()
    shoot("dbt-test-history")


def test_the_lineage_goes_from_the_topic_to_the_dashboard(page: Page, shoot: Shoot) -> None:
    chosen = quote('key:"kafka/analytics_events"+ and +key:"exposures/sessions"', safe="")
    unfolded = quote(",".join(f"global@global:{group}" for group in GROUPS))
    page.get_by_text("Hide navigation").click()
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    page.goto(f"/asset-groups~{chosen}/?expanded={unfolded}")
    page.locator("button", has=page.get_by_label("panel_show_right")).click()
    page.set_viewport_size(FITTED)  # type: ignore[arg-type]
    for group in GROUPS:
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    for asset in ("analytics_events", "stg_events", "speed_event_keys", "events_history",
                  "session_metrics", "session_metrics_live", "users_latest", "speed_sessions"):  # fmt: skip
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    expect(page.get_by_text("events", exact=True)).to_have_count(2)  # in lake and warehouse
    expect(page.get_by_text("sessions", exact=True)).to_be_visible()
    expect(page.get_by_text("Dashboard", exact=True)).to_be_visible()
    # all checks of these but the lake's, which warns, and those of events_history, of which there are three
    expect(page.get_by_text("1 / 1 Passed")).to_have_count(9)
    shoot("lineage")
    page.set_viewport_size(LAPTOP)  # type: ignore[arg-type]


def test_the_catalogue_the_automation_and_the_runs(page: Page, shoot: Shoot) -> None:
    page.goto("/assets/lake/events")
    expect(page.get_by_text("Every acknowledged message exactly once")).to_be_visible()
    expect(page.get_by_text("the producer's id of the event")).to_be_visible()
    shoot("asset")
    offsets = page.get_by_text("next_offset")
    offsets.scroll_into_view_if_needed()
    expect(page.get_by_text("messages/s, batch by batch")).to_be_visible()
    shoot("asset-metadata")
    page.goto("/automation")
    for name in ("events_backlog", "events_refresh", "hourly_health", "hourly_upkeep", "alerts"):
        expect(page.get_by_text(name, exact=True)).to_be_visible()
    for kind, number in (("Standard sensor", 8), (re.compile("^Scheduled"), 6)):
        expect(page.get_by_text(kind)).to_have_count(number)
    shoot("automation")
    page.goto("/overview/activity/timeline")
    button(page, "1hr").click()
    for name in ("ingest_events", "refresh_events", "rebuild_events"):
        expect(page.get_by_role("link", name=name).first).to_be_visible()
    shoot("timeline")
