"""Judge each record by the version of the contract that it claims, in one batch.

A batch is decoded once, as the newest version reads it: its types are the widest, and it knows the names of all
versions. Then the records of an older version are brought to what that version would have read, in columns. Where that
cannot be told from the columns (a reason was found, a name occurs that the version does not know, a value is beyond
its type of then), the record is read again, from its bytes, as the contract was: rarely, because producers mostly send
what their version says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.contracts.growth.history import History, Retired, Version, names_of
from headrace.contracts.growth.recast import recast
from headrace.contracts.unknown import CHECK as UNKNOWN_FIELD
from headrace.contracts.unknown import added
from headrace.contracts.wire.decoded import Decoded, Failures
from headrace.contracts.wire.records import payloads_of

if TYPE_CHECKING:
    from headrace.contracts.base import Column, Contract

#: Name of the check that a record fails which claims a version that is not accepted.
KNOWN_VERSION = "known_version"
#: Reads records as a contract says, without what it computes from them.
Read = Callable[["Contract", pl.DataFrame], Decoded]
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Mask = npt.NDArray[np.bool_]


def known_version(contract: Contract) -> str:
    """Return the name of the check of claimed versions, with those that are accepted."""
    first, last = contract.oldest, contract.version
    return f"{KNOWN_VERSION}({first})" if first == last else f"{KNOWN_VERSION}({first}..{last})"


def judged(contract: Contract, records: pl.DataFrame, decoded: Decoded, read: Read) -> pl.Series | None:
    """Bring decoded records to what the version of each would have read; note those that claim an unknown one.

    Args:
        contract: The newest version.
        records: ``MicroBatch.records``.
        decoded: Its records, as the newest version reads them. Gets the values of each record's version, in the
            columns of the newest, and that version's reasons, with the columns' newest names.
        read: Reads records as another version does.

    Returns:
        The version that judges each record; None if the newest judges all.
    """
    versions = _versions(contract, decoded)
    history = contract.history
    if history is None:
        return versions
    present = versions.unique().to_list() if versions is not None else []
    for number in present:
        if number in history.versions:
            rows = None if len(present) == 1 else (versions == number).to_numpy()  # type: ignore[union-attr]
            _as_then(contract, history, history.versions[number], records, decoded, rows, read)
    for retired in history.retired:
        _retire(retired, records, decoded, versions)
    return versions


def _versions(contract: Contract, decoded: Decoded) -> pl.Series | None:
    """Return the version that each record is judged by; None if it is the newest for all."""
    if contract.claims is None:
        return None
    claimed = decoded.rows[contract.claims]
    if (claimed == contract.version).all():  # null claims nothing
        return None
    unknown = ~claimed.is_between(contract.oldest, contract.version)
    for row in unknown.arg_true():
        decoded.failures.add(row, known_version(contract), contract.claims, str(claimed[row]))
    found = claimed.set(unknown.fill_null(True), contract.version).cast(pl.Int32)
    return None if (found == contract.version).all() else found


def _as_then(
    contract: Contract,
    history: History,
    then: Version,
    records: pl.DataFrame,
    decoded: Decoded,
    rows: _Mask | None,
    read: Read,
) -> None:
    """Bring the records of one version to what it would have read.

    Args:
        contract: The newest version.
        history: Its history.
        then: The version.
        records: The messages.
        decoded: Their records.
        rows: The records of this version; None for all.
        read: Reads records as a version does.
    """
    doubted = _failed(decoded)
    for name in then.strange:
        doubted |= ~decoded.absent[name].to_numpy()
    changed = []
    columns = {column.name: column for column in contract.read_columns}
    for name, dtype in then.narrower.items():
        values = decoded.rows[name]
        kept = recast(recast(values, dtype), values.dtype)
        differs = kept.ne_missing(values)
        if differs.any():
            doubted |= differs.to_numpy()
        changed.append(kept if rows is None else kept.zip_with(pl.Series(rows), values))
    if changed:
        decoded.rows = decoded.rows.with_columns(changed)
    for name in then.defaults:
        _default(columns[name], then.defaults[name], decoded, rows, doubted)
    for name in then.emptied:
        sizes = decoded.rows[name].list.len()
        doubted |= (sizes.is_null() | (sizes == 0)).to_numpy()
    for name in then.later:
        _empty(name, decoded, rows)
    if rows is not None:
        doubted &= rows
    if doubted.any():
        _read_again(contract, history, then, records, decoded, doubted, read)


def _failed(decoded: Decoded) -> _Mask:
    found = np.zeros(decoded.rows.height, np.bool_)
    found[decoded.failures.row] = True
    return found


def _default(column: Column, default: object, decoded: Decoded, rows: _Mask | None, doubted: _Mask) -> None:
    """Put the default of then into the records that lack a field."""
    if column.shape is not None and column.shape.path:
        doubted |= True  # whether a nested place is absent is not known here
        return
    lacking = np.logical_and.reduce([decoded.absent[name].to_numpy() for name in names_of(column)])
    if rows is not None:
        lacking = lacking & rows
    if lacking.any():
        values = pl.Series([default], dtype=column.dtype).new_from_index(0, decoded.rows.height)
        found = values.zip_with(pl.Series(lacking), decoded.rows[column.name])
        decoded.rows = decoded.rows.with_columns(found.alias(column.name))


def _empty(name: str, decoded: Decoded, rows: _Mask | None) -> None:
    """Put an empty list or map into the records that lack it."""
    values = decoded.rows[name]
    lacking = values.is_null() if rows is None else values.is_null() & pl.Series(rows)
    if lacking.any():
        empty = pl.Series([[]], dtype=values.dtype).new_from_index(0, len(values))
        decoded.rows = decoded.rows.with_columns(empty.zip_with(lacking, values).alias(name))


def _read_again(
    contract: Contract,
    history: History,
    then: Version,
    records: pl.DataFrame,
    decoded: Decoded,
    doubted: _Mask,
    read: Read,
) -> None:
    """Read records from their bytes as a version did, and put them in the place of what was read."""
    mask = pl.Series(doubted)
    payloads = payloads_of(records["payload"], decoded, mask)
    again = read(then.contract, records[decoded.message.filter(mask)].with_columns(payload=payloads))
    at = np.flatnonzero(doubted)
    grown = _grown(contract, then, again.rows).select(decoded.rows.columns)
    order = np.arange(decoded.rows.height)
    order[at] = decoded.rows.height + np.arange(at.size)
    decoded.rows = pl.concat([decoded.rows, grown], rechunk=True)[order]
    newest = {name: now for now, name in then.names.items()}
    failures = _without(decoded.failures, lambda row, check, column: doubted[row])
    for row, check, column, value in zip(
        again.failures.row, again.failures.check, again.failures.column, again.failures.value, strict=True
    ):
        failures.add(
            int(at[row]), check, column if check == UNKNOWN_FIELD else renamed(column, newest), value
        )
    decoded.failures = failures
    strange = {name: count for name, count in again.unknown.items() if name in history.known}
    decoded.unknown = added(decoded.unknown, strange) if strange else decoded.unknown


def _grown(contract: Contract, then: Version, rows: pl.DataFrame) -> pl.DataFrame:
    """Return records of a version in the columns of the newest one."""
    columns = []
    for column in contract.read_columns:
        if column.name in then.names:
            found = recast(rows[then.names[column.name]], column.dtype)
        else:
            value = [] if column.wire in ("map", "list") else column.default
            found = pl.Series([value], dtype=column.dtype).new_from_index(0, rows.height)
        columns.append(found.alias(column.name))
    others = [name for name in rows.columns if name.startswith("_")]
    return pl.DataFrame(columns).hstack(rows.select(others))


def _retire(retired: Retired, records: pl.DataFrame, decoded: Decoded, versions: pl.Series | None) -> None:
    """Leave out a field's values and reasons in records of versions that have retired it."""
    column = retired.column
    rows = (
        pl.Series([True]).new_from_index(0, decoded.rows.height)
        if versions is None
        else versions >= retired.first
    )
    moved = _moved(retired, records, decoded, rows)
    wrong = decoded.failures.column and any(_base(one) == column.name for one in decoded.failures.column)
    if wrong:
        among = rows.to_numpy()
        decoded.failures = _without(
            decoded.failures,
            lambda row, check, name: among[row] and _base(name) == column.name and check != UNKNOWN_FIELD,
        )
    values = decoded.rows[column.name]
    if (values.list.len() > 0).any() if column.wire in ("map", "list") else values.null_count() < len(values):
        nothing: list[object] | None = [] if column.wire in ("map", "list") else None
        empty = pl.Series([nothing], dtype=column.dtype).new_from_index(0, len(values))
        moved.append(empty.zip_with(rows, values).alias(column.name))
    if moved:
        decoded.rows = decoded.rows.with_columns(moved)


