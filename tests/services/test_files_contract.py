"""The source suite on an archive in S3, in the same words as on the local disk."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from builders import event
from headrace.contracts import EVENTS
from headrace.core.batch import Position
from headrace.core.errors import Fatal, Retriable
from headrace.formats import FileReader
from headrace.sources.files.archive import Archive
from headrace.sources.files.source import FilesSource
from sources import test_sources
from sources.test_sources import Case, file_case, read_all

from . import servers
from .servers import Bucket
from .suites import suite

servers.asked_for(servers.S3)

globals().update(suite(test_sources, "case"))

Put = Callable[[str, bytes], None]


@pytest.fixture(scope="module")
def client(bucket: Bucket) -> Iterator[Any]:
    """For putting objects there."""
    options = dict(bucket.storage_options)
    url, region = options.pop("aws_endpoint"), options.pop("aws_region")
    options.pop("allow_http")
    made = boto3.client("s3", endpoint_url=url, region_name=region, **options)
    yield made
    made.close()


@pytest.fixture
def archive(bucket: Bucket) -> Archive:
    """Below a name with a space."""
    return Archive(f"{bucket.uri}/{uuid.uuid4().hex}/an archive", bucket.storage_options)


@pytest.fixture
def put(archive: Archive, client: Any) -> Put:
    """``put(name, content)``: an object of the archive."""
    bucket, _, prefix = archive.uri.removeprefix("s3://").partition("/")
    return lambda name, content: client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=content)


@pytest.fixture
def case(archive: Archive, put: Put, tmp_path: Path) -> Case:
    """A folder of the archive."""
    return file_case(archive, put, tmp_path / "index.json")


def source(archive: Archive, tmp_path: Path) -> FilesSource:
    return FilesSource("events", archive, FileReader(EVENTS), tmp_path / "index.json", quiet_seconds=0)


def lines(count: int, user: str = "a") -> bytes:
    return b"\n".join(event(event_id=f"{n:06}", user_id=user) for n in range(count))


def test_a_large_object_is_read_in_parts_and_a_broken_one_is_refused(
    archive: Archive, put: Put, tmp_path: Path
) -> None:
    put("events/2026/a.ndjson", lines(100_000))
    put("events/b.ndjson.gz", gzip.compress(lines(1_000))[:-9])
    put("events/_SUCCESS", b"")
    files = source(archive, tmp_path)
    batches = read_all(files, Position(), 30_000)
    assert [len(b) for b in batches] == [30_000, 30_000, 30_000, 10_000]
    assert b"\n".join(p for b in batches for p in b.records["payload"]) == lines(100_000)
    files.read(batches[-1].after, 10, 0)
    [problem] = files.backlog(batches[-1].after).problems
    assert f"{archive.uri}/events/b.ndjson.gz cannot be read beyond record" in problem


def test_an_object_that_is_replaced_between_two_reads_is_noticed(
    archive: Archive, put: Put, tmp_path: Path
) -> None:
    """Also within the second that S3's times are precise to, and with as many bytes."""
    put("events/a.ndjson", lines(50, "a"))
    files = source(archive, tmp_path)
    first = files.read(Position(), 10, 0)
    assert len(first) == 10
    files.cursors()
    before = archive.stamp("events/a.ndjson")
    put("events/a.ndjson", lines(50, "b"))
    assert archive.stamp("events/a.ndjson") != before
    assert len(files.read(first.after, 1_000, 0)) == 0
    again = files.read(first.after, 1_000, 0)
    assert b"\n".join(again.records["payload"]) == lines(50, "b")


def test_a_missing_bucket_is_said_and_a_missing_prefix_is_empty(bucket: Bucket, tmp_path: Path) -> None:
    assert source(Archive(f"{bucket.uri}/nowhere", bucket.storage_options), tmp_path).cursors() == []
    with pytest.raises(Fatal, match="bucket 'nobodys' does not exist"):
        source(Archive("s3://nobodys/archive", bucket.storage_options), tmp_path).cursors()


def test_a_store_that_is_away_is_retriable(bucket: Bucket, tmp_path: Path) -> None:
    options = {**bucket.storage_options, "aws_endpoint": "http://127.0.0.1:1"}
    with pytest.raises(Retriable, match="s3://lake/archive/events cannot be read now"):
        source(Archive("s3://lake/archive", options), tmp_path).cursors()
