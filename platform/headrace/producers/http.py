"""Send to a collector over HTTP: ``headrace send --to http``."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

import urllib3
import zstandard

from headrace.core.errors import BadData, Fatal, HeadraceError, Retriable
from headrace.producers.base import Keys, Payloads, keys_of

#: Events and bytes of one request: below the collector's default limits.
_EVENTS, _BYTES = 2_000, 2 << 20
#: Shortest and longest pause between two attempts, in seconds.
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LATER = (408, 425, 429, 500, 502, 503, 504)


class HttpProducer:
    """Sends records of one stream to a collector. Guarantee: once each, however often a request has to be repeated.

    Each request has an id of its own, from which records without an id get theirs; so a repeat of it is one.

    Args:
        url: Address of the collector.
        stream: The stream.
        key: A write key.
        patience: Seconds for which a request is repeated before giving up.

    Attributes:
        acknowledged: Records that were taken, accepted or rejected.
        repeated: Records that had been taken before, and are not taken again.
    """

    def __init__(self, url: str, stream: str, key: str, patience: float = 60.0) -> None:
        self.name = f"{url.rstrip('/')} ({stream})"
        self._url, self._stream, self._patience = url.rstrip("/"), stream, patience
        self._headers = {
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "content-encoding": "zstd",
        }
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=10, read=60), retries=False)
        self._packer = zstandard.ZstdCompressor(level=1)
        self.acknowledged = self.repeated = 0
        self._closed = False

    def send(self, payloads: Payloads, keys: Keys | None = None, /) -> None:
        """Send a chunk and wait until it is durable; keys of messages have no meaning here.

        Raises:
            BadData: A payload is missing or too long, or another body was taken under the same id before.
            Retriable: The collector is away, full or slow.
            Fatal: It refuses the key, the stream or the records.
        """
        if self._closed:
            raise Fatal(f"{self.name} is closed")
        keys_of(payloads, keys)
        some: list[bytes] = []
        size = 0
        for payload in payloads:
            if payload is None:
                raise BadData(f"{self.name} takes no message without a body")
            if some and (len(some) >= _EVENTS or size + len(payload) > _BYTES):
                self._request(some)
                some, size = [], 0
            some.append(payload)
            size += len(payload) + 1
        if some:
            self._request(some)

    def _request(self, payloads: Sequence[bytes]) -> None:
        name = json.dumps(self._stream).encode()
        body = self._packer.compress(b'{"streams":{' + name + b":[" + b",".join(payloads) + b"]}}")
        headers = {**self._headers, "idempotency-key": str(uuid.uuid4())}
        until, pause, again = time.monotonic() + self._patience, _PAUSE, False
        while True:
            status, said, wait = self._attempt(body, headers)
            if status in (202, 207):
                self._count(said, again)
                return
            if status not in _LATER and status != 0:
                raise self._refused(status, said)
            pause = wait or min(2 * pause, _LONGEST_PAUSE)
            if time.monotonic() + pause > until:
                raise Retriable(f"{self.name} takes nothing at the moment: {said.get('message', status)}")
            again = again or status == 0 or status >= 500
            time.sleep(pause)

    def _attempt(self, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any], float | None]:
        """Send a request once; status 0 if there is no answer."""
        try:
            answer = self._pool.request("POST", f"{self._url}/v1/batch", body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            return 0, {"message": f"it does not answer ({type(error).__name__})"}, None
        try:
            said = answer.json()
        except (ValueError, UnicodeDecodeError):
            said = {}
        told = answer.headers.get("retry-after", "")
        wait = min(float(told), _LONGEST_PAUSE) if told.isdigit() else None
        return answer.status, said if isinstance(said, dict) else {}, wait

    def _count(self, said: dict[str, Any], again: bool) -> None:
        # what was taken at an attempt whose answer was lost is a repeat of our own
        own = said["repeated"] if again else 0
        self.acknowledged += said["accepted"] + said["rejected"] + own
        self.repeated += said["repeated"] - own
        if said["conflicts"]:
            names = [one["id"] for one in said["events"] if one["status"] == "conflict"]
            raise BadData(
                f"{self.name} took {len(names):,} records before under the same id with another body, such as"
                f" {names[0]!r}; give each record an id of its own"
            )

    def _refused(self, status: int, said: dict[str, Any]) -> HeadraceError:
        kind = BadData if status in (413, 422) else Fatal
        return kind(
            f"{self.name} refuses the records with {status}: {said.get('message', 'it says nothing')}"
        )

    def flush(self) -> None:
        """Do nothing: what ``send`` returned from is durable."""

    def close(self) -> None:
        """Release the connections."""
        self._closed = True
        self._pool.clear()
