"""The input of the demo of a project: the samples of its streams, below ``data/``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl

from headrace import testing
from headrace.config.settings import Settings
from headrace.core.errors import Fatal
from headrace.demo.feed import Feed, background
from headrace.pipelines import Files, Kafka, Pipeline, Sqs
from headrace.producers.send import send_file
from headrace.streams.adapters import producer
from headrace.testing.landing import files_below, pipeline_of

_MESSAGE = ("_cursor", "_offset")


def start_samples(settings: Settings) -> list[Feed]:
    """Begin to land the samples of a project's streams.

    What is in the archive is read by the platform itself; what belongs to a topic or queue is sent to it. What must
    land, and what must be refused, is found by landing the same files on memory adapters.

    Args:
        settings: Settings of the platform that runs; its archive is ``data/``.

    Raises:
        Fatal: No stream has a sample.
    """
    feeds = [
        feed
        for name in testing.streams()
        if (feed := _begun(pipeline_of(name, settings), settings)) is not None
    ]
    if not feeds:
        raise Fatal(
            "no stream of this project has a sample: put files into data/NAME/, or make a stream of one with"
            " 'headrace contracts infer FILE'"
        )
    return feeds


def _begun(pipeline: Pipeline, settings: Settings) -> Feed | None:
    folders = {spec.folder: spec for spec in pipeline.sources if isinstance(spec, Files)}
    root = Path(settings.archive_uri)
    for folder, spec in folders.items():
        if files := files_below(root / folder):
            feed = Feed(pipeline.name, spec.name)
            background(feed, partial(_count, feed, files))
            return feed
    files = testing.sample(pipeline.name)
    to = next((spec for spec in pipeline.sources if not isinstance(spec, Files)), None)
    if to is None or not files:
        return None
    feed = Feed(pipeline.name, to.name)
    background(feed, partial(_send, feed, files, pipeline, to, settings))
    return feed


def _count(feed: Feed, files: list[Path]) -> int:
    """Land files in memory; return how many messages they are."""
    landed = testing.land(feed.stream, *files)
    both = pl.concat([landed.good.select(_MESSAGE), landed.rejected.select(_MESSAGE)])
    feed.twin = (landed.good.height, landed.rejected.height)
    feed.total = feed.acknowledged = both.unique().height
    return feed.total


def _send(feed: Feed, files: list[Path], pipeline: Pipeline, to: Kafka | Sqs, settings: Settings) -> None:
    messages = _count(feed, files)
    feed.acknowledged, malformed = 0, 0
    target = producer(settings, to)
    for file in files:
        report = send_file(file, pipeline.contract, target)
        feed.acknowledged, malformed = feed.acknowledged + report.sent, malformed + report.malformed
    target.close()
    # a line that is no record is refused in a file, and not sent to a topic
    assert feed.twin is not None
    feed.total, feed.twin = messages - malformed, (feed.twin[0], feed.twin[1] - malformed)
