"""Statements for Grafana and Metabase: macros and tags where they belong, and what they come to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.metrics import Catalogue, QuestionError, expanded, statement

NOW = datetime(2026, 5, 10, 14, 23, tzinfo=UTC)


def test_a_panel_has_macros_for_range_and_variables(catalogue: Catalogue) -> None:
    panel = statement(
        catalogue, "events", "grafana", window="minute", dimensions=["channel"], variables=["event_type"]
    )
    assert "$__conditionalAll(landed.event_type in (${event_type:singlequote}), $event_type)" in panel.sql
    assert [tag.name for tag in panel.tags] == ["event_type"] and panel.live
    given = {"from": NOW - timedelta(hours=1), "to": NOW}
    everything = expanded(panel.sql, "grafana", given)
    assert "$" not in everything and "1=1" in everything
    assert "in ('it\\'s')" in expanded(panel.sql, "grafana", {**given, "event_type": ["it's"]})


def test_a_card_has_tags_for_range_and_variables(catalogue: Catalogue) -> None:
    card = statement(catalogue, "events", "metabase", variables=["channel"], filters={"event_type": "{a}"})
    assert [tag.name for tag in card.tags] == ["from", "to", "channel"]
    assert "landed.event_type in ('{a}')" in card.sql
    unset = expanded(card.sql, "metabase", {})
    assert "[[" not in unset and "{{" not in unset and "toDate(now('UTC')) - 29" in unset
    chosen = expanded(card.sql, "metabase", {"from": "2026-05-01", "channel": "web"})
    assert "coalesce(toDate('2026-05-01')," in chosen and "landed.channel = 'web'" in chosen


def test_what_a_tool_cannot_have_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(QuestionError, match="did you mean grafana"):
        statement(catalogue, "events", "graphana")  # type: ignore[arg-type]
    with pytest.raises(QuestionError, match="did you mean channel"):
        statement(catalogue, "events", "grafana", variables=["chanel"])
