"""The codecs: what goes in comes out, however it is cut, and damage is noticed."""

from __future__ import annotations

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.local.clickhouse.compression import (
    RESPONSE_ENCODINGS,
    Decoder,
    Encoder,
    NativeDecoder,
    accepted,
    native_blocks,
)
from headrace.local.clickhouse.errors import ClickHouseError
from headrace.local.clickhouse.request import Body

#: Shared machines are slow at times.
calm = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

PIECES = st.lists(st.binary(max_size=200) | st.integers(0, 5000).map(lambda n: b"ab" * n), max_size=6)


class Drip:
    """A body that arrives a few bytes at a time, as from a slow network."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(data), most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def drain(body: Decoder | NativeDecoder | Body, size: int = 1000) -> bytes:
    parts = []
    while part := body.read(size):
        parts.append(part)
    return b"".join(parts)


def encode(encoding: str | None, pieces: list[bytes]) -> bytes:
    encoder = Encoder(encoding)
    return b"".join(encoder.add(piece) for piece in pieces) + encoder.finish()


@pytest.mark.parametrize("encoding", RESPONSE_ENCODINGS)
@calm
@given(pieces=PIECES, most=st.integers(1, 4096))
def test_round_trip(encoding: str, pieces: list[bytes], most: int) -> None:
    assert drain(Decoder(Drip(encode(encoding, pieces), most), encoding)) == b"".join(pieces)


@calm
@given(pieces=PIECES, most=st.integers(1, 4096))
def test_round_trip_of_native_blocks(pieces: list[bytes], most: int) -> None:
    assert drain(NativeDecoder(Drip(encode("native", pieces), most))) == b"".join(pieces)
    assert encode(None, pieces) == b"".join(pieces)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "lz4"])
def test_concatenated_frames_are_one_body(encoding: str) -> None:
    data = encode(encoding, [b"one"]) + encode(encoding, [b"two"])
    assert drain(Decoder(io.BytesIO(data), encoding)) == b"onetwo"


@pytest.mark.parametrize("encoding", RESPONSE_ENCODINGS)
@calm
@given(data=st.binary(min_size=20, max_size=500), at=st.floats(0.1, 0.9))
def test_a_cut_body_is_an_error(encoding: str, data: bytes, at: float) -> None:
    whole = encode(encoding, [data])
    with pytest.raises(ClickHouseError) as raised:
        drain(Decoder(io.BytesIO(whole[: max(1, int(len(whole) * at))]), encoding))
    assert raised.value.code == 33


@calm
@given(data=st.binary(min_size=1, max_size=500), at=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_native_block_is_an_error(data: bytes, at: float, bit: int) -> None:
    blocks = bytearray(native_blocks(data))
    blocks[int(len(blocks) * at)] ^= 1 << bit
    with pytest.raises(ClickHouseError):
        drain(NativeDecoder(io.BytesIO(bytes(blocks))))


def test_native_blocks_have_the_layout_that_clients_know() -> None:
    """16 bytes of checksum, the method, the sizes with and without compression (each with its header)."""
    block = native_blocks(b"a" * 100)
    assert block[16] == 0x82
    assert int.from_bytes(block[17:21], "little") == len(block) - 16
    assert int.from_bytes(block[21:25], "little") == 100


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", None),
        ("identity", None),
        ("gzip, zstd", "gzip"),
        ("x, ZSTD;q=0.5", "zstd"),
        ("gzip;q=0, br", "br"),
    ],
)
def test_accept_encoding(header: str, encoding: str | None) -> None:
    assert accepted(header) == encoding


@calm
@given(
    data=st.binary(max_size=300),
    steps=st.lists(st.tuples(st.sampled_from("psr"), st.integers(1, 80))),
    most=st.integers(1, 50),
)
def test_a_body_can_be_looked_at_without_losing_a_byte(
    data: bytes, steps: list[tuple[str, int]], most: int
) -> None:
    body, read = Body(Drip(data, most)), b""
    for step, size in steps:
        if step == "p":
            ahead, complete = body.peek(size)
            assert ahead == data[len(read) : len(read) + size]
            if complete:
                assert len(data) - len(read) <= size
        elif step == "s":
            skipped = body.peek(size)[0]
            body.skip(len(skipped))
            read += skipped
        else:
            read += body.read(size)
        assert data.startswith(read)
    assert read + drain(body) == data
