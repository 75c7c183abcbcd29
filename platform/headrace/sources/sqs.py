"""Read SQS queues.

Delivery: SQS delivers at least once, and the lake makes it exactly once. A message is deleted only after its
commit. The lake looks up a message that SQS delivers again (receive count above one) by its id. One that its sender
numbers (``headrace.core.lanes``) needs no look-up: the position of its lane tells. A queue has no
offsets: its only cursor, ``sqs/<queue>``, counts commits. So two runs that hold the same message cannot both
commit from the same snapshot. While a batch is in work its messages stay hidden: a thread extends their
visibility until they are deleted or handed back. Unit of parallelism: the receive call; any number of receivers
may share a queue.

Standard and FIFO queues work alike. Messages that nobody can land are SQS' own matter: a redrive policy moves
them to a dead letter queue after a number of receives.
"""

from __future__ import annotations

import difflib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import polars as pl
from botocore.exceptions import BotoCoreError, ClientError

from headrace.core.batch import HEADERS, RECORD_SCHEMA, UTC_MICROS, Backlog, MicroBatch, Position
from headrace.core.errors import Fatal, Retriable
from headrace.core.lanes import once_each

log = logging.getLogger(__name__)

_BATCH = 10  # SQS' limit for one receive or delete call
#: How long a received message stays hidden from other receivers unless that is extended.
VISIBILITY_SECONDS = 120
_READ_SECONDS = 5.0
#: SQS keeps a message for 14 days at most, so an older message cannot be redelivered.
_REDELIVERY_WINDOW = timedelta(days=15)
_GONE = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
_DENIED = {"AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "SignatureDoesNotMatch"}


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Translate botocore's exceptions into ours, here and nowhere else."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        kind = Fatal if code in _GONE | _DENIED else Retriable
        raise kind(f"SQS queue {name!r}: {error}") from error
    except BotoCoreError as error:
        raise Retriable(f"SQS queue {name!r} cannot be reached: {error}") from error


class SqsSource:
    """One queue, standard or FIFO. Connects on first use.

    Args:
        queue: Name of the queue.
        client: A boto3 SQS client.
        receivers: Parallel calls; the client's connection pool should hold as many.
        visibility_seconds: How long messages are hidden at a time; extended when half of it is over.
    """

    replayable = False

    def __init__(
        self, queue: str, client: Any, *, receivers: int = 8, visibility_seconds: int = VISIBILITY_SECONDS
    ) -> None:
        self.queue = queue
        self.name = f"sqs/{queue}"
        self._client = client
        self._receivers = receivers
        self._visibility = visibility_seconds
        self._url: str | None = None
        self._held = _Held()
        self._keeper: threading.Thread | None = None
        self._closed = threading.Event()

    def _queue_url(self) -> str:
        if self._url is None:
            try:
                with _translated(self.queue):
                    self._url = self._client.get_queue_url(QueueName=self.queue)["QueueUrl"]
            except Fatal as error:
                raise Fatal(f"queue {self.queue!r} does not exist; {self._others()}") from error
        return self._url

    def _others(self) -> str:
        with _translated(self.queue):
            urls = self._client.list_queues(MaxResults=1000).get("QueueUrls", [])
        names = [url.rsplit("/", 1)[-1] for url in urls]
        near = difflib.get_close_matches(self.queue, names, n=1)
        return f"did you mean {near[0]!r}?" if near else f"this account has {', '.join(names) or 'none'}"

    def cursors(self) -> list[str]:
        """Return the queue as its only cursor."""
        self._queue_url()
        return [self.name]

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Receive with parallel long polls until the queue is empty or the batch is full.

        To wait longer than a second, a single call waits and returns with the first messages. Then the other
        calls follow, and wait no more.
        """
        before = Position({self.name: after.get(self.name, 0)})
        deadline = time.monotonic() + wait_seconds + _READ_SECONDS
        wait = max(0, min(20, round(wait_seconds)))
        self._queue_url()
        self._keep()
        held = self._held.known()
        try:
            patient = wait > 1
            messages = self._receive(min(_BATCH, max_messages), wait) if patient else []
            if messages or not patient:
                share = -(-(max_messages - len(messages)) // self._receivers)
                each = (share, 0 if patient else wait, deadline)
                with ThreadPoolExecutor(self._receivers, "sqs-receive") as pool:
                    parts = pool.map(lambda _: self._drain(*each), range(self._receivers))
                    messages += [m for part in parts for m in part]
        except BaseException:
            # the messages of the other receivers would be lost until their visibility ends
            self._hand_back(self._held.known() - held)
            raise
        receipts = [m["ReceiptHandle"] for m in messages]
        records, lanes = once_each(pl.DataFrame(_columns(self.name, messages), schema=RECORD_SCHEMA))
        moved = {self.name: before[self.name] + 1} if messages else {}
        after = before.advanced(moved)
        return MicroBatch(
            self.name, records, before, after, receipts, redelivery_window=_REDELIVERY_WINDOW, lanes=lanes
        )

    def _drain(self, most: int, wait: int, deadline: float) -> list[dict[str, Any]]:
        """Receive up to ``most`` messages until none come; the first call waits ``wait`` seconds."""
        mine: list[dict[str, Any]] = []
        while len(mine) < most and time.monotonic() < deadline:
            found = self._receive(min(_BATCH, most - len(mine)), wait)
            if not found:
                break
            mine.extend(found)
            wait = min(wait, 1)
        return mine

    def _receive(self, most: int, wait: int) -> list[dict[str, Any]]:
        """Make one call, which waits ``wait`` seconds for the first message."""
        with _translated(self.queue):
            answer = self._client.receive_message(
                QueueUrl=self._queue_url(),
                MaxNumberOfMessages=most,
                WaitTimeSeconds=wait,
                VisibilityTimeout=self._visibility,
                AttributeNames=["ApproximateReceiveCount", "SentTimestamp", "MessageGroupId"],
                MessageAttributeNames=["All"],
            )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        self._held.add((m["ReceiptHandle"] for m in found), time.monotonic() + self._visibility)
        return found

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Delete the batch. A message that could not be deleted comes again, and is then recognised by its id."""
        url = self._queue_url()

        def delete(part: list[str]) -> None:
            entries = [{"Id": str(n), "ReceiptHandle": receipt} for n, receipt in enumerate(part)]
            with _translated(self.queue):
                answer = self._client.delete_message_batch(QueueUrl=url, Entries=entries)
            self._held.drop(part)
            for failed in answer.get("Failed", []):
                log.warning("%s: a landed message was not deleted: %s", self.name, failed.get("Message"))

        with ThreadPoolExecutor(self._receivers, "sqs-delete") as pool:
            list(pool.map(delete, _tens(batch.receipts or [])))

    def backlog(self, after: Position, /) -> Backlog:
        """Return the queue's own depth attributes."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        url = self._queue_url()
        with _translated(self.queue):
            answer = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        waiting, hidden = (int(answer.get(n, 0)) for n in names)
        return Backlog(waiting, hidden, {self.name: waiting})

    def _keep(self) -> None:
        """Start the thread that extends the visibility of messages in flight."""
        if self._keeper is None or not self._keeper.is_alive():
            self._closed.clear()
            self._keeper = threading.Thread(target=self._extend, name=f"{self.name}-visibility", daemon=True)
            self._keeper.start()

    def _extend(self) -> None:
        half = self._visibility / 2
        while not self._closed.wait(half / 4):
            due = self._held.before(time.monotonic() + half)
            for part in _tens(due):
                until = time.monotonic() + self._visibility
                try:
                    self._change_visibility(part, self._visibility)
                except (BotoCoreError, ClientError) as error:
                    log.warning(
                        "%s: visibility not extended, the messages may come again: %s", self.name, error
                    )
                    break
                self._held.extend(part, until)

    def _change_visibility(self, receipts: list[str], seconds: int) -> None:
        entries = [
            {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
            for n, receipt in enumerate(receipts)
        ]
        self._client.change_message_visibility_batch(QueueUrl=self._queue_url(), Entries=entries)

    def close(self) -> None:
        """Hand back messages that have not landed, so that they need not wait out their visibility."""
        self._closed.set()
        if self._keeper is not None:
            self._keeper.join(timeout=_READ_SECONDS)
            self._keeper = None
        self._hand_back(self._held.known())

    def _hand_back(self, receipts: set[str]) -> None:
        self._held.drop(receipts)
        for part in _tens(sorted(receipts)):
            try:
                self._change_visibility(part, 0)
            except (BotoCoreError, ClientError):
                return  # SQS delivers them again when their visibility ends


class _Held:
    """Receipts in flight, each with the time (``time.monotonic``) when its message becomes visible again."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, receipts: Iterable[str], until: float) -> None:
        """Add received messages."""
        with self._lock:
            self._until.update(dict.fromkeys(receipts, until))

    def extend(self, receipts: Iterable[str], until: float) -> None:
        """Extend the time of messages that were not deleted meanwhile."""
        with self._lock:
            self._until.update({r: until for r in receipts if r in self._until})

    def drop(self, receipts: Iterable[str]) -> None:
        """Remove deleted messages."""
        with self._lock:
            for receipt in receipts:
                self._until.pop(receipt, None)

    def before(self, moment: float) -> list[str]:
        """Return the messages that become visible before ``moment``."""
        with self._lock:
            return [receipt for receipt, until in self._until.items() if until < moment]

    def known(self) -> set[str]:
        """Return all messages in flight."""
        with self._lock:
            return set(self._until)


def _tens(receipts: list[str]) -> Iterator[list[str]]:
    return (receipts[at : at + _BATCH] for at in range(0, len(receipts), _BATCH))


def _columns(cursor: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    attributes = [m.get("Attributes", {}) for m in messages]
    sent = pl.Series(
        [int(a["SentTimestamp"]) if "SentTimestamp" in a else None for a in attributes], dtype=pl.Int64
    )
    groups = [a.get("MessageGroupId") for a in attributes]
    return {
        "payload": pl.Series([m["Body"].encode() for m in messages], dtype=pl.Binary),
        "key": pl.Series([g.encode() if g else None for g in groups], dtype=pl.Binary),
        "headers": pl.Series([_headers(m) for m in messages], dtype=HEADERS),
        "timestamp": (sent * 1_000).cast(UTC_MICROS),
        "cursor": pl.Series([cursor] * len(messages), dtype=pl.String),
        "offset": pl.Series([None] * len(messages), dtype=pl.Int64),
        "message_id": pl.Series([m["MessageId"] for m in messages], dtype=pl.String),
        "redelivered": pl.Series(
            [int(a.get("ApproximateReceiveCount", 2)) > 1 for a in attributes], dtype=pl.Boolean
        ),
    }


def _headers(message: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Turn message attributes into headers; numbers stay the text in which SQS keeps them."""
    attributes = message.get("MessageAttributes")
    if not attributes:
        return None
    return [
        {
            "key": name,
            "value": a["BinaryValue"] if "BinaryValue" in a else a.get("StringValue", "").encode(),
        }
        for name, a in sorted(attributes.items())
    ]
