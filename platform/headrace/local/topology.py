"""The topics and queues that the embedded broker and queue are given."""

from __future__ import annotations

from headrace.config.settings import Settings
from headrace.local import broker, queue
from headrace.local.embedded import QUEUES, TOPICS

_PARTITIONS = 4


def places(settings: Settings) -> tuple[dict[str, int], tuple[str, ...]]:
    """Partitions by topic, and queues: of Headrace's own streams and of those in ``HEADRACE_PIPELINES``."""
    topics, queues = dict(TOPICS), list(QUEUES)
    if settings.pipelines is not None:
        from headrace.pipelines import (  # a second, which only those with streams of their own pay
            Kafka,
            Sqs,
            discover,
        )

        specs = [
            s
            for p in discover(settings.pipelines, seconds=settings.pipeline_seconds).pipelines.values()
            for s in p.sources
        ]
        topics |= {
            s.topic: max(_PARTITIONS, s.runs) for s in specs if isinstance(s, Kafka) and s.topic not in topics
        }
        queues += [s.queue for s in specs if isinstance(s, Sqs) and s.queue not in queues]
    return topics, tuple(queues)


def create(settings: Settings) -> tuple[dict[str, int], tuple[str, ...]]:
    """Create those that a running embedded stack lacks; returns all of them.

    Raises:
        Fatal: A service refuses.
        Retriable: A service does not answer.
    """
    topics, queues = places(settings)
    made = broker.create_topics(settings.kafka_servers, topics)
    queue.create_queues(settings.sqs_endpoint_url or "", queues)
    return made, queues
