"""A site with made-up numbers over a real lake of three days, in which each message means harm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from builders import event
from headrace.config.settings import Settings, load_settings
from headrace.contracts import check_batch
from headrace.core.batch import MicroBatch
from headrace.flow.commit import land
from headrace.metrics import load
from headrace.serving.page.http import routes_of
from headrace.serving.page.site import Sources
from headrace.streams.stream import streams

from .doubles import HOSTILE, Here, Pretended

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
DAYS, GOOD = 3, 4


@pytest.fixture(scope="package")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three batches, a day apart, of four events whose pages are hostile, and one message that is refused."""
    found = load_settings(home=tmp_path_factory.mktemp("page"))
    stream = streams(found)["events"]
    for n in range(DAYS):
        payloads = [
            event(event_id=f"e-{n}-{i}", user_id=f"u-{i}", page_url=text, duration_ms=100 * i)
            for i, text in enumerate(HOSTILE)
        ]
        batch = MicroBatch.of(
            "test", [*payloads, HOSTILE[0].encode()], cursor="test/0", offset=range(5 * n, 5 * n + 5)
        )
        now = BEGIN + timedelta(days=n)
        checked = check_batch(stream.contract, batch, batch_id=f"b-{n}", now=now, limits=stream.limits)
        land(batch, stream.contract, stream.lake, stream.limits, checked=checked)
    stream.close()
    return found


@dataclass
class Site:
    """A site to ask.

    Attributes:
        client: Asks it.
        numbers: What it answers with.
        looks: Its reading process.
    """

    client: TestClient
    numbers: Pretended
    looks: Here

    def get(self, path: str, status: int = 200, **more: Any) -> str:
        """The body of an answer that has a status."""
        found = self.client.get(path, **more)
        assert found.status_code == status, found.text[:2000]
        return str(found.text)


@pytest.fixture
def site(settings: Settings) -> Iterator[Site]:
    """The site, all for one test."""
    numbers, looks = Pretended(load(settings)), Here(settings)
    sources: Any = Sources(numbers, looks, looks, "http://dagster.example:3000")  # type: ignore[arg-type]
    with TestClient(Starlette(routes=routes_of(sources)), follow_redirects=False) as client:
        yield Site(client, numbers, looks)


@pytest.fixture
def home(settings: Settings) -> Path:
    """The folder of the lake."""
    return settings.home
