"""Messages of many schemas in one batch; and Protobuf as JSON text."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from builders import EVENT, event
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import MicroBatch
from headrace.core.errors import BadData, Retriable
from headrace.core.schemas import Schema
from headrace.formats.registered import Framing
from headrace.formats.registered.protobuf import ProtobufReader, _by_protoc
from registry_double import framed

JSON = Schema("JSON", "{}")
NUMBER = Schema("AVRO", '"long"')
TYPES = """
    syntax = "proto3";
    package a;
    import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto";
    import "google/protobuf/wrappers.proto"; import "google/protobuf/struct.proto";
    import "google/type/date.proto"; import "confluent/type/decimal.proto"; import "confluent/meta.proto";
    import "b.proto";
    message Unused {}
    message Types {
      option (confluent.message_meta).doc = "d";
      enum Kind { NONE = 0; SOME = 1; }
      int64 whole = 1; double number = 2; bool truth = 3; string text = 4; bytes octets = 5; Kind kind = 6;
      optional int32 maybe = 7; repeated int32 many = 8; map<int32, b.Other> by_number = 9; Types inner = 10;
      google.protobuf.Timestamp at = 11; google.protobuf.Duration took = 12; google.protobuf.Int64Value wrapped = 13;
      google.protobuf.Struct object = 14; google.type.Date day = 15; confluent.type.Decimal price = 16;
      uint64 large = 17; map<bool, string> by_truth = 18;
    }"""
OTHER = 'syntax = "proto3"; package b; message Other { string name = 1; }'
EMPTY = {"whole": 0, "number": 0.0, "truth": False, "text": "", "octets": "", "kind": "NONE", "many": [],
         "by_number": {}, "large": 0, "by_truth": {}}  # fmt: skip
FULL = {
    "whole": -(2**63), "number": 0.1, "truth": True, "text": 'ü"', "octets": "AP8=", "kind": "SOME", "maybe": 0,
    "many": [1, -1], "by_number": {"-3": {"name": "n"}}, "inner": {**EMPTY, "text": "in"},
    "at": "2026-01-02T03:04:05.678901Z", "took": 1.5, "wrapped": 7, "object": {"a": [None, True, {"b": "c"}, 2.5]},
    "day": "2026-01-02", "price": -1.05, "large": 2**64 - 1, "by_truth": {"true": "t"},
}  # fmt: skip
CUT_OFF = "Error parsing message"


def protobuf(text: str = TYPES) -> ProtobufReader:
    return ProtobufReader(Schema("PROTOBUF", text, (("b.proto", OTHER),)))


def message(reader: ProtobufReader, full: bool) -> bytes:
    """A message of ``Types``, with or without values, as Protobuf's library writes it."""
    kind = reader._types.setdefault((1,), reader._type((1,)))[0]  # type: ignore[index]
    made = kind()
    if full:
        made = kind(
            whole=-(2**63), number=0.1, truth=True, text='ü"', octets=b"\0\xff", kind=1, maybe=0, many=[1, -1],
            large=2**64 - 1, inner=kind(text="in"), by_truth={True: "t"},
        )  # fmt: skip
        made.by_number[-3].name = "n"
        made.at.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, 678_901))
        made.took.FromMilliseconds(1_500)
        made.wrapped.value = 7
        made.object.update({"a": [None, True, {"b": "c"}, 2.5]})
        made.day.year, made.day.month, made.day.day = 2026, 1, 2
        made.price.value, made.price.scale = (-105).to_bytes(2, "big", signed=True), 2
    written: bytes = made.SerializeToString()
    return written


@pytest.mark.parametrize("serialized", [False, True])
def test_each_protobuf_type_arrives_as_the_docs_say(serialized: bool) -> None:
    reader = protobuf(_serialized() if serialized else TYPES)
    bodies = [b"\x02\x02" + message(reader, full) for full in (False, True)]
    found = reader.read(pl.Series(bodies))
    assert not found.wrong
    assert [json.loads(text) for text in found.payloads] == [EMPTY, FULL]


def _serialized() -> str:
    """The same schema as some serializers register it: its descriptor in base64."""
    files: FileDescriptorSet = _by_protoc("t.proto", {"t.proto": TYPES, "b.proto": OTHER})
    [own] = [file for file in files.file if file.name == "t.proto"]
    return base64.b64encode(own.SerializeToString()).decode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\x02\x02\x0a\x09x", CUT_OFF),
        (b"\x00\xff", CUT_OFF),
        (b"\x02\x06", r"no message with index \[3\]"),
        (b"\x04\x02\x12", r"no message with index \[1, 9\]"),
        (b"\x02\x01", r"no message with index \[-1\]"),
        (b"", "ends within the indexes"),
        (b"\x02", "ends within the indexes"),
        (b"\x01", "-1 indexes"),
        (b"\xfe\xff\x03", "32767 indexes"),
    ],
)
def test_a_protobuf_body_that_does_not_fit_is_named(body: bytes, said: str) -> None:
    reader = protobuf()
    found = reader.read(pl.Series([body, b"\x02\x02" + message(reader, True)]))
    assert found.payloads[0] is None
    assert re.search(said, found.wrong[0])
    assert json.loads(found.payloads[1]) == FULL, "the next one is not touched"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('syntax = "proto3"; mesage A {}', r"it is no Protobuf schema: schema.proto:1:\d+: "),
        ('syntax = "proto3"; import "none.proto";', "none.proto"),
        ("", "the schema has no message"),
    ],
)
def test_what_is_no_protobuf_schema_is_refused(text: str, said: str) -> None:
    try:
        found = ProtobufReader(Schema("PROTOBUF", text)).read(pl.Series([b"\0"])).wrong[0]
    except BadData as error:
        found = str(error)
    assert re.search(said, found)


