"""Start and stop the whole platform on one machine: backing services and Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from headrace.config.settings import Settings, adopt, child_environment, load_settings
from headrace.local import collecting, serving
from headrace.local.dagster import Dagster
from headrace.local.embedded import EmbeddedStack
from headrace.local.topology import topics_and_queues


@dataclass(frozen=True, slots=True)
class Platform:
    """A running platform.

    Attributes:
        settings: Settings that point at it.
        stack: The backing services.
        dagster: Dagster's processes.
    """

    settings: Settings
    stack: EmbeddedStack
    dagster: Dagster

    @property
    def ui(self) -> str:
        """Address of the Dagster UI, once Dagster has started."""
        return self.dagster.ui


@contextmanager
def backing_services(
    home: Path,
    tuning: dict[str, str] | None = None,
    report: Callable[[str], None] = lambda _: None,
    *,
    door: Literal["awaited", "beside"] | None = None,
    numbers: bool = False,
) -> Iterator[tuple[EmbeddedStack, Settings]]:
    """Run the embedded stack of ``home``, and point this process's settings at it.

    Args:
        home: Folder for state, logs and lake.
        tuning: More environment variables (``HEADRACE_*``) for this process and its children.
        report: Receives a line whenever a service dies or returns.
        door: Run the collector, too, if its extra is installed; wait until it takes events, or do not.
        numbers: Run ``headrace serve``, too, if its extra is installed.
    """
    wanted = partial(topics_and_queues, load_settings(with_stack=False))
    topics, queues = wanted()
    stack = EmbeddedStack(
        home,
        topics=topics,
        queues=queues,
        wanted=wanted,
        report=report,
        door=(tuning or {}) if door and collecting.installed(report) else None,
        door_awaited=door == "awaited",
        numbers=(tuning or {}) if numbers and serving.installed(report) else None,
        handles_sigterm=True,
    )
    with stack as endpoints:
        yield stack, adopt({**endpoints, "HEADRACE_HOME": str(stack.home), **(tuning or {})})


@contextmanager
def dagster_beside(
    stack: EmbeddedStack,
    settings: Settings,
    ui_port: int | None = None,
    report: Callable[[str], None] = lambda _: None,
    *,
    reloadable: bool = False,
) -> Iterator[Platform]:
    """Have Dagster's processes on top of a running stack: ``Dagster.start`` starts them, the block's end stops them."""
    dagster = Dagster(stack.home, child_environment(), ui_port, reloadable=reloadable, report=report)
    try:
        yield Platform(settings, stack, dagster)
    finally:
        dagster.stop()
