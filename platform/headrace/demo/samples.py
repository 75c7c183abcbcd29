"""The input of the demo of a project: the samples of its streams, below ``data/``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from headrace import testing
from headrace.config.settings import Settings
from headrace.core.errors import Fatal
from headrace.demo.feed import Feed, background
from headrace.pipelines import Files, Pipeline, Spec
from headrace.producers.send import send_file
from headrace.streams.adapters import producer
from headrace.testing.landing import files_below, pipeline_of

_MESSAGE = ("_cursor", "_offset")


@dataclass(frozen=True, slots=True)
class Sample:
    """The sample of a stream.

    Attributes:
        pipeline: The stream.
        source: Source that it comes from; a folder of the archive reads it by itself.
        files: Its files.
    """

    pipeline: Pipeline
    source: Spec
    files: list[Path]


def find_samples(settings: Settings, folder: Path) -> list[Sample]:
    """Find the samples of a project's streams.

    Args:
        settings: Settings of the project.
        folder: Folder with a folder for each stream.

    Raises:
        Fatal: No stream has a sample.
    """
    own = (pipeline_of(name, settings) for name in testing.streams())
    found = [one for one in (_sample(pipeline, folder) for pipeline in own) if one is not None]
    if not found:
        raise Fatal(
            "no stream of this project has a sample: put files into data/NAME/, or make a stream of one with"
            " 'headrace contracts infer FILE'"
        )
    return found


def start_samples(settings: Settings) -> list[Feed]:
    """Begin to land the samples of a project's streams.

    What is in the archive is read by the platform itself; what belongs to a topic or queue is sent to it. What must
    land, and what must be refused, is found by landing the same files on memory adapters.

    Args:
        settings: Settings of the platform that runs; its archive is ``data/``.

    Raises:
        Fatal: No stream has a sample.
    """
    feeds = []
    for one in find_samples(settings, Path(settings.archive_uri)):
        feed = Feed(one.pipeline.name, one.source.name)
        work = _count if isinstance(one.source, Files) else partial(_send, settings)
        background(feed, partial(work, one, feed))
        feeds.append(feed)
    return feeds


def _sample(pipeline: Pipeline, folder: Path) -> Sample | None:
    """Return the sample in a folder of the archive that the stream reads, or that of its topic or queue."""
    # folders first: the platform reads what is in them, whatever else is sent
    for spec in sorted(pipeline.sources, key=lambda spec: not isinstance(spec, Files)):
        files = files_below(folder / (spec.folder if isinstance(spec, Files) else pipeline.name))
        if files:
            return Sample(pipeline, spec, files)
    return None


def _count(sample: Sample, feed: Feed) -> int:
    """Land a sample in memory; return how many messages it is."""
    landed = testing.land(feed.stream, *sample.files)
    both = pl.concat([landed.good.select(_MESSAGE), landed.rejected.select(_MESSAGE)])
    feed.twin = (landed.good.height, landed.rejected.height)
    feed.total = feed.acknowledged = both.unique().height
    return feed.total


def _send(settings: Settings, sample: Sample, feed: Feed) -> None:
    assert not isinstance(sample.source, Files)
    messages = _count(sample, feed)
    feed.acknowledged, malformed = 0, 0
    target = producer(settings, sample.source)
    for file in sample.files:
        report = send_file(file, sample.pipeline.contract, target)
        feed.acknowledged, malformed = feed.acknowledged + report.sent, malformed + report.malformed
    target.close()
    # a line that is no record is refused in a file, and not sent to a topic
    assert feed.twin is not None
    feed.total, feed.twin = messages - malformed, (feed.twin[0], feed.twin[1] - malformed)
