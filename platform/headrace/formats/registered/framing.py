"""Take messages out of Confluent's wire format: a zero byte, the schema's id in four bytes, and the body.

Each message becomes JSON text by its schema, so that one decoder and one check judge all formats; the messages of a
batch are read schema by schema. What cannot be read keeps its bytes and gets a reason
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format).
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from headrace.core.batch import Unwrapped
from headrace.core.errors import BadData
from headrace.core.schemas import Schema
from headrace.formats.registered.texts import Reader, Texts

#: Bytes before the body.
_HEADER = 5
_MAGIC = b"\0"
_LARGEST_ID = 2**31 - 1
#: Ids that the registry is asked for in one batch although it knows none of them: more are damaged messages.
_MOST_UNKNOWN = 100
NO_MAGIC_BYTE = "registry_magic_byte"
#: Asks for a schema by its id; None for an id that the registry does not know.
Ask = Callable[[int], Schema | None]


class _AsItIs:
    """Reads the messages of JSON Schema: they are JSON already, and the contract is what judges them."""

    check = "json"

    def read(self, bodies: pl.Series) -> Texts:
        return Texts(bodies)


class Framing:
    """Reads messages in the wire format; remembers every schema for ever, as an id never gets another one."""

    def __init__(self, ask: Ask, close: Callable[[], None] = lambda: None) -> None:
        """Ask for nothing yet.

        Args:
            ask: Asks the registry.
            close: Closes the connections to it.
        """
        self._ask, self.close = ask, close
        self._readers: dict[int, Reader | BadData] = {}

    def __call__(self, payloads: pl.Series) -> Unwrapped:
        """Turn messages into JSON texts.

        Args:
            payloads: Binary; null for a tombstone, which stays one.

        Raises:
            Retriable: The registry does not answer.
            Fatal: It refuses to.
        """
        return self._unwrapped(payloads, plain=False)

    def or_plain(self, payloads: pl.Series) -> Unwrapped:
        """Turn messages into JSON texts; those without the header are JSON already.

        Redriven records may be: elements of an array, what a person has repaired, what was sent without a schema.
        """
        return self._unwrapped(payloads, plain=True)

    def _unwrapped(self, payloads: pl.Series, *, plain: bool) -> Unwrapped:
        frame = pl.DataFrame({"payload": payloads}).select(
            "payload",
            (pl.col("payload").bin.starts_with(_MAGIC) & (pl.col("payload").bin.size() >= _HEADER)).alias(
                "framed"
            ),
        )
        framed = frame["framed"].fill_null(False)
        unread: dict[int, tuple[str, str]] = {}
        parts: list[tuple[pl.Series, pl.Series]] = []
        outside = (~framed & payloads.is_not_null()).arg_true()
        if plain:
            parts.append((outside, payloads.gather(outside)))
        else:
            first = payloads.gather(outside).bin.slice(0, _HEADER).to_list()
            unread |= {
                row: (NO_MAGIC_BYTE, begin.hex(" ")) for row, begin in zip(outside, first, strict=True)
            }
        ids = payloads.bin.slice(1, 4).bin.reinterpret(dtype=pl.UInt32, endianness="big")
        whole = framed.all() and ids.n_unique() == 1
        unknown: dict[int, str] = {}
        for id in ids.filter(framed).unique(maintain_order=True):
            at = (framed & (ids == id)).arg_true()
            reader = self._reader(id, unknown)
            if isinstance(reader, str | BadData):
                unread |= dict.fromkeys(at, (f"registry_schema({id})", str(reader)))
                continue
            bodies = (payloads if whole else payloads.gather(at)).bin.slice(_HEADER)
            read = reader.read(bodies)
            if whole:
                return Unwrapped(read.payloads, {row: (reader.check, why) for row, why in read.wrong.items()})
            unread |= {int(at[row]): (reader.check, why) for row, why in read.wrong.items()}
            parts.append((at, read.payloads))
        return Unwrapped(_scattered(parts, len(payloads)), unread)

    def _reader(self, id: int, unknown: dict[int, str]) -> Reader | BadData | str:
        """Return the reader of a schema, or why there is none."""
        if id in self._readers:
            return self._readers[id]
        if id in unknown:
            return unknown[id]
        if len(unknown) >= _MOST_UNKNOWN:
            return f"not asked for: the registry knows none of {_MOST_UNKNOWN} others in the same batch"
        try:
            schema = self._ask(id) if id <= _LARGEST_ID else None
            if schema is None:  # it may be registered later, so this is not remembered
                unknown[id] = "the registry has no schema with this id"
                return unknown[id]
            self._readers[id] = _reader_of(schema)
        except BadData as error:
            self._readers[id] = error
        return self._readers[id]


def _reader_of(schema: Schema) -> Reader:
    """Return the reader of a schema's language; what each of them needs is imported with it."""
    if schema.kind == "AVRO":
        from headrace.formats.registered.avro import AvroReader

        return AvroReader(schema)
    if schema.kind == "PROTOBUF":
        from headrace.formats.registered.protobuf import ProtobufReader

        return ProtobufReader(schema)
    return _AsItIs()


def _scattered(parts: list[tuple[pl.Series, pl.Series]], rows: int) -> pl.Series:
    """Put texts where their messages are; null elsewhere."""
    empty = pl.DataFrame(schema={"row": pl.UInt32, "payload": pl.Binary})
    found = pl.concat(
        [empty, *(pl.DataFrame({"row": at.cast(pl.UInt32), "payload": texts}) for at, texts in parts)]
    )
    every = pl.DataFrame({"row": pl.int_range(rows, dtype=pl.UInt32, eager=True)})
    return every.join(found, on="row", how="left", maintain_order="left")["payload"]
