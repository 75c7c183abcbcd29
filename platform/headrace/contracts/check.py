"""Check a micro-batch against its contract: every record becomes a good row or a rejected one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial, reduce
from operator import and_
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData

from headrace.contracts.base import Contract
from headrace.contracts.builtin_checks import builtin
from headrace.contracts.growth.history import landed_schemas, loosest
from headrace.contracts.growth.judged import in_own_words, judged
from headrace.contracts.shaping.apply import complete, consequences, read_shaped
from headrace.contracts.unknown import EXTRA
from headrace.contracts.wire.decode import decode
from headrace.contracts.wire.decoded import SHOWN, Decoded, Refusal
from headrace.contracts.wire.records import payloads_of
from headrace.contracts.wire.structs import never
from headrace.contracts.wire.unwrapped import as_sent, longest, tell, unwrapped
from headrace.core.batch import HEADERS, ORIGIN_SCHEMA, REJECTED_SCHEMA, UTC_MICROS, CheckedBatch, MicroBatch
from headrace.core.errors import Fatal

_NO_HEADERS = pl.lit([], dtype=HEADERS)
_NO_CHECKS: Mapping[str, pa.Check] = {}
#: Commas in the arrays that are checked at once. Each may be a record, and a wrong one takes up to 2 KB meanwhile.
_COMMAS = 500_000
#: Expressions of schemas, by their identity, with the schemas; and how many of them are held.
_MADE: dict[int, tuple[pa.DataFrameSchema, dict[tuple[str, ...], pl.Expr], list[tuple[str, pa.Check]]]] = {}
_MOST_MADE = 256
#: Column of the versions that judge rows, while they are checked.
_JUDGE = "_judge"
#: Name of the check that a missing value fails.
_REQUIRED = "required"
#: Reasons to reject: row, failed check, column and value.
_REASONS = {"row": pl.UInt32, "check": pl.String, "column": pl.String, "value": pl.String}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on accepted messages, beyond the contract itself.

    Attributes:
        max_message_bytes: Longer messages are rejected whole.
        event_time_min: Earliest accepted event time.
        event_time_ahead: How far an accepted event time may lie after the moment of ingestion.
        max_message_records: A message that is an array of more records is rejected whole.
    """

    max_message_bytes: int = 524_288
    event_time_min: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    event_time_ahead: timedelta = timedelta(hours=1)
    max_message_records: int = 100_000

    @property
    def max_repeated_bytes(self) -> int:
        """Bytes that key and headers of one message may take in all its rows together.

        The row of each record repeats the message's key and headers.
        """
        return 64 * self.max_message_bytes


def check_batch(
    contract: Contract, batch: MicroBatch, *, batch_id: str, now: datetime, limits: Limits
) -> CheckedBatch:
    """Decode and validate a micro-batch.

    Every message ends in ``good`` or in ``rejected``; an array may have records in both. The origins of both
    together are exactly the messages of the batch.

    Args:
        contract: What the records should be.
        batch: The messages.
        batch_id: Recorded with every row.
        now: Moment of ingestion (UTC). Every row records it, and the time window is relative to it.
        limits: See ``Limits``.
    """
    batch = unwrapped(batch, limits.max_message_bytes)
    parts = [_checked(contract, part, batch_id, now, limits) for part in _parts(batch)]
    if len(parts) == 1:
        return parts[0]
    good, rejected = (
        pl.concat(frames) for frames in zip(*((p.good, p.rejected) for p in parts), strict=True)
    )
    return CheckedBatch(good, rejected, batch_id)


def _parts(batch: MicroBatch) -> Iterator[MicroBatch]:
    """Split a batch whose arrays may hold more records than are checked at once."""
    payloads = batch.records["payload"]
    arrays = (~payloads.bin.starts_with(b"{")).fill_null(False).arg_true()
    begin = commas = 0
    for at, payload in zip(arrays, payloads[arrays], strict=True):
        commas += payload.count(b",") + 1
        if commas > _COMMAS and at > begin:
            yield replace(batch, records=batch.records[begin:at])
            begin, commas = at, payload.count(b",") + 1
    yield replace(batch, records=batch.records[begin:]) if begin else batch


