"""Follow the work of ``headrace demo`` while the platform runs, and reconcile it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headrace.config.settings import Settings
from headrace.core.errors import Fatal, HeadraceError, Retriable
from headrace.demo.feed import Feed
from headrace.demo.progress import Progress, Result
from headrace.demo.reconcile import MARTS, reconcile, sample
from headrace.local.dagster_api import DagsterApi
from headrace.models import project as models
from headrace.streams.stream import Stream

DEADLINE_SECONDS = 600.0
_POLL_SECONDS = 1.5
_LINE_SECONDS = 5.0
T = TypeVar("T")


def watch(progress: Progress, api: DagsterApi, opened: dict[str, Stream], settings: Settings) -> None:
    """Wait until all sent messages have landed and are published, and the models are as new as the rows.

    Raises:
        Fatal: A feed or a Dagster run failed, or ``DEADLINE_SECONDS`` passed.
    """
    progress.stage = "sensors launch ingest runs; runs drain, check, land and publish"
    deadline = time.monotonic() + DEADLINE_SECONDS
    pause, printed = threading.Event(), 0.0
    while time.monotonic() < deadline:
        _raise_failures(progress)
        progress.runs = _answer(api.runs) or progress.runs
        failed = [r for r in progress.runs if r.status in ("FAILURE", "CANCELED")]
        if failed:
            raise Fatal(
                f"Dagster run {failed[0].id[:8]} of {failed[0].job} failed; see {settings.home / 'logs'}"
            )
        # asked once all has arrived: the run that landed the last of it may have begun since, and still checks it
        if _settled(progress, opened) and _all_ended(api):
            return
        if time.monotonic() - printed >= _LINE_SECONDS:
            printed = time.monotonic()
            progress.print_line()
        pause.wait(_POLL_SECONDS)
    raise Fatal(
        f"not done after {DEADLINE_SECONDS:.0f} s while {progress.stage}; see {settings.home / 'logs'}"
    )


def _all_ended(api: DagsterApi) -> bool:
    runs = _answer(api.runs)
    return runs is not None and not any(run.active for run in runs)


def _raise_failures(progress: Progress) -> None:
    for one in progress.feeds:
        if one.failure is not None:
            if isinstance(one.failure, HeadraceError):
                raise one.failure
            raise Fatal(f"publishing to {one.source} failed: {one.failure}") from one.failure


def _settled(progress: Progress, opened: dict[str, Stream]) -> bool:
    """Count the rows in lake and warehouse, and tell whether no work is left."""
    done = True
    for one in progress.feeds:
        stream = opened[one.stream]
        if not _arrived(progress, one):
            counted = _answer(lambda stream=stream: _counts(stream))  # type: ignore[misc]
            if counted is None:
                return False
            progress.landed[one.stream], progress.published[one.stream] = counted
        # counting takes processor time from the work, so it stops with the last row
        arrived = _arrived(progress, one)
        done = done and arrived and _answer(stream.stale_days) == []
    if all(_arrived(progress, one) for one in progress.feeds):
        progress.stage = "dbt builds the models of the touched days"
    return done


def _arrived(progress: Progress, one: Feed) -> bool:
    """Tell whether everything sent is in the lake, and its good rows in the warehouse."""
    return (
        one.done.is_set()
        and one.is_known
        and progress.landed.get(one.stream, 0) >= one.rows + one.rejects
        and progress.published.get(one.stream, 0) >= one.rows
    )


def _counts(stream: Stream) -> tuple[int, int]:
    lake = stream.lake
    landed = sum(lake.good.counts_by_day().values()) + sum(lake.rejected.counts_by_day().values())
    return landed, sum(stream.warehouse.counts_by_day(stream.contract.table).values())


def _answer(ask: Callable[[], T]) -> T | None:
    """Return the answer, or None while the service is still starting."""
    try:
        return ask()
    except Retriable:
        return None


def reconcile_all(
    progress: Progress, api: DagsterApi, opened: dict[str, Stream], settings: Settings, ui: str
) -> Result:
    """Reconcile every stream, sample every mart, and fetch Dagster's check results."""
    with ThreadPoolExecutor(len(progress.feeds)) as both:
        reconciled = list(both.map(lambda one: reconcile(one, opened[one.stream], settings), progress.feeds))
    warehouse = next(iter(opened.values())).warehouse
    marts = [sample(warehouse, schema, name) for schema, name in _marts(progress, opened, settings)]
    return Result(reconciled, marts, api.checks(), progress.seconds, ui)


def _marts(progress: Progress, opened: dict[str, Stream], settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield schema and name of the marts to show: Headrace's own best ones, or those of the project's streams."""
    if progress.feeds[0].twin is None:
        yield from ((settings.dbt_schema, name) for name in MARTS)
        return
    tags = {opened[one.stream].pipeline.models for one in progress.feeds}
    for node in models.read(models.manifest(settings))["nodes"].values():
        if node["resource_type"] == "model" and "daily" in node["tags"] and tags & {*node["tags"]}:
            yield node["schema"], node["alias"]
