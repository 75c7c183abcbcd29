"""Send messages to SQS: batches of ten, several under way at once, refused entries again.

The limits are those of
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html: ten entries,
the characters of XML 1.0, and a total size. That total is no smaller than the queue's ``MaximumMessageSize``,
so batches below the latter fit old (256 KiB) and new (1 MiB) queues.
"""

from __future__ import annotations

import difflib
import re
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import tenacity
from botocore import exceptions as aws_errors

from headrace.clients.sqs import sqs_client
from headrace.core.errors import BadData, Fatal, HeadraceError, Retriable
from headrace.producers.base import Keys, Payloads, keys_of

BATCH_ENTRIES = 10
#: Names and values of attributes, one list per message.
Attributes = Sequence[Sequence[tuple[str, bytes]]]
#: Bytes that attributes may have.
_ATTRIBUTES = 512
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GONE = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
_Entry = dict[str, Any]


class _RefusedError(Exception):
    """The service refused part of a batch for a reason on its own side."""

    def __init__(self, entries: list[_Entry], said: str) -> None:
        super().__init__(said)
        self.entries = entries


class SqsProducer:
    """Sends to one queue. Guarantee: at least once; on a FIFO queue exactly once within its five minutes.

    On a FIFO queue the key becomes the message group, and a single sender keeps the order.

    Args:
        queue: Name of the queue, which must exist: it is never created here.
        endpoint_url: Only for services that imitate SQS.
        region: Region of the queue.
        access_key_id: Without it the usual AWS credential chain answers.
        secret_access_key: See ``access_key_id``.
        senders: Batches under way at once.
        attempts: How often the refused part of a batch is sent before giving up.

    Raises:
        Retriable: The service does not answer.
        Fatal: The queue does not exist, or the service refuses the credentials.
    """

    def __init__(
        self,
        queue: str,
        *,
        endpoint_url: str | None = None,
        region: str = "us-east-1",
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        senders: int = 4,
        attempts: int = 6,
    ) -> None:
        self.name = f"sqs/{queue}"
        self._queue = queue
        self._fifo = queue.endswith(".fifo")
        self._senders = 1 if self._fifo else senders
        self._client = sqs_client(
            region=region,
            endpoint_url=endpoint_url,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            connections=self._senders,
        )
        shown = endpoint_url or f"SQS in {region}"
        try:
            self._url = _queue_url(self._client, queue, shown)
            attributes = self._client.get_queue_attributes(
                QueueUrl=self._url, AttributeNames=["MaximumMessageSize"]
            )
        except (aws_errors.BotoCoreError, aws_errors.ClientError) as error:
            raise _translated(error, shown) from error
        self._limit = int(attributes.get("Attributes", {}).get("MaximumMessageSize", 262_144))
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_RefusedError),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=5),
            stop=tenacity.stop_after_attempt(attempts),
            reraise=True,
        )
        self._pool = ThreadPoolExecutor(self._senders, thread_name_prefix=self.name)
        self._under_way: deque[Future[None]] = deque()
        self._counting = threading.Lock()
        self._run = uuid.uuid4().hex
        self._sent = 0
        self.acknowledged = 0

    @property
    def longest(self) -> int:
        """Bytes that the body of a message may have, with attributes of some hundred bytes beside it."""
        return self._limit - _ATTRIBUTES

    def send(
        self, payloads: Payloads, keys: Keys | None = None, attributes: Attributes | None = None, /
    ) -> None:
        """Hand over a chunk; waits while every sender has one batch under way and another one ready.

        Args:
            payloads: Bodies.
            keys: One per payload; for FIFO queues.
            attributes: Names and values of each message's attributes.
        """
        texts = [self._text(payload, at) for at, payload in enumerate(payloads)]
        entries = self._entries(texts, keys_of(payloads, keys))
        sizes = [len(p or b"") for p in payloads]
        for at, named in enumerate(attributes or ()):
            entries[at]["MessageAttributes"] = {
                name: {"DataType": "String", "StringValue": value.decode()} for name, value in named
            }
            sizes[at] += sum(len(name) + len(value) + len("String") for name, value in named)
        for batch in _batches(entries, sizes, self._limit):
            while len(self._under_way) >= 2 * self._senders:
                self._under_way.popleft().result()
            self._under_way.append(self._pool.submit(self._send, batch))

    def flush(self) -> None:
        """Wait until every batch is answered."""
        while self._under_way:
            self._under_way.popleft().result()

    def close(self) -> None:
        """End the senders: waiting batches are dropped, those under way are finished."""
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _text(self, payload: bytes | None, at: int) -> str:
        why = ""
        if not payload:
            why = "is empty"
        elif len(payload) > self._limit:
            why = f"has {len(payload):,} bytes, the queue takes at most {self._limit:,}"
        else:
            try:
                text = payload.decode()
            except UnicodeDecodeError as error:
                why = f"is not UTF-8 ({error.reason} at byte {error.start})"
            else:
                wrong = _FORBIDDEN.search(text)
                if wrong is None:
                    return text
                why = f"has the character U+{ord(wrong[0]):04X}, which SQS cannot carry"
        shown = (payload or b"")[:60]
        raise BadData(f"message {at} of the chunk {why}: {shown!r}; leave it out or send it to Kafka")

    def _entries(self, texts: Sequence[str], keys: Keys) -> list[_Entry]:
        entries: list[_Entry] = [{"Id": str(at), "MessageBody": text} for at, text in enumerate(texts)]
        if self._fifo:
            for entry, key in zip(entries, keys, strict=True):
                self._sent += 1
                # hashed, because a group id has 128 characters of a small alphabet and a key any bytes
                entry["MessageGroupId"] = sha256(key).hexdigest() if key else "none"
                entry["MessageDeduplicationId"] = f"{self._run}-{self._sent}"
        return entries

    def _send(self, entries: list[_Entry]) -> None:
        left = entries

        def attempt() -> None:
            nonlocal left
            try:
                self._post(left)
            except _RefusedError as refused:
                left = refused.entries
                raise

        try:
            self._retry.copy()(attempt)
        except _RefusedError as refused:
            raise Fatal(
                f"queue {self._queue!r} keeps refusing {len(refused.entries)} messages: {refused}; "
                "see the service's limits and send the file again"
            ) from None
        except (aws_errors.BotoCoreError, aws_errors.ClientError) as error:
            raise _translated(error, f"queue {self._queue!r}") from error

    def _post(self, entries: list[_Entry]) -> None:
        answer = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
        with self._counting:
            self.acknowledged += len(answer.get("Successful", ()))
        failed = answer.get("Failed")
        if not failed:
            return
        said = f"{failed[0].get('Code')}: {failed[0].get('Message')}"
        if any(f.get("SenderFault") for f in failed):
            raise Fatal(f"queue {self._queue!r} refuses a message: {said}")
        ids = {f["Id"] for f in failed}
        raise _RefusedError([e for e in entries if e["Id"] in ids], said)


