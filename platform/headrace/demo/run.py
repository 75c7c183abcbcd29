"""``headrace demo``: start the platform, feed it, watch Dagster do the work, reconcile, summarise."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from headrace.demo import feed as feeds
from headrace.demo import view
from headrace.demo.feed import Feed
from headrace.demo.reconcile import Reconciled, reconcile
from headrace.errors import Fatal, HeadraceError, Retriable
from headrace.local.dagster_api import Check, DagsterApi, Run
from headrace.local.platform import Platform, backing_services, dagster_beside
from headrace.orchestration import dbt
from headrace.settings import Settings, load_settings
from headrace.stream import Stream, streams

#: Faster than the defaults: the demo's data comes at once and then never again.
TUNING = {
    "HEADRACE_SENSOR_SECONDS": "2",
    "HEADRACE_REFRESH_COOLDOWN_SECONDS": "1",
    "HEADRACE_INGEST_IDLE_SECONDS": "2",
    "HEADRACE_INGEST_MAX_SECONDS": "120",
    "HEADRACE_BATCH_MESSAGES": "100000",
}
DEADLINE_SECONDS = 600.0
_POLL_SECONDS = 1.5
_TELL_SECONDS = 5.0
T = TypeVar("T")


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
    marts: list[view.Mart]
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
    _wipe(home)
    progress = Progress()
    with ExitStack() as stack, view.live(progress, console) as say:
        parsing = stack.enter_context(ThreadPoolExecutor(1)).submit(_parse_models, home)
        services, settings = stack.enter_context(backing_services(home, TUNING, say))
        progress.services += ["broker", "queue", "warehouse"]
        progress.feeds = feeds.start(settings)
        progress.stage = "starting Dagster while the input is published"
        parsing.result()
        platform = stack.enter_context(dagster_beside(services, settings, ui_port, say))
        platform.dagster.start()
        progress.services += ["code location", "webserver", "daemon"]
        api = DagsterApi(platform.ui)
        opened = streams(settings)
        for stream in opened.values():
            stack.callback(stream.close)
        _await(progress, api, opened, settings)
        progress.stage = "reconciling"
        result = _judge(progress, api, opened, platform)
        say.finish()
        view.summary(result, console)
        if keep:
            view.kept(platform.ui, console)
            platform.dagster.watch()
        return result


def _parse_models(home: Path) -> None:
    """Dagster loads from the manifest, and parsing needs no service, so it goes on beside their start."""
    dbt.manifest(load_settings(home=home))


def _wipe(home: Path) -> None:
    """The demo's own folder starts empty, so that what it counts is what it sent."""
    for name in ("lake", "clickhouse", "dagster", "locks", "logs"):
        try:
            shutil.rmtree(home / name, ignore_errors=False)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Fatal(
                f"{home / name} cannot be emptied: {error}; remove it or set HEADRACE_HOME"
            ) from error


def _await(progress: Progress, api: DagsterApi, opened: dict[str, Stream], settings: Settings) -> None:
    """Until everything that was sent has landed, is published, and the models are as new as the rows."""
    progress.stage = "sensors launch ingest runs; runs drain, check, land and publish"
    deadline = time.monotonic() + DEADLINE_SECONDS
    pause, told = threading.Event(), 0.0
    while time.monotonic() < deadline:
        _raise_failures(progress)
        progress.runs = _patiently(api.runs) or progress.runs
        failed = [r for r in progress.runs if r.status in ("FAILURE", "CANCELED")]
        if failed:
            raise Fatal(
                f"Dagster run {failed[0].id[:8]} of {failed[0].job} failed; see {settings.home / 'logs'}"
            )
        if _settled(progress, opened) and not any(r.active for r in progress.runs):
            return
        if time.monotonic() - told >= _TELL_SECONDS:
            told = time.monotonic()
            progress.tell()
        pause.wait(_POLL_SECONDS)
    raise Fatal(
        f"not done after {DEADLINE_SECONDS:.0f} s while {progress.stage}; see {settings.home / 'logs'}"
    )


def _raise_failures(progress: Progress) -> None:
    for one in progress.feeds:
        if one.failure is not None:
            if isinstance(one.failure, HeadraceError):
                raise one.failure
            raise Fatal(f"publishing to {one.source} failed: {one.failure}") from one.failure


def _settled(progress: Progress, opened: dict[str, Stream]) -> bool:
    """Measure the lake and the warehouse, and say whether nothing is left to do."""
    done = True
    for one in progress.feeds:
        stream = opened[one.stream]
        if not _arrived(progress, one):
            counted = _patiently(lambda stream=stream: _counts(stream))  # type: ignore[misc]
            if counted is None:
                return False
            progress.landed[one.stream], progress.published[one.stream] = counted
        # counting costs a core what the work needs, so it ends with the last row
        arrived = _arrived(progress, one)
        done = done and arrived and _patiently(stream.touched) == []
    if all(_arrived(progress, one) for one in progress.feeds):
        progress.stage = "dbt builds the models of the touched days"
    return done


def _arrived(progress: Progress, one: Feed) -> bool:
    """Whether all that was sent is in the lake, and its good rows in the warehouse."""
    return (
        one.done.is_set()
        and one.expected is not None
        and progress.landed.get(one.stream, 0) >= one.rows + one.rejects
        and progress.published.get(one.stream, 0) >= one.rows
    )


def _counts(stream: Stream) -> tuple[int, int]:
    lake = stream.lake
    landed = sum(lake.good.counts_by_day().values()) + sum(lake.rejected.counts_by_day().values())
    return landed, sum(stream.warehouse.counts_by_day(stream.contract.table).values())


def _patiently(ask: Callable[[], T]) -> T | None:
    """An answer, or None while the service is busy starting."""
    try:
        return ask()
    except Retriable:
        return None


def _judge(progress: Progress, api: DagsterApi, opened: dict[str, Stream], platform: Platform) -> Result:
    settings = platform.settings
    judged = [reconcile(one, opened[one.stream], settings) for one in progress.feeds]
    warehouse = next(iter(opened.values())).warehouse
    marts = [view.sample(warehouse, settings.dbt_schema, name) for name in view.MARTS]
    return Result(judged, marts, api.checks(), progress.seconds, platform.ui)


__all__ = ["Progress", "Result", "demo"]
