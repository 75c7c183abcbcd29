"""Events as Confluent's own serializers write them: Avro, JSON Schema and Protobuf, with references."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

CHANNEL = {"type": "enum", "name": "shop.Channel", "symbols": ["web", "mobile", "pos"]}
EVENT = {
    "type": "record",
    "name": "shop.Event",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "event_type", "type": "string"},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "session_id", "type": "string"},
        {"name": "channel", "type": "shop.Channel"},
        {"name": "user_id", "type": ["null", "string"], "default": None},
    ],
}
#: When the events of all formats happened.
AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)


def by_confluent(url: str, topic: str) -> dict[str, bytes]:
    """One good event per format, whose ``event_id`` is the format; their schemas are registered."""
    client = SchemaRegistryClient({"url": url})
    return {
        "avro": _avro(client, f"{topic}-avro"),
        "json": _json(client, f"{topic}-json"),
        "protobuf": _protobuf(client, f"{topic}-protobuf"),
    }


def _fields(id: str) -> dict[str, Any]:
    return {"event_id": id, "event_type": "page_view", "session_id": "s", "channel": "web"}


def _avro(client: SchemaRegistryClient, topic: str) -> bytes:
    client.register_schema(f"{topic}-channel", Schema(json.dumps(CHANNEL), "AVRO"))
    reference = SchemaReference("shop.Channel", f"{topic}-channel", 1)
    write = AvroSerializer(client, Schema(json.dumps(EVENT), "AVRO", [reference]))
    written: bytes = write(
        {**_fields("avro"), "occurred_at": AT}, SerializationContext(topic, MessageField.VALUE)
    )
    return written


def _json(client: SchemaRegistryClient, topic: str) -> bytes:
    schema = {"type": "object", "properties": {"event_id": {"type": "string"}}}
    id = client.register_schema(f"{topic}-value", Schema(json.dumps(schema), "JSON"))
    body = {**_fields("json"), "occurred_at": AT.isoformat()}
    return b"\0" + int(id).to_bytes(4, "big") + json.dumps(body).encode()


def _protobuf(client: SchemaRegistryClient, topic: str) -> bytes:
    """Message ``Outer.Event`` of a file that imports another one, so it has two indexes and a reference."""
    pool = DescriptorPool()
    pool.AddSerializedFile(_imported("google.protobuf.timestamp_pb2"))
    channel = FileDescriptorProto(name="shop/channel.proto", package="shop", syntax="proto3")
    kinds = channel.enum_type.add(name="Channel")
    for number, name in enumerate(("pos", "web", "mobile")):
        kinds.value.add(name=name, number=number)
    event = FileDescriptorProto(name="shop/event.proto", package="shop", syntax="proto3")
    event.dependency.extend(["google/protobuf/timestamp.proto", "shop/channel.proto"])
    event.message_type.add(name="First")
    inner = event.message_type.add(name="Outer").nested_type.add(name="Event")
    kind = {"optional": 1, "string": 9, "message": 11, "enum": 14}
    for number, (name, of, type_name) in enumerate(
        [("event_id", "string", ""), ("event_type", "string", ""), ("session_id", "string", ""),
         ("channel", "enum", ".shop.Channel"), ("occurred_at", "message", ".google.protobuf.Timestamp")], 1
    ):  # fmt: skip
        inner.field.add(name=name, number=number, label=1, type=kind[of], type_name=type_name or None)
    pool.Add(channel)
    pool.Add(event)
    made = GetMessageClass(pool.FindMessageTypeByName("shop.Outer.Event"))
    message = made(**{**_fields("protobuf"), "channel": 1})
    message.occurred_at.FromDatetime(AT.replace(tzinfo=None))
    write = ProtobufSerializer(made, client, {"use.deprecated.format": False})
    written: bytes = write(message, SerializationContext(topic, MessageField.VALUE))
    return written


def _imported(module: str) -> bytes:
    import importlib

    found: bytes = importlib.import_module(module).DESCRIPTOR.serialized_pb
    return found
