"""SQS queues as a source.

Delivery: at least once from SQS, made exactly once by the lake. A message is deleted only after its commit; one
that SQS hands out again (receive count above one) is looked up by its id in the lake. The queue has no offsets:
its one cursor, ``sqs/<queue>``, counts commits, so that two runs that hold the same message cannot both commit
from the same snapshot. Unit of parallelism: the receive call; any number of receivers may share a queue.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import boto3
import polars as pl
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from headrace.batch import RECORD_SCHEMA, UTC_MICROS, Backlog, MicroBatch, Position
from headrace.errors import Fatal, Retriable

_BATCH = 10  # SQS' limit for one receive or delete call
#: How long a received message stays hidden from other receivers: longer than landing a batch takes.
VISIBILITY_SECONDS = 120
_READ_SECONDS = 5.0
_GONE = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
_DENIED = {"AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "SignatureDoesNotMatch"}


def sqs_client(
    *,
    region: str,
    endpoint_url: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    receivers: int = 8,
) -> Any:
    """A boto3 SQS client; without keys the usual AWS credential chain answers."""
    return boto3.session.Session(
        aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key, region_name=region
    ).client(
        "sqs",
        endpoint_url=endpoint_url,
        config=Config(max_pool_connections=receivers + 2, retries={"max_attempts": 4, "mode": "standard"}),
    )


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """botocore's exceptions become ours, once, here."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        kind = Fatal if code in _GONE | _DENIED else Retriable
        raise kind(f"SQS queue {name!r}: {error}") from error
    except BotoCoreError as error:
        raise Retriable(f"SQS queue {name!r} cannot be reached: {error}") from error


class SqsSource:
    """One queue, standard or FIFO. Connects on first use."""

    def __init__(self, queue: str, client: Any, *, receivers: int = 8) -> None:
        self.queue = queue
        self.name = f"sqs/{queue}"
        self._client = client
        self._receivers = receivers
        self._url: str | None = None
        self._unacknowledged: set[str] = set()

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
        """The queue itself."""
        self._queue_url()
        return [self.name]

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Receive with parallel long polls until the queue is empty or the batch is full."""
        url = self._queue_url()
        before = Position({self.name: after.get(self.name, 0)})
        deadline = time.monotonic() + wait_seconds + _READ_SECONDS
        share = -(-max_messages // self._receivers)

        def receive(_: int) -> list[dict[str, Any]]:
            mine: list[dict[str, Any]] = []
            wait = max(0, min(20, round(wait_seconds)))
            while len(mine) < share and time.monotonic() < deadline:
                with _translated(self.queue):
                    answer = self._client.receive_message(
                        QueueUrl=url,
                        MaxNumberOfMessages=min(_BATCH, share - len(mine)),
                        WaitTimeSeconds=wait,
                        VisibilityTimeout=VISIBILITY_SECONDS,
                        AttributeNames=["ApproximateReceiveCount", "SentTimestamp", "MessageGroupId"],
                    )
                found = answer.get("Messages", [])
                if not found:
                    break
                mine.extend(found)
                wait = min(wait, 1)
            return mine

        with ThreadPoolExecutor(self._receivers, "sqs-receive") as pool:
            messages = [m for part in pool.map(receive, range(self._receivers)) for m in part]
        receipts = [m["ReceiptHandle"] for m in messages]
        self._unacknowledged.update(receipts)
        records = pl.DataFrame(_columns(self.name, messages), schema=RECORD_SCHEMA)
        records = records.unique("message_id", keep="first", maintain_order=True)
        moved = {self.name: before[self.name] + 1} if messages else {}
        return MicroBatch(self.name, records, before, before.advanced(moved), receipts)

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Delete the batch. What could not be deleted comes again and is then recognised by its id."""
        url = self._queue_url()

        def delete(part: list[str]) -> None:
            entries = [{"Id": str(n), "ReceiptHandle": receipt} for n, receipt in enumerate(part)]
            with _translated(self.queue):
                self._client.delete_message_batch(QueueUrl=url, Entries=entries)
            self._unacknowledged.difference_update(part)

        with ThreadPoolExecutor(self._receivers, "sqs-delete") as pool:
            list(pool.map(delete, _tens(batch.receipts or [])))

    def backlog(self, after: Position, /) -> Backlog:
        """The queue's own depth attributes."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        url = self._queue_url()
        with _translated(self.queue):
            answer = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        waiting, hidden = (int(answer.get(n, 0)) for n in names)
        return Backlog(waiting, hidden, {self.name: waiting})

    def close(self) -> None:
        """Hand back what was received and has not landed, instead of letting it wait out its visibility."""
        left, self._unacknowledged = sorted(self._unacknowledged), set()
        for part in _tens(left):
            entries = [
                {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                for n, receipt in enumerate(part)
            ]
            try:
                self._client.change_message_visibility_batch(QueueUrl=self._queue_url(), Entries=entries)
            except (BotoCoreError, ClientError):
                return


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
        "timestamp": (sent * 1_000).cast(UTC_MICROS),
        "cursor": pl.Series([cursor] * len(messages), dtype=pl.String),
        "offset": pl.Series([None] * len(messages), dtype=pl.Int64),
        "message_id": pl.Series([m["MessageId"] for m in messages], dtype=pl.String),
        "redelivered": pl.Series(
            [int(a.get("ApproximateReceiveCount", 2)) > 1 for a in attributes], dtype=pl.Boolean
        ),
    }
