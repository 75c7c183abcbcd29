"""What would land, and what would be rejected, is what lands and what is rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from builders import NOW, event
from headrace.config.settings import load_settings
from headrace.contracts import EVENTS, Limits
from headrace.pipelines import Files, Pipeline
from headrace.streams import samples
from headrace.streams.samples import shares_of
from headrace.streams.trial import Trial, try_batches

PIPELINE = Pipeline(EVENTS, (Files("events"),), owner="team:a", description="")
LINES = [
    *(event(event_id=f"e-{n % 7}", occurred_at=f"2026-01-{1 + n % 3:02}T00:00:00Z") for n in range(30)),
    event(channel="?"),
    event(channel="?", duration_ms=-1),
    b"not json",
    event(shoe_size=42),
    b"[" + event(event_id="e-a") + b"," + event(channel="!") + b"]",
]


def tried(path: Path, rows: int | None = None) -> Trial:
    settings = load_settings(home=path.parent)
    found = samples.find(str(path), settings)
    return try_batches(EVENTS, samples.batches(found, PIPELINE, rows, settings), Limits(), NOW)


def written(tmp_path: Path, lines: list[bytes]) -> Path:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"\n".join(lines))
    return path


def test_records_are_counted_by_what_would_become_of_them(tmp_path: Path) -> None:
    trial = tried(written(tmp_path, LINES))
    assert (trial.records, trial.landed, trial.rejected, trial.well) == (36, 32, 4, False)
    assert {(r.column, r.check): r.records for r in trial.reasons} == {
        ("channel", "isin(['web', 'mobile', 'chat', 'server', 'iot', 'other'])"): 3,
        ("duration_ms", "greater_than_or_equal_to(0.0)"): 1,
        ("", "json"): 1,
    }
    channel = trial.reasons[0]
    assert [(e.place, e.value) for e in channel.examples] == [
        ("record 31", "?"),
        ("record 32", "?"),
        ("record 35 element 2", "!"),
    ]
    assert trial.unknown == {"shoe_size": 1}
    assert (trial.repeats, trial.keys_compared) == (32 - 8, True)
    assert {day.isoformat(): n for day, n in trial.days.items()} == {
        "2026-01-01": 10,
        "2026-01-02": 12,
        "2026-01-03": 10,
    }


def test_only_so_many_records_are_tried_as_are_asked_for(tmp_path: Path) -> None:
    trial = tried(written(tmp_path, LINES), 30)
    assert (trial.records, trial.well) == (30, True)
    assert not tried(written(tmp_path, [])).well, "nothing shows nothing"


def test_a_reason_keeps_few_examples_and_counts_all(tmp_path: Path) -> None:
    trial = tried(written(tmp_path, [event(channel="?")] * 500))
    assert (trial.reasons[0].records, len(trial.reasons[0].examples)) == (500, 3)


def test_a_long_file_is_tried_in_parts(tmp_path: Path) -> None:
    trial = tried(written(tmp_path, [event(event_id="e")] * 45_001))
    assert (trial.landed, trial.repeats) == (45_001, 45_000)


def test_partitions_share_what_may_be_read() -> None:
    assert shares_of({"a": 1, "b": 100, "c": 100}, 31) == {"a": 1, "b": 15, "c": 15}
    assert shares_of({"a": 5, "b": 5}, 100) == {"a": 5, "b": 5}
    assert shares_of({}, 5) == {}


def test_a_trial_has_values_of_json(tmp_path: Path) -> None:
    from headrace.cli.contracts import trial_json

    value: dict[str, Any] = json.loads(json.dumps(trial_json(tried(written(tmp_path, LINES)))))
    assert value["days"] == {"2026-01-01": 10, "2026-01-02": 12, "2026-01-03": 10}
    assert pl.Series([one["records"] for one in value["reasons"]]).sum() == 5
