"""``headrace lake``: what was known when, and going back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from builders import event
from headrace.cli import app
from headrace.cli.lake import moment_of
from headrace.config.settings import load_settings, settings
from headrace.contracts import check_batch
from headrace.core.batch import MicroBatch
from headrace.core.errors import Fatal
from headrace.flow.commit import land
from headrace.streams.stream import streams

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three batches, a day apart: two events and a message that is refused."""
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    settings.cache_clear()
    stream = streams(load_settings(home=tmp_path))["events"]
    for n in range(3):
        payloads = [event(event_id=f"e-{n}-{i}", user_id=f"u-{i}") for i in range(2)]
        batch = MicroBatch.of("test", [*payloads, b"?"], cursor="test/0", offset=range(3 * n, 3 * n + 3))
        now = BEGIN + timedelta(days=n)
        checked = check_batch(stream.contract, batch, batch_id=f"b-{n}", now=now, limits=stream.limits)
        land(batch, stream.contract, stream.lake, stream.limits, checked=checked)
    stream.close()
    yield tmp_path
    settings.cache_clear()


def lake(*words: str, fails: bool = False) -> str:
    done = CliRunner().invoke(app, ["lake", *words])
    assert (done.exit_code != 0) is fails, done.output
    return str(done.exception) if fails else done.output


def as_json(*words: str) -> Any:
    return json.loads(lake(*words, "--json"))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-29", datetime(2026, 11, 29, tzinfo=UTC)),
        ("2026-11-29T12:00", datetime(2026, 11, 29, 12, tzinfo=UTC)),
        ("2026-11-29 12:00:01.5", datetime(2026, 11, 29, 12, 0, 1, 500_000, tzinfo=UTC)),
        ("2026-11-29T12:00Z", datetime(2026, 11, 29, 12, tzinfo=UTC)),
        ("2026-11-29T12:00+01:00", datetime(2026, 11, 29, 11, tzinfo=UTC)),
    ],
)
def test_moments_are_iso(text: str, moment: datetime) -> None:
    assert moment_of(text) == moment


def test_what_is_no_moment_is_said() -> None:
    for text in ("2 hours ago", "yesterday", "", "2026-13-01"):
        with pytest.raises(Fatal, match="write it as 2026-11-29, "):
            moment_of(text)


def test_versions_are_listed(home: Path) -> None:
    found = as_json("versions", "events")
    assert set(found) == {"events", "events_rejected"}
    assert [(v["version"], v["rows"], v["changed"]) for v in found["events"]["listed"]] == [
        (3, 6, "+2 rows"), (2, 4, "+2 rows"), (1, 2, "+2 rows"), (0, 0, "created"),
    ]  # fmt: skip
    assert "+2 rows" in lake("versions", "events_rejected") or "+1 row" in lake("versions", "events_rejected")
    assert set(as_json("versions")) == {"events", "events_rejected"}, "of tables that exist"
    assert "there is no stream or table 'nobody'" in lake("versions", "nobody", fails=True)


def test_rows_are_shown_as_they_were_known() -> None:
    found = as_json("show", "events", "--at", "2026-11-02T12:00")
    assert (found["total"], found["rows"][0]["_offset"]) == (4, 4)
    assert as_json("show", "events")["total"] == 6
    assert as_json("show", "events", "--version", "1")["total"] == 2
    refused = as_json("show", "events_rejected", "--at", "2026-11-01")
    assert refused["rows"][0]["payload"] == "?", refused
    some = as_json(
        "show", "events", "--where", "user_id = 'u-1'", "--columns", "event_id, user_id", "--limit", "2"
    )
    assert (some["total"], some["rows"]) == (
        3, [{"event_id": "e-2-1", "user_id": "u-1"}, {"event_id": "e-1-1", "user_id": "u-1"}],
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(lake("show", "events", "--csv"))))
    assert [row["event_id"] for row in rows][:2] == ["e-2-1", "e-2-0"]
    assert "4 rows, the last 1 are shown" in lake(
        "show", "events", "--at", "2026-11-02T12:00", "--limit", "1"
    )
    assert "can no longer be read" in lake("show", "events", "--version", "99", fails=True)
    assert "exclude each other" in lake("show", "events", "--version", "1", "--at", "2026-11-01", fails=True)
    assert "cannot be asked for" in lake("show", "events", "--where", "nothing = 1", fails=True)


def test_days_are_counted_and_a_stream_goes_back_and_forward() -> None:
    counted = as_json("at", "events", "2026-11-02T12:00")
    assert counted["total"]["events"] == {"then": 4, "now": 6}
    assert counted["total"]["events_rejected"] == {"then": 2, "now": 3}
    assert "total" in lake("at", "events", "2026-11-02T12:00")
    to = ("restore", "events", "--to", "2026-11-02T12:00")
    assert "2 rows would be taken out" in lake(*to, "--dry-run")
    assert as_json("at", "events", "2026-11-30")["total"]["events"]["now"] == 6
    done = as_json(*to)
    assert [(one["table"], one["out"]) for one in done["tables"]] == [("events_rejected", 1), ("events", 2)]
    assert done["messages"] == {"test/0": 3}
    assert "the warehouse follows with the next publish" in done["published"]
    assert "nothing to do" in lake(*to)
    assert "restored to 2026-11-02 12:00:00 UTC" in lake("versions", "events")
    assert "2 put back" in lake("restore", "events", "--undo")
    assert as_json("at", "events", "2026-11-30")["total"]["events"]["now"] == 6
    assert "say where to go" in lake("restore", "events", fails=True)
    assert "lies ahead" in lake("restore", "events", "--to", "2999-01-01", fails=True)
