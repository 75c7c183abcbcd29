"""A platform with a story to look at: four days of events, some refused, and a day that lost rows since."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import event, eventually, metric
from headrace.config.settings import Settings, exported, load_settings
from headrace.local.dagster_api import DagsterApi
from headrace.pipelines import Kafka, Sqs
from headrace.streams.adapters import producer
from headrace.streams.stream import streams
from staying import staying

#: Good events of each day.
PER_DAY = 120
REFUSED = 40
#: Rows that the warehouse lost of one day.
LOST = 7
_PAGES = ("/", "/pricing", "/docs", "/signup", "/checkout")
_CHANNELS = ("web", "mobile", "chat")
_TUNING = {
    "HEADRACE_SENSOR_SECONDS": "2",
    "HEADRACE_REFRESH_COOLDOWN_SECONDS": "1",
    "HEADRACE_INGEST_IDLE_SECONDS": "2",
    "HEADRACE_INGEST_LINGER_SECONDS": "0",
    "COLUMNS": "200",
}


@dataclass(frozen=True)
class Running:
    """A platform, and what was done to it.

    Attributes:
        ui: Address of the Dagster UI.
        env: Environment in which ``headrace`` commands speak of it.
        days: The days that have events, of which the warehouse lost rows of the second.
        api: The UI's own API.
    """

    ui: str
    env: dict[str, str]
    days: list[date]
    api: DagsterApi

    @property
    def wounded(self) -> date:
        """The day of which rows are missing in the warehouse."""
        return self.days[1]

    def query(self, sql: str) -> list[list[Any]]:
        """What ``headrace query`` answers."""
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli", "query", sql, "--json"],
            env=self.env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [list(row.values()) for row in json.loads(done.stdout)]


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """``headrace up`` with events of four days landed, published and built, and then rows of one day lost."""
    home = tmp_path_factory.mktemp("ui") / "home"
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=n) for n in (5, 4, 3, 2)]
    clean = {
        n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "DAGSTER_", "DBT_", "AWS_"))
    }
    # a month of partitions: a day is as wide in the UI as a mouse can hit
    since = f"{today - timedelta(days=30)}T00:00:00Z"
    env = {**clean, **_TUNING, "HEADRACE_HOME": str(home), "HEADRACE_EVENT_TIME_MIN": since}
    command = [sys.executable, "-m", "headrace.cli", "up", "--rate", "0"]
    with staying(command, Path.cwd(), env, home.with_name("up.log")) as ui:
        running = Running(ui, env, days, DagsterApi(ui))
        with exported({"HEADRACE_HOME": str(home)}):
            settings = load_settings()  # the addresses of its stack
        _send(settings, days)
        eventually(lambda: _built(running), 240, "the marts of four days")
        _lose(settings, running.wounded)
        yield running


def _send(settings: Settings, days: Sequence[date]) -> None:
    """Sessions of six events, and messages that the contract refuses."""
    good = [
        event(
            event_id=f"{day}-{n}",
            event_type="page_view" if n % 6 < 5 else "purchase",
            occurred_at=f"{day}T{8 + n // 12:02}:{n % 12 * 5:02}:00Z",
            session_id=f"{day}-s{n // 6}",
            user_id=f"u-{n // 6 % 13}",
            channel=_CHANNELS[n // 6 % 3],
            page_url=f"https://shop.example.com{_PAGES[n % 5]}",
            duration_ms=200 + n * 37 % 3000,
        )
        for day in days
        for n in range(PER_DAY)
    ]
    bad = [event(event_id=f"bad-{n}", channel="pigeon") for n in range(REFUSED)]
    # one of the marts counts both streams, and its days want both
    measured = [metric(metric_id=f"m-{day}", occurred_at=f"{day}T12:00:00Z") for day in days]
    for spec, messages in ((Kafka("analytics_events"), [*good, *bad]), (Sqs("metrics"), measured)):
        to = producer(settings, spec)
        to.send(messages)
        to.flush()
        to.close()


def _built(running: Running) -> bool:
    """Whether the marts hold every event and nothing runs any more."""
    runs = running.api.runs()
    done = {run.job for run in runs if run.status == "SUCCESS"}
    if any(run.active for run in runs) or not {"refresh_events", "refresh_metrics"} <= done:
        return False
    [[events]] = running.query("SELECT sum(events) FROM analytics.event_metrics")
    [[metrics]] = running.query("SELECT count() FROM analytics.metric_windows")
    return (int(events), int(metrics)) == (PER_DAY * len(running.days), len(running.days))


def _lose(settings: Settings, day: date) -> None:
    """Rows go missing behind Headrace's back, as when somebody deletes them by hand."""
    stream = streams(settings)["events"]
    stream.warehouse.query(
        f"ALTER TABLE {settings.raw_database}.events DELETE WHERE event_date = '{day}'"
        f" AND event_id IN ({', '.join(repr(f'{day}-{n}') for n in range(LOST))}) SETTINGS mutations_sync = 2"
    )
    stream.close()
