"""Recognise single records that a contract surely accepts, in about a microsecond each.

``check_batch`` judges in columns: what a batch costs before its first record is some milliseconds, which is nothing
for ten thousand records and too much for one that somebody waits for. So a struct of msgspec's is derived from a
contract, which takes only records of which there is no doubt. What it does not take is for ``check_batch`` to judge;
nothing is rejected here.

Accepted records are written anew, so a spelling of a value that only one of the two readers knows cannot matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import polars as pl

from headrace.contracts.base import Column, Contract
from headrace.contracts.builtin_checks import builtin
from headrace.contracts.check import Limits
from headrace.contracts.dtypes import INT_RANGE
from headrace.core.batch import STRING_MAP, UTC_MICROS

#: Times beyond these are left to ``check_batch``: near the ends of a calendar, zones matter.
_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
#: A clock that is later than this is left to ``check_batch``, too.
_MOST_LATE = timedelta(days=36_500)
#: Values of a column that are remembered as accepted; beyond that they are forgotten, not distrusted.
_MOST_KNOWN = 4_096
_BOUNDS = {
    "greater_than_or_equal_to": ("min_value", "ge"),
    "less_than_or_equal_to": ("max_value", "le"),
    "greater_than": ("min_value", "gt"),
    "less_than": ("max_value", "lt"),
}
_ABSENT = msgspec.UNSET


class Plain:
    """Reads records that a contract surely accepts. ``of`` makes one; one thread reads, another may call ``learn``.

    Attributes:
        key: Attribute of a record with the contract's key.
        time: Attribute with the contract's time.
        names: Attribute by field.
    """

    def __init__(
        self, contract: Contract, limits: Limits, members: list[tuple[str, Any, Any]], given: Collection[str]
    ) -> None:
        """Derive the decoder; ``of`` says whether a contract has one."""
        self._earliest, self._ahead = max(limits.event_time_min, _FIRST), limits.event_time_ahead
        self.names = {column.name: member[0] for column, member in zip(contract.fields, members, strict=True)}
        self.key, self.time = self.names[contract.key], self.names[contract.time]
        struct = msgspec.defstruct(
            "Plain",
            members,
            gc=False,
            omit_defaults=True,
            forbid_unknown_fields=True,
            kw_only=True,
            rename={attribute: name for name, attribute in self.names.items()},
        )
        self._decode = msgspec.json.Decoder(struct).decode
        self._encode = msgspec.json.Encoder().encode
        fields = contract.fields
        self._objects = [(self.names[c.name], _longest(contract, c)) for c in fields if c.wire == "object"]
        self._times = [
            self.names[c.name] for c in fields if c.wire == "time" and c.name not in (contract.time, *given)
        ]
        matched = [c.name for c in fields if "str_matches" in dict(_checks(contract, c) or ())]
        self._known: dict[str, set[str]] = {name: set() for name in matched}
        self._patterns = [(self.names[name], known) for name, known in self._known.items()]

    @classmethod
    def of(cls, contract: Contract, limits: Limits, given: Collection[str] = ()) -> Plain | None:
        """Return the decoder of a contract; None if only ``check_batch`` can judge its records.

        Args:
            contract: The contract.
            limits: What the check accepts beside it.
            given: Fields whose values are replaced before a record is written.
        """
        schema = contract.schema
        if contract.transform or contract.shaping or contract.history or schema.checks or schema.unique:
            return None
        members = [_member(contract, n, column) for n, column in enumerate(contract.fields)]
        found = [member for member in members if member is not None]
        return cls(contract, limits, found, given) if len(found) == len(members) else None

    def read(self, raw: bytes | msgspec.Raw) -> Any:
        """Return a record of which only its time remains to be judged; None if there is any doubt.

        Args:
            raw: JSON in UTF-8.
        """
        try:
            record = self._decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return None
        for attribute, known in self._patterns:
            value = getattr(record, attribute)
            if value not in known and value is not _ABSENT and value is not None:
                return None
        for attribute, most in self._objects:
            value = getattr(record, attribute)
            if value is not _ABSENT and not _is_object(value, most):
                return None
        for attribute in self._times:
            value = getattr(record, attribute)
            if isinstance(value, datetime) and not _FIRST <= value < _LAST:
                return None
        return record

    def read_all(self, raws: Sequence[bytes | msgspec.Raw]) -> list[Any]:
        """Return what ``read`` returns of each record; values of a column are looked at together, which is faster."""
        decode = self._decode
        found: list[Any] = []
        for raw in raws:
            try:
                found.append(decode(raw))
            except (msgspec.DecodeError, RecursionError):
                found.append(None)
        good = [record for record in found if record is not None]
        if all(self._surely(good)):
            return found
        return [None if record is None else self.read(raw) for record, raw in zip(found, raws, strict=True)]

    def _surely(self, records: Sequence[Any]) -> Iterator[bool]:
        """Yield for each column whether its values are accepted in all records."""
        for attribute, known in self._patterns:
            yield {*map(attrgetter(attribute), records)} <= known | {_ABSENT, None}
        for attribute, most in self._objects:
            values = [bytes(v) for v in map(attrgetter(attribute), records) if v is not _ABSENT]
            yield not values or _are_objects(values, most)
        for attribute in self._times:
            times = [t for t in map(attrgetter(attribute), records) if isinstance(t, datetime)]
            yield not times or (min(times) >= _FIRST and max(times) < _LAST)

    def all_timely(self, records: Sequence[Any], now: datetime) -> bool:
        """Tell whether the times of all records lie in the window that is accepted at a moment."""
        times = [*map(attrgetter(self.time), records)]
        return not times or (self._earliest <= min(times) and max(times) <= now + self._ahead)

    def timely(self, record: Any, now: datetime, late: timedelta | None = None) -> bool:
        """Tell whether a record's time lies in the window that is accepted at a moment, and correct it before.

        Args:
            record: The record.
            now: The moment.
            late: By how much the clock of its sender is late; None if that is not known.
        """
        time: datetime = getattr(record, self.time)
        if late is not None:
            if not _FIRST <= time < _LAST or not -_MOST_LATE < late < _MOST_LATE:
                return False
            time += late
            setattr(record, self.time, time)
        return self._earliest <= time <= now + self._ahead

    def write(self, record: Any) -> bytes:
        """Return a record as JSON; its members may have been set."""
        return self._encode(record)

    def learn(self, good: pl.DataFrame) -> None:
        """Note values that ``check_batch`` has accepted where a pattern is asked for.

        Patterns are Rust's to read, not Python's, so a value is trusted once it has passed.

        Args:
            good: ``CheckedBatch.good``.
        """
        for name, known in self._known.items():
            found = {value for value in good[name].unique().to_list() if value is not None}
            if len(known) + len(found) > _MOST_KNOWN:
                known.clear()
            known.update(found)


def _member(contract: Contract, number: int, column: Column) -> tuple[str, Any, Any] | None:
    """Return attribute, type and default of a column's member; None if it is not for msgspec to judge."""
    checks = _checks(contract, column)
    kind = None if checks is None else _kind(contract, column, checks)
    if kind is None:
        return None
    may_lack = column.nullable or column.default is not None
    if column.nullable and kind is not msgspec.Raw:
        kind = kind | None
    return (
        f"f{number}",
        kind | msgspec.UnsetType if may_lack else kind,
        _ABSENT if may_lack else msgspec.NODEFAULT,
    )