def carried(payload: bytes) -> bytes:
    """Return JSON that SQS can carry: characters that it refuses are only in texts, and are escaped there."""
    if payload.isascii():
        return payload
    return _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", payload.decode()).encode()


def _batches(entries: Sequence[_Entry], sizes: Sequence[int], limit: int) -> Iterable[list[_Entry]]:
    """Split entries into batches of at most ten entries and ``limit`` bytes."""
    batch: list[_Entry] = []
    total = 0
    for entry, size in zip(entries, sizes, strict=True):
        if batch and (len(batch) == BATCH_ENTRIES or total + size > limit):
            yield batch
            batch, total = [], 0
        batch.append(entry)
        total += size
    if batch:
        yield batch


def _queue_url(client: Any, queue: str, shown: str) -> str:
    try:
        return str(client.get_queue_url(QueueName=queue)["QueueUrl"])
    except aws_errors.ClientError as error:
        if _code(error) not in _GONE:
            raise
    pages = client.get_paginator("list_queues").paginate()
    names = [url.rsplit("/", 1)[-1] for page in pages for url in page.get("QueueUrls", ())]
    near = difflib.get_close_matches(queue, names, n=1)
    there = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(names)[:20]) or 'none'}."
    raise Fatal(
        f"queue {queue!r} does not exist on {shown}; {there} Create it with 'headrace stack create' on the embedded"
        f" stack, elsewhere with 'aws sqs create-queue --queue-name {queue}'"
    )


def _code(error: aws_errors.ClientError) -> str:
    details: Mapping[str, Any] = error.response.get("Error", {})
    return str(details.get("Code", ""))


def _translated(error: Exception, what: str) -> HeadraceError:
    if isinstance(error, aws_errors.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status < 500 and "Throttl" not in _code(error):
            return Fatal(f"{what} refuses: {error}")
    elif isinstance(error, aws_errors.NoCredentialsError | aws_errors.PartialCredentialsError):
        return Fatal(f"{what}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return Retriable(f"{what} does not answer: {error}; is it running? See 'headrace status'.")