def _moved(retired: Retired, records: pl.DataFrame, decoded: Decoded, rows: pl.Series) -> list[pl.Series]:
    """Put the values of a retired field into the JSON object that it has moved to; what is there stays."""
    into = retired.column.growth.moved_to
    if not into:
        return []
    sent = np.logical_or.reduce([~decoded.absent[name].to_numpy() for name in retired.names])
    sent &= rows.to_numpy() & ~_failed_whole(decoded)
    if not sent.any():
        return []
    mask = pl.Series(sent)
    objects = decoded.rows[into]
    found = [
        _with_member(text, payload, retired)
        for text, payload in zip(
            objects.filter(mask), payloads_of(records["payload"], decoded, mask), strict=True
        )
    ]
    return [objects.scatter(np.flatnonzero(sent), pl.Series(found, dtype=pl.String)).alias(into)]


def _with_member(text: str | None, payload: bytes, retired: Retired) -> str | None:
    try:
        members = _MEMBERS.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a reason says so already
        return text
    null = msgspec.Raw(b"null")
    value = next((v for name in retired.names if bytes(v := members.get(name, null)) != b"null"), None)
    if value is None:
        return text
    own = _MEMBERS.decode(text) if text is not None else {}
    return msgspec.json.encode({retired.column.name: value} | own).decode()