def _checked(
    contract: Contract, batch: MicroBatch, batch_id: str, now: datetime, limits: Limits
) -> CheckedBatch:
    most = longest(batch, limits.max_message_bytes)
    decoded = _read(contract, batch.records, most, _Crowded(batch.records, limits))
    tell(decoded, batch.records)
    versions = None
    if contract.judges:
        versions = judged(contract, batch.records, decoded, partial(_read, max_message_bytes=most))
    if contract.shaping is not None:
        complete(contract, batch.records, decoded)
    reasons = _validate(contract, decoded, now, limits, versions)
    return _split(contract, batch, decoded, reasons, versions, batch_id, now)


def _read(
    contract: Contract, records: pl.DataFrame, max_message_bytes: int, refusal: Refusal = never
) -> Decoded:
    """Decode the columns that a contract reads from messages."""
    way = decode if contract.shaping is None else read_shaped
    return way(contract, records["payload"], max_message_bytes, refusal)


class _Crowded:
    """Decides whether a message is rejected whole because it has too many records."""

    def __init__(self, records: pl.DataFrame, limits: Limits) -> None:
        self._records = records
        self._limits = limits

    def __call__(self, message: int, count: int) -> tuple[str, str] | None:
        """Return check and value of the rejection; None if the records are validated one by one."""
        limits = self._limits
        if count > limits.max_message_records:
            return f"max_message_records({limits.max_message_records})", str(count)
        repeated = self._repeated[message]
        if count * repeated > limits.max_repeated_bytes:
            return f"max_repeated_bytes({limits.max_repeated_bytes})", f"{count} records of {repeated} bytes"
        return None

    @cached_property
    def _repeated(self) -> list[int]:
        """Bytes of key and headers by message; the row of each record repeats them."""
        header = pl.element().struct
        sizes = header["key"].str.len_bytes().fill_null(0) + header["value"].bin.size().fill_null(0)
        headers = pl.col("headers").list.eval(sizes).list.sum()
        total = pl.col("key").bin.size().fill_null(0) + headers.fill_null(0)
        return self._records.select(total).to_series().to_list()


def violations(contract: Contract, rows: pl.DataFrame) -> dict[tuple[str, str], int]:
    """Count the rows in the lake that violate their contract, by (column, check).

    There are none unless another program wrote them. The time window is left out: it holds for the moment of
    ingestion. Each row is judged by the version that it claims; where none is told, by what all versions ask.
    """
    own, strange = _as_declared(contract, rows)
    found = Counter(strange)
    for schema, part in _with_schemas(contract, own):
        helpers = [name for name in schema.columns if name not in part.columns]
        try:
            schema.remove_columns(helpers).validate(part, lazy=True)
        except pa.errors.SchemaErrors as error:
            cases = error.failure_cases.group_by("column", "check").len()
            found.update(
                {(str(column), _check_name(str(check))): n for column, check, n in cases.iter_rows()}
            )
    return dict(sorted(found.items()))


def _with_schemas(
    contract: Contract, rows: pl.DataFrame
) -> Iterator[tuple[pa.DataFrameSchema, pl.DataFrame]]:
    """Split rows by the version that judges them."""
    landed_by = landed_schemas(contract)
    if len(landed_by) == 1:
        yield contract.schema, rows
        return
    if contract.claims is None or contract.claims not in rows.columns:
        yield loosest(contract, landed_by), rows
        return
    claimed = rows[contract.claims].fill_null(0)
    for number in claimed.unique().to_list():
        schema = landed_by[number] if number in landed_by else loosest(contract, landed_by)
        yield schema, rows.filter(claimed == number)


