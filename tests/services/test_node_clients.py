"""Client libraries for Node.js, unmodified, from their registry: what they sent is what the log holds, once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from collector.server import collector
from collector.test_libraries import Sent, timely

from .servers import NODE, asked_for, fetched

asked_for(NODE)

CLIENTS = Path(__file__).with_name("clients.mjs")
COUNT = 60


@pytest.mark.parametrize(("library", "kinds"), [("segment", {"identify"}), ("posthog", set())])
def test_what_a_library_sends_lands_once(library: str, kinds: set[str], tmp_path: Path) -> None:
    packages = fetched(NODE)
    with collector(tmp_path / "home") as server:
        sent = Sent(server)
        done = subprocess.run(
            ["node", str(CLIENTS), str(packages), library, server.url, server.key, str(COUNT)],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = sent.landed()
    orders = [one for one in found if one["event_type"] == "order_completed"]
    assert sorted(one["properties"]["revenue"] for one in orders) == list(range(COUNT))
    assert len({one["event_id"] for one in found}) == len(found) == COUNT + 1 + len(kinds)
    assert {one["event_type"] for one in found} == {"order_completed", "page_view"} | kinds
    page = next(one for one in found if one["event_type"] == "page_view")
    assert page["page_url"] == "https://example.com/"
    assert timely(found)
