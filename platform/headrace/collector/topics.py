"""Choose the topic to which a stream's events go."""

from __future__ import annotations

from headrace.core.errors import Fatal
from headrace.pipelines import Kafka, Pipeline


def topic_of(pipeline: Pipeline) -> Kafka:
    """Return the topic to which a stream's events go: the first of its sources that is one, with JSON in it.

    Raises:
        Fatal: It has none.
    """
    for spec in pipeline.sources:
        if isinstance(spec, Kafka) and spec.format == "json":
            return spec
    raise Fatal(
        f"stream {pipeline.name!r} has no topic with JSON among its sources; give it one, e.g."
        f' Kafka("{pipeline.name}"), so that events which come over HTTP have a way'
    )


def collected(pipeline: Pipeline) -> bool:
    """Tell whether events of a stream can come over HTTP."""
    try:
        topic_of(pipeline)
    except Fatal:
        return False
    return True
