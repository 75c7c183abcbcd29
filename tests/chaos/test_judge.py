"""The judge can tell every kind of loss and doubling from a clean run, and a failed check from both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chaos import report
from chaos.judge import Evidence, Judgement, Message, Records, Row, Verdict, judge
from chaos.matrix import DURABLE, Cell, controls, matrix
from chaos.rows import by_id, by_origin
from chaos.runner import Outcome

GOOD: list[Row] = [("0", 0, 0), ("0", 1, 0), ("1", 0, 0), ("1", 2, 0)]
REJECTED: list[Row] = [("1", 1, 0), ("1", 2, 1)]
ACKNOWLEDGED: dict[Message, Records] = {
    ("0", 0): Records(1, 0),
    ("0", 1): Records(1, 0),
    ("1", 0): Records(1, 0),
    ("1", 1): Records(0, 1),
    ("1", 2): Records(1, 1),
}
NOTHING: dict[str, Any] = {
    "acknowledged": {},
    "held": 0,
    "lake_good": [],
    "lake_rejected": [],
    "warehouse_good": [],
    "warehouse_rejected": [],
}
CLEAN = Evidence(ACKNOWLEDGED, 5, GOOD, REJECTED, GOOD, REJECTED)


def test_a_clean_run_is_verified_with_its_counts() -> None:
    found = judge(CLEAN)
    assert found == Judgement(
        Verdict.VERIFIED, acknowledged=5, landed=5, rejected=2, warehouse=6, lost=0, doubled=0, reasons=[]
    )
    assert judge(replace(CLEAN, held=None)).verdict == Verdict.VERIFIED  # a queue has no offsets


@pytest.mark.parametrize(
    ("change", "lost", "doubled"),
    [
        ({"lake_good": GOOD[1:], "warehouse_good": GOOD[1:]}, 1, 0),
        ({"lake_rejected": REJECTED[1:], "warehouse_rejected": REJECTED[1:]}, 1, 0),
        ({"lake_rejected": REJECTED[:1], "warehouse_rejected": REJECTED[:1]}, 1, 0),  # one record of two
        ({"held": 6}, 1, 0),  # the broker holds one that nobody saw acknowledged
        ({"warehouse_good": GOOD[1:]}, 1, 0),
        ({"warehouse_rejected": []}, 2, 0),
        ({"lake_good": [*GOOD, GOOD[0]], "warehouse_good": GOOD}, 0, 1),
        ({"warehouse_good": [*GOOD, GOOD[0]]}, 0, 1),
        ({"warehouse_good": [*GOOD, ("9", 9, 0)]}, 0, 1),  # nowhere in the lake
        ({"lake_good": [*GOOD, ("0", 0, 1)], "warehouse_good": [*GOOD, ("0", 0, 1)]}, 0, 1),
        # once as good and once as rejected is twice
        ({"lake_rejected": [*REJECTED, GOOD[0]], "warehouse_rejected": [*REJECTED, GOOD[0]]}, 0, 2),
    ],
)
def test_what_is_missing_or_too_much_is_counted(change: dict[str, Any], lost: int, doubled: int) -> None:
    found = judge(replace(CLEAN, **change))
    assert (found.verdict, found.lost, found.doubled) == (Verdict.VIOLATED, lost, doubled)
    assert found.reasons


def test_a_loss_that_a_doubling_hides_in_the_totals_is_seen() -> None:
    swapped = [GOOD[0], *GOOD[:-1]]
    found = judge(replace(CLEAN, warehouse_good=swapped))
    assert (len(swapped), found.lost, found.doubled) == (len(GOOD), 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"unreadable": ["the warehouse did not answer"], "warehouse_good": []},
        {"window_hit": False},
        NOTHING,
    ],
)
def test_a_check_that_failed_is_neither_green_nor_red(change: dict[str, Any]) -> None:
    assert judge(replace(CLEAN, **change)).verdict == Verdict.UNVERIFIED


def test_what_the_reader_saw_counts_even_if_it_is_gone_at_the_end() -> None:
    assert judge(replace(CLEAN, objections=["an origin twice"])).verdict == Verdict.VIOLATED


def test_what_a_broker_forgot_is_no_loss_only_where_it_was_named() -> None:
    forgotten = {**ACKNOWLEDGED, ("0", 2): Records(1, 0)}
    assert judge(replace(CLEAN, acknowledged=forgotten)).lost == 1
    named = replace(CLEAN, acknowledged=forgotten, held=None, forgotten=frozenset({("0", 2)}))
    assert judge(named).verdict == Verdict.VERIFIED
    half = replace(named, lake_rejected=[*named.lake_rejected, ("0", 2, 1)])
    half = replace(half, warehouse_rejected=[*named.warehouse_rejected, ("0", 2, 1)])
    assert judge(half).verdict == Verdict.VERIFIED
    assert judge(replace(half, forgotten=frozenset())).lost == 1


def test_origins_of_a_topic_and_of_a_queue() -> None:
    assert by_origin().rows("events", [("kafka/t/id/3", 7, None, 0)]) == [("3", 7, 0)]
    assert by_origin(whole=True).rows("events", [("kafka/t/id/3", 7, None, 0)]) == [("id/3", 7, 0)]
    assert by_origin().rows("events", [("sqs/q", None, "m-1", 2)]) == [("q", "m-1", 2)]


def test_rows_that_came_over_http_are_named_by_their_producers_id() -> None:
    assert by_id().rows("events", [("e-1",)]) == [("http", "e-1", 0)]
    assert by_id().rows("events_rejected", [('{"event_id": "e-2", "channel": "fax"}',)]) == [
        ("http", "e-2", 0)
    ]


def test_the_matrix_has_at_least_sixty_cells_and_no_two_of_one_name() -> None:
    names = [cell.name for cell in matrix()]
    assert len(set(names)) == len(names)
    assert sum(c.source not in DURABLE and not report.is_control(c) for c in matrix()) >= 60


def test_every_durable_broker_and_queue_is_killed_early_midway_and_late() -> None:
    killed = {(c.source, c.window, c.at) for c in matrix() if c.scenario == "source_kill"}
    assert killed == {(source, window, at) for source, window in DURABLE.items() for at in (10, 50, 90)}


def outcome(verdict: Verdict, expect: Verdict = Verdict.VERIFIED) -> Outcome:
    return Outcome(
        Cell("kafka", "mid_write", "kill", expect=expect), ("mid_write #1",), Judgement(verdict), 1.0
    )


def test_a_run_passes_only_if_all_is_verified_and_every_control_is_caught() -> None:
    clean = outcome(Verdict.VERIFIED)
    caught = outcome(Verdict.VIOLATED, expect=Verdict.VIOLATED)
    assert report.passed([clean, caught, outcome(Verdict.SKIPPED)])
    assert not report.passed([clean, outcome(Verdict.VERIFIED, expect=Verdict.VIOLATED)])
    assert not report.passed([clean, outcome(Verdict.UNVERIFIED)])
    assert not report.passed([clean, outcome(Verdict.VIOLATED)])
    assert not report.passed([outcome(Verdict.SKIPPED)])
    assert report.hit_counts([clean, caught]) == {"mid_write": 2}
    assert report.summary([clean, caught])["controls_caught"] == 1
    assert all(cell.expect == Verdict.VIOLATED for cell in controls())
