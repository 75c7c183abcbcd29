"""Batches within the service's limits, refused entries sent again, and a count that tells the truth."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import BadData, Fatal, Retriable
from headrace.local import processes
from headrace.local.queue import sqs_client
from headrace.producers import sqs
from headrace.producers.sqs import SqsProducer, carried

from .brokers import read_queue, sqs_producer

PAYLOADS = [b'{"n":%d}' % n for n in range(95)]


class Refusing:
    """Stands between producer and service: refuses every third entry the first ``times`` times it is seen."""

    def __init__(self, client: Any, times: int, sender_fault: bool = False) -> None:
        self._client, self._times, self._fault = client, times, sender_fault
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        taken, failed = [], []
        for entry in Entries:
            with self._lock:
                self._seen[entry["Id"]] += 1
                refused = int(entry["Id"]) % 3 == 0 and self._seen[entry["Id"]] <= self._times
            if refused:
                failed.append(
                    {"Id": entry["Id"], "Code": "Busy", "Message": "later", "SenderFault": self._fault}
                )
            else:
                taken.append(entry)
        answer = self._client.send_message_batch(QueueUrl=QueueUrl, Entries=taken) if taken else {}
        return {"Successful": answer.get("Successful", []), "Failed": failed}


@pytest.fixture
def producer(sqs_url: str, queue_name: str) -> SqsProducer:
    made = sqs_producer(sqs_url, queue_name, attempts=4)
    made._retry.wait = lambda _: 0.0  # tests do not wait
    return made


def test_refused_entries_are_sent_again_and_only_they(
    producer: SqsProducer, sqs_url: str, queue_name: str
) -> None:
    producer._client = Refusing(producer._client, times=2)
    producer.send(PAYLOADS)
    producer.flush()
    assert producer.acknowledged == 95
    producer.close()
    assert sorted(read_queue(sqs_url, queue_name, 95)) == sorted(p.decode() for p in PAYLOADS)


def test_entries_that_stay_refused_are_fatal_and_not_counted(
    producer: SqsProducer, sqs_url: str, queue_name: str
) -> None:
    producer._client = Refusing(producer._client, times=99)
    producer.send(PAYLOADS[:10])
    with pytest.raises(Fatal, match="keeps refusing 4 messages: Busy: later"):
        producer.flush()
    assert producer.acknowledged == 6
    producer.close()
    assert len(read_queue(sqs_url, queue_name, 6)) == 6


def test_the_senders_own_fault_is_not_repeated(producer: SqsProducer) -> None:
    producer._client = refusing = Refusing(producer._client, times=99, sender_fault=True)
    producer.send(PAYLOADS[:10])
    with pytest.raises(Fatal, match="refuses a message: Busy"):
        producer.flush()
    assert set(refusing._seen.values()) == {1}
    producer.close()


def test_a_fifo_queue_keeps_the_order_and_both_of_two_equal_messages(sqs_url: str) -> None:
    client = sqs_client(sqs_url)
    client.create_queue(QueueName="order.fifo", Attributes={"FifoQueue": "true"})
    producer = sqs_producer(sqs_url, "order.fifo")
    producer.send([*PAYLOADS, b"same", b"same"], [b"one key"] * 97)
    producer.flush()
    producer.close()
    expected = [*(p.decode() for p in PAYLOADS), "same", "same"]
    assert read_queue(sqs_url, "order.fifo", 97) == expected


def test_large_messages_go_in_smaller_batches(producer: SqsProducer, sqs_url: str, queue_name: str) -> None:
    payloads = [bytes([97 + n]) * 100_000 for n in range(7)]
    producer.send(payloads)
    producer.flush()
    assert producer.acknowledged == 7
    producer.close()
    assert sorted(read_queue(sqs_url, queue_name, 7)) == sorted(p.decode() for p in payloads)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "is empty"),
        (None, "is empty"),
        (b"\xff", "is not UTF-8"),
        (b"a\x00b", "has the character U+0000"),
        (b"a\x1fb", "has the character U+001F"),
        ("\uffff".encode(), "has the character U+FFFF"),
        (b"x" * 300_000, "has 300,000 bytes, the queue takes at most 262,144"),
    ],
)
def test_what_the_queue_cannot_carry_is_named(producer: SqsProducer, payload: bytes | None, why: str) -> None:
    with pytest.raises(BadData, match="message 1 of the chunk") as caught:
        producer.send([b"good", payload])
    assert why in str(caught.value)
    producer.flush()
    assert producer.acknowledged == 0
    producer.close()


def test_a_missing_queue_is_named(sqs_url: str, queue_name: str) -> None:
    with pytest.raises(Fatal) as caught:
        sqs_producer(sqs_url, queue_name[:-1])
    assert str(caught.value).startswith(
        f"queue '{queue_name[:-1]}' does not exist on {sqs_url}; did you mean '{queue_name}'? "
        "Create it with 'headrace stack create' on the embedded stack, elsewhere with 'aws sqs create-queue"
    )


def test_no_service_is_retriable() -> None:
    url = f"http://127.0.0.1:{processes.pick_port(0, avoid={0})}"
    with pytest.raises(Retriable, match="does not answer"):
        sqs_producer(url, "any")


@given(st.lists(st.integers(1, 2_000), max_size=60))
def test_batches_hold_the_limits_and_lose_nothing(sizes: list[int]) -> None:
    entries = [{"Id": str(n)} for n in range(len(sizes))]
    batches = list(sqs._batches(entries, sizes, 2_000))
    assert [entry for batch in batches for entry in batch] == entries
    assert all(1 <= len(batch) <= 10 for batch in batches)
    assert all(sum(sizes[int(e["Id"])] for e in batch) <= 2_000 for batch in batches)


def test_json_is_carried_with_what_sqs_refuses_escaped() -> None:
    for text in ("plain", "ümlaut", "odd \ufffe and \uffff", "\U0001f600"):
        payload = json.dumps({"a": text}, ensure_ascii=False).encode()
        assert json.loads(carried(payload)) == {"a": text}
        assert not sqs._FORBIDDEN.search(carried(payload).decode())
