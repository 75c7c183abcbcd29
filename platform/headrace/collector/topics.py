"""Choose the topic or queue to which a stream's events go."""

from __future__ import annotations

from headrace.core.errors import Fatal
from headrace.pipelines import Kafka, Pipeline, Sqs

#: Longest event for a stream with a queue, in bytes: a message of SQS has 256 KiB at most.
QUEUE_BYTES = 200_000


def topic_of(pipeline: Pipeline) -> Kafka | Sqs:
    """Return where a stream's events go: to the first of its sources that is a topic with JSON, or else a queue.

    Raises:
        Fatal: It has neither.
    """
    for spec in pipeline.sources:
        if isinstance(spec, Kafka) and spec.format == "json":
            return spec
    for spec in pipeline.sources:
        if isinstance(spec, Sqs):
            return spec
    raise Fatal(
        f"stream {pipeline.name!r} has no topic with JSON and no queue among its sources; give it one, e.g."
        f' Kafka("{pipeline.name}"), so that events which come over HTTP have a way'
    )


def collected(pipeline: Pipeline) -> bool:
    """Tell whether events of a stream can come over HTTP."""
    try:
        topic_of(pipeline)
    except Fatal:
        return False
    return True