def _kind(contract: Contract, column: Column, checks: list[tuple[str, Mapping[str, Any]]]) -> Any:
    """Return the type that takes only values which pass all checks of a column; None if there is none."""
    names = {name for name, _ in checks}
    if column.name == contract.claims:
        return Literal[contract.version] if not checks else None
    if column.wire == "string" and column.dtype == pl.String():
        return _text(column, checks, names)
    if column.wire in ("number", "integer") and names <= set(_BOUNDS) and len(names) == len(checks):
        return _number(column, checks)
    if checks and not (column.wire == "object" and names == {"str_length"}):
        return None
    if column.wire == "object" and column.dtype == pl.String():
        return msgspec.Raw
    if column.wire == "time" and column.dtype == UTC_MICROS:
        return Annotated[datetime, msgspec.Meta(tz=True)]
    if column.wire == "boolean":
        return bool
    return dict[str, str] if column.dtype == STRING_MAP else None


def _text(column: Column, checks: list[tuple[str, Mapping[str, Any]]], names: set[str]) -> Any:
    if len(names) != len(checks) or not names <= {"str_length", "str_matches", "isin"}:
        return None
    said = dict(checks)
    if "isin" in said:
        allowed = said["isin"]["allowed_values"]
        return Literal[tuple(allowed)] if names == {"isin"} and all(map(_is_text, allowed)) else None
    if "str_matches" in said and not column.low_cardinality:
        return None  # its values hardly repeat, so there is nothing to remember
    length = said.get("str_length", {})
    if length.get("exact_value") is not None:
        return None
    return Annotated[
        str, msgspec.Meta(min_length=length.get("min_value"), max_length=length.get("max_value"))
    ]


def _number(column: Column, checks: list[tuple[str, Mapping[str, Any]]]) -> Any:
    bounds = {_BOUNDS[name][1]: said[_BOUNDS[name][0]] for name, said in checks}
    if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in bounds.values()):
        return None
    if column.dtype == pl.Float64():
        return Annotated[float, msgspec.Meta(**bounds)] if bounds else float
    if column.dtype not in INT_RANGE:
        return None
    low, high = INT_RANGE[column.dtype]
    if bounds or high > 2**63 - 1:
        return None
    return Annotated[int, msgspec.Meta(ge=low, le=high)]


def _checks(contract: Contract, column: Column) -> list[tuple[str, Mapping[str, Any]]] | None:
    """Return name and arguments of a column's checks; None if one of them is not built in."""
    asked = contract.schema.columns[column.name]
    found = [builtin(check) for check in asked.checks]
    if asked.unique or any(one is None for one in found):
        return None
    return [one for one in found if one is not None]


def _longest(contract: Contract, column: Column) -> int:
    said = dict(_checks(contract, column) or ()).get("str_length", {})
    if said.get("exact_value") is not None or (said.get("min_value") or 0) > 2:
        return 0  # every object is in doubt
    most = said.get("max_value")
    return 2**31 if most is None else int(most)


def _is_object(value: msgspec.Raw, most: int) -> bool:
    """Tell whether a value surely is an object of at most some characters, whose text any reader takes."""
    raw = bytes(value)
    if raw[:1] != b"{" or len(raw) > most:
        return False
    if b"\\u" not in raw:
        return True
    try:  # a reader that skips a text does not see half of a surrogate pair in it
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _are_objects(values: Sequence[bytes], most: int) -> bool:
    """Tell whether all values are, as ``_is_object`` would say, unless only a look at each could tell."""
    short = max(map(len, values)) <= most
    return short and b"\\u" not in b"".join(values) and all(value.startswith(b"{") for value in values)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
