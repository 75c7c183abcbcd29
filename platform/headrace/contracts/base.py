"""Define a contract: a Pandera model, and the few facts that a model cannot express."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from functools import cached_property
from typing import Any

import pandera.polars as pa
import polars as pl

from headrace.contracts.dtypes import INT_RANGE, Time, Wire, WireField, instance, kind_of, landed, wires_of
from headrace.contracts.faults import faults
from headrace.contracts.growth.declared import ALWAYS, Growth, Was
from headrace.contracts.growth.derived import GROWTH, schema_at
from headrace.contracts.growth.describe import described, text_of
from headrace.contracts.growth.history import History, history_of
from headrace.contracts.shaping.declared import Shape, shape_of
from headrace.contracts.shaping.shaping import Shaping, Transform, shaping_of
from headrace.contracts.unknown import EXTRA, Policy
from headrace.core.batch import ORIGIN_SCHEMA, REJECTED_SCHEMA, Table, map_of
from headrace.core.errors import Fatal

__all__ = ["INT_RANGE", "Column", "Contract", "Time", "Was", "Wire", "WireField", "field", "map_of"]

_FEW_ORIGINS = frozenset({"_source", "_cursor", "_batch_id"})
_OWN_ORIGINS = frozenset({"_offset", "_message_id"})
_NULLABLE_ORIGINS = frozenset({"_offset", "_message_id", "_key"})
_DISTINCT = frozenset({"number", "time", "object", "decimal", "uuid", "binary"})
#: Wires of columns that are never null, because absent and null are empty.
EMPTY = frozenset({"map", "list"})
_NESTED = frozenset({"map", "list", "struct"})


def field(
    description: str,
    *,
    length: tuple[int, int] | None = None,
    required: bool = False,
    low_cardinality: bool = False,
    wire: Wire | None = None,
    default: Any = None,
    alias: str | tuple[str, ...] | None = None,
    path: str | None = None,
    format: str | tuple[str, ...] | None = None,
    zone: str | None = None,
    lower: bool = False,
    strip: bool = False,
    nulls: str | tuple[str, ...] | None = None,
    constant: Any = None,
    derive: pl.Expr | None = None,
    hashed: str | tuple[str, ...] | None = None,
    landed: bool = True,
    since: int | None = None,
    was: Mapping[int, Was] | None = None,
    retired: int | None = None,
    moved_to: str | None = None,
    **checks: Any,
) -> Any:
    """Declare a Pandera field together with the facts that Headrace derives from it.

    Args:
        description: What the column means, with its unit.
        length: Shortest and longest text, in characters.
        required: Whether null or absent is a reason to reject.
        low_cardinality: Whether the column has few distinct values; the warehouse then encodes it as a
            dictionary.
        wire: JSON type, if the dtype does not imply it: of ``pl.String``, ``object`` is kept as JSON text, and
            ``uuid`` becomes a UUID in the warehouse.
        default: Value for a record that lacks the field.
        alias: Other names in the message. The field's own name counts first, then the first that has a value.
        path: Nested place in the message, instead of the field's own name: ``context.page.url``,
            ``items[0].sku``.
        format: Format of a time or date: strftime, ``rfc3339``, ``iso8601``, ``epoch_s``, ``epoch_ms`` or
            ``epoch_us``; of several, the first that fits counts.
        zone: Zone of times that come without one, such as ``Europe/Berlin``.
        lower: Whether text becomes lower case, before the checks.
        strip: Whether white space around text is taken off, before the checks.
        nulls: Texts that mean null.
        constant: The value of every record; the field is not read from the message.
        derive: Expression that computes the field from others, record by record, once they are read and typed.
        hashed: Fields of whose values this is the hash (see ``shaping.keys``); or ``payload``, the record's
            bytes; or ``position``, its place in the source.
        landed: Whether it is a column of the tables; if not, it is read and checked like any other.
        since: First version of the contract that has the field. Rows of earlier versions have its default, or null.
        was: What the field was up to and including a version: ``{1: Was(dtype=pl.Int32)}``. Its earlier names
            remain names in the message.
        retired: First version that no longer asks for the field. Rows from then on have null.
        moved_to: Field of a JSON object that gets the value of a retired field if it still comes.
        checks: Pandera's built-in checks (``isin``, ``str_matches``, ``ge``, ``le``).
    """
    if length is not None:
        if not (isinstance(length, tuple) and len(length) == 2):
            raise TypeError(f"length={length!r} is no pair of the shortest and the longest; write (1, 64)")
        checks["str_length"] = {"min_value": length[0], "max_value": length[1]}
    meta = {"low_cardinality": low_cardinality, "wire": wire, "default": default}
    shaping = {
        "alias": alias, "path": path, "format": format, "zone": zone, "lower": lower or None, "strip": strip or None,
        "nulls": nulls, "constant": constant, "derive": derive, "hashed": hashed, "landed": None if landed else landed,
    }  # fmt: skip
    growth = {"since": since, "was": was, "retired": retired, "moved_to": moved_to}
    meta |= {name: value for name, value in (shaping | growth).items() if value is not None}
    return pa.Field(nullable=not required, description=description, metadata=meta, **checks)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a contract, as all derived schemas see it."""

    name: str
    dtype: pl.DataType
    wire: Wire
    nullable: bool
    description: str
    low_cardinality: bool
    default: Any
    checks: Sequence[tuple[str, dict[str, Any]]]
    shape: Shape | None = None
    growth: Growth = ALWAYS


