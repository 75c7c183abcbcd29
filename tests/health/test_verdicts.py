"""The judges of the health checks: what each decides, and that each can fail."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from builders import event
from headrace.contracts import EVENTS, violations
from headrace.contracts.unknown import Seen
from headrace.core.batch import Position
from headrace.health import verdicts
from headrace.health.audit import Audit
from headrace.health.freshness import Freshness
from headrace.health.parity import Parity
from headrace.health.reject_rate import Arrived

CURSOR = "kafka/t/i/0"
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
BEHIND = timedelta(minutes=15)


def audit(**changes: Any) -> Audit:
    values = {"messages": 10, "messages_rejected": 1, "good": 9, "rejected": 1, "doubled": 0,
              "by_cursor": {CURSOR: 10}, "reasons": {}}  # fmt: skip
    return Audit(**{**values, **changes})


def test_every_message_once_sees_doubles_and_strangers() -> None:
    assert verdicts.every_message_once(audit()).passed
    doubled = verdicts.every_message_once(audit(doubled=1))
    assert not doubled.passed
    assert "1 rows are doubled" in doubled.description
    assert not verdicts.every_message_once(audit(beyond={CURSOR: 1})).passed
    gaps = verdicts.every_message_once(audit(missing={CURSOR: [(3, 4), (8, 9)]}))
    assert gaps.passed
    assert gaps.metadata["offsets_without_message"] == {CURSOR: 2}


def test_offsets_reconcile_sees_what_was_removed_unread_and_what_was_forgotten() -> None:
    assert verdicts.offsets_reconcile({CURSOR: (0, 10)}, Position({CURSOR: 7})).passed
    assert verdicts.offsets_reconcile({CURSOR: (0, 0)}, Position()).passed
    removed = verdicts.offsets_reconcile({CURSOR: (8, 10)}, Position({CURSOR: 5}))
    assert not removed.passed
    assert "offsets 5 to 7 were removed" in removed.description
    forgotten = verdicts.offsets_reconcile({CURSOR: (0, 4)}, Position({CURSOR: 9}))
    assert not forgotten.passed
    assert "the broker ends at 4, the lake has read to 9" in forgotten.description


def test_a_writer_beside_makes_no_offsets_forgotten_or_lost() -> None:
    """The lake moves after the broker was asked, and retention removes what has just been read."""
    assert verdicts.offsets_reconcile({CURSOR: (0, 10)}, Position({CURSOR: 7}), Position({CURSOR: 12})).passed
    assert verdicts.offsets_reconcile({CURSOR: (9, 10)}, Position({CURSOR: 7}), Position({CURSOR: 10})).passed
    assert not verdicts.offsets_reconcile(
        {CURSOR: (9, 10)}, Position({CURSOR: 7}), Position({CURSOR: 8})
    ).passed
    assert not verdicts.offsets_reconcile(
        {CURSOR: (0, 6)}, Position({CURSOR: 7}), Position({CURSOR: 7})
    ).passed


def test_lag_names_the_source() -> None:
    assert verdicts.lag({"kafka/a": 10, "sqs/b": 3}, 10).passed
    over = verdicts.lag({"kafka/a": 11, "sqs/b": 3}, 10)
    assert not over.passed
    assert "11 in kafka/a" in over.description


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (
            Freshness({"kafka/a": 3}, landed_at=NOW - BEHIND * 2),
            "messages wait in kafka/a and none has landed",
        ),
        (Freshness({"kafka/a": 3}), "none has landed yet"),
        (Freshness({}, unpublished_since=NOW - BEHIND * 2), "not published"),
        (Freshness({}, stale_since=NOW - BEHIND * 2), "not in the models"),
    ],
)
def test_freshness_says_what_is_late(measured: Freshness, said: str) -> None:
    found = verdicts.freshness(measured, BEHIND, NOW)
    assert not found.passed
    assert said in found.description


def test_freshness_is_content_with_what_is_on_its_way() -> None:
    recent = NOW - BEHIND / 2
    assert verdicts.freshness(Freshness({"kafka/a": 3}, recent, recent, recent), BEHIND, NOW).passed
    assert verdicts.freshness(Freshness({"kafka/a": 0}, NOW - BEHIND * 9), BEHIND, NOW).passed


def test_parity_names_the_first_day() -> None:
    assert verdicts.parity_with_lake(Parity(1)).passed
    found = verdicts.parity_with_lake(Parity(1, {date(2026, 1, 2): (3, 2)}))
    assert not found.passed
    assert (
        found.description == "1 day differs: 2026-01-02 (lake 3, warehouse 2); materialise it to rebuild it"
    )
    many = verdicts.parity_with_lake(Parity(1, {date(2026, 1, day): (9, 0) for day in range(5, 0, -1)}))
    assert many.description.startswith("5 days differ: 2026-01-01 (lake 9, warehouse 0), 2026-01-02")
    assert " and 2 more; materialise them" in many.description
    assert "2026-01-05" in str(many.metadata["days"])


def test_rows_that_somebody_else_wrote_are_held_against_the_contract(judge: Any) -> None:
    good = judge(EVENTS, [event(), event(event_id="e-2")]).good
    assert violations(EVENTS, good) == {}
    assert verdicts.contract_holds({}, good.height).passed
    wrong = good.with_columns(channel=pl.lit("pigeon"))
    broken = violations(EVENTS, wrong)
    assert list(broken.values()) == [2]
    [(column, _)] = broken
    assert column == "channel"
    found = verdicts.contract_holds(broken, wrong.height)
    assert not found.passed
    assert "channel" in found.description


def test_fields_outside_the_contract_warn_unless_they_are_kept() -> None:
    late = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    seen = {name: Seen(n, late) for n, name in enumerate(["country", "city", "zip", "street"], 1)}
    assert verdicts.unknown_fields({}, "count").passed
    found = verdicts.unknown_fields(seen, "count")
    assert (found.passed, found.severity) == (False, "warning")
    assert found.description == (
        "dropped: 'country' in 1 record, 'city' in 2 records, 'zip' in 3 records and 1 more, the newest"
        " 2026-01-02 03:04 UTC; add them to the contract, or let it say unknown='keep' or 'reject'"
    )
    assert found.metadata["fields"]["street"]["records"] == 4  # type: ignore[index]
    kept = verdicts.unknown_fields(seen, "keep")
    assert kept.passed and kept.description.startswith("kept in _extra: 'country' in 1 record")


@pytest.mark.parametrize(
    ("verdict", "figures"),
    [
        (
            verdicts.every_message_once(audit()),
            {
                "messages": int,
                "good_rows": int,
                "rejected_rows": int,
                "doubled_rows": int,
                "messages_restored_away": int,
                "offsets_without_message": dict,
                "gaps_asked_for": int,
                "gaps_not_asked_for": int,
            },
        ),
        (
            verdicts.offsets_reconcile({CURSOR: (0, 9)}, Position()),
            {"held_by_the_broker": int, "not_read_yet": int},
        ),
        (verdicts.contract_holds({}, 3), {"rows": int}),
        (verdicts.unknown_fields({}, "count"), {"fields": dict}),
        (
            verdicts.reject_rate([Arrived(BEHIND, 1, 0)], 0.05, 0.5),
            {"rate": float, "rejected": int, "repaired": int},
        ),
        (verdicts.lag({"kafka/a": 1}, 9), {"kafka_a": int}),
        (verdicts.freshness(Freshness({}, NOW), BEHIND, NOW), {"landed_at": datetime}),
        (verdicts.freshness(Freshness({}), BEHIND, NOW), {"landed_at": str}),
        (
            verdicts.parity_with_lake(Parity(1, {date(2026, 1, n): (1, 0) for n in (1, 2)})),
            {
                "days_that_differ": int,
                "lake_version": int,
                "rows_of_later_versions": int,
                "inconclusive": bool,
                "days": verdicts.Markdown,
            },
        ),
    ],
)
def test_figures_keep_their_names_and_kinds(verdict: verdicts.Verdict, figures: dict[str, type]) -> None:
    assert {name: type(value) for name, value in verdict.metadata.items()} == figures