def _as_declared(contract: Contract, rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[tuple[str, str], int]]:
    """Return rows in the dtypes of the contract, and count the values that have none there, by (column, check)."""
    columns, strange = [], {}
    for column in contract.columns:
        landed = rows[column.name]
        found = landed if landed.dtype == column.dtype else landed.cast(column.dtype, strict=False)
        if lost := found.null_count() - landed.null_count():
            strange[column.name, f"dtype({column.dtype})"] = lost
            found = found if column.nullable else found.fill_null(strategy="max")
        columns.append(found)
    return pl.DataFrame(columns), strange


def _validate(
    contract: Contract, decoded: Decoded, now: datetime, limits: Limits, versions: pl.Series | None
) -> pl.DataFrame:
    """Collect the reasons to reject rows, as ``_REASONS``: the decoder's first, then the Pandera schema's."""
    failures = decoded.failures
    reasons = pl.DataFrame(
        [failures.row, failures.check, failures.column, failures.value], schema=_REASONS, orient="col"
    )
    # the text is the same in every batch, so that rejected rows can be counted by reason
    said = f"event_time_window({limits.event_time_min:%Y-%m-%dT%H:%M:%SZ}, ingestion + {limits.event_time_ahead})"
    window = pa.Check.in_range(limits.event_time_min, now + limits.event_time_ahead, error=said)
    rows = decoded.rows.drop(EXTRA) if contract.unknown == "keep" else decoded.rows
    found = _by_version(contract, rows, versions, {contract.time: window})
    if found is None:
        return in_own_words(contract, reasons, versions) if contract.judges else reasons
    if found["index"].null_count():
        # a fault of the decoder, not of the data: dtypes are built from the contract
        case = found.filter(pl.col("index").is_null()).row(0, named=True)
        raise Fatal(f"contract {contract.name!r} does not fit its decoder: {case}")
    cases = found.select(
        pl.col("index").cast(pl.UInt32).alias("row"),
        pl.col("check").replace("not_nullable", _REQUIRED),
        "column",
        pl.col("failure_case").cast(pl.String, strict=False).fill_null("").str.slice(0, SHOWN).alias("value"),
    )
    # a value that failed to decode is null by now: the null is no second reason
    unreadable = reasons.filter(pl.col("column") == "")
    cases = cases.join(unreadable, on="row", how="anti", maintain_order="left")
    cases = cases.join(reasons, on=["row", "column"], how="anti", maintain_order="left")
    if contract.shaping is not None:
        cases = consequences(contract, cases, reasons)
    reasons = pl.concat([reasons, cases])
    return in_own_words(contract, reasons, versions) if contract.judges else reasons


def _by_version(
    contract: Contract, rows: pl.DataFrame, versions: pl.Series | None, more: Mapping[str, pa.Check]
) -> pl.DataFrame | None:
    """Return Pandera's failure cases of each row by its version; None if there are none."""
    if versions is None or contract.history is None:
        return _failures(contract.schema, rows, more)
    older = contract.history.versions
    schemas = {
        number: older[number].schema if number in older else contract.schema
        for number in versions.unique().to_list()
    }
    if len(schemas) == 1:
        return _failures(next(iter(schemas.values())), rows, more)
    # one query for all versions together: to divide a batch costs more than to check it
    suspects = _suspects_of(schemas, rows, versions, more)
    if suspects is not None:
        if not suspects.any():
            return None
        rows, versions = rows.filter(suspects), versions.filter(suspects)
    found = []
    for number, schema in schemas.items():
        mask = versions == number
        cases = _failures(schema, rows.filter(mask), more)
        if cases is not None:
            found.append(cases.with_columns(mask.arg_true().gather(cases["index"]).alias("index")))
    if not found:
        return None
    every = pl.concat(found)
    if suspects is None:
        return every
    return every.with_columns(suspects.arg_true().gather(every["index"]).alias("index"))


