"""Hold what ``headrace demo`` knows while it runs, and its result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # each takes seconds to import, which the services need to start, too
    from headrace.demo.feed import Feed
    from headrace.demo.reconcile import Mart, Reconciled
    from headrace.local.dagster_api import Check, Run


@dataclass(slots=True)
class Progress:
    """State of a demo that runs.

    Attributes:
        feeds: Input by stream.
        landed: Rows in the two lake tables, by stream.
        published: Rows in the warehouse table, by stream.
        runs: Dagster's runs, newest first.
        services: Names of the services that are ready.
        stage: What the demo waits for now.
        started: ``time.monotonic`` of the start.
        print_line: Prints the state as one line. Called every few seconds; does nothing under a live view.
    """

    feeds: list[Feed] = field(default_factory=list)
    landed: dict[str, int] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    stage: str = "starting broker, queue and warehouse"
    started: float = field(default_factory=time.monotonic)
    print_line: Callable[[], None] = lambda: None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a demo.

    Attributes:
        streams: Reconciliation of each stream.
        marts: Rows and two sample rows of each mart.
        checks: Dagster's asset checks.
        seconds: From the start to the last number.
        ui: Address of the Dagster UI.
    """

    streams: list[Reconciled]
    marts: list[Mart]
    checks: list[Check]
    seconds: float
    ui: str

    @property
    def passed(self) -> bool:
        """Whether every number agrees and every check that ran passed."""
        failed = [c for c in self.checks if c.status not in ("SUCCEEDED", None)]
        return all(s.agrees for s in self.streams) and bool(self.streams) and not failed
