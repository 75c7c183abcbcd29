"""What passes between the owner of the log and its workers, and the connection that carries it.

A message is four bytes of length, little-endian, and MessagePack. Both ends are of one release and one machine: the
owner starts its workers, and hands each its end of a pair of sockets. Half a message of somebody who died is none.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec

from headrace.collector.meters import Counts
from headrace.collector.parcels import Committed, Parcel
from headrace.collector.receipts import Stage

_LENGTH = struct.Struct("<I")


class _Message(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    pass


class Begin(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To a worker, first of all.

    Attributes:
        settings: The owner's settings, pickled.
        streams: Names of the streams that may be sent to.
        log_id: Id of the log.
        json_logs: Whether lines of its log are JSON.
    """

    settings: bytes
    streams: list[str]
    log_id: str
    json_logs: bool


class Load(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To a worker: the pipeline files have changed; the owner has a way for these streams."""

    streams: list[str]


class Stop(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To a worker: answer what is under way, and end."""


class Done(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To a worker: what became of its parcel."""

    committed: Committed


class NotDone(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To a worker: nothing was taken of its parcel."""

    status: int
    why: str
    retry_after: int | None


class Said(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To a worker: the answer to a question.

    Attributes:
        question: Its number.
        text: The answer, if it is a text.
        stages: The answer, if it is how far entries are.
        failed: Why there is no answer; empty if there is.
    """

    question: int
    text: str = ""
    stages: list[Stage] = []
    failed: str = ""


class Ready(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To the owner: the worker takes requests."""


class Beat(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To the owner, every second: the worker's loop goes round, and this is what it has counted."""

    counts: Counts


class Commit(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To the owner: take this for good. The next one comes after the answer."""

    parcel: Parcel


class Ask(_Message, frozen=True, gc=False, array_like=True, tag=True):
    """To the owner: a question, of one of three kinds.

    Attributes:
        number: Number of the question.
        about: ``metrics``, ``unready`` or ``stages``.
        stream: The stream whose entries are asked for.
        entries: Numbers of those entries.
    """

    number: int
    about: str
    stream: str = ""
    entries: list[int] = []


ToWorker = Begin | Load | Stop | Done | NotDone | Said
ToOwner = Ready | Beat | Commit | Ask
_T = TypeVar("_T")
_encoder = msgspec.msgpack.Encoder()


class Channel(asyncio.Protocol, Generic[_T]):
    """One end of a connection between owner and worker. For one loop.

    Args:
        kinds: Union of the messages that come.
        heard: Is given each message.
        ended: Is told that the other end is gone.
    """

    def __init__(self, kinds: object, heard: Callable[[_T], object], ended: Callable[[], object]) -> None:
        self._decode = cast(Callable[[bytes], _T], msgspec.msgpack.Decoder(kinds).decode)  # type: ignore[call-overload]
        self._heard, self._ended = heard, ended
        self._parts: list[bytes] = []
        self._here, self._wanted = 0, _LENGTH.size
        self._in_head = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self._transport = None
        self._ended()

    def send(self, message: _Message) -> None:
        """Send a message; one to somebody who is gone is lost."""
        if self._transport is not None and not self._transport.is_closing():
            data = _encoder.encode(message)
            self._transport.writelines([_LENGTH.pack(len(data)), data])

    def close(self) -> None:
        """End once what was sent is on its way."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Put messages together from what comes."""
        self._parts.append(data)
        self._here += len(data)
        if self._here < self._wanted:
            return
        whole, at = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts), 0
        while len(whole) - at >= self._wanted:
            if self._in_head:
                (size,) = _LENGTH.unpack_from(whole, at)
                at += _LENGTH.size
                self._in_head, self._wanted = False, size
            else:
                message = self._decode(whole[at : at + self._wanted])
                at += self._wanted
                self._in_head, self._wanted = True, _LENGTH.size
                self._heard(message)
        rest = whole[at:]
        self._parts, self._here = [rest] if rest else [], len(rest)
