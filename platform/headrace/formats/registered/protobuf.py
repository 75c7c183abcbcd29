"""Read Protobuf messages as JSON text, by descriptors that are compiled from the registered schema as it is met.

No code is generated: ``protoc`` makes descriptors, Protobuf's own library makes message classes of them. Each message
is walked by a plan of its type, which knows how a field becomes JSON; see `docs/registry.md`.
"""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import polars as pl
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from headrace.core.errors import BadData
from headrace.core.schemas import Schema
from headrace.formats.registered.texts import Texts

#: Schemas that a registry leaves away because each client has them
#: (https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/serdes-protobuf.html).
_CONFLUENT = {
    "confluent/type/decimal.proto": """syntax = "proto3"; package confluent.type;
        message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }""",
    "confluent/meta.proto": """syntax = "proto3"; package confluent;
        import "google/protobuf/descriptor.proto";
        message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }""",
}
_COMPILE_SECONDS = 60
#: Most levels of messages within each other.
_MOST_INDEXES = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODE = msgspec.json.Encoder(decimal_format="number").encode
#: What a value of a field becomes.
_Made = Callable[[Any], Any]


class ProtobufReader:
    """Reads messages of one schema."""

    check = "protobuf"

    def __init__(self, schema: Schema) -> None:
        """Compile the schema.

        Raises:
            BadData: It does not parse.
        """
        name, files = _compiled(schema)
        self._root = next(file for file in files.file if file.name == name)
        self._pool = DescriptorPool()
        try:
            for file in files.file:
                self._pool.Add(file)
            self._pool.FindFileByName(name)
        except (TypeError, KeyError) as error:
            raise BadData(f"its descriptors do not fit each other: {error}") from error
        self._plans: dict[str, _Plan] = {}
        self._types: dict[tuple[int, ...], tuple[Any, _Plan] | None] = {}

    def read(self, bodies: pl.Series) -> Texts:
        """Return the JSON text of each message, or why it does not fit the schema.

        Args:
            bodies: Binary, no nulls: the indexes of the message's type, then the message.
        """
        texts: list[bytes | None] = []
        wrong: dict[int, str] = {}
        for row, body in enumerate(bodies):
            try:
                texts.append(self._text(body))
            except (DecodeError, BadData, ValueError, RecursionError) as error:
                texts.append(None)
                wrong[row] = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Texts(pl.Series(texts, dtype=pl.Binary), wrong)

    def _text(self, body: bytes) -> bytes:
        indexes, begin = _indexes(body)
        if indexes not in self._types:
            self._types[indexes] = self._type(indexes)
        found = self._types[indexes]
        if found is None:
            raise BadData(f"the schema has no message with index {list(indexes)}")
        kind, plan = found
        message = kind()
        message.ParseFromString(body[begin:])
        return _ENCODE(plan(message))

    def _type(self, indexes: tuple[int, ...]) -> tuple[Any, _Plan] | None:
        inner: Any = self._root.message_type
        names = [self._root.package] if self._root.package else []
        for index in indexes:
            if not 0 <= index < len(inner):
                return None
            message: DescriptorProto = inner[index]
            names.append(message.name)
            inner = message.nested_type
        descriptor = self._pool.FindMessageTypeByName(".".join(names))
        return GetMessageClass(descriptor), self._plan(descriptor)

    def _plan(self, descriptor: Descriptor) -> _Plan:
        name = descriptor.full_name
        if name not in self._plans:
            plan = self._plans[name] = _Plan()  # before its fields are looked at: it may contain itself
            plan.fields = [(f.name, f.has_presence, self._field(f)) for f in descriptor.fields]
        return self._plans[name]

    def _field(self, field: FieldDescriptor) -> _Made:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            made = self._value(kind.fields_by_name["value"])
            # scalars of a map are read by iterating, messages by their key
            return lambda found: {_key(key): made(found[key]) for key in found}
        made = self._value(field)
        if field.is_repeated:
            return lambda found: [made(one) for one in found]
        return made

    def _value(self, field: FieldDescriptor) -> _Made:
        if field.message_type is not None:
            return _KNOWN.get(field.message_type.full_name) or self._plan(field.message_type)
        if field.enum_type is not None:
            names = {value.number: value.name for value in field.enum_type.values}
            return lambda number: names.get(number, number)
        if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return _finite
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _base64
        return _as_it_is


