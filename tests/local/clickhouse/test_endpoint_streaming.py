"""Long bodies in flat memory, compression on the wire, and queries that end with their client."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import brotli
import lz4.frame
import psutil
import pytest
import zstandard

from headrace.local.clickhouse.compression import NativeDecoder, native_blocks

GIB, MIB = 1 << 30, 1 << 20
GROWTH = 300 * MIB

DECODERS = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    "lz4": lz4.frame.decompress,
    "br": brotli.decompress,
}
ENCODERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
    "br": lambda data: brotli.compress(data, quality=1),
}


@contextmanager
def flat_memory(endpoint: Any) -> Iterator[None]:
    """Fails if the server's resident memory grows by more than ``GROWTH`` at any time within."""
    server = psutil.Process(endpoint.process.pid)
    before = server.memory_info().rss
    peak, over = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, server.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert peak - before < GROWTH, f"grew by {(peak - before) / MIB:.0f} MiB"


def request(endpoint: Any, target: str, body: Any, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)
    connection.request("POST", target, body, {**endpoint.credentials(), **headers})
    return connection.getresponse()


def length_of(response: http.client.HTTPResponse) -> int:
    total = 0
    while piece := response.read(MIB):
        total += len(piece)
    return total


def test_one_gigabyte_out(endpoint: Any) -> None:
    endpoint.run("SELECT 1")
    with flat_memory(endpoint):
        sql = f"SELECT number FROM numbers({GIB // 8}) FORMAT RowBinary".encode()
        assert length_of(request(endpoint, "/", sql)) == GIB


def test_a_result_that_waits_for_its_end_waits_on_disk(endpoint: Any) -> None:
    size = GROWTH + 100 * MIB
    with flat_memory(endpoint):
        sql = f"SELECT number FROM numbers({size // 8}) FORMAT RowBinary".encode()
        response = request(endpoint, "/?wait_end_of_query=1", sql)
        assert response.getheader("X-ClickHouse-Exception-Tag") is None
        assert length_of(response) == size


