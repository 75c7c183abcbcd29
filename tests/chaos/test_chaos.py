"""The chaos suite's short form: one cell of each kind. ``make chaos`` runs the whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos import durable, report
from chaos.arena import Bench, Size
from chaos.judge import Verdict
from chaos.matrix import LOSES, SHORT, SHORT_CONTROLS, Cell
from chaos.runner import run


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("chaos"), size=Size(messages=600, batches=6)) as running:
        yield running


@pytest.mark.long
@pytest.mark.parametrize("cell", SHORT, ids=lambda cell: cell.name)
def test_every_acknowledged_message_is_there_exactly_once(cell: Cell, bench: Bench) -> None:
    outcome = run(bench, cell)
    assert outcome.judgement.verdict == Verdict.VERIFIED, report.line(outcome)
    assert (outcome.judgement.lost, outcome.judgement.doubled) == (0, 0)
    assert outcome.judgement.landed == outcome.judgement.acknowledged >= 600
    assert outcome.hits


def test_what_is_not_at_hand_is_skipped_with_the_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(durable.servers._ASKED, durable.servers.KAFKA, None)
    outcome = run(bench, Cell("apache", "broker", "kill", scenario="source_kill"))
    assert outcome.judgement.verdict == Verdict.SKIPPED
    assert "HEADRACE_TEST_KAFKA is not set" in report.line(outcome)


@pytest.mark.long
@pytest.mark.parametrize("cell", SHORT_CONTROLS, ids=lambda cell: cell.name)
def test_a_broken_protocol_is_caught(cell: Cell, bench: Bench) -> None:
    outcome = run(bench, cell)
    assert outcome.judgement.verdict == Verdict.VIOLATED, report.line(outcome)
    assert outcome.judgement.lost if cell.action in LOSES else outcome.judgement.doubled
