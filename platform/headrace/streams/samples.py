"""Find what a person names, a file or a topic, and read it without leaving a trace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import polars as pl

from headrace.config.settings import Settings
from headrace.contracts.inference.sample import Sample
from headrace.core.batch import MicroBatch, Position
from headrace.core.errors import BadData, Fatal, NotSet
from headrace.core.guard import Guard
from headrace.formats import FileReader
from headrace.formats.records import Open
from headrace.formats.registered import Framing
from headrace.formats.sampling import sample_file
from headrace.pipelines import Files, Kafka, Pipeline
from headrace.sources.files.archive import Archive
from headrace.sources.kafka.source import KafkaSource
from headrace.streams import adapters
from headrace.streams.trial import in_parts

#: Bytes of messages that a sample of a topic holds at most.
_HELD_BYTES = 64 << 20
#: Bytes of Confluent's wire format before the body.
_HEADER = 5
#: Messages of one read; seconds without progress after which the rest of a topic is given up.
_AT_ONCE, _PATIENCE_SECONDS, _WAIT_SECONDS = 20_000, 15.0, 1.0


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that a person named.

    Attributes:
        name: Its path, as the person finds it.
        open: Opens it, seekable.
        below: Its path below the archive; empty for a file elsewhere.
    """

    name: str
    open: Open
    below: str = ""

    @property
    def folder(self) -> str:
        """The archive's folder in which it lies; empty for a file elsewhere."""
        return self.below.partition("/")[0] if "/" in self.below else ""


@dataclass(frozen=True, slots=True)
class NamedTopic:
    """A topic that a person named."""

    name: str


def find(what: str, settings: Settings) -> NamedFile | NamedTopic:
    """Find a file here or in the archive, or else a topic.

    Raises:
        Fatal: There is neither.
    """
    path = Path(what).expanduser()
    if path.is_dir():
        raise Fatal(f"{what} is a folder; name one of its files")
    archive = Archive(settings.archive_uri, settings.archive_storage_options or settings.lake_storage_options)
    if path.is_file():
        root = None if archive.on_s3 else Path(settings.archive_uri).expanduser().resolve()
        inside = root is not None and path.resolve().is_relative_to(root)
        below = path.resolve().relative_to(root).as_posix() if root is not None and inside else ""
        return NamedFile(what, lambda: path.open("rb"), below)
    below = what.removeprefix(f"{archive.uri}/")
    if "/" in below and not below.startswith(("/", "s3:")) and ".." not in below.split("/"):
        try:
            archive.stamp(below)
        except BadData:
            pass
        else:
            return NamedFile(archive.name(below), lambda: archive.open(below), below)
    if "/" in what or not settings.kafka_bootstrap_servers:
        no_broker = "" if "/" in what else ", and no broker is set that could have a topic of that name"
        raise Fatal(f"there is no file {what}, neither here nor in the archive {archive.uri}{no_broker}")
    return NamedTopic(what)


def sample(what: NamedFile | NamedTopic, rows: int, settings: Settings) -> Sample:
    """Take a sample of a file or a topic; see ``sample_file`` and ``newest``.

    Raises:
        BadData: The file cannot be read, or the topic is empty.
        Fatal: There is no such topic.
        NotSet: Its messages name schemas of a registry, and none is set.
        Retriable: The broker does not answer.
    """
    if isinstance(what, NamedFile):
        return sample_file(what.open, what.name, rows)
    found = Sample(f"topic {what.name}", "json", unit="messages")
    held = number = 0
    with_total, framing = Newest(what.name, rows, settings), None
    try:
        for batch in with_total:
            payloads = batch.records["payload"]
            if not number and is_framed(payloads):
                found.framed, framing = True, _framing(what.name, settings)
            for payload in payloads if framing is None else _read_by(framing, payloads):
                number += 1
                found.add_message(number, payload)
                held += len(payload or b"")
            if held > _HELD_BYTES:
                break
        found.total = with_total.total
    finally:
        with_total.close()
        if framing is not None:
            framing.close()
    if not found.total:
        raise BadData(f"topic {what.name!r} is empty: there is nothing to learn from it")
    return found


def is_framed(payloads: pl.Series) -> bool:
    """Tell whether messages are in Confluent's wire format: all but tombstones begin with a zero byte and an id."""
    there = payloads.drop_nulls()
    return len(there) > 0 and bool((there.bin.starts_with(b"\0") & (there.bin.size() > _HEADER)).all())


