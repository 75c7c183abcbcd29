"""A process that appends events to a log and sends them on, and dies in a window.

Usage: sending.py HOME SERVERS TOPIC WINDOW NTH FIRST COUNT. Says the name of each event that is durable. Where SERVERS
is an address of HTTP, TOPIC is a queue.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from builders import event
from headrace.collector import queue_way
from headrace.collector.dispatch import Dispatcher, far_of
from headrace.collector.ids import Ids
from headrace.collector.log import DurableLog, Entry
from headrace.collector.queue_way import QueueWay
from headrace.collector.way import Way
from headrace.config.settings import load_settings
from headrace.contracts import EVENTS
from headrace.pipelines import Kafka, Pipeline, Sqs
from headrace.producers.kafka import KafkaProducer
from headrace.producers.sqs import SqsProducer
from headrace.streams.stream import Stream


def stream_of(home: Path, servers: str, topic: str) -> Stream:
    queue = servers.startswith("http")
    settings = load_settings(
        home=home,
        kafka_bootstrap_servers="" if queue else servers,
        sqs_endpoint_url=servers if queue else None,
        aws_access_key_id="headrace",
        aws_secret_access_key="headrace",
    )
    source = Sqs(topic) if queue else Kafka(topic)
    return Stream(Pipeline(EVENTS, (source,), owner="team:data", description="events"), settings, retry=False)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(owner: Any, name: str, nth: int, when: str) -> None:
    """Die at the nth call of a method, before or after it does its work."""
    method: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def called(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            die()
        done = method(*arguments, **named)
        if calls == nth and when == "after":
            die()
        return done

    setattr(owner, name, called)


def arm(window: str, nth: int) -> None:
    match window:
        case "none":
            pass
        case "before_dispatch":
            dying(KafkaProducer, "send_in_lane", nth, "before")
        case "after_dispatch":
            dying(KafkaProducer, "_answered", nth, "after")
        case "before_look":
            dying(Way, "_settle", nth, "before")
        case "before_post":
            dying(SqsProducer, "_post", nth, "before")
        case "after_post":
            dying(SqsProducer, "_post", nth, "after")
        case "before_note":
            dying(QueueWay, "_settle", nth, "before")
        case "cuts_at_the_queue":  # the fault of which this collector must be free
            QueueWay._settle = lambda self, read: self._land(read)  # type: ignore[method-assign, assignment]
        case "before_removal":
            dying(DurableLog, "remove", nth, "before")
        case "in_removal":
            unlink = Path.unlink

            def removed(path: Path, missing_ok: bool = False) -> None:
                unlink(path, missing_ok=missing_ok)
                if path.suffix == ".log":
                    die()

            Path.unlink = removed  # type: ignore[method-assign, assignment]
        case "before_index_sync":
            dying(Ids, "sync", nth, "before")
        case "cuts_at_the_broker":  # the fault of which this collector must be free
            settle = Way._settle

            def settled(self: Way, seen: Any, read: int) -> bool:
                self.landed = read
                self._moved()
                return settle(self, seen, read)

            Way._settle = settled  # type: ignore[method-assign]
        case _:
            raise SystemExit(f"there is no window {window!r}")


def main() -> None:
    home, servers, topic, window, nth, first, count = sys.argv[1:]
    arm(window, int(nth))
    durable = DurableLog(Path(home) / "collector" / "log", limit_bytes=1 << 22, segment_bytes=4_096)
    ids = Ids(Path(home) / "collector" / "ids", timedelta(days=7))
    ids.catch_up(durable)
    queue_way.LOOK_SECONDS, queue_way.QUIET_SECONDS = 0.1, 1.0
    dispatcher = Dispatcher(durable, ids, {"events": far_of(stream_of(Path(home), servers, topic))})
    dispatcher.start()
    for n in range(int(first), int(first) + int(count)):
        changes = {"channel": "fax"} if n % 4 == 3 else {}
        (number,) = durable.append([Entry("events", event(event_id=str(n), **changes))])
        ids.add([(number, b"")])
        print(n, flush=True)
    while dispatcher.landed < durable.next or durable.oldest == 0:
        threading.Event().wait(0.1)
    print("landed", flush=True)
    dispatcher.stop()
    ids.close()
    durable.close()


if __name__ == "__main__":
    main()
