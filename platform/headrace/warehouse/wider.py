"""Find the ClickHouse type that a column needs so that old values and new ones fit.

The types form an order: more bits, null allowed, a dictionary where there was none. A column only ever goes up in it.
So processes of several versions of a contract, in whatever order they come, end with the same table, and none takes
back what another has done. Which types widen to which is ``core.widening``'s rule, the same as in contracts and lake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from headrace.core.widening import widens
from headrace.warehouse import ddl

_DECIMAL = re.compile(r"Decimal\((\d+), (\d+)\)")
#: Scalar types that contracts make, and that widen by ``core.widening``'s rule.
_DTYPES: dict[str, pl.DataType] = {
    one: dtype()
    for one, dtype in {
        "Bool": pl.Boolean, "Float32": pl.Float32, "Float64": pl.Float64,
        "Int8": pl.Int8, "Int16": pl.Int16, "Int32": pl.Int32, "Int64": pl.Int64,
        "UInt8": pl.UInt8, "UInt16": pl.UInt16, "UInt32": pl.UInt32, "UInt64": pl.UInt64,
    }.items()
}  # fmt: skip
#: Scalar types that contracts make beside those, each with what it widens to.
_OTHERS = {"String": (), "UUID": ("String",), "Date": ("Date32",), "Date32": (), "DateTime64(6, 'UTC')": ()}
_NESTED = ("Array", "Map", "Tuple")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A type, taken apart.

    Attributes:
        name: ``Array``, ``Map``, ``Tuple`` or the text of a scalar type.
        nullable: Whether it takes null.
        low: Whether it is stored as a dictionary.
        members: Names (empty but in a tuple) and types of what is within.
    """

    name: str
    nullable: bool = False
    low: bool = False
    members: tuple[tuple[str, _Kind], ...] = ()

    def __str__(self) -> str:
        text = self.name
        if self.members:
            within = (f"{ddl.quoted(name)} {kind}" if name else str(kind) for name, kind in self.members)
            text = f"{self.name}({', '.join(within)})"
        text = f"Nullable({text})" if self.nullable else text
        return f"LowCardinality({text})" if self.low else text


def wider(there: str, wanted: str) -> str | None:
    """Return the narrowest type that takes the values of both; None if neither widens to the other.

    A type that no contract makes, which somebody has chosen by hand (``Enum8``, ``DateTime64(3)``), is returned as it
    is: the server decides what it takes.

    Args:
        there: Type of the column.
        wanted: Type that a contract gives it.
    """
    before, found = _parsed(there), _wider(_parsed(there), _parsed(wanted))
    return None if found is None else there if found == before else str(found)


def narrows(there: str, wanted: str) -> bool:
    """Tell whether a contract wants fewer values than a column takes, null and dictionaries apart."""
    before, after = _bare(_parsed(there)), _bare(_parsed(wanted))
    return before != after and _wider(before, after) == before and _is_known(before)


def only_encoded(there: str, other: str) -> bool:
    """Tell whether two types differ in nothing but dictionaries."""
    return _plain(_parsed(there)) == _plain(_parsed(other))


def nullable(there: str) -> str:
    """Return a type with null allowed; lists, maps and tuples as they are."""
    kind = _parsed(there)
    return there if kind.nullable or kind.name in _NESTED else str(replace(kind, nullable=True))


def bare(there: str) -> str:
    """Return a type without null and dictionaries of its own."""
    return str(replace(_parsed(there), nullable=False, low=False))


def _bare(kind: _Kind) -> _Kind:
    members = tuple((name, _bare(one)) for name, one in kind.members)
    return replace(kind, nullable=False, low=False, members=members)


def _plain(kind: _Kind) -> _Kind:
    return replace(kind, low=False, members=tuple((name, _plain(one)) for name, one in kind.members))


def _wider(there: _Kind, wanted: _Kind) -> _Kind | None:
    if not _is_known(there):
        return there
    if there.name in _NESTED or wanted.name in _NESTED:
        members = _members(there, wanted) if there.name == wanted.name else None
        return None if members is None else replace(there, members=members)
    name = _scalar(there.name, wanted.name)
    if name is None:
        return None
    return _Kind(name, there.nullable or wanted.nullable, there.low or wanted.low)


def _members(there: _Kind, wanted: _Kind) -> tuple[tuple[str, _Kind], ...] | None:
    """Widen member by member: those that are there in their order, then new ones of a tuple."""
    if there.name != "Tuple":
        pairs = zip(there.members, wanted.members, strict=True)
        found = [("", _wider(one, other)) for (_, one), (_, other) in pairs]
    else:
        new = dict(wanted.members)
        known = {name for name, _ in there.members}
        found = [(name, _wider(kind, new.get(name, kind))) for name, kind in there.members]
        found += [(name, kind) for name, kind in wanted.members if name not in known]
    members = tuple((name, kind) for name, kind in found if kind is not None)
    return members if len(members) == len(found) else None


def _scalar(there: str, wanted: str) -> str | None:
    if there == wanted or there in _OTHERS.get(wanted, ()):
        return there
    if wanted in _OTHERS.get(there, ()):
        return wanted
    old, new = _dtype(there), _dtype(wanted)
    if old is None or new is None:
        return None
    return wanted if widens(old, new) else there if widens(new, old) else None


def _dtype(name: str) -> pl.DataType | None:
    if found := _DECIMAL.fullmatch(name):
        return pl.Decimal(int(found[1]), int(found[2]))
    return _DTYPES.get(name)


def _is_known(kind: _Kind) -> bool:
    if kind.name in _NESTED:
        return all(_is_known(one) for _, one in kind.members)
    return kind.name in _OTHERS or _dtype(kind.name) is not None


def _parsed(text: str) -> _Kind:
    head, _, rest = text.partition("(")
    if head in ("LowCardinality", "Nullable"):
        within = _parsed(rest[:-1])
        return replace(within, low=True) if head == "LowCardinality" else replace(within, nullable=True)
    if head not in _NESTED:
        return _Kind(text)
    if head == "Tuple":
        return _Kind(head, members=tuple(_member(one) for one in _split(rest[:-1])))
    return _Kind(head, members=tuple(("", _parsed(one)) for one in _split(rest[:-1])))


def _member(text: str) -> tuple[str, _Kind]:
    named = re.match(r"`((?:[^`\\]|\\.)*)` |(\w+) ", text)
    if named is None:
        return "", _parsed(text)
    name = re.sub(r"\\(.)", r"\1", named[1]) if named[1] is not None else named[2]
    return name, _parsed(text[named.end() :])


def _split(text: str) -> Iterator[str]:
    """Split what is between a type's brackets at its own commas."""
    depth, begin, literal = 0, 0, ""
    for at, sign in enumerate(text):
        if literal:
            literal = "" if sign == literal and text[at - 1] != "\\" else literal
        elif sign in "'`":
            literal = sign
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "," and not depth:
            yield text[begin:at].strip()
            begin = at + 1
    yield text[begin:].strip()
