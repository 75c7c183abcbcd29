"""What ``topics.sh`` does, where Kafka comes without its tools."""

import os
import socket
from pathlib import Path

DONE = Path("/tmp/topics")


def create() -> None:
    """Make the topics of HEADRACE_TOPICS that are missing."""
    from kafka import KafkaAdminClient
    from kafka.admin import NewTopic

    admin = KafkaAdminClient(bootstrap_servers="kafka:9092")
    there = set(admin.list_topics())
    wanted = dict(one.split(":") for one in os.environ["HEADRACE_TOPICS"].split())
    missing = [NewTopic(name, int(count), 1) for name, count in wanted.items() if name not in there]
    if missing:
        admin.create_topics(missing)
    admin.close()
    DONE.touch()


if __name__ == "__main__":
    if DONE.exists():
        socket.create_connection(("kafka", 9092), 3).close()
    else:
        create()
