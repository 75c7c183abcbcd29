"""``headrace demo``: start the platform, feed it, watch Dagster do the work, reconcile, summarise."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from headrace.config.settings import load_settings
from headrace.core.errors import Fatal
from headrace.demo import view
from headrace.local.dagster import require_ui_port
from headrace.local.platform import backing_services, dagster_beside
from headrace.models import versions as dbt_versions

if TYPE_CHECKING:
    from headrace.demo.feed import Feed
    from headrace.demo.reconcile import Mart, Reconciled
    from headrace.local.dagster_api import Check, Run

#: Faster than the defaults: the demo's data comes at once and then never again.
TUNING = {
    "HEADRACE_SENSOR_SECONDS": "2",
    "HEADRACE_REFRESH_COOLDOWN_SECONDS": "1",
    "HEADRACE_INGEST_IDLE_SECONDS": "2",
    "HEADRACE_INGEST_LINGER_SECONDS": "0",
    "HEADRACE_INGEST_MAX_SECONDS": "120",
    "HEADRACE_BATCH_MESSAGES": "200000",
    "HEADRACE_ARCHIVE": "",  # the demo's own, which is empty: a person's files are no part of its numbers
}


@dataclass(slots=True)
class Progress:
    """What is known while the demo runs.

    Attributes:
        feeds: Input by stream.
        landed: Rows in the two lake tables, by stream.
        published: Rows in the warehouse table, by stream.
        runs: Dagster's runs, newest first.
        services: Names of the services that are ready.
        stage: What is awaited now.
        started: ``time.monotonic`` of the start.
        tell: Called now and then where there is no live view, to print a line.
    """

    feeds: list[Feed] = field(default_factory=list)
    landed: dict[str, int] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    stage: str = "starting broker, queue and warehouse"
    started: float = field(default_factory=time.monotonic)
    tell: Callable[[], None] = lambda: None

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo found out.

    Attributes:
        streams: Reconciliation of each stream.
        marts: Rows and two sample rows of each mart.
        checks: Dagster's asset checks.
        seconds: From start to the last number.
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


def demo(home: Path, console: Console, *, keep: bool = False, ui_port: int | None = None) -> Result:
    """Run the main job; with ``keep``, go on serving the UI until interrupted.

    Raises:
        Fatal: A service does not start, a Dagster run failed, or the deadline passed.
    """
    require_ui_port(ui_port)
    progress = Progress()
    with ExitStack() as stack, view.live(progress, console) as say:
        beside = stack.enter_context(ThreadPoolExecutor(3))
        importing = beside.submit(_import_work)
        old = _set_aside(home)
        parsing = beside.submit(_parse_models, home)
        services, settings = stack.enter_context(backing_services(home, TUNING, say))
        progress.services += ["broker", "queue", "warehouse"]
        importing.result()
        from headrace.demo import work

        progress.feeds = work.start(settings)
        progress.stage = "starting Dagster while the input is published"
        parsing.result()
        platform = stack.enter_context(dagster_beside(services, settings, ui_port, say))
        platform.dagster.start()
        progress.services += ["code location", "webserver", "daemon"]
        api = work.DagsterApi(platform.ui)
        opened = work.streams(settings)
        for stream in opened.values():
            stack.callback(stream.close)
        work.watch(progress, api, opened, settings)
        progress.stage = "reconciling"
        result = work.judge(progress, api, opened, platform)
        say.finish()
        view.summary(result, console)
        beside.submit(shutil.rmtree, old, ignore_errors=True)
        if keep:
            view.kept(platform.ui, console)
            platform.dagster.watch()
        return result


def _import_work() -> None:
    """Polars, pandera and the clients take seconds to import: time that the services take to start too."""
    import headrace.demo.work  # noqa: F401


def _parse_models(home: Path) -> None:
    """Dagster loads from the manifest, and parsing needs no service, so it goes on beside their start."""
    project = dbt_versions.current(load_settings(with_stack=False, home=home))
    if project.problem:  # what it shows would be of an older version
        raise Fatal(f"the dbt project cannot be used: {project.problem}")


def _set_aside(home: Path) -> Path:
    """The demo's own folder starts empty, so that what it counts is what it sent.

    The old state is only moved away here. To delete its tens of thousands of files takes seconds, and ext4 without a
    journal creates files ten times slower for minutes afterwards: that can wait until the demo has done its work.
    """
    aside = home / "old" / str(time.time_ns())
    for name in ("lake", "clickhouse", "dagster", "locks", "logs"):
        if (home / name).exists():
            try:
                aside.mkdir(parents=True, exist_ok=True)
                (home / name).rename(aside / name)
            except OSError as error:
                raise Fatal(
                    f"{home / name} cannot be emptied: {error}; remove it or set HEADRACE_HOME"
                ) from error
    return aside.parent


__all__ = ["Progress", "Result", "demo"]