@dataclass(frozen=True)
class Contract:
    """A versioned contract of one stream.

    Attributes:
        name: Name of the stream, and of its lake and warehouse tables.
        version: Version of the contract; every rejected row records it.
        model: The Pandera model with the columns.
        key: Column that identifies a record for its producer. It may repeat, if a producer sends a record
            twice.
        time: Column with the time of the event; must lie in the window of ``Limits``.
        partition: Derived column, the UTC date of ``time``.
        order_by: Sorting key of the raw warehouse table: the columns that the marts filter by first.
        unknown: Policy for top-level fields that the model does not name. ``count``: the rest of the record
            lands, and a check warns with the names of the fields. ``reject``: each of them is a reason to
            reject the record. ``keep``: they land as a JSON object in the column ``_extra``.
        transform: Function of a frame of all fields, after their declared shaping, that returns as many rows in
            the same order with at least these columns. A record that it fails on is rejected.
        oldest: Oldest version that is accepted from producers.
        claims: Field in which a record says its version, by which it is then judged; None if producers say none.
            A record that says none is judged by the newest version.
    """

    name: str
    version: int
    model: type[pa.DataFrameModel]
    key: str
    time: str
    partition: str
    order_by: tuple[str, ...]
    unknown: Policy = "count"
    transform: Transform | None = None
    oldest: int = 1
    claims: str | None = None

    def __post_init__(self) -> None:
        """Refuse a contract that Headrace cannot land, at its declaration.

        Raises:
            Fatal: The contract has faults; the message names contract, field, value and choices.
        """
        # a test tries the checks of Headrace's own models, so that commands need not
        own = getattr(self.model, "__module__", "").startswith("headrace.contracts.")
        found = faults(self, asking=not own)
        if found:
            raise Fatal(f"contract {self.name!r}: {'; '.join(found)}")

    @property
    def accepted(self) -> range:
        """The versions that are accepted from producers."""
        return range(self.oldest, self.version + 1)

    def at(self, version: int) -> Contract:
        """Return the contract as it was at a version: with its names, dtypes and checks, and the tables of then.

        Expressions are those of now: a ``derive`` or ``transform`` of a field that had another name does not find it.

        Args:
            version: A version from 1 to this one.

        Raises:
            ValueError: There is no such version.
        """
        if version not in range(1, self.version + 1):
            raise ValueError(f"contract {self.name!r} has versions 1 to {self.version}, not {version!r}")
        if version == self.version:
            return self
        found = object.__new__(type(self))  # what was right then is not declared again
        found.__dict__.update({one.name: getattr(self, one.name) for one in fields_of(self)})
        found.__dict__.update(version=version, oldest=min(self.oldest, version))
        return found

    @cached_property
    def schema(self) -> pa.DataFrameSchema:
        """The Pandera schema at this version, without the time window, which depends on the moment."""
        return schema_at(self.model.to_schema(), self.version)

    @cached_property
    def fields(self) -> tuple[Column, ...]:
        """All fields of the model that this version has, also those that it has retired."""
        found = (_column(name, column) for name, column in self.schema.columns.items())
        return tuple(replace(c, default=self.version) if c.name == self.claims else c for c in found)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The fields that land: columns of the tables."""
        return tuple(c for c in self.fields if c.shape is None or c.shape.landed)

    @cached_property
    def read_columns(self) -> tuple[Column, ...]:
        """The fields that are read from a message, rather than computed."""
        return tuple(c for c in self.fields if c.shape is None or not c.shape.computed)

    @cached_property
    def shaping(self) -> Shaping | None:
        """What the fields declare about shaping, worked out once; None if they declare nothing."""
        return shaping_of(self)

    @cached_property
    def wire_fields(self) -> tuple[WireField, ...]:
        """The fields that the decoder reads from a message, each name once."""
        if self.shaping is not None:
            return self.shaping.plan.top.fields
        found = map(wire_field, self.fields)
        return tuple(replace(f, marked=True) if f.name in self.marked else f for f in found)

    @cached_property
    def history(self) -> History | None:
        """What the check needs to know of earlier versions, worked out once; None if it judges all records alike."""
        return history_of(self)

    @cached_property
    def judges(self) -> bool:
        """Whether the check looks at the versions of records."""
        return self.claims is not None or self.history is not None

    @property
    def marked(self) -> frozenset[str]:
        """Names in a message of which the decoder says whether a record has them."""
        return self.history.marked if self.history is not None else frozenset()

    @cached_property
    def landed_schema(self) -> pl.Schema:
        """Columns of ``CheckedBatch.good`` and of the lake table: the contract's, the partition's and the origin's."""
        own: dict[str, Any] = {c.name: landed(c.dtype) for c in self.columns}
        if self.unknown == "keep":
            own[EXTRA] = pl.String()
        return pl.Schema({**own, self.partition: pl.Date(), **ORIGIN_SCHEMA})

    @cached_property
    def casts(self) -> dict[str, pl.DataType]:
        """Columns that land in another dtype than the contract's."""
        return {c.name: landed(c.dtype) for c in self.columns if landed(c.dtype) != c.dtype}

    @cached_property
    def table(self) -> Table:
        """The table of good rows, the same in lake and warehouse."""
        extra = frozenset({EXTRA} if self.unknown == "keep" else ())
        since = [c for c in self.columns if c.growth.since > 1]
        return Table(
            name=self.name,
            schema=self.landed_schema,
            partition=self.partition,
            order_by=self.order_by,
            nullable=frozenset(c.name for c in self.columns if _ever_null(c) and c.wire not in EMPTY)
            | _NULLABLE_ORIGINS
            | extra,
            low_cardinality=frozenset(c.name for c in self.columns if c.low_cardinality or c.wire == "enum")
            | _FEW_ORIGINS,
            nested=frozenset(c.name for c in self.columns if c.wire in _NESTED),
            uuids=frozenset(c.name for c in self.columns if c.wire == "uuid"),
            distinct=frozenset(c.name for c in self.columns if c.wire in _DISTINCT)
            | {self.key, *extra, *_OWN_ORIGINS},
            ranges=("_ingested_at",),
            description=(self.model.__doc__ or "").strip(),
            comments={
                **{c.name: c.description for c in self.columns},
                **dict.fromkeys(extra, "fields that the contract does not name, a JSON object"),
            },
            version=self.version,
            renamed={c.name: names for c in self.columns if (names := c.growth.earlier(c.name))},
            fills={c.name: [] if c.wire in EMPTY else c.default for c in since if _filled(c)},
            retired=frozenset(c.name for c in self.columns if c.growth.retired is not None),
            description_json=text_of(described(self)),
            key=self.key,
        )

    @cached_property
    def rejected_table(self) -> Table:
        """The table of records that this contract refused, the same in lake and warehouse."""
        return Table(
            name=f"{self.name}_rejected",
            schema=REJECTED_SCHEMA,
            partition="rejected_date",
            order_by=("_ingested_at", "_cursor"),
            nullable=frozenset({"payload", "message_timestamp"}) | _NULLABLE_ORIGINS,
            low_cardinality=frozenset({"contract"}) | _FEW_ORIGINS,
            distinct=frozenset({"payload", "message_timestamp"}) | _OWN_ORIGINS,
            description=f"Records that contract {self.name} v{self.version} refused, with every reason",
            comments={"payload": "the untouched bytes", "reasons": "every check that failed"},
        )


