"""Compile an Avro schema to a program that writes its data as JSON text; see ``avro_scan``.

How each type arrives is in `docs/registry.md`: as the JSON value that a contract's field of the fitting dtype takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from headrace.core.errors import BadData
from headrace.core.schemas import Schema
from headrace.formats.registered import avro_scan as avro
from headrace.formats.registered.avro_scan import Program

#: Most instructions of a program: a schema of some ten thousand fields.
_MOST = 200_000
_PLAIN = {
    "null": avro.NULL,
    "boolean": avro.BOOLEAN,
    "int": avro.INT,
    "long": avro.LONG,
    "float": avro.FLOAT,
    "double": avro.DOUBLE,
    "string": avro.STRING,
    "bytes": avro.BYTES,
}
#: Type and logical type -> instruction and operands. A logical type that does not fit its type counts as none.
_LOGICAL = {
    ("int", "date"): (avro.DATE, 0, 0),
    ("int", "time-millis"): (avro.TIME_OF_DAY, 1_000, 0),
    ("long", "time-micros"): (avro.TIME_OF_DAY, 1, 0),
    ("long", "timestamp-millis"): (avro.TIMESTAMP, 1_000, 1),
    ("long", "timestamp-micros"): (avro.TIMESTAMP, 1, 1),
    ("long", "timestamp-nanos"): (avro.TIMESTAMP, -1_000, 1),
    ("long", "local-timestamp-millis"): (avro.TIMESTAMP, 1_000, 0),
    ("long", "local-timestamp-micros"): (avro.TIMESTAMP, 1, 0),
    ("long", "local-timestamp-nanos"): (avro.TIMESTAMP, -1_000, 0),
}
#: Largest scale of a decimal: the digits of 32 bytes.
_LARGEST_SCALE = 77


def program_of(schema: Schema) -> Program:
    """Compile a schema.

    Raises:
        BadData: It does not parse, or is too large.
    """
    try:
        named: dict[str, Any] = {}
        for _, text in schema.references:
            parse_schema(json.loads(text), named_schemas=named, expand=False)
        parsed = parse_schema(json.loads(schema.text), named_schemas=named, expand=False)
        return _Compiler(named).compiled(parsed)
    except (SchemaParseException, UnknownType) as error:
        raise BadData(f"it is no Avro schema: {error}") from error
    except RecursionError:
        raise BadData("it is nested too deep") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # what fastavro says of strange JSON
        raise BadData(f"it is no Avro schema: {type(error).__name__}: {error}") from error


class _Compiler:
    """Writes one program; records are subroutines, so that they may contain themselves."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._ops: list[list[int]] = []
        self._table: list[int] = []
        self._literals = bytearray()
        self._places: dict[bytes, int] = {}
        self._entries: dict[str, int] = {}
        self._calls: list[tuple[int, str]] = []  # calls whose record is not written yet

    def compiled(self, schema: Any) -> Program:
        self._value(schema)
        self._op(avro.END)
        while self._calls:
            at, name = self._calls.pop()
            if name not in self._entries:
                self._entries[name] = len(self._ops)
                self._record(self._named[name])
            self._ops[at][1] = self._entries[name]
        return Program(
            np.array(self._ops, np.int64),
            np.array(self._table or [0], np.int64),
            np.frombuffer(bytes(self._literals) or b" ", np.uint8),
        )

    def _op(self, op: int, a: int = 0, b: int = 0) -> int:
        if len(self._ops) >= _MOST:
            raise BadData(f"it has more than {_MOST:,} parts")
        self._ops.append([op, a, b])
        return len(self._ops) - 1

    def _place(self, text: bytes) -> int:
        if text not in self._places:
            self._places[text] = len(self._literals)
            self._literals += text
        return self._places[text]

    def _literal(self, text: bytes) -> None:
        self._op(avro.LITERAL, self._place(text), len(text))

    def _value(self, schema: Any) -> None:
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            if schema in _PLAIN:
                self._op(_PLAIN[schema])
                return None
            schema = self._named[schema]
        kind = schema["type"]
        if kind in ("record", "error"):
            self._calls.append((self._op(avro.CALL), schema["name"]))
            return None
        if not isinstance(kind, str) or (kind not in _PLAIN and kind not in _WRITERS):
            return self._value(kind)  # {"type": {"type": ...}}
        return _WRITERS.get(kind, _Compiler._plain)(self, schema)

    def _plain(self, schema: Mapping[str, Any]) -> None:
        kind, logical = schema["type"], str(schema.get("logicalType"))
        if (kind, logical) in _LOGICAL:
            self._op(*_LOGICAL[kind, logical])
        elif kind == "bytes" and logical == "decimal" and _is_scale(schema.get("scale", 0)):
            self._op(avro.DECIMAL, 0, schema.get("scale", 0))
        else:
            self._op(_PLAIN[kind])

    def _fixed(self, schema: Mapping[str, Any]) -> None:
        size, logical = schema["size"], schema.get("logicalType")
        if logical == "decimal" and _is_scale(schema.get("scale", 0)):
            self._op(avro.DECIMAL_FIXED, size, schema.get("scale", 0))
        elif (logical, size) == ("uuid", 16):
            self._op(avro.UUID_FIXED, size)
        elif (logical, size) == ("duration", 12):
            self._op(avro.DURATION, size)
        else:
            self._op(avro.FIXED, size)

    def _enum(self, schema: Mapping[str, Any]) -> None:
        texts = [msgspec.json.encode(symbol) for symbol in schema["symbols"]]
        places = [(self._place(text), len(text)) for text in texts]
        self._op(avro.ENUM, len(self._table), len(texts))
        self._table += [number for pair in places for number in pair]

    def _union(self, branches: list[Any]) -> None:
        begin = len(self._table)
        self._op(avro.UNION, begin, len(branches))
        self._table += [0] * len(branches)
        ends = []
        for n, branch in enumerate(branches):
            self._table[begin + n] = len(self._ops)
            self._value(branch)
            ends.append(self._op(avro.JUMP))
        for at in ends:
            self._ops[at][1] = len(self._ops)

    def _array(self, schema: Mapping[str, Any]) -> None:
        self._loop(avro.ARRAY, avro.NEXT_ITEM, schema["items"])

    def _map(self, schema: Mapping[str, Any]) -> None:
        self._loop(avro.MAP, avro.NEXT_PAIR, schema["values"])

    def _loop(self, begin: int, step: int, inner: Any) -> None:
        self._op(begin)
        at = self._op(step)
        self._ops[at][1] = len(self._ops)
        self._value(inner)
        self._op(avro.JUMP, at)
        self._ops[at][2] = len(self._ops)

    def _record(self, schema: Mapping[str, Any]) -> None:
        for n, field in enumerate(schema["fields"]):
            name = msgspec.json.encode(field["name"])
            self._literal((b"," if n else b"{") + name + b":")
            self._value(field["type"])
        self._literal(b"}" if schema["fields"] else b"{}")
        self._op(avro.RETURN)


_WRITERS: dict[str, Callable[[_Compiler, Mapping[str, Any]], None]] = {
    "fixed": _Compiler._fixed,
    "enum": _Compiler._enum,
    "array": _Compiler._array,
    "map": _Compiler._map,
}


def _is_scale(scale: object) -> bool:
    return isinstance(scale, int) and 0 <= scale <= _LARGEST_SCALE
