"""What ``headrace demo`` does while the platform runs: feed it, watch Dagster do the work, reconcile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headrace.config.settings import Settings
from headrace.core.errors import Fatal, HeadraceError, Retriable
from headrace.demo.feed import Feed, start
from headrace.demo.reconcile import MARTS, reconcile, sample
from headrace.demo.run import Progress, Result
from headrace.local.dagster_api import DagsterApi
from headrace.local.platform import Platform
from headrace.streams.stream import Stream, streams

DEADLINE_SECONDS = 600.0
_POLL_SECONDS = 1.5
_TELL_SECONDS = 5.0
T = TypeVar("T")


def watch(progress: Progress, api: DagsterApi, opened: dict[str, Stream], settings: Settings) -> None:
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
        done = done and arrived and _patiently(stream.stale_days) == []
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


def judge(progress: Progress, api: DagsterApi, opened: dict[str, Stream], platform: Platform) -> Result:
    """Reconcile every stream, sample every mart, and ask Dagster for its checks."""
    settings = platform.settings
    with ThreadPoolExecutor(len(progress.feeds)) as both:
        judged = list(both.map(lambda one: reconcile(one, opened[one.stream], settings), progress.feeds))
    warehouse = next(iter(opened.values())).warehouse
    marts = [sample(warehouse, settings.dbt_schema, name) for name in MARTS]
    return Result(judged, marts, api.checks(), progress.seconds, platform.ui)


__all__ = ["DagsterApi", "judge", "start", "streams", "watch"]