def _failed_whole(decoded: Decoded) -> _Mask:
    found = np.zeros(decoded.rows.height, np.bool_)
    found[
        [row for row, column in zip(decoded.failures.row, decoded.failures.column, strict=True) if not column]
    ] = True
    return found


def _without(failures: Failures, left_out: Callable[[int, str, str], object]) -> Failures:
    found = Failures()
    for row, check, column, value in zip(
        failures.row, failures.check, failures.column, failures.value, strict=True
    ):
        if not left_out(row, check, column):
            found.add(row, check, column, value)
    return found


def _base(column: str) -> str:
    """Return the column of a path in it, such as ``address.zip`` or ``tags[]``."""
    return column.partition(".")[0].partition("[")[0]


def renamed(column: str, names: dict[str, str]) -> str:
    """Return a column, or a path in it, under the column's other name."""
    base = _base(column)
    return names.get(base, base) + column[len(base) :]


def in_own_words(contract: Contract, reasons: pl.DataFrame, versions: pl.Series | None) -> pl.DataFrame:
    """Name the columns of reasons as the version does that judged the record; of an unknown version, say only that.

    Args:
        contract: The newest version.
        reasons: Row, check, column and value.
        versions: The version that judged each record.
    """
    unknown = reasons["check"].str.starts_with(f"{KNOWN_VERSION}(")
    if unknown.any():
        alone = reasons["row"].is_in(reasons["row"].filter(unknown).implode())
        reasons = reasons.filter(unknown | ~alone)
    if versions is None or contract.history is None or reasons.is_empty():
        return reasons
    names = {
        number: {now: name for now, name in version.names.items() if now != name}
        for number, version in contract.history.versions.items()
    }
    if not any(names.values()):
        return reasons
    judges = versions.gather(reasons["row"]).to_list()
    said = [
        column if check == UNKNOWN_FIELD else renamed(column, names.get(judge, {}))
        for judge, check, column in zip(judges, reasons["check"], reasons["column"], strict=True)
    ]
    return reasons.with_columns(pl.Series("column", said, dtype=pl.String))
