"""Propose columns for fields whose values are numbers, booleans or texts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from headrace.contracts.inference.columns import Values
from headrace.contracts.inference.proposal import Misfits, Proposal, counted, quoted, shown
from headrace.contracts.inference.sample import Kind
from headrace.contracts.inference.texts import BOOLEANS, DECORATED, NULLS, NULLS_OF_TYPED, Reading, readings
from headrace.core.batch import UTC_MICROS

#: A type is proposed if so many texts are of it; the others will be rejected.
_MOST = 0.98
#: Fewest records from which something follows for all others.
ENOUGH = 100
_LONGEST_TEXTS = (32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 262_144)
#: A column of few values has at most so many, and each so often on average.
_FEW, _OFTEN, _NAMED = 1_000, 20, 8
#: Names of amounts, of moments and of yes and no.
_MONEY = re.compile(
    r"(^|_)(price|amount|cost|total|subtotal|revenue|fee|tax|vat|balance|salary|discount|payment)s?($|_)"
)
_WHEN = re.compile(
    r"(^|_)(ts|time|timestamp|date|datetime|at|created|updated|modified|epoch|when|since|until|expires|dt)($|_)"
)
_WHETHER = re.compile(r"^(is|has|was|can|should)_")
#: Units of numbers since 1970 -> their format; nanoseconds have none.
_EPOCHS = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000}
_EARLIEST, _LATEST = (
    datetime(2000, 1, 1, tzinfo=UTC).timestamp(),
    datetime(2045, 1, 1, tzinfo=UTC).timestamp(),
)
_PLURAL = {
    "boolean": "true or false",
    "integer": "whole numbers",
    "number": "numbers",
    "text": "texts",
    "array": "lists",
    "object": "objects",
}
_INT64 = range(-(2**63), 2**63)


def scalar(values: Values, kind: str, name: str, of: Kind, numbers: list[int]) -> Proposal:
    """Propose a column for the values of one kind; the others are misfits.

    Args:
        values: All values of the field.
        kind: The kind that most of them have: ``boolean``, ``number``, ``integer`` or ``text``.
        name: Name of the column.
        of: What the sample is of.
        numbers: Number of each record in its source.
    """
    kinds = ("integer", "number") if kind in ("integer", "number") else (kind,)
    chosen, missing = values.of_kind(*kinds), values.missing
    if kind == "text":
        proposal = _text(chosen, name, of == "csv", numbers)
    elif kind == "boolean":
        proposal = Proposal(values.path, "boolean", "pl.Boolean")
        proposal.series = _spread(chosen, pl.Series(chosen.values, dtype=pl.Boolean))
        proposal.seen = f"{sum(chosen.values):,} true, {len(chosen.values) - sum(chosen.values):,} false"
    elif kind == "integer":
        proposal = _integers(chosen, name)
    else:
        proposal = _numbers(chosen, name)
    proposal.missing += missing
    _add_strangers(proposal, values, kinds, numbers, typed=of == "parquet")
    return proposal


def _add_strangers(
    proposal: Proposal, values: Values, kinds: tuple[str, ...], numbers: list[int], *, typed: bool
) -> None:
    """Note the values of other kinds; texts that mean null do so among numbers, too.

    In a typed column other kinds are what JSON has no number for, such as NaN.
    """
    for other in sorted(set(values.kinds()) - set(kinds)):
        strange = values.of_kind(other)
        if other == "text" and not typed and set(strange.values) <= NULLS_OF_TYPED:
            proposal.arguments["nulls"] = tuple(sorted(set(strange.values)))
            proposal.missing += len(strange.values)
            continue
        add_misfits(proposal, _PLURAL[other], strange.values, strange.at, numbers)


def add_misfits(proposal: Proposal, what: str, values: list[Any], at: list[int], numbers: list[int]) -> None:
    """Note values that will be rejected."""
    if values:
        proposal.misfits.append(Misfits(len(values), what, shown(values[0]), numbers[at[0]]))


def _spread(values: Values, typed: pl.Series) -> pl.Series:
    """Return one value per record."""
    if len(typed) == values.records:
        return typed
    index = pl.Series(values.at, dtype=pl.UInt32)
    empty = pl.Series([None], dtype=typed.dtype).new_from_index(0, values.records)
    return empty.scatter(index, typed) if len(typed) else empty


def _between(low: object, high: object) -> str:
    if isinstance(low, int) and isinstance(high, int):
        return f"{low:,} to {high:,}" if low != high else f"always {low:,}"
    return f"{low} to {high}" if low != high else f"always {low}"


def _integers(values: Values, name: str) -> Proposal:
    low, high = min(values.values), max(values.values)
    proposal = Proposal(values.path, "integer", "pl.Int64", seen=_between(low, high))
    if low not in _INT64 or high not in _INT64:
        if low >= 0 and high < 2**64:
            proposal.dtype = "pl.UInt64"
            proposal.series = _spread(values, pl.Series(values.values, dtype=pl.UInt64))
        else:
            proposal.kind, proposal.dtype = "number", "pl.Float64"
            proposal.series = _spread(values, pl.Series([float(v) for v in values.values], dtype=pl.Float64))
            proposal.decide.append(
                "integers beyond 64 bits lose digits in pl.Float64; send them as text instead"
            )
        return proposal
    whole = pl.Series(values.values, dtype=pl.Int64)
    proposal.series = _spread(values, whole)
    _as_epoch(proposal, whole, name)
    return proposal


def _as_epoch(proposal: Proposal, whole: pl.Series, name: str) -> None:
    """Take integers for times if name and size say so; size alone is only worth a remark."""
    low, high = whole.min(), whole.max()
    assert isinstance(low, int) and isinstance(high, int)
    for format, unit in _EPOCHS.items():
        if not (_EARLIEST * unit <= low and high <= _LATEST * unit):
            continue
        first, last = (datetime.fromtimestamp(at / unit, UTC) for at in (low, high))
        if not _WHEN.search(name):
            proposal.hints.append(
                f"as {format} these are {first:%Y-%m-%d} to {last:%Y-%m-%d}; for a time write Time and"
                f" format={quoted(format)}"
            )
            return
        proposal.kind, proposal.dtype = "time", "Time"
        proposal.arguments["format"] = format
        proposal.seen = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
        micros = 1_000_000 // unit
        proposal.series = (proposal.series * micros).cast(UTC_MICROS)
        return


def _numbers(values: Values, name: str) -> Proposal:
    """Propose a column for numbers, some of which have a fraction."""
    floats = pl.Series([float(v) for v in values.values], dtype=pl.Float64)
    proposal = Proposal(values.path, "number", "pl.Float64", seen=_between(floats.min(), floats.max()))
    proposal.series = _spread(values, floats)
    places = {
        max(0, -int(v.as_tuple().exponent)) for v in values.values if isinstance(v, Decimal) and v.is_finite()
    }
    _as_money(proposal, places, name)
    if floats.is_infinite().any():
        proposal.decide.append("some are beyond the range of pl.Float64 and will be rejected")
    return proposal


def _as_money(proposal: Proposal, places: set[int], name: str) -> None:
    """Take numbers for amounts of money if name and digits say so; digits alone are only worth a remark."""
    if not places or max(places) > 4:
        return
    largest = proposal.series.abs().max()
    if not isinstance(largest, float) or largest >= 1e14:
        return
    exact = f"Annotated[pl.Decimal, 18, {max(places)}]"
    if len(places) == 1 and max(places) > 1 and proposal.series.n_unique() > _NAMED and _MONEY.search(name):
        proposal.kind, proposal.dtype = "decimal", exact
    elif _MONEY.search(name):
        proposal.hints.append(f"for exact amounts write {exact}")


def _text(values: Values, name: str, cells: bool, numbers: list[int]) -> Proposal:
    """Propose a column for texts: of the type that they can be read as, or of text."""
    texts = pl.Series(values.values, dtype=pl.String)
    typed_nulls = (
        texts.str.strip_chars().is_in(list(NULLS_OF_TYPED)) if cells else texts.is_in(list(NULLS_OF_TYPED))
    )
    kept = ~typed_nulls
    real = texts.filter(kept)
    best = _best(real, cells)
    if best is not None and len(real):
        return _read_as(values, best, texts, kept, name, numbers)
    return _plain_text(values, texts, name, cells)


def _best(texts: pl.Series, cells: bool) -> Reading | None:
    """Return the reading that nearly all texts fit: the most fitting one, of equals the first."""
    if not len(texts):
        return None
    unique = texts.value_counts(sort=True)
    counts = unique["count"]
    found: tuple[int, Reading] | None = None
    for reading in readings(unique[texts.name], cells=cells):
        fits = int(counts.filter(reading.values.is_not_null()).sum() or 0)
        if found is None or fits > found[0]:
            found = (fits, reading)
    if found is None or found[0] < (_MOST if len(texts) >= ENOUGH else 1) * len(texts):
        return None
    best = found[1]
    mapping = pl.DataFrame({"text": unique[texts.name], "value": best.values})
    values = texts.to_frame("text").join(mapping, on="text", how="left", maintain_order="left")["value"]
    return Reading(best.kind, values, best.format, best.zoned, best.other)


def _read_as(
    values: Values, best: Reading, texts: pl.Series, kept: pl.Series, name: str, numbers: list[int]
) -> Proposal:
    places = kept.arg_true()
    at = pl.Series(values.at, dtype=pl.UInt32)[places].to_list()
    read = Values(values.path, values.records, best.values.to_list(), at)
    known = best.values.is_not_null()
    right = Values(
        values.path,
        values.records,
        best.values.filter(known).to_list(),
        [a for a, k in zip(at, known, strict=True) if k],
    )
    real = texts.filter(kept)
    match best.kind:
        case "integer":
            proposal = _integers(right, name)
            _as_flag(proposal, name)
        case "number":
            proposal = _numbers(right, name)
            points = real.filter(known).str.extract(r"\.(\d+)$").str.len_chars()
            _as_money(proposal, set() if points.null_count() else set(points.to_list()), name)
        case "boolean":
            proposal = Proposal(values.path, "boolean", "pl.Boolean", seen=_words(real))
        case "uuid":
            proposal = Proposal(values.path, "uuid", "pl.String", {"wire": "uuid"})
            proposal.seen = f"{real.n_unique():,} different"
        case "date":
            proposal = _dates(values, right.values, best)
        case _:
            proposal = _times(values, right.values, best)
    if best.kind not in ("integer", "number"):
        proposal.series = _spread(read, best.values)
    nulls = texts.filter(~kept)
    if len(nulls):
        # cells are stripped before they are compared; an empty cell is null anyway
        proposal.arguments["nulls"] = tuple(sorted(set(nulls.to_list())))
        proposal.missing += len(nulls)
    wrong = (~known).arg_true().to_list()
    noun = {"integer": "not whole numbers", "number": "not numbers", "uuid": "no UUIDs"}.get(
        best.kind, f"no {best.kind}s"
    )
    add_misfits(proposal, noun, [real[n] for n in wrong], [at[n] for n in wrong], numbers)
    return proposal


def _as_flag(proposal: Proposal, name: str) -> None:
    if (
        proposal.kind == "integer"
        and _WHETHER.search(name)
        and proposal.series.drop_nulls().is_in([0, 1]).all()
    ):
        proposal.kind, proposal.dtype = "boolean", "pl.Boolean"
        proposal.series = proposal.series.cast(pl.Boolean)


def _words(texts: pl.Series) -> str:
    counts = texts.value_counts(sort=True)
    return ", ".join(f"{n:,} {shown(text, 10)}" for text, n in counts.head(6).iter_rows())


def _dates(values: Values, dates: list[Any], best: Reading) -> Proposal:
    proposal = Proposal(values.path, "date", "pl.Date", seen=_between(min(dates), max(dates)))
    if best.format != "%Y-%m-%d":
        proposal.arguments["format"] = best.format
    if best.other:
        proposal.decide.append(f"format={quoted(best.other)} fits all of them as well")
    return proposal


def _times(values: Values, times: list[Any], best: Reading) -> Proposal:
    first, last = min(times), max(times)
    proposal = Proposal(
        values.path, "time", "Time", seen=_between(f"{first:%Y-%m-%d %H:%M}", f"{last:%Y-%m-%d %H:%M}")
    )
    if best.format != "rfc3339":
        proposal.arguments["format"] = best.format
    if best.other:
        proposal.decide.append(f"format={quoted(best.other)} fits all of them as well")
    if best.format.endswith((" GMT", "SZ")):
        proposal.arguments["zone"] = "UTC"
    elif not best.zoned:
        proposal.arguments["zone"] = "UTC"
        proposal.decide.append(
            'the times say no zone; UTC is an assumption, write theirs, such as "Europe/Berlin"'
        )
    return proposal


def _plain_text(values: Values, texts: pl.Series, name: str, cells: bool) -> Proposal:
    proposal = Proposal(values.path, "text", "pl.String")
    nulls = texts.is_in(list(NULLS))
    if nulls.any():
        proposal.arguments["nulls"] = tuple(sorted(set(texts.filter(nulls).to_list())))
        proposal.missing += int(nulls.sum())
    real = texts.filter(~nulls)
    proposal.series = _spread(values, texts.set(nulls, None))
    if not len(real):
        proposal.seen = "nothing but texts that mean null"
        proposal.arguments["length"] = (1, 256)
        return proposal
    lengths = real.str.len_chars()
    longest, shortest, different = lengths.max(), lengths.min(), real.n_unique()
    assert isinstance(longest, int) and isinstance(shortest, int)
    proposal.arguments["length"] = (1, next((n for n in _LONGEST_TEXTS if n >= 2 * longest), 2 * longest))
    said = (
        f"{shortest:,} to {longest:,} characters" if shortest != longest else counted(longest, "characters")
    )
    proposal.seen = f"{said}, {different:,} different"
    if len(real) >= ENOUGH and different <= _FEW and different * _OFTEN <= len(real):
        _of_few_values(proposal, real, different)
    padded = real.str.contains(r"^\s|\s$")
    if padded.any():
        proposal.arguments["strip"] = True
    _remarks(proposal, real, name, cells)
    return proposal


def _of_few_values(proposal: Proposal, texts: pl.Series, different: int) -> None:
    proposal.arguments["low_cardinality"] = True
    if different <= _NAMED and int(texts.str.len_chars().max() or 0) <= 24:  # type: ignore[arg-type]
        proposal.seen = _words(texts) if different <= 6 else proposal.seen
        names = ", ".join(quoted(text) for text in sorted(set(texts.to_list())))
        if different > 1:
            proposal.hints.append(f"isin=[{names}] would refuse any other")
    lower = texts.str.to_lowercase().n_unique()
    if lower < different:
        proposal.hints.append(f"lower=True would make {lower:,} values of {different:,}")


def _remarks(proposal: Proposal, texts: pl.Series, name: str, cells: bool) -> None:
    """Say what the texts look like, where a type would need a person's word."""
    head = texts.head(1_000).to_list()
    digits = [text for text in head if text.strip().lstrip("+-").replace(".", "", 1).isdigit()]
    if len(digits) == len(head) and not cells:
        proposal.decide.append(
            f'numbers that are sent as text; derive=pl.col("{name}").cast(pl.Float64) in another field makes numbers of'
            " them, and landed=False here keeps the text out"
        )
    elif (
        len(digits) < len(head)
        and all(DECORATED.fullmatch(text) for text in head)
        and not all(text.isdigit() for text in head)
    ):
        proposal.decide.append(
            "numbers that are written for people; derive= in another field, or a model, makes numbers of them"
        )
    elif not cells and any({text.lower() for text in head} == words for words in BOOLEANS):
        proposal.decide.append("yes and no that are sent as text; let producers send true and false")