def wire_field(column: Column, name: str | None = None) -> WireField:
    """Return the field of a message that feeds a column, under another name if it has one there."""
    low, high = INT_RANGE.get(column.dtype, (0, 0))
    kind = kind_of(column.wire, column.dtype)
    return WireField(name or column.name, kind, low, high, marked=column.default is not None)


def _ever_null(column: Column) -> bool:
    """Tell whether rows of any version may have null in a column."""
    came_later = column.growth.since > 1 and column.default is None
    return (
        column.nullable
        or came_later
        or any(was.given.get("required") is False for _, was in column.growth.was)
    )


def _filled(column: Column) -> bool:
    return column.wire in EMPTY or column.default is not None


def _column(name: str, column: Any) -> Column:
    meta = column.metadata or {}
    growth = meta.get(GROWTH, ALWAYS)
    dtype = instance(column.dtype.type)
    return Column(
        name=name,
        dtype=dtype,
        wire=meta.get("wire") or wires_of(dtype)[0],
        nullable=column.nullable,
        description=column.description or "",
        low_cardinality=bool(meta.get("low_cardinality")),
        default=meta.get("default"),
        checks=[(c.name, dict(c.statistics or {})) for c in column.checks],
        shape=_aliased(shape_of(meta), growth.earlier(name)),
        growth=growth,
    )


def _aliased(shape: Shape | None, earlier: tuple[str, ...]) -> Shape | None:
    """Add the earlier names of a field to those that it has in a message."""
    if not earlier or (shape is not None and (shape.computed or shape.path)):
        return shape
    found = shape or Shape()
    return replace(found, alias=tuple(dict.fromkeys((*found.alias, *earlier))))