def test_one_gigabyte_in(endpoint: Any, database: str) -> None:
    endpoint.run(f"CREATE TABLE {database}.t (n UInt64) ORDER BY tuple()")
    piece = b"\1" + bytes(MIB - 1)
    with flat_memory(endpoint):
        pieces = (piece for _ in range(GIB // MIB))
        target = f"/?database={database}&query=INSERT%20INTO%20t%20FORMAT%20RowBinary"
        response = request(endpoint, target, pieces)
        assert response.status == 200, response.read()
    assert endpoint.run(f"SELECT count(), sum(n) FROM {database}.t") == f"{GIB // 8}\t{GIB // MIB}"


def test_a_long_compressed_result(endpoint: Any) -> None:
    size = GROWTH + 100 * MIB
    sql = f"SELECT toUInt64(1) FROM numbers({size // 8}) FORMAT RowBinary".encode()
    with flat_memory(endpoint):
        response = request(endpoint, "/?enable_http_compression=1", sql, **{"Accept-Encoding": "lz4"})
        decoder, total = lz4.frame.LZ4FrameDecompressor(), 0
        while piece := response.read(MIB):
            total += len(decoder.decompress(piece))
        assert (total, decoder.eof) == (size, True)


@pytest.mark.parametrize("encoding", DECODERS)
@pytest.mark.parametrize("rows", [0, 10, 1_000_000])
def test_response_encodings(endpoint: Any, encoding: str, rows: int) -> None:
    sql = f"SELECT number FROM numbers({rows})"
    plain = endpoint.request(sql).body
    reply = endpoint.request(
        sql, headers={"Accept-Encoding": f"x, {encoding};q=1"}, enable_http_compression="1"
    )
    assert reply.headers["content-encoding"] == encoding
    assert DECODERS[encoding](reply.body) == plain
    uncompressed = endpoint.request(sql, headers={"Accept-Encoding": encoding})
    assert "content-encoding" not in uncompressed.headers and uncompressed.body == plain


@pytest.mark.parametrize("encoding", ENCODERS)
def test_request_encodings(endpoint: Any, database: str, encoding: str) -> None:
    endpoint.run(f"CREATE TABLE {database}.t (n UInt32) ORDER BY n")
    lines = b"".join(b"%d\n" % n for n in range(300_000))
    body = ENCODERS[encoding](b"INSERT INTO t FORMAT TSV\n" + lines)
    headers = {"Content-Encoding": encoding}
    assert endpoint.request(body, headers=headers, database=database).status == 200
    assert endpoint.run(f"SELECT count(), sum(n) FROM {database}.t") == f"300000\t{sum(range(300_000))}"
    cut = endpoint.request(body[: len(body) // 2], headers=headers, database=database)
    assert (cut.status, cut.code) == (400, 33)
    assert endpoint.request(b"SELECT", headers={"Content-Encoding": "rot13"}).code == 48
    assert endpoint.run(f"SELECT count() FROM {database}.t") == "300000"


def test_native_blocks_both_ways(endpoint: Any, database: str) -> None:
    import io

    plain = endpoint.request("SELECT number FROM numbers(1000000)").body
    reply = endpoint.request("SELECT number FROM numbers(1000000)", compress="1")
    decoder, parts = NativeDecoder(io.BytesIO(reply.body)), []
    while part := decoder.read():
        parts.append(part)
    assert b"".join(parts) == plain and len(reply.body) < len(plain)
    endpoint.run(f"CREATE TABLE {database}.t (n UInt32) ORDER BY n")
    sql = f"INSERT INTO {database}.t FORMAT TSV"
    blocks = native_blocks(plain)
    damaged = blocks[:-1] + bytes([blocks[-1] ^ 1])
    assert endpoint.request(sql, body=damaged, decompress="1").code == 40
    assert endpoint.run(f"SELECT count() FROM {database}.t") == "0"
    assert endpoint.request(sql, body=blocks, decompress="1").status == 200
    assert endpoint.run(f"SELECT count() FROM {database}.t") == "1000000"


def test_compressed_error_in_mid_stream_is_inside_the_stream(endpoint: Any) -> None:
    sql = "SELECT number, throwIf(number = 3000000, 'late') FROM numbers(4000000)"
    options = {"enable_http_compression": "1", "max_block_size": "65536"}
    reply = endpoint.request(sql, headers={"Accept-Encoding": "gzip"}, **options)
    assert reply.status == 200
    text = gzip.decompress(reply.body)
    assert text.endswith(f"{reply.headers['x-clickhouse-exception-tag']}\r\n__exception__\r\n".encode())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sleepEachRow(1) FROM numbers(1000) SETTINGS max_block_size = 1",  # silent
        "SELECT sum(sipHash64(number)) FROM numbers_mt(1000000000000)",  # busy and silent
        "SELECT number FROM numbers(1000000000000)",  # in mid-stream
    ],
)
def test_a_query_ends_with_its_client(endpoint: Any, eventually: Any, sql: str) -> None:
    mark = uuid.uuid4().hex
    sql = sql.replace("SELECT ", f"SELECT /* {mark} */ '{mark}', ", 1)
    running = (
        f"SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE '%processes%'"
    )
    client = socket.create_connection(("127.0.0.1", endpoint.port), 10)
    head = [f"{name}: {value}" for name, value in endpoint.credentials().items()]
    lines = ["POST / HTTP/1.1", "Host: x", *head, f"Content-Length: {len(sql)}", "", sql]
    client.sendall("\r\n".join(lines).encode())
    if "sum(" not in sql and "sleep" not in sql:
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    eventually(lambda: endpoint.run(running) == "1")
    client.close()
    eventually(lambda: endpoint.run(running) == "0")


def test_many_clients_at_once(endpoint: Any) -> None:
    answers: list[str] = []

    def ask(n: int) -> None:
        answers.append(
            endpoint.run(f"SELECT {n} + count() FROM numbers(1000000) WHERE NOT ignore(sipHash64(number))")
        )

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers, key=int) == [str(1_000_000 + n) for n in range(48)]