def _suspects_of(
    schemas: Mapping[int, pa.DataFrameSchema],
    rows: pl.DataFrame,
    versions: pl.Series,
    more: Mapping[str, pa.Check],
) -> pl.Series | None:
    """Mark the rows that fail a check of their own version; None if that cannot be decided row by row.

    What all versions ask is asked once, of all rows; the rest only of the rows of its version.
    """
    try:
        asked = {n: one for n, schema in schemas.items() if (one := _asked(schema, rows)) and not one.apart}
        return _failing_of(asked, rows, versions, more) if len(asked) == len(schemas) else None
    except Exception:  # a check raised: Pandera names it
        return None


def _failing_of(
    asked: Mapping[int, _Asked], rows: pl.DataFrame, versions: pl.Series, more: Mapping[str, pa.Check]
) -> pl.Series | None:
    """Mark the rows that fail a check of their version; None if one of ``more`` is no expression."""
    shared = reduce(and_, (one.expressions.keys() for one in asked.values()))
    first = next(iter(asked.values()))
    every = [first.expressions[key] for key in first.expressions if key in shared]
    of = pl.col(_JUDGE)
    for number, one in asked.items():
        own = [said for key, said in one.expressions.items() if key not in shared]
        every += [said | (of != number) for said in own]
    for name, check in more.items():
        expression = _expression(check, name)
        if expression is None:
            return None
        every.append(_verdict(check, expression))
    return _failing(every, rows.with_columns(versions.alias(_JUDGE)))


def _failures(
    schema: pa.DataFrameSchema, rows: pl.DataFrame, more: Mapping[str, pa.Check] = _NO_CHECKS
) -> pl.DataFrame | None:
    """Return Pandera's failure cases; None if there are none.

    Pandera runs some ninety queries on a batch, which nearly always is valid. So a single query asks all its
    checks first. Pandera then validates only the rows that fail one of them, to give its reasons.

    Args:
        schema: The expected schema.
        rows: Rows with the schema's columns.
        more: Further checks by column, beyond those of the schema.
    """
    try:
        suspects = _suspects(schema, rows, more)
    except Exception:  # a check raised: Pandera names it
        suspects = None
    if suspects is not None and not suspects.any():
        return None
    for name, check in more.items():
        schema = schema.update_column(name, checks=[*schema.columns[name].checks, check])
    if suspects is None:
        return _validated(schema, rows)
    at = suspects.arg_true()
    found = _validated(schema, rows.filter(suspects))
    if found is None or found["index"].n_unique() != len(at) or found["index"].null_count():
        return _validated(schema, rows)  # a check of a row depends on other rows
    return found.with_columns(at.gather(found["index"]).alias("index"))