class _Plan:
    """How the messages of one type become dictionaries."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[tuple[str, bool, _Made]] = []

    def __call__(self, message: Any) -> dict[str, Any]:
        return {
            name: made(getattr(message, name))
            for name, presence, made in self.fields
            if not presence or message.HasField(name)
        }


def _compiled(schema: Schema) -> tuple[str, FileDescriptorSet]:
    """Compile a schema with everything that it imports; return its own file's name, too.

    Some serializers register descriptors instead of text, and some registries return them as they are.
    """
    texts = dict(schema.references)
    name = next(n for n in ("schema.proto", *(f"schema{k}.proto" for k in range(9_999))) if n not in texts)
    texts[name] = schema.text
    made = {file: found for file, text in texts.items() if (found := _descriptor(text))}
    if name not in made:
        return name, _by_protoc(name, texts)
    imported = dict.fromkeys(one for file in made.values() for one in file.dependency if one not in made)
    stub = f"imports-of-{name}"
    text = 'syntax = "proto3";' + "".join(f"import {json.dumps(one)};" for one in imported)
    files = _by_protoc(stub, {**{n: t for n, t in texts.items() if n not in made}, stub: text})
    for file, descriptor in made.items():
        descriptor.name = file
    return name, FileDescriptorSet(file=[*(f for f in files.file if f.name != stub), *made.values()])


def _descriptor(text: str) -> Any:
    """Return the descriptor that a text is in base64; None if it is a schema as people write it."""
    try:
        return FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (ValueError, DecodeError):
        return None


def _by_protoc(name: str, files: Mapping[str, str]) -> Any:
    """Compile one of some schemas, with those that it imports, to descriptors."""
    with TemporaryDirectory(prefix="headrace-schema-") as folder:
        for file, text in {**_CONFLUENT, **files}.items():
            path = PurePosixPath(file)
            if path.is_absolute() or ".." in path.parts:
                raise BadData(f"it imports {file!r}, which is no name of a schema")
            place = Path(folder) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        made = Path(folder) / ".descriptors"
        include = [f"-I{one}" for one in (folder, *_shipped())]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "grpc_tools.protoc", *include, f"--descriptor_set_out={made}",
                 "--include_imports", name],
                capture_output=True, text=True, check=False, timeout=_COMPILE_SECONDS, cwd=folder,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BadData(f"protoc does not finish it within {_COMPILE_SECONDS} s") from None
        if done.returncode:
            said = [
                line for line in done.stderr.replace(f"{folder}/", "").splitlines() if ".proto" in line
            ] or ["protoc fails"]
            raise BadData(f"it is no Protobuf schema: {said[0]}")
        return FileDescriptorSet.FromString(made.read_bytes())


def _shipped() -> Iterator[str]:
    """Yield the folders of Google's own schemas: the well-known types, and those of its interfaces."""
    for module, inside in (("grpc_tools", "_proto"), ("google.type", "../..")):
        found = find_spec(module)
        for place in (found.submodule_search_locations or ()) if found else ():
            yield str((Path(place) / inside).resolve())


def _indexes(body: bytes) -> tuple[tuple[int, ...], int]:
    """Read which message of the schema a body is, and where its bytes begin.

    https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
    """
    if body[:1] == b"\0":
        return (0,), 1
    count, at = _zigzag(body, 0)
    if not 0 < count <= _MOST_INDEXES:
        raise BadData(f"{count} indexes of its message type")
    indexes = []
    for _ in range(count):
        index, at = _zigzag(body, at)
        indexes.append(index)
    return tuple(indexes), at


def _zigzag(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(body) and shift < 64:
        byte = body[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at
    raise BadData("the message ends within the indexes of its type")


def _as_it_is(value: Any) -> Any:
    return value


def _finite(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _key(key: object) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _moment(value: Any) -> str | int:
    """Write a timestamp as RFC 3339, its nanoseconds cut off; as seconds if there is no such time."""
    try:
        found = _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1_000)
    except OverflowError:
        return int(value.seconds)
    return f"{found.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _seconds(value: Any) -> Decimal:
    return Decimal(value.seconds) + Decimal(value.nanos).scaleb(-9)


def _date(value: Any) -> str | dict[str, int]:
    if 1 <= value.year <= 9999 and 1 <= value.month <= 12 and 1 <= value.day <= 31:
        return f"{value.year:04}-{value.month:02}-{value.day:02}"
    return {"year": value.year, "month": value.month, "day": value.day}


def _decimal(value: Any) -> Decimal | str:
    number = Decimal(int.from_bytes(value.value, "big", signed=True))
    return number.scaleb(-value.scale) if abs(value.scale) <= 1_000 else str(number)


def _struct(value: Any) -> dict[str, Any]:
    return {key: _any(one) for key, one in value.fields.items()}


def _list(value: Any) -> list[Any]:
    return [_any(one) for one in value.values]


def _any(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            return _finite(value.number_value)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _struct(value.struct_value)
        case "list_value":
            return _list(value.list_value)
    return None


def _wrapped(made: _Made) -> _Made:
    return lambda value: made(value.value)


#: Types that every Protobuf library knows, and how they arrive.
_KNOWN: dict[str, _Made] = {
    "google.protobuf.Timestamp": _moment,
    "google.protobuf.Duration": _seconds,
    "google.protobuf.Struct": _struct,
    "google.protobuf.Value": _any,
    "google.protobuf.ListValue": _list,
    "google.protobuf.BytesValue": _wrapped(_base64),
    "google.protobuf.DoubleValue": _wrapped(_finite),
    "google.protobuf.FloatValue": _wrapped(_finite),
    **{
        f"google.protobuf.{name}Value": _wrapped(_as_it_is)
        for name in ("Bool", "Int32", "Int64", "UInt32", "UInt64", "String")
    },
    "google.type.Date": _date,
    "google.type.Decimal": _wrapped(_as_it_is),
    "confluent.type.Decimal": _decimal,
}
