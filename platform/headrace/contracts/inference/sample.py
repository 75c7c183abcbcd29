"""Hold a sample of records as a producer sends them, before there is a contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import msgspec

Kind = Literal["json", "csv", "parquet"]
#: Numbers with a fraction become decimals, so that their digits can be counted.
JSON = msgspec.json.Decoder(float_hook=Decimal)
_SHOWN = 60


@dataclass(slots=True)
class Wrong:
    """Lines or messages that are no records, for one reason.

    Attributes:
        count: How many there are.
        example: Where the first one is, and how it begins.
    """

    count: int
    example: str


@dataclass(slots=True)
class Sample:
    """Some records of a file or a topic.

    Attributes:
        name: What they are of, for people: ``clicks.csv``, ``topic clicks``.
        kind: ``csv`` if every value is text, ``parquet`` if ``types`` are known.
        records: One mapping per record, with JSON's values. Numbers with a fraction are decimals.
        numbers: Number of each record in its source, from 1.
        total: Records in all.
        exact: Whether ``total`` was counted; else it is estimated.
        unit: Noun for records: ``rows`` or ``messages``.
        wrong: Lines that are no records, by reason.
        types: Arrow type of each column of a Parquet file; the columns of a CSV, without.
        binary: Columns of a Parquet file with bytes that are no text.
        longest: Bytes of the longest message.
        notes: Lines for people about the source itself.
        framed: Whether the messages name schemas of a registry, and were read by them.
    """

    name: str
    kind: Kind
    records: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    total: int = 0
    exact: bool = True
    unit: str = "rows"
    wrong: dict[str, Wrong] = field(default_factory=dict)
    types: Mapping[str, Any] = field(default_factory=dict)
    binary: set[str] = field(default_factory=set)
    longest: int = 0
    notes: list[str] = field(default_factory=list)
    framed: bool = False

    def add_message(self, number: int, payload: bytes | None) -> None:
        """Add the records of one JSON message: an object, or an array of objects."""
        if not payload or payload.isspace():
            self.add_wrong("empty", number, b"")
            return
        self.longest = max(self.longest, len(payload))
        try:
            value = JSON.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.add_wrong(_why_no_json(payload), number, payload)
            return
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                self.records.append(one)
                self.numbers.append(number)
            else:
                self.add_wrong("JSON, but no object", number, payload)

    def add_wrong(self, reason: str, number: int, raw: bytes) -> None:
        """Count a line that is no record."""
        found = self.wrong.get(reason)
        if found is not None:
            found.count += 1
            return
        text = raw[: 4 * _SHOWN].decode("utf-8", "backslashreplace")[:_SHOWN]
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        self.wrong[reason] = Wrong(1, f"{self.unit.removesuffix('s')} {number:,}: {shown}".rstrip(": "))


def _why_no_json(payload: bytes) -> str:
    if payload[:1] == b"\0" and len(payload) > 5:
        return "not JSON: Confluent's wire format (a schema id, then Avro, Protobuf or JSON)"
    try:
        payload.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    return "not JSON"