def _validated(schema: pa.DataFrameSchema, rows: pl.DataFrame) -> pl.DataFrame | None:
    try:
        schema.validate(rows, lazy=True)
    except pa.errors.SchemaErrors as error:
        found: pl.DataFrame = error.failure_cases
        return found
    return None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a schema asks of rows.

    Attributes:
        expressions: Expressions that are true, or null, for what is in order; by column and check.
        apart: Checks that are no expressions: their answers, not computed yet.
    """

    expressions: Mapping[tuple[str, ...], pl.Expr]
    apart: tuple[pl.LazyFrame, ...]


def _asked(
    schema: pa.DataFrameSchema, rows: pl.DataFrame, more: Mapping[str, pa.Check] = _NO_CHECKS
) -> _Asked | None:
    """Return what a schema asks of rows; None if that cannot be decided row by row."""
    columns, dtypes = schema.columns, rows.schema
    if schema.checks or schema.unique or list(columns) != list(dtypes):
        return None
    if any(c.unique or c.dtype is None or c.dtype.type != dtypes[name] for name, c in columns.items()):
        return None
    schema.register_default_backends(pl.LazyFrame)  # Pandera does so only when a schema first validates
    asked, others = _expressions(schema)
    asked, apart = dict(asked), []
    for name, check in (*others, *more.items()):
        expression = _expression(check, name)
        if expression is not None:
            asked[name, str(check.name), str(check.statistics)] = _verdict(check, expression)
            continue
        said = _said(check, rows.lazy(), name)
        if not isinstance(said, pl.LazyFrame):
            return None
        apart.append(said.select(pl.all().fill_null(bool(check.ignore_na))))
    return _Asked(asked, tuple(apart))


def _expressions(
    schema: pa.DataFrameSchema,
) -> tuple[dict[tuple[str, ...], pl.Expr], list[tuple[str, pa.Check]]]:
    """Return what a schema asks as expressions, and its other checks by column.

    They are made once for a schema: a batch takes less time than a hundred expressions.
    """
    known = _MADE.get(id(schema))
    if known is not None and known[0] is schema:
        return known[1], known[2]
    asked: dict[tuple[str, ...], pl.Expr] = {}
    others: list[tuple[str, pa.Check]] = []
    for name, column in schema.columns.items():
        if not column.nullable:
            asked[name, "null"] = pl.col(name).is_not_null()
        if not column.nullable and column.dtype.type.is_float():
            asked[name, "nan"] = pl.col(name).is_not_nan()
        for check in column.checks:
            expression, key = _expression(check, name), (name, str(check.name), str(check.statistics))
            if expression is None or key in asked:
                others.append((name, check))
            else:
                asked[key] = _verdict(check, expression)
    if len(_MADE) >= _MOST_MADE:
        _MADE.clear()
    _MADE[id(schema)] = schema, asked, others
    return asked, others


def _verdict(check: pa.Check, expression: pl.Expr) -> pl.Expr:
    return expression if check.ignore_na else expression.fill_null(False)


def _suspects(
    schema: pa.DataFrameSchema, rows: pl.DataFrame, more: Mapping[str, pa.Check] = _NO_CHECKS
) -> pl.Series | None:
    """Mark the rows that fail a check; None if that cannot be decided row by row."""
    asked = _asked(schema, rows, more)
    if asked is None:
        return None
    outcomes = [outcome.to_series() for outcome in (pl.collect_all(asked.apart) if asked.apart else ())]
    if any(len(outcome) != rows.height for outcome in outcomes):
        return None
    outcomes = [outcome for outcome in outcomes if not outcome.all()]
    failing = _failing(list(asked.expressions.values()), rows)
    return (
        failing | ~reduce(and_, outcomes, pl.repeat(True, rows.height, eager=True)) if outcomes else failing
    )


def _failing(asked: Sequence[pl.Expr], rows: pl.DataFrame) -> pl.Series:
    """Mark the rows for which an expression is false.

    First whether all rows pass, which nearly always is enough; then which of them do.
    """
    verdicts = rows.select(one.all().alias(str(n)) for n, one in enumerate(asked)).row(0) if asked else ()
    doubted = [one.fill_null(True).alias(str(n)) for n, one in enumerate(asked) if not verdicts[n]]
    outcomes = rows.select(doubted).get_columns() if doubted else []
    return ~reduce(and_, outcomes, pl.repeat(True, rows.height, eager=True))


class _Noted:
    """Stands in for a frame and returns the expression that a check selects, instead of a result."""

    def select(self, expression: pl.Expr) -> pl.Expr:
        """Return the expression of a built-in check."""
        return expression


def _expression(check: pa.Check, column: str) -> pl.Expr | None:
    """Return the expression of a built-in check, so that one query can ask all checks; None if there is none."""
    function = _builtin(check)
    if function is None:
        return None
    try:
        asked = function(PolarsData(_Noted(), column))  # type: ignore[arg-type]
    except AttributeError:  # the check uses more of the frame
        return None
    return asked if isinstance(asked, pl.Expr) else None


def _builtin(check: pa.Check) -> Callable[[PolarsData], Any] | None:
    """Return the function of a built-in check, as it is registered for Polars by now."""
    found = builtin(check)
    if found is None:
        return None
    name, arguments = found
    return partial(check.get_builtin_check_fn(name), **arguments)


def _said(check: pa.Check, lazy: pl.LazyFrame, column: str) -> pl.LazyFrame | bool:
    """Prepare the answer of a check without computing it: the first half of ``Check.__call__``."""
    backend: Any = check.get_backend(lazy)(check)
    backend.check_fn = _builtin(check) or backend.check_fn
    said: pl.LazyFrame | bool = backend.apply(PolarsData(lazy, column))
    return said


def _check_name(name: str) -> str:
    return _REQUIRED if name == "not_nullable" else name


def _split(
    contract: Contract,
    batch: MicroBatch,
    decoded: Decoded,
    reasons: pl.DataFrame,
    versions: pl.Series | None,
    batch_id: str,
    now: datetime,
) -> CheckedBatch:
    records = batch.records.select_seq(
        pl.lit(batch.source).alias("_source"),
        pl.col("cursor").alias("_cursor"),
        pl.col("offset").alias("_offset"),
        pl.col("message_id").alias("_message_id"),
        pl.lit(now, dtype=UTC_MICROS).alias("_ingested_at"),
        pl.lit(batch_id).alias("_batch_id"),
        pl.col("key").alias("_key"),
        pl.col("headers").fill_null(_NO_HEADERS).alias("_headers"),
        "payload",
        pl.col("timestamp").alias("message_timestamp"),
    )
    whole = decoded.rows.height == records.height
    origin = (records if whole else records[decoded.message]).hstack([decoded.index.alias("_index")])
    bad = _mask(reasons["row"], decoded.rows.height)
    good = decoded.rows.hstack(origin.select(ORIGIN_SCHEMA.names()))
    if bad is not None:
        good = good.filter(~bad)
    good = good.with_columns(pl.col(contract.time).dt.date().alias(contract.partition))
    good = good.select(contract.landed_schema.names())
    if contract.casts:
        good = good.cast(contract.casts)  # type: ignore[arg-type]
    if bad is None:
        return CheckedBatch(good, pl.DataFrame(schema=REJECTED_SCHEMA), batch_id, decoded.unknown)
    payload = payloads_of(batch.records["payload"], decoded, bad, as_sent(batch.records))
    judges = None if versions is None else versions.filter(bad)
    rejected = _rejected(contract, origin.filter(bad), bad, reasons, payload, judges)
    return CheckedBatch(good, rejected, batch_id, decoded.unknown)


def _mask(rejected: pl.Series, height: int) -> pl.Series | None:
    if rejected.is_empty():
        return None
    return pl.int_range(height, dtype=pl.UInt32, eager=True).is_in(rejected.unique().implode())


def _rejected(
    contract: Contract,
    origin: pl.DataFrame,
    bad: pl.Series,
    reasons: pl.DataFrame,
    payload: pl.Series,
    versions: pl.Series | None,
) -> pl.DataFrame:
    reasons = (
        reasons.unique(maintain_order=True)
        .group_by("row")
        .agg(pl.struct("check", "column", "value").alias("reasons"))
        .sort("row")
    )
    at = bad.arg_true()
    if not reasons["row"].equals(at.cast(pl.UInt32).rename("row")):
        raise Fatal("the rejected rows and their reasons do not match; this is a defect of Headrace")
    return origin.with_columns(
        payload,
        reasons["reasons"],
        pl.lit(contract.name).alias("contract"),
        (pl.lit(contract.version, dtype=pl.Int32) if versions is None else versions).alias("contract_version"),
        pl.col("_ingested_at").dt.date().alias("rejected_date"),
    ).select(REJECTED_SCHEMA.names()).cast(REJECTED_SCHEMA)  # fmt: skip
