"""Read messages whose schema is in a registry: Avro, Protobuf and JSON Schema in Confluent's wire format."""

from headrace.formats.registered.framing import Framing

__all__ = ["Framing"]
