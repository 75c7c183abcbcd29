"""Kafka by librdkafka (confluent-kafka), which batches, compresses and sends beside Python, without its lock.

A message costs 1.4 to 2 microseconds of processor time; kafka-python's ``send`` costs 40 to 70, and record batches
framed here for its private accumulator cost 2 to 2.7 (ADR 33). Reading stays kafka-python's, and so does the first
connection: it says what a broker refuses, and why, better than librdkafka does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client
from kafka import KafkaAdminClient
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from headrace.clients.kafka import SETTING, connect, missing, refusal
from headrace.core.errors import BadData, Fatal, HeadraceError, Retriable
from headrace.producers.base import Keys, Payloads, keys_of

#: Uncompressed bytes of a batch of several messages: below a broker's default ``message.max.bytes``, 1 MiB.
BATCH_BYTES = 900_000
#: One message may be this long; the topic's ``max.message.bytes`` must allow it too.
MAX_MESSAGE_BYTES = 64_000_000
#: Bytes handed over and not yet acknowledged, beyond which ``send`` waits; the longest message fits.
IN_FLIGHT_BYTES = 80_000_000
_LINGER_MS = 5  # how long a batch waits for more messages
_POLL_SECONDS = 0.1
_SERVE_EVERY = 1_000  # messages between two looks at what the broker has answered
#: kafka-python's options, as ``HEADRACE_KAFKA_SECURITY`` has them, by librdkafka's names.
_SECURITY = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
    "ssl_crlfile": "ssl.crl.location",
}
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
#: What librdkafka says is retried by itself until the timeout; these it gives up with, and another try may succeed.
_AWAY = (
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
)


class KafkaProducer:
    """Producer of one topic. Guarantee: idempotent, acks from all replicas, in order per key.

    A key's partition is the one that Java's clients choose. Messages without a key go round the partitions chunk by
    chunk. After an error the producer stays broken: make a new one.

    Args:
        bootstrap_servers: ``host:port``, comma separated.
        topic: Must exist; it is never created here.
        security: Options as ``clients.kafka.checked`` takes them.
        timeout: Seconds after which an unanswered message fails.
        codec: ``gzip``, ``snappy``, ``lz4`` or ``zstd``; None sends batches as they are.

    Raises:
        Retriable: No broker answers.
        Fatal: The topic does not exist, the broker refuses the credentials, or librdkafka lacks the mechanism.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        security: Mapping[str, Any] | None = None,
        timeout: float = 60.0,
        codec: str | None = "lz4",
    ) -> None:
        self.name = f"kafka/{topic}"
        self._topic = topic
        self._timeout = timeout
        self._keyless = 0
        self._failure: KafkaError | None = None
        self.acknowledged = 0
        given = security or {}
        milliseconds = max(1, int(timeout * 1_000))
        try:
            batch_bytes = _largest_batch(bootstrap_servers, given, topic)
            self._client = Client(
                {
                    **_translated_options(given),
                    "bootstrap.servers": bootstrap_servers,
                    "acks": "all",
                    "enable.idempotence": True,
                    "partitioner": "murmur2_random",
                    "compression.type": codec or "none",
                    "batch.size": batch_bytes,
                    "batch.num.messages": 1_000_000,
                    "linger.ms": _LINGER_MS,
                    "message.max.bytes": MAX_MESSAGE_BYTES,
                    "queue.buffering.max.kbytes": max(1, IN_FLIGHT_BYTES // 1_000),
                    "queue.buffering.max.messages": 0,
                    "allow.auto.create.topics": False,
                    "message.timeout.ms": milliseconds,
                    "request.timeout.ms": milliseconds,
                    "on_delivery": self._answered,
                    "error_cb": self._broken,
                },
                logger=logging.getLogger("confluent_kafka"),
            )
            found = self._client.list_topics(topic, timeout).topics[topic]
        except kafka_errors.KafkaError as error:
            what = f"Kafka on {bootstrap_servers}"
            raise refusal(error, bootstrap_servers) or _of_kafka_python(error, what) from error
        except KafkaException as error:
            raise _translated(error.args[0], f"Kafka on {bootstrap_servers}") from error
        self._partitions: list[int] = sorted(found.partitions)

    def send(self, payloads: Payloads, keys: Keys | None = None, /) -> None:
        """Hand over a chunk; waits while ``IN_FLIGHT_BYTES`` are unanswered."""
        longest = max((len(p) for p in payloads if p is not None), default=0)
        if longest > MAX_MESSAGE_BYTES:
            raise BadData(
                f"a message of {longest:,} bytes is too long for {self.name} (limit {MAX_MESSAGE_BYTES:,})"
            )
        self._keyless += 1
        keyless = self._partitions[self._keyless % len(self._partitions)]
        produce, poll, topic = self._client.produce, self._client.poll, self._topic
        for number, (key, payload) in enumerate(zip(keys_of(payloads, keys), payloads, strict=True)):
            if number % _SERVE_EVERY == 0:
                poll(0)
                self._raise_failure()
            try:
                if key is None:
                    produce(topic, payload, None, keyless)
                else:
                    produce(topic, payload, key)
            except BufferError:
                if key is None:
                    self._wait_for_room(partial(produce, topic, payload, None, keyless))
                else:
                    self._wait_for_room(partial(produce, topic, payload, key))
            except KafkaException as error:
                self._failure = self._failure or error.args[0]
                self._raise_failure()
        poll(0)
        self._raise_failure()

    def send_in_lane(
        self, lane: int, payload: bytes, headers: list[tuple[str, bytes]], told: Callable[[int, int], object]
    ) -> None:
        """Hand over a message to the lane's partition; waits as ``send`` does, and raises as it does.

        Args:
            lane: Messages of a lane stay in their order.
            payload: Body of the message.
            headers: Names and values.
            told: Called with partition and offset once the broker has the message, while this client polls.
        """

        def answered(error: KafkaError | None, message: Message) -> None:
            self._answered(error, message)
            if error is None:
                told(int(message.partition() or 0), int(message.offset() or 0))

        partition = self._partitions[lane % len(self._partitions)]
        produce = partial(
            self._client.produce,
            self._topic,
            payload,
            None,
            partition,
            headers=headers,
            on_delivery=answered,
        )
        try:
            produce()
        except BufferError:
            self._wait_for_room(produce)
        except KafkaException as error:
            self._failure = self._failure or error.args[0]
        self._raise_failure()

    def poll(self, seconds: float = 0.0) -> None:
        """Look at what the broker has answered, waiting for it at most so long; raises as ``send`` does."""
        self._client.poll(seconds)
        self._raise_failure()

    def flush(self) -> None:
        """Wait until every message is answered."""
        self._wait_until(lambda: len(self._client) == 0)

    def close(self) -> None:
        """Wait a moment for what is under way, and give up the rest."""
        with suppress(KafkaException):
            if self._failure is None:
                self._client.flush(5)
            self._client.purge()
            self._client.poll(0)

    def _wait_for_room(self, produce: Callable[[], None]) -> None:
        def fits() -> bool:
            try:
                produce()
            except BufferError:
                return False
            return True

        self._wait_until(fits)

    def _wait_until(self, enough: Callable[[], bool]) -> None:
        # librdkafka fails a message by itself at the timeout: the margin only guards against its defects
        deadline = time.monotonic() + self._timeout + 10
        while not enough():
            self._client.poll(_POLL_SECONDS)
            self._raise_failure()
            if time.monotonic() > deadline:
                raise Retriable(
                    f"topic {self._topic!r} does not answer; see 'headrace status' and send again"
                )
        self._raise_failure()

    def _answered(self, error: KafkaError | None, _message: Message) -> None:
        """Count the broker's answer to a message; called while this client polls."""
        if error is None:
            self.acknowledged += 1
        else:
            self._failure = self._failure or error

    def _broken(self, error: KafkaError) -> None:
        """Keep what ends the whole producer; librdkafka goes on trying after anything else."""
        if error.fatal():
            self._failure = self._failure or error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise _translated(self._failure, f"topic {self._topic!r}") from KafkaException(self._failure)


def _translated_options(security: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the options for librdkafka; ``clients.kafka.connect`` has checked them before.

    Raises:
        Fatal: librdkafka has not this mechanism.
    """
    mechanism = security.get("sasl_mechanism")
    if mechanism is not None and mechanism not in _MECHANISMS:
        raise Fatal(
            f"{SETTING}: producers have no sasl_mechanism={mechanism!r}, only sources do; give them one of "
            f"{', '.join(_MECHANISMS)}"
        )
    given = {_SECURITY[name]: value for name, value in security.items() if name in _SECURITY}
    if not security.get("ssl_check_hostname", True):
        given["ssl.endpoint.identification.algorithm"] = "none"
    return given


def _largest_batch(servers: str, security: Mapping[str, Any], topic: str) -> int:
    """Bytes that a batch may have: what the topic takes, if it says so, and at most ``BATCH_BYTES``.

    Some brokers create a topic that is only asked for, with settings that nobody chose: so all are listed. librdkafka
    does not split a batch that the broker finds too large, as Java's client does (KIP-126).

    Raises:
        Fatal: The topic does not exist.
    """
    admin = connect(KafkaAdminClient, servers, security)
    try:
        topics = sorted(admin.list_topics())
        if topic not in topics:
            raise missing(topic, servers, topics)
        limit = BATCH_BYTES
        with suppress(kafka_errors.KafkaError, LookupError, TypeError, ValueError):  # not everybody may ask
            asked = admin.describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all"
            )
            # a batch has a head besides, and what does not compress grows a little
            limit = int(asked["topic"][topic]["max.message.bytes"]["value"]) * 9 // 10
    finally:
        admin.close()
    return max(1, min(BATCH_BYTES, limit))


def _of_kafka_python(error: Exception, what: str) -> HeadraceError:
    said = str(error) or type(error).__name__
    if isinstance(error, kafka_errors.RetriableError):
        return _away(what, said)
    return Fatal(f"{what} refuses the messages: {said}")


def _translated(error: KafkaError, what: str) -> HeadraceError:
    if error.code() in _AWAY or error.retriable():
        return _away(what, error.str())
    return Fatal(f"{what} refuses the messages: {error.str()}")


def _away(what: str, said: str) -> Retriable:
    return Retriable(f"{what} does not answer: {said}; is it running? See 'headrace status'.")
