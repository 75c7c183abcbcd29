"""The whole platform on one machine: backing services and Dagster, started and stopped as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.config.settings import Settings, adopt, child_environment, load_settings
from headrace.local.dagster import dagster_services
from headrace.local.embedded import EmbeddedStack
from headrace.local.supervisor import Supervisor
from headrace.local.topology import places


@dataclass(frozen=True, slots=True)
class Platform:
    """A running platform.

    Attributes:
        settings: Settings that point at it.
        ui: Address of the Dagster UI.
        stack: The backing services.
        dagster: Dagster's processes; not all of them are ready yet.
    """

    settings: Settings
    ui: str
    stack: EmbeddedStack
    dagster: Supervisor


@contextmanager
def backing_services(
    home: Path, tuning: dict[str, str] | None = None, report: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[EmbeddedStack, Settings]]:
    """The embedded stack of ``home``, with the settings of this process pointing at it.

    Args:
        home: State, logs and lake.
        tuning: More environment variables (``HEADRACE_*``) for this process and all that it starts.
        report: Receives a line whenever a service dies or comes back.
    """
    topics, queues = places(load_settings(with_stack=False))
    stack = EmbeddedStack(home, topics=topics, queues=queues, report=report, handles_sigterm=True)
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
    """Dagster's processes on top of a running stack; entered before they are ready, see ``Supervisor.start``."""
    services, ui = dagster_services(
        stack.home, settings.project_dir, child_environment(), ui_port, reloadable=reloadable
    )
    supervisor = Supervisor(services, report=report)
    try:
        yield Platform(settings, ui, stack, supervisor)
    finally:
        supervisor.stop()
