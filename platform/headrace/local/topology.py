"""Determine the topics and queues of the embedded broker and queue service."""

from __future__ import annotations

from headrace.config.settings import Settings
from headrace.local import broker, queue
from headrace.local.embedded import QUEUES, TOPICS

_PARTITIONS = 4
#: Headrace's own stream of each topic and queue.
_STREAMS = {"analytics_events": "events", "metrics": "metrics"}


def topics_and_queues(settings: Settings) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the partitions by topic, and the queues, of all streams.

    These are Headrace's own streams and those of the project.
    """
    builtin = settings.builtin_streams
    topics = {topic: partitions for topic, partitions in TOPICS.items() if _STREAMS[topic] in builtin}
    queues = [name for name in QUEUES if _STREAMS[name] in builtin]
    if settings.pipeline_folders:
        from headrace.pipelines import (  # takes 1 s, so only with own streams
            Kafka,
            Sqs,
            discover_for,
        )

        specs = [s for p in discover_for(settings).pipelines.values() for s in p.sources]
        topics |= {
            s.topic: max(_PARTITIONS, s.runs) for s in specs if isinstance(s, Kafka) and s.topic not in topics
        }
        queues += [s.queue for s in specs if isinstance(s, Sqs) and s.queue not in queues]
    return topics, tuple(queues)


def create(settings: Settings) -> tuple[dict[str, int], tuple[str, ...]]:
    """Create the topics and queues that a running embedded stack lacks; return all of them.

    Raises:
        Fatal: A service refuses.
        Retriable: A service does not answer.
    """
    topics, queues = topics_and_queues(settings)
    made = broker.create_topics(settings.kafka_servers, topics)
    queue.create_queues(settings.sqs_endpoint_url or "", queues)
    return made, queues