def test_a_reference_leads_nowhere_else_on_the_machine() -> None:
    with pytest.raises(BadData, match=r"'\.\./\.\./x\.proto', which is no name of a schema"):
        ProtobufReader(Schema("PROTOBUF", 'syntax = "proto3";', (("../../x.proto", OTHER),)))


class Registry:
    """Schemas by id; notes what it was asked for."""

    def __init__(self, schemas: dict[int, Schema | BadData]) -> None:
        self.schemas, self.asked = schemas, list[int]()

    def __call__(self, id: int) -> Schema | None:
        self.asked.append(id)
        found = self.schemas.get(id)
        if isinstance(found, BadData):
            raise found
        return found


def test_messages_of_many_schemas_keep_their_places() -> None:
    registry = Registry({1: JSON, 2: NUMBER, 4: BadData("it refers to nothing")})
    read = Framing(registry)
    payloads = [framed(2, b"\x02"), None, framed(1, b"{}"), framed(2, b""), framed(3, b""), framed(2, b"\x04"),
                framed(4, b""), b"{}", framed(2**31, b"")]  # fmt: skip
    found = read(pl.Series(payloads, dtype=pl.Binary))
    assert found.payloads.to_list() == [b"1", None, b"{}", None, None, b"2", None, None, None]
    assert {row: check for row, (check, _) in found.unread.items()} == {
        3: "avro", 4: "registry_schema(3)", 6: "registry_schema(4)", 7: "registry_magic_byte",
        8: "registry_schema(2147483648)",
    }  # fmt: skip
    read(pl.Series(payloads, dtype=pl.Binary))
    assert registry.asked == [2, 1, 3, 4, 3], "what is known is not asked for again, what is unknown is"
    registry.schemas[3] = NUMBER
    assert read(pl.Series([framed(3, b"\x06")])).payloads.to_list() == [b"3"]
    assert read.or_plain(pl.Series([b"{}", framed(3, b"\x06")])).payloads.to_list() == [b"{}", b"3"]


def test_damaged_ids_do_not_flood_the_registry() -> None:
    registry = Registry({})
    found = Framing(registry)(pl.Series([framed(n, b"") for n in range(300)]))
    assert len(registry.asked) == 100
    assert len(found.unread) == 300
    assert "not asked for" in found.unread[299][1]


def test_a_registry_that_is_away_is_no_verdict() -> None:
    def away(id: int) -> Schema:
        raise Retriable("away")

    with pytest.raises(Retriable):
        Framing(away)(pl.Series([framed(1, b"")]))


def _checked(payloads: list[bytes | None], **limits: Any) -> Any:
    batch = MicroBatch.of("kafka/t", payloads, cursor="k", offset=list(range(len(payloads))))
    batch = MicroBatch(
        batch.source, batch.records, batch.before, batch.after, unwrap=Framing(Registry({1: JSON}))
    )
    now = datetime(2026, 6, 1, tzinfo=UTC)
    return check_batch(EVENTS, batch, batch_id="b", now=now, limits=Limits(**limits))


def test_rejected_messages_keep_the_bytes_that_were_sent() -> None:
    bad = event(channel="pigeon")
    several = framed(1, b"[" + bad + b"," + event(event_id="second") + b"]")
    payloads = [framed(1, event()), None, framed(1, bad), framed(7, b"x"), several, framed(1, b"\xff"), b""]
    found = _checked(payloads)
    assert found.good["event_id"].to_list() == [EVENT["event_id"], "second"]
    rejected = {
        offset: (payload, [reason["check"] for reason in reasons])
        for offset, payload, reasons in found.rejected.select("_offset", "payload", "reasons").iter_rows()
    }
    assert {offset: payload for offset, (payload, _) in rejected.items()} == {
        1: None, 2: payloads[2], 3: payloads[3], 4: bad, 5: payloads[5], 6: b""}  # fmt: skip
    assert [rejected[n][1][0] for n in (1, 3, 5, 6)] == [
        "empty",
        "registry_schema(7)",
        "utf8",
        "registry_magic_byte",
    ]
    assert [len(why) for _, why in rejected.values()] == [1] * 6


def test_the_limit_is_one_on_what_was_sent() -> None:
    found = _checked([framed(1, event()), framed(1, event(user_id="u" * 2_000))], max_message_bytes=1_024)
    assert found.good.height == 1
    [[reason]] = found.rejected["reasons"]
    assert reason["check"] == "max_message_bytes(1024)"