def _framing(topic: str, settings: Settings) -> Framing:
    if not settings.schema_registry_url:
        raise NotSet(
            f"the messages of topic {topic!r} are in Confluent's wire format, and no registry is set that has their"
            " schemas: set HEADRACE_SCHEMA_REGISTRY_URL"
        )
    return adapters.framing(settings, Guard("registry", settings.retry_policy))


def _read_by(framing: Framing, payloads: pl.Series) -> pl.Series:
    """Turn messages into JSON by their schemas; those that cannot be read stay as they are."""
    read = framing(payloads)
    unread = pl.Series([*read.unread], dtype=pl.UInt32)
    return read.payloads.scatter(unread, payloads.gather(unread)) if len(unread) else read.payloads


class Newest:
    """The newest messages of every partition, read without a consumer group: nothing is committed."""

    def __init__(self, topic: str, messages: int, settings: Settings, framing: Framing | None = None) -> None:
        """Connect to nothing yet.

        Args:
            topic: Name of the topic.
            messages: Most messages to read; each partition gives its share.
            settings: Where the brokers are.
            framing: Reads its messages, if they name schemas in a registry.
        """
        self._source = KafkaSource(
            topic, settings.kafka_servers, group=None, security=settings.kafka_security, unwrap=framing
        )
        self._messages = messages
        self.total = 0

    def __iter__(self) -> Iterator[MicroBatch]:
        """Yield them in batches; messages that arrive meanwhile are left out."""
        offsets = self._source.offsets()
        self.total = sum(end - first for first, end in offsets.values())
        shares = shares_of({cursor: end - first for cursor, (first, end) in offsets.items()}, self._messages)
        ends = {cursor: end for cursor, (_, end) in offsets.items()}
        at = Position({cursor: end - shares[cursor] for cursor, end in ends.items()})
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while any(at[c] < end for c, end in ends.items()) and time.monotonic() < deadline:
            batch = self._source.read(at, _AT_ONCE, _WAIT_SECONDS)
            if any(at[c] < ends[c] and batch.after.get(c, 0) > at[c] for c in ends):
                deadline = time.monotonic() + _PATIENCE_SECONDS
            at = Position({c: batch.after.get(c, at[c]) for c in ends})
            end = pl.col("cursor").replace_strict(ends, return_dtype=pl.Int64)
            records = batch.records.filter(pl.col("offset") < end)
            if records.height:
                yield replace(batch, records=records)

    def close(self) -> None:
        """Close the connections."""
        self._source.close()


def shares_of(there: dict[str, int], most: int) -> dict[str, int]:
    """Divide ``most`` among partitions: as evenly as what they hold allows."""
    shares: dict[str, int] = {}
    left = most
    for n, cursor in enumerate(sorted(there, key=lambda c: there[c])):
        shares[cursor] = min(there[cursor], left // (len(there) - n))
        left -= shares[cursor]
    return shares


def batches(
    what: NamedFile | NamedTopic, pipeline: Pipeline, rows: int | None, settings: Settings
) -> Iterator[MicroBatch]:
    """Read a file or a topic as its stream does, in batches.

    Args:
        what: The file or the topic.
        pipeline: The stream.
        rows: Most messages to read; None for all of a file, and of a topic the newest 100,000.
        settings: Where everything is.

    Raises:
        BadData: The file cannot be read, or its columns do not fit the contract.
        Fatal: The messages name schemas of a registry, and the stream does not say so.
        NotSet: No registry is set.
    """
    if isinstance(what, NamedTopic):
        declared = {s.topic: s.format for s in pipeline.sources if isinstance(s, Kafka)}
        framed = declared.get(what.name) == "confluent"
        framing = _framing(what.name, settings) if framed else None
        newest = Newest(what.name, 100_000 if rows is None else rows, settings, framing)
        try:
            for batch in newest:
                if framing is None and is_framed(batch.records["payload"]):
                    raise Fatal(
                        f"the messages of topic {what.name!r} are in Confluent's wire format: declare it in the"
                        f" pipeline of {pipeline.name!r} as Kafka({what.name!r}, format='confluent')"
                    )
                yield batch
        finally:
            newest.close()
            if framing is not None:
                framing.close()
        return
    format = next(
        (s.format for s in pipeline.sources if isinstance(s, Files) and s.folder == what.folder), None
    )
    records = FileReader(pipeline.contract, format).records(what.open, what.name)
    offset = 0
    for part in in_parts(islice(records, rows), _AT_ONCE, _HELD_BYTES):
        payloads, keys = [one[0] for one in part], [one[1] for one in part]
        yield MicroBatch.of(
            f"files/{what.name}",
            payloads,
            cursor=what.name,
            offset=list(range(offset, offset + len(part))),
            key=keys,
        )
        offset += len(part)
