"""An ingest run: it drains the sources of a stream, one after the other, and hands over to the run that relieves it."""

# no `from __future__ import annotations`: Dagster reads the annotations of configs as objects

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from dagster import AssetExecutionContext, Config, MetadataValue
from pydantic import Field

from headrace.config.settings import Settings
from headrace.core.locks import Slots, holder, try_lock
from headrace.health.run_history import WELL
from headrace.orchestration.ingest_report import IngestReport
from headrace.pipelines import Pipeline
from headrace.pipelines.modules import Stamps, written
from headrace.streams.drain import drain
from headrace.streams.stream import Stream

#: Longest wait of a run for the one that it relieves, seconds: the last batch of that one and its publication.
_HAND_OVER_SECONDS = 60.0
#: Interval at which a run looks whether its pipeline files have changed, seconds.
_LOOK_SECONDS = 1.0


class Drain(Config):
    """Run config of an ingest run."""

    sources: list[str] = Field(
        default_factory=list, description="sources to drain; none: all of the pipeline"
    )
    share: int | None = Field(
        None, description="only this run's share of a topic's partitions; none: all of them"
    )
    linger_seconds: float = Field(
        0.0, description="stay for what comes so soon after the last message; of one source only"
    )


def ingest_run(
    context: AssetExecutionContext,
    config: Drain,
    stream: Stream,
    report: IngestReport,
    settings: Settings,
    loaded: Stamps,
) -> dict[str, MetadataValue]:
    """Drain the sources of a run, and report.

    A contract that changes while a run waits for messages must not be missed by them: the run ends before it lands
    another one, and the next has the new code once that is loaded. A run whose code is old already when it begins
    lands what is there, as nobody may ever load the new one, and does not stay.

    Args:
        context: The run.
        config: Its config.
        stream: The stream.
        report: Receives every step.
        settings: Settings of the installation.
        loaded: State of the pipeline files when they were loaded.

    Returns:
        Metadata of the lake table.
    """
    names = config.sources or [spec.name for spec in stream.pipeline.sources]
    linger = config.linger_seconds if len(names) == 1 else 0.0  # the next source would wait for its end
    began = written(settings.pipeline_folders)
    pace = replace(stream.pace, linger_seconds=linger if began == loaded else 0.0)
    edited = _edited(context, settings, began)
    well = False
    with _slot(settings) as slot:
        for name in names:
            with _turn(context, _lock(settings, stream.pipeline, name, config.share), name):
                for step in drain(
                    stream, name, pace, share=config.share, stopping=edited, may_linger=slot.acquire
                ):
                    report.step(name, step, stream)
                    if not well:
                        context.instance.add_run_tags(context.run_id, {WELL: "true"})
                        well = True
            report.source_done(name)
        snapshot = stream.lake.good.open()
        cursors = [c for name in names for c in stream.source(name, config.share).cursors()]
        return report.end(stream, dict(snapshot.position(cursors)))


def _edited(context: AssetExecutionContext, settings: Settings, began: Stamps) -> Callable[[], bool]:
    """Make what tells a run whether its pipeline files have changed since it began."""
    look_at, edited = time.monotonic() + _LOOK_SECONDS, False

    def look() -> bool:
        nonlocal look_at, edited
        if not edited and time.monotonic() >= look_at:
            look_at = time.monotonic() + _LOOK_SECONDS
            edited = written(settings.pipeline_folders) != began
            if edited:
                context.log.info("a pipeline file has changed: the next run lands what comes from now on")
        return edited

    return look


@contextmanager
def _turn(context: AssetExecutionContext, lock: Path, source: str) -> Iterator[None]:
    """Wait for the run that this one relieves; go on beside it if it takes too long."""
    with try_lock(lock, _HAND_OVER_SECONDS) as alone:
        if not alone:
            context.log.warning(f"{source}: {holder(lock)} still reads; going on beside it")
        yield


def _lock(settings: Settings, pipeline: Pipeline, source: str, share: int | None) -> Path:
    label = f"{pipeline.name}-{source}" if share is None else f"{pipeline.name}-{source}-{share}"
    return settings.home / "locks" / f"ingest-{quote(label, safe='')}.lock"


@contextmanager
def _slot(settings: Settings) -> Iterator[Slots]:
    """Offer a slot among the runs of this machine that may linger; it is released at the end if it was acquired."""
    slot = Slots(settings.home / "locks" / "lingering", settings.ingest_lingering)
    try:
        yield slot
    finally:
        slot.release()
