"""When the demo is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.config.settings import load_settings
from headrace.core.errors import Retriable
from headrace.demo import work
from headrace.demo.progress import Progress
from headrace.local.dagster_api import Run


def run(status: str) -> Run:
    values: dict[str, Any] = dict.fromkeys(Run.__dataclass_fields__, "x")
    return Run(**{**values, "status": status})


class Api:
    """Gives one answer after the other, and its last one for ever."""

    def __init__(self, *answers: list[Run] | None) -> None:
        self.answers, self.asked = list(answers), 0

    def runs(self) -> list[Run]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if answer is None:
            raise Retriable("the UI is busy")
        return answer


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything has arrived by the first look."""
    monkeypatch.setattr(work, "_settled", lambda *_: True)
    monkeypatch.setattr(work, "_POLL_SECONDS", 0.01)
    yield


@pytest.mark.parametrize(
    "answers",
    [
        # the first of each pair is asked before the rows are counted
        ([], [run("STARTED")], [], [run("SUCCESS")]),
        ([], None, [], [run("QUEUED")], [], [run("SUCCESS")]),
    ],
)
def test_a_run_that_began_while_rows_were_counted_is_waited_for(answers: tuple[Any, ...]) -> None:
    api = Api(*answers)
    work.watch(Progress(), api, {}, load_settings(with_stack=False))  # type: ignore[arg-type]
    assert api.asked == len(answers)
