"""A topic counts as created once its broker knows it, and not the one that had its name before."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.core.errors import Retriable
from headrace.local import broker


def described(topic_id: str, *leaders: int, error: int = 0) -> dict[str, Any]:
    partitions = [{"leader_id": leader} for leader in leaders]
    return {"name": "t", "topic_id": topic_id, "error_code": error, "partitions": partitions}


class Lagging:
    """A broker's answers, one after the other; the last one stays."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)

    def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        assert names == ["t"]
        return [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]]


def test_a_broker_that_lags_behind_its_controller_is_waited_for() -> None:
    unknown, half = described("", error=3), described("new", 1, -1)
    admin = Lagging(described("old", 1), unknown, half, described("new", 1, 1))
    assert broker._await(admin, ["t"], {"t": "new"}) == {"t": 2}
    assert broker._await(Lagging(unknown, described("any", 1)), ["t"], {}) == {"t": 1}


def test_a_topic_that_never_gets_a_leader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_REQUEST_MS", 200)
    with pytest.raises(Retriable, match=r"topics \['t'\] were created, and have no leader yet"):
        broker._await(Lagging(described("new", 1, -1)), ["t"], {"t": "new"})
