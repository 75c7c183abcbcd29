"""Parse what is within a column: the members of objects and the elements of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.contracts.base import Column
from headrace.contracts.dtypes import WireField
from headrace.contracts.unknown import Policy
from headrace.contracts.wire.decoded import Failures, Raw
from headrace.contracts.wire.json_array import BROKEN, lone_surrogate, split
from headrace.contracts.wire.parse import parse

#: Bytes up to which a value is parsed: what is within a message is no longer than it.
_ANY_SIZE = (1 << 32) - 1
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True)
class Strangers:
    """Members of objects that their dtype does not name, and what the contract's policy makes of them.

    Attributes:
        policy: The contract's policy; without one, nobody asks.
        counts: Objects by path and name.
        kept: Row, path and JSON text of each, if they are kept.
    """

    policy: Policy | None = None
    counts: dict[str, int] = field(default_factory=dict)
    kept: list[tuple[int, str, msgspec.Raw]] = field(default_factory=list)

    def note(self, path: str, counts: Mapping[str, int], extra: pl.Series | None) -> None:
        """Note the strangers of the objects at a path, which are rows of their own."""
        for name, count in counts.items():
            self.counts[f"{path}.{name}"] = self.counts.get(f"{path}.{name}", 0) + count
        if extra is None or extra.null_count() == len(extra):
            return
        for row in extra.is_not_null().arg_true().to_list():
            strange = _MEMBERS.decode(extra[row])
            self.kept += [(row, f"{path}.{name}", value) for name, value in strange.items()]

    def above(self, deeper: Strangers, rows: npt.NDArray[np.int64]) -> None:
        """Take over what was found one level deeper, whose rows have these numbers here."""
        for name, count in deeper.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.kept += [(int(rows[row]), name, value) for row, name, value in deeper.kept]


#: Types the values at a path; see ``typed``.
Convert = Callable[[str, pl.Series, Failures, Strangers], pl.Series]


def structs_of(
    column: Column,
    raw: pl.Series,
    fields: Mapping[str, WireField],
    failures: Failures,
    strangers: Strangers,
    convert: Convert,
) -> pl.Series:
    """Turn JSON objects into structs; a null stays null."""
    known = raw.is_not_null()
    rows = known.arg_true().to_numpy().astype(np.int64)
    found, deeper = Failures(), Strangers(strangers.policy)
    objects = _parsed(column.name, list(fields.values()), raw.filter(known), found, deeper)
    members = [
        convert(path, objects.fields[field.name], found, deeper).alias(field.name)
        for path, field in fields.items()
    ]
    failures.take(found, rows)
    strangers.above(deeper, rows)
    structs = pl.DataFrame(members).to_struct().cast(column.dtype)
    if len(rows) == len(raw):
        return structs
    at = pl.Series(np.cumsum(known.to_numpy()) - 1)
    return structs.gather(at.set(~known, None))


def lists_of(
    column: Column,
    raw: pl.Series,
    path: str,
    wire: WireField,
    failures: Failures,
    strangers: Strangers,
    convert: Convert,
) -> pl.Series:
    """Turn JSON arrays into lists; a null stays null."""
    from headrace.contracts.wire.json_columns import elements  # see parse

    known = raw.is_not_null()
    if known.all():
        texts, sizes = elements(raw)
    else:
        texts, within = elements(raw.filter(known))
        sizes = np.zeros(len(raw), np.int64)
        sizes[known.to_numpy()] = within
    if (sizes < 0).any():  # no array, or one that is left to msgspec
        texts, sizes = _split(column, raw, failures)
    return _grouped(
        column,
        known & pl.Series(sizes >= 0),
        texts,
        sizes,
        None,
        (path, wire),
        (failures, strangers),
        convert,
    )


def maps_of(
    column: Column,
    raw: pl.Series,
    path: str,
    wire: WireField,
    failures: Failures,
    strangers: Strangers,
    convert: Convert,
) -> pl.Series:
    """Turn JSON objects into maps; a null stays null. Of a key that is there twice, the last value counts."""
    known = raw.is_not_null()
    keys: list[str] = []
    texts: list[bytes] = []
    sizes = np.zeros(len(raw), np.int64)
    for row, text in enumerate(raw.to_list()):
        if text is None:
            continue
        try:
            pairs = _MEMBERS.decode(text)
        except BROKEN as error:
            failures.add(row, "json", column.name, lone_surrogate(text.encode()) or str(error))
            continue
        keys += pairs
        texts += map(bytes, pairs.values())
        sizes[row] = len(pairs)
    values = pl.Series(texts, dtype=pl.Binary).cast(pl.String)
    names = pl.Series("key", keys, dtype=pl.String)
    return _grouped(column, known, values, sizes, names, (path, wire), (failures, strangers), convert)


def _grouped(
    column: Column,
    known: pl.Series,
    texts: pl.Series,
    sizes: npt.NDArray[np.int64],
    keys: pl.Series | None,
    inner: tuple[str, WireField],
    noted: tuple[Failures, Strangers],
    convert: Convert,
) -> pl.Series:
    """Type the elements and put them into lists of these sizes."""
    (path, wire), (failures, strangers) = inner, noted
    sizes = np.maximum(sizes, 0)
    found, deeper = Failures(), Strangers(strangers.policy)
    wrapped = _wrapped(texts)
    parsed = _parsed(f"{column.name}{path}", [wire], wrapped, found, deeper, named=False)
    values = convert(path, parsed.fields[wire.name], found, deeper)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    failures.take(found, rows)
    if deeper.kept:
        first = np.cumsum(sizes) - sizes
        deeper.kept = [
            (
                row,
                _placed(name, f"{column.name}{path}", _place(row, row - int(first[rows[row]]), keys)),
                value,
            )
            for row, name, value in deeper.kept
        ]
    strangers.above(deeper, rows)
    if keys is not None:
        values = pl.DataFrame([keys, values.alias("value")]).to_struct()
    lists = in_lists(values, sizes).cast(column.dtype)
    return lists if known.all() else lists.set(~known, None)


def _place(row: int, index: int, keys: pl.Series | None) -> str:
    return f"[{index}]" if keys is None else f".{keys[row]}"


def _placed(name: str, path: str, place: str) -> str:
    """Say which element it was, in a name that begins with the path of all of them."""
    whole = path.removesuffix("[]").removesuffix(".*")
    return f"{whole}{place}{name.removeprefix(path)}"


def in_lists(values: pl.Series, sizes: npt.NDArray[np.int64]) -> pl.Series:
    """Cut a column into lists of these sizes."""
    import pyarrow as pa

    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    arrow = values.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    found = pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets), arrow))
    assert isinstance(found, pl.Series)
    return found


def _wrapped(texts: pl.Series) -> pl.Series:
    """Make a record of each value, as the parser reads records alone."""
    frame = texts.alias("v").to_frame()
    return frame.select(pl.concat_str(pl.lit('{"v":'), "v", pl.lit("}"))).to_series()


def _parsed(
    path: str,
    fields: Sequence[WireField],
    texts: pl.Series,
    failures: Failures,
    strangers: Strangers,
    named: bool = True,
) -> Raw:
    """Parse objects; their failures get the path in front of the member's name, or instead of it."""
    found = parse(fields, strangers.policy, texts.cast(pl.Binary), _ANY_SIZE)
    for row, check, name, value in zip(
        found.failures.row, found.failures.check, found.failures.column, found.failures.value, strict=True
    ):
        failures.add(row, check, f"{path}.{name}" if named and name else path, value)
    if strangers.policy is not None:
        strangers.note(path, found.unknown, found.raw.extra)
    return found.raw


def _split(column: Column, raw: pl.Series, failures: Failures) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    """Split arrays one by one, to name every reason."""
    texts: list[bytes] = []
    sizes = np.zeros(len(raw), np.int64)
    for row, text in enumerate(raw.to_list()):
        if text is None:
            continue
        try:
            parts = split(text.encode())
        except BROKEN as error:
            check, said = "type(array)", text
            if text.startswith("["):
                check, said = "json", lone_surrogate(text.encode()) or str(error)
            failures.add(row, check, column.name, said)
            sizes[row] = -1
            continue
        texts += map(bytes, parts)
        sizes[row] = len(parts)
    return pl.Series(texts, dtype=pl.Binary).cast(pl.String), sizes
